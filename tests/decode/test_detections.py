"""Pasting, suppression and overlaps on detections small enough to work out by hand."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from nuxel.decode.detections import LEAST_LEFT, OVERLAPS, DetectionRule, Detections, decode_detections
from nuxel.errors import NuxelError, UsageError

ANY_SIZE = DetectionRule(min_area=1)
NO_SUPPRESSION = DetectionRule(mask_nms=1.0, min_area=1)
RING = ["###", "#.#", "###"]


def detections(*found):
    """Detections from ``(box, score)`` or ``(box, score, mask)``; without a mask the whole box is the nucleus.

    A mask is rows of marks: ``#`` is 1, ``.`` is 0, a digit so many tenths.
    """
    parts = []
    for box, score, *mask in found:
        tenths = {"#": 10, ".": 0, **{str(digit): digit for digit in range(10)}}
        cells = [[tenths[mark] / 10 for mark in row] for row in mask[0]] if mask else [[1.0] * 3] * 3
        parts.append(([box], [score], [cells]))
    columns = [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]
    return Detections(*columns)


def labels_of(found, shape, rule=ANY_SIZE):
    return decode_detections(found, shape, rule).labels.tolist()


def digits(picture):
    return [[int(mark) for mark in row] for row in picture.split()]


# ---- nothing, and boxes that hold nothing ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 6), (0, 0), (3, 0)])
@pytest.mark.parametrize("overlap", OVERLAPS)
def test_without_detections_there_is_no_nucleus(shape, overlap):
    nuclei = decode_detections(Detections.empty(), shape, DetectionRule(overlap=overlap))
    assert len(nuclei) == 0
    assert nuclei.labels.shape == shape
    assert nuclei.labels.dtype == np.int32
    assert nuclei.scores.dtype == np.float32
    assert not nuclei.labels.any()


@pytest.mark.parametrize(
    "box",
    [
        (2, 2, 2, 4),  # no height
        (2, 2, 4, 2),  # no width
        (3, 3, 3, 3),
        (4, 4, 2, 2),  # corners the wrong way round
        (2, 4, 4, 2),
        (2.6, 2.6, 3.4, 3.4),  # between the centres of pixels
        (-9, 0, -1, 5),  # above, left, below and right of the image
        (0, -9, 5, -1),
        (6, 0, 9, 5),
        (0, 6, 5, 9),
        (1e30, 1e30, 2e30, 2e30),
        (-0.4, -0.4, 0.4, 0.4),
    ],
)
def test_a_box_without_a_pixel_is_no_nucleus(box):
    assert not np.any(labels_of(detections((box, 1)), (6, 6)))
    beside = detections((box, 1), ((1, 1, 3, 3), 0.5))
    assert labels_of(beside, (6, 6)) == digits("000000 011000 011000 000000 000000 000000")


# ---- pasting --------------------------------------------------------------------------------------------


def test_a_pixel_belongs_to_a_box_if_its_centre_does():
    assert labels_of(detections(((0, 1, 1, 3), 1)), (1, 5)) == digits("01100")
    assert labels_of(detections(((0, 1.5, 1, 3.5), 1)), (1, 5)) == digits("01100")
    assert labels_of(detections(((0, 1.51, 1, 3.51), 1)), (1, 5)) == digits("00110")
    assert labels_of(detections(((0.5, 0, 0.6, 5), 1)), (1, 5)) == digits("11111")
    assert labels_of(detections(((0.51, 0, 1, 5), 1)), (1, 5)) == digits("00000")


@pytest.mark.parametrize("cells", [1, 2, 7, 28])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_a_full_mask_fills_its_box_whatever_the_threshold(cells, threshold):
    box = np.array([[1, 2, 4, 7]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.ones((1, cells, cells), np.float32))
    expected = digits("00000000 00111110 00111110 00111110 00000000")
    assert labels_of(found, (5, 8), dataclasses.replace(ANY_SIZE, mask_threshold=threshold)) == expected


def test_one_detection_may_cover_the_whole_image_and_more():
    for box in ((0, 0, 4, 5), (-3, -50, 40, 7)):
        assert labels_of(detections((box, 1)), (4, 5)) == np.ones((4, 5), int).tolist()


def test_a_mask_whose_cells_are_pixels_is_drawn_as_it_is():
    picture = ["#..", "##.", "###"]
    expected = digits("00000 01000 01100 01110")
    assert labels_of(detections(((1, 1, 4, 4), 1, picture)), (4, 5)) == expected


def test_rows_of_the_mask_are_rows_of_the_image():
    found = detections(((0, 0, 2, 6), 1, ["##", ".."]))
    assert labels_of(found, (2, 6)) == digits("111111 000000")


def test_cells_are_interpolated_between_their_centres():
    # Centres at columns 2 and 6: the value falls by 0.25 a pixel from 0.875 at 2.5, and is 0.375 at 4.5.
    found = detections(((0, 0, 1, 8), 1, ["#.", "#."]))
    for threshold, columns in ((1.0, 2), (0.9, 2), (0.875, 3), (0.6, 4), (0.3, 5), (0.1, 6)):
        rule = dataclasses.replace(ANY_SIZE, mask_threshold=threshold)
        assert labels_of(found, (1, 8), rule) == [[1] * columns + [0] * (8 - columns)]


def test_a_pixel_belongs_to_a_nucleus_from_the_threshold_on():
    found = detections(((0, 0, 1, 1), 1, ["5"]))
    assert labels_of(found, (1, 1)) == [[1]]
    assert labels_of(found, (1, 1), DetectionRule(mask_threshold=0.51, min_area=1)) == [[0]]


def test_what_lies_outside_the_image_is_cut_off_and_not_squeezed():
    picture = ["#...#", "##.##", "#####", "##.##", "#...#"]
    whole = labels_of(detections(((0, 0, 10, 10), 1, picture)), (10, 10))
    cut = labels_of(detections(((-3, -4, 7, 6), 1, picture)), (5, 4))
    assert cut == [row[4:8] for row in whole[3:8]]


# ---- the nucleus of a mask ------------------------------------------------------------------------------


def test_of_a_mask_in_pieces_the_largest_is_kept():
    picture = ["##..#", "....#", "....#", "#...#", "##..."]
    expected = digits("00001 00001 00001 00001 00000")
    assert labels_of(detections(((0, 0, 5, 5), 1, picture)), (5, 5)) == expected


def test_of_equal_pieces_the_first_is_kept():
    assert labels_of(detections(((0, 0, 3, 3), 1, ["#.#", "#.#", "..."])), (3, 3)) == digits("100 100 000")


def test_pieces_that_meet_at_a_corner_are_two():
    assert labels_of(detections(((0, 0, 3, 3), 1, ["##.", "##.", "..#"])), (3, 3)) == digits("110 110 000")


def test_a_hole_is_filled():
    assert labels_of(detections(((1, 1, 4, 4), 1, RING)), (5, 5)) == digits("00000 01110 01110 01110 00000")


def test_a_hole_is_filled_before_the_largest_piece_is_chosen():
    picture = ["####...", "#..#...", "#..#.##", "####.##", ".....##", ".....##", ".....##"]
    found = np.array(labels_of(detections(((0, 0, 7, 7), 1, picture)), (7, 7)))
    assert found[:4, :4].all()
    assert found.sum() == 16


def test_a_gap_that_opens_to_the_edge_of_the_image_is_not_filled():
    # The ring's right side lies outside.
    assert labels_of(detections(((0, 0, 3, 3), 1, RING)), (3, 2)) == digits("11 10 11")


# ---- what is dropped ------------------------------------------------------------------------------------


def test_detections_below_the_least_score_are_dropped():
    found = detections(((0, 0, 1, 2), 0.5), ((0, 3, 1, 5), 0.49), ((0, 6, 1, 8), 0.7))
    nuclei = decode_detections(found, (1, 8), ANY_SIZE)
    assert nuclei.labels.tolist() == digits("11000022")
    assert nuclei.scores.tolist() == [0.5, np.float32(0.7)]
    strict = dataclasses.replace(ANY_SIZE, min_score=0.7)
    assert decode_detections(found, (1, 8), strict).labels.tolist() == digits("00000011")
    assert len(decode_detections(found, (1, 8), dataclasses.replace(ANY_SIZE, min_score=0.0))) == 3


def test_nuclei_below_the_least_area_are_dropped():
    found = detections(((0, 0, 1, 1), 1), ((0, 2, 1, 4), 1), ((0, 5, 1, 8), 1))
    assert labels_of(found, (1, 8), DetectionRule(min_area=0)) == digits("10220333")
    assert labels_of(found, (1, 8), DetectionRule(min_area=1)) == digits("10220333")
    assert labels_of(found, (1, 8), DetectionRule(min_area=2)) == digits("00110222")
    assert labels_of(found, (1, 8), DetectionRule(min_area=3)) == digits("00000111")
    assert labels_of(found, (1, 8), DetectionRule(min_area=4)) == digits("00000000")


def test_an_empty_mask_is_no_nucleus_even_without_a_least_area():
    assert (
        labels_of(detections(((0, 0, 2, 2), 1, [".."] * 2)), (2, 2), DetectionRule(min_area=0))
        == [[0, 0]] * 2
    )


def test_what_is_too_small_suppresses_nothing():
    found = detections(((0, 0, 1, 3), 0.9), ((0, 0, 1, 8), 0.8))
    assert labels_of(found, (1, 8), DetectionRule(min_area=4)) == digits("11111111")


# ---- suppression ----------------------------------------------------------------------------------------


def test_of_equal_detections_the_best_is_kept():
    found = detections(*(((1, 1, 4, 5), score) for score in (0.6, 0.9, 0.8)))
    nuclei = decode_detections(found, (5, 6), ANY_SIZE)
    assert nuclei.scores.tolist() == [np.float32(0.9)]
    assert nuclei.labels.tolist() == digits("000000 011110 011110 011110 000000")


@pytest.mark.parametrize("rule", [NO_SUPPRESSION, dataclasses.replace(NO_SUPPRESSION, overlap="best")])
def test_of_equal_detections_one_is_left_even_without_suppression(rule):
    found = detections(*(((1, 1, 4, 5), score) for score in (0.6, 0.9, 0.8)))
    assert decode_detections(found, (5, 6), rule).scores.tolist() == [np.float32(0.9)]


@pytest.mark.parametrize(("threshold", "count"), [(0.24, 1), (0.25, 2), (0.26, 2), (0.0, 1), (1.0, 2)])
def test_masks_are_suppressed_above_the_threshold(threshold, count):
    # 2 pixels of 8 are shared.
    found = detections(((0, 0, 1, 5), 0.9), ((0, 3, 1, 8), 0.8))
    rule = DetectionRule(mask_nms=threshold, min_area=1)
    assert len(decode_detections(found, (1, 8), rule)) == count


def test_the_better_score_suppresses_even_what_is_bigger():
    found = detections(((0, 0, 1, 5), 0.9), ((0, 0, 1, 8), 0.8))
    assert labels_of(found, (1, 8)) == digits("11111000")


def test_masks_count_and_not_boxes():
    # The same box, but halves that do not meet.
    found = detections(((0, 0, 4, 4), 0.9, ["#."] * 2), ((0, 0, 4, 4), 0.8, [".#"] * 2))
    rule = DetectionRule(mask_nms=0.0, mask_threshold=0.6, min_area=1)
    assert labels_of(found, (4, 4), rule) == [[1, 1, 2, 2]] * 4


def test_what_is_suppressed_suppresses_nothing():
    # Each shares 6 pixels of 10 with the next, the outer two 4 of 12.
    found = detections(((0, 0, 1, 8), 0.9), ((0, 2, 1, 10), 0.8), ((0, 4, 1, 12), 0.7))
    rule = DetectionRule(mask_nms=0.5, min_area=1)
    assert decode_detections(found, (1, 12), rule).scores.tolist() == [np.float32(0.9), np.float32(0.7)]


def test_only_what_lies_in_the_image_counts():
    # Alike within the image, though hardly so beyond it.
    found = detections(((0, 0, 1, 4), 0.9), ((0, 0, 1, 40), 0.8))
    assert decode_detections(found, (1, 4), ANY_SIZE).scores.tolist() == [np.float32(0.9)]


def test_suppression_finds_neighbours_across_the_image():
    """The same pair in many places, so that it lies across the borders of any grid."""
    found = []
    for y, x in np.ndindex(9, 9):
        top, left = 23 * y, 23 * x
        found += [((top, left, top + 9, left + 9), 0.9), ((top + 1, left + 1, top + 10, left + 10), 0.8)]
    nuclei = decode_detections(detections(*found), (210, 210), ANY_SIZE)
    assert len(nuclei) == 81
    assert (nuclei.scores == np.float32(0.9)).all()


def test_a_large_nucleus_suppresses_from_far_away_squares():
    found = detections(((0, 0, 400, 400), 0.9), ((60, 60, 400, 400), 0.8), ((390, 390, 400, 400), 0.7))
    # The third, wholly within the first, passes the suppression but has nothing left.
    assert decode_detections(found, (400, 400), ANY_SIZE).scores.tolist() == [np.float32(0.9)]


# ---- overlaps -------------------------------------------------------------------------------------------

SMALL_BUT_SURE = (((0, 0, 1, 4), 0.9), ((0, 3, 1, 9), 0.8))


def test_the_biggest_keeps_its_pixels():
    nuclei = decode_detections(detections(*SMALL_BUT_SURE), (1, 9), ANY_SIZE)
    assert nuclei.labels.tolist() == digits("111222222")
    assert nuclei.scores.tolist() == [np.float32(0.9), np.float32(0.8)]


def test_or_the_best_does():
    rule = dataclasses.replace(ANY_SIZE, overlap="best")
    assert labels_of(detections(*SMALL_BUT_SURE), (1, 9), rule) == digits("111122222")


def test_of_equal_areas_the_better_score_keeps_its_pixels():
    for scores, expected in (((0.9, 0.8), "1111122"), ((0.8, 0.9), "1112222")):
        found = detections(((0, 0, 1, 5), scores[0]), ((0, 3, 1, 7), scores[1]))
        assert labels_of(found, (1, 7), dataclasses.replace(ANY_SIZE, overlap="best")) == digits(expected)
    for scores, expected in (((0.9, 0.8), "111122"), ((0.8, 0.9), "112222")):
        found = detections(((0, 0, 1, 4), scores[0]), ((0, 2, 1, 6), scores[1]))
        assert labels_of(found, (1, 6), NO_SUPPRESSION) == digits(expected)


def test_of_equal_scores_the_first_box_is_the_better():
    one, other = ((0, 2, 2, 6), 0.9), ((1, 0, 3, 4), 0.9)
    for found in (detections(one, other), detections(other, one)):
        assert labels_of(found, (3, 6), NO_SUPPRESSION) == digits("001111 221111 222200")


def test_area_is_that_of_the_mask_and_not_of_the_box():
    """As many cells as pixels; the larger box holds the smaller nucleus."""
    thin = ((0, 0, 7, 7), 0.9, ["......."] * 3 + ["#######"] + ["......."] * 3)
    thick = ((2, 4, 5, 9), 0.8)
    found = Detections.concatenate([refined(thin), refined(thick)])
    assert labels_of(found, (7, 9))[3] == [2, 2, 2, 2, 1, 1, 1, 1, 1]


def refined(one):
    """A detection with 21 x 21 cells."""
    found = detections(one)
    times = 21 // found.masks.shape[1]
    return Detections(found.boxes, found.scores, found.masks.repeat(times, 1).repeat(times, 2))


@pytest.mark.parametrize(("width", "count"), [(9, 2), (6, 2), (5, 1), (4, 1)])
def test_a_nucleus_that_keeps_less_than_half_is_dropped(width, count):
    """It loses its first three pixels."""
    found = detections(((0, 0, 4, 3), 0.9), ((0, 0, 1, width), 0.8))
    assert LEAST_LEFT == 0.5
    assert len(decode_detections(found, (4, 9), ANY_SIZE)) == count


def test_a_nucleus_that_keeps_less_than_the_least_area_is_dropped():
    found = detections(((0, 0, 2, 6), 0.9), ((0, 5, 1, 9), 0.8))
    assert len(decode_detections(found, (2, 9), DetectionRule(min_area=3))) == 2
    assert len(decode_detections(found, (2, 9), DetectionRule(min_area=4))) == 1


@pytest.mark.parametrize(("width", "row"), [(10, "0001122222"), (9, "000110000")])
def test_a_nucleus_cut_in_two_keeps_its_larger_piece_if_that_is_half(width, row):
    found = detections(((0, 3, 5, 5), 0.9), ((2, 0, 3, width), 0.8))
    assert labels_of(found, (5, width))[2:3] == digits(row)


def test_what_is_dropped_takes_nothing():
    # The middle one loses most of itself to the first, and leaves the third whole.
    found = detections(((0, 0, 3, 4), 0.9), ((0, 0, 1, 6), 0.8), ((0, 4, 1, 8), 0.7))
    rule = dataclasses.replace(NO_SUPPRESSION, overlap="best")
    nuclei = decode_detections(found, (3, 8), rule)
    assert nuclei.labels[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert nuclei.scores.tolist() == [np.float32(0.9), np.float32(0.7)]


def test_a_part_within_a_bigger_nucleus_goes():
    """Figure 2 of the paper: a second mask on the same nucleus shows only a part of it."""
    found = detections(((1, 1, 9, 9), 0.8), ((3, 3, 6, 6), 0.95))
    nuclei = decode_detections(found, (10, 10), ANY_SIZE)
    assert nuclei.scores.tolist() == [np.float32(0.8)]
    assert (nuclei.labels > 0).sum() == 64


def test_by_score_a_nucleus_may_lie_within_another():
    found = detections(((1, 1, 9, 9), 0.8), ((3, 3, 6, 6), 0.95))
    nuclei = decode_detections(found, (10, 10), dataclasses.replace(ANY_SIZE, overlap="best"))
    assert nuclei.scores.tolist() == [np.float32(0.8), np.float32(0.95)]
    assert (nuclei.labels[3:6, 3:6] == 2).all()
    assert (nuclei.labels == 1).sum() == 64 - 9


BY_PROBABILITY = DetectionRule(mask_nms=1.0, overlap="probability", min_area=1)


def test_by_probability_a_pixel_goes_to_the_mask_that_is_surest_of_it():
    found = Detections.concatenate([striped((0, 0, 5, 5), 0.6, "98765"), striped((0, 2, 5, 7), 0.9, "66777")])
    assert labels_of(found, (5, 7), BY_PROBABILITY)[0] == [1, 1, 1, 2, 2, 2, 2]


def striped(box, score, tenths):
    """A detection whose mask has the same row again and again."""
    return detections((box, score, [tenths] * len(tenths)))


def test_of_equal_probabilities_the_better_score_has_the_pixel():
    for scores, expected in (((0.9, 0.8), "111122"), ((0.8, 0.9), "112222")):
        found = detections(((0, 0, 1, 4), scores[0]), ((0, 2, 1, 6), scores[1]))
        assert labels_of(found, (1, 6), BY_PROBABILITY) == digits(expected)


def test_what_has_too_little_left_gives_it_to_the_next():
    """The one in the middle keeps 2 of its 6 pixels, and the others are surer of the rest; then they have it all."""
    found = Detections.concatenate(
        [
            striped((0, 0, 6, 6), 0.9, "999666"),
            striped((0, 1, 6, 7), 0.8, "777777"),
            striped((0, 5, 6, 11), 0.7, "999999"),
        ]
    )
    nuclei = decode_detections(found, (6, 11), BY_PROBABILITY)
    assert nuclei.scores.tolist() == [np.float32(0.9), np.float32(0.7)]
    assert nuclei.labels[0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_what_is_cut_off_goes_to_the_next():
    """The better one wins the middle of the other, and so what lies beyond that."""
    found = Detections.concatenate(
        [striped((0, 0, 9, 9), 0.8, "888886688"), striped((0, 5, 9, 14), 0.9, "776666666")]
    )
    nuclei = decode_detections(found, (9, 14), BY_PROBABILITY)
    assert nuclei.labels[0].tolist() == [1] * 5 + [2] * 9


def test_of_two_who_cut_each_other_the_worse_score_loses():
    found = Detections.concatenate(
        [striped((0, 0, 9, 9), 0.9, "888886688"), striped((0, 5, 9, 14), 0.8, "776666666")]
    )
    nuclei = decode_detections(found, (9, 14), BY_PROBABILITY)
    assert nuclei.labels[0].tolist() == [1] * 9 + [2] * 5


# ---- masks that reach beyond their boxes ----------------------------------------------------------------


def test_a_mask_may_span_more_than_its_box():
    found = detections(((2, 2, 4, 4), 0.9, ["####"] * 4))
    assert labels_of(found, (6, 6)) == digits("000000 000000 001100 001100 000000 000000")
    doubled = dataclasses.replace(ANY_SIZE, mask_scale=2.0)
    assert labels_of(found, (6, 6), doubled) == digits("000000 011110 011110 011110 011110 000000")
    assert found.grown(1.0).boxes.tolist() == found.boxes.tolist()
    assert found.grown(1.5).boxes.tolist() == [[1.5, 1.5, 4.5, 4.5]]


# ---- numbering ------------------------------------------------------------------------------------------


def test_nuclei_are_numbered_in_the_order_of_their_first_pixel():
    boxes = [(2, 0, 4, 2), (0, 4, 1, 6), (1, 0, 2, 1), (0, 1, 3, 3), (3, 3, 4, 7)]
    scores = [0.9, 0.6, 0.7, 0.8, 0.5]
    nuclei = decode_detections(detections(*zip(boxes, scores, strict=True)), (4, 7), NO_SUPPRESSION)
    numbers, first = np.unique(nuclei.labels, return_index=True)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert (np.diff(first[1:]) > 0).all()
    assert nuclei.scores.tolist() == [np.float32(score) for score in (0.8, 0.6, 0.7, 0.9, 0.5)]


def test_the_first_pixel_is_that_of_what_is_left():
    # The second one begins first, but loses its upper row.
    upper, lower = ((0, 0, 1, 30), 0.9), ((0, 0, 9, 2), 0.8)
    nuclei = decode_detections(detections(upper, lower, ((1, 8, 5, 9), 0.7)), (9, 30), ANY_SIZE)
    assert nuclei.scores.tolist() == [np.float32(score) for score in (0.9, 0.8, 0.7)]
    assert nuclei.labels[0].tolist() == [1] * 30
    assert nuclei.labels[1, :2].tolist() == [2, 2]


def test_many_specks():
    top, left = (one.ravel() * 2 for one in np.mgrid[:40, :41])
    boxes = np.stack([top, left, top + 1, left + 1], axis=1).astype(np.float32)
    found = Detections(boxes, np.ones(40 * 41, np.float32), np.ones((40 * 41, 1, 1), np.float32))
    labels = decode_detections(found, (80, 82), ANY_SIZE).labels
    assert labels.max() == 40 * 41
    assert labels[::2, ::2].ravel().tolist() == list(range(1, 40 * 41 + 1))


# ---- what it costs --------------------------------------------------------------------------------------


def test_masks_are_pasted_without_an_array_of_all_of_them_at_full_size():
    rng = np.random.default_rng(0)
    middle = rng.uniform(0, 1000, (600, 2))
    boxes = np.concatenate([middle - 10, middle + 10], axis=1).astype(np.float32)
    found = Detections(boxes, rng.random(600, np.float32), rng.random((600, 28, 28), np.float32))
    tracemalloc.start()
    try:
        decode_detections(found, (1000, 1000), DetectionRule(min_score=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Two label images of 4 MB, a copy of the masks of 2 MB, a few hundred bytes a nucleus; not 600 MB.
    assert peak < 16e6


# ---- Detections -----------------------------------------------------------------------------------------


def test_the_arrays_are_left_alone():
    found = detections(((0, 0, 4, 4), 0.8, RING), ((1, 1, 6, 6), 0.9))
    before = [array.copy() for array in (found.boxes, found.scores, found.masks)]
    decode_detections(found, (6, 6), ANY_SIZE)
    found.scaled(2, 3), found.shifted(1, 2), found.take(np.array([0])), Detections.concatenate([found, found])
    for array, old in zip((found.boxes, found.scores, found.masks), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_taken_by_index_or_by_choice():
    found = detections(((0, 0, 1, 1), 0.1), ((1, 1, 2, 2), 0.2), ((2, 2, 3, 3), 0.3, RING))
    turned = found.take(np.array([2, 0]))
    assert turned.scores.tolist() == [np.float32(0.3), np.float32(0.1)]
    assert turned.boxes.tolist() == [[2, 2, 3, 3], [0, 0, 1, 1]]
    assert turned.masks[0].tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert found.take(found.scores > 0.15).scores.tolist() == [np.float32(0.2), np.float32(0.3)]
    assert len(found.take(np.empty(0, np.intp))) == 0


def test_scaled_and_shifted_boxes():
    found = detections(((1, 2, 3, 5), 0.5))
    assert found.scaled(2, 0.5).boxes.tolist() == [[2, 1, 6, 2.5]]
    assert found.shifted(10, -2).boxes.tolist() == [[11, 0, 13, 3]]
    for moved in (found.scaled(2, 0.5), found.shifted(10, -2)):
        assert moved.boxes.dtype == np.float32
        np.testing.assert_array_equal(moved.masks, found.masks)


def test_twice_the_scale_is_every_pixel_twice():
    found = detections(((1, 0, 4, 3), 1, ["##.", ".##", "..#"]), ((0, 3, 2, 6), 0.9))
    small = decode_detections(found, (4, 6), ANY_SIZE)
    large = decode_detections(
        Detections(found.boxes, found.scores, found.masks.repeat(9, 1).repeat(9, 2)).scaled(2, 3),
        (8, 18),
        ANY_SIZE,
    )
    np.testing.assert_array_equal(large.labels, small.labels.repeat(2, 0).repeat(3, 1))


def test_concatenated_detections_keep_their_order():
    one, two = detections(((0, 0, 1, 1), 0.1)), detections(((1, 1, 2, 2), 0.3, RING), ((2, 2, 3, 3), 0.2))
    both = Detections.concatenate([one, Detections.empty(), two])
    assert both.scores.tolist() == [np.float32(score) for score in (0.1, 0.3, 0.2)]
    assert both.boxes[:, 0].tolist() == [0, 1, 2]
    assert both.masks[1, 1, 1] == 0
    assert len(Detections.concatenate([])) == len(Detections.concatenate([Detections.empty(7)])) == 0


def test_masks_of_different_size_do_not_go_together():
    with pytest.raises(ValueError, match="dimension"):
        Detections.concatenate([detections(((0, 0, 1, 1), 1)), refined(((0, 0, 1, 1), 1))])


def test_an_empty_set_has_masks_of_the_size_that_is_asked_for():
    assert Detections.empty().masks.shape == (0, 28, 28)
    assert Detections.empty(14).masks.shape == (0, 14, 14)


GOOD = (np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros((2, 5, 5), np.float32))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("boxes", np.zeros((3, 4), np.float32)),
        ("boxes", np.zeros((2, 5), np.float32)),
        ("boxes", np.zeros((2, 4))),
        ("boxes", np.zeros(2, np.float32)),
        ("scores", np.zeros((2, 1), np.float32)),
        ("scores", np.zeros(2)),
        ("masks", np.zeros((2, 5, 6), np.float32)),
        ("masks", np.zeros((2, 1, 5, 5), np.float32)),
        ("masks", np.zeros((3, 5, 5), np.float32)),
        ("masks", np.zeros((2, 0, 0), np.float32)),
        ("masks", np.zeros((2, 5, 5), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, array):
    given = dict(zip(("boxes", "scores", "masks"), GOOD, strict=True))
    with pytest.raises(ValueError, match=f"{name} must be "):
        Detections(**{**given, name: array})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_is_refused(value):
    boxes = GOOD[0].copy()
    boxes[1, 2] = value
    with pytest.raises(NuxelError, match="a box that is not of finite numbers"):
        Detections(boxes, *GOOD[1:])


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
@pytest.mark.parametrize("name", ["scores", "masks"])
def test_what_is_no_probability_is_refused(name, value):
    given = {key: array.copy() for key, array in zip(("boxes", "scores", "masks"), GOOD, strict=True)}
    given[name].flat[1] = value
    with pytest.raises(NuxelError, match=f"the network gave {name} outside of 0 to 1"):
        Detections(**given)


# ---- DetectionRule --------------------------------------------------------------------------------------


def test_the_defaults():
    assert DetectionRule() == DetectionRule(0.5, 0.5, 0.3, "biggest", 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_score": 1.5}, "min_score is a probability"),
        ({"mask_threshold": -0.1}, "mask_threshold is a probability"),
        ({"mask_nms": float("nan")}, "mask_nms is an IoU"),
        ({"min_area": -1}, "min_area must not be negative, got -1"),
        ({"mask_scale": 0.9}, "mask_scale must be a number of at least 1, got 0.9"),
        ({"mask_scale": float("inf")}, "mask_scale must be a number of at least 1, got inf"),
        ({"mask_scale": float("nan")}, "mask_scale must be a number of at least 1, got nan"),
        ({"overlap": "first"}, "overlap must be one of biggest, best, probability, got 'first'"),
    ],
)
def test_rules_out_of_range(given, message):
    with pytest.raises(UsageError, match=message):
        DetectionRule(**given)


def test_a_user_s_threshold_is_the_least_score():
    assert DetectionRule(mask_nms=0.4).with_threshold(0.9) == DetectionRule(min_score=0.9, mask_nms=0.4)


def test_a_rule_for_an_enlarged_image():
    assert DetectionRule(overlap="best").enlarged(4.0) == DetectionRule(overlap="best", min_area=32)


# ---- dilation --------------------------------------------------------------------------------------------

DILATED = DetectionRule(min_area=1, dilate=True)


def test_a_lone_nucleus_grows_by_a_square():
    found = detections(((2, 3, 4, 5), 0.9), ((0, 7, 1, 8), 0.8))
    assert labels_of(found, (5, 8), DILATED) == digits("00000011 00222211 00222200 00222200 00222200")


def test_far_apart_it_is_scipy_s_dilation():
    found = detections(((1, 1, 4, 5), 0.9, RING), ((6, 9, 9, 10), 0.8))
    masks = np.array(labels_of(found, (11, 12))) > 0
    grown = np.array(labels_of(found, (11, 12), DILATED)) > 0
    assert np.array_equal(grown, ndimage.binary_dilation(masks, np.ones((3, 3))))


def test_no_nucleus_grows_into_another():
    found = detections(((1, 1, 3, 3), 0.9), ((1, 3, 3, 5), 0.8), ((1, 6, 3, 7), 0.7))
    assert labels_of(found, (4, 8), DILATED) == digits("11122233 11122233 11122233 11122233")


def test_grown_nuclei_are_numbered_in_the_order_of_their_first_pixel_and_keep_their_scores():
    found = detections(((1, 2, 2, 4), 0.7), ((1, 0, 2, 1), 0.9))
    nuclei = decode_detections(found, (3, 5), DILATED)
    assert nuclei.labels[:, 0].tolist() == [1, 1, 1]
    assert nuclei.scores.tolist() == [np.float32(0.9), np.float32(0.7)]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (4, 5)])
def test_nothing_grows_from_nothing(shape):
    assert not decode_detections(Detections.empty(), shape, DILATED).labels.any()
