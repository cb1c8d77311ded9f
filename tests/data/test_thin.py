"""Sets with fewer annotations: exactly the share, chosen by the seed alone, and unknown is never background."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nuxel.data.thin import crop, nuclei_in, thin
from nuxel.errors import NuxelError, UsageError

IMAGES = st.lists(
    arrays.arrays(
        np.int32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.sampled_from([-2, -1, 0, 1, 2, 3, 7, 2**31 - 1]),
    ),
    min_size=1,
    max_size=5,
).filter(lambda images: any((image > 0).any() for image in images))


def pairs(images):
    """Which nuclei there are: the place of the image and the number."""
    return {
        (place, number)
        for place, image in enumerate(images)
        for number in np.unique(image[image > 0]).tolist()
    }


def rows(images=4, nuclei=25, seed=0):
    """Images with rows of nuclei of different sizes, numbers with gaps."""
    rng = np.random.default_rng(seed)
    return [
        np.repeat(rng.permutation(1000)[: 2 * nuclei] * (np.arange(2 * nuclei) % 2), 3)[None].astype(np.int32)
        for _ in range(images)
    ]


@given(images=IMAGES, keep=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_exactly_the_share_whole_and_all_else_unknown(images, keep, seed):
    total = len(pairs(images))
    if round(keep * total) == 0:
        with pytest.raises(UsageError, match=f"of {total} nuclei is none of them; keep a larger share"):
            thin(images, keep, seed)
        return
    before = [image.copy() for image in images]
    results = thin(images, keep, seed)
    kept = pairs(results)
    assert kept <= pairs(images)
    assert len(kept) == round(keep * total)
    for place, (image, result) in enumerate(zip(images, results, strict=True)):
        assert result.dtype == np.int32
        of_image = [number for where, number in kept if where == place]
        expected = [[pixel if pixel in of_image else -1 for pixel in row] for row in image.tolist()]
        assert result.tolist() == expected
    for image, same in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, same)


def test_the_seed_decides():
    images = rows()
    first, again, other = (pairs(thin(images, 0.25, seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_smaller_share_is_part_of_a_larger_one():
    images = rows()
    chosen = [pairs(thin(images, keep, 5)) for keep in (0.05, 0.1, 0.25, 0.5, 1)]
    for smaller, larger in pairwise(chosen):
        assert smaller < larger
    assert chosen[-1] == pairs(images)


def test_the_share_is_of_the_set_and_not_of_each_image():
    shares = {len(nuclei_in(image)) for seed in range(5) for image in thin(rows(), 0.24, seed)}
    assert len(shares) > 2


def test_every_nucleus_has_the_same_chance():
    images = [np.array([[1, 1, 1, 1, 1, 1, 2]], np.int32), np.array([[5, 0, 9]], np.int32)]
    times = dict.fromkeys(pairs(images), 0)
    for seed in range(400):
        for pair in pairs(thin(images, 0.5, seed)):
            times[pair] += 1
    # 200 expected; 60 are six standard deviations
    assert all(140 < count < 260 for count in times.values())


@given(images=IMAGES, keep=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_a_rectangle_of_the_image_as_it_was(images, keep, seed):
    images = [*images, np.ones((3, 3), np.int32)]
    results = crop(images, keep, seed)
    for image, result in zip(images, results, strict=True):
        assert result.dtype == np.int32
        height, width = (max(1, round(side * keep**0.5)) for side in image.shape)
        places = []
        for top in range(image.shape[0] - height + 1):
            for left in range(image.shape[1] - width + 1):
                expected = np.full_like(image, -1)
                expected[top : top + height, left : left + width] = image[
                    top : top + height, left : left + width
                ]
                places.append(expected.tolist())
        assert result.tolist() in places


def test_rectangles_without_any_nucleus_are_refused():
    corner = np.zeros((50, 50), np.int32)
    corner[0, 0] = 1
    with pytest.raises(
        UsageError, match=r"a share of 0\.01 of each image holds no nucleus; keep a larger share"
    ):
        crop([corner], 0.01, seed=1)


def test_the_rectangles_seed_decides_and_images_have_different_places():
    images = [np.ones((40, 40), np.int32)] * 6
    first, again, other = (crop(images, 0.25, seed) for seed in (3, 3, 4))
    assert all((one == same).all() for one, same in zip(first, again, strict=True))
    assert any((one != another).any() for one, another in zip(first, other, strict=True))
    assert len({tuple(np.argwhere(image > 0)[0]) for image in first}) > 3
    assert {(image > 0).sum() for image in first} == {400}


def test_background_in_the_rectangle_stays_background():
    image = np.zeros((10, 10), np.int32)
    image[4:6] = 1
    (result,) = crop([image], 0.5)
    assert set(np.unique(result)) == {-1, 0, 1}


def test_every_place_can_be_chosen():
    image = np.arange(1, 5, dtype=np.int32)[None]
    found = {tuple(nuclei_in(crop([image], 0.25, seed)[0])) for seed in range(60)}
    # half of the width, and the one row
    assert found == {(1, 2), (2, 3), (3, 4)}


def test_an_image_without_pixels_does_no_harm():
    images = [np.zeros((0, 3), np.int32), np.ones((2, 2), np.int32)]
    assert [image.shape for image in thin(images, 1)] == [(0, 3), (2, 2)]
    assert [image.shape for image in crop(images, 0.25)] == [(0, 3), (2, 2)]


@pytest.mark.parametrize("make", [thin, crop])
class TestMistakes:
    @pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan"), float("inf")])
    def test_a_share_out_of_range(self, make, keep):
        with pytest.raises(UsageError, match=f"must be above 0 and at most 1, got {keep}"):
            make(rows(), keep)

    def test_a_negative_seed(self, make):
        with pytest.raises(UsageError, match="the seed must not be negative, got -1"):
            make(rows(), 0.5, -1)

    @pytest.mark.parametrize("images", [[], [np.array([[0, -1]], np.int32)] * 2])
    def test_no_nucleus_at_all(self, make, images):
        with pytest.raises(NuxelError, match="there is no nucleus in any of the label images"):
            make(images, 0.5)


def test_a_crop_of_unsigned_labels_can_say_unknown():
    (cropped,) = crop([np.ones((4, 4), np.uint8)], keep=0.25)
    assert cropped.dtype == np.int32
    assert sorted(np.unique(cropped).tolist()) == [-1, 1]
