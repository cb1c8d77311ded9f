"""The size of nuclei, with networks that judge sizes in known ways."""

from types import SimpleNamespace

import numpy as np
import pytest

from nuxel.data.targets import REFERENCE_DIAMETER
from nuxel.predict.scale import TRUSTED, Size, choose_scale, doubt_size, estimate_diameter


class Judge:
    """Sees one bright disc a window and says of its diameter what ``opinion`` makes of the true one."""

    card = SimpleNamespace(maps=("nucleus", "shrunk", "touching", "log_diameter"), stride=16, window=None)

    def __init__(self, diameter, opinion, sees=lambda _: True):
        self.diameter, self.opinion, self.sees, self.looks = diameter, opinion, sees, []

    def __call__(self, window):
        self.looks.append(window.shape)
        # how much the view is shrunk or enlarged, from the period of the stripes in the image
        scale = self.period(window) / 16
        here = self.diameter * scale
        maps = np.zeros((4, *window.shape[:2]), np.float32)
        if self.sees(here):
            maps[0, :8, :8] = 0.9
            maps[3] = np.log2(self.opinion(here) / REFERENCE_DIAMETER)
        return maps

    @staticmethod
    def period(window):
        row = window[window.shape[0] // 2, :, 0].astype(float)
        spectrum = np.abs(np.fft.rfft(row - row.mean(), 16 * len(row)))
        return 16 * len(row) / max(1, int(spectrum.argmax()))


STRIPES = (127 + 100 * np.sin(np.arange(512) * 2 * np.pi / 16)).astype(np.uint8)
IMAGE = np.tile(STRIPES[None, :, None], (512, 1, 3))


def drawn_towards_20(diameter):
    inside = np.clip(diameter, *TRUSTED)
    return inside * (diameter / inside) ** 0.4


@pytest.mark.parametrize("diameter", [8, 12, 20, 37, 45, 70])
def test_finds_the_diameter_although_the_network_is_drawn_to_what_it_knows(diameter):
    assert estimate_diameter(IMAGE, Judge(diameter, drawn_towards_20)) == pytest.approx(diameter, rel=0.2)


@pytest.mark.parametrize("diameter", [4.5, 5.5, 7])
def test_small_nuclei_are_looked_at_enlarged(diameter):
    judge = Judge(diameter, drawn_towards_20)
    assert estimate_diameter(IMAGE, judge) == pytest.approx(diameter, rel=0.15)
    assert len(judge.looks) > 1


@pytest.mark.parametrize("diameter", [160, 500])
def test_very_large_nuclei_are_looked_at_shrunk(diameter):
    """On stripes eight times as wide, so that there are some left where the view is a sixteenth."""
    wide = (127 + 100 * np.sin(np.arange(2048) * 2 * np.pi / 128)).astype(np.uint8)
    judge = Judge(diameter / 8, drawn_towards_20)
    found = estimate_diameter(np.tile(wide[None, :, None], (2048, 1, 3)), judge)
    assert found == pytest.approx(diameter, rel=0.1)


class Votes:
    """Says of the first pixels of a window how large their nucleus is, and how sure it is of them."""

    card = Judge.card

    def __init__(self, sizes, sure):
        self.sizes, self.sure = sizes, sure

    def __call__(self, window):
        maps = np.zeros((4, *window.shape[:2]), np.float32)
        maps[0].ravel()[: len(self.sure)] = self.sure
        maps[3].ravel()[: len(self.sizes)] = np.log2(np.array(self.sizes) / REFERENCE_DIAMETER)
        return maps


@pytest.mark.parametrize(
    ("sizes", "sure", "found"),
    [
        ([20.0] * 25 + [55.0] * 24, [0.9] * 49, 20),  # the median, not the mean
        ([20.0] * 25 + [10.0] * 60, [0.9] * 25 + [0.3] * 60, 20),  # only what is probably a nucleus
        ([20.0] * 20, [0.9] * 20, 20),
        ([20.0] * 19, [0.9] * 19, None),  # too few pixels to go by
    ],
)
def test_whose_vote_counts(sizes, sure, found):
    image = np.zeros((64, 64, 3), np.uint8)
    assert estimate_diameter(image, Votes(sizes, sure)) == (found and pytest.approx(found))


def test_a_trusted_size_needs_one_look():
    judge = Judge(20, drawn_towards_20)
    estimate_diameter(IMAGE, judge)
    assert len(judge.looks) == 1  # all of a small image


def test_nuclei_that_are_seen_only_from_afar_are_found_there():
    judge = Judge(100, drawn_towards_20, sees=lambda diameter: diameter < 60)
    assert estimate_diameter(IMAGE, judge) == pytest.approx(100, rel=0.2)


def test_no_nucleus_has_no_size():
    assert estimate_diameter(IMAGE, Judge(20, drawn_towards_20, sees=lambda _: False)) is None


@pytest.mark.parametrize("says", [lambda _: 500.0, lambda _: 0.5])
def test_a_network_that_says_the_same_at_every_scale_comes_to_an_end(says):
    assert estimate_diameter(IMAGE, Judge(20, says)) > 0


def test_a_network_that_contradicts_itself_comes_to_an_end():
    judge = Judge(20, lambda here: 100.0 if here > 15 else 2.0)
    assert estimate_diameter(IMAGE, judge) > 0
    assert len(judge.looks) < 20


def test_a_pixel_size_helps_only_where_nothing_is_seen():
    # 20 px of 0.5 um are a nucleus of 10 um; of 0.01 um they are one of 0.2 um, of 5 um one of 100 um
    sees = Judge(20, drawn_towards_20)
    for pixel_size in (0.5, 0.01, 5.0):
        assert estimate_diameter(IMAGE, sees, pixel_size) == estimate_diameter(IMAGE, sees)
    nothing = Judge(20, drawn_towards_20, sees=lambda _: False)
    assert estimate_diameter(IMAGE, nothing, 0.5) == pytest.approx(16)


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "doubtful"),
    [
        (20, 0.5, False),
        (20, 0.01, True),
        (20, 5.0, True),
        (20, None, False),
        (None, 0.01, False),
        (20, 2.48 / 20, True),
        (20, 2.52 / 20, False),
        (20, 59.8 / 20, False),
        (20, 60.2 / 20, True),
    ],
)
def test_a_size_that_no_nucleus_has_is_said(diameter, pixel_size, doubtful):
    said = doubt_size(diameter, pixel_size)
    assert bool(said) == doubtful
    assert ("give the pixel size (--pixel-size) if that is wrong" in said) == doubtful


@pytest.mark.parametrize("diameter", [10, 44, 20])
def test_comfortable_sizes_are_left_alone(diameter):
    assert choose_scale(diameter, (10, 44)) == Size(diameter, 1.0)


def test_other_sizes_are_brought_to_the_middle_of_the_range():
    assert choose_scale(100, (10, 40)).scale == pytest.approx(0.2)
    assert choose_scale(8, (10, 40)).scale == pytest.approx(2.5)
    assert choose_scale(1, (10, 40)).scale == 4.0
    assert choose_scale(None, (10, 40)) == Size(None, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (17, 5)])
def test_tiny_images_are_looked_at_whole(shape):
    seen = []

    class Blind(Judge):
        def __call__(self, window):
            seen.append(window.shape)
            return np.zeros((4, *window.shape[:2]), np.float32)

    assert estimate_diameter(np.zeros((*shape, 3), np.uint8), Blind(1, None)) is None
    assert seen[0][0] % 16 == 0
    assert seen[0][1] % 16 == 0


def test_large_images_are_looked_at_in_two_windows_where_the_picture_varies():
    judge = Judge(20, drawn_towards_20)
    large = np.full((1024, 1024, 3), 127, np.uint8)
    large[512:, :512] = IMAGE
    assert estimate_diameter(large, judge) == pytest.approx(20, rel=0.2)
    assert judge.looks == [(256, 256, 3)] * 2


def test_networks_with_a_fixed_window_see_no_other():
    judge = Judge(20, drawn_towards_20)
    judge.card = SimpleNamespace(maps=judge.card.maps, stride=16, window=192)
    for image in (IMAGE, IMAGE[:100, :50]):
        estimate_diameter(image, judge)
    assert set(judge.looks) == {(192, 192, 3)}
