"""The numbers of a run: one row an epoch, whatever happens to the process."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.utils.tensorboard import SummaryWriter

from nuxel.export.atomic import replacing
from nuxel.names import RUN_METRICS

Row = dict[str, str]


class EpochLog(Callback):
    """``metrics.csv`` and TensorBoard events in a run folder: ``epoch`` (from 0), ``step`` (optimiser steps done),
    the epoch's mean losses under ``train/``, and the scores under ``val/`` where the epoch was validated.

    The row is complete before the epoch's checkpoint is. A run that is killed in between repeats the epoch, so
    rows and events after the checkpoint it continues from are dropped, and none appears twice.
    """

    def __init__(self, out: Path) -> None:
        self.table, self.events = out / RUN_METRICS, out / "tensorboard"
        self.rows: dict[int, Row] = {}
        self.scores: Row = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.rows = {
            epoch: row for epoch, row in read_rows(self.table).items() if epoch < trainer.current_epoch
        }
        if trainer.is_global_zero:
            self.writer = SummaryWriter(self.events, purge_step=trainer.global_step + 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.scores = _metrics(trainer, "val/")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        metrics = {**_metrics(trainer, "train/"), **self.scores}
        self.scores = {}
        epoch, step = trainer.current_epoch, trainer.global_step
        self.rows[epoch] = {"epoch": str(epoch), "step": str(step), **metrics}
        if trainer.is_global_zero:
            _write_rows(self.table, self.rows)
            for name, value in metrics.items():
                self.writer.add_scalar(name, float(value), step)
            self.writer.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        if trainer.is_global_zero:
            self.writer.close()


def read_rows(table: Path) -> dict[int, Row]:
    """The rows of a ``metrics.csv`` by epoch; none if there is no such file."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        return {int(row["epoch"]): row for row in csv.DictReader(file)}


def _metrics(trainer: pl.Trainer, prefix: str) -> Row:
    """The numbers of one kind as the table shows them, with eight digits."""
    found = trainer.callback_metrics.items()
    return {name: f"{float(value):.8g}" for name, value in found if name.startswith(prefix)}


def _write_rows(table: Path, rows: dict[int, Row]) -> None:
    names = sorted(set().union(*rows.values()) - {"epoch", "step"})
    with replacing(table) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", *names], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[epoch] for epoch in sorted(rows))
