"""Recipes: one TOML file a training run, checked whole before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nuxel.data.dataset import Source
from nuxel.errors import NuxelError, UsageError
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.training.augment import Augmentation

SYSTEMS: dict[str, type[MultiheadUNet]] = {MultiheadUNet.name: MultiheadUNet}


@dataclass(frozen=True)
class Schedule:
    """The training loop.

    Parameters
    ----------
    epochs, steps_per_epoch, batch, crop
        An epoch is ``steps_per_epoch`` batches of ``batch`` random views of ``crop`` x ``crop`` pixels.
    encoder_rate, decoder_rate, weight_decay
        AdamW; both rates rise over ``warmup_steps`` and fall to zero along a cosine.
    average_decay
        Decay a step of the exponential moving average of the weights, which is what is validated and exported.
    validate_every
        Epochs between validations.
    balance
        How groups are sampled: 1 as they come, 0 all alike.
    workers
        Processes that prepare samples; the samples are the same for any number.
    devices
        GPUs (or CPU processes, where there is no GPU); each takes batches of its own, with distributed data parallel.
    precision
        ``"32-true"``, or ``"16-mixed"`` or ``"bf16-mixed"`` on a GPU.
    """

    epochs: int = 50
    steps_per_epoch: int = 100
    batch: int = 8
    crop: int = 256
    encoder_rate: float = 5e-4
    decoder_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    gradient_clip: float = 5.0
    average_decay: float = 0.998
    validate_every: int = 5
    balance: float = 0.5
    workers: int = 1
    devices: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "batch", "crop", "validate_every", "devices"):
            _require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        for name in (
            "encoder_rate",
            "decoder_rate",
            "weight_decay",
            "warmup_steps",
            "gradient_clip",
            "workers",
        ):
            value = getattr(self, name)
            _require(math.isfinite(value) and value >= 0, name, "not be negative", value)
        _require(math.isfinite(self.balance), "balance", "be finite", self.balance)
        _require(0 <= self.average_decay <= 1, "average_decay", "lie between 0 and 1", self.average_decay)
        _require(
            self.precision in _PRECISIONS, "precision", f"be one of {', '.join(_PRECISIONS)}", self.precision
        )


_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


def _require(met: bool, name: str, what: str, value: object) -> None:
    if not met:
        raise UsageError(f"{name} must {what}, got {value!r}")


@dataclass(frozen=True)
class Data:
    """Where the annotated images are."""

    train: tuple[Source, ...] = ()
    val: tuple[Source, ...] = ()


@dataclass(frozen=True)
class About:
    """What the exported model says of itself."""

    title: str = ""
    licence: str = "BSD-3-Clause"
    training_data: str = ""


@dataclass(frozen=True)
class Recipe:
    """A whole training run. ``raw`` is the TOML as it was read, kept in the run folder."""

    system: MultiheadUNet
    data: Data
    schedule: Schedule
    augmentation: Augmentation
    about: About
    seed: int
    raw: Mapping[str, Any] = field(repr=False)


_TABLES = {"data": Data, "schedule": Schedule, "augmentation": Augmentation, "about": About}


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; ``overrides`` are ``table.key=value`` with TOML values.

    Raises
    ------
    UsageError
        If the file is missing or no TOML, or a key or value is wrong: one sentence with the nearest right key.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
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
    _known_keys(raw, {"system", "seed", *system_tables, *_TABLES}, where)
    seed = raw.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"{where}: seed must be a whole number >= 0, got {seed!r}")
    tables: dict[str, Any] = {
        key: _build(kind, raw.get(key, {}), f"{where}: [{key}]") for key, kind in _TABLES.items()
    }
    own = {key: raw[key] for key in sorted(system_tables) if key in raw}
    system = _build(system_type, own, where)
    stride, crop = system.stride, tables["schedule"].crop
    if crop % stride or crop < 2 * stride:
        raise UsageError(
            f"{where}: [schedule] crop must be a multiple of the network's stride {stride} and at least "
            f"{2 * stride}, got {crop}"
        )
    return Recipe(system=system, seed=seed, raw=raw, **tables)


T = TypeVar("T")


def _build(kind: type[T], values: object, where: str) -> T:
    """A (nested) dataclass from a TOML table, every key and type checked."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a table")
    hints = typing.get_type_hints(kind)
    _known_keys(values, set(hints), where)
    built = {}
    for key, value in values.items():
        place = f"{where}: [{key}]" if dataclasses.is_dataclass(hints[key]) else f"{where} {key}"
        built[key] = _value(hints[key], value, place)
    missing = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in built
    ]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} is missing")
    try:
        return kind(**built)
    except NuxelError as error:
        raise UsageError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise UsageError(f"{where} must be a list, got {value!r}")
        inner = typing.get_args(hint)
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            raise UsageError(f"{where} must be a list of {len(inner)}, got {value!r}")
        return tuple(_value(inner[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a table, got {value!r}")
        return {str(k): str(v) for k, v in value.items()}
    allowed = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(_KINDS[kind] for kind in allowed if kind is not type(None))
        raise UsageError(f"{where} must be {names}, got {value!r}")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _known_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            raise UsageError(f"{where}: unknown key {key!r}; {hint}")


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
