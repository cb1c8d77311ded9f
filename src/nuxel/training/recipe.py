"""Recipes: one TOML file a training run, checked whole before anything starts."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nuxel.data.dataset import Source
from nuxel.errors import UsageError
from nuxel.systems.attention_mask_rcnn import AttentionMaskRCNN
from nuxel.systems.fcn8s import FCN8sSystem
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.systems.partial_mask_rcnn import PartialMaskRCNN
from nuxel.systems.system import System
from nuxel.systems.us_net import USNet
from nuxel.training.augment import Augmentation
from nuxel.training.schedule import Schedule
from nuxel.training.toml_tables import build_table, check_keys

SYSTEMS: dict[str, type[Any]] = {
    system.name: system for system in (MultiheadUNet, AttentionMaskRCNN, FCN8sSystem, PartialMaskRCNN, USNet)
}


@dataclass(frozen=True)
class Data:
    """Where the annotated images are.

    Parameters
    ----------
    partial
        In the label images of ``train`` 0 means not annotated, rather than background.
    keep, crop
        Learn from this share of the nuclei of ``train`` only, as if nobody had annotated the rest, or from this share
        of the area of each of its images: what ``nuxel thin`` does, with the recipe's seed, but that a crop leaves
        nothing to be seen outside. For studies.
    patch
        Side and stride, in pixels, of the square patches that the images of ``train`` are cut into first: views are
        then drawn from all patches alike, and none reaches beyond its patch. An image that is smaller is one patch.
        For papers that prepare their images so.
    """

    train: tuple[Source, ...] = ()
    val: tuple[Source, ...] = ()
    partial: bool = False
    keep: float = 1.0
    crop: float = 1.0
    patch: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.patch is not None and not 0 < self.patch[1] <= self.patch[0]:
            raise UsageError(
                f"patch must be a side and a stride of at most that side, got {list(self.patch)}"
            )
        for name in ("keep", "crop"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise UsageError(f"{name} must be a share above 0 and at most 1, got {share!r}")
        if self.keep < 1 and self.crop < 1:
            raise UsageError("keep and crop are two ways to leave out annotations; choose one")


@dataclass(frozen=True)
class About:
    """What the exported model says of itself."""

    title: str = ""
    licence: str = "BSD-3-Clause"
    training_data: str = ""


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Parameters
    ----------
    init
        A run folder, a checkpoint or a model (an ``.onnx`` file, or a shipped one's name) whose weights are the first
        ones.
    raw
        The TOML as it was read, kept in the run folder.
    """

    system: System
    data: Data
    schedule: Schedule
    augmentation: Augmentation
    about: About
    seed: int
    init: str | None
    raw: Mapping[str, Any] = field(repr=False)


_TABLES = {"data": Data, "schedule": Schedule, "augmentation": Augmentation, "about": About}

_ZOOM_KEYS = {"zoom_range", "diameter", "diameter_octaves", "wide_p", "wide_range"}
_OWN_SCALE = (0.8, 1.25)
"""Zoom of the views of networks that predict at the image's own scale, since they cannot tell how large nuclei are."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; ``overrides`` are ``table.key=value`` with TOML values.

    Raises
    ------
    UsageError
        If the file is missing or no TOML, or a key or value is wrong: one sentence with the nearest right key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a readable TOML recipe ({error})") from None
    for override in overrides:
        _override(raw, override)
    return make_recipe(raw, str(path))


def make_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe that is already a mapping."""
    name = raw.get("system")
    if not isinstance(name, str) or name not in SYSTEMS:
        raise UsageError(f"{where}: system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    system_type = SYSTEMS[name]
    system_tables = {f.name for f in dataclasses.fields(system_type)}
    check_keys(raw, {"system", "seed", "init", *system_tables, *_TABLES}, where)
    seed = raw.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UsageError(f"{where}: seed must be a whole number from 0 to {2**32 - 1}, got {seed!r}")
    init = raw.get("init")
    if init is not None and not (isinstance(init, str) and init):
        raise UsageError(f"{where}: init must name a run folder, a checkpoint or a model, got {init!r}")
    tables: dict[str, Any] = {
        key: build_table(kind, raw.get(key, {}), f"{where}: [{key}]") for key, kind in _TABLES.items()
    }
    if tables["schedule"].stages and "epochs" in raw["schedule"]:
        raise UsageError(f"{where}: [schedule] has stages, which have epochs of their own; leave epochs out")
    own = {key: raw[key] for key in sorted(system_tables) if key in raw}
    system: System = build_table(system_type, own, where)
    for stage in tables["schedule"].stages:
        if len(set(stage.freeze)) != len(stage.freeze) or not set(stage.freeze) < set(system.parts):
            raise UsageError(
                f"{where}: [schedule] freeze must list some of {', '.join(system.parts)} or none, and not all, "
                f"got {list(stage.freeze)}"
            )
    if "log_diameter" not in system.maps and not _ZOOM_KEYS & raw.get("augmentation", {}).keys():
        tables["augmentation"] = dataclasses.replace(tables["augmentation"], zoom_range=_OWN_SCALE)
    if lacking := [name for name in system.decoder_rule.maps if name not in system.maps]:
        raise UsageError(
            f"{where}: [decoder_rule] needs the map {lacking[0]}, which the network does not have; add it to [network] "
            "heads, or change the rule (split = 'none' needs the nucleus map alone)"
        )
    stride = system.stride
    for name in ("crop", "window"):
        side = getattr(tables["schedule"], name)
        if side is not None and (side % stride or side < 2 * stride):
            raise UsageError(
                f"{where}: [schedule] {name} must be a multiple of the network's stride {stride} and at least "
                f"{2 * stride}, got {side}"
            )
    return Recipe(system=system, seed=seed, init=init, raw=raw, **tables)


def _override(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {override}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = path.strip().split(".")
    for table in tables:
        raw = raw.setdefault(table, {})
        if not isinstance(raw, dict):
            raise UsageError(f"--set {override}: {table} is not a table")
    raw[key] = value
