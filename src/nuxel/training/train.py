"""``nuxel train``: a recipe in, a run folder out."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from nuxel.data.dataset import find_all, read_annotated
from nuxel.data.thin import crop_windows, thin
from nuxel.errors import InterruptedRunError, NuxelError, UsageError
from nuxel.export.atomic import replacing
from nuxel.labels.relabel import relabel
from nuxel.names import RUN_METRICS, RUN_RECIPE
from nuxel.systems.system import Prepares
from nuxel.training.epoch_log import EpochLog
from nuxel.training.export import LAST, read_weights
from nuxel.training.module import TrainingModule
from nuxel.training.precision import resolve_precision
from nuxel.training.recipe import Recipe
from nuxel.training.samples import EpochSampler, RandomViews, Sample, patches, widened
from nuxel.training.schedule import Schedule
from nuxel.training.start import start_from
from nuxel.training.validate import Whole, WholeImages

NO_IMAGES = "the recipe names no [[data.train]] folder"
_LISTED = 5
_TRIAL = 10
"""Steps below which nobody expects a model."""
_BATCHES_TO_MEASURE = 8
"""Of the first views, from which normalisations take their statistics where a run starts from a model file."""


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train a recipe to its end and return the last checkpoint's path.

    It starts from the weights that the recipe's ``init`` names: of a run, a checkpoint or a model file with the same
    network.

    The run folder holds ``recipe.json``, ``checkpoints/``, ``metrics.csv``, pictures and TensorBoard events. With
    ``resume`` the run continues after its last finished epoch (from its start if there is none) and ends with the
    same weights as an unbroken one on the same machine with the same number of threads.

    Raises
    ------
    UsageError
        If ``out`` already holds a run and ``resume`` is not set, or the recipe differs from the run's.
    NuxelError
        If the annotated images, or the weights to start from, cannot be used. Nothing has been started or written then.
    InterruptedRunError
        If it cannot go on: the weights are not finite any more, or the disk is full. Its last epoch stands.
    """
    checkpoint = out / "checkpoints" / LAST
    _check_folder(recipe, out, resume=resume)
    training, validation = find_all(recipe.data.train), find_all(recipe.data.val)
    if not training:
        raise UsageError(NO_IMAGES)
    images = _thinned(
        recipe, [read_annotated(replace(item, partial=recipe.data.partial)) for item in training]
    )
    _check_annotations(recipe, [labels for _, labels in images])
    known = [bool((read_annotated(item)[1] >= 0).any()) for item in validation]
    if validation and not any(known):
        raise UsageError(
            "[[data.val]]: its images have no annotated pixel, so nothing can be validated on them"
        )
    pl.seed_everything(recipe.seed, workers=False, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads memory before writing it
    module = TrainingModule(recipe, out / "pictures")
    if isinstance(recipe.system, Prepares):
        recipe.system.prepare(module.network, (labels for _, labels in images))
    _check_stages(recipe, module)
    ready = checkpoint if resume and checkpoint.exists() else None
    first_epoch = 0
    if ready:
        read_weights(ready)  # says so if it is damaged
        first_epoch = torch.load(ready, map_location="cpu", weights_only=True)["epoch"] + 1
    views = _views(recipe, images, [item.group for item in training])
    if recipe.init is not None and ready is None:
        start_from(module, recipe.init, _first_batches(recipe, views))
    _ = module.card  # fails now, not at the first validation, for a network that cannot be used
    _doubt_averaging(recipe.schedule)
    _write_record(recipe, out)
    trainer = _trainer(recipe, out, validating=bool(validation))
    wholes = DataLoader(WholeImages(validation), batch_size=None, collate_fn=_as_it_is)
    with warnings.catch_warnings():
        _quieten()
        try:
            trainer.fit(
                module, _loader(recipe, views, first_epoch), wholes, ckpt_path=ready, weights_only=True
            )
        except SystemExit:  # what Lightning makes of Ctrl+C
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            # ended with this process' group, or by the system for want of memory
            raise InterruptedRunError(
                f"{out}: the run has stopped: a process that draws views was ended; it goes on after its last finished "
                "epoch with --resume"
            ) from error
        except InterruptedRunError as error:
            raise InterruptedRunError(f"{out}: the run has stopped: {error}") from error
        except (NuxelError, OSError) as error:
            raise InterruptedRunError(
                f"{out}: the run has stopped: {error}; it goes on after its last finished epoch with --resume"
            ) from error
    return checkpoint


def _quieten() -> None:
    """Ignore what Lightning says of choices that are made here on purpose, or of its own use of torch."""
    for message in (
        ".*does not have many workers.*",
        ".*num_workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _record(recipe: Recipe) -> str:
    return json.dumps(recipe.raw, indent=2, sort_keys=True, default=str) + "\n"


def _check_folder(recipe: Recipe, out: Path, *, resume: bool) -> None:
    record = out / RUN_RECIPE
    if not record.exists() and (out / RUN_METRICS).exists():
        raise UsageError(
            f"{out / RUN_METRICS}: exists already, and is of no run of nuxel; choose another folder"
        )
    # Lightning, or torchrun, runs the command again for each further device
    if not record.exists() or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if not resume:
        raise UsageError(f"{out}: already holds a run; continue it with --resume or choose another folder")
    if record.read_text(encoding="utf-8") != _record(recipe):
        if not (out / "checkpoints" / LAST).exists():
            raise UsageError(
                f"{out}: a run with another recipe ended here before its first epoch did; remove the folder or choose "
                "another"
            )
        raise UsageError(
            f"{out}: the run was started with another recipe (see {record}); resume it with the same one, and the same "
            f"--set and --init{_differing(record, recipe)}"
        )


def _differing(record: Path, recipe: Recipe) -> str:
    """Which keys of two recipes differ, as far as that can be told."""
    try:
        before, now = json.loads(record.read_text(encoding="utf-8")), json.loads(_record(recipe))
    except ValueError:
        return ""
    names = []
    for table in sorted({*before, *now}):
        old, new = before.get(table), now.get(table)
        if isinstance(old, dict) and isinstance(new, dict):
            names += [f"{table}.{key}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        elif old != new:
            names.append(table)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f": {', '.join(names[:_LISTED])}{more} differ" if names else ""


def _write_record(recipe: Recipe, out: Path) -> None:
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: the run folder cannot be made ({error.strerror})") from None
    with replacing(out / RUN_RECIPE) as part:
        part.write_text(_record(recipe), encoding="utf-8")


def _thinned(recipe: Recipe, images: list[Whole]) -> list[Whole]:
    """The training images with as many of their annotations as the recipe keeps.

    Of a crop the pixels outside go, too: a nucleus that its edge cuts would be taught as if it ended there.
    """
    pixels, labels = [image for image, _ in images], [truth for _, truth in images]
    data = recipe.data
    if data.keep < 1:
        labels = thin(labels, data.keep, recipe.seed)
    if data.crop < 1:
        windows = crop_windows(labels, data.crop, recipe.seed)
        labels = [relabel(truth[window]) for truth, window in zip(labels, windows, strict=True)]
        pixels = [image[window] for image, window in zip(pixels, windows, strict=True)]
    return list(zip(pixels, labels, strict=True))


def _check_stages(recipe: Recipe, module: TrainingModule) -> None:
    """Refuse a stage that leaves nothing to train: a network may have no weights in some of its parts."""
    groups = recipe.system.parameter_groups(module.network)
    for stage in recipe.schedule.stages:
        if not any(weights for part, weights in groups.items() if part not in stage.freeze):
            raise NuxelError(
                f"[schedule] freeze = {list(stage.freeze)} leaves nothing of this network to train"
            )


def _check_annotations(recipe: Recipe, labels: list[NDArray[np.int32]]) -> None:
    """Refuse a set in which nothing is annotated, and warn of one from which the system would learn too much."""
    if not any((image >= 0).any() for image in labels):
        raise NuxelError(
            f"nothing is annotated in any of the {len(labels)} training images, so there is nothing to learn from; "
            "annotate some nuclei"
        )
    if not any((image > 0).any() for image in labels):
        raise NuxelError(
            f"none of the {len(labels)} training images has a nucleus, so there is nothing to learn; annotate some"
        )
    if recipe.system.needs_background and not any((image == 0).any() for image in labels):
        warnings.warn(
            f"no pixel of the training images is known to be background, so that {recipe.system.name} will take too "
            "much for nuclei; annotate some background as 0, or train partial_mask_rcnn with its module",
            stacklevel=3,
        )


def _doubt_averaging(schedule: Schedule) -> None:
    """Warn of a run whose averaged weights, which are what is exported, will hardly leave the first ones."""
    steps = schedule.total_epochs * schedule.steps_per_epoch
    left = schedule.average_decay**steps
    if steps >= _TRIAL and left > 0.5:
        warnings.warn(
            f"after {steps} steps {left:.0%} of the averaged weights, which are exported, will still be those that the "
            "run begins with; lower average_decay under [schedule], or train longer",
            stacklevel=3,
        )


def _first_batches(recipe: Recipe, views: RandomViews) -> Iterator[Tensor]:
    batch = recipe.schedule.batch
    for start in range(0, _BATCHES_TO_MEASURE * batch, batch):
        yield torch.stack([widened(views[start + place])[0] for place in range(batch)])


def _views(recipe: Recipe, images: list[Whole], groups: list[str]) -> RandomViews:
    schedule = recipe.schedule
    if recipe.data.patch is not None:
        cut = [patches(image, *recipe.data.patch) for image in images]
        groups = [group for group, parts in zip(groups, cut, strict=True) for _ in parts]
        images = [part for parts in cut for part in parts]
    return RandomViews(
        images,
        groups,
        recipe.system.draw_targets,
        recipe.augmentation,
        crop=schedule.crop,
        balance=schedule.balance,
        seed=recipe.seed,
        candidates=schedule.candidates,
    )


def _loader(recipe: Recipe, views: RandomViews, first_epoch: int) -> DataLoader[Sample]:
    schedule = recipe.schedule
    return DataLoader(
        views,
        batch_size=schedule.batch,
        sampler=EpochSampler(schedule.steps_per_epoch * schedule.batch, first_epoch),
        num_workers=schedule.workers,
        worker_init_fn=_one_thread,
        persistent_workers=schedule.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(whole: Any) -> Any:
    """A loader would otherwise make tensors of the arrays, which the pipeline of prediction does not take."""
    return whole


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _trainer(recipe: Recipe, out: Path, *, validating: bool) -> pl.Trainer:
    schedule = recipe.schedule
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folder = out / "checkpoints"
    callbacks: list[Callback] = [
        EMAWeightAveraging(decay=schedule.average_decay),
        EpochLog(out),
        _RelocateCheckpoints(folder),
    ]
    watched = sys.stderr.isatty()
    if watched:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
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
        max_epochs=schedule.total_epochs,
        devices=schedule.devices,
        strategy=_strategy(schedule),
        sync_batchnorm=schedule.devices > 1 and torch.cuda.is_available(),
        precision=resolve_precision(schedule.precision),  # type: ignore[arg-type]
        gradient_clip_val=schedule.gradient_clip,
        logger=False,
        enable_progress_bar=watched,
        callbacks=callbacks,
        check_val_every_n_epoch=min(schedule.validate_every, schedule.total_epochs),
        limit_val_batches=1.0 if validating else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        deterministic=True,
    )


def _strategy(schedule: Schedule) -> str:
    if schedule.devices == 1:
        return "auto"
    # a frozen part brings no gradient, for which plain "ddp" would wait
    freezing = any(stage.freeze for stage in schedule.stages)
    return "ddp_find_unused_parameters_true" if freezing else "ddp"


class _RelocateCheckpoints(Callback):
    """Lets a run folder be moved: Lightning forgets the best score when a checkpoint names another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)

    def on_load_checkpoint(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                paths = {key: self._here(path) for key, path in state.items() if key.endswith("_model_path")}
                best = {self._here(path): score for path, score in state["best_k_models"].items()}
                state.update(paths, best_k_models=best, dirpath=self.folder)

    def _here(self, path: str) -> str:
        return os.path.join(self.folder, os.path.basename(path)) if path else path
