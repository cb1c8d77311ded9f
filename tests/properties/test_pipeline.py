"""The nuclei of a real image are the same whatever the tiles: on a mosaic of real images, with the shipped model."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nuxel.image.normalise import normalise
from nuxel.instances import Instances
from nuxel.metrics.matching import match
from nuxel.predict.model import DEFAULT_MODEL, Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised

ROOT = Path(__file__).parents[2]
DSB = ROOT.parent / "shared" / "data" / "dsb2018"
SIDE, PATCH = 2048, 256


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(model_path(DEFAULT_MODEL), threads=2, device="cpu")


def crowded(count: int) -> Iterator[NDArray[np.uint8]]:
    """Crowded fluorescence images of one size; where the development data are not, one of the examples in all turns."""
    if not DSB.is_dir():
        dense = np.asarray(Image.open(ROOT / "examples" / "fluorescence_dense.png"))
        yield from (np.rot90(dense[:: -1 if number & 4 else 1], number) for number in range(count))
        return
    with (DSB / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == "fluorescence"]
    rows = [row for row in rows if (row["height"], row["width"]) == (str(PATCH), str(PATCH))]
    rows.sort(key=lambda row: (-int(row["nuclei"]), row["id"]))
    for row in rows[:count]:
        yield np.asarray(Image.open(DSB / "images" / f"{row['id']}.png").convert("L"))


@pytest.fixture(scope="module")
def mosaic() -> NDArray[np.uint8]:
    """Real images side by side, moved so that their borders are not those of the tiles."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    for number, pixels in enumerate(crowded((SIDE // PATCH) ** 2)):
        y, x = (PATCH * place for place in divmod(number, SIDE // PATCH))
        image[y : y + PATCH, x : x + PATCH] = normalise(pixels)[..., 0]
    return normalise(np.roll(image, (93, 115), axis=(0, 1)))


@pytest.fixture(scope="module")
def whole(mosaic: NDArray[np.uint8], model: Model) -> Instances:
    return segment_normalised(mosaic, model, Options(scale=1, tile_size=SIDE)).nuclei


def on_seams(labels: NDArray[np.int32], tile: int) -> NDArray[np.int32]:
    """The nuclei that lie on both sides of a seam between tiles."""
    found = [
        side[k - 1][(side[k - 1] == side[k]) & (side[k] > 0)]
        for side in (labels, labels.T)
        for k in range(tile, len(side), tile)
    ]
    return np.unique(np.concatenate(found))


def on_corners(labels: NDArray[np.int32], tile: int) -> int:
    """How many nuclei cover a point where four tiles meet."""
    return int(np.count_nonzero(labels[tile::tile, tile::tile]))


def assert_same(found: Instances, expected: Instances) -> None:
    assert len(found) == len(expected) == match(expected.labels, found.labels, 0.9).true_positives
    foreground = np.count_nonzero(expected.labels)
    different = np.count_nonzero((found.labels > 0) != (expected.labels > 0))
    assert different <= foreground / 10_000
    # an unequal split of two neighbours is as wrong as a moved outline
    assert np.count_nonzero(found.labels != expected.labels) <= foreground / 10_000


def test_the_mosaic_is_a_hard_one(whole: Instances) -> None:
    assert len(whole) >= 1000
    assert len(on_seams(whole.labels, 256)) >= 150
    assert on_corners(whole.labels, 256) >= 3


@pytest.mark.parametrize("tile_size", [256, 320, 640])
def test_tiles_do_not_change_the_nuclei(
    mosaic: NDArray[np.uint8], model: Model, whole: Instances, tile_size: int
) -> None:
    assert_same(segment_normalised(mosaic, model, Options(scale=1, tile_size=tile_size)).nuclei, whole)


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7, 2.84])
def test_nor_do_they_at_other_scales(model: Model, scale: float) -> None:
    image = np.asarray(Image.open(ROOT / "examples" / "fluorescence_dense.png"))
    image = normalise(image[96:, 64:224])
    expected = segment_normalised(image, model, Options(scale=scale)).nuclei
    assert len(expected) > 25
    assert_same(segment_normalised(image, model, Options(scale=scale, tile_size=64)).nuclei, expected)
