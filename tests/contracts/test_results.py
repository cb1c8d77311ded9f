"""Recorded studies: their tables are those of the recorded results and of the recipes as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
RECORDED = sorted(path.parent for path in RESULTS.rglob("results"))


def name(folder: Path) -> str:
    """A study's, and after it the budget's if it is not the small one: ``us_net/longer``."""
    return folder.relative_to(RESULTS).as_posix()


def recipes(folder: Path) -> Path:
    return ROOT / "recipes" / folder.relative_to(RESULTS).parts[0]


@pytest.mark.parametrize("folder", RECORDED, ids=name)
def test_tables_follow_from_the_results(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the training half is not installed")
    from nuxel.training.study_file import read_study
    from nuxel.training.study_page import PAGE, write_page

    budgets = {json.loads(path.read_text())["budget"] for path in (folder / "results").glob("*.json")}
    assert len(budgets) == 1
    study = read_study(recipes(folder), budgets.pop())
    shutil.copytree(folder / "results", tmp_path / "results")
    assert write_page(study, tmp_path, {}) == (folder / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", RECORDED, ids=name)
def test_every_result_is_in_the_tables(folder: Path) -> None:
    """A result of a recipe that has changed since is not shown, and has no place here."""
    pytest.importorskip("torch", reason="the training half is not installed")
    from nuxel.training.study_file import read_study
    from nuxel.training.study_page import read_results

    paths = list((folder / "results").glob("*.json"))
    budget = json.loads(paths[0].read_text())["budget"]
    shown = read_results(read_study(recipes(folder), budget), folder)
    assert sum(map(len, shown.values())) == len(paths)
