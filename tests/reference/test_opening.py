"""The opening against the plain ways to write it: SciPy's binary opening, and labels that grow pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage
from skimage.measure import label

from nuxel.decode.opening import OpeningRule, decode_opening

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ALONG_ROW, ALONG_COLUMN = ((0, -1), (0, 1)), ((-1, 0), (1, 0))


def octagon(degree):
    """By turns a cross and a square, each dilated by the next."""
    shape = np.pad(np.ones((1, 1), bool), degree)
    for number in range(degree):
        shape = ndimage.binary_dilation(shape, ndimage.generate_binary_structure(2, 1 + number % 2))
    return shape


def plain_open(foreground, degree):
    cores = ndimage.binary_erosion(foreground, octagon(degree), border_value=1)
    labels = label(cores, connectivity=2 if degree else 1)
    for number in range(degree):
        for steps in (ALONG_ROW, ALONG_COLUMN) if number % 2 else (ALONG_ROW + ALONG_COLUMN,):
            grown = labels.copy()
            for y, x in zip(*np.nonzero(labels == 0), strict=True):
                near = [(y + dy, x + dx) for dy, dx in steps]
                within = [p for p in near if 0 <= p[0] < labels.shape[0] and 0 <= p[1] < labels.shape[1]]
                grown[y, x] = min((labels[p] for p in within if labels[p]), default=0)
            labels = grown
    ordered = np.zeros_like(labels)
    for number, old in enumerate(dict.fromkeys(labels[labels > 0].tolist()), 1):
        ordered[labels == old] = number
    return ordered


def opened(foreground, degree):
    maps = foreground[None] * np.uint8(255)
    return decode_opening(maps, OpeningRule(degree=degree, min_area=0)).labels


FOREGROUNDS = arrays(
    np.bool_,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from(4 * [True] + [False]),
)


@st.composite
def blobs(draw):
    """Smooth shapes, large enough for some of them to outlast a few degrees."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 32), st.integers(1, 32)))
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), draw(st.floats(0.5, 3)))
    return smooth > draw(st.sampled_from([-0.2, -0.1, 0.0])) * smooth.std()


@given(FOREGROUNDS | blobs(), st.integers(0, 5))
@settings(max_examples=150)
def test_equal_to_the_plain_way(foreground, degree):
    np.testing.assert_array_equal(opened(foreground, degree), plain_open(foreground, degree))


@given(FOREGROUNDS | blobs(), st.integers(0, 5))
@settings(max_examples=100)
def test_away_from_the_edge_its_foreground_is_scipys_opening(foreground, degree):
    inside = np.pad(foreground, degree + 1)
    expected = ndimage.binary_opening(inside, octagon(degree))
    np.testing.assert_array_equal(opened(inside, degree) > 0, expected)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["dsb2018/labels/693bc6458127.png", "tnbc/labels/06_2.png"])
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_equal_to_the_plain_way_on_real_nuclei(name, degree):
    foreground = np.asarray(Image.open(DATA / name))[:160, :160] > 0
    found = opened(foreground, degree)
    assert found.max() > 5
    np.testing.assert_array_equal(found, plain_open(foreground, degree))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", sorted(p.stem for p in (DATA / "dsb2018" / "labels").glob("*.png"))[::60])
def test_without_eroding_real_nuclei_that_touch_no_other_come_back_as_they_are(name):
    truth = np.asarray(Image.open(DATA / "dsb2018" / "labels" / f"{name}.png")).astype(np.int32)
    found = opened(truth > 0, 0)
    np.testing.assert_array_equal(found, ndimage.label(truth > 0)[0])
    alone = 0
    for number, box in enumerate(ndimage.find_objects(truth), 1):
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        mask = truth[around] == number
        touched = truth[around][ndimage.binary_dilation(mask)]
        if ndimage.label(mask)[1] == 1 and set(touched) <= {0, number}:
            alone += 1
            (its,) = set(found[around][mask])
            assert (found == its).sum() == mask.sum()
    assert alone
