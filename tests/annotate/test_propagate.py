"""What people annotated stays as it is, whatever a model says; the rest is the model's."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nuxel.annotate import files
from nuxel.annotate.files import Propagation, Task, propagate_files
from nuxel.annotate.propagate import Propagated, draw_propagated, propagate
from nuxel.decode.detections import LEAST_LEFT
from nuxel.errors import NuxelError, UsageError
from nuxel.image.find import FoundImage
from nuxel.image.read import Reading
from nuxel.instances import Instances
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options

Labels = NDArray[np.int32]
SHAPE = (9, 11)


def row(*numbers: int) -> Labels:
    return np.array([numbers], np.int32)


def proposals(labels: Labels) -> Instances:
    count = int(labels.max(initial=0))
    return Instances(labels, np.linspace(0.5, 1, count, dtype=np.float32))


def in_hull(region: NDArray[np.bool_], nucleus: NDArray[np.bool_]) -> bool:
    """Whether the middle of a nucleus lies inside the convex hull of a region, and not on its edge.

    If not, a line through it has all of the region on one side, and can be turned until it goes through a pixel.
    """
    points = np.argwhere(region) - np.argwhere(nucleus).mean(axis=0)
    points = points[points.any(axis=1)]
    across = np.concatenate([points[:, ::-1] * [1, -1], points[:, ::-1] * [-1, 1]])
    return len(points) > 0 and bool(((across @ points.T).max(axis=1) > 1e-9).all())


annotated = arrays(np.int32, SHAPE, elements=st.sampled_from([-7, -1, -1, -1, 0, 0, 3, 4, 900]))


@st.composite
def predicted(draw: st.DrawFn) -> Instances:
    """Rectangles, some of them cut by others."""
    labels = np.zeros(SHAPE, np.int32)
    for number in range(1, draw(st.integers(0, 9)) + 1):
        y, x = draw(st.integers(0, 8)), draw(st.integers(0, 10))
        labels[y : y + draw(st.integers(1, 6)), x : x + draw(st.integers(1, 6))] = number
    return proposals(relabel(labels))


class TestPropagate:
    @given(annotated, predicted())
    @settings(max_examples=300)
    def test_no_annotation_is_altered_or_dropped(self, annotations: Labels, found: Instances) -> None:
        result = propagate(annotations, found)
        assert result.labels.dtype == np.int32
        known = annotations >= 0
        assert np.array_equal(result.labels[known], annotations[known])
        for number in np.unique(annotations[annotations > 0]):
            assert np.array_equal(result.labels == number, annotations == number)
        sources = result.sources()
        assert {n for n, source in sources.items() if source == "human"} == set(
            np.unique(annotations[annotations > 0]).tolist()
        )

    @given(annotated, predicted())
    @settings(max_examples=300)
    def test_what_is_added_is_a_models_nucleus_or_the_larger_part_of_one(
        self, annotations: Labels, found: Instances
    ) -> None:
        """Each proposal by itself, written out."""
        result = propagate(annotations, found)
        highest = max(int(annotations.max()), 0)
        number = highest
        for index in range(1, len(found) + 1):
            whole = found.labels == index
            pieces, count = ndimage.label(whole & (annotations < 0))
            parts = [pieces == piece for piece in range(1, count + 1)]
            if not (whole & (annotations >= 0)).any():
                parts = [whole]
            best = max(parts, key=np.count_nonzero, default=np.zeros(SHAPE, bool))
            again = [
                n
                for n in np.unique(annotations[annotations > 0])
                if (whole & (annotations == n)).sum() > (annotations == n).sum() / 2
            ]
            rings = [in_hull(best, whole & (annotations == n)) for n in again]
            if best.sum() > LEAST_LEFT * whole.sum() and not any(rings):
                number += 1
                assert np.array_equal(result.labels == number, best)
                assert result.scores[number] == pytest.approx(float(found.scores[index - 1]))
        assert set(result.scores) == set(range(highest + 1, number + 1))

    @given(annotated, predicted())
    @settings(max_examples=100)
    def test_what_is_found_again_is_not_added_again(self, annotations: Labels, found: Instances) -> None:
        """A second round, with what the first one gave as annotations, adds nothing: the loop can go on for ever."""
        first = propagate(annotations, found)
        second = propagate(first.labels, found)
        assert np.array_equal(second.labels, first.labels)
        assert not second.scores

    @given(predicted())
    @settings(max_examples=50)
    def test_without_annotations_it_is_the_model_s_answer(self, found: Instances) -> None:
        result = propagate(np.full(SHAPE, -1, np.int32), found)
        assert np.array_equal(result.labels, np.where(found.labels > 0, found.labels, -1))
        assert list(result.scores.values()) == found.scores.tolist()

    def test_half_is_not_enough_and_more_is(self) -> None:
        found = propagate(row(1, 1, -1, -1, -1, -2), proposals(row(0, 1, 1, 1, 1, 0)))
        assert found.labels.tolist() == [[1, 1, 2, 2, 2, -1]]
        found = propagate(row(0, 0, -1, -1), proposals(row(1, 1, 1, 1)))
        assert found.labels.tolist() == [[0, 0, -1, -1]]

    def test_a_piece_that_is_cut_off_goes(self) -> None:
        found = propagate(row(-1, 0, -1, -1, -1), proposals(row(1, 1, 1, 1, 1)))
        assert found.labels.tolist() == [[-1, 0, 1, 1, 1]]

    @pytest.mark.parametrize("number", [1, 2**31 - 9])
    def test_no_ring_around_a_tight_outline(self, number: int) -> None:
        """The model's nucleus is larger than what a person drew of it, but no other nucleus."""
        found = np.zeros(SHAPE, np.int32)
        found[1:8, 1:9] = 1
        annotations = np.full(SHAPE, -1, np.int32)
        annotations[3:6, 3:6] = number
        assert not propagate(annotations, proposals(found)).scores
        open_ring = annotations.copy()
        open_ring[4, 6:9] = 0
        assert not propagate(open_ring, proposals(found)).scores

    def test_of_two_that_the_model_takes_for_one_the_other_stays(self) -> None:
        found = np.zeros(SHAPE, np.int32)
        found[2:7, 1:10] = 1
        annotations = np.full(SHAPE, -1, np.int32)
        annotations[2:7, 1:5] = 3
        result = propagate(annotations, proposals(found)).labels
        assert (result == 4).sum() == 25
        assert (result[2:7, 5:10] == 4).all()

    def test_a_nucleus_of_which_it_covers_half_is_another(self) -> None:
        found = propagate(row(7, 7, -1, -1, -1), proposals(row(0, 1, 1, 1, 1)))
        assert found.labels.tolist() == [[7, 7, 8, 8, 8]]

    def test_nothing_is_proposed_where_there_is_known_to_be_none(self) -> None:
        assert not propagate(row(0, 0, 0), proposals(row(1, 1, 0))).scores

    def test_nuclei_in_several_parts_and_touching_ones_stay(self) -> None:
        annotations = row(2, -1, 2, 9, 9)
        assert propagate(annotations, proposals(row(1, 1, 1, 1, 1))).labels.tolist() == [[2, -1, 2, 9, 9]]

    def test_annotations_of_another_image_are_refused(self) -> None:
        with pytest.raises(NuxelError, match=r"annotations are \(1, 3\), but the image is \(1, 4\)"):
            propagate(row(0, 0, 0), proposals(row(1, 1, 0, 0)))

    def test_the_highest_number_leaves_none(self) -> None:
        highest = np.iinfo(np.int32).max
        assert propagate(row(highest, -1), proposals(row(0, 0))).labels.tolist() == [[highest, -1]]
        with pytest.raises(NuxelError, match="the number 2147483647, which leaves none"):
            propagate(row(highest, -1), proposals(row(0, 1)))

    def test_numbers_of_nuclei_without_a_pixel_are_taken(self) -> None:
        assert propagate(row(3, -1), proposals(row(0, 1)), taken=7).labels.tolist() == [[3, 8]]
        assert propagate(row(9, -1), proposals(row(0, 1)), taken=7).labels.tolist() == [[9, 10]]

    def test_the_annotations_array_is_left_alone(self) -> None:
        annotations = row(-1, 3, 0)
        propagate(annotations, proposals(row(1, 1, 1)))
        assert annotations.tolist() == [[-1, 3, 0]]


class TestPicture:
    def test_panels_and_colours(self) -> None:
        display = np.full((5, 4, 3), 9, np.uint8)
        annotations = np.full((5, 4), -1, np.int32)
        annotations[0, 0] = 1
        result = Propagated(np.where(annotations > 0, 1, 0).astype(np.int32), {2: 0.5})
        result.labels[4, 3] = 2
        truth = np.zeros((5, 4), np.int32)
        truth[2, 2] = 7
        drawn = draw_propagated(display, annotations, result, truth)
        assert drawn.shape == (5, 4 * 3 + 2 * 4, 3)
        assert (drawn[:, 4:8] == 128).all()
        coloured = np.argwhere((drawn != 9).any(2) & (drawn != 128).any(2)).tolist()
        assert coloured == [[0, 0], [0, 16], [2, 10], [4, 19]]
        blue, orange, green = drawn[0, 0], drawn[4, 19], drawn[2, 10]
        assert blue.tolist() == drawn[0, 16].tolist()
        assert len({tuple(colour) for colour in (blue, orange, green)}) == 3
        assert draw_propagated(display, annotations, result).shape == (5, 4 * 2 + 4, 3)
        assert (display == 9).all()


@dataclass(frozen=True)
class InMemory:
    """Labels that are there already."""

    labels: Labels
    where: str = "labels"

    def read(self, shape: tuple[int, int] | None) -> Labels:  # noqa: ARG002
        return self.labels


@pytest.fixture
def discs(save_discs: Callable[..., Path], toy_model: Path) -> Callable[..., Any]:
    """Propagate on an image of four discs with the toy model; give the rows and the folder of the products."""

    def run(*annotations: Labels | None, truth: Labels | None = None, **how: Any) -> Any:
        path = save_discs("in/a.png", 4)
        out = path.parent.parent / "out"
        tasks = [
            Task(
                FoundImage(path, PurePath(f"sub/a{index}")),
                None if one is None else InMemory(one),
                None if truth is None else InMemory(truth),
            )
            for index, one in enumerate(annotations)
        ]
        given = Propagation(Model(toy_model, threads=1), out, **how)
        return propagate_files(tasks, given), out / "sub"

    return run


def four_discs(draw_discs: Callable[..., NDArray[np.uint8]]) -> Labels:
    return np.asarray(ndimage.label(draw_discs(4) > 100)[0], np.int32)


class TestFiles:
    def test_every_product_says_the_same(
        self, discs: Callable[..., Any], draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        truth = four_discs(draw_discs)
        annotations = np.where(truth == 2, 40, -1).astype(np.int32)
        (result,), out = discs(annotations, truth=truth)
        assert (result.status, result.human, result.proposed, result.reason) == ("done", 1, 3, "")
        assert {path.name for path in out.iterdir()} == {
            "a0_labels.tif", "a0_nuclei.csv", "a0_nuclei.geojson", "a0_overlay.png",
        }  # fmt: skip
        labels = read_labels(out / "a0_labels.tif")
        assert np.unique(labels).tolist() == [-1, 40, 41, 42, 43]
        assert np.array_equal(labels == 40, truth == 2)
        with (out / "a0_nuclei.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(r["label"], r["source"]) for r in rows] == [
            ("40", "human"), ("41", "proposed"), ("42", "proposed"), ("43", "proposed"),
        ]  # fmt: skip
        assert rows[0]["score"] == ""
        assert all(0.5 < float(r["score"]) <= 1 for r in rows[1:])
        features = json.loads((out / "a0_nuclei.geojson").read_text())["features"]
        for feature, line in zip(features, rows, strict=True):
            found = feature["properties"]
            assert str(found["label"]) == line["label"]
            assert found["source"] == found["classification"]["name"] == line["source"]
            assert (found["score"] is None) == (line["score"] == "")
        with Image.open(out / "a0_overlay.png") as picture:
            assert picture.size == (3 * 96 + 2 * 4, 96)
        with (out.parent / "summary.csv").open() as file:
            (summary,) = csv.DictReader(file)
        assert (summary["status"], summary["human"], summary["proposed"]) == ("done", "1", "3")
        assert float(summary["coverage"]) == pytest.approx((labels >= 0).mean(), rel=1e-5)

    def test_without_an_annotation_all_is_proposed(self, discs: Callable[..., Any]) -> None:
        (result,), _ = discs(None)
        assert (result.human, result.proposed, result.reason) == (0, 4, "nothing was annotated")

    def test_where_zero_is_background_there_is_nothing_to_propose(
        self, discs: Callable[..., Any], draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        some = np.where(four_discs(draw_discs) == 2, 1, 0).astype(np.int32)
        (result,), _ = discs(some)
        assert (result.human, result.proposed) == (1, 0)
        assert "--partial if 0 means that" in result.reason

    def test_and_where_it_is_not_there_is(
        self, discs: Callable[..., Any], draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        some = np.where(four_discs(draw_discs) == 2, 1, 0).astype(np.int32)
        (result,), _ = discs(some, partial=True)
        assert (result.human, result.proposed, result.reason) == (1, 3, "")

    def test_in_the_last_round_the_rest_is_background(
        self, discs: Callable[..., Any], draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        truth = four_discs(draw_discs)
        (result,), out = discs(np.where(truth == 2, 7, -1).astype(np.int32), complete=True)
        labels = read_labels(out / "a0_labels.tif")
        assert np.unique(labels).tolist() == [0, 7, 8, 9, 10]
        assert np.array_equal(labels == 7, truth == 2)
        assert result.coverage == pytest.approx((labels > 0).mean())  # what --complete filled is not counted

    def test_images_are_read_and_looked_at_as_was_said(
        self,
        discs: Callable[..., Any],
        draw_discs: Callable[..., NDArray[np.uint8]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        read, looked = [], []
        keep_read, keep_look = files.read_image, files.segment_normalised
        monkeypatch.setattr(files, "read_image", lambda *a, **how: read.append(how) or keep_read(*a, **how))
        monkeypatch.setattr(files, "segment_normalised", lambda *a: looked.append(a[2:]) or keep_look(*a))
        options = Options(scale=1, threshold=0.4)
        ((row,), _) = discs(
            four_discs(draw_discs) * 0 - 1, options=options, reading=Reading(pixel_size_um=0.01)
        )
        assert read == [{"channel": None, "z": None, "t": None, "pixel_size_um": 0.01}]
        assert looked == [(options, 0.01)]
        assert "give the pixel size" in row.reason or row.reason == "nothing was annotated"

    def test_what_the_network_doubts_is_in_the_summary(
        self, discs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep = files.segment_normalised
        monkeypatch.setattr(
            files, "segment_normalised", lambda *a: dataclasses.replace(keep(*a), warning="doubtful")
        )
        ((row,), out) = discs(None)
        assert row.reason == "doubtful; nothing was annotated"
        assert "doubtful; nothing was annotated" in (out.parent / "summary.csv").read_text()

    def test_a_run_that_is_interrupted_keeps_the_rows_of_what_is_done(
        self, discs: Callable[..., Any], save_discs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done, attempt = [], files._attempt

        def interrupt(*given: Any) -> Any:
            if done:
                raise KeyboardInterrupt
            done.append(attempt(*given))
            return done[0]

        monkeypatch.setattr(files, "_attempt", interrupt)
        with pytest.raises(KeyboardInterrupt):
            discs(None, None)
        out = save_discs("in/a.png", 4).parent.parent / "out"
        assert (out / "summary.csv").read_text().count("done") == 1

    def test_an_image_that_failed_has_one_row_when_it_is_done(
        self, save_discs: Callable[..., Path], toy_model: Path
    ) -> None:
        good = save_discs("in/a.png", 4)
        content, out = good.read_bytes(), good.parent.parent / "out"
        given = Propagation(Model(toy_model, threads=1), out)
        for written, status in ((content[:40], "failed"), (content, "done")):
            good.write_bytes(written)
            (row,) = propagate_files([Task(FoundImage(good, PurePath("a")), None, None)], given)
            assert row.status == status
        with (out / "summary.csv").open() as file:
            assert [line["status"] for line in csv.DictReader(file)] == ["done"]

    def test_outlines_that_leave_a_part_out_are_reported(
        self, discs: Callable[..., Any], draw_discs: Callable[..., NDArray[np.uint8]]
    ) -> None:
        truth = four_discs(draw_discs)
        annotations = np.where((truth == 2) | (truth == 3), 2**31 - 9, np.where(truth == 4, 2, -1)).astype(
            np.int32
        )
        (result,), out = discs(annotations)
        assert result.reason.startswith("1 nuclei have several parts; the outlines show the largest")
        assert np.array_equal(read_labels(out / "a0_labels.tif") == 2**31 - 9, annotations > 2)

    def test_one_that_fails_does_not_take_the_others_down(self, discs: Callable[..., Any]) -> None:
        rows, out = discs(np.zeros((5, 5), np.int32), None)
        assert [one.status for one in rows] == ["failed", "done"]
        assert "labels: is (5, 5), but its image is (96, 96)" in rows[0].reason
        assert not (out / "a0_labels.tif").exists()
        assert (out / "a1_labels.tif").exists()

    def test_nothing_is_overwritten(self, discs: Callable[..., Any]) -> None:
        _, out = discs(None)
        before = (out / "a0_labels.tif").read_bytes()
        for name in ("a0_nuclei.csv", "a0_nuclei.geojson", "a0_overlay.png"):
            (out / name).unlink()
        with pytest.raises(UsageError, match=r"a0_labels\.tif: exists already, and may have been corrected"):
            discs(np.zeros((96, 96), np.int32))
        assert (out / "a0_labels.tif").read_bytes() == before
        assert not (out / "a0_nuclei.csv").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path, toy_model: Path, save_discs: Any) -> None:
        (tmp_path / "file").write_text("")
        task = Task(FoundImage(save_discs("a.png"), PurePath("a")), None)
        how = Propagation(Model(toy_model, threads=1), tmp_path / "file" / "out")
        with pytest.raises(UsageError, match="cannot be written"):
            propagate_files([task], how)

    def test_options_reach_the_model(self, discs: Callable[..., Any]) -> None:
        assert discs(None, options=Options(min_area=10_000))[0][0].proposed == 0

    def test_the_tolerance_reaches_the_outlines(self, discs: Callable[..., Any]) -> None:
        counts = []
        for tolerance in (0.3, 3.0):
            _, out = discs(None, tolerance=tolerance)
            features = json.loads((out / "a0_nuclei.geojson").read_text())["features"]
            counts.append(sum(len(one["properties"]["control_points"]) for one in features))
            shutil.rmtree(out.parent)
        assert counts[0] > counts[1] >= 4 * 3

    def test_an_interrupted_image_leaves_nothing(
        self, discs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half of its files would be taken for corrected ones, and refused, when the run is repeated."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("nuxel.annotate.files.encode_png", interrupt)
            with pytest.raises(KeyboardInterrupt):
                discs(None)
        assert not list(tmp_path.rglob("out/sub/*"))
        rows, out = discs(None)
        assert rows[0].status == "done"
        assert len(list(out.iterdir())) == 4

    @pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
    def test_a_tolerance_is_positive(self, toy_model: Path, tolerance: float) -> None:
        how = Propagation(Model(toy_model, threads=1), Path("out"))
        with pytest.raises(UsageError, match="the tolerance must be a positive number"):
            replace(how, tolerance=tolerance)
