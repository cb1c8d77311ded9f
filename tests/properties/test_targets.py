"""The rules of the targets, pixel by pixel, on any label image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuxel.data.targets import TargetRule, multihead_targets, relative_depth, touching_borders

RULES = st.builds(TargetRule, shrink=st.sampled_from([0.2, 0.4, 0.7, 0.95]), touching_width=st.integers(1, 3))


@st.composite
def label_images(draw, side=9):
    """Coarse blocks, so that nuclei have insides, some of them not annotated."""
    shape = st.tuples(st.integers(1, side), st.integers(1, side))
    coarse = draw(arrays(np.int32, shape, elements=st.sampled_from([0, 0, 1, 2, 3, 40, -1])))
    return coarse.repeat(draw(st.integers(1, 4)), axis=0).repeat(draw(st.integers(1, 4)), axis=1)


def within(labels, y, x, distance):
    """Numbers of the nuclei within a Chebyshev distance."""
    near = labels[max(0, y - distance) : y + distance + 1, max(0, x - distance) : x + distance + 1]
    return set(near[near > 0].tolist())


@given(label_images(), RULES)
@settings(max_examples=80)
def test_shrunk_nuclei_lie_in_their_nuclei_and_none_disappears(labels, rule):
    nucleus, shrunk, *_ = multihead_targets(labels, rule)
    np.testing.assert_array_equal(nucleus, labels > 0)
    assert set(np.unique(shrunk)) <= {0, 1}
    assert (nucleus >= shrunk).all()
    assert set(labels[shrunk > 0]) == set(labels[labels > 0])


@given(label_images(side=6))
@settings(max_examples=60)
def test_depth_is_one_more_than_the_distance_to_the_rim(labels):
    nuclei = np.maximum(labels, 0)
    padded = np.pad(nuclei, 1, mode="edge")
    around = [padded[1 + dy :, 1 + dx :][: nuclei.shape[0], : nuclei.shape[1]] for dy, dx in ((0, 1), (1, 0))]
    around += [
        padded[1 - dy :, 1 - dx :][: nuclei.shape[0], : nuclei.shape[1]] for dy, dx in ((0, 1), (1, 0))
    ]
    found = relative_depth(nuclei)
    assert not found[nuclei == 0].any()
    for number in set(nuclei[nuclei > 0].tolist()):
        mine = np.argwhere(nuclei == number)
        rim = np.argwhere((nuclei == number) & np.any([other != number for other in around], axis=0))
        if not len(rim):
            assert (found[nuclei == number] == 1).all()
            continue
        depth = 1 + np.sqrt(((mine[:, None] - rim[None]) ** 2).sum(-1)).min(1)
        np.testing.assert_allclose(found[nuclei == number], depth / depth.max(), rtol=1e-6)


@given(label_images(), st.integers(1, 3))
@settings(max_examples=60)
def test_a_border_touches_exactly_where_two_nuclei_are_near(labels, width):
    nuclei = np.maximum(labels, 0)
    found = touching_borders(nuclei, width)
    for y, x in np.ndindex(nuclei.shape):
        assert found[y, x] == (len(within(nuclei, y, x, width)) >= 2)


@given(label_images(), RULES)
@settings(max_examples=60)
def test_the_size_target_is_exact(labels, rule):
    size = multihead_targets(labels, rule)[5]
    assert not size[labels <= 0].any()
    for number in set(labels[labels > 0].tolist()):
        diameter = np.sqrt(4 / np.pi * (labels == number).sum())
        np.testing.assert_allclose(size[labels == number], np.log2(diameter / 16), rtol=1e-5, atol=1e-6)


@given(label_images(), RULES)
@settings(max_examples=60)
def test_every_pixel_points_at_the_centroid_of_its_nucleus(labels, rule):
    drawn = multihead_targets(labels, rule)
    for number in set(labels[labels > 0].tolist()):
        places = np.argwhere(labels == number)
        offsets = drawn[3:5, labels == number].T * np.sqrt(4 / np.pi * len(places))
        np.testing.assert_allclose(places + offsets, np.tile(places.mean(0), (len(places), 1)), atol=1e-4)


@given(label_images(), RULES)
@settings(max_examples=60)
def test_what_is_not_annotated_is_background(labels, rule):
    drawn = multihead_targets(labels, rule)
    np.testing.assert_array_equal(drawn, multihead_targets(np.maximum(labels, 0), rule))
    assert not drawn[[0, 1, 3, 4, 5]][:, labels < 0].any()


@given(label_images(), RULES)
@settings(max_examples=60)
def test_other_numbers_draw_the_same(labels, rule):
    numbers = np.arange(41)
    numbers[[1, 2, 3, 40]] = 17, 1, 30_000, 5
    other = np.where(labels > 0, numbers[labels], labels)
    np.testing.assert_array_equal(multihead_targets(labels, rule), multihead_targets(other, rule))


@given(label_images(), RULES)
@pytest.mark.parametrize(
    "turn",
    [
        pytest.param((lambda a: a[..., ::-1], [3, 4], [1, -1]), id="left-right"),
        pytest.param((lambda a: a[..., ::-1, :], [3, 4], [-1, 1]), id="up-down"),
        pytest.param((lambda a: np.swapaxes(a, -1, -2), [4, 3], [1, 1]), id="transposed"),
    ],
)
@settings(max_examples=40)
def test_a_turned_image_has_turned_targets(turn, labels, rule):
    """Also the offsets, whose two components change places or signs."""
    move, offsets, signs = turn
    expected = move(multihead_targets(labels, rule))
    expected[3:5] = expected[offsets] * np.reshape(signs, (2, 1, 1))
    np.testing.assert_allclose(multihead_targets(move(labels), rule), expected, atol=1e-6)


@given(label_images())
@settings(max_examples=60)
def test_more_shrinking_leaves_less(labels):
    maps = [multihead_targets(labels, TargetRule(shrink=shrink))[1] for shrink in (0.1, 0.4, 0.8)]
    assert (maps[0] >= maps[1]).all()
    assert (maps[1] >= maps[2]).all()
