"""Pictures: outlines where labels change, captions where nuclei match, the window where most is wrong."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from nuxel.evaluation.pictures import LONGEST_SIDE, Drawing, draw, outline_path, worst_window

Draw = Callable[..., np.ndarray]
SMALL = arrays.arrays(
    np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 2)
)


def edges(path: str) -> set[tuple[str, int, int]]:
    """Every border of one pixel's side in a path."""
    found = set()
    for x, y, way, end in re.findall(r"M(\d+) (\d+)([VH])(\d+)", path):
        along = range(int(y), int(end)) if way == "V" else range(int(x), int(end))
        found |= {(way, int(x), step) if way == "V" else (way, step, int(y)) for step in along}
    return found


@given(SMALL)
def test_outlines_are_all_borders_between_labels(labels: np.ndarray) -> None:
    padded = np.pad(labels, 1)
    expected = set()
    for y, x in np.ndindex(*labels.shape):
        for dy, dx in ((0, 0), (1, 1)):
            if padded[y + 1, x + 1] != padded[y + 1, x + 2 * dx]:
                expected.add(("V", x + dx, y))
            if padded[y + 1, x + 1] != padded[y + 2 * dy, x + 1]:
                expected.add(("H", x, y + dy))
    assert edges(outline_path(labels)) == expected


def test_straight_borders_are_one_line() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[1:5, 2:7] = 3
    assert outline_path(labels) == "M2 1V5M7 1V5M2 1H7M2 5H7"
    assert outline_path(labels * 0) == ""


class TestDraw:
    def test_what_nobody_annotated_is_no_error_to_show(self) -> None:
        truth = np.full((40, 3 * LONGEST_SIDE), -1, np.int32)
        truth[:, :30] = 0
        truth[5:10, 5:10] = 1  # missed
        predicted = np.zeros_like(truth)
        predicted[:, -500:] = 1
        assert draw(Drawing(truth, predicted))[1][1].start == 0

    def test_each_match_has_its_iou(self, squares: Draw) -> None:
        drawing = Drawing(squares(1, 2, 3, 4), squares(1, 2, 3, 8, shift={2: 1, 3: 9}))
        svg, window = draw(drawing)
        assert re.findall(r"<text[^>]*>([^<]*)</text>", svg) == ["1.00", "0.82"]
        assert window == (slice(0, 40), slice(0, 60))
        assert f'class="truth" d="{outline_path(drawing.truth)}"' in svg
        assert f'class="predicted" d="{outline_path(drawing.predicted)}"' in svg
        assert 'class="ignored" d=""' in svg
        assert 'viewBox="0 0 60 40"' in svg

    def test_captions_stand_on_their_nucleus(self, squares: Draw) -> None:
        svg = draw(Drawing(squares(6), squares(6)))[0]
        ((x, y, size),) = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" font-size="([\d.]+)"', svg)
        assert float(x) == 21
        assert 18 < float(y) < 23
        assert float(size) == 4

    def test_scores_follow_where_they_are_known(self, squares: Draw) -> None:
        svg = draw(Drawing(squares(1, 2), squares(1, 2), scores={2: 0.875}))[0]
        assert re.findall(r">([^<>]*)</text>", svg) == ["1.00", "1.00 (0.88)"]

    def test_the_threshold_decides_what_matches(self, squares: Draw) -> None:
        truth, predicted = squares(1), squares(1, shift={1: 2})
        assert "0.67" in draw(Drawing(truth, predicted))[0]
        assert "<text" not in draw(Drawing(truth, predicted, threshold=0.7))[0]

    def test_what_is_not_annotated_has_its_own_outline(self, squares: Draw) -> None:
        truth = squares(1)
        truth[30:] = -1
        svg = draw(Drawing(truth, squares(1)))[0]
        assert 'class="ignored" d="M0 30V40M60 30V40M0 30H60M0 40H60"' in svg
        assert f'class="truth" d="{outline_path(squares(1))}"' in svg

    def test_a_prediction_that_does_not_count_is_drawn_so(self, squares: Draw) -> None:
        truth, predicted = squares(1), squares(1, 5)
        truth[14:] = -1
        svg = draw(Drawing(truth, predicted))[0]
        assert f'class="predicted" d="{outline_path(squares(1))}"' in svg
        assert f'class="ignored" d="{outline_path(squares(5))}"' in svg

    def test_the_image_lies_below(self, squares: Draw) -> None:
        display = np.zeros((40, 60, 3), np.uint8)
        display[:, 30:] = 200
        svg = draw(Drawing(squares(1), squares(1), display))[0]
        data = re.search(r'href="data:image/jpeg;base64,([^"]+)"', svg)
        assert data is not None
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
        assert np.abs(shown.astype(int) - display).max() < 12
        assert "<rect" not in svg
        assert '<rect width="60" height="40"/>' in draw(Drawing(squares(1), squares(1)))[0]

    def test_a_large_image_is_shown_where_most_is_wrong(self) -> None:
        truth = np.zeros((1500, 2600), np.int32)
        truth[10:30, 10:30] = 1
        truth[1400:1440, 2500:2540] = 2
        predicted = np.where(truth == 1, 5, 0).astype(np.int32)
        svg, (rows, columns) = draw(Drawing(truth, predicted, np.zeros((1500, 2600, 3), np.uint8)))
        assert (rows, columns) == (slice(476, 1500), slice(1536, 2560))
        assert 'viewBox="0 0 1024 1024"' in svg
        assert "<text" not in svg
        assert 'class="truth" d="M964 924V964' in svg


@pytest.mark.parametrize(
    ("spot", "expected"),
    [
        ((0, 0), (0, 0)),
        ((99, 149), (60, 110)),
        ((45, 70), (20, 40)),
        ((99, 0), (60, 0)),
        ((50, 149), (20, 110)),
    ],
)
def test_windows_hold_the_spot(spot: tuple[int, int], expected: tuple[int, int]) -> None:
    wrong = np.zeros((100, 150), bool)
    wrong[spot] = True
    rows, columns = worst_window(wrong, 40)
    assert (rows.start, columns.start) == expected
    assert wrong[rows, columns].shape == (40, 40)
    assert wrong[rows, columns].any()


def test_a_narrow_image_is_cut_along_its_length() -> None:
    wrong = np.zeros((10, 95), bool)
    wrong[5, 90] = True
    assert worst_window(wrong, 40) == (slice(0, 10), slice(55, 95))
    assert worst_window(wrong, 95) == (slice(0, 10), slice(0, 95))
