"""Solidity by pictures whose hull is known; the comparison with scikit-image is in tests/reference."""

import numpy as np
import pytest

from nuxel.instances import Instances
from nuxel.measure.nuclei import measure_nuclei


def hull_areas(labels):
    labels = np.asarray(labels, np.int32)
    table = measure_nuclei(Instances(labels), np.zeros((*labels.shape, 1)), channel_names=["g"])
    return (table["area"] / table["solidity"]).round(9).tolist()


@pytest.mark.parametrize(
    ("picture", "area"),
    [
        ("#", 1),
        ("##", 2),
        ("#.#", 3),
        ("#|.|#", 3),
        ("#.|.#", 2),
        ("###|#.#|###", 9),
        ("###|#..|###", 9),
        ("#..|#..|###", 6),
        ("..#|.##|###", 6),
        (".#.|###|.#.", 5),
        ("#.#|...|#.#", 9),
        ("#...|....|....|...#", 4),
    ],
)
def test_hulls_that_can_be_counted_by_hand(picture, area):
    labels = [[character == "#" for character in line] for line in picture.split("|")]
    assert hull_areas(labels) == [area]


def test_the_hull_of_each_nucleus_ignores_the_others():
    ring = np.ones((7, 7), int)
    ring[2:5, 2:5] = 0
    nested = ring.copy()
    nested[3, 3] = 2
    assert hull_areas(ring) == [49]
    assert hull_areas(nested) == [49, 1]


def test_pieces_far_apart_share_one_hull():
    labels = np.zeros((50, 4), int)
    labels[0] = labels[-1] = 1
    assert hull_areas(labels) == [200]
