"""Plans of tiles that can be checked by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuxel.errors import UsageError
from nuxel.tiling.grid import Tile, fit_tile, plan_tiles, plan_windows


def plan(*arguments):
    return list(plan_tiles(*arguments))


@pytest.mark.parametrize("shape", [(1, 1), (1, 16), (5, 9), (16, 16)])
def test_a_small_image_is_one_tile_rounded_up_to_the_stride(shape):
    assert plan(shape, 64, 32, 16) == [Tile((0, 0, 16, 16), (0, 0, 16, 16))]


def test_an_image_of_exactly_the_tile_size_is_one_tile():
    assert plan((64, 64), 64, 32, 16) == [Tile((0, 0, 64, 64), (0, 0, 64, 64))]


def test_one_pixel_more_makes_two_even_tiles():
    # 65 rows are rounded up to 80, and halves of 40 to 48.
    assert plan((65, 10), 64, 0, 16) == [
        Tile((0, 0, 48, 16), (0, 0, 48, 16)),
        Tile((48, 0, 80, 16), (48, 0, 80, 16)),
    ]


def test_tiles_come_row_by_row():
    assert [tile.owned for tile in plan((8, 8), 4, 0, 4)] == [
        (0, 0, 4, 4),
        (0, 4, 4, 8),
        (4, 0, 8, 4),
        (4, 4, 8, 8),
    ]


def test_windows_reach_the_halo_further_up_to_the_edge():
    tiles = plan((30, 50), 10, 10, 10)
    assert tiles[0] == Tile((0, 0, 10, 10), (0, 0, 20, 20))
    assert tiles[6] == Tile((10, 10, 20, 20), (0, 0, 30, 30))
    assert tiles[7] == Tile((10, 20, 20, 30), (0, 10, 30, 40))
    assert tiles[14] == Tile((20, 40, 30, 50), (10, 30, 30, 50))


@pytest.mark.parametrize(("halo", "reached"), [(0, 0), (1, 8), (7, 8), (8, 8), (9, 16)])
def test_the_halo_is_rounded_up_to_the_stride(halo, reached):
    middle = plan((120, 120), 24, halo, 8)[12]
    assert middle.owned == (48, 48, 72, 72)
    assert middle.window == (48 - reached, 48 - reached, 72 + reached, 72 + reached)


def test_the_tile_size_is_rounded_down_to_the_stride():
    assert plan((64, 16), 47, 0, 16) == plan((64, 16), 32, 0, 16)


def test_height_and_width_are_planned_on_their_own():
    assert [tile.owned for tile in plan((16, 96), 32, 0, 16)] == [
        (0, 0, 16, 32),
        (0, 32, 16, 64),
        (0, 64, 16, 96),
    ]


def test_the_stride_is_the_least_tile_size():
    assert len(plan((32, 32), 16, 0, 16)) == 4
    with pytest.raises(UsageError) as error:
        plan((32, 32), 15, 0, 16)
    assert str(error.value) == "the tile size must be at least 16 pixels, got 15"


def test_a_small_image_fits_one_tile():
    assert fit_tile((500, 300), 64, 16, 512 * 512) == (512, 304)


def test_tiles_that_fit_need_only_one_halo_at_the_edge():
    # two tiles of 2048 rows see 2256 each, three of 1376 columns 1584 to 1792
    assert fit_tile((4096, 4096), 201, 16, 2048 * 2048) == (2048, 1376)


def test_a_tile_that_cannot_hold_its_halo_is_refused():
    with pytest.raises(ValueError, match="do not hold a tile of 16 pixels with its halo of 64"):
        fit_tile((1000, 1000), 64, 16, 143 * 144)
    assert fit_tile((1000, 1000), 64, 16, 144 * 144)[0] >= 16


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.integers(0, 100),
    st.sampled_from([8, 16]),
    st.integers(10_000, 400_000),
)
def test_no_window_is_larger_than_asked_for(shape, halo, stride, more):
    side = stride + 2 * -(-halo // stride) * stride
    largest = side * side + more
    for tile in plan_tiles(shape, fit_tile(shape, halo, stride, largest), halo, stride):
        y0, x0, y1, x1 = tile.window
        assert (y1 - y0) * (x1 - x0) <= largest


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 64), (200, 333), (1000, 70)])
@pytest.mark.parametrize(("side", "overlap"), [(2, None), (16, None), (64, None), (64, 16), (16, 1), (16, 0)])
def test_fixed_windows_own_every_pixel_once_and_overlap(shape, side, overlap):
    owners = np.zeros(shape, int)
    inside = (side // 2 if overlap is None else overlap) // 2
    for tile in plan_windows(shape, side, overlap):
        (y0, x0, y1, x1), (top, left, bottom, right) = tile.owned, tile.window
        assert (bottom - top, right - left) == (side, side)
        owners[y0:y1, x0:x1] += 1
        for first, last, start, stop, length in (
            (y0, y1, top, bottom, shape[0]),
            (x0, x1, left, right, shape[1]),
        ):
            assert start >= 0
            assert start <= first < last <= stop
            assert stop <= max(length, side)
            # what is owned lies at least half the overlap inside, but for the edges of the image
            assert first == 0 or first - start >= inside
            assert last == length or stop - last >= inside
    assert (owners == 1).all()
