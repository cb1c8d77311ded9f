"""Plans of tiles that can be checked by eye."""

import pytest

from nuxel.errors import UsageError
from nuxel.tiling.grid import Tile, plan_tiles


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
