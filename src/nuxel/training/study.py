"""A paper's study: rows that train or only evaluate, one result a row and seed, and what is made of the results.

A row is a base recipe with changes; a budget changes all rows of a recipe alike. A row's result is written the moment
the row ends, under a name that holds a hash of everything that decided it: a study that is run again does what is not
there yet.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from nuxel import __version__
from nuxel.data.dataset import Annotated, Source, find_all, find_annotated, read_annotated
from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation.scores import score_image
from nuxel.export.atomic import replacing
from nuxel.export.heat_map import draw_heat_map
from nuxel.export.overlay import draw_overlay
from nuxel.export.png import encode_png
from nuxel.image.formats import stem
from nuxel.image.resample import ScaledImage, resize_labels
from nuxel.instances import Instances
from nuxel.labels.relabel import relabel
from nuxel.metrics.pixels import foreground_iou, pixel_accuracy
from nuxel.predict.cpu import available_cpus
from nuxel.predict.detect import Found, attention_of
from nuxel.predict.model import Model
from nuxel.predict.networks import Detector, Network
from nuxel.predict.pipeline import Options, Seen, decode_seen, decoder_rule, look_at
from nuxel.training.curve import loss_fall, read_curve
from nuxel.training.export import export_module, load_run
from nuxel.training.study_figures import model_path, picture_path, pictured_rows, side_by_side
from nuxel.training.study_file import Job, Result, Study, changed_rule
from nuxel.training.study_page import PAGE, read_results, write_page
from nuxel.training.study_schema import Images, Picture, Row, StudyFile
from nuxel.training.train import train
from nuxel.training.tune import tune_decoder
from nuxel.training.validate import boxes_ap50, compared_boxes, foreground_of

_SCORES = {
    "mAP": "ap",
    "AP50": "ap50",
    "AJI": "aji",
    "NCS": "ncs",
    "precision": "precision",
    "recall": "recall",
}
"""Scores of an image as results name them, and as the evaluation does."""
LEVEL = 0.05
"""A run has reached a plateau if its loss fell by less than this share of itself over the last fifth of its steps."""


def run_study(
    study: Study,
    out: Path,
    *,
    seeds: int = 1,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Run what is not there yet: every row with seed 0, then with seed 1 those that have it, and so on; then draw the
    study's pictures.

    Parameters
    ----------
    out
        Folder for ``results/`` (one JSON file a row and seed), ``models/``, ``runs/``, ``figures/`` and ``study.md``.
    seeds
        How many seeds each row has at least; with 0 nothing is run or drawn.
    only
        Names of rows, for some rows only; the rows whose models they use are run as well.
    tell
        Is given a sentence after each row.

    Returns
    -------
    Why rows failed, by row and seed, such as ``{"plain (seed 0)": "..."}``; the others have their result. Why the
    pictures did, under ``"pictures"``.

    Raises
    ------
    UsageError
        If there is no such row, the images are not there, or ``out`` cannot be made. Nothing has been started then.
    """
    rows = study.chosen(only)
    try:
        _refuse_other_page(out)
        read_results(study, out)
        jobs = [job for job in _jobs(study, rows, seeds) if not _result_path(out, job).exists()]
        _check_images(study, jobs)
        for name in ("results", "models", "runs"):
            (out / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: the study's folder cannot be made ({error.strerror})") from None
    except NuxelError as error:
        raise UsageError(str(error)) from None
    failed: dict[str, str] = {}
    for job in jobs:
        name = f"{job.row.name} (seed {job.seed})"
        try:
            result = _run(study, job, out)
            with replacing(_result_path(out, job)) as part:
                part.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
            tell(f"{name}: mAP {result['mAP']:.3f}, {sum(result['seconds'].values()) / 60:.1f} min")
        except NuxelError as error:
            failed[name] = str(error)
        except Exception as error:  # hours of other rows must not end with one that ran out of memory
            failed[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            # a deep encoder's checkpoints are ten times its model file, and nothing needs them any more
            shutil.rmtree(out / "runs" / job.name / "checkpoints", ignore_errors=True)
        if name in failed:
            tell(f"{name}: {failed[name]}")
        write_page(study, out, failed)
        gc.collect()  # a trainer and its images hold each other
    try:
        if seeds:
            _draw_pictures(study, out)
    except NuxelError as error:
        failed["pictures"] = str(error)
    return failed


def _refuse_other_page(out: Path) -> None:
    if (out / PAGE).exists() and not (out / "results").is_dir():
        raise UsageError(
            f"{out / PAGE}: exists already, and is not of a study; choose another folder with --out"
        )


def _jobs(study: Study, rows: Sequence[Row], seeds: int) -> Iterator[Job]:
    of_rows = [(row, seeds and max(seeds, row.seeds)) for row in rows]
    for seed in range(max((count for _, count in of_rows), default=0)):
        for row, count in of_rows:
            if seed < count:
                yield study.job(row, seed)


def _check_images(study: Study, jobs: Sequence[Job]) -> None:
    """Find the annotated images of all jobs and pictures, each folder once, before hours of work start."""
    recipes = [job.recipe.data for job in jobs]
    sources = [source for data in recipes for source in (*data.train, *data.val)]
    for source in {repr(source): source for source in sources}.values():
        find_annotated(source)
    if jobs:
        images = _images(study)
        for picture in study.file.picture:
            _pictured(picture, images)


def _images(study: Study) -> dict[str, Annotated]:
    """The images on which decoders are tuned, and those that are scored, by stem."""
    # of images of one stem, the study's own
    sets: list[StudyFile | Images] = [*study.file.images, study.file]
    items = [item for one in sets for item in find_all((*one.tune, *one.test))]
    return {stem(item.image): item for item in items}


def _pictured(picture: Picture, images: Mapping[str, Annotated]) -> list[Annotated]:
    for name in picture.images:
        if name not in images:
            raise NuxelError(
                f"picture {picture.title!r}: {name} is none of the images that the study tunes on or tests"
            )
    return [images[name] for name in picture.images]


def _result_path(out: Path, job: Job) -> Path:
    return out / "results" / f"{job.name}.json"


def _run(study: Study, job: Job, out: Path) -> Result:
    """Train, tune and score one row."""
    row = job.row
    path = model_path(study, out, row, job.seed)
    curve: list[dict[str, float]] = []
    seconds: dict[str, float] = {}
    wanted = study.images(row)
    start = time.perf_counter()
    if row.of:
        if not path.is_file():
            own = _result_path(out, study.job(study.row(row.of), job.seed))
            again = f"remove {own} to train it again" if own.exists() else "see what became of that row"
            raise NuxelError(f"the model of row {row.of} is missing ({path}); {again}")
        network = _changed(_open(path), row, wanted.tune)
    else:
        run = out / "runs" / job.name
        train(job.recipe, run, resume=True)
        curve = read_curve(run)
        seconds["training"] = curve[-1]["seconds"]
        start = time.perf_counter()
        network = _export(run, path, wanted.tune)
    seconds["tuning"] = round(time.perf_counter() - start, 1)
    start = time.perf_counter()
    scores, images = _score(network, row, wanted.test)
    seconds["testing"] = round(time.perf_counter() - start, 1)
    fall = loss_fall([point["loss"] for point in curve])
    return {
        "row": row.name,
        "label": study.label(row),
        "seed": job.seed,
        "budget": study.budget.name,
        "hash": job.hash,
        **scores,
        "decoder_rule": network.card.decoder_rule,
        "tuned": network.card.scores,
        "steps": curve[-1]["step"] if curve else 0,
        "seconds": seconds,
        "loss_fall": fall,
        "plateau": None if fall is None else fall < LEVEL,
        "versions": _versions(),
        "machine": _machine(),
        "evaluation": {
            "of": row.of,
            "split": row.split,
            "rule": row.rule,
            "tune": row.tune,
            "tta": row.tta,
            "resize": row.resize,
        },
        "recipe": job.recipe.raw,
        "curve": curve,
        "images": images,
    }


def _export(run: Path, path: Path, tune: Sequence[Source]) -> Model:
    """Write a run's model file, with decoder parameters that were chosen on ``tune``, and open it."""
    module = load_run(run)
    export_module(module, path)
    rule, score = tune_decoder(_open(path), find_all(tune))
    module.card = dataclasses.replace(module.card, decoder_rule=dataclasses.asdict(rule))
    export_module(module, path, {"val mAP": round(score, 4)})
    return _open(path)


def _open(path: Path) -> Model:
    """A model file that predicts with as many threads as training has: more would wait for one another where a study
    was given a part of the processors."""
    return Model(path, threads=torch.get_num_threads())


def _changed(model: Model, row: Row, tune: Sequence[Source]) -> Model:
    """The model, with the row's changes of its decoder if it has any, and with the rest tuned if it says so."""
    if row.changes:
        rule = changed_rule(decoder_rule(model.card, Options()), row)
        model.card = dataclasses.replace(model.card, decoder_rule=dataclasses.asdict(rule), scores={})
    if row.tune:
        chosen, score = tune_decoder(model, find_all(tune), held=row.changes)
        model.card = dataclasses.replace(
            model.card, decoder_rule=dataclasses.asdict(chosen), scores={"val mAP": round(score, 4)}
        )
    return model


def _score(network: Model, row: Row, test: Sequence[Source]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Means over the images, with the average precision of all boxes of a network that detects; and of each image the
    scores and its name."""
    images, boxes = [], []
    for item in find_all(test):
        image, truth = read_annotated(item)
        labels, seen = _labels(image, network, row)
        found = score_image(item.image.name, truth, labels).scores
        one = {ours: found[theirs] for ours, theirs in _SCORES.items()}
        if isinstance(seen, Found) and row.resize is None:
            boxes.append(compared_boxes(seen.detections, truth))
            one["box_AP50"] = boxes_ap50(boxes[-1:])
        foreground = labels if row.resize else foreground_of(image, labels, network)
        one["pixel_accuracy"] = pixel_accuracy(truth, foreground)
        images.append({"image": item.image.name, **one, "IoU": foreground_iou(truth, labels)})
    means = {name: float(np.nanmean([one[name] for one in images])) for name in images[0] if name != "image"}
    return {**means, **({"box_AP50": boxes_ap50(boxes)} if boxes else {})}, images


def _labels(
    image: NDArray[np.uint8], network: Network | Detector, row: Row
) -> tuple[NDArray[np.int32], Seen]:
    """The nuclei that a row finds, and what its decoder had before it."""
    options = Options(tta=row.tta)
    shape = (image.shape[0], image.shape[1])
    if row.resize is not None:
        square = Image.fromarray(image).resize((row.resize, row.resize), Image.Resampling.BILINEAR)
        image = np.asarray(square)
    _, seen = look_at(image, network, options)
    labels = decode_seen(seen, image.shape[:2], network.card, options).labels
    return labels if row.resize is None else resize_labels(labels, shape), seen


def _draw_pictures(study: Study, out: Path) -> None:
    """Draw the pictures of which there is something to be seen, and which are not there yet."""
    results = read_results(study, out)
    for picture in study.file.picture:
        path = picture_path(study, out, picture, results)
        if path is not None and not path.exists():
            columns = _panels(study, out, picture, results)
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as part:
                part.write_bytes(encode_png(side_by_side(columns)))


def _panels(
    study: Study, out: Path, picture: Picture, results: Mapping[str, Sequence[Result]]
) -> list[list[NDArray[np.uint8]]]:
    """Columns of overlays, an image a line: the truth, and of each row the nuclei and, if it is wanted and there, the
    attention."""
    pairs = [read_annotated(item) for item in _pictured(picture, _images(study))]
    columns = [[draw_overlay(image, Instances(np.maximum(relabel(truth), 0))) for image, truth in pairs]]
    for row, result in pictured_rows(study, out, picture, results):
        model = _open(model_path(study, out, row, 0))
        model.card = dataclasses.replace(model.card, decoder_rule=result["decoder_rule"])
        columns.append(
            [draw_overlay(image, Instances(relabel(_labels(image, model, row)[0]))) for image, _ in pairs]
        )
        level = picture.attention
        if level is not None and study.has_attention(row, level):
            attend = partial(model.attend, level=level)
            views = [(image, ScaledImage(image, 1.0)) for image, _ in pairs]
            columns.append(
                [draw_heat_map(image, attention_of(view, attend, model.card)) for image, view in views]
            )
    return columns


def _versions() -> dict[str, str]:
    modules = (torch, timm, lightning, onnxruntime, np)
    return {
        "nuxel": __version__,
        "python": platform.python_version(),
        **{module.__name__: str(module.__version__) for module in modules},
    }


def _machine() -> str:
    gpu = f"{torch.cuda.get_device_name(0)}, " if torch.cuda.is_available() else ""
    return f"{gpu}{available_cpus()} processors ({platform.machine()}), {torch.get_num_threads()} threads"
