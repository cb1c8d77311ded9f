"""Stitching tiles gives what one look at the whole image gives."""

import numpy as np
import pytest
from scipy import ndimage

from nuxel.decode.clumps import ClumpRule, decode_clumps
from nuxel.tiling.grid import Tile, crop, plan_tiles
from nuxel.tiling.stitch import stitch

RNG = np.random.default_rng(0)
REACH = 6


def padded(image, stride):
    """The image, mirrored up to multiples of the stride."""
    return np.pad(image, [(0, -side % stride) for side in image.shape], mode="symmetric")


def local_sum(window):
    """What depends on every pixel within ``REACH``, and on nothing beyond; outside of what it sees is zero."""
    square = np.ones((2 * REACH + 1,) * 2, np.int64)
    sums = ndimage.convolve(window.astype(np.int64), square, mode="constant")
    return np.stack([sums, sums // 256]).astype(np.uint8)


def stitched(image, tile_size, halo, stride):
    seen = padded(image, stride)

    def answer(tile):
        y0, x0, y1, x1 = tile.window
        assert (y1 - y0) % stride == (x1 - x0) % stride == 0
        return crop(local_sum(seen[y0:y1, x0:x1]), tile.inner)

    return stitch(image.shape, 2, plan_tiles(image.shape, tile_size, halo, stride), answer)


def at_once(image, stride):
    return local_sum(padded(image, stride))[:, : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (37, 53), (64, 40)])
@pytest.mark.parametrize("tile_size", [4, 7, 16, 30, 100])
@pytest.mark.parametrize("stride", [1, 4])
def test_with_enough_halo_the_tiles_do_not_matter(shape, tile_size, stride):
    image = RNG.integers(1, 256, shape).astype(np.uint8)
    whole = stitched(image, tile_size, REACH, stride)
    assert whole.shape == (2, *shape)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, at_once(image, stride))


@pytest.mark.parametrize(("halo", "stride"), [(REACH - 1, 1), (4, 4), (0, 4)])
def test_with_too_little_halo_they_do(halo, stride):
    image = RNG.integers(1, 256, (64, 40)).astype(np.uint8)
    assert (stitched(image, 16, halo, stride) != at_once(image, stride)).any()


def test_a_nucleus_larger_than_tile_and_halo_is_found_once_and_whole():
    rows, columns = np.indices((150, 170))
    image = ((rows - 70) ** 2 + (columns - 80) ** 2 < 60**2) * 255.0

    def maps(window):
        blurred = ndimage.uniform_filter(window, 2 * REACH + 1, mode="constant")
        return np.stack([blurred, blurred, 0 * blurred]).astype(np.uint8)

    seen = padded(image, 8)
    tiles = plan_tiles(image.shape, 24, REACH, 8)

    def answer(tile):
        y0, x0, y1, x1 = tile.window
        return crop(maps(seen[y0:y1, x0:x1]), tile.inner)

    by_tiles = stitch(image.shape, 3, tiles, answer)
    found = decode_clumps(by_tiles, ClumpRule())
    expected = decode_clumps(maps(seen)[:, :150, :170], ClumpRule())
    assert len(found) == 1
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_every_tile_is_asked_for_once():
    asked = []
    tiles = list(plan_tiles((20, 20), 8, 4, 4))

    def answer(tile):
        asked.append(tile)
        y0, x0, y1, x1 = tile.owned
        return np.zeros((1, y1 - y0, x1 - x0), np.uint8)

    stitch((20, 20), 1, tiles, answer)
    assert asked == tiles


def test_only_what_a_tile_owns_is_taken():
    tile = Tile((2, 3, 5, 6), (1, 1, 7, 8))
    window = np.arange(42, dtype=np.uint8).reshape(1, 6, 7)
    whole = stitch((8, 8), 1, [tile], lambda tile: crop(window, tile.inner))
    np.testing.assert_array_equal(whole[:, 2:5, 3:6], window[:, 1:4, 2:5])
    assert np.count_nonzero(whole) == 9


def test_an_answer_for_the_whole_window_is_refused():
    tile = Tile((2, 3, 5, 6), (1, 1, 7, 8))
    with pytest.raises(ValueError, match=r"owns \(2, 3, 5, 6\) got maps of shape \(1, 6, 7\)"):
        stitch((8, 8), 1, [tile], lambda _: np.zeros((1, 6, 7), np.uint8))
