"""Where labels are found, and under which names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuxel.data.label_sets import (
    LabelArray,
    LabelFile,
    MaskFolder,
    Nothing,
    RunLengthRows,
    find_labels,
)
from nuxel.errors import NuxelError, UsageError
from nuxel.export.label_tiff import write_labels

ONE = np.ones((4, 5), np.uint8)
Save = Callable[..., Path]


def test_the_output_of_segment_as_it_stands(tmp_path: Path, save: Save) -> None:
    for stem in ("a", "plate/b", "images/c.d"):
        (tmp_path / stem).parent.mkdir(exist_ok=True)
        write_labels(tmp_path / f"{stem}_labels.tif", ONE.astype(np.int32))
        save(f"{stem}_overlay.png", np.zeros((4, 5, 3), np.uint8))
        (tmp_path / f"{stem}_nuclei.csv").write_text("label\n")
    (tmp_path / "summary.csv").touch()
    (tmp_path / "run.json").touch()
    found = find_labels(tmp_path)
    assert sorted(found) == ["a", "c.d", "plate/b"]
    assert found["plate/b"] == LabelFile(tmp_path / "plate" / "b_labels.tif")


def test_a_folder_of_labels_of_every_format(tmp_path: Path, save: Save) -> None:
    for name in ("a.png", "b.tif", "deep/c.npy", "d.ome.tif"):
        save(name, ONE)
    save(".hidden.png", ONE)
    save(".cache/e.png", ONE)
    (tmp_path / "notes.txt").touch()
    assert sorted(find_labels(tmp_path)) == ["a", "b", "d", "deep/c"]
    assert all(source.read(None).shape == (4, 5) for source in find_labels(tmp_path).values())


def test_a_data_set_of_images_and_labels(tmp_path: Path, save: Save) -> None:
    for name in (
        "images/a.png",
        "labels/a.png",
        "more/images/b.png",
        "more/labels/b.png",
        "out/a_labels.tif",
    ):
        save(name, ONE)
    found = find_labels(tmp_path)
    assert {name: source.where for name, source in found.items()} == {
        "a": str(tmp_path / "labels" / "a.png"),
        "more/b": str(tmp_path / "more" / "labels" / "b.png"),
    }
    assert list(find_labels(tmp_path / "labels")) == ["a"]


def test_the_competitions_masks(tmp_path: Path, save: Save) -> None:
    for image in ("x", "y"):
        save(f"{image}/images/{image}.png", ONE)
        save(f"{image}/masks/1.png", ONE * 255)
    found = find_labels(tmp_path)
    assert found == {"x": MaskFolder(tmp_path / "x" / "masks"), "y": MaskFolder(tmp_path / "y" / "masks")}
    assert found["x"].read(None).tolist() == ONE.tolist()
    assert list(find_labels(tmp_path / "y")) == ["y"]


def test_masks_that_are_label_images(tmp_path: Path, save: Save) -> None:
    for name in ("images/a.png", "images/b.png", "masks/a.png", "masks/b.tif"):
        save(name, ONE)
    assert find_labels(tmp_path) == {
        "a": LabelFile(tmp_path / "masks" / "a.png"),
        "b": LabelFile(tmp_path / "masks" / "b.tif"),
    }
    save("x/masks/1.png", ONE)
    assert sorted(find_labels(tmp_path)) == ["a", "b"]
    assert find_labels(tmp_path / "x") == {"x": MaskFolder(tmp_path / "x" / "masks")}


def test_single_files(tmp_path: Path, save: Save) -> None:
    assert list(find_labels(save("cells_labels.tif", ONE))) == ["cells"]
    assert list(find_labels(save("well.A1.npy", ONE))) == ["well.A1"]
    assert list(find_labels(save("_labels.npy", ONE))) == ["_labels"]
    table = tmp_path / "runs.csv"
    table.write_text("ImageId,EncodedPixels\na,1 2\nb,\n")
    assert list(find_labels(str(table))) == ["a", "b"]


def test_run_lengths_need_a_shape(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("ImageId,EncodedPixels,Height,Width\na,1 2,,\nb,2 1,2,2\n")
    found = find_labels(tmp_path / "runs.csv")
    assert not found["a"].sized
    assert found["a"].read((2, 1)).tolist() == [[1], [1]]
    with pytest.raises(NuxelError, match=r"runs\.csv: a: runs alone do not say how large the image is"):
        found["a"].read(None)
    assert found["b"].sized
    assert found["b"].read((9, 9)).tolist() == [[0, 0], [1, 0]]


def test_sources_that_are_no_files() -> None:
    array = LabelArray(np.ones((2, 3), np.uint8))
    assert array.sized
    assert array.read(None).sum() == 6
    assert not Nothing().sized
    assert Nothing().read((2, 3)).tolist() == [[0] * 3] * 2
    assert not isinstance(array, RunLengthRows)


@pytest.mark.parametrize(
    "names", [("a.png", "a.tif"), ("images/a.npy", "a.npy"), ("a_labels.tif", "a_labels.png")]
)
def test_two_files_of_one_image(tmp_path: Path, save: Save, names: tuple[str, str]) -> None:
    for name in names:
        save(name, ONE)
    with pytest.raises(UsageError, match="would both be the labels of image 'a'"):
        find_labels(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find_labels(tmp_path / "missing")
    (tmp_path / "text.txt").touch()
    with pytest.raises(
        UsageError, match=r"no label image in this folder .*\.npy, \.xml, \.geojson files and folders masks"
    ):
        find_labels(tmp_path)
    with pytest.raises(NuxelError, match="labels are read from"):
        find_labels(tmp_path / "text.txt")["text.txt"].read(None)


OUTLINES = (
    "<Annotations><Annotation><Regions><Region><Vertices>"
    '<Vertex X="1" Y="0"/><Vertex X="4" Y="0"/><Vertex X="4" Y="2"/><Vertex X="1" Y="2"/>'
    "</Vertices></Region></Regions></Annotation></Annotations>"
)


class TestOutlines:
    """Aperio XML, as MoNuSeg has it, beside the images; and GeoJSON."""

    def test_the_images_beside_them_are_no_labels(self, tmp_path: Path, save: Save) -> None:
        for name in ("TCGA-18.a.xml", "TCGA-19.xml"):
            (tmp_path / name).write_text(OUTLINES)
        save("TCGA-19.tif", ONE)
        found = find_labels(tmp_path)
        assert set(found) == {"TCGA-18.a", "TCGA-19"}
        assert found["TCGA-19"].read((3, 5)).tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]

    def test_a_data_set_of_images_and_outlines(self, tmp_path: Path, save: Save) -> None:
        save("images/a.png", ONE)
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.xml").write_text(OUTLINES)
        assert {name: source.where for name, source in find_labels(tmp_path).items()} == {
            "a": str(tmp_path / "labels" / "a.xml")
        }

    def test_one_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.XML").write_text(OUTLINES)
        ((name, source),) = find_labels(tmp_path / "a.XML").items()
        assert name == "a"
        assert not source.sized
        with pytest.raises(NuxelError, match=r"a\.XML: outlines alone do not say how large the image is"):
            source.read(None)

    def test_geojson_that_propagate_wrote_counts_without_its_label_image(
        self, tmp_path: Path, save: Save
    ) -> None:
        """Beside the images of a data set, and alone in a folder."""
        square = {"type": "Polygon", "coordinates": [[[1, 0], [4, 0], [4, 2], [1, 2]]]}
        save("set/images/a.png", ONE)
        labels = save("set/labels/a_labels.tif", ONE)
        outlines = tmp_path / "set" / "labels" / "a_nuclei.geojson"
        outlines.write_text(json.dumps({"type": "Feature", "geometry": square}))
        for folder in (tmp_path / "set", tmp_path / "set" / "labels"):
            assert {name: source.where for name, source in find_labels(folder).items()} == {"a": str(labels)}
        labels.unlink()
        for folder in (tmp_path / "set", tmp_path / "set" / "labels", outlines):
            ((name, source),) = find_labels(folder).items()
            assert name == "a"
            assert source.read((3, 5)).tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]

    def test_label_images_that_nuxel_wrote_come_first(self, tmp_path: Path, save: Save) -> None:
        (tmp_path / "a.xml").write_text(OUTLINES)
        save("a_labels.tif", ONE)
        (source,) = find_labels(tmp_path).values()
        assert source.where.endswith("a_labels.tif")
