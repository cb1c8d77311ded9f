"""Cross-validation: what is trained on and what is held out, and what is made of the scores."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuxel.data.dataset import find_all, find_annotated
from nuxel.errors import UsageError
from nuxel.training.folds import RESULT, assign_folds, fold_recipe, last_scores, spread, train_folds
from nuxel.training.recipe import read_recipe

GROUPS = st.lists(st.sampled_from("abc"), min_size=10, max_size=60)


@given(GROUPS, st.integers(2, 10))
def test_folds_are_even_in_size_and_in_every_group(groups: list[str], folds: int) -> None:
    assigned = assign_folds(groups, folds)
    for group in (None, *set(groups)):
        sizes = Counter(fold for fold, of in zip(assigned, groups, strict=True) if group in (None, of))
        counts = [sizes[fold] for fold in range(folds)]
        assert max(counts) - min(counts) <= 1
    assert assigned == assign_folds(groups, folds)


@pytest.mark.parametrize(
    ("count", "folds", "words"), [(5, 1, "at least 2 folds"), (3, 4, "too few for 4 folds")]
)
def test_folds_that_cannot_be(count: int, folds: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        assign_folds(["a"] * count, folds)


def test_every_image_is_held_out_once_and_never_trained_on_then(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    everything = {item.image for source in recipe.data.train for item in find_annotated(source)}
    held: Counter[Path] = Counter()
    for fold in range(2):
        data = fold_recipe(recipe, 2, fold).data
        train, val = (
            {item.image for source in part for item in find_annotated(source)}
            for part in (data.train, data.val)
        )
        assert train | val == everything
        assert not train & val
        held.update(val)
    assert held == Counter(everything)


def test_images_of_one_name_in_two_sub_folders_are_told_apart(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    for plate in ("plate1", "plate2"):
        shutil.copytree(data, tmp_path / plate)
    change = f'data.train=[{{folder="{tmp_path.as_posix()}"}}]'
    recipe = read_recipe(recipe_file, [change, "data.keep=0.5", "data.patch=[32, 16]"])
    for fold in range(2):
        found = fold_recipe(recipe, 2, fold).data
        train, val = (find_all(part) for part in (found.train, found.val))
        assert (len(train), len(val)) == (2, 2)
        assert not {item.image for item in train} & {item.image for item in val}
        assert (found.keep, found.patch) == (0.5, (32, 16))


@pytest.mark.parametrize(
    ("change", "words"),
    [("data.train=[]", "names no"), ("data.partial=true", "partial says that they are not whole")],
)
def test_what_cannot_be_cross_validated(recipe_file: Path, tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train_folds(read_recipe(recipe_file, [change]), tmp_path / "run", 2)


def test_a_short_run_is_validated_all_the_same(recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(
        recipe_file, ["schedule.epochs=1", "schedule.steps_per_epoch=1", "schedule.validate_every=9"]
    )
    assert "mAP" in train_folds(recipe, tmp_path / "cross", 2)


def test_runs_scores_and_their_spread(recipe_file: Path, tmp_path: Path) -> None:
    recipe = read_recipe(
        recipe_file, ["schedule.epochs=1", "schedule.steps_per_epoch=1", "schedule.validate_every=1"]
    )
    told: list[str] = []
    out = tmp_path / "cross"
    found = train_folds(recipe, out, 2, tell=told.append)
    scores = [last_scores(out / f"fold_{fold}") for fold in range(2)]
    assert {"mAP", "AP50", "IoU_foreground"} <= set(found)
    assert found == spread(scores)
    assert [line[:7] for line in told] == ["fold 0:", "fold 1:"]
    record = json.loads((out / RESULT).read_text())
    assert record["folds"] == scores
    assert record["over_folds"]["mAP"]["mean"] == pytest.approx(sum(one["mAP"] for one in scores) / 2)
    with pytest.raises(UsageError, match="already holds a run"):
        train_folds(recipe, out, 2)
    assert train_folds(recipe, out, 2, resume=True) == found


def test_spread() -> None:
    mean, deviation = spread([{"mAP": 0.2, "IoU_touching": 1.0}, {"mAP": 0.4}, {"mAP": 0.6}])["mAP"]
    assert (mean, deviation) == (pytest.approx(0.4), pytest.approx(0.2))
    assert spread([]) == {}
    assert "IoU_touching" not in spread([{"mAP": 0.2, "IoU_touching": 1.0}, {"mAP": 0.4}])
