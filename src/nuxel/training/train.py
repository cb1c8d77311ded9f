"""``nuxel train``: a recipe in, a run folder out."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from nuxel.data.dataset import Annotated, find_annotated
from nuxel.errors import UsageError
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import Recipe
from nuxel.training.samples import EpochSampler, RandomViews, Sample
from nuxel.training.validate import WholeImages

LAST = "last.ckpt"


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train a recipe to its end and return the last checkpoint's path.

    The run folder holds ``recipe.json``, ``checkpoints/``, ``metrics.csv``, pictures and TensorBoard events. With
    ``resume`` the run continues after its last finished epoch and ends with the same weights as an unbroken one.

    Raises
    ------
    UsageError
        If ``out`` already holds a run and ``resume`` is not set, or the recipe differs from the run's.
    """
    checkpoint = out / "checkpoints" / LAST
    _claim(recipe, out, checkpoint if resume else None)
    training = [item for source in recipe.data.train for item in find_annotated(source)]
    validation = [item for source in recipe.data.val for item in find_annotated(source)]
    if not training:
        raise UsageError("the recipe names no [[data.train]] folder")
    pl.seed_everything(recipe.seed, workers=False, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads memory before writing it
    module = TrainingModule(recipe, out / "pictures")
    trainer = _trainer(recipe, out, validating=bool(validation))
    views, wholes = _loader(recipe, training), DataLoader(WholeImages(validation), batch_size=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*num_workers.*")
        ready = checkpoint if resume and checkpoint.exists() else None
        trainer.fit(module, views, wholes, ckpt_path=ready, weights_only=True)
    return checkpoint


def _claim(recipe: Recipe, out: Path, resumed: Path | None) -> None:
    record = out / "recipe.json"
    text = json.dumps(recipe.raw, indent=2, sort_keys=True) + "\n"
    if record.exists() and resumed is None:
        raise UsageError(f"{out}: already holds a run; continue it with --resume or choose another folder")
    if record.exists() and record.read_text(encoding="utf-8") != text:
        raise UsageError(
            f"{out}: the run was started with another recipe (see {record}); resume it with the same one"
        )
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    record.write_text(text, encoding="utf-8")


def _loader(recipe: Recipe, items: list[Annotated]) -> DataLoader[Sample]:
    schedule = recipe.schedule
    views = RandomViews(
        items,
        recipe.system.draw_targets,
        recipe.augmentation,
        crop=schedule.crop,
        balance=schedule.balance,
        seed=recipe.seed,
    )
    return DataLoader(
        views,
        batch_size=schedule.batch,
        sampler=EpochSampler(schedule.steps_per_epoch * schedule.batch),
        num_workers=schedule.workers,
        worker_init_fn=_one_thread,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _trainer(recipe: Recipe, out: Path, *, validating: bool) -> pl.Trainer:
    schedule = recipe.schedule
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folder = out / "checkpoints"
    callbacks: list[Callback] = [EMAWeightAveraging(decay=schedule.average_decay)]
    if validating:
        callbacks.append(
            ModelCheckpoint(
                folder, filename="best", monitor="val/mAP", mode="max", enable_version_counter=False
            )
        )
    callbacks.append(
        ModelCheckpoint(
            folder,
            filename="last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    return pl.Trainer(
        max_epochs=schedule.epochs,
        precision=schedule.precision,  # type: ignore[arg-type]
        gradient_clip_val=schedule.gradient_clip,
        logger=[CSVLogger(out, name="", version=""), TensorBoardLogger(out, name="", version="tensorboard")],
        callbacks=callbacks,
        check_val_every_n_epoch=schedule.validate_every,
        limit_val_batches=1.0 if validating else 0,
        log_every_n_steps=schedule.steps_per_epoch,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        deterministic=True,
    )
