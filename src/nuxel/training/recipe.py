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
from nuxel.systems.attention_mask_rcnn import AttentionMaskRCNN
from nuxel.systems.fcn8s import FCN8sSystem
from nuxel.systems.multihead_unet import MultiheadUNet
from nuxel.systems.partial_mask_rcnn import PartialMaskRCNN
from nuxel.systems.system import System
from nuxel.systems.us_net import USNet
from nuxel.training.augment import Augmentation

SYSTEMS: dict[str, type[Any]] = {
    system.name: system for system in (MultiheadUNet, AttentionMaskRCNN, FCN8sSystem, PartialMaskRCNN, USNet)
}


@dataclass(frozen=True)
class Stage:
    """Epochs that follow each other with the same rates and the same frozen parts.

    Parameters
    ----------
    encoder_rate, decoder_rate
        Where left out, the schedule's.
    freeze
        Parts of the network that keep their weights and the statistics of their batch normalisation.
    """

    epochs: int
    encoder_rate: float | None = None
    decoder_rate: float | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "be at least 1", self.epochs)
        for name in ("encoder_rate", "decoder_rate"):
            value = getattr(self, name)
            _require(value is None or _is_amount(value), name, "not be negative", value)


@dataclass(frozen=True)
class Schedule:
    """The training loop.

    Parameters
    ----------
    epochs, steps_per_epoch, batch, crop
        An epoch is ``steps_per_epoch`` batches of ``batch`` random views of ``crop`` x ``crop`` pixels.
    window
        Side of the windows in which a network that detects, or one with a global operation, predicts; that of its
        training views if it is None. Other networks take windows of any size.
    stages
        In place of ``epochs``: stages, one after the other, each with a learning rate that starts anew.
    optimiser, weight_decay
        ``"adamw"``, whose decay is decoupled from the gradient, ``"adam"``, whose decay is part of it, or ``"sgd"``
        with momentum 0.9.
    decoder_optimiser, decoder_weight_decay
        Those of the system's part ``decoder``, where they differ.
    encoder_rate, decoder_rate, warmup_steps
        The greatest learning rates, which a stage reaches after ``warmup_steps``, rising linearly. ``decoder_rate`` is
        that of the system's part ``decoder``, ``encoder_rate`` that of all others.
    policy
        ``"cosine"``: the rates fall to zero at the stage's end, along half a cosine. ``"step"``: they are multiplied by
        ``factor`` after ``every`` epochs of the stage, again and again.
    gradient_clip
        Greatest norm of the gradient; 0 for no limit.
    average_decay
        Decay a step of the exponential moving average of the weights, which is what is validated and exported; 0 for
        the weights as they are.
    validate_every
        Epochs between validations.
    balance
        How groups are sampled: 1 as they come, 0 all alike.
    candidates
        Each view is that of so many random ones of an image which shows most annotated nuclei: for partly annotated
        images, where few would be seen otherwise.
    workers
        Processes that prepare samples; the samples are the same for any number.
    devices
        GPUs (or CPU processes, where there is no GPU); each takes batches of its own, with distributed data parallel.
    precision
        ``"32-true"``; ``"bf16-mixed"``, on a GPU or a processor that multiplies bfloat16; ``"16-mixed"`` on a GPU; or
        ``"auto"``, the second where there is such hardware and the first elsewhere.
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
    optimiser: str = "adamw"
    policy: str = "cosine"
    factor: float = 0.75
    every: int = 3
    stages: tuple[Stage, ...] = ()
    decoder_optimiser: str | None = None
    decoder_weight_decay: float | None = None
    window: int | None = None
    candidates: int = 1

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "steps_per_epoch",
            "batch",
            "crop",
            "validate_every",
            "devices",
            "every",
            "candidates",
        ):
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
            _require(_is_amount(value), name, "not be negative", value)
        decay = self.decoder_weight_decay
        _require(decay is None or _is_amount(decay), "decoder_weight_decay", "not be negative", decay)
        _require(math.isfinite(self.balance), "balance", "be finite", self.balance)
        _require(0 <= self.average_decay <= 1, "average_decay", "lie between 0 and 1", self.average_decay)
        _require(0 < self.factor <= 1, "factor", "lie above 0 and not above 1", self.factor)
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            _require(value is None or value in known, name, f"be one of {', '.join(known)}", value)

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        return sum(stage.epochs for stage in self.stages) or self.epochs

    def optimiser_of(self, part: str) -> tuple[str, float]:
        """Name of the optimiser of a part of the network, and its weight decay.

        Examples
        --------
        >>> schedule = Schedule(optimiser="sgd", weight_decay=1e-4, decoder_optimiser="adam")
        >>> schedule.optimiser_of("encoder"), schedule.optimiser_of("decoder")
        (('sgd', 0.0001), ('adam', 0.0001))
        """
        name, decay = self.optimiser, self.weight_decay
        if part == "decoder":
            name = self.decoder_optimiser or name
            decay = decay if self.decoder_weight_decay is None else self.decoder_weight_decay
        return name, decay

    def stage_at(self, epoch: int) -> tuple[Stage, int]:
        """The stage of an epoch (from 0) and the stage's first epoch; after the run's end the last stage.

        Examples
        --------
        >>> schedule = Schedule(stages=(Stage(5, freeze=("encoder",)), Stage(15)))
        >>> schedule.stage_at(4)[1], schedule.stage_at(5)[1], schedule.stage_at(20)[1]
        (0, 5, 5)
        """
        stages = self.stages or (Stage(self.epochs),)
        first = 0
        for stage in stages[:-1]:
            if epoch < first + stage.epochs:
                return stage, first
            first += stage.epochs
        return stages[-1], first

    def greatest_rate(self, part: str) -> float:
        """The greatest learning rate that a part of the network has in any stage."""
        return max(self._rate(part, stage) for stage in self.stages or (Stage(self.epochs),))

    def relative_rate(self, part: str, step: int) -> float:
        """Learning rate of a part at an optimiser step (from 0) over the greatest that it has, in ``[0, 1]``.

        A function of the step alone, so that a run can be resumed anywhere.
        """
        stage, first = self.stage_at(step // self.steps_per_epoch)
        own = self._rate(part, stage)
        share = own / self.greatest_rate(part) if own else 0.0
        return share * self._factor(step - first * self.steps_per_epoch, stage.epochs * self.steps_per_epoch)

    def _rate(self, part: str, stage: Stage) -> float:
        name = "decoder_rate" if part == "decoder" else "encoder_rate"
        own = getattr(stage, name)
        rate: float = getattr(self, name) if own is None else own
        return rate

    def _factor(self, step: int, total: int) -> float:
        """What warm-up and policy leave of the rate at a step of a stage of ``total`` steps."""
        warmup = self.warmup_steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.policy == "step":
            return float(self.factor ** (step // self.steps_per_epoch // self.every))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


_CHOICES = {
    "precision": ("32-true", "16-mixed", "bf16-mixed", "auto"),
    "optimiser": ("adamw", "adam", "sgd"),
    "decoder_optimiser": ("adamw", "adam", "sgd"),
    "policy": ("cosine", "step"),
}


def _require(met: bool, name: str, what: str, value: object) -> None:
    if not met:
        raise UsageError(f"{name} must {what}, got {value!r}")


def _is_amount(value: float) -> bool:
    return math.isfinite(value) and value >= 0


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
            _require(
                0 < getattr(self, name) <= 1, name, "be a share above 0 and at most 1", getattr(self, name)
            )
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
    _known_keys(raw, {"system", "seed", "init", *system_tables, *_TABLES}, where)
    seed = raw.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"{where}: seed must be a whole number >= 0, got {seed!r}")
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
    stride = system.stride
    for name in ("crop", "window"):
        side = getattr(tables["schedule"], name)
        if side is not None and (side % stride or side < 2 * stride):
            raise UsageError(
                f"{where}: [schedule] {name} must be a multiple of the network's stride {stride} and at least "
                f"{2 * stride}, got {side}"
            )
    return Recipe(system=system, seed=seed, init=init, raw=raw, **tables)


T = TypeVar("T")


def build_table(kind: type[T], values: object, where: str) -> T:
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
        return build_table(hint, value, where)
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
    if origin in (typing.Union, types.UnionType):  # with None, which TOML cannot write
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return _value(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{where} must be {_KINDS[hint]}, got {value!r}")
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
