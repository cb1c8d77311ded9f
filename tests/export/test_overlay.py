from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuxel.errors import NuxelError
from nuxel.export.colours import NEIGHBOUR_GAP, choose_colours
from nuxel.export.overlay import draw_overlay, write_overlay
from nuxel.instances import Instances
from nuxel.labels.border import border_pixels
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def scene():
    labels = np.zeros((20, 30), np.int32)
    labels[4:12, 3:11] = 1
    labels[4:12, 11:20] = 2
    labels[16:20, 25:30] = 3
    display = np.random.default_rng(0).integers(100, 120, (20, 30, 3)).astype(np.uint8)
    return display, Instances(labels)


def changed(display, nuclei):
    return (draw_overlay(display, nuclei) != display).any(axis=2)


def test_only_the_outermost_pixels_are_drawn():
    display, nuclei = scene()
    expected = np.zeros((20, 30), bool)
    expected[4:12, 3:20] = True
    expected[5:11, 4:10] = False
    expected[5:11, 12:19] = False
    expected[16:20, 25:30] = True
    expected[17:19, 26:29] = False
    np.testing.assert_array_equal(changed(display, nuclei), expected)


def test_each_outline_has_one_colour_and_neighbours_another():
    display, nuclei = scene()
    drawn = draw_overlay(display, nuclei)
    outline = changed(display, nuclei)
    colours = [np.unique(drawn[outline & (nuclei.labels == label)], axis=0) for label in (1, 2, 3)]
    assert [len(colour) for colour in colours] == [1, 1, 1]
    assert colours[0].tolist() != colours[1].tolist()


@pytest.mark.parametrize("value", [0, 255])
def test_outlines_show_on_black_and_on_white(value):
    _, nuclei = scene()
    display = np.full((20, 30, 3), value, np.uint8)
    outline = changed(display, nuclei)
    drawn = draw_overlay(display, nuclei)[outline].astype(int)
    assert np.abs(drawn - value).max(axis=1).min() > 150


def test_the_image_stays_as_it_was():
    display, nuclei = scene()
    before = display.copy()
    draw_overlay(display, nuclei)
    np.testing.assert_array_equal(display, before)


def test_a_view_is_drawn_like_a_copy():
    display, nuclei = scene()
    view = display[:, ::-1]
    np.testing.assert_array_equal(draw_overlay(view, nuclei), draw_overlay(view.copy(), nuclei))
    planes = np.asfortranarray(display)
    np.testing.assert_array_equal(draw_overlay(planes, nuclei), draw_overlay(display, nuclei))


def test_without_nuclei_the_image_is_shown_as_it_is():
    display, _ = scene()
    nothing = Instances(np.full((20, 30), -1, np.int32))
    np.testing.assert_array_equal(draw_overlay(display, nothing), display)


def test_a_nucleus_of_one_pixel_is_drawn():
    labels = np.zeros((3, 3), np.int32)
    labels[1, 1] = 1
    assert changed(np.zeros((3, 3, 3), np.uint8), Instances(labels)).sum() == 1


@pytest.mark.parametrize(
    "display", [np.zeros((20, 30, 3)), np.zeros((20, 30), np.uint8), np.zeros((9, 30, 3), np.uint8)]
)
def test_an_image_that_does_not_fit_is_refused(display):
    with pytest.raises(ValueError, match="display must be"):
        draw_overlay(display, scene()[1])


def test_the_file_holds_what_was_drawn(tmp_path):
    display, nuclei = scene()
    write_overlay(tmp_path / "overlay.png", display, nuclei)
    with Image.open(tmp_path / "overlay.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), draw_overlay(display, nuclei))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(NuxelError, match=r"overlay\.png: cannot be written"):
        write_overlay(tmp_path / "nowhere" / "overlay.png", *scene())


def test_every_real_nucleus_is_outlined():
    folder = DATA / "tnbc"
    if not folder.is_dir():
        pytest.skip("shared/data/tnbc is not here")
    display = np.asarray(Image.open(folder / "images" / "01_1.png").convert("RGB"))
    nuclei = Instances(relabel(read_labels(folder / "labels" / "01_1.png")))
    outlined = np.unique(nuclei.labels[changed(display, nuclei)])
    np.testing.assert_array_equal(outlined, np.arange(1, len(nuclei) + 1))


def test_each_nucleus_has_the_colour_that_was_chosen_for_it():
    labels = np.arange(1, 101).reshape(10, 10).repeat(7, axis=0).repeat(7, axis=1).astype(np.int32)
    padded = np.pad(labels, NEIGHBOUR_GAP + 1)
    colours = choose_colours(padded, border_pixels(padded), 100)
    drawn = draw_overlay(np.zeros((*labels.shape, 3), np.uint8), Instances(labels))
    for number in range(1, 101):
        own = drawn[(labels == number) & drawn.any(axis=2)]
        assert len(own)
        assert (own == colours[number - 1]).all()
