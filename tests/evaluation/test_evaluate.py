"""``nuxel.evaluate``: paths and arrays in, rows, totals and groups out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nuxel
from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation import pairs
from nuxel.evaluation.evaluate import Settings, evaluate
from nuxel.evaluation.tables import as_json, as_text, write_json
from nuxel.instances import Instances

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]
DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def folders(tmp_path: Path, save: Save, squares: Draw) -> tuple[Path, Path]:
    """Three images: a exact, b with one of two missed, c empty on both sides; and their index."""
    for image, truth, predicted in (("a", (1, 2), (1, 2)), ("b", (3, 4), (3,)), ("c", (), ())):
        save(f"truth/{image}.png", squares(*truth))
        save(f"out/{image}_labels.tif", squares(*predicted))
    (tmp_path / "index.csv").write_text("id,stain,size\na,red,100\nb,red,20\nc,blue,20\n")
    return tmp_path / "out", tmp_path / "truth"


def test_it_is_the_python_door() -> None:
    assert nuxel.evaluate is evaluate


def test_folders(folders: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int, str]] = []
    found = evaluate(*folders, progress=lambda *said: seen.append(said))
    assert [(row.image, row.scores["ap"]) for row in found.images] == [("a", 1.0), ("b", 0.5), ("c", 1.0)]
    assert [pair.image for pair in found.pairs] == ["a", "b", "c"]
    assert found.totals.mean["ap"] == pytest.approx(2.5 / 3)
    assert found.totals.pooled["ap"] == 0.75
    assert found.groups == {}
    assert found.boxes == {}
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    assert evaluate(str(folders[0]), str(folders[1])).totals.mean["ap"] == found.totals.mean["ap"]


def test_groups(folders: tuple[Path, Path]) -> None:
    found = evaluate(*folders, index=folders[0].parent / "index.csv").groups
    assert {column: list(values) for column, values in found.items()} == {
        "stain": ["blue", "red"],
        "size": ["20", "100"],
    }
    assert found["stain"]["red"].mean["ap"] == 0.75
    assert found["size"]["20"].images == 2
    assert list(evaluate(*folders, index=folders[0].parent / "index.csv", group=["size"]).groups) == ["size"]
    assert list(evaluate(*folders, index=folders[0].parent / "index.csv", group="size").groups) == ["size"]


def test_only_some(folders: tuple[Path, Path], save: Save) -> None:
    save("out/d_labels.tif", np.zeros((4, 4), np.int32))
    index = folders[0].parent / "index.csv"
    with pytest.raises(UsageError, match="where is a mapping"):
        evaluate(*folders, index=index, where="stain=red")
    found = evaluate(*folders, index=index, where={"stain": "red"})
    assert [row.image for row in found.images] == ["a", "b"]
    with pytest.raises(UsageError, match="no truth for d"):
        evaluate(*folders, index=index)


def test_settings_reach_the_scores(folders: tuple[Path, Path], squares: Draw) -> None:
    truth, predicted = squares(1), squares(1, shift={1: 2})
    assert evaluate(predicted, truth).totals.mean["recall"] == 1
    assert evaluate(predicted, truth, iou=0.7).totals.mean["recall"] == 0
    assert evaluate(predicted, truth, hausdorff=True).totals.mean["hausdorff"] == 2
    (folders[0] / "b_labels.tif").unlink()
    with pytest.raises(UsageError, match="no prediction for b"):
        evaluate(*folders)
    assert evaluate(*folders, allow_missing=True).images[1].errors["missed"] == 2
    with pytest.raises(TypeError):
        evaluate(predicted, truth, treshold=0.7)


def test_arrays_are_label_images() -> None:
    labels = np.ones((2, 3), np.uint16)
    assert evaluate(labels, labels).totals.mean["ap"] == 1
    for bad in (labels[0], labels.astype(float), labels > 0, np.zeros((2, 3, 3), int)):
        with pytest.raises(NuxelError, match=r"the prediction is \(.*; labels must be \(H, W\) integers"):
            evaluate(bad, labels)
        with pytest.raises(NuxelError, match="the truth is"):
            evaluate(labels, bad)
    with pytest.raises(NuxelError, match="the truth is a masked array; fill it"):
        evaluate(labels, np.ma.masked_array(labels))
    with pytest.raises(NuxelError, match="the prediction is a path, an array or Instances, got list"):
        evaluate([[1, 1]], labels)  # type: ignore[arg-type]
    assert evaluate(Instances(labels.astype(np.int32)), labels).totals.mean["ap"] == 1
    with pytest.raises(NuxelError, match="the prediction: it is 2 x 3 pixels, but the truth is 3 x 2"):
        evaluate(labels, labels.T)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.1, float("nan")])
def test_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(UsageError, match="the IoU threshold must lie between 0 and 1"):
        Settings(threshold=threshold)


@pytest.mark.parametrize("wrong", [{"where": {"a": "b"}}, {"group": ["a"]}])
def test_groups_need_an_index(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="give one as index"):
        evaluate(np.ones((1, 1), int), np.ones((1, 1), int), **wrong)


def test_a_slide_scores_the_same_in_bands(save: Save, squares: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = save("t/a.tif", squares(1, 2, 3))
    predicted = save("p/a.tif", squares(1, 2, 4, shift={2: 2}))
    whole = evaluate(predicted, truth)
    monkeypatch.setattr(pairs, "LARGE", 100)
    banded = evaluate(predicted, truth)
    assert banded.pairs[0].is_slide
    assert banded.images[0].scores == whole.images[0].scores
    assert banded.images[0].errors == whole.images[0].errors


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("p.tif", np.zeros((40, 60), np.float32), "holds float32 values"),
        ("p.tif", np.zeros((5, 40, 60), np.uint8), "has shape"),
        ("p.png", np.zeros((40, 60, 3), np.uint8), "is a colour picture"),
        (
            "p.png",
            np.zeros((40, 61), np.uint8),
            "it is 40 x 61 pixels, but .* is 40 x 60",
        ),
    ],
)
def test_bad_files_are_named(save: Save, squares: Draw, name: str, array: np.ndarray, reason: str) -> None:
    truth, bad = save("truth.png", squares(1)), save(name, array)
    with pytest.raises(NuxelError, match=reason) as refused:
        evaluate(bad, truth)
    assert str(refused.value).startswith(f"{bad}: ")


def test_the_layouts_of_the_shared_data(tmp_path: Path) -> None:
    folder = DATA / "kaggle_layout" / "stage1_train"
    if not folder.is_dir():
        pytest.skip("shared/data/kaggle_layout is not here")
    ids = [path.name for path in sorted(folder.iterdir())]
    lines = ["ImageId,EncodedPixels", *(f"{image}," for image in ids)]
    (tmp_path / "empty.csv").write_text("\n".join(lines))
    found = evaluate(tmp_path / "empty.csv", folder)
    assert [row.image for row in found.images] == ids
    assert found.totals.errors["missed"] == found.totals.truth_nuclei > 4
    assert found.totals.mean["ap"] == 0


def test_an_image_without_an_annotated_pixel_is_left_out_of_all_means(tmp_path: Path, squares: Draw) -> None:
    """Of it nothing is known, not even that nothing was to be found; an image without nuclei is another thing."""
    predicted, truth = tmp_path / "p", tmp_path / "t"
    for name, found, true in (
        ("a", squares(1, 2), squares(1)),
        ("blank", squares(1, 2), np.full_like(squares(), -1)),
        ("empty", squares(), squares()),
    ):
        for folder, labels in ((predicted, found), (truth, true)):
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{name}.npy", labels)
    result = evaluate(predicted, truth)
    assert [row.annotated for row in result.images] == [True, False, True]
    assert result.images[1].errors["spurious"] == 0
    assert result.totals.mean["ap"] == (0.5 + 1) / 2
    assert result.totals.mean_curve.tolist() == [0.75] * 10
    assert result.totals.pooled["precision"] == 0.5
    assert result.notes == ["1 of 3 images have no annotated pixel and are left out of all means"]
    assert result.notes[0] in as_text(result)
    assert "blank" not in as_text(result)
    written = as_json(result)["images"][1]
    assert (written["image"], written["ap"]) == ("blank", None)
    nothing = evaluate(np.load(predicted / "a.npy"), np.load(truth / "blank.npy"))
    assert np.isnan([nothing.totals.mean["ap"], *nothing.totals.mean_curve]).all()


def test_without_any_annotated_pixel_nothing_is_said(tmp_path: Path, squares: Draw) -> None:
    result = evaluate(squares(1), np.full_like(squares(), -1))
    assert np.isnan(list(result.totals.pooled.values())).all()
    assert np.isnan([*result.totals.pooled_curve, *result.totals.mean_curve]).all()
    write_json(tmp_path / "e.json", result)
    read = json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)
    assert read["totals"]["mean_curve"] == [None] * 10
    assert read["totals"]["pooled"]["ap"] is None


def test_missing_predictions_are_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a_labels.tif").unlink()
    result = evaluate(*folders, allow_missing=True)
    assert result.missing == ["a"]
    assert as_json(result)["missing"] == ["a"]
    assert result.notes == [f"1 of {len(result.images)} images have no prediction and count as empty"]
