"""What holds for the nuclei of any opening."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nuxel.decode.opening import OpeningRule, decode_opening

DEGREES = st.integers(0, 5)


@st.composite
def random_maps(draw):
    """Smooth noise of any grain: specks, blobs, and clumps of several nuclei."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), draw(st.floats(0.3, 3)))
    level = draw(st.sampled_from([120, 150, 180, 250]))
    return np.clip(level + smooth / max(smooth.std(), 1e-9) * 70, 0, 255).astype(np.uint8)[None]


def all_of(degree):
    return OpeningRule(degree=degree, min_area=0)


def steps_from(cores, degree):
    """``(N, H, W)``: crosses and squares, by turns, until each core reaches each pixel; ``degree + 1`` if none does."""
    reached = np.stack([cores == number for number in range(1, cores.max() + 1)])
    steps = np.where(reached, 0, degree + 1)
    for number in range(degree):
        element = ndimage.generate_binary_structure(2, 1 + number % 2)
        reached = np.stack([ndimage.binary_dilation(one, element) for one in reached])
        steps[reached] = np.minimum(steps[reached], number + 1)
    return steps


def cores_of(maps, degree):
    eroded = maps[0] >= 128
    for number in range(degree):
        element = ndimage.generate_binary_structure(2, 1 + number % 2)
        eroded = ndimage.binary_erosion(eroded, element, border_value=1)
    return ndimage.label(eroded, ndimage.generate_binary_structure(2, 2 if degree else 1))[0]


@given(
    random_maps(),
    st.builds(
        OpeningRule,
        threshold=st.sampled_from([0.3, 0.5, 0.8]),
        degree=DEGREES,
        min_area=st.integers(0, 12),
        min_score=st.sampled_from([0.0, 0.7]),
    ),
)
@settings(max_examples=150)
def test_every_nucleus_is_one_connected_region_of_the_foreground_not_small_not_faint(maps, rule):
    found = decode_opening(maps, rule)
    assert found.labels.shape == maps.shape[1:]
    assert not found.labels[maps[0] / 255 < rule.threshold].any()
    for number, box in enumerate(ndimage.find_objects(found.labels), 1):
        mask = found.labels[box] == number
        assert ndimage.label(mask)[1] == 1
        assert mask.sum() >= rule.min_area
        assert found.scores[number - 1] == np.float32(maps[0][box][mask].mean() / 255)
        assert found.scores[number - 1] >= np.float32(rule.min_score)


@given(random_maps(), DEGREES)
@settings(max_examples=100)
def test_every_core_is_whole_in_a_nucleus_of_its_own(maps, degree):
    found, cores = decode_opening(maps, all_of(degree)).labels, cores_of(maps, degree)
    owners = [np.unique(found[cores == number]).tolist() for number in range(1, cores.max() + 1)]
    assert sorted(owners) == [[number] for number in range(1, found.max() + 1)]


@given(random_maps(), DEGREES)
@settings(max_examples=100)
def test_every_pixel_within_reach_goes_to_a_nearest_core_and_no_other_pixel(maps, degree):
    found, cores = decode_opening(maps, all_of(degree)).labels, cores_of(maps, degree)
    if not cores.any():
        assert not found.any()
        return
    steps = steps_from(cores, degree)
    least = steps.min(axis=0)
    assert ((found > 0) == (least <= degree)).all()
    core_of = np.zeros(found.max() + 1, int)
    core_of[found[cores > 0]] = cores[cores > 0]
    mine = np.take_along_axis(steps, core_of[found][None] - 1, axis=0)[0]
    assert (mine == least)[found > 0].all()


@given(random_maps())
@settings(max_examples=60)
def test_degree_zero_numbers_the_connected_parts(maps):
    assert (decode_opening(maps, all_of(0)).labels == ndimage.label(maps[0] >= 128)[0]).all()


@given(random_maps(), DEGREES)
@settings(max_examples=60)
def test_opening_again_changes_nothing(maps, degree):
    once = decode_opening(maps, all_of(degree)).labels
    again = decode_opening((once > 0)[None] * np.uint8(255), all_of(degree)).labels
    assert (once == again).all()


@given(random_maps(), st.integers(0, 4))
@settings(max_examples=60)
def test_a_higher_degree_leaves_no_more_foreground(maps, degree):
    less, more = (decode_opening(maps, all_of(d)).labels > 0 for d in (degree, degree + 1))
    assert not (more & ~less).any()


@given(random_maps(), DEGREES)
@settings(max_examples=100)
def test_rows_and_columns_are_alike_but_for_ties(maps, degree):
    found = decode_opening(maps, all_of(degree)).labels
    turned = decode_opening(maps.swapaxes(1, 2), all_of(degree)).labels.T
    assert ((found > 0) == (turned > 0)).all()
    assert found.max() == turned.max()
    if not found.any():
        return
    steps = steps_from(cores_of(maps, degree), degree)
    clear = (found > 0) & ((steps == steps.min(axis=0)).sum(axis=0) == 1)
    pairs = set(zip(found[clear].tolist(), turned[clear].tolist(), strict=True))
    assert len(pairs) == found.max()
