"""Any window of a scaled view is cut from the same whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nuxel.image.resample import ScaledImage, resize_labels

SCALES = st.one_of(st.just(1.0), st.floats(0.1, 6.0))
IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14), st.just(3)))


@st.composite
def windows(draw):
    """A view, its whole with a mirrored margin, and a box in it."""
    view = ScaledImage(draw(IMAGES), draw(SCALES))
    height, width = view.shape
    margin = draw(st.integers(0, 20))
    y0, x0 = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    y1, x1 = draw(st.integers(y0 + 1, height + margin)), draw(st.integers(x0 + 1, width + margin))
    whole = np.pad(view.window((0, 0, height, width)), ((0, margin), (0, margin), (0, 0)), mode="symmetric")
    return view, whole, (y0, x0, y1, x1)


@given(windows())
@settings(max_examples=200)
def test_a_window_is_the_crop_of_the_whole_to_one_grey_level(case):
    view, whole, (y0, x0, y1, x1) = case
    window = view.window((y0, x0, y1, x1)).astype(int)
    assert window.shape == (y1 - y0, x1 - x0, 3)
    exact = view.shape == view.full_shape
    assert np.abs(window - whole[y0:y1, x0:x1]).max() <= (0 if exact else 1)


@given(IMAGES, SCALES)
@settings(max_examples=60)
def test_nothing_gets_brighter_or_darker_than_it_was(pixels, scale):
    view = ScaledImage(pixels, scale)
    seen = view.window((0, 0, *view.shape))
    for channel in range(3):
        assert pixels[..., channel].min() <= seen[..., channel].min()
        assert seen[..., channel].max() <= pixels[..., channel].max()


@given(
    arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 9)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=100)
def test_resized_labels_are_labels_of_the_pixels_below_their_centres(labels, shape):
    resized = resize_labels(labels, shape)
    for y, x in np.ndindex(shape):
        # in whole numbers: twice the centre is an odd number of half pixels
        row = (2 * y + 1) * labels.shape[0] // (2 * shape[0])
        column = (2 * x + 1) * labels.shape[1] // (2 * shape[1])
        assert resized[y, x] == labels[row, column]
