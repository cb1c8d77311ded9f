"""A paper's study: rows that train or only evaluate, one result a row and seed, and the paper's tables beside ours.

A row is a base recipe with changes; a budget changes all rows alike. A row's result is written the moment the row ends,
under a name that holds a hash of everything that decided it: a study that is run again does what is not there yet.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import gc
import hashlib
import json
import platform
import shutil
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    EventFileLoader,
)

from nuxel import __version__
from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.decode.clumps import SPLITS
from nuxel.errors import NuxelError, UsageError
from nuxel.export.atomic import replacing
from nuxel.image.resample import resize_labels
from nuxel.metrics.average_precision import MatchTally
from nuxel.predict.cpu import available_cpus
from nuxel.predict.model import Model
from nuxel.predict.networks import Network
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.training.epoch_log import read_rows
from nuxel.training.export import export_module, load_run
from nuxel.training.recipe import Recipe, build_table, make_recipe, read_recipe
from nuxel.training.train import train
from nuxel.training.tune import tune_decoder

STUDY = "study.toml"
PAGE = "study.md"

LEVEL = 0.05
"""A run has reached a plateau if its loss fell by less than this share of itself over the last fifth of its steps."""

RESAMPLES = 5000

Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What a line of a table measures.

    Parameters
    ----------
    name, label
        What it is called on the command line, and in the tables.
    recipe, set
        Of a row that trains: a recipe in the study's folder, and changes of it, each ``table.key=value``.
    of
        Of a row that only evaluates: the row whose model it uses, with the decoder's parameters that the model has.
    split
        Divide clumps in this way instead (see :class:`nuxel.decode.clumps.ClumpRule`).
    tune
        With ``split``: choose the decoder's parameters anew for it. Otherwise they are the model's, so that a random
        walker starts from the markers that the watershed has (tuning it takes hundreds of walks an image).
    tta
        With test-time augmentation.
    resize
        Stretch or shrink every image to a square of this side first, as the paper did; what is found is brought back to
        the image's own size, where it is compared.
    """

    name: str
    label: str
    recipe: str = ""
    set: tuple[str, ...] = ()
    of: str = ""
    split: str | None = None
    tune: bool = False
    tta: bool = False
    resize: int | None = None

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.of):
            raise UsageError(
                f"row {self.name} must have either a recipe, to train, or of, to evaluate a model"
            )
        if self.recipe and (self.split is not None or self.tta or self.resize is not None):
            raise UsageError(f"row {self.name} trains; split, tta and resize are for rows that evaluate (of)")
        if self.tune and self.split is None:
            raise UsageError(f"row {self.name} has no split of its own to tune")
        if self.of and self.set:
            raise UsageError(f"row {self.name} evaluates the model of {self.of}; set is for rows that train")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(
                f"split of row {self.name} must be one of {', '.join(SPLITS)}, got {self.split!r}"
            )
        if self.resize is not None and self.resize < 1:
            raise UsageError(f"resize of row {self.name} must be at least 1, got {self.resize}")


@dataclass(frozen=True)
class Budget:
    """Changes of every row's recipe, made after the row's own."""

    name: str
    note: str = ""
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A line of a table: a row, and the paper's figure for it, where it has one."""

    row: str
    paper: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows side by side.

    Parameters
    ----------
    compare
        Pairs of rows, the one that should be worse first, whose difference gets an interval.
    curves
        Whether the IoUs of the maps during training, and the milestones, are shown too.
    """

    title: str
    rows: tuple[Entry, ...]
    note: str = ""
    compare: tuple[tuple[str, str], ...] = ()
    curves: bool = False


@dataclass(frozen=True)
class Milestone:
    """A score on the validation images (``mAP``, ``AP50``, ``IoU_nucleus``, ``IoU_touching``) that is to be reached."""

    score: str
    at: float


@dataclass(frozen=True)
class StudyFile:
    """``study.toml``. ``tune`` are the images on which decoders are tuned, ``test`` those that are scored."""

    title: str
    tune: Source
    test: Source
    budget: tuple[Budget, ...]
    row: tuple[Row, ...]
    table: tuple[Table, ...]
    milestone: tuple[Milestone, ...] = ()

    def __post_init__(self) -> None:
        rows = [row.name for row in self.row]
        for kind, names in (("row", rows), ("budget", [budget.name for budget in self.budget])):
            if doubled := next((name for name in names if names.count(name) > 1), None):
                raise UsageError(f"there are two of {kind} {doubled}")
        training = [row.name for row in self.row if row.recipe]
        for row in self.row:
            if row.of:
                _known(row.of, training, f"of in row {row.name}")
        for table in self.table:
            for name in (
                *(entry.row for entry in table.rows),
                *(name for pair in table.compare for name in pair),
            ):
                _known(name, rows, f"table {table.title!r}")


@dataclass(frozen=True)
class Job:
    """One row with one seed: the recipe that its model is trained by, and the hash of all that decides its result."""

    row: Row
    seed: int
    recipe: Recipe
    hash: str

    @property
    def name(self) -> str:
        """That of the job's files."""
        return f"{self.row.name}-seed{self.seed}-{self.hash}"


@dataclass(frozen=True)
class Study:
    """A study at one budget, every recipe checked."""

    file: StudyFile
    budget: Budget
    recipes: Mapping[str, Recipe]

    def row(self, name: str) -> Row:
        return next(row for row in self.file.row if row.name == name)

    def job(self, row: Row, seed: int) -> Job:
        """A row with a seed, which takes the place of the recipe's."""
        recipe = self.recipes[row.of or row.name]
        recipe = make_recipe({**recipe.raw, "seed": seed}, row.name)
        decisive = {
            "recipe": recipe.raw,
            "images": [dataclasses.asdict(source) for source in (self.file.tune, self.file.test)],
            "evaluation": [row.split, row.tune, row.tta, row.resize],
        }
        text = json.dumps(decisive, sort_keys=True, default=str)
        return Job(row, seed, recipe, hashlib.sha256(text.encode()).hexdigest()[:12])

    def chosen(self, only: Sequence[str]) -> list[Row]:
        """The rows of these names and those whose models they use, in the study's order; all if none is named.

        Raises
        ------
        UsageError
            If there is no such row.
        """
        rows = self.file.row
        for name in only:
            _known(name, [row.name for row in rows], "--only")
        wanted = {*only, *(self.row(name).of for name in only)}
        return [row for row in rows if not only or row.name in wanted]


def read_study(folder: Path, budget: str, data: str | None = None) -> Study:
    """Read ``study.toml`` and every recipe that it names, and check them.

    Parameters
    ----------
    folder
        Holds ``study.toml`` and the recipes.
    budget
        One of the study's budgets.
    data
        A folder of annotated images, in place of every one that recipes and study name.

    Raises
    ------
    UsageError
        If the folder, a file, a row or the budget cannot be used: one sentence.
    """
    path = folder / STUDY
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder}: not the folder of a study; there is no {STUDY} in it") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a readable TOML file ({error})") from None
    file = build_table(StudyFile, raw, str(path))
    budgets = {known.name: known for known in file.budget}
    _known(budget, list(budgets), f"{path}: --budget")
    if data is not None:
        file = dataclasses.replace(
            file, **{name: dataclasses.replace(getattr(file, name), folder=data) for name in ("tune", "test")}
        )
    recipes = {}
    for row in file.row:
        if row.recipe:
            try:
                recipes[row.name] = _recipe(folder / row.recipe, [*row.set, *budgets[budget].set], data)
            except UsageError as error:
                raise UsageError(f"{path}: row {row.name}: {error}") from None
    return Study(file, budgets[budget], recipes)


def _recipe(path: Path, changes: Sequence[str], data: str | None) -> Recipe:
    recipe = read_recipe(path, changes)
    if data is not None:
        raw = copy.deepcopy(dict(recipe.raw))
        for sources in raw.get("data", {}).values():
            for source in sources:
                source["folder"] = data
        recipe = make_recipe(raw, str(path))
    if recipe.schedule.devices != 1:
        raise UsageError(f"a study trains on one device, got devices = {recipe.schedule.devices}")
    return recipe


def _known(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        raise UsageError(f"{where}: unknown name {name!r}; {hint}")


def run_study(
    study: Study,
    out: Path,
    *,
    seeds: int = 1,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Run what is not there yet: every row with seed 0, then every row with seed 1, and so on.

    Parameters
    ----------
    out
        Folder for ``results/`` (one JSON file a row and seed), ``models/``, ``runs/`` and ``study.md``.
    seeds
        How many seeds each row has.
    only
        Names of rows, for some rows only; the rows whose models they use are run as well.
    tell
        Is given a sentence after each row.

    Returns
    -------
    Why rows failed, by row and seed, such as ``{"plain (seed 0)": "..."}``; the others have their result.

    Raises
    ------
    UsageError
        If there is no such row, the images are not there, or ``out`` cannot be made. Nothing has been started then.
    """
    rows = study.chosen(only)
    try:
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
    return failed


def _jobs(study: Study, rows: Iterable[Row], seeds: int) -> Iterator[Job]:
    rows = list(rows)
    for seed in range(seeds):
        for row in rows:
            yield study.job(row, seed)


def _check_images(study: Study, jobs: Sequence[Job]) -> None:
    """Find the annotated images of all jobs, each folder once, before hours of work start."""
    recipes = [job.recipe.data for job in jobs]
    sources = [source for data in recipes for source in (*data.train, *data.val)]
    if jobs:
        sources += [study.file.tune, study.file.test]
    for source in {repr(source): source for source in sources}.values():
        find_annotated(source)


def _result_path(out: Path, job: Job) -> Path:
    return out / "results" / f"{job.name}.json"


def _run(study: Study, job: Job, out: Path) -> Result:
    """Train, tune and score one row."""
    row = job.row
    trained = study.job(study.row(row.of), job.seed) if row.of else job
    path = out / "models" / f"{trained.name}.onnx"
    curve: list[dict[str, float]] = []
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    if row.of:
        if not path.is_file():
            raise NuxelError(f"the model of row {row.of} is missing ({path}); see what became of that row")
        network = _with_split(Model(path), row, study.file.tune)
    else:
        run = out / "runs" / job.name
        train(job.recipe, run, resume=True)
        curve = read_curve(run)
        seconds["training"] = curve[-1]["seconds"]
        start = time.perf_counter()
        network = _export(run, path, study.file.tune)
    seconds["tuning"] = round(time.perf_counter() - start, 1)
    start = time.perf_counter()
    images = _score(network, row, study.file.test)
    seconds["testing"] = round(time.perf_counter() - start, 1)
    fall = loss_fall([point["loss"] for point in curve])
    return {
        "row": row.name,
        "label": row.label,
        "seed": job.seed,
        "budget": study.budget.name,
        "hash": job.hash,
        "mAP": float(np.mean([image["mAP"] for image in images])),
        "AP50": float(np.mean([image["AP50"] for image in images])),
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
            "tune": row.tune,
            "tta": row.tta,
            "resize": row.resize,
        },
        "recipe": job.recipe.raw,
        "curve": curve,
        "images": images,
    }


def _export(run: Path, path: Path, tune: Source) -> Model:
    """Write a run's model file, with decoder parameters that were chosen on ``tune``, and open it."""
    module = load_run(run)
    export_module(module, path)
    rule, score = tune_decoder(Model(path), find_annotated(tune))
    module.card = dataclasses.replace(module.card, decoder_rule=dataclasses.asdict(rule))
    export_module(module, path, {"val mAP": round(score, 4)})
    return Model(path)


def _with_split(model: Model, row: Row, tune: Source) -> Model:
    """The model, with the row's way of dividing clumps if it has one, and with parameters for it if it says so."""
    if row.split is not None:
        rule = {**model.card.decoder_rule, "split": row.split}
        model.card = dataclasses.replace(model.card, decoder_rule=rule, scores={})
    if row.tune:
        chosen, score = tune_decoder(model, find_annotated(tune))
        model.card = dataclasses.replace(
            model.card, decoder_rule=dataclasses.asdict(chosen), scores={"val mAP": round(score, 4)}
        )
    return model


def _score(network: Network, row: Row, test: Source) -> list[dict[str, Any]]:
    """Name, mAP and AP at 0.5 of each image."""
    items, tally = find_annotated(test), MatchTally()
    for item in items:
        image, truth = read_annotated(item)
        tally.add(truth, _labels(image, network, row))
    found = tally.per_image().average_precision
    return [
        {"image": item.image.name, "mAP": float(one.mean()), "AP50": float(one[0])}
        for item, one in zip(items, found, strict=True)
    ]


def _labels(image: NDArray[np.uint8], network: Network, row: Row) -> NDArray[np.int32]:
    options = Options(tta=row.tta)
    if row.resize is None:
        return segment_normalised(image, network, options).nuclei.labels
    square = Image.fromarray(image).resize((row.resize, row.resize), Image.Resampling.BILINEAR)
    found = segment_normalised(np.asarray(square), network, options).nuclei.labels
    return resize_labels(found, (image.shape[0], image.shape[1]))


def read_curve(run: Path) -> list[dict[str, float]]:
    """A run's ``metrics.csv``, an epoch an entry: ``epoch`` (from 1), ``step``, ``seconds`` of training (validation
    included, interruptions not), ``loss``, and the validation's scores where there was one.
    """
    seconds = training_seconds(run / "tensorboard")
    return [
        {
            "epoch": epoch + 1,
            "step": int(row["step"]),
            "seconds": round(seconds[int(row["step"])], 1),
            "loss": float(row["train/loss"]),
            **{name[4:]: float(value) for name, value in row.items() if name.startswith("val/") and value},
        }
        for epoch, row in read_rows(run / "metrics.csv").items()
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


def read_results(study: Study, out: Path) -> dict[str, list[Result]]:
    """The results that are there, by row and in order of their seeds; those of other recipes are left out.

    Raises
    ------
    NuxelError
        If a result cannot be read.
    """
    found: dict[str, list[Result]] = {}
    for row in study.file.row:
        results = []
        for path in (out / "results").glob(f"{row.name}-seed*.json"):
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                if study.job(row, result["seed"]).name == path.stem:
                    results.append(result)
            except (OSError, ValueError, KeyError):
                raise NuxelError(
                    f"{path}: the result cannot be read; remove it to run its row again"
                ) from None
        found[row.name] = sorted(results, key=lambda result: int(result["seed"]))
    return found


def write_page(study: Study, out: Path, failed: Mapping[str, str]) -> str:
    """Write ``study.md``, the tables of all results that are there, and return it.

    Parameters
    ----------
    failed
        Why rows failed, by row and seed; listed at the end.
    """
    results = read_results(study, out)
    parts = [f"# {study.file.title}", f"Budget `{study.budget.name}`. {study.budget.note}".strip()]
    for table in study.file.table:
        parts += [f"## {table.title}", table.note] if table.note else [f"## {table.title}"]
        parts.append(_scores(study, table, results))
        parts += [_difference(study, pair, results) for pair in table.compare]
        if table.curves:
            parts += _curves(study, table, results)
    if failed:
        parts += ["## Failed", "\n".join(f"- {name}: {reason}" for name, reason in failed.items())]
    page = "\n\n".join(parts) + "\n"
    with replacing(out / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    return page


def _scores(study: Study, table: Table, results: Mapping[str, list[Result]]) -> str:
    heads = ["row", "paper's mAP", "mAP", "spread", "seeds", "AP50", "steps", "minutes", "plateau"]
    lines = []
    for entry in table.rows:
        paper = "" if entry.paper is None else f"{entry.paper:.3f}"
        found = results[entry.row]
        cells = _cells(found) if found else ["not run", "", "0", "", "", "", ""]
        lines.append([study.row(entry.row).label, paper, *cells])
    return _markdown(heads, lines)


def _cells(found: Sequence[Result]) -> list[str]:
    """Mean mAP, its standard deviation over seeds, how many, AP50, steps, minutes, and how many reached a plateau."""
    scores = np.array([(one["mAP"], one["AP50"]) for one in found])
    trained = [one for one in found if one["plateau"] is not None]
    plateau = ""
    if trained:
        fall = np.mean([one["loss_fall"] for one in trained])
        answer = "yes" if all(one["plateau"] for one in trained) else "no"
        plateau = f"{answer} ({fall:+.1%})"
    return [
        f"{scores[:, 0].mean():.3f}",
        f"{scores[:, 0].std(ddof=1):.3f}" if len(found) > 1 else "",
        str(len(found)),
        f"{scores[:, 1].mean():.3f}",
        str(found[0]["steps"] or ""),
        f"{np.mean([sum(one['seconds'].values()) for one in found]) / 60:.1f}",
        plateau,
    ]


def _difference(study: Study, pair: tuple[str, str], results: Mapping[str, list[Result]]) -> str:
    labels = [study.row(name).label for name in pair]
    title = f"**{labels[1]}** minus **{labels[0]}**"
    if not all(results[name] for name in pair):
        return f"{title}: not run"
    worse, better = (
        np.mean([[image["mAP"] for image in one["images"]] for one in results[name]], axis=0) for name in pair
    )
    mean, low, high = difference(worse, better)
    verdict = "the order holds" if low > 0 else "the order is reversed" if high < 0 else "the order is open"
    return (
        f"{title}: mAP {mean:+.3f}, 95 % interval over {len(worse)} images {low:+.3f} to {high:+.3f} "
        f"(means of {len(results[pair[0]])} and {len(results[pair[1]])} seeds): {verdict}"
    )


def difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of ``second - first``, ``(images,)`` each, and the ends of its 95 % interval: the percentiles of a bootstrap
    over images.

    Examples
    --------
    >>> difference(np.array([0.25, 0.5]), np.array([0.5, 0.75]))
    (0.25, 0.25, 0.25)
    """
    gaps = second - first
    drawn = gaps[np.random.default_rng(0).integers(len(gaps), size=(RESAMPLES, len(gaps)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(gaps.mean()), float(low), float(high)


def _curves(study: Study, table: Table, results: Mapping[str, list[Result]]) -> list[str]:
    """The IoUs of the maps by step, and the milestones; rows that were not trained are left out."""
    curves = {
        study.row(entry.row).label: [one["curve"] for one in results[entry.row]]
        for entry in table.rows
        if any(one["curve"] for one in results[entry.row])
    }
    parts = []
    for score, what in (("IoU_nucleus", "nuclei"), ("IoU_touching", "touching borders")):
        steps = sorted(
            {point["step"] for of in curves.values() for one in of for point in one if score in point}
        )
        if steps:
            lines = [[label, *(_at(of, score, step) for step in steps)] for label, of in curves.items()]
            parts += [
                f"IoU of {what} on the validation images, by step:",
                _markdown(["row", *map(str, steps)], lines),
            ]
    if curves and study.file.milestone:
        heads = [f"{milestone.score} {milestone.at:g}" for milestone in study.file.milestone]
        lines = [
            [label, *(_reached(of, milestone) for milestone in study.file.milestone)]
            for label, of in curves.items()
        ]
        parts += ["First validation at which a score was reached:", _markdown(["row", *heads], lines)]
    return parts


def _at(curves: Sequence[list[dict[str, float]]], score: str, step: int) -> str:
    values = [point[score] for curve in curves for point in curve if point["step"] == step and score in point]
    return f"{np.mean(values):.3f}" if values else ""


def _reached(curves: Sequence[list[dict[str, float]]], milestone: Milestone) -> str:
    """Mean step and minutes of the first validation that reached it, over the seeds that did."""
    first = [
        next((point for point in curve if point.get(milestone.score, -1) >= milestone.at), None)
        for curve in curves
    ]
    there = [point for point in first if point is not None]
    if not there:
        return "not reached"
    step, minutes = (np.mean([point[name] for point in there]) for name in ("step", "seconds"))
    of = "" if len(there) == len(first) else f" ({len(there)} of {len(first)})"
    return f"step {step:.0f}, {minutes / 60:.1f} min{of}"


def _markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
