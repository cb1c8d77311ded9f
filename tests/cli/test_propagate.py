"""``nuxel propagate`` as an annotator runs it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nuxel.annotate import files
from nuxel.annotate.tasks import Task
from nuxel.cli.main import main
from nuxel.image.read import Reading
from nuxel.labels.read import read_labels
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options

Capture = pytest.CaptureFixture[str]
Set = tuple[Path, NDArray[np.int32]]
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018"


@pytest.fixture
def some(
    tmp_path: Path, save_discs: Callable[..., Path], draw_discs: Callable[..., NDArray[np.uint8]]
) -> Set:
    """Two images of four discs, one of them in a sub-folder; of each the third disc is annotated."""
    truth = ndimage.label(draw_discs(4) > 100)[0].astype(np.int32)
    for name in ("a", "plate/b"):
        save_discs(f"set/images/{name}.png", 4)
        for folder, labels in (("annotated", np.where(truth == 3, 3, -1)), ("truth", truth)):
            path = tmp_path / folder / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, labels.astype(np.int32))
    return tmp_path, truth


def run(model: object, folder: Path, *more: object, images: str = "set/images") -> int:
    paths = ["--annotations", folder / "annotated", "--out", folder / "out"]
    return main([str(one) for one in ("propagate", model, folder / images, *paths, *more)])


def said(capsys: Capture) -> str:
    """The one line on stderr of a command that was refused."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_every_option_reaches_the_run(some: Set, toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, truth = some
    given: list[tuple[list[Task], files.Propagation]] = []
    monkeypatch.setattr(files, "propagate_files", lambda tasks, how, _: given.append((tasks, how)) or [])
    reading = ("--channel", "DAPI", "--z", "max", "--t", 2, "--pixel-size", 0.25)
    finding = ("--diameter", 30, "--threshold", 0.4, "--min-area", 12)
    own = ("--partial", "--complete", "--tolerance", 2.5, "--truth", folder / "truth")
    assert run(toy_model, folder) == run(toy_model, folder, *reading, *finding, *own) == 0
    (tasks, plain), (others, full) = given
    assert (plain.partial, plain.complete, plain.tolerance) == (False, False, 1.0)
    assert (plain.options, plain.reading) == (Options(), Reading())
    assert all(task.annotations and task.truth is None for task in tasks)
    assert (full.partial, full.complete, full.tolerance) == (True, True, 2.5)
    assert full.options == Options(diameter=30, threshold=0.4, min_area=12)
    assert full.reading == Reading("DAPI", "max", 2, 0.25)
    assert all(np.array_equal(task.truth.read(None), truth) for task in others if task.truth)
    assert len([task for task in others if task.truth]) == 2


def test_where_it_runs(some: Set, toy_model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = some
    opened: list[Model] = []
    monkeypatch.setattr(files, "propagate_files", lambda _, how, __: opened.append(how.network) or [])
    assert run(toy_model, folder, "--threads", 1, "--device", "cpu") == 0
    assert opened[0].threads == 1
    assert run(toy_model, folder, "--threads", 0) == 2
    assert "threads must be a whole number of at least 1" in capsys.readouterr().err


def test_with_a_model_file(some: Set, toy_model: Path, capsys: Capture) -> None:
    folder, truth = some
    assert run(toy_model, folder, "--truth", folder / "truth", "--scale", 1) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"2 done, 0 failed; 2 nuclei annotated, 6 proposed; see {folder / 'out'}\n"
    for name in ("a", "plate/b"):
        labels = read_labels(folder / "out" / f"{name}_labels.tif")
        assert np.array_equal(labels == 3, truth == 3)
        assert np.unique(labels).tolist() == [-1, 3, 4, 5, 6]


def test_with_the_default_model(some: Set) -> None:
    folder, truth = some
    assert run("default", folder) == 0
    labels = read_labels(folder / "out" / "a_labels.tif")
    assert np.array_equal(labels == 3, truth == 3)
    assert len(np.unique(labels)) == 5


def test_with_a_run_and_back_to_training(some: Set, tmp_path: Path) -> None:
    """The loop: train on what is annotated, propagate, and go on from the run with what has become of it."""
    pytest.importorskip("torch")
    folder, truth = some
    shutil.copytree(folder / "annotated", folder / "set" / "labels")
    recipe = tmp_path / "partial.toml"
    recipe.write_text(
        f'''system = "partial_mask_rcnn"
data.train = [{{ folder = "{(folder / "set").as_posix()}" }}]
network = {{ backbone = "resnet18", weights = "none", width = 8, box_head = 16, mask_head = [8] }}
detection = {{ box_min_score = 0.0, proposals = 50 }}
decoder_rule = {{ min_score = 0.0 }}
schedule = {{ crop = 64, batch = 1, epochs = 1, steps_per_epoch = 1, workers = 0 }}
''',
        encoding="utf-8",
    )
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    assert run(folder / "run", folder) == 0
    labels = read_labels(folder / "out" / "plate" / "b_labels.tif")
    assert np.array_equal(labels == 3, truth == 3)
    shutil.rmtree(folder / "set" / "labels")
    (folder / "out").rename(folder / "set" / "labels")
    again = ["train", str(recipe), "--out", str(folder / "again"), "--init", str(folder / "run")]
    assert main(again) == 0


@pytest.mark.parametrize("named", ["round2", "round2/labels"])
def test_curves_of_one_image_beside_the_pixels_of_another(
    some: Set, toy_model: Path, capsys: Capture, named: str
) -> None:
    """A person edits the curves of one image, and removes its label image, which would count otherwise."""
    folder, truth = some
    assert run(toy_model, folder, "--scale", 1) == 0
    (folder / "round2").mkdir()
    shutil.copytree(folder / "set" / "images", folder / "round2" / "images")
    (folder / "out").rename(folder / "round2" / "labels")
    (folder / "round2" / "labels" / "plate" / "b_labels.tif").unlink()
    capsys.readouterr()
    paths = ["--annotations", folder / named, "--out", folder / "third", "--partial", "--scale", 1]
    command = ("propagate", toy_model, folder / "round2" / "images", *paths)
    assert main([str(one) for one in command]) == 0
    assert capsys.readouterr().err.startswith("2 done, 0 failed; 2 nuclei annotated, 6 proposed")
    for name in ("a", "plate/b"):
        labels = read_labels(folder / "third" / f"{name}_labels.tif")
        assert ((labels > 0) & (truth == 3)).sum() > 0.9 * (truth == 3).sum()


def sources(path: Path) -> list[tuple[str, str]]:
    with path.open() as file:
        return [(row["source"], row["score"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["pixels", "curves"])
def test_what_nobody_confirmed_stays_a_proposal(some: Set, toy_model: Path, kind: str) -> None:
    folder, _ = some
    assert run(toy_model, folder, "--scale", 1) == 0
    shutil.copytree(folder / "out", folder / "mine")
    if kind == "curves":
        for path in (folder / "mine").rglob("*_labels.tif"):
            path.unlink()
    more = ["--annotations", folder / "mine", "--partial"]
    assert run(toy_model, folder, "--scale", 1, *more, "--out", folder / "second") == 0
    first = sources(folder / "out" / "a_nuclei.csv")
    assert [source for source, _ in first] == ["human", "proposed", "proposed", "proposed"]
    assert sources(folder / "second" / "a_nuclei.csv") == first
    for path in (folder / "mine").rglob("*_nuclei.csv"):
        path.write_text(path.read_text().replace("proposed", "human"))
    for path in (folder / "mine").rglob("*_nuclei.geojson"):
        path.write_text(path.read_text().replace('"name": "proposed"', '"name": "Tumor"'))
    assert run(toy_model, folder, "--scale", 1, *more, "--out", folder / "third") == 0
    assert [source for source, _ in sources(folder / "third" / "a_nuclei.csv")] == ["human"] * 4


def test_curves_do_not_drift(some: Set, toy_model: Path) -> None:
    """Round after round, what a person drew stays what was drawn, to the last digit, and where it overlaps, too."""
    folder, _ = some
    shutil.rmtree(folder / "annotated")
    (folder / "annotated").mkdir()
    rings = [
        [[10.123456, 10], [30, 10], [30, 31], [10.123456, 10]],
        [[20, 10], [40, 12.5], [35, 40], [20, 10]],
    ]
    path = folder / "annotated" / "a.geojson"
    path.write_text(
        json.dumps(
            [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings]
        )
    )
    for number in range(3):
        out = folder / f"out{number}"
        more = ["--annotations", path, "--partial", "--out", out, "--scale", 1]
        assert run(toy_model, folder, *more, images="set/images/a.png") == 0
        path = out / "a_nuclei.geojson"
        features = json.loads(path.read_text())["features"]
        assert [one["geometry"]["coordinates"][0] for one in features[:2]] == rings
        assert [one["properties"]["source"] for one in features[:3]] == ["human", "human", "proposed"]
        with (out / "summary.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["reason"].startswith("outlines overlap in ")


def test_a_hidden_outline_is_no_proposal(some: Set, toy_model: Path) -> None:
    """It has no pixel, but keeps its number, its curve and its mark."""
    folder, _ = some
    square = [[10, 10], [30, 10], [30, 31], [10, 31], [10, 10]]
    far = [[900, 900], [930, 900], [930, 931], [900, 900]]
    path = folder / "annotated" / "a.geojson"
    (folder / "annotated" / "a.tif").unlink()
    kinds = [{"type": "Polygon", "coordinates": [ring]} for ring in (square, far)]
    path.write_text(json.dumps([{"type": "Feature", "geometry": kind} for kind in kinds]))
    more = ["--annotations", path, "--partial", "--scale", 1]
    assert run(toy_model, folder, *more, images="set/images/a.png") == 0
    features = json.loads((folder / "out" / "a_nuclei.geojson").read_text())["features"]
    assert [one["properties"]["label"] for one in features] == [1, 2, 3, 4, 5]
    assert [one["properties"]["source"] for one in features] == ["human"] * 2 + ["proposed"] * 3
    assert features[1]["geometry"] == kinds[1]
    assert np.unique(read_labels(folder / "out" / "a_labels.tif")).tolist() == [-1, 1, 3, 4, 5]


def test_runs_into_one_folder_share_a_summary(some: Set, toy_model: Path) -> None:
    folder, _ = some
    for name in ("a.png", "plate/b.png"):
        assert run(toy_model, folder, images=f"set/images/{name}") == 0
    with (folder / "out" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == ["a.png", "b.png"]
    assert [row["status"] for row in rows] == ["done", "done"]


def test_a_stack_asks_and_the_options_answer(some: Set, toy_model: Path, capsys: Capture) -> None:
    folder, _ = some
    (folder / "set" / "images" / "a.png").unlink()
    pixels = np.asarray(Image.open(folder / "set" / "images" / "plate" / "b.png"))
    stack = np.stack([np.zeros_like(pixels), pixels])
    tifffile.imwrite(
        folder / "set" / "images" / "a.ome.tif",
        stack,
        metadata={"axes": "CYX", "Channel": {"Name": ["405", "488"]}},
    )
    images = "set/images/a.ome.tif"
    assert run(toy_model, folder, images=images) == 1
    assert "--channel" in capsys.readouterr().err
    for file in (folder / "out").rglob("*.*"):
        file.unlink()
    assert run(toy_model, folder, "--channel", "488", "--pixel-size", "0.5", "--scale", 1, images=images) == 0
    assert "1 nuclei annotated, 3 proposed" in capsys.readouterr().err
    with tifffile.TiffFile(folder / "out" / "a_labels.tif") as file:
        assert file.pages.first.tags["XResolution"].value[0] == 20000


def test_a_summary_of_another_hand_is_kept(some: Set, toy_model: Path, capsys: Capture) -> None:
    folder, _ = some
    mine = folder / "out" / "summary.csv"
    mine.parent.mkdir()
    for content in ("mine,1\n", "file,status,reason\n"):
        mine.write_text(content)
        assert run(toy_model, folder) == 2
        assert "summary.csv: exists already, and is not as nuxel propagate wrote it" in said(capsys)
        assert mine.read_text() == content


def test_of_annotations_without_an_image_it_says_how_many(
    some: Set, toy_model: Path, capsys: Capture
) -> None:
    folder, _ = some
    assert run(toy_model, folder, images="set/images/a.png") == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first == "nuxel propagate: 1 annotations belong to none of the images"
    assert last.startswith("1 done, 0 failed")


def test_an_image_without_annotations_is_done_too(some: Set, toy_model: Path, capsys: Capture) -> None:
    folder, _ = some
    (folder / "annotated" / "a.tif").unlink()
    assert run(toy_model, folder, "--scale", 1) == 0
    assert "2 done, 0 failed; 1 nuclei annotated, 7 proposed" in capsys.readouterr().err


def test_labels_that_cannot_be_read_are_never_taken_for_none(
    some: Set, toy_model: Path, capsys: Capture
) -> None:
    folder, _ = some
    (folder / "annotated" / "a.tif").write_text("text")
    assert run(toy_model, folder, "--scale", 1) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"nuxel propagate: {folder / 'annotated' / 'a.tif'}: cannot be read")
    assert last.startswith("1 done, 1 failed; 1 nuclei annotated, 3 proposed")
    assert not (folder / "out" / "a_labels.tif").exists()


def test_zero_may_mean_not_annotated(some: Set, toy_model: Path, capsys: Capture) -> None:
    folder, truth = some
    for name in ("a", "plate/b"):
        tifffile.imwrite(folder / "annotated" / f"{name}.tif", np.where(truth == 3, 3, 0).astype(np.int32))
    assert run(toy_model, folder, "--scale", 1) == 0
    assert "2 nuclei annotated, 0 proposed" in capsys.readouterr().err
    shutil.rmtree(folder / "out")
    assert run(toy_model, folder, "--scale", 1, "--partial") == 0
    assert "2 nuclei annotated, 6 proposed" in capsys.readouterr().err


class TestRefused:
    def test_results_that_are_there(self, some: Set, toy_model: Path, capsys: Capture) -> None:
        folder, _ = some
        assert run(toy_model, folder) == 0
        capsys.readouterr()
        assert run(toy_model, folder) == 2
        assert "exists already, and may have been corrected" in said(capsys)

    @pytest.mark.parametrize("below", ["", "out"])
    def test_to_write_among_the_annotations(
        self, some: Set, toy_model: Path, capsys: Capture, below: str
    ) -> None:
        folder, _ = some
        assert run(toy_model, folder, "--out", folder / "annotated" / below) == 2
        assert "lies in the folder of the annotations" in said(capsys)

    def test_annotations_of_other_images(self, some: Set, toy_model: Path, capsys: Capture) -> None:
        folder, _ = some
        (folder / "annotated" / "a.tif").rename(folder / "annotated" / "c.tif")
        (folder / "annotated" / "plate" / "b.tif").rename(folder / "annotated" / "plate" / "d.tif")
        assert run(toy_model, folder) == 2
        assert "no label image there has the name of an image" in said(capsys)
        assert not (folder / "out").exists()

    def test_annotations_of_one_other_image(self, some: Set, toy_model: Path, capsys: Capture) -> None:
        folder, _ = some
        shutil.rmtree(folder / "annotated" / "plate")
        (folder / "annotated" / "a.tif").rename(folder / "annotated" / "c.tif")
        assert run(toy_model, folder, images="set/images/a.png") == 2
        assert "no label image there has the name of an image" in said(capsys)
        more = ["--annotations", folder / "annotated" / "c.tif", "--scale", 1]
        assert run(toy_model, folder, *more, images="set/images/a.png") == 0
        assert "1 nuclei annotated, 3 proposed" in capsys.readouterr().err

    def test_a_truth_of_other_images(self, some: Set, toy_model: Path, capsys: Capture) -> None:
        folder, truth = some
        (folder / "other").mkdir()
        tifffile.imwrite(folder / "other" / "x.tif", truth)
        assert run(toy_model, folder, "--truth", folder / "other") == 2
        assert f"{folder / 'other'}: no label image there has the name" in said(capsys)

    def test_images_of_the_same_name(
        self, some: Set, toy_model: Path, capsys: Capture, save_discs: Callable[..., Path]
    ) -> None:
        folder, _ = some
        save_discs("set/a.png")
        assert run(toy_model, folder, images="set") == 2
        assert "two of the images have the same name" in said(capsys)

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (("--threshold", 2), "the threshold must lie between 0 and 1"),
            (("--tolerance", 0), "the tolerance must be a positive number"),
            (("--scale", 1, "--diameter", 9), "either the scale or the diameter"),
        ],
    )
    def test_options_out_of_range(
        self, some: Set, toy_model: Path, capsys: Capture, more: tuple[object, ...], words: str
    ) -> None:
        assert run(toy_model, some[0], *more) == 2
        assert words in said(capsys)

    def test_a_folder_that_is_no_run(self, some: Set, capsys: Capture) -> None:
        """Nobody has to install PyTorch to be told so."""
        assert run(some[0], some[0]) == 2
        assert "is no training run; give a run, a model file" in said(capsys)

    def test_a_run_without_a_finished_epoch(self, some: Set, capsys: Capture) -> None:
        pytest.importorskip("torch")
        (some[0] / "recipe.json").write_text("{}")
        assert run(some[0], some[0]) == 2
        assert "no run with a finished epoch" in said(capsys)

    def test_a_model_that_is_not_there(self, some: Set, capsys: Capture) -> None:
        assert run("nowhere.onnx", some[0]) == 2
        assert "no such model" in said(capsys)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_images_with_thinned_annotations(tmp_path: Path, capsys: Capture) -> None:
    for path in sorted((DATA / "labels").iterdir())[100:600:250]:
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.copy(DATA / kind / path.name, tmp_path / kind)
    few = tmp_path / "few"
    assert main(["thin", str(tmp_path / "labels"), "--keep", "0.25", "--out", str(few)]) == 0
    paths = ["--annotations", str(few), "--out", str(tmp_path / "out")]
    assert main(["propagate", "default", str(tmp_path / "images"), *paths]) == 0
    capsys.readouterr()
    for path in few.iterdir():
        before, after = read_labels(path), read_labels(tmp_path / "out" / f"{path.stem}_labels.tif")
        assert np.array_equal(after[before > 0], before[before > 0])
        assert all((after == n).sum() == (before == n).sum() for n in np.unique(before[before > 0]))
        assert len(np.unique(after)) > len(np.unique(before))
