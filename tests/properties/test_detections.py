"""What holds for the nuclei that are decoded from any detections."""

import dataclasses

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nuxel.decode.detections import LEAST_LEFT, OVERLAPS, DetectionRule, Detections, decode_detections

SHAPES = st.tuples(st.integers(1, 14), st.integers(1, 14))
RULES = st.builds(
    DetectionRule,
    min_score=st.sampled_from([0.0, 0.3]),
    mask_threshold=st.sampled_from([0.2, 0.5, 0.8]),
    mask_nms=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    overlap=st.sampled_from(OVERLAPS),
    min_area=st.integers(0, 6),
)
# Quarters of a pixel, so that centres of pixels lie on edges of boxes, and boxes outside of the image.
PLACES = st.integers(-24, 72).map(lambda quarters: quarters / 4)
SIDES = st.integers(-2, 60).map(lambda quarters: quarters / 4)
SCORES = st.integers(0, 20).map(lambda twentieths: twentieths / 20)


@st.composite
def random_detections(draw, unique_by=lambda found: found[-1], places=PLACES, most=8):
    """Crowded boxes with masks of coarse noise; no two have the same score, unless asked otherwise."""
    found = draw(
        st.lists(st.tuples(places, places, SIDES, SIDES, SCORES), max_size=most, unique_by=unique_by)
    )
    cells = draw(st.integers(1, 5))
    masks = draw(
        arrays(
            np.float32, (len(found), cells, cells), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1, 1, 1])
        )
    )
    table = np.array(found, np.float32).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    return Detections(boxes, table[:, 4].copy(), masks)


def decoded_alone(found, index, shape, rule):
    """Where the nucleus of one detection lies if there is no other."""
    return decode_detections(found.take(np.array([index])), shape, rule).labels > 0


def with_source(found, nuclei):
    """Each nucleus as mask, with the index of its detection, which its score tells."""
    for number, score in enumerate(nuclei.scores, 1):
        (index,) = np.flatnonzero(found.scores == score)
        yield index, nuclei.labels == number


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=200)
def test_every_nucleus_is_one_connected_region_of_at_least_the_least_area(found, shape, rule):
    nuclei = decode_detections(found, shape, rule)
    assert nuclei.labels.shape == shape
    for number, score in enumerate(nuclei.scores, 1):
        mask = nuclei.labels == number
        assert ndimage.label(mask)[1] == 1
        assert mask.sum() >= rule.min_area
        assert rule.min_score <= score <= 1


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=100)
def test_nuclei_are_numbered_in_the_order_of_their_first_pixel(found, shape, rule):
    nuclei = decode_detections(found, shape, rule)
    numbers, first = np.unique(nuclei.labels, return_index=True)
    first = first[numbers > 0]
    assert numbers[numbers > 0].tolist() == list(range(1, len(nuclei) + 1))
    assert (np.diff(first) > 0).all()


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=100)
def test_every_nucleus_lies_in_its_box(found, shape, rule):
    for index, mask in with_source(found, decode_detections(found, shape, rule)):
        y0, x0, y1, x1 = found.boxes[index]
        rows, columns = np.nonzero(mask)
        assert max(0, np.floor(y0)) <= rows.min() <= rows.max() < min(shape[0], np.ceil(y1))
        assert max(0, np.floor(x0)) <= columns.min() <= columns.max() < min(shape[1], np.ceil(x1))


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=150)
def test_no_sliver_is_left(found, shape, rule):
    for index, mask in with_source(found, decode_detections(found, shape, rule)):
        whole = decoded_alone(found, index, shape, rule)
        assert not (mask & ~whole).any()
        assert mask.sum() >= LEAST_LEFT * whole.sum()


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=150)
def test_no_hole_is_left_but_where_another_nucleus_is(found, shape, rule):
    labels = decode_detections(found, shape, rule).labels
    gaps, count = ndimage.label(labels == 0)
    for number in range(1, count + 1):
        gap = gaps == number
        at_edge = gap[0].any() or gap[-1].any() or gap[:, 0].any() or gap[:, -1].any()
        around = ndimage.binary_dilation(gap) & ~gap
        assert at_edge or len(np.unique(labels[around])) > 1


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=150)
def test_the_first_in_rank_keeps_its_whole_mask(found, shape, rule):
    assume(rule.overlap != "probability")
    if rule.overlap == "biggest":
        # What the suppression leaves, it leaves to the biggest.
        rule = dataclasses.replace(rule, mask_nms=1.0)
    nuclei = decode_detections(found, shape, rule)
    alone = [decoded_alone(found, index, shape, rule) for index in range(len(found))]
    present = [index for index, mask in enumerate(alone) if mask.any()]
    assert (len(nuclei) > 0) == (len(present) > 0)
    if present:
        area = [alone[index].sum() * (rule.overlap == "biggest") for index in present]
        first = max(zip(area, found.scores[present], present, strict=True))[-1]
        assert any(
            (mask == alone[index]).all() for index, mask in with_source(found, nuclei) if index == first
        )


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=150)
def test_by_probability_no_more_is_lost_than_is_apart_or_too_small(found, shape, rule):
    """A pixel of a nucleus that was kept is some nucleus', unless it is not connected to what that one keeps."""
    rule = dataclasses.replace(rule, overlap="probability")
    nuclei = decode_detections(found, shape, rule)
    for index, mask in with_source(found, nuclei):
        free = decoded_alone(found, index, shape, rule) & (nuclei.labels == 0)
        assert not (free & ndimage.binary_dilation(mask)).any()


@given(random_detections(unique_by=lambda found: found), SHAPES, RULES, st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_the_order_of_the_detections_does_not_matter(found, shape, rule, random):
    order = list(range(len(found)))
    random.shuffle(order)
    one = decode_detections(found, shape, rule)
    other = decode_detections(found.take(np.array(order, np.intp)), shape, rule)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.scores, other.scores)


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=150)
def test_what_is_dropped_leaves_no_trace(found, shape, rule):
    nuclei = decode_detections(found, shape, rule)
    kept = np.array([index for index, _ in with_source(found, nuclei)], np.intp)
    again = decode_detections(found.take(kept), shape, rule)
    np.testing.assert_array_equal(again.labels, nuclei.labels)
    np.testing.assert_array_equal(again.scores, nuclei.scores)


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=100)
def test_only_detections_above_the_threshold_are_alike(found, shape, rule):
    rule = dataclasses.replace(rule, overlap="best")
    kept = [index for index, _ in with_source(found, decode_detections(found, shape, rule))]
    masks = {index: decoded_alone(found, index, shape, rule) for index in kept}
    for one in masks:
        for other in masks:
            if one < other:
                shared = (masks[one] & masks[other]).sum()
                assert shared <= rule.mask_nms * (masks[one] | masks[other]).sum()


@given(random_detections(places=st.integers(0, 40).map(lambda quarters: quarters / 4)), RULES)
@settings(max_examples=100)
def test_a_shift_by_whole_pixels_shifts_the_nuclei(found, rule):
    shape = (26, 26)  # holds every box
    nuclei = decode_detections(found, shape, rule)
    moved = decode_detections(found.shifted(70, 3), (100, 30), rule)
    np.testing.assert_array_equal(moved.labels, np.pad(nuclei.labels, ((70, 4), (3, 1))))
    np.testing.assert_array_equal(moved.scores, nuclei.scores)


@given(random_detections(most=4), random_detections(most=4), RULES)
@settings(max_examples=100)
def test_what_lies_elsewhere_changes_nothing(one, other, rule):
    shape = (60, 60)
    first = decode_detections(one.shifted(10, 10), shape, rule)
    second = decode_detections(other.shifted(10, 10), shape, rule)
    parts = [part for part in (one.shifted(10, 10), other.shifted(70, 10)) if len(part)]
    if len(parts) == 2 and one.masks.shape[1:] != other.masks.shape[1:]:
        return
    both = decode_detections(Detections.concatenate(parts), (120, 60), rule)
    below = np.where(second.labels > 0, second.labels + len(first), 0)
    np.testing.assert_array_equal(both.labels, np.concatenate([first.labels, below]))
    np.testing.assert_array_equal(both.scores, np.concatenate([first.scores, second.scores]))


@given(random_detections(), SHAPES, RULES)
@settings(max_examples=200)
def test_dilation_adds_to_each_nucleus_what_is_near_and_takes_from_none(found, shape, rule):
    before = decode_detections(found, shape, rule)
    after = decode_detections(found, shape, dataclasses.replace(rule, dilate=True))
    assert len(after) == len(before)
    kept = before.labels > 0
    partner = dict(zip(before.labels[kept].tolist(), after.labels[kept].tolist(), strict=True))
    assert len(set(partner.values())) == len(before)
    reach = ndimage.binary_dilation(kept, np.ones((3, 3)))
    assert np.array_equal(after.labels > 0, reach)
    for old, new in partner.items():
        assert (after.labels[before.labels == old] == new).all()
        assert ndimage.label(after.labels == new)[1] == 1
        assert after.scores[new - 1] == before.scores[old - 1]
    numbers, first = np.unique(after.labels, return_index=True)
    assert (np.diff(first[numbers > 0]) > 0).all()
