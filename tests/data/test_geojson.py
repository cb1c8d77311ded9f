"""Nuclei from GeoJSON: what is read, where it lies, and the sentence for everything that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuxel.data.geojson import read_features
from nuxel.data.outlines import read_outlines
from nuxel.errors import NuxelError
from nuxel.export.geojson import encode_geojson
from nuxel.labels.read import read_labels
from nuxel.labels.splines import splines_of

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018"

SQUARE = [[3, 2], [7, 2], [7, 5], [3, 5], [3, 2]]
FAR = [[43, 42], [47, 42], [47, 45]]


def feature(*rings: Any, kind: str = "Polygon", **more: Any) -> dict[str, Any]:
    coordinates = list(rings) if kind == "Polygon" else [[ring] for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {},
        **more,
    }


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


@pytest.fixture
def write(tmp_path: Path):
    def write(content: Any, encoding: str = "utf-8") -> Path:
        path = tmp_path / "a.geojson"
        path.write_text(json.dumps(content), encoding=encoding)
        return path

    return write


def complaint(path: Path) -> str:
    with pytest.raises(NuxelError) as error:
        read_outlines(path, (10, 10))
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


def test_corners_lie_between_pixels(write) -> None:
    labels = read_outlines(str(write(collection(feature(SQUARE)))), (8, 9))
    expected = np.zeros((8, 9), int)
    expected[2:5, 3:7] = 1
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("form", [collection, lambda one: [one], lambda one: one])
def test_collections_lists_and_single_features(write, form, encoding: str) -> None:
    (found,) = read_features(write(form(feature(SQUARE)), encoding))
    assert found.parts[0].tolist() == [[y, x] for x, y in SQUARE]
    assert found.stored == feature(SQUARE)


def test_no_nuclei_is_an_annotation_too(write) -> None:
    assert read_outlines(write(collection()), (3, 4)).tolist() == [[0] * 4] * 3
    assert read_outlines(write([]), (3, 4)).tolist() == [[0] * 4] * 3


def test_a_nucleus_in_several_parts_has_one_number(write) -> None:
    other = [[0, 0], [2, 0], [2, 1], [0, 1]]
    labels = read_outlines(
        write(collection(feature(SQUARE, other, kind="MultiPolygon"), feature(other))), (8, 9)
    )
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels == 1).sum() == 12
    assert (labels == 2).sum() == 2  # drawn later on the same place


def test_holes_are_filled_and_a_third_coordinate_is_passed_over(write) -> None:
    high = [[x, y, 5.0] for x, y in SQUARE]
    labels = read_outlines(write(collection(feature(high, [[4, 3], [5, 3], [5, 4], [4, 4]]))), (8, 9))
    assert labels.sum() == 12


def test_of_a_cell_the_nucleus_counts(write) -> None:
    cell = feature(
        [[0, 0], [9, 0], [9, 8], [0, 8]], nucleusGeometry={"type": "Polygon", "coordinates": [SQUARE]}
    )
    assert read_outlines(write(collection(cell)), (8, 9)).sum() == 12


def test_slips_of_the_pen_leave_out_their_number(write) -> None:
    slips = [feature([]), feature([[4, 4]]), feature([[1, 1], [3, 3]]), feature(SQUARE)]
    labels = read_outlines(write(collection(*slips)), (8, 9))
    assert np.unique(labels).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; use GeoJSON"),
        (b"{", "is no JSON ("),
        (b"\xff\xfe", "is no JSON ("),
        (b"[" * 100_000, "is nested too deeply"),
        (b"3", "is no GeoJSON with features"),
        (b'{"type": "Topology"}', "is no GeoJSON with features"),
        (b'{"type": "FeatureCollection"}', "is no GeoJSON with features"),
        (b'[{"type": "Feature"}, 4]', "is no GeoJSON with features"),
        (
            b'{"type": "Feature", "geometry": null}',
            "has no geometry for feature 1, but a nucleus is a Polygon",
        ),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(content)
    assert complaint(path).startswith(sentence)


def test_a_missing_file(tmp_path: Path) -> None:
    assert complaint(tmp_path / "a.geojson").startswith("cannot be read (No such file or directory)")


def test_what_is_no_area(write) -> None:
    line = {"type": "Feature", "geometry": {"type": "LineString", "coordinates": SQUARE}}
    said = complaint(write(collection(feature(SQUARE), line)))
    assert said.startswith(
        "has LineString for feature 2, but a nucleus is a Polygon or a MultiPolygon; use GeoJSON"
    )


@pytest.mark.parametrize(
    "corner", [[1], ["left", 2], [float("nan"), 2], [1e9, 2], None, {"x": 1}, [[1, 2], 3], [10**400, 1]]
)
def test_corners_that_are_no_numbers(write, corner: Any) -> None:
    said = complaint(write(collection(feature(SQUARE), feature([*SQUARE, corner]))))
    assert said.startswith("has a corner in feature 2 that is not two numbers of pixels")


@pytest.mark.parametrize("coordinates", [None, 3, [], [3], {"a": 1}])
def test_coordinates_that_are_none(write, coordinates: Any) -> None:
    said = complaint(write({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": coordinates}}))
    assert said.startswith("has a corner in feature 1")


def test_the_annotation_of_a_larger_image(write) -> None:
    path = write(collection(feature(SQUARE), feature(FAR), feature(FAR)))
    assert complaint(path).startswith("only 1 of its 3 outlines reach into an image of 10 x 10 pixels")
    assert read_outlines(write(collection(feature(SQUARE), feature(FAR))), (10, 10)).sum() == 12


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_what_propagate_writes_is_read_back(tmp_path: Path) -> None:
    """Real nuclei, through curves and polygons: each is there, and nearly the same."""
    for path in sorted((DATA / "labels").glob("*.png"))[::60]:
        labels = read_labels(path)
        splines = splines_of(labels)
        (tmp_path / "a.geojson").write_bytes(encode_geojson(splines, {number: {} for number in splines}))
        found = read_outlines(tmp_path / "a.geojson", labels.shape)
        places = {number: place for place, number in enumerate(splines, 1)}
        for number, place in places.items():
            one, other = labels == number, found == place
            if one.sum() >= 50:  # a pixel more or less is a tenth of a tiny one
                assert (one & other).sum() / (one | other).sum() > 0.85
        assert ((labels > 0) == (found > 0)).mean() > 0.99
