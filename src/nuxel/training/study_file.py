"""What a study is: ``study.toml`` with its rows, budgets, tables and figures, read and checked before a row starts."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuxel.data.dataset import Source
from nuxel.decode.clumps import SPLITS
from nuxel.errors import UsageError
from nuxel.predict.card import ATTENTION
from nuxel.training.recipe import Recipe, build_table, make_recipe, read_recipe

STUDY = "study.toml"

Result = dict[str, Any]
"""What a row and a seed gave, as it stands in the JSON file of the two."""

SCORES: Mapping[str, tuple[str, ...]] = {
    "curves": (
        "mAP",
        "AP50",
        "AJI",
        "NCS",
        "precision",
        "recall",
        "box_AP50",
        "pixel_accuracy",
        "IoU_foreground",
        "IoU_nucleus",
        "IoU_touching",
        "loss",
        "confidence",
        "location",
        "segmentation",
    ),
    "bars": ("mAP", "AP50", "IoU", "AJI", "NCS", "precision", "recall", "pixel_accuracy", "box_AP50"),
}
"""Kinds of figures, and what each can show: scores on the validation images, and those on the test images."""


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
    rule
        Other parameters of the decoder that are to be changed, each ``key=value``.
    tune
        With ``split`` or ``rule``: choose the decoder's other parameters anew. Otherwise they are the model's, so that
        a random walker starts from the markers that the watershed has (tuning it takes hundreds of walks an image).
    tta
        With test-time augmentation.
    resize
        Stretch or shrink every image to a square of this side first, as the paper did; what is found is brought back to
        the image's own size, where it is compared.
    seeds
        The least number of seeds that it is run with.
    images
        Name of the images on which its decoder is tuned and which are scored, if they are not those of the study.
    """

    name: str
    label: str
    recipe: str = ""
    set: tuple[str, ...] = ()
    of: str = ""
    split: str | None = None
    rule: tuple[str, ...] = ()
    tune: bool = False
    tta: bool = False
    resize: int | None = None
    seeds: int = 1
    images: str = ""

    def __post_init__(self) -> None:
        if bool(self.recipe) == bool(self.of):
            raise UsageError(
                f"row {self.name} must have either a recipe, to train, or of, to evaluate a model"
            )
        if self.recipe and (self.changes or self.tta or self.resize is not None):
            raise UsageError(
                f"row {self.name} trains; split, rule, tta and resize are for rows that evaluate (of)"
            )
        if self.tune and not self.changes:
            raise UsageError(
                f"row {self.name} has neither a split nor a rule of its own to tune the rest for"
            )
        if self.of and self.set:
            raise UsageError(f"row {self.name} evaluates the model of {self.of}; set is for rows that train")
        if self.split is not None and self.split not in SPLITS:
            raise UsageError(
                f"split of row {self.name} must be one of {', '.join(SPLITS)}, got {self.split!r}"
            )
        if self.resize is not None and self.resize < 1:
            raise UsageError(f"resize of row {self.name} must be at least 1, got {self.resize}")
        if self.seeds < 1:
            raise UsageError(f"seeds of row {self.name} must be at least 1, got {self.seeds}")

    @property
    def changes(self) -> dict[str, Any]:
        """The decoder's parameters that the row changes, those of ``split`` and ``rule``.

        Examples
        --------
        >>> Row("few", "Few", of="all", rule=("min_score=0.7", "overlap=best")).changes
        {'min_score': 0.7, 'overlap': 'best'}
        """
        changes: dict[str, Any] = {} if self.split is None else {"split": self.split}
        for change in self.rule:
            key, equals, text = change.partition("=")
            if not equals:
                raise UsageError(f"rule of row {self.name} must hold key=value, got {change!r}")
            try:
                changes[key.strip()] = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                changes[key.strip()] = text.strip()
        return changes


@dataclass(frozen=True)
class RecipeBudget:
    """Changes of one recipe, for all rows that train by it, and what the rows' labels then say besides."""

    recipe: str
    set: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Budget:
    """Changes of every row's recipe, made after the row's own, and then those of single recipes."""

    name: str
    note: str = ""
    set: tuple[str, ...] = ()
    recipe: tuple[RecipeBudget, ...] = ()

    def changes(self, recipe: str) -> list[str]:
        """All changes of a recipe in the order in which they are made."""
        return [*self.set, *(change for own in self.recipe if own.recipe == recipe for change in own.set)]


@dataclass(frozen=True)
class Images:
    """Images for some rows: ``tune`` are those on which decoders are tuned, ``test`` those that are scored."""

    name: str
    tune: tuple[Source, ...]
    test: tuple[Source, ...]


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
    ratios
        Pairs of rows; of the first's mean score over the second's there is an interval, too.
    by
        The score of single images that is compared.
    scores
        Further scores to be shown, of those that bars can show.
    curves
        Whether the IoUs of the maps during training, and the milestones, are shown too.
    """

    title: str
    rows: tuple[Entry, ...]
    note: str = ""
    compare: tuple[tuple[str, str], ...] = ()
    ratios: tuple[tuple[str, str], ...] = ()
    by: str = "mAP"
    scores: tuple[str, ...] = ()
    curves: bool = False

    def __post_init__(self) -> None:
        for score in self.scores:
            _known(score, SCORES["bars"], f"scores of table {self.title!r}")
        _known(self.by, SCORES["bars"], f"by of table {self.title!r}")


@dataclass(frozen=True)
class Milestone:
    """A score on the validation images (``mAP``, ``AP50``, ``IoU_nucleus``, ``IoU_touching``) that is to be reached."""

    score: str
    at: float


@dataclass(frozen=True)
class Figure:
    """A chart of recorded numbers.

    Parameters
    ----------
    kind
        ``"curves"``: the score on the validation images by epoch, of rows that train; the mean over seeds, and a band
        of one standard deviation where there are several. ``"bars"``: the score on the test images, mean and standard
        deviation over seeds, with a mark at the paper's mAP, where a table names it.
    score
        One of :data:`SCORES`.
    """

    title: str
    rows: tuple[str, ...]
    kind: str = "curves"
    score: str = "mAP"
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in SCORES:
            raise UsageError(f"kind must be one of {', '.join(SCORES)}, got {self.kind!r}")
        if self.score not in SCORES[self.kind]:
            raise UsageError(
                f"the score of {self.kind} must be one of {', '.join(SCORES[self.kind])}, got {self.score!r}"
            )


@dataclass(frozen=True)
class Picture:
    """True outlines of some images, and beside them those that some rows find with seed 0.

    Parameters
    ----------
    images
        Stems of images of ``tune`` or ``test``.
    attention
        Level of the pyramid whose attention is drawn, too, for each row whose network has it.
    """

    title: str
    images: tuple[str, ...]
    rows: tuple[str, ...]
    attention: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "rows"):
            if not getattr(self, name):
                raise UsageError(f"picture {self.title!r} has no {name}")


@dataclass(frozen=True)
class StudyFile:
    """``study.toml``. ``tune`` are the images on which decoders are tuned, ``test`` those that are scored, of all rows
    that name no other ``images``."""

    title: str
    tune: tuple[Source, ...]
    test: tuple[Source, ...]
    budget: tuple[Budget, ...]
    row: tuple[Row, ...]
    table: tuple[Table, ...]
    milestone: tuple[Milestone, ...] = ()
    figure: tuple[Figure, ...] = ()
    picture: tuple[Picture, ...] = ()
    images: tuple[Images, ...] = ()

    def __post_init__(self) -> None:
        rows = [row.name for row in self.row]
        titles = [*(figure.title for figure in self.figure), *(picture.title for picture in self.picture)]
        files = [file_name(title) for title in titles]
        budgets = [budget.name for budget in self.budget]
        for kind, names in (
            ("row", rows),
            ("budget", budgets),
            ("figure or picture", files),
            ("images", [images.name for images in self.images]),
        ):
            if doubled := next((name for name in names if names.count(name) > 1), None):
                raise UsageError(f"there are two of {kind} {doubled}")
        training = {row.name: row for row in self.row if row.recipe}
        for row in self.row:
            if row.images:
                _known(row.images, [images.name for images in self.images], f"images of row {row.name}")
            if row.of:
                _known(row.of, list(training), f"of in row {row.name}")
                if row.seeds > training[row.of].seeds:
                    raise UsageError(
                        f"row {row.name} has seeds = {row.seeds}, more than row {row.of}, whose models it uses"
                    )
        recipes = sorted({row.recipe for row in self.row if row.recipe})
        for budget in self.budget:
            for own in budget.recipe:
                _known(own.recipe, recipes, f"recipe in budget {budget.name}")
        for figure in self.figure:
            for name in figure.rows:
                _known(name, list(training) if figure.kind == "curves" else rows, f"figure {figure.title!r}")
        for picture in self.picture:
            for name in picture.rows:
                _known(name, rows, f"picture {picture.title!r}")
        for table in self.table:
            for name in (
                *(entry.row for entry in table.rows),
                *(name for pair in (*table.compare, *table.ratios) for name in pair),
            ):
                _known(name, rows, f"table {table.title!r}")
            for pair in (*table.compare, *table.ratios):
                images = {row.images for row in self.row if row.name in pair}
                if len(images) > 1:
                    raise UsageError(
                        f"table {table.title!r} compares rows of different images: {', '.join(pair)}"
                    )


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

    def recipe(self, row: Row) -> Recipe:
        """What the row's model is trained by, but for the seed."""
        return self.recipes[row.of or row.name]

    def images(self, row: Row) -> Images:
        """The images on which the row's decoder is tuned, and those that are scored."""
        own = (images for images in self.file.images if images.name == row.images)
        return next(own, Images("", self.file.tune, self.file.test))

    def label(self, row: Row) -> str:
        """The row's label, with what the budget makes of its recipe in brackets."""
        recipe = self.row(row.of).recipe if row.of else row.recipe
        notes = [own.label for own in self.budget.recipe if own.recipe == recipe and own.label]
        return f"{row.label} ({', '.join(notes)})" if notes else row.label

    def paper(self, row: Row) -> float | None:
        """The paper's mAP of a row, where a table names it."""
        named = (entry.paper for table in self.file.table for entry in table.rows if entry.row == row.name)
        return next((paper for paper in named if paper is not None), None)

    def has_attention(self, row: Row, level: int) -> bool:
        """Whether the row's network can show its attention at a level of the pyramid."""
        return f"{ATTENTION}{level}" in self.recipe(row).system.maps

    def job(self, row: Row, seed: int) -> Job:
        """A row with a seed, which takes the place of the recipe's."""
        recipe = make_recipe({**self.recipe(row).raw, "seed": seed}, row.name)
        images = self.images(row)
        evaluation: list[Any] = [row.split, row.tune, row.tta, row.resize]
        if row.rule:  # rows without one keep the names that their results have had before there were rules
            evaluation.append(row.rule)
        decisive = {
            "recipe": recipe.raw,
            "images": [dataclasses.asdict(source) for source in (*images.tune, *images.test)],
            "evaluation": evaluation,
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
        sets = [_elsewhere(one, data) for one in (file, *file.images)]
        file = dataclasses.replace(sets[0], images=tuple(sets[1:]))
    recipes = {}
    for row in file.row:
        if row.recipe:
            changes = [*row.set, *budgets[budget].changes(row.recipe)]
            try:
                recipes[row.name] = _recipe(folder / row.recipe, changes, data)
            except UsageError as error:
                raise UsageError(f"{path}: row {row.name}: {error}") from None
    study = Study(file, budgets[budget], recipes)
    try:
        _check_networks(study)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return study


def _elsewhere(images: Any, folder: str) -> Any:
    """A study or a set of images with another folder in place of all that are named."""
    moved = {
        name: tuple(dataclasses.replace(source, folder=folder) for source in getattr(images, name))
        for name in ("tune", "test")
    }
    return dataclasses.replace(images, **moved)


def _check_networks(study: Study) -> None:
    """Check what depends on the rows' networks: the decoders' parameters, and where there is attention to be drawn."""
    for row in study.file.row:
        if row.changes:
            changed_rule(study.recipe(row).system.decoder_rule, row)
    for picture in study.file.picture:
        level = picture.attention
        rows = [study.row(name) for name in picture.rows]
        if level is not None and not any(study.has_attention(row, level) for row in rows):
            raise UsageError(f"picture {picture.title!r}: no row of it has attention at level {level}")


def changed_rule(rule: Any, row: Row) -> Any:
    """The decoder's parameters with the row's changes.

    Raises
    ------
    UsageError
        If the decoder has no such parameter, or a value is out of its range.
    """
    return build_table(type(rule), {**dataclasses.asdict(rule), **row.changes}, f"rule of row {row.name}")


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


def file_name(title: str) -> str:
    """What the file of a figure or picture is called, but for its ending.

    Examples
    --------
    >>> file_name("Figure 9: NMS, RoIs")
    'figure-9-nms-rois'
    """
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _known(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        raise UsageError(f"{where}: unknown name {name!r}; {hint}")
