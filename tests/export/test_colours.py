import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.color import deltaE_ciede2000, rgb2lab

from nuxel.export.colours import _PALETTE, NEIGHBOUR_GAP, choose_colours, find_neighbours
from nuxel.labels.border import border_pixels
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def padded_with_border(labels):
    padded = np.pad(np.asarray(labels, np.int32), NEIGHBOUR_GAP + 1)
    return padded, border_pixels(padded)


def neighbours(labels):
    return [tuple(pair) for pair in find_neighbours(*padded_with_border(labels)).tolist()]


def colours_of(labels):
    return choose_colours(*padded_with_border(labels), int(np.max(labels)))


def close_pairs(labels):
    """All pairs of nuclei with pixels at most ``NEIGHBOUR_GAP + 1`` apart, by a tree of all their pixels."""
    places = np.argwhere(labels > 0)
    near = cKDTree(places).query_pairs(NEIGHBOUR_GAP + 1, output_type="ndarray")
    pairs = np.sort(labels[places[near][..., 0], places[near][..., 1]], axis=1)
    return {tuple(pair) for pair in pairs.tolist() if pair[0] != pair[1]}


def assert_no_neighbours_share(labels):
    colours = colours_of(labels)
    pairs = np.array(sorted(close_pairs(labels))).reshape(-1, 2)
    same = (colours[pairs[:, 0] - 1] == colours[pairs[:, 1] - 1]).all(axis=1)
    assert not same.any()
    return len(pairs)


def contrast(colours):
    """Contrast to black and to white, as the web's accessibility guidelines define it (1..21)."""
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_are_all_pairs_that_are_close(seed):
    rng = np.random.default_rng(seed)
    seeds = rng.random((40, 50)) < 0.02
    labels = relabel(ndimage.grey_dilation(np.cumsum(seeds).reshape(seeds.shape) * seeds, (3, 4)))
    assert set(neighbours(labels)) == close_pairs(labels)
    assert len(neighbours(labels)) == len(set(neighbours(labels)))


@pytest.mark.parametrize("gap", range(NEIGHBOUR_GAP + 3))
def test_the_gap_up_to_which_nuclei_are_neighbours(gap):
    labels = np.array([[1, 1, *[0] * gap, 2, 2]])
    expected = [(1, 2)] if gap <= NEIGHBOUR_GAP else []
    assert neighbours(labels) == expected
    assert neighbours(labels.T) == expected


def test_pairs_rise_and_name_the_smaller_first():
    assert neighbours([[3, 1, 2]]) == [(1, 2), (1, 3), (2, 3)]


def test_opposite_sides_of_the_image_are_no_neighbours():
    assert neighbours(np.array([[1, *[0] * 8, 2], [0] * 10, [3, *[0] * 8, 4]])) == [(1, 3), (2, 4)]


def test_what_is_not_annotated_is_nobodys_neighbour():
    assert neighbours([[1, -1, -1], [-1, -1, -1]]) == []


def test_no_nucleus_needs_no_colour():
    assert neighbours(np.zeros((4, 5))) == []
    assert colours_of(np.zeros((4, 5), np.int32)).shape == (0, 3)


def test_every_colour_shows_on_black_and_on_white():
    on_black, on_white = contrast(_PALETTE)
    assert on_black.min() > 4.5
    assert on_white.min() > 2.5


def test_colours_differ_clearly_from_each_other_and_from_haematoxylin():
    lab = rgb2lab(_PALETTE[None] / 255)[0]
    apart = deltaE_ciede2000(lab[:, None], lab[None]) + 100 * np.eye(len(lab))
    assert apart.min() > 15
    stain = rgb2lab(np.full((1, len(lab), 3), (90, 50, 120)) / 255)[0]
    assert deltaE_ciede2000(lab, stain).min() > 20


def test_lone_nuclei_take_turns():
    labels = np.zeros((5, 100), np.int32)
    labels[2, 5::20] = np.arange(1, 6)
    assert len(np.unique(colours_of(labels), axis=0)) == 5


def test_colours_are_the_same_every_time():
    labels = relabel(np.random.default_rng(0).integers(0, 30, (20, 20)))
    np.testing.assert_array_equal(colours_of(labels), colours_of(labels))


def test_crowds_of_specks_still_differ():
    """Every pixel its own nucleus: 48 neighbours each, far more than the palette has colours."""
    labels = np.arange(1, 15 * 16 + 1).reshape(15, 16)
    assert assert_no_neighbours_share(labels) > 4000


def test_a_blanket_of_squares():
    labels = np.arange(1, 101).reshape(10, 10).repeat(7, axis=0).repeat(7, axis=1)
    assert_no_neighbours_share(labels)
    assert {tuple(colour) for colour in colours_of(labels).tolist()} <= {tuple(c) for c in _PALETTE.tolist()}


def test_no_neighbours_share_a_colour_in_the_densest_real_images():
    index = DATA / "dsb2018" / "index.csv"
    if not index.is_file():
        pytest.skip("shared/data/dsb2018 is not here")
    with index.open() as file:
        rows = sorted(
            csv.DictReader(file), key=lambda row: int(row["nuclei"]) / int(row["height"]) / int(row["width"])
        )
    dense = [row["id"] for row in rows if int(row["nuclei"]) > 60][-6:]
    pairs = sum(
        assert_no_neighbours_share(relabel(read_labels(index.parent / f"labels/{i}.png"))) for i in dense
    )
    assert pairs > 300
