"""Scores beside label images, and the precision of boxes that follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuxel.data.label_sets import LabelArray, LabelFile, Nothing
from nuxel.errors import NuxelError
from nuxel.evaluation.detections import box_scores, nucleus_scores
from nuxel.evaluation.evaluate import evaluate
from nuxel.evaluation.pairs import Pair
from nuxel.instances import Instances

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]


@pytest.fixture
def predict(save: Save, squares: Draw) -> Callable[..., LabelFile]:
    """Save a prediction with scores: nucleus to score."""

    def write(name: str, scores: dict[int, float], **drawn: object) -> LabelFile:
        path = save(f"{name}_labels.tif", squares(*scores, **drawn))
        lines = [f"{label},{score},9.5" for label, score in scores.items()]
        path.with_name(path.name.replace("_labels.tif", "_nuclei.csv")).write_text(
            "\n".join(["label,score,area", *lines])
        )
        return LabelFile(path)

    return write


def test_scores_beside_the_labels(predict: Callable[..., LabelFile]) -> None:
    assert nucleus_scores(predict("a.b", {1: 0.5, 7: 0.25})) == {1: 0.5, 7: 0.25}


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("between", [b",", b";", b"\t"])
def test_as_spreadsheets_save_it(predict: Callable[..., LabelFile], head: bytes, between: bytes) -> None:
    source = predict("a", {1: 0.5, 7: 0.25})
    table = source.path.with_name("a_nuclei.csv")
    table.write_bytes(head + table.read_bytes().replace(b",", between))
    assert nucleus_scores(source) == {1: 0.5, 7: 0.25}


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_rows_that_end_in_an_empty_column(predict: Callable[..., LabelFile], between: str) -> None:
    source = predict("a", {1: 0.5, 7: 0.25})
    table = source.path.with_name("a_nuclei.csv")
    decimal = "0.5" if between == "," else "0,5"
    table.write_text(f"label{between}score\n1{between}{decimal}{between}\n7{between}0{between}{between}\n")
    assert nucleus_scores(source) == {1: 0.5, 7: 0.0}


@pytest.mark.parametrize("header", ["label,area", "id,score", "id,area"])
def test_a_table_without_the_columns_has_no_scores(predict: Callable[..., LabelFile], header: str) -> None:
    source = predict("a", {1: 0.5})
    for rows in ("", "1,0.5\n"):
        source.path.with_name("a_nuclei.csv").write_text(f"{header}\n{rows}")
        assert nucleus_scores(source) is None


def test_what_somebody_annotated_has_no_score(predict: Callable[..., LabelFile], squares: Draw) -> None:
    source = predict("a", {1: 0.5, 7: 0.25})
    table = source.path.with_name("a_nuclei.csv")
    table.write_text(table.read_text().replace("1,0.5", "1,"))
    assert nucleus_scores(source) == {7: 0.25}
    with pytest.raises(NuxelError, match="has no score of nucleus 1"):
        box_scores([Pair("a", LabelArray(squares(1)), source)])


def test_what_segment_returns_has_its_scores(squares: Draw) -> None:
    found = Instances(squares(1, 2), np.array([0.9, 0.4], np.float32))
    assert evaluate(found, squares(1), boxes=True).boxes["voc_ap50"] == 1
    turned = Instances(squares(1, 2), np.array([0.4, 0.9], np.float32))
    assert evaluate(turned, squares(1), boxes=True).boxes["voc_ap50"] == 0.5


def test_no_scores(save: Save, squares: Draw, predict: Callable[..., LabelFile]) -> None:
    assert nucleus_scores(LabelArray(squares(1))) is None
    assert nucleus_scores(LabelFile(save("plain.tif", squares(1)))) is None
    assert nucleus_scores(LabelFile(save("x_labels.tif", squares(1)))) is None
    table = predict("a", {1: 1.0}).path.with_name("a_nuclei.csv")
    table.write_text("label,area\n1,5\n")
    assert nucleus_scores(predict("b", {})) == {}
    assert nucleus_scores(LabelFile(table.with_name("a_labels.tif"))) is None


@pytest.mark.parametrize("content", [b"label,score\n1,high\n", b"label,score\n,0.5\n", b"\xff\xfe\x00"])
def test_a_damaged_table_is_named(predict: Callable[..., LabelFile], content: bytes) -> None:
    source = predict("a", {1: 1.0})
    source.path.with_name("a_nuclei.csv").write_bytes(content)
    with pytest.raises(
        NuxelError, match=r"a_nuclei\.csv: cannot be read as the table of the nuclei of a_labels\.tif"
    ):
        nucleus_scores(source)


def test_average_precision_by_hand(predict: Callable[..., LabelFile], squares: Draw) -> None:
    """Two of three nuclei found, with a surer spurious one between: precision 1, 1/2, 2/3."""
    pytest.importorskip("faster_coco_eval")
    source = predict("a", {1: 0.9, 8: 0.8, 2: 0.7})
    found = box_scores([Pair("a", LabelArray(squares(1, 2, 3)), source)])
    assert found["voc_ap50"] == pytest.approx(1 / 3 + 2 / 3 / 3)
    assert found["voc_ap50_11_point"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert found["coco_ap"] == pytest.approx(found["coco_ap50"])
    assert found["coco_ap75"] == pytest.approx(found["coco_ap50"])
    assert found["coco_ap50"] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)


def test_missing_predictions_and_what_is_not_annotated(
    predict: Callable[..., LabelFile], squares: Draw
) -> None:
    pytest.importorskip("faster_coco_eval")
    truth = squares(1, 2)
    truth[:, 20:] = -1
    source = predict("a", {1: 0.5, 4: 0.9})
    pairs = [Pair("a", LabelArray(truth), source), Pair("b", LabelArray(squares(3)), Nothing())]
    # nucleus 2 reaches 4 columns into what is annotated, and is not found: 1 of 3
    assert box_scores(pairs)["voc_ap50"] == pytest.approx(1 / 3)


def test_scores_are_needed(predict: Callable[..., LabelFile], save: Save, squares: Draw) -> None:
    truth = LabelArray(squares(1, 2))
    with pytest.raises(
        NuxelError, match=r"bare\.tif: has no scores; average precision of boxes needs the table"
    ):
        box_scores([Pair("a", truth, LabelFile(save("bare.tif", squares(1))))])
    source = predict("a", {1: 0.5})
    save("a_labels.tif", squares(1, 2))
    with pytest.raises(NuxelError, match=r"a_labels\.tif: the table beside it has no score of nucleus 2"):
        box_scores([Pair("a", truth, source)])


def test_evaluate_asks_for_them(predict: Callable[..., LabelFile], save: Save, squares: Draw) -> None:
    pytest.importorskip("faster_coco_eval")
    source = predict("out/a", {1: 0.5})
    found = evaluate(source.path, save("t.png", squares(1)), boxes=True)
    assert list(found.boxes.values()) == pytest.approx([1.0] * 5)
    assert list(found.boxes) == ["voc_ap50", "voc_ap50_11_point", "coco_ap", "coco_ap50", "coco_ap75"]
