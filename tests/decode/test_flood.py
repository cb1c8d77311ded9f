"""Flooding on landscapes small enough to work out by hand."""

import numpy as np
import pytest

from nuxel.decode.flood import STEP, flood


def flooded(height, markers, inside=None):
    height = np.array(height, np.int16)
    inside = np.ones(height.shape, bool) if inside is None else np.array(inside, bool)
    return flood(height, np.array(markers, np.int32), inside).tolist()


def test_fronts_meet_in_the_middle_of_a_plain_and_the_lower_label_takes_what_both_reach():
    assert flooded([[0] * 5], [[1, 0, 0, 0, 2]]) == [[1, 1, 1, 2, 2]]
    assert flooded([[0] * 5], [[2, 0, 0, 0, 1]]) == [[2, 2, 1, 1, 1]]
    assert flooded([[0] * 6], [[1, 0, 0, 0, 0, 2]]) == [[1, 1, 1, 2, 2, 2]]


def test_the_lower_label_takes_every_pixel_that_both_reach_at_once():
    markers = [[1, 0, 2], [2, 0, 1], [1, 0, 2]]
    assert flooded([[0] * 3] * 3, markers) == [[1, 1, 2], [2, 1, 1], [1, 1, 2]]


def test_the_largest_labels_there_are():
    most = np.iinfo(np.int32).max
    assert flooded([[0] * 5], [[most - 1, 0, 0, 0, most]]) == [[most - 1] * 3 + [most] * 2]


def test_ground_of_several_heights_is_taken_from_the_lowest_up():
    height = [[0, 3 * STEP, 2 * STEP, STEP, 0], [0, STEP, 2 * STEP, 3 * STEP, 0]]
    markers = [[1, 0, 0, 0, 2], [1, 0, 0, 0, 2]]
    assert flooded(height, markers) == [[1, 1, 2, 2, 2], [1, 1, 1, 2, 2]]


def test_a_ridge_holds_a_front_back_until_the_other_has_climbed_it():
    ridge = [[0, 5 * STEP, 0, 0, 0, 0]]
    assert flooded(ridge, [[1, 0, 0, 0, 0, 2]]) == [[1, 1, 2, 2, 2, 2]]


def test_what_lies_behind_a_ridge_is_flooded_over_it():
    assert flooded([[0, 5 * STEP, 0, -5 * STEP]], [[1, 0, 0, 0]]) == [[1, 1, 1, 1]]


def test_lower_ground_goes_first_even_if_it_is_further():
    # Both could take the place in the middle of the lower row; the path of 2 is longer and lower.
    height = [[0, STEP, 0], [0, 0, 0]]
    assert flooded(height, [[1, 0, 2], [0, 0, 0]]) == [[1, 1, 2], [1, 1, 2]]
    height = [[2 * STEP, 0, 0, 0], [2 * STEP, 2 * STEP, 2 * STEP, 0], [2 * STEP, 0, 0, 0]]
    markers = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2]]
    assert flooded(height, markers) == [[2, 2, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2]]


@pytest.mark.parametrize("lower", [0, STEP - 1])
def test_differences_within_a_step_do_not_count(lower):
    assert flooded([[lower, lower, 0, 0, 0]], [[1, 0, 0, 0, 2]]) == [[1, 1, 1, 2, 2]]


def test_nothing_is_flooded_outside_nor_through_it():
    inside = [[1, 1, 0, 1], [0, 0, 0, 1]]
    assert flooded(np.zeros((2, 4)), [[3, 0, 0, 0], [0, 0, 0, 0]], inside) == [[3, 3, 0, 0], [0, 0, 0, 0]]


def test_a_marker_outside_is_left_out():
    assert flooded([[0, 0]], [[4, 0]], [[0, 1]]) == [[0, 0]]


def test_rows_do_not_run_into_each_other():
    inside = [[1, 0, 1], [1, 0, 1]]
    assert flooded(np.zeros((2, 3)), [[0, 0, 7], [0, 0, 0]], inside) == [[0, 0, 7], [0, 0, 7]]


def test_no_marker_and_no_pixel_at_all():
    assert flooded([[0, 0]], [[0, 0]]) == [[0, 0]]
    assert flooded(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))) == [[0, 0]] * 3
