"""The opening on maps small enough to work out by hand."""

import numpy as np
import pytest

from nuxel.decode.opening import OpeningRule, decode_opening
from nuxel.errors import UsageError


def drawn(picture, values=None):
    """A map from a picture: ``#`` is 255, ``.`` is 0, other characters by ``values``."""
    values = {"#": 255, ".": 0, **(values or {})}
    return np.array([[[values[mark] for mark in row] for row in picture.split()]], np.uint8)


def opened(picture, degree):
    return decode_opening(drawn(picture), OpeningRule(degree=degree, min_area=1)).labels.tolist()


def digits(picture):
    return [[int(mark) for mark in row.replace(".", "0")] for row in picture.split()]


def two_discs(radius, gap, bridge):
    """Two discs whose outlines are ``gap`` pixels apart, and a bridge as wide as ``bridge`` between their centres."""
    side = 2 * radius + 1
    y, x = np.mgrid[: side + 4, : 2 * side + gap + 4] - radius - 2
    maps = (y**2 + x**2 <= radius**2) | (y**2 + (x - side - gap) ** 2 <= radius**2)
    maps |= (y >= 0) & (y < bridge) & (x >= 0) & (x <= side + gap)
    return maps[None] * np.uint8(255)


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 6)])
def test_empty_maps_hold_no_nucleus(shape, degree):
    found = decode_opening(np.zeros((1, *shape), np.uint8), OpeningRule(degree=degree))
    assert len(found) == 0
    assert found.labels.shape == shape
    assert found.labels.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert not found.labels.any()


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 6)])
def test_full_maps_are_one_nucleus(shape, degree):
    found = decode_opening(np.full((1, *shape), 255, np.uint8), OpeningRule(degree=degree, min_area=1))
    assert found.labels.tolist() == np.ones(shape, int).tolist()
    assert found.scores.tolist() == [1.0]


# ---- eroding and dilating -------------------------------------------------------------------------------

OCTAGONS = {
    1: "..... ..#.. .###. ..#.. .....",
    2: "....... ..###.. .#####. .#####. .#####. ..###.. .......",
    3: "......... ...###... ..#####.. .#######. .#######. .#######. ..#####.. ...###... .........",
    4: (
        "........... ...#####... ..#######.. .#########. .#########. .#########. .#########. .#########. "
        "..#######.. ...#####... ..........."
    ),
}


@pytest.mark.parametrize("degree", OCTAGONS)
def test_an_octagon_of_the_degree_is_just_large_enough(degree):
    octagon = OCTAGONS[degree]
    expected = digits(octagon.replace("#", "1"))
    assert opened(octagon, degree) == expected
    maps = drawn(octagon)
    for pixel in zip(*np.nonzero(maps), strict=True):
        maps[pixel] = 0
        assert len(decode_opening(maps, OpeningRule(degree=degree, min_area=1))) == 0
        maps[pixel] = 255


@pytest.mark.parametrize("degree", OCTAGONS)
def test_a_square_is_cut_at_its_corners(degree):
    side = 2 * degree + 5
    square = np.pad(np.full((side, side), 255, np.uint8), 2)[None]
    found = decode_opening(square, OpeningRule(degree=degree)).labels
    lost = (square[0] > 0) & (found == 0)
    corner = {1: ["#"], 2: ["#"], 3: ["##", "#."], 4: ["##", "#."]}[degree]
    corner = np.array([[mark == "#" for mark in row] for row in corner])
    size = len(corner)
    assert lost[2 : 2 + size, 2 : 2 + size].tolist() == corner.tolist()
    assert lost.sum() == 4 * corner.sum()
    assert (lost == lost.T).all()
    assert (lost == lost[::-1]).all()


def test_degree_zero_splits_and_drops_nothing():
    assert opened("##.#. .#### #.... .#.##", 0) == digits("11.1. .1111 2.... .3.44")


def test_what_is_eroded_away_is_lost():
    assert opened("....... .#####. .#####. ....... ..###.. ..###.. ..###..", 1) == digits(
        "....... ....... ....... ....... ...1... ..111.. ..111.."
    )


def test_the_edge_of_the_image_erodes_nothing():
    assert opened("###.. ##... #.... .....", 1) == digits("111.. 11... 1.... .....")
    assert opened("..... ...## ...##", 1) == digits("..... ....1 ...11")
    assert opened("##### .....", 1) == digits("..... .....")
    assert opened("##### #####", 7) == digits("11111 11111")


@pytest.mark.parametrize(("bridge", "degree"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)])
def test_a_bridge_up_to_twice_as_wide_as_the_degree_is_cut(bridge, degree):
    # So long that neither disc grows over all of it.
    maps = two_discs(9, 12, bridge)
    assert len(decode_opening(maps, OpeningRule(degree=0))) == 1
    assert len(decode_opening(maps, OpeningRule(degree=degree - 1))) == 1
    labels = decode_opening(maps, OpeningRule(degree=degree)).labels
    middle = labels.shape[1] // 2
    assert set(labels[:, :middle].ravel()) == {0, 1}
    assert set(labels[:, middle:].ravel()) == {0, 2}
    # Where the bridge leaves a disc a stub may stay, or a corner be filled; the discs themselves are all there.
    truth = two_discs(9, 12, 0)[0] > 0
    assert (labels[truth] > 0).mean() > 0.97
    assert not labels[~truth & (maps[0] == 0)].any()


def test_a_hole_grows_while_eroding_and_shrinks_back():
    ring = "####### ####### ####### ###.### ####### ####### #######"
    assert opened(ring, 1) == digits(ring.replace("#", "1"))
    assert opened(ring, 2) == digits(ring.replace("#", "1"))


# ---- meeting --------------------------------------------------------------------------------------------


def test_a_pixel_as_near_to_two_nuclei_goes_to_the_lower_number():
    assert opened(".#.#. ##### .#.#.", 1) == digits(".1.2. 11122 .1.2.")
    assert opened(".#. ### .#. ### .#.", 1) == digits(".1. 111 .1. 222 .2.")


def test_the_lower_number_may_lie_on_either_side():
    # The right one begins a row earlier, and is the first.
    assert opened("...#. .#### ####. .#...", 1) == digits("...1. .2111 2221. .2...")


def test_a_pixel_goes_to_the_nearer_nucleus():
    # Two octagons of degree 2 whose centres are 4 pixels apart: column 5 is two steps from each.
    assert opened(
        "........... ..###.###.. .#########. .#########. .#########. ..###.###.. ...........", 2
    ) == digits("........... ..111.222.. .111112222. .111112222. .111112222. ..111.222.. ...........")


def test_along_the_row_comes_before_along_the_column():
    # Centres at (3, 6) and (5, 3). (4, 4) and (4, 5) are a cross and a square away from both.
    assert opened(
        ".......... .....###.. ....#####. ..#######. .########. .#######.. .#####.... ..###..... ..........",
        2,
    ) == digits(
        ".......... .....111.. ....11111. ..2211111. .22221111. .2222211.. .22222.... ..222..... .........."
    )


def test_the_opposite_edge_of_the_image_is_no_neighbour():
    picture = "....## .#..## ###.## .#..##"
    expected = np.array(digits("....11 .2..11 222.11 .2..11"))
    assert opened(picture, 1) == expected.tolist()
    maps = drawn(picture).swapaxes(1, 2)[:, ::-1]
    found = decode_opening(maps, OpeningRule(degree=1, min_area=1)).labels
    assert (found == expected.T[::-1]).all()


def test_cores_that_meet_at_a_corner_are_one_nucleus():
    assert opened("..#.. .###. ###.. .#...", 1) == digits("..1.. .111. 111.. .1...")
    slanting = ".#...... ###..... .###.... ..###... ...###.. ....###. .....### ......#."
    assert opened(slanting, 1) == digits(slanting.replace("#", "1"))


def test_without_eroding_what_meets_at_a_corner_is_two_nuclei():
    assert opened("##.. ##.. ..## ..##", 0) == digits("11.. 11.. ..22 ..22")


# ---- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "least"), [(0.5, 128), (0.2, 51), (0.6, 153), (1.0, 255), (0.001, 1)])
def test_a_pixel_belongs_to_a_nucleus_from_the_threshold_on(threshold, least):
    rule = OpeningRule(threshold=threshold, degree=0, min_area=1)
    for value, inside in ((least, 1), (least - 1, 0)):
        maps = np.array([[[0, value, 0]]], np.uint8)
        assert decode_opening(maps, rule).labels.tolist() == [[0, inside, 0]]


def test_the_score_is_the_mean_probability_of_what_is_left():
    maps = drawn(".#.... ababb# .#....", {"a": 204, "b": 153})
    found = decode_opening(maps, OpeningRule(degree=1, min_area=1))
    assert found.labels.tolist() == digits(".1.... 111... .1....")
    assert found.scores.tolist() == pytest.approx([(255 + 204 + 153 + 204 + 255) / 5 / 255])


def test_nuclei_below_the_least_area_are_dropped():
    maps = drawn("#.##.###")
    for least, expected in (
        (0, "1.22.333"),
        (1, "1.22.333"),
        (2, "..11.222"),
        (3, ".....111"),
        (4, "........"),
    ):
        found = decode_opening(maps, OpeningRule(degree=0, min_area=least))
        assert found.labels.tolist() == digits(expected)


def test_nuclei_below_the_least_score_are_dropped():
    maps = drawn("ab.ba.bb", {"a": 255, "b": 153})
    kept = decode_opening(maps, OpeningRule(degree=0, min_area=1, min_score=0.7))
    assert kept.labels.tolist() == digits("11.22...")
    assert kept.scores.tolist() == pytest.approx([0.8, 0.8])


def test_nuclei_are_numbered_in_the_order_of_their_first_pixel():
    # The left core is first, but the right nucleus begins a row earlier once both have grown.
    assert opened("....#. .#.### ###.#. .#....", 1) == digits("....1. .2.111 222.1. .2....")


def test_more_nuclei_than_sixteen_bits_can_count():
    maps = np.zeros((1, 520, 521), np.uint8)
    maps[0, ::2, ::2] = 200
    found = decode_opening(maps, OpeningRule(degree=0, min_area=1))
    assert len(found) == 260 * 261 > 65_535
    assert found.labels[::2, ::2].ravel().tolist() == list(range(1, len(found) + 1))


def test_the_maps_are_left_alone_and_may_be_a_view():
    maps = drawn(".#.#. ##### .#.#. .....")
    before = maps.copy()
    flipped = decode_opening(maps[:, ::-1], OpeningRule(degree=1, min_area=1)).labels
    assert (maps == before).all()
    copied = decode_opening(maps[:, ::-1].copy(), OpeningRule(degree=1, min_area=1)).labels
    assert (flipped == copied).all()


# ---- the rule -------------------------------------------------------------------------------------------


def test_the_defaults():
    assert OpeningRule() == OpeningRule(threshold=0.5, degree=2, min_area=8, min_score=0.0)
    assert OpeningRule().maps == ("nucleus",)


def test_another_threshold():
    assert OpeningRule(degree=1).with_threshold(0.3) == OpeningRule(threshold=0.3, degree=1)
    assert OpeningRule(min_score=0.8).with_threshold(0.25) == OpeningRule(threshold=0.25, min_score=0.4)
    assert OpeningRule(min_score=0.8).with_threshold(0.75) == OpeningRule(threshold=0.75, min_score=0.8)
    with pytest.raises(UsageError, match="threshold is a probability"):
        OpeningRule().with_threshold(2)


@pytest.mark.parametrize(("area", "degree", "least"), [(4, 6, 40), (0.25, 2, 2), (1, 3, 10), (16, 12, 160)])
def test_enlarged(area, degree, least):
    rule = OpeningRule(0.4, 3, 10, 0.2)
    assert rule.enlarged(area) == OpeningRule(0.4, degree, least, 0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 1.5}, "threshold is a probability and must lie between 0 and 1, got 1.5"),
        ({"min_score": float("nan")}, "min_score is a probability"),
        ({"min_score": -0.1}, "min_score is a probability"),
        ({"min_area": -1}, "min_area must not be negative, got -1"),
        ({"degree": -1}, "degree must not be negative, got -1"),
    ],
)
def test_rules_out_of_range(given, message):
    with pytest.raises(UsageError, match=message):
        OpeningRule(**given)
