"""The watershed decoder on maps small enough to work out by hand."""

import numpy as np
import pytest

from nuxel.decode.clumps import ClumpRule, decode_clumps
from nuxel.errors import UsageError

ANY_SIZE = ClumpRule(min_marker_area=1, min_area=1)


def drawn(*pictures, values=None):
    """Maps from pictures of equal size: ``#`` is 255, ``.`` is 0, other characters by ``values``."""
    values = {"#": 255, ".": 0, **(values or {})}
    maps = [[[values[mark] for mark in row] for row in picture.split()] for picture in pictures]
    maps += [np.zeros_like(maps[0]).tolist()] * (3 - len(maps))
    return np.array(maps, np.uint8)


def labels_of(maps, rule=ANY_SIZE):
    return decode_clumps(maps, rule).labels.tolist()


def digits(picture):
    return [[int(mark) for mark in row] for row in picture.split()]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 6)])
def test_empty_maps_hold_no_nucleus(shape):
    found = decode_clumps(np.zeros((3, *shape), np.uint8), ClumpRule())
    assert len(found) == 0
    assert found.labels.shape == shape
    assert found.labels.dtype == np.int32
    assert found.scores.dtype == np.float32
    assert not found.labels.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 6)])
def test_everything_one_nucleus(shape):
    maps = np.zeros((3, *shape), np.uint8)
    maps[0] = 255
    found = decode_clumps(maps, ANY_SIZE)
    assert found.labels.tolist() == np.ones(shape, int).tolist()
    assert found.scores.tolist() == [1.0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (6, 5)])
def test_every_pixel_a_marker_is_still_one_nucleus(shape):
    maps = np.zeros((3, *shape), np.uint8)
    maps[:2] = 255
    assert labels_of(maps) == np.ones(shape, int).tolist()


def test_a_chessboard_is_one_nucleus_a_square():
    board = (np.indices((6, 7)).sum(0) % 2 == 0) * np.uint8(255)
    found = decode_clumps(np.stack([board, board, 0 * board]), ANY_SIZE)
    assert len(found) == 21
    assert found.labels[found.labels > 0].tolist() == list(range(1, 22))


def test_clumps_are_four_connected():
    assert labels_of(drawn("##.. ##.. ..## ..##")) == digits("1100 1100 0022 0022")


def test_a_clump_without_marker_is_one_nucleus():
    assert labels_of(drawn("##.# #..# ####")) == digits("1101 1001 1111")


def test_a_clump_with_one_marker_is_one_nucleus():
    assert labels_of(drawn("######.##", ".#.......")) == digits("111111022")


def test_two_markers_split_a_clump_along_the_touching_border():
    # The border bends, so that neither halves nor straight lines would do.
    maps = drawn(
        "######## ######## ########",
        "##...... ##...### ......##",
        "...#.... ..#..... ...#....",
    )
    found = labels_of(maps)
    # Each side of the border is settled; its own pixels may go either way.
    assert [row[0] for row in found] == [1, 1, 1]
    assert [row[-1] for row in found] == [2, 2, 2]
    assert found[0][:3] == [1, 1, 1]
    assert found[0][4:] == [2, 2, 2, 2]
    assert found[1][:2] == [1, 1]
    assert found[1][3:] == [2, 2, 2, 2, 2]


def test_the_seam_lies_where_the_border_is_strongest():
    nucleus, shrunk = [[255] * 9], [[255] + [0] * 7 + [255]]
    for seam in range(2, 7):
        touching = [[255 if x == seam else 0 for x in range(9)]]
        found = labels_of(np.array([nucleus, shrunk, touching], np.uint8))[0]
        assert found[:seam] == [1] * seam
        assert found[seam + 1 :] == [2] * (8 - seam)


def test_without_touching_border_the_weakest_nucleus_probability_is_the_seam():
    maps = np.array([[[255, 240, 130, 240, 250, 255]], [[255, 0, 0, 0, 0, 255]], [[0] * 6]], np.uint8)
    found = labels_of(maps)[0]
    assert found[:2] == [1, 1]
    assert found[3:] == [2, 2, 2]


def test_without_either_the_weakest_shrunk_probability_is_the_seam():
    maps = np.array([[[255] * 6], [[255, 90, 10, 90, 100, 255]], [[0] * 6]], np.uint8)
    found = labels_of(maps)[0]
    assert found[:2] == [1, 1]
    assert found[3:] == [2, 2, 2]


def test_a_border_across_a_marker_cuts_it_in_two():
    maps = drawn("#######", "#######", "...#...")
    assert labels_of(maps)[0][:3] + labels_of(maps)[0][4:] == [1, 1, 1, 2, 2, 2]


def test_a_border_weaker_than_the_marker_threshold_does_not():
    maps = drawn("#######", "#######", "...a...", values={"a": 127})
    assert labels_of(maps) == digits("1111111")


def test_markers_outside_every_clump_do_nothing():
    assert labels_of(drawn("##.... ......", "##..## ....##")) == digits("110000 000000")


def test_markers_do_not_meet_outside_of_their_clump():
    assert len(decode_clumps(drawn("##### #...#", "..... #####"), ANY_SIZE)) == 2


def test_what_a_marker_has_outside_of_its_clump_does_not_count_for_its_area():
    maps = drawn("##### .....", "#...# #....")
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=1, min_area=1))) == 2
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=2, min_area=1))) == 1


def test_the_flood_does_not_leave_its_clump():
    # The middle lies behind the lower wall on the right; the way around the higher one leads through background.
    maps = drawn(
        "#w###w## .....w##",
        "#......# ........",
        ".h...l.. .....l..",
        values={"w": 128, "h": 255, "l": 200},
    )
    assert labels_of(maps)[0][2:] == [2] * 6


def test_a_neighbouring_clump_is_not_flooded():
    # The box of the split clump holds part of another clump, which keeps its own number and shape.
    maps = drawn(
        "####### #.....# #.###.# #.....# #######",
        "#.....# ....... ....... ....... .......",
        "...#... ....... ....... ....... ...#...",
    )
    found = np.array(labels_of(maps))
    assert found[2, 2:5].tolist() == [3, 3, 3]
    assert (found == 3).sum() == 3
    assert found[1:4, 0].tolist() == [1, 1, 1]
    assert found[1:4, 6].tolist() == [2, 2, 2]


def test_two_clumps_are_split_independently():
    single = drawn("#####", "#...#", "..#..")
    maps = np.concatenate([single, np.zeros((3, 1, 5), np.uint8), single], axis=1)
    found = labels_of(maps)
    assert found[0][:2] + found[0][3:] == [1, 1, 2, 2]
    assert found[2][:2] + found[2][3:] == [3, 3, 4, 4]


# ---- holes ----------------------------------------------------------------------------------------------


def test_a_hole_inside_one_nucleus_is_filled():
    assert labels_of(drawn("##### #.#.# #.### #####")) == digits("11111 11111 11111 11111")


def test_a_hole_is_filled_in_a_nucleus_that_covers_the_whole_edge():
    assert labels_of(drawn("### #.# ###")) == digits("111 111 111")


def test_a_hole_is_filled_when_background_lies_outside_too():
    assert labels_of(drawn("..... .###. .#.#. .###. .....")) == digits("00000 01110 01110 01110 00000")


@pytest.mark.parametrize("picture", ["#.# ### ###", "### #.. ###", "### ### #.#", "### ..# ###"])
def test_a_gap_open_to_the_edge_is_not_filled(picture):
    assert labels_of(drawn(picture)) == digits(picture.replace("#", "1").replace(".", "0"))


def test_a_gap_between_two_nuclei_is_not_filled():
    # One clump around a hole, split in two: the hole borders on both.
    maps = drawn(
        "####### #.....# #######",
        "....... #.....# .......",
        "...#... ....... ...#...",
    )
    found = np.array(labels_of(maps))
    assert set(found[0]) == {1, 2}
    assert not found[1, 1:6].any()


def test_a_gap_around_another_nucleus_is_not_filled():
    picture = "##### #...# #.#.# #...# #####"
    assert labels_of(drawn(picture)) == digits("11111 10001 10201 10001 11111")


def test_each_hole_goes_to_its_own_nucleus():
    assert labels_of(drawn("###.### #.#.#.# ###.###")) == digits("1110222 1110222 1110222")


def test_a_filled_hole_counts_for_area_and_score():
    maps = drawn("### #.# ###")
    assert decode_clumps(maps, ClumpRule(min_area=9)).scores[0] == pytest.approx(8 / 9)
    assert len(decode_clumps(maps, ClumpRule(min_area=9, min_score=0.9))) == 0


# ---- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "least"), [(0.5, 128), (0.2, 51), (0.6, 153), (1.0, 255), (0.001, 1)])
def test_a_pixel_belongs_to_a_nucleus_from_the_threshold_on(threshold, least):
    rule = ClumpRule(threshold=threshold, min_area=1)
    for value, inside in ((least, 1), (least - 1, 0)):
        maps = np.zeros((3, 1, 3), np.uint8)
        maps[0, 0, 1] = value
        assert labels_of(maps, rule) == [[0, inside, 0]]


@pytest.mark.parametrize(("threshold", "most"), [(0.5, 127), (0.2, 51), (0.0, 0)])
def test_a_marker_lies_above_the_marker_threshold(threshold, most):
    rule = ClumpRule(marker_threshold=threshold, min_marker_area=1, min_area=1)
    for value, count in ((most, 1), (most + 1, 2)):
        maps = np.array([[[255] * 3], [[value, 0, value]], [[0] * 3]], np.uint8)
        assert len(decode_clumps(maps, rule)) == count


def test_the_touching_border_is_taken_off_the_marker():
    for border, count in ((0, 2), (100, 2), (127, 2), (128, 1), (255, 1)):
        maps = np.array([[[255] * 3], [[255, 0, 255]], [[border, 0, 0]]], np.uint8)
        assert len(decode_clumps(maps, ANY_SIZE)) == count


def test_a_border_stronger_than_the_marker_does_not_wrap_around():
    maps = np.array([[[255] * 3], [[10, 0, 255]], [[20, 0, 0]]], np.uint8)
    assert len(decode_clumps(maps, ANY_SIZE)) == 1


def test_markers_below_the_least_area_do_not_split():
    maps = drawn("######## ########", "##...### ........")
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=2, min_area=1))) == 2
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=3, min_area=1))) == 1
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=4, min_area=1))) == 1


def test_marker_parts_that_meet_at_a_corner_are_two_markers():
    maps = drawn("#### ####", "##.. ..##")
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=2, min_area=1))) == 2
    assert len(decode_clumps(maps, ClumpRule(min_marker_area=3, min_area=1))) == 1


def test_nuclei_below_the_least_area_are_dropped():
    maps = drawn("#.##.###")
    assert labels_of(maps, ClumpRule(min_area=1)) == digits("10220333")
    assert labels_of(maps, ClumpRule(min_area=2)) == digits("00110222")
    assert labels_of(maps, ClumpRule(min_area=3)) == digits("00000111")
    assert labels_of(maps, ClumpRule(min_area=4)) == digits("00000000")
    assert labels_of(maps, ClumpRule(min_area=0)) == digits("10220333")


def test_nuclei_below_the_least_score_are_dropped():
    maps = drawn("ab.ba.bb", values={"a": 255, "b": 153})
    rule = ClumpRule(min_area=1)
    assert decode_clumps(maps, rule).scores.tolist() == pytest.approx([0.8, 0.8, 0.6])
    kept = decode_clumps(maps, ClumpRule(min_area=1, min_score=0.7))
    assert kept.labels.tolist() == digits("11022000")
    assert kept.scores.tolist() == pytest.approx([0.8, 0.8])
    assert len(decode_clumps(maps, ClumpRule(min_area=1, min_score=0.6))) == 3
    assert len(decode_clumps(maps, ClumpRule(min_area=1, min_score=0.81))) == 0


def test_the_defaults():
    assert ClumpRule() == ClumpRule(0.5, 0.5, 2, 8, 0.0)


# ---- numbering ------------------------------------------------------------------------------------------


def test_nuclei_are_numbered_in_the_order_of_their_first_pixel():
    assert labels_of(drawn("..#.# #.#.# #...#")) == digits("00102 30102 30002")


def test_split_nuclei_are_numbered_among_the_others():
    maps = drawn("#.......# #.#####.#", "......... ..#...#..", "......... ....#....")
    found = labels_of(maps)
    assert found[0] == [1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found[1][:4] + found[1][5:] == [1, 0, 3, 3, 4, 4, 0, 2]


def test_more_nuclei_than_sixteen_bits_can_count():
    maps = np.zeros((3, 520, 521), np.uint8)
    maps[0, ::2, ::2] = 200
    found = decode_clumps(maps, ANY_SIZE)
    assert len(found) == 260 * 261 > 65_535
    assert found.labels[::2, ::2].ravel().tolist() == list(range(1, len(found) + 1))
    assert found.scores == pytest.approx(200 / 255)


def test_the_maps_are_left_alone():
    maps = drawn("#####", "#...#", "..#..")
    before = maps.copy()
    decode_clumps(maps, ANY_SIZE)
    assert (maps == before).all()


def test_maps_may_be_a_view():
    maps = drawn("##### ##..#", "#...# .....", "..#.. .....")
    assert labels_of(maps[:, :, ::-1]) == labels_of(np.ascontiguousarray(maps[:, :, ::-1]))


def test_without_splitting_every_clump_is_one_nucleus():
    nucleus = drawn("######.##")[:1]
    rule = ClumpRule(split="none", min_area=1)
    assert rule.maps == ("nucleus",)
    assert decode_clumps(nucleus, rule).labels.tolist() == digits("111111022")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 1.5}, "threshold is a probability"),
        ({"marker_threshold": -0.1}, "marker_threshold is a probability"),
        ({"min_score": float("nan")}, "min_score is a probability"),
        ({"min_area": -1}, "min_area must not be negative"),
        ({"min_marker_area": -1}, "min_marker_area must not be negative"),
        ({"split": "cut"}, "split must be one of watershed, random_walker, none, got 'cut'"),
    ],
)
def test_rules_out_of_range(given, message):
    with pytest.raises(UsageError, match=message):
        ClumpRule(**given)


def test_a_lower_threshold_lowers_the_least_score_in_proportion():
    """What grows has a lower mean, and would be dropped whole; a higher threshold changes nothing else."""
    rule = ClumpRule(threshold=0.5, min_score=0.8, min_area=3)
    assert rule.with_threshold(0.25) == ClumpRule(threshold=0.25, min_score=0.4, min_area=3)
    assert rule.with_threshold(0.9) == ClumpRule(threshold=0.9, min_score=0.8, min_area=3)
    assert ClumpRule(threshold=0, min_score=0.8).with_threshold(0.5).min_score == 0.8
    rim = drawn(".......\n.+++++.\n.+###+.\n.+++++.\n.......", values={"+": 100})
    strict = ClumpRule(threshold=0.55, min_score=0.8, min_marker_area=1, min_area=1)
    assert [(decode_clumps(rim, strict.with_threshold(t)).labels > 0).sum() for t in (0.55, 0.3)] == [3, 15]


def test_the_rule_for_enlarged_maps():
    rule = ClumpRule(0.4, 0.3, 5, 10, 0.2, "none")
    assert rule.enlarged(4.0) == ClumpRule(0.4, 0.3, 20, 40, 0.2, "none")
    assert rule.enlarged(0.25) == ClumpRule(0.4, 0.3, 1, 2, 0.2, "none")
