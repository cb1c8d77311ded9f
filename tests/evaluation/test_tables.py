"""An evaluation as text, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.evaluation.compare import compare
from nuxel.evaluation.evaluate import Evaluation, evaluate
from nuxel.evaluation.tables import aligned, as_json, as_text, cell, comparison_as_text, write_csv, write_json

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def evaluation(tmp_path: Path, save: Save, squares: Draw) -> Evaluation:
    for image, truth, predicted in (
        ("a", (1, 2), (1, 2)),
        ("b", (3, 4), (3,)),
        ("c", (), ()),
        ("d", (1,), (2,)),
    ):
        save(f"truth/{image}.png", squares(*truth))
        save(f"out/{image}_labels.tif", squares(*predicted))
    (tmp_path / "index.csv").write_text("id,stain\na,red\nb,red\nc,\nd,red\n")
    return evaluate(tmp_path / "out", tmp_path / "truth", index=tmp_path / "index.csv", hausdorff=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (1234567, "1,234,567"), (None, "-"), (float("nan"), "-"), (1.0, "1.000")],
)
def test_cells(value: float | None, text: str) -> None:
    assert cell(value) == text


def test_columns_are_aligned() -> None:
    lines = aligned([["", "long head", "x"], ["a", "1", "22"], ["longer", "333", ""]]).splitlines()
    assert lines == ["        long head   x", "a               1  22", "longer        333"]


def test_text(evaluation: Evaluation) -> None:
    lines = as_text(evaluation).splitlines()
    assert lines[0].split()[:8] == ["images", "true", "predicted", "AP", "AP50", "AP75", "AP90", "Prec"]
    assert lines[1].split()[:7] == ["mean", "of", "images", "4", "5", "4", "0.625"]
    assert lines[2].split()[:5] == ["all", "nuclei", "pooled", "0.500", "0.500"]
    assert lines[3] == "stain:"
    assert lines[4].split()[:5] == ["(empty)", "1", "0", "0", "1.000"]
    assert lines[5].split()[:5] == ["red", "3", "5", "4", "0.500"]
    assert lines[7] == (
        "true nuclei (IoU > 0.5): 3 correct, 0 merged, 0 split, 0 poorly outlined, 2 missed; "
        "predicted nuclei: 1 spurious"
    )
    assert lines[-1] == "lowest AP: d 0.000, b 0.500, a 1.000"
    assert len({len(line) for line in lines[:3]}) == 1


def test_text_of_one_image_says_nothing_twice(squares: Draw) -> None:
    text = as_text(evaluate(squares(1), squares(1)))
    assert "pooled" not in text
    assert "lowest" not in text
    assert "Hausd" not in text


def test_json(evaluation: Evaluation, tmp_path: Path) -> None:
    write_json(tmp_path / "e.json", evaluation)
    found = json.loads((tmp_path / "e.json").read_text())
    assert found == as_json(evaluation)
    assert found["totals"]["mean"]["ap"] == 0.625
    assert found["totals"]["pooled"]["recall"] == 0.6
    assert found["totals"]["errors"]["missed"] == 2
    assert found["iou_thresholds"][0::9] == [0.5, 0.95]
    assert len(found["totals"]["mean_curve"]) == len(found["totals"]["pooled_curve"]) == 10
    assert found["groups"]["stain"]["red"]["images"] == 3
    assert [row["image"] for row in found["images"]] == ["a", "b", "c", "d"]
    assert found["images"][1]["count_error"] == -1
    assert found["images"][1]["groups"] == {"stain": "red"}
    assert found["images"][2]["hausdorff"] is None
    assert found["threshold"] == 0.5
    assert "second" not in found


def test_json_of_a_comparison(evaluation: Evaluation, squares: Draw) -> None:
    found = as_json(evaluation, compare(evaluation, evaluation))
    assert found["second"] == as_json(evaluation)
    assert found["differences"]["ap"] == {
        "mean": 0,
        "first": 0.625,
        "second": 0.625,
        "low": None,
        "high": None,
        "p_value": 1,
        "better": 0,
        "worse": 0,
    }
    nothing = evaluate(squares(), squares(), hausdorff=True)
    text = json.dumps(as_json(nothing, compare(nothing, nothing)), allow_nan=False)
    assert json.loads(text)["differences"]["hausdorff"]["mean"] is None


def test_json_says_what_was_asked(evaluation: Evaluation, tmp_path: Path) -> None:
    some = evaluate(
        tmp_path / "out", tmp_path / "truth", index=tmp_path / "index.csv", where={"stain": "red"}, iou=0.6
    )
    found = as_json(some, compare(some, dataclasses.replace(some, images=list(some.images))))
    assert (found["where"], found["threshold"]) == ({"stain": "red"}, 0.6)
    assert [row["image"] for row in found["second"]["images"]] == ["a", "b", "d"]
    whole = as_json(evaluation)["totals"]
    assert (whole["mean_curve"][0], whole["pooled_curve"][0]) == (0.625, 0.5)
    odd = dataclasses.replace(evaluation.images[0], image="näme")
    write_json(tmp_path / "e.json", dataclasses.replace(evaluation, images=[odd]))
    assert "näme" in (tmp_path / "e.json").read_text(encoding="utf-8")


def test_csv(evaluation: Evaluation, tmp_path: Path) -> None:
    write_csv(tmp_path / "e.csv", evaluation)
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "c", "d"]
    assert list(rows[0])[:5] == ["image", "stain", "truth_nuclei", "predicted_nuclei", "count_error"]
    assert (rows[1]["ap"], rows[1]["missed"], rows[1]["poorly_outlined"]) == ("0.5", "1", "0")
    assert (rows[2]["hausdorff"], rows[2]["stain"]) == ("", "")


def test_a_name_with_an_end_of_line_is_one_row(save: Save, squares: Draw, tmp_path: Path) -> None:
    for side in "pt":
        save(f"{side}/a\rb.png", squares(1))
        save(f"{side}/c.png", squares(1))
    write_csv(tmp_path / "e.csv", evaluate(tmp_path / "p", tmp_path / "t"))
    with (tmp_path / "e.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["a\rb", "c"]


def test_comparison(evaluation: Evaluation) -> None:
    lines = comparison_as_text(compare(evaluation, evaluation), "x", "y").splitlines()
    assert lines[:3] == ["first: x", "second: y", ""]
    assert lines[4].split() == ["AP", "0.625", "0.625", "+0.000", "-", "1", "0", "0"]
    assert lines[-1].startswith("Hausd")


def test_boxes_are_shown(evaluation: Evaluation) -> None:
    boxed = Evaluation(evaluation.images, evaluation.pairs, evaluation.settings, {"voc_ap50": 0.25})
    assert "\n\nboxes: voc_ap50 0.250\n" in as_text(boxed)
    assert as_json(boxed)["boxes"] == {"voc_ap50": 0.25}


@pytest.mark.parametrize("write", [write_csv, write_json])
def test_files_that_cannot_be_written(
    evaluation: Evaluation, tmp_path: Path, write: Callable[..., None]
) -> None:
    with pytest.raises(NuxelError, match="cannot be written"):
        write(tmp_path / "missing" / "e", evaluation)
