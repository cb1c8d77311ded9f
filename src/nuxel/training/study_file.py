"""A study as it stands in a folder: ``study.toml`` and its recipes, read and checked before a row starts."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuxel.data.dataset import Source
from nuxel.errors import UsageError
from nuxel.predict.card import ATTENTION
from nuxel.training.recipe import Recipe, make_recipe, read_recipe
from nuxel.training.study_schema import Budget, Images, Row, StudyFile, check_known
from nuxel.training.toml_tables import build_table

STUDY = "study.toml"

Result = dict[str, Any]
"""What a row and a seed gave, as it stands in the JSON file of the two."""


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
            "images": [_decisive(source) for source in (*images.tune, *images.test)],
            "evaluation": evaluation,
        }
        if row.of and row.images:  # whose model was tuned on the study's own
            decisive["tune"] = [_decisive(source) for source in self.file.tune]
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
            check_known(name, [row.name for row in rows], "--only")
        wanted = {*only, *(self.row(name).of for name in only)}
        return [row for row in rows if not only or row.name in wanted]


def _decisive(source: Source) -> dict[str, Any]:
    """A source, without what it does not say of planes: results have had their names before planes could be chosen."""
    given = dataclasses.asdict(source)
    return {
        key: value for key, value in given.items() if key not in ("channel", "z", "t") or value is not None
    }


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
    check_known(budget, list(budgets), f"{path}: --budget")
    if data is not None:
        data = os.path.normpath(data)  # one name for one folder, since results have hashes of it
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
        for name in ("train", "val"):
            for source in raw.get("data", {}).get(name, ()):
                source["folder"] = data
        recipe = make_recipe(raw, str(path))
    if recipe.schedule.devices != 1:
        raise UsageError(f"a study trains on one device, got devices = {recipe.schedule.devices}")
    return recipe
