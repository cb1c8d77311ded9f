"""The targets of label images small enough to draw by hand."""

import numpy as np
import pytest

from nuxel.data.targets import (
    REFERENCE_DIAMETER,
    TargetRule,
    centre_offsets,
    diameters,
    log_diameter,
    multihead_targets,
    relative_depth,
    touching_borders,
)
from nuxel.errors import UsageError


def digits(picture):
    return np.array([[int(mark) for mark in row] for row in picture.split()], np.int32)


def square(side, margin=1):
    return np.pad(np.ones((side, side), np.int32), margin)


def shrunk(labels, shrink):
    return multihead_targets(labels, TargetRule(shrink=shrink))[1].astype(int).tolist()


def test_the_defaults():
    assert TargetRule() == TargetRule(shrink=0.4, touching_width=1)


@pytest.mark.parametrize(
    "given", [{"shrink": 0.0}, {"shrink": 1.0}, {"shrink": float("nan")}, {"touching_width": 0}]
)
def test_rules_out_of_range(given):
    with pytest.raises(UsageError, match=f"{next(iter(given))} must"):
        TargetRule(**given)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_there_are_six_maps_of_floats(dtype):
    drawn = multihead_targets(np.array([[0, 1, 1]], dtype), TargetRule())
    assert drawn.shape == (6, 1, 3)
    assert drawn.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("value", [0, -1, -7])
def test_without_nuclei_all_targets_are_empty(shape, value):
    assert not multihead_targets(np.full(shape, value), TargetRule()).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 3)])
def test_a_nucleus_that_fills_the_image_is_not_shrunk(shape):
    drawn = multihead_targets(np.full(shape, 3), TargetRule())
    assert drawn[0].all()
    assert drawn[1].all()
    assert not drawn[2].any()


def test_all_targets_of_two_touching_nuclei_and_a_gap_that_is_not_annotated():
    labels = np.array([[0, 4, 4, 4, 9, 9, 0, -1]])
    nucleus, core, touching, down, right, size = multihead_targets(
        labels, TargetRule(shrink=0.5, touching_width=1)
    )
    assert nucleus.tolist() == [[0, 1, 1, 1, 1, 1, 0, 0]]
    assert core.tolist() == [[0, 0, 1, 0, 1, 1, 0, 0]]
    assert touching.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]
    three, two = (np.float32(np.log2(np.sqrt(4 * area / np.pi) / 16)) for area in (3, 2))
    np.testing.assert_allclose(size, [[0, three, three, three, two, two, 0, 0]], rtol=1e-6)
    wide, narrow = (np.sqrt(4 * area / np.pi) for area in (3, 2))
    assert not down.any()
    expected = [[0, 1 / wide, 0, -1 / wide, 0.5 / narrow, -0.5 / narrow, 0, 0]]
    np.testing.assert_allclose(right, expected, rtol=1e-6)


def test_what_is_not_annotated_counts_as_background():
    labels = np.array([[1, 1, 1, -1, 2, 2, 2], [1, 1, 1, -5, 2, 2, 2], [-1] * 7])
    drawn = multihead_targets(labels, TargetRule())
    np.testing.assert_array_equal(drawn, multihead_targets(np.maximum(labels, 0), TargetRule()))
    assert not drawn[:2, labels < 0].any()
    assert not drawn[3:, labels < 0].any()


# ---- shrunk nucleus -------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[[1]], [[0, 1, 0]], [[1, 2, 3]], [[1, 0], [0, 2]]])
def test_a_nucleus_of_one_pixel_stays(labels):
    labels = np.array(labels)
    assert multihead_targets(labels, TargetRule(shrink=0.99))[1].tolist() == (labels > 0).astype(int).tolist()


def test_depths_of_a_square():
    expected = digits("0000000 0111110 0122210 0123210 0122210 0111110 0000000") / 3
    np.testing.assert_array_equal(relative_depth(square(5)), expected.astype(np.float32))


def test_depth_is_the_euclidean_distance():
    labels = np.zeros((7, 7), np.int32)
    labels[0:7, 0:7] = 1
    labels[0, 0] = 0  # the rim is (0, 1) and (1, 0)
    depth = relative_depth(labels)
    deepest = 1 + np.hypot(6, 5)
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0
    assert depth[0, 1] == np.float32(1 / deepest)
    assert depth[1, 1] == np.float32(2 / deepest)
    assert depth[2, 2] == pytest.approx((1 + np.hypot(2, 1)) / deepest)
    assert depth[6, 6] == 1


def test_a_square_of_five_loses_its_rim_or_all_but_its_middle():
    whole, inner, middle = square(5), square(3, 2), square(1, 3)
    assert shrunk(whole, 0.2) == whole.tolist()
    assert shrunk(whole, 0.4) == inner.tolist()
    assert shrunk(whole, 0.66) == inner.tolist()
    assert shrunk(whole, 0.67) == middle.tolist()
    assert shrunk(whole, 0.99) == middle.tolist()


def test_a_pixel_exactly_at_the_share_is_cut_off():
    assert shrunk(np.array([[0, 1, 1, 1, 0]]), 0.5) == [[0, 0, 1, 0, 0]]
    assert shrunk(np.array([[0, 1, 1, 1, 0]]), 0.49) == [[0, 1, 1, 1, 0]]


def test_the_edge_of_the_image_is_no_rim():
    assert (
        relative_depth(digits("1110 1110 1110")).tolist()
        == [[1, np.float32(2 / 3), np.float32(1 / 3), 0]] * 3
    )


def test_a_neighbour_is_a_rim_on_every_side():
    labels = digits("22222 22122 22222")
    depth = relative_depth(labels)
    assert depth[1, 2] == 1
    assert depth[0, 2] == depth[2, 2] == depth[1, 1] == depth[1, 3]
    assert depth[0, 0] == 1


def test_each_nucleus_is_measured_by_its_own_depth():
    labels = np.zeros((11, 20), np.int32)
    labels[1:10, 1:10] = 7
    labels[1:4, 12:15] = 3
    depth = relative_depth(labels)
    assert depth[5, 5] == depth[2, 13] == 1
    assert depth[1, 1] == np.float32(1 / 5)
    assert depth[1, 12] == np.float32(1 / 2)


# ---- touching borders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1, "0000000000"), (2, "0000110000"), (3, "0001111000"), (4, "0011111100")],
)
def test_a_gap_of_two_pixels_is_bridged_by_the_width(width, expected):
    assert (touching_borders(digits("1111002222"), width) == (digits(expected) > 0)).all()


def test_a_gap_of_one_pixel_touches_in_the_gap_only():
    assert touching_borders(digits("1110222"), 1).astype(int).tolist() == [[0, 0, 0, 1, 0, 0, 0]]


def test_distance_is_counted_over_corners_too():
    assert touching_borders(digits("1000 0000 0020"), 1).astype(int).tolist() == [
        [0] * 4,
        [0, 1, 0, 0],
        [0] * 4,
    ]
    assert touching_borders(digits("10 02"), 1).all()


def test_nuclei_that_meet():
    expected = digits("0110 0110 0110")
    assert (touching_borders(digits("1122 1122 1122"), 1) == expected).all()
    assert (touching_borders(digits("1122 1122 1122").T.copy(), 1) == expected.T).all()


def test_where_three_meet():
    assert (touching_borders(digits("1122 1122 3333 3333"), 1) == digits("0110 1111 1111 0000")).all()


def test_one_nucleus_in_two_parts_does_not_touch_itself():
    assert not touching_borders(digits("1110111"), 1).any()


# ---- offsets to the centre ------------------------------------------------------------------------------


def test_a_disc_points_at_its_middle_from_half_a_diameter_away():
    rows, columns = np.indices((41, 61))
    disc = ((rows - 20) ** 2 + (columns - 30) ** 2 <= 15**2).astype(np.int32)
    down, right = centre_offsets(disc)
    assert down[20, 30] == right[20, 30] == 0
    assert (down[5, 30], right[5, 30]) == pytest.approx((0.5, 0), abs=0.01)
    assert (down[20, 45], right[20, 45]) == pytest.approx((0, -0.5), abs=0.01)
    assert not down[disc == 0].any()
    assert not right[disc == 0].any()


def test_a_ring_points_at_its_empty_middle():
    down, right = centre_offsets(digits("11111 10001 10001 10001 11111"))
    diameter = np.sqrt(4 / np.pi * 16)
    assert (down[0, 4], right[0, 4]) == pytest.approx((2 / diameter, -2 / diameter))


def test_offsets_without_nuclei():
    assert not centre_offsets(np.zeros((3, 4), np.int32)).any()


# ---- size -----------------------------------------------------------------------------------------------


def test_diameters_are_those_of_discs_in_order_of_the_labels():
    labels = np.array([[5, 2, 2, 0, -1], [5, 5, 5, 1, -1]], np.int32)
    np.testing.assert_allclose(diameters(labels), 2 * np.sqrt(np.array([1, 2, 4]) / np.pi), rtol=1e-12)
    assert diameters(np.zeros((2, 2), np.int32)).shape == (0,)


def test_the_size_target_is_zero_at_the_reference_diameter_and_one_at_twice_it():
    rows, columns = np.indices((200, 400))
    small = (rows - 100) ** 2 + (columns - 80) ** 2 < (REFERENCE_DIAMETER / 2 * 4) ** 2
    large = (rows - 100) ** 2 + (columns - 280) ** 2 < (REFERENCE_DIAMETER / 2 * 8) ** 2
    logs = log_diameter((small + 2 * large).astype(np.int32))
    assert logs.dtype == np.float32
    assert logs[100, 80] == pytest.approx(2, abs=0.01)
    assert logs[100, 280] == pytest.approx(3, abs=0.01)
    assert not logs[~small & ~large].any()


def test_the_size_of_one_pixel():
    assert log_diameter(np.array([[0, 1]], np.int32))[0, 1] == np.float32(np.log2(np.sqrt(4 / np.pi) / 16))
