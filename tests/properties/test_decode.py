"""What holds for the nuclei that are decoded from any maps."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nuxel.decode.clumps import SPLITS, ClumpRule, decode_clumps

LEVELS = st.sampled_from([0, 60, 127, 128, 200, 255])
RULES = st.builds(
    ClumpRule,
    threshold=st.sampled_from([0.2, 0.5, 0.8]),
    marker_threshold=st.sampled_from([0.2, 0.5]),
    min_marker_area=st.integers(0, 3),
    min_area=st.integers(0, 6),
    min_score=st.sampled_from([0.0, 0.6]),
    split=st.sampled_from(SPLITS),
)


@st.composite
def random_maps(draw, side=12):
    """Coarse noise, so that clumps, markers and holes of many shapes arise."""
    shape = draw(st.tuples(st.just(3), st.integers(1, side), st.integers(1, side)))
    maps = draw(arrays(np.uint8, shape, elements=LEVELS))
    return maps.repeat(draw(st.integers(1, 2)), axis=1)


@given(random_maps(), RULES)
@settings(max_examples=150)
def test_every_nucleus_is_one_connected_region_without_small_or_faint_ones(maps, rule):
    found = decode_clumps(maps, rule)
    assert found.labels.shape == maps.shape[1:]
    for number, box in enumerate(ndimage.find_objects(found.labels), 1):
        mask = found.labels[box] == number
        assert ndimage.label(mask)[1] == 1
        assert mask.sum() >= rule.min_area
        assert found.scores[number - 1] == np.float32(maps[0][box][mask].mean() / 255)
        assert found.scores[number - 1] >= np.float32(rule.min_score)


@given(random_maps(), RULES)
@settings(max_examples=100)
def test_nuclei_are_numbered_in_the_order_of_their_first_pixel(maps, rule):
    found = decode_clumps(maps, rule)
    numbers, first = np.unique(found.labels, return_index=True)
    first = first[numbers > 0]
    assert numbers[numbers > 0].tolist() == list(range(1, len(found) + 1))
    assert (np.diff(first) > 0).all()


@given(random_maps(), RULES)
@settings(max_examples=100)
def test_all_foreground_is_given_out_unless_dropped(maps, rule):
    rule = dataclasses.replace(rule, min_area=1, min_score=0.0)
    labels = decode_clumps(maps, rule).labels
    foreground = maps[0] / 255 >= rule.threshold
    assert (labels[foreground] > 0).all()
    holes = ndimage.binary_fill_holes(foreground) & ~foreground
    assert not labels[~foreground & ~holes].any()


@given(random_maps(), RULES, *(st.integers(0, 4) for _ in range(4)))
@settings(max_examples=100)
def test_an_empty_margin_changes_nothing(maps, rule, top, bottom, left, right):
    alone = decode_clumps(maps, rule)
    # A gap on the edge is open, and so is the margin.
    padded = decode_clumps(np.pad(maps, ((0, 0), (top, bottom), (left, right))), rule)
    assert (padded.labels == np.pad(alone.labels, ((top, bottom), (left, right)))).all()
    assert (padded.scores == alone.scores).all()


@given(random_maps(), random_maps(), RULES)
@settings(max_examples=100)
def test_what_lies_elsewhere_changes_nothing(one, other, rule):
    width = max(one.shape[2], other.shape[2])
    one, other = (np.pad(m, ((0, 0), (0, 1), (0, width - m.shape[2]))) for m in (one, other))
    first, second = decode_clumps(one, rule), decode_clumps(other, rule)
    both = decode_clumps(np.concatenate([one, other], axis=1), rule)
    shifted = np.where(second.labels > 0, second.labels + len(first), 0)
    assert (both.labels == np.concatenate([first.labels, shifted])).all()
    assert (both.scores == np.concatenate([first.scores, second.scores])).all()


@given(random_maps())
@settings(max_examples=60)
def test_dropping_small_nuclei_leaves_the_others_as_they_are(maps):
    everything = decode_clumps(maps, ClumpRule(min_area=1))
    large = decode_clumps(maps, ClumpRule(min_area=5))
    areas = np.bincount(everything.labels.ravel())
    kept = (areas >= 5)[everything.labels] & (everything.labels > 0)
    assert ((large.labels > 0) == kept).all()
    assert len(large) == (areas[1:] >= 5).sum()
