"""The training loop as recipes describe it: epochs and stages, learning rates, optimisers, views."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nuxel.errors import UsageError


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
        Epochs between validations; of a shorter run its last epoch is validated.
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
        _require(abs(self.balance) <= 10, "balance", "lie within -10 and 10", self.balance)
        decay = self.average_decay
        _require(0 <= decay < 1, "average_decay", "be at least 0 and below 1", decay)
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
