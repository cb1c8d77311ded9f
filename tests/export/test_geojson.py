"""Outlines for other programs: what is in the file gives the nuclei back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from nuxel.export.geojson import encode_geojson, nuclei_geojson
from nuxel.labels.read import read_labels
from nuxel.labels.splines import Spline, splines_of

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "dsb2018"


def ellipses() -> np.ndarray:
    labels = np.zeros((60, 90), np.int32)
    rows, columns = np.mgrid[:60, :90]
    for number, (y, x, a, b) in {3: (20, 20, 9, 14), 8: (40, 70, 16, 8), 9: (0, 50, 6, 6)}.items():
        labels[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1] = number
    return labels


def given_back(feature: dict, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in the polygon, by another program's rule."""
    (ring,) = feature["geometry"]["coordinates"]
    return np.asarray(polygon2mask(shape, np.array(ring)[:, ::-1] - 0.5))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def saved(path: Path, labels: np.ndarray) -> dict:
    splines = splines_of(labels)
    path.write_bytes(
        encode_geojson(splines, {number: {"source": "human", "score": None} for number in splines})
    )
    return dict(json.loads(path.read_text(encoding="utf-8")))


class TestFile:
    def test_one_feature_a_nucleus(self, tmp_path: Path) -> None:
        read = saved(tmp_path / "a.geojson", ellipses())
        assert read["type"] == "FeatureCollection"
        assert [feature["properties"]["label"] for feature in read["features"]] == [3, 8, 9]
        for feature in read["features"]:
            assert feature["type"] == "Feature"
            assert feature["geometry"]["type"] == "Polygon"
            assert set(feature["properties"]) == {
                "label", "source", "score", "control_points", "objectType", "measurements",
            }  # fmt: skip
            numbers = feature["properties"]["measurements"]
            assert numbers.pop("label") == feature["properties"]["label"]
            assert numbers.get("score") == feature["properties"]["score"]
            assert set(numbers) <= {"score"}

    def test_polygons_and_control_points_give_the_nuclei_back(self, tmp_path: Path) -> None:
        labels = ellipses()
        for feature in saved(tmp_path / "a.geojson", labels)["features"]:
            nucleus = labels == feature["properties"]["label"]
            assert iou(given_back(feature, labels.shape), nucleus) > 0.95
            control = np.array(feature["properties"]["control_points"])[:, ::-1]
            assert iou(Spline(control).rasterise(labels.shape), nucleus) > 0.95

    @pytest.mark.parametrize("held", [None, [], [1, 2], "text", 3])
    def test_properties_that_are_none_are_replaced(self, held: object) -> None:
        """RFC 7946 wants an object or null; other programs write other things."""
        ring = [[1, 1], [9, 1], [9, 9], [1, 1]]
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": held,
        }
        (kept,) = nuclei_geojson({}, {4: {"source": "human"}}, {4: feature})["features"]
        assert kept["geometry"] == feature["geometry"]
        assert kept["properties"] == {
            "objectType": "annotation",
            "source": "human",
            "label": 4,
            "measurements": {"label": 4},
        }

    def test_what_has_a_feature_already_keeps_its_geometry(self) -> None:
        ring = [[1.23456789, 1], [9, 1], [9, 9], [1, 9], [1.23456789, 1]]
        mine = {
            "type": "Feature",
            "id": "x",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"name": "mine", "classification": {"name": "Tumor"}, "control_points": [[0, 0]]},
        }
        labels = np.zeros((20, 20), np.int32)
        labels[1:9, 1:9], labels[12:18, 12:18] = 4, 5
        splines = splines_of(labels)
        given = {n: {"source": "human", "classification": {"name": "human"}} for n in (4, 5, 6)}
        stored = {4: mine, 6: {**mine, "properties": None}}
        kept, other, hidden = nuclei_geojson(splines, given, stored)["features"]
        assert kept["geometry"] == hidden["geometry"] == mine["geometry"]
        assert (kept["id"], kept["properties"]["name"], kept["properties"]["label"]) == ("x", "mine", 4)
        assert kept["properties"]["classification"] == {"name": "Tumor"}
        assert kept["properties"]["source"] == "human"
        assert kept["properties"]["control_points"] == splines[4].control[:, ::-1].tolist()
        assert other == nuclei_geojson(splines, {5: given[5]})["features"][0]
        assert hidden["properties"]["classification"] == {"name": "human"}
        assert "control_points" not in hidden["properties"]

    def test_measurements_of_others_stay_and_its_own_are_renewed(self) -> None:
        stored = {
            4: {"properties": {"measurements": {"Area": 3.5, "label": 9, "score": 0.5}}},
            5: {"properties": {"measurements": [{"name": "Area", "value": 1}]}},
        }
        given = {4: {"source": "human", "score": None}, 5: {}}
        first, second = (
            f["properties"]["measurements"] for f in nuclei_geojson({}, given, stored)["features"]
        )
        assert first == {"Area": 3.5, "label": 4}
        assert second == [{"name": "Area", "value": 1}]

    def test_control_points_stay_as_long_as_the_outline_is_theirs(self) -> None:
        labels = ellipses()
        splines = splines_of(labels)
        given: dict[int, dict[str, str]] = {number: {} for number in splines}
        written = nuclei_geojson(splines, given)["features"]
        coarse = splines_of(labels, 3.0)
        again = nuclei_geojson(coarse, given, dict(zip(splines, written, strict=True)))["features"]
        assert again == written
        written[1]["geometry"]["coordinates"][0][3][0] += 0.5
        first, moved, last = nuclei_geojson(coarse, given, dict(zip(splines, written, strict=True)))[
            "features"
        ]
        assert [first, last] == [written[0], written[2]]
        assert moved["geometry"] == written[1]["geometry"]
        assert moved["properties"]["control_points"] == coarse[8].control[:, ::-1].round(3).tolist()

    def test_x_comes_first(self) -> None:
        """A nucleus in the rightmost columns of the uppermost rows."""
        labels = np.zeros((100, 200), np.int32)
        labels[:10, 180:] = 1
        (feature,) = nuclei_geojson(splines_of(labels), {1: {}})["features"]
        for points in (feature["geometry"]["coordinates"][0], feature["properties"]["control_points"]):
            x, y = np.array(points).T
            assert 178 < x.min() < 181
            assert 199 < x.max() < 202
            assert -2 < y.min() < 1
            assert 9 < y.max() < 12

    def test_nothing(self, tmp_path: Path) -> None:
        assert saved(tmp_path / "a.geojson", np.zeros((5, 5), np.int32))["features"] == []

    def test_real_nuclei(self, tmp_path: Path) -> None:
        ious = []
        for path in sorted((DATA / "labels").iterdir())[::200]:
            labels = read_labels(path)
            for feature in saved(tmp_path / "a.geojson", labels)["features"]:
                nucleus = labels == feature["properties"]["label"]
                if nucleus.sum() > 30:
                    ious.append(iou(given_back(feature, labels.shape), nucleus))
        assert len(ious) > 30
        assert min(ious) > 0.9
        assert np.median(ious) > 0.95


class TestRings:
    @given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=9))
    @settings(max_examples=100)
    def test_they_are_closed_and_turn_one_way(self, corners: list[tuple[int, int]]) -> None:
        spline = Spline(np.array(corners, np.float64))
        turned = Spline(spline.control[::-1].copy())
        for one in (spline, turned):
            (feature,) = nuclei_geojson({1: one}, {1: {}})["features"]
            (ring,) = feature["geometry"]["coordinates"]
            assert ring[0] == ring[-1]
            assert len(ring) == 8 * len(corners) + 1
            x, y = np.array(ring).T
            area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
            assert area > -1  # roundings of curves that enclose nothing
            assert feature["properties"]["control_points"] == one.control[:, ::-1].tolist()
