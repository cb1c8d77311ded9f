"""``nuxel train --folds K``: cross-validation, one run a fold."""

from __future__ import annotations

import glob
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nuxel.data.dataset import Annotated, find_annotated, place_of
from nuxel.errors import UsageError
from nuxel.export.atomic import replacing
from nuxel.names import RUN_METRICS
from nuxel.training.epoch_log import read_rows
from nuxel.training.recipe import Recipe, make_recipe
from nuxel.training.train import NO_IMAGES, train

RESULT = "folds.json"
_PREFIX = "val/"

Scores = dict[str, float]


def assign_folds(groups: list[str], folds: int) -> list[int]:
    """The fold of each of several images, by the group of each: always the same for the same list.

    Every group is shuffled and dealt out to the folds in turn, each going on where the one before stopped: folds differ
    by at most one image in size, and in each group.

    Raises
    ------
    UsageError
        If there are fewer than two folds, or fewer images than folds.

    Examples
    --------
    >>> sorted(assign_folds(["a"] * 4 + ["b"] * 2, 2))
    [0, 0, 0, 1, 1, 1]
    """
    if folds < 2:
        raise UsageError(f"cross-validation needs at least 2 folds, got {folds}")
    if len(groups) < folds:
        raise UsageError(f"{len(groups)} annotated images are too few for {folds} folds")
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    rng = np.random.default_rng(0)
    # groups as they first appear: their names hold the folder, which may lie elsewhere tomorrow
    order = [index for group in members for index in rng.permutation(members[group])]
    assigned = [0] * len(groups)
    for place, index in enumerate(order):
        assigned[index] = place % folds
    return assigned


def fold_recipe(recipe: Recipe, folds: int, fold: int) -> Recipe:
    """The recipe that trains on all folds of its training images but one, and validates on that one.

    The recipe's own validation images are not used.

    Raises
    ------
    UsageError
        If there are too few images, or they are only partly annotated: what nobody annotated cannot be scored.
    """
    if recipe.data.partial:
        raise UsageError(
            "cross-validation scores the training images, and [data] partial says that they are not whole"
        )
    if not recipe.data.train:
        raise UsageError(NO_IMAGES)
    sources = [
        (raw, find_annotated(source)) for raw, source in zip(_sources(recipe), recipe.data.train, strict=True)
    ]
    found = [item for _, items in sources for item in items]
    assigned = iter(assign_folds([item.group for item in found], folds))
    train_on, validate_on = [], []
    for raw, items in sources:
        held = [next(assigned) == fold for _ in items]
        folder = Path(raw["folder"])
        train_on += _only(raw, folder, [item for item, out in zip(items, held, strict=True) if not out])
        validate_on += _only(raw, folder, [item for item, out in zip(items, held, strict=True) if out])
    data = {**recipe.raw["data"], "train": train_on, "val": validate_on}
    return make_recipe({**recipe.raw, "data": data}, f"fold {fold}")


def _sources(recipe: Recipe) -> list[dict[str, Any]]:
    return list(recipe.raw["data"]["train"])


def _only(raw: dict[str, Any], folder: Path, items: list[Annotated]) -> list[dict[str, Any]]:
    """The source with these images alone, by their places: other sub-folders may have images of the same name."""
    return (
        [{**raw, "include": [glob.escape(place_of(item.image, folder)) for item in items]}] if items else []
    )


def train_folds(
    recipe: Recipe,
    out: Path,
    folds: int,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, tuple[float, float]]:
    """Train and validate every fold, each in a run folder ``out/fold_0``, ``out/fold_1``, ... of its own.

    ``out/folds.json`` is written after each fold: the scores of its last validation by fold, and mean and standard
    deviation of each score over the folds that are done.

    Parameters
    ----------
    folds
        How many.
    resume
        Continue what was interrupted; folds that are done stay.
    tell
        Is given a sentence after each fold.

    Returns
    -------
    Mean and standard deviation by score.

    Raises
    ------
    UsageError
        As :func:`nuxel.training.train.train`; before anything is trained.
    """
    recipes = [fold_recipe(recipe, folds, fold) for fold in range(folds)]
    scores: list[Scores] = []
    for fold, of_fold in enumerate(recipes):
        run = out / f"fold_{fold}"
        train(of_fold, run, resume=resume)
        scores.append(last_scores(run))
        _write(out / RESULT, scores)
        tell(f"fold {fold}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores[-1].items()))
    return spread(scores)


def last_scores(run: Path) -> Scores:
    """The scores of a run's last validation by name."""
    validated = [
        {
            name.removeprefix(_PREFIX): float(value)
            for name, value in row.items()
            if name.startswith(_PREFIX) and value
        }
        for row in read_rows(run / RUN_METRICS).values()
    ]
    return next((scores for scores in reversed(validated) if scores), {})


def spread(scores: list[Scores]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (of a sample; 0 for one fold) of each score that all folds have.

    Examples
    --------
    >>> spread([{"mAP": 0.5}, {"mAP": 0.75}])["mAP"][0]
    0.625
    """
    names = [name for name in scores[0] if all(name in one for one in scores)] if scores else []
    values = {name: [one[name] for one in scores] for name in names}
    return {
        name: (statistics.fmean(of), statistics.stdev(of) if len(of) > 1 else 0.0)
        for name, of in values.items()
    }


def _write(path: Path, scores: list[Scores]) -> None:
    over = {name: {"mean": mean, "standard_deviation": sd} for name, (mean, sd) in spread(scores).items()}
    with replacing(path) as part:
        part.write_text(json.dumps({"folds": scores, "over_folds": over}, indent=1) + "\n", encoding="utf-8")
