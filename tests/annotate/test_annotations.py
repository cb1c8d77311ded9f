"""What people annotated, as pixels or curves, and what is still only a proposal of an earlier round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuxel.annotate.annotations import Annotations, read_annotations
from nuxel.data.label_sets import LabelFile, OutlineFile
from nuxel.errors import NuxelError

SHAPE = (20, 30)


def square(x: int, y: int, side: int = 6, **properties: Any) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def drawn(folder: Path, *features: dict[str, Any]) -> Annotations:
    path = folder / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return read_annotations(OutlineFile(path), SHAPE)


class TestCurves:
    def test_features_are_kept_as_they_are(self, tmp_path: Path) -> None:
        one, two = square(1, 1, note="mine"), square(12, 2)
        found = drawn(tmp_path, one, two)
        assert found.features == {1: one, 2: two}
        assert [(found.labels == number).sum() for number in (0, 1, 2)] == [600 - 72, 36, 36]
        assert not found.proposed
        assert not found.notes

    def test_they_have_their_own_numbers(self, tmp_path: Path) -> None:
        found = drawn(tmp_path, square(1, 1, label=77), square(12, 2, label=5))
        assert list(found.features) == [77, 5]
        assert found.labels[3, 3] == 77
        assert found.labels[4, 14] == 5

    @pytest.mark.parametrize("labels", [(3, 3), (3, None), (3, 0), (3, True), (3, 2**31), (3, "4"), (1.5, 2)])
    def test_unless_these_are_not_one_for_each(self, tmp_path: Path, labels: tuple[Any, Any]) -> None:
        found = drawn(tmp_path, *(square(10 * i, 1, label=label) for i, label in enumerate(labels)))
        assert np.unique(found.labels).tolist() == [0, 1, 2]

    def test_what_overlaps_is_said(self, tmp_path: Path) -> None:
        found = drawn(tmp_path, square(1, 1, 10), square(8, 1, 8))
        assert (found.labels == 1).sum() == 100 - 24
        assert list(found.notes) == [
            "outlines overlap in 24 pixels, which the smaller nucleus has in the label image"
        ]

    def test_what_is_hidden_is_said_and_kept(self, tmp_path: Path) -> None:
        found = drawn(tmp_path, square(1, 1), square(1, 1), square(90, 1), square(12, 12))
        assert np.unique(found.labels).tolist() == [0, 2, 4]
        assert list(found.features) == [1, 2, 3, 4]
        assert found.notes[0].startswith("2 of 4 outlines have no pixel: hidden by others, drawn twice")
        assert found.notes[1].startswith("outlines overlap in 36 pixels")

    def test_parts_of_one_nucleus_do_not_overlap(self, tmp_path: Path) -> None:
        feature = square(1, 1)
        ring = feature["geometry"]["coordinates"]
        feature["geometry"] = {"type": "MultiPolygon", "coordinates": [ring, ring]}
        assert not drawn(tmp_path, feature).notes

    def test_the_class_says_what_is_only_proposed_and_without_one_the_source(self, tmp_path: Path) -> None:
        found = drawn(
            tmp_path,
            square(1, 1, 4, source="proposed", score=0.25),
            square(7, 1, 4, source="human", classification={"name": "proposed"}),
            square(13, 1, 4, source="proposed", classification={"name": "human"}, score=0.5),
            square(19, 1, 4, source="proposed", classification={"name": "Tumor"}),
            square(25, 1, 4),
        )
        assert found.proposed == {1: 0.25, 2: None}

    def test_what_qupath_leaves_of_a_proposal(self, tmp_path: Path) -> None:
        """Of the properties it keeps the class, and numbers as measurements."""
        kept = {"classification": {"name": "proposed"}}
        found = drawn(
            tmp_path,
            square(12, 2, measurements={"label": 5.0, "score": 0.75, "Area": 36.0}, **kept),
            square(1, 1, measurements={"label": 9, "score": None}, **kept),
        )
        assert found.labels[4, 14] == 5
        assert found.labels[3, 3] == 9
        assert found.proposed == {5: 0.75, 9: None}

    def test_outlines_of_a_pathologist(self, tmp_path: Path) -> None:
        path = tmp_path / "a.xml"
        corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in [(1, 0), (4, 0), (4, 2), (1, 2)])
        region = f"<Region><Vertices>{corners}</Vertices></Region>"
        path.write_text(f"<Annotations><Annotation><Regions>{region}</Regions></Annotation></Annotations>")
        found = read_annotations(OutlineFile(path), SHAPE)
        assert (found.labels == 1).sum() == 6
        assert not found.features


class TestPixels:
    @staticmethod
    def read(folder: Path, table: str | None, name: str = "a_labels.tif") -> Annotations:
        labels = np.full(SHAPE, -1, np.int32)
        labels[:3, :3], labels[5:8, 5:8] = 4, 9
        tifffile.imwrite(folder / name, labels)
        if table is not None:
            (folder / "a_nuclei.csv").write_text(table, encoding="utf-8")
        found = read_annotations(LabelFile(folder / name), SHAPE)
        assert np.array_equal(found.labels, labels)
        return found

    def test_alone(self, tmp_path: Path) -> None:
        assert not self.read(tmp_path, None).proposed

    def test_the_table_beside_them_says_what_is_only_proposed(self, tmp_path: Path) -> None:
        table = "label,source,score\n4,human,\n9,proposed,0.5\n12,proposed,0.75\n"
        assert self.read(tmp_path, table).proposed == {9: 0.5}
        assert self.read(tmp_path, "label,source,score\n4,proposed,\n").proposed == {4: None}
        assert not self.read(tmp_path, table.replace("proposed", "human")).proposed

    def test_other_tables_and_other_names_say_nothing(self, tmp_path: Path) -> None:
        assert not self.read(tmp_path, "label,area\n4,17\n").proposed
        assert not self.read(tmp_path, "label,source,score\n4,proposed,0.5\n", "a.tif").proposed

    @pytest.mark.parametrize("line", ["four,proposed,0.5", "4,proposed,much"])
    def test_a_table_that_cannot_be_understood(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(NuxelError, match=r"a_nuclei\.csv: not the table that nuxel propagate wrote"):
            self.read(tmp_path, f"label,source,score\n{line}\n")

    def test_another_shape(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4), np.int32))
        with pytest.raises(NuxelError, match=r"a\.tif: is \(3, 4\), but its image is \(20, 30\)"):
            read_annotations(LabelFile(tmp_path / "a.tif"), SHAPE)
