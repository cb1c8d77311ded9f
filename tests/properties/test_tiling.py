"""What holds for every plan of tiles."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nuxel.tiling.grid import plan_tiles


@st.composite
def plans(draw):
    """Shape, tile size, halo, stride."""
    stride = draw(st.integers(1, 16))
    shape = draw(st.tuples(st.integers(1, 120), st.integers(1, 120)))
    return shape, draw(st.integers(stride, 90)), draw(st.integers(0, 40)), stride


def round_up(length, stride):
    return length + -length % stride


@given(plans())
@settings(max_examples=200)
def test_every_pixel_of_the_rounded_image_is_owned_once(plan):
    (height, width), _, _, stride = plan
    owners = np.zeros((round_up(height, stride) + 1, round_up(width, stride) + 1), int)
    for tile in plan_tiles(*plan):
        y0, x0, y1, x1 = tile.owned
        owners[y0:y1, x0:x1] += 1
    assert (owners[:-1, :-1] == 1).all()
    assert not owners[-1].any()
    assert not owners[:, -1].any()


@given(plans())
@settings(max_examples=200)
def test_boxes_lie_on_the_stride_and_within_the_tile_size(plan):
    (height, width), tile_size, halo, stride = plan
    for tile in plan_tiles(*plan):
        assert all(side % stride == 0 for side in (*tile.owned, *tile.window))
        y0, x0, y1, x1 = tile.owned
        assert 0 < y1 - y0 <= tile_size
        assert 0 < x1 - x0 <= tile_size
        assert y0 < height
        assert x0 < width
        reach = round_up(halo, stride)
        assert tile.window[:2] == (max(0, y0 - reach), max(0, x0 - reach))
        assert tile.window[2] == min(round_up(height, stride), y1 + reach)
        assert tile.window[3] == min(round_up(width, stride), x1 + reach)


@given(plans())
@settings(max_examples=100)
def test_there_are_no_more_tiles_than_the_tile_size_calls_for(plan):
    (height, width), tile_size, _, stride = plan
    side = tile_size // stride * stride
    assert len(list(plan_tiles(*plan))) <= -(-height // side) * -(-width // side)


@given(st.integers(1, 300), st.integers(8, 90))
@settings(max_examples=100)
def test_tiles_are_even(width, tile_size):
    widths = [tile.owned[3] - tile.owned[1] for tile in plan_tiles((8, width), tile_size, 0, 8)]
    assert len(set(widths[:-1])) <= 1
    assert widths[-1] <= widths[0]
