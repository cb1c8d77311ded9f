import numpy as np
from scipy import ndimage

from nuxel.labels.border import border_pixels


def border_mask(labels):
    padded = np.pad(labels, 1)
    mask = np.zeros(padded.shape, bool)
    mask.ravel()[border_pixels(padded)] = True
    return mask[1:-1, 1:-1]


def test_the_border_is_what_erosion_takes_from_each_nucleus():
    labels = ndimage.zoom(np.random.default_rng(3).integers(0, 5, (8, 9)), 4, order=0)
    expected = np.zeros(labels.shape, bool)
    for label in range(1, 5):
        mask = labels == label
        expected |= mask & ~ndimage.binary_erosion(mask, border_value=0)
    np.testing.assert_array_equal(border_mask(labels), expected)


def test_nuclei_that_touch_both_have_a_border_between_them():
    labels = np.repeat([[1, 1, 1, 2, 2, 2]], 6, axis=0)
    assert border_mask(labels)[3].tolist() == [True, False, True, True, False, True]


def test_a_nucleus_cut_by_the_image_has_its_border_at_the_edge():
    assert border_mask(np.ones((3, 3), int)).sum() == 8


def test_what_is_not_annotated_has_no_border():
    assert border_mask(np.array([[-1, -1, 2], [-1, -1, 0]])).tolist() == [[False, False, True], [False] * 3]


def test_places_rise():
    places = border_pixels(np.pad(np.eye(5, dtype=int), 1))
    assert (np.diff(places) > 0).all()
    assert len(places) == 5
