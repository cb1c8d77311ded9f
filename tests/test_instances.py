"""The one currency between rooms."""

import dataclasses

import numpy as np
import pytest

from nuxel.errors import NuxelError
from nuxel.instances import Instances


def test_scores_are_ones_unless_given():
    nuclei = Instances(np.array([[1, 0, 2]], np.int32))
    assert nuclei.scores.tolist() == [1, 1]
    assert nuclei.scores.dtype == np.float32
    assert len(nuclei) == 2


def test_given_scores_are_kept():
    scores = np.array([0.25, 0.5], np.float32)
    assert Instances(np.array([[1, 0, 2]], np.int32), scores).scores is scores


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (3, 4)])
def test_an_image_without_nuclei(shape):
    nuclei = Instances(np.zeros(shape, np.int32))
    assert len(nuclei) == 0
    assert nuclei.scores.shape == (0,)
    assert nuclei.boxes.shape == (0, 4)
    assert nuclei.boxes.dtype == np.int32


def test_what_is_not_annotated_is_no_nucleus():
    nuclei = Instances(np.array([[-1, 0, 1]], np.int32))
    assert len(nuclei) == 1
    assert nuclei.boxes.tolist() == [[0, 2, 1, 3]]
    assert len(Instances(np.array([[-1]], np.int32))) == 0


def test_boxes_are_half_open_rows_before_columns():
    labels = np.zeros((9, 12), np.int32)
    labels[2:5, 7:11] = 1
    labels[8, 0] = 2
    labels[0, 0], labels[6, 3] = 3, 3
    nuclei = Instances(labels)
    assert nuclei.boxes.tolist() == [[2, 7, 5, 11], [8, 0, 9, 1], [0, 0, 7, 4]]
    assert nuclei.boxes.dtype == np.int32


def test_a_number_without_pixels_has_an_empty_box():
    assert Instances(np.array([[2]], np.int32)).boxes.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    "labels",
    [np.zeros((2, 2), float), np.zeros((2, 2), bool), np.zeros(4, np.int32), np.zeros((1, 2, 2), np.int32)],
)
def test_labels_of_another_form(labels):
    with pytest.raises(NuxelError, match=r"^labels must be \(H, W\) integers, got "):
        Instances(labels)


@pytest.mark.parametrize(
    "labels", [[[0, 1], [2, 2]], np.array([[0, 1], [2, 2]], np.uint8), np.array([[0, 1], [2, 2]])]
)
def test_any_integers_are_held_as_int32(labels):
    nuclei = Instances(labels, [0.5, 1])
    assert nuclei.labels.dtype == np.int32
    assert nuclei.scores.dtype == np.float32
    assert nuclei.labels.tolist() == [[0, 1], [2, 2]]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_numbers_that_int32_cannot_hold(number):
    with pytest.raises(NuxelError, match="labels must lie within"):
        Instances(np.array([[number]]))


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan")])
def test_scores_are_shares(score):
    with pytest.raises(NuxelError, match="scores must lie between 0 and 1"):
        Instances(np.ones((2, 2), np.int32), np.array([score]))


@pytest.mark.parametrize(("count", "shape"), [(1, (2,)), (3, (2,)), (2, (2, 1)), (0, (1,))])
def test_not_one_score_a_nucleus(count, shape):
    labels = np.arange(count + 1, dtype=np.int32)[None]
    with pytest.raises(NuxelError, match=rf"^{count} nuclei need {count} scores"):
        Instances(labels, np.ones(shape, np.float32))


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Instances(np.zeros((1, 1), np.int32)).scores = np.ones(0, np.float32)


def test_a_mean_of_probabilities_may_be_rounded_beyond_one():
    assert Instances(np.ones((1, 1), np.int32), np.array([1.0000001], np.float32)).scores.tolist() == [1]
