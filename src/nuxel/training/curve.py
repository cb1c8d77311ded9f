"""The course of a run, from what it logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    EventFileLoader,
)

from nuxel.names import RUN_METRICS
from nuxel.training.epoch_log import read_rows


def read_curve(run: Path) -> list[dict[str, float]]:
    """A run's ``metrics.csv``, an epoch an entry: ``epoch`` (from 1), ``step``, ``seconds`` of training (validation
    included, interruptions not), the losses, whose sum is ``loss``, and the
    validation's scores where there was one.
    """
    seconds = training_seconds(run / "tensorboard")
    return [
        {
            "epoch": epoch + 1,
            "step": int(row["step"]),
            "seconds": round(seconds[int(row["step"])], 1),
            **{
                name.partition("/")[2]: float(value)
                for name, value in row.items()
                if name.startswith(("train/", "val/")) and value
            },
        }
        for epoch, row in read_rows(run / RUN_METRICS).items()
    ]


def training_seconds(events: Path) -> dict[int, float]:
    """Seconds of training until each step that TensorBoard events record; time between interrupted runs is left out."""
    sessions = []
    for path in events.glob("events.out.*"):
        recorded = list(EventFileLoader(str(path)).Load())
        if recorded:  # the first says when the file was opened
            scalars = [event for event in recorded if event.HasField("summary")]
            sessions.append((recorded[0].wall_time, scalars))
    seconds: dict[int, float] = {}
    for opened_at, scalars in sorted(sessions, key=lambda session: float(session[0])):
        first = min((event.step for event in scalars), default=0)
        before = max((value for step, value in seconds.items() if step < first), default=0.0)
        seconds.update({event.step: before + event.wall_time - opened_at for event in scalars})
    return seconds


def loss_fall(losses: Sequence[float]) -> float | None:
    """How much of the training loss the last fifth of the epochs took away: 1 minus its mean over that of the fifth
    before. None for fewer than two epochs.

    Examples
    --------
    >>> loss_fall([5.0, 4.0, 3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.9, 0.9])
    0.1
    """
    fifth = max(1, len(losses) // 5)
    if len(losses) < 2:
        return None
    last, before = np.mean(losses[-fifth:]), np.mean(losses[-2 * fifth : -fifth])
    return round(float(1 - last / before), 4) if before else 0.0
