"""The decoder's parameters, where it is known which are best."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nuxel.data.dataset import Source, find_annotated
from nuxel.decode.clumps import ClumpRule
from nuxel.errors import UsageError
from nuxel.predict.card import ModelCard
from nuxel.tiling.grid import Box, crop
from nuxel.training.tune import GRIDS, climb, tune_decoder


class Faint:
    """Sees the truth, bright as 120, and debris as bright, four pixels wide; what is darker it calls 110."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def __call__(self, window: NDArray[np.uint8], inner: Box | None = None) -> NDArray[np.float32]:
        nucleus = np.where(window[..., 0] > 200, 0.47, 0.1).astype(np.float32)
        return crop(np.stack([nucleus, 2 * nucleus, 0 * nucleus, 0 * nucleus]), inner)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of four squares of 10 x 10, and debris of 3 x 3 that the labels do not hold."""
    for name in ("a", "b"):
        image, labels = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint16)
        for number, (y, x) in enumerate([(4, 4), (4, 40), (40, 4), (40, 40)], 1):
            image[y : y + 10, x : x + 10] = 255
            labels[y : y + 10, x : x + 10] = number
        image[24:27, 24:27] = 255
        for kind, array in (("images", image), ("labels", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def test_finds_the_threshold_and_the_size_of_debris(folder: Path, toy_card: ModelCard) -> None:
    card = dataclasses.replace(toy_card, decoder_rule=dataclasses.asdict(ClumpRule(min_marker_area=1)))
    rule, score = tune_decoder(Faint(card), find_annotated(Source(str(folder))))
    assert score == 1
    assert rule.threshold < 0.47
    assert 9 < rule.min_area <= 32


def test_images_that_nobody_annotated_choose_nothing(folder: Path, toy_card: ModelCard) -> None:
    network = Faint(
        dataclasses.replace(toy_card, decoder_rule=dataclasses.asdict(ClumpRule(min_marker_area=1)))
    )
    expected = tune_decoder(network, find_annotated(Source(str(folder), include=("a",))))
    unknown = folder / "labels" / "b.png"
    unknown.unlink()
    tifffile.imwrite(unknown.with_suffix(".tif"), np.full((64, 64), -1, np.int32))
    assert tune_decoder(network, find_annotated(Source(str(folder)))) == expected
    with pytest.raises(UsageError, match="have no annotated pixel"):
        tune_decoder(network, find_annotated(Source(str(folder), include=("b",))))


def test_what_gains_nothing_stays() -> None:
    rule = ClumpRule(threshold=0.42, min_area=9)
    assert climb(rule, lambda _: 0.5) == (rule, 0.5)
    assert climb(rule, lambda other: 0.0005 * (other != rule)) == (rule, 0.0)


def test_goes_on_until_a_round_changes_nothing() -> None:
    """The best marker threshold depends on the score that is chosen after it."""

    def score(rule: ClumpRule) -> float:
        wanted = 0.8 if rule.min_score >= 0.7 else 0.3
        return rule.min_score - 0.1 * abs(rule.marker_threshold - wanted)

    best, _ = climb(ClumpRule(), score)
    assert (best.marker_threshold, best.min_score) == (0.8, 0.8)


def test_markers_do_not_matter_where_nothing_is_split() -> None:
    tried: set[tuple[float, float]] = set()

    def score(rule: ClumpRule) -> float:
        tried.add((rule.marker_threshold, rule.min_marker_area))
        return 0.0

    climb(ClumpRule(split="none"), score)
    assert len(tried) == 1


def test_every_value_that_is_tried_is_allowed() -> None:
    for rule, grid in GRIDS.items():
        for name, values in grid.items():
            for value in values:
                dataclasses.replace(rule(), **{name: value})
