"""What a study is: ``study.toml`` with its rows, budgets and tables, read and checked before anything starts."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuxel.data.dataset import Source
from nuxel.decode.clumps import SPLITS
from nuxel.errors import UsageError
from nuxel.training.recipe import Recipe, build_table, make_recipe, read_recipe

STUDY = "study.toml"

Result = dict[str, Any]
"""What a row and a seed gave, as it stands in the JSON file of the two."""


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
