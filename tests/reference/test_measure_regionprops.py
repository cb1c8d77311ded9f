"""Every shape and intensity equals scikit-image's regionprops, nucleus by nucleus."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import label, regionprops_table

from nuxel.instances import Instances
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel
from nuxel.measure.nuclei import measure_nuclei

DATA = Path(__file__).parents[2].parent / "shared" / "data"

NAMES = {
    "label": "label",
    "centroid_y": "centroid-0",
    "centroid_x": "centroid-1",
    "y0": "bbox-0",
    "x0": "bbox-1",
    "y1": "bbox-2",
    "x1": "bbox-3",
    "area": "area",
    "perimeter": "perimeter",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}
INTENSITIES = {"mean": "intensity_mean", "min": "intensity_min", "max": "intensity_max"}
ASKED = ["centroid", "bbox", *{name.split("-")[0] for name in NAMES.values()} - {"centroid", "bbox"}]


def check(labels, pixels):
    labels = relabel(labels)
    channels = [f"c{i}" for i in range(pixels.shape[2])]
    ours = measure_nuclei(Instances(labels), pixels, channel_names=channels)
    theirs = regionprops_table(labels, pixels, properties=[*ASKED, *INTENSITIES.values()])
    for name, other in NAMES.items():
        np.testing.assert_allclose(ours[name], theirs[other], atol=2e-6, err_msg=name)
    np.testing.assert_array_equal(np.rint(ours["area"] / ours["solidity"]), hulls(theirs))
    for what, other in INTENSITIES.items():
        for place, channel in enumerate(channels):
            name = f"{what}_{channel}"
            np.testing.assert_allclose(ours[name], theirs[f"{other}-{place}"], rtol=1e-6, err_msg=name)


def hulls(theirs):
    return np.rint(theirs["area"] / theirs["solidity"])


def noise(shape):
    return np.random.default_rng(0).integers(0, 255, (*shape, 2)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_blobs_that_touch(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(90, 110)), 1 + seed / 2)
    labels = label(np.digitize(smooth, np.quantile(smooth, [0.3, 0.6, 0.8])), connectivity=1)
    check(labels, noise(labels.shape))


@pytest.mark.parametrize("seed", range(4))
def test_scattered_pixels_of_few_labels(seed):
    """Nuclei in pieces, with holes, skipping rows: no decoder gives them, every formula must survive them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 5, (23, 31)) * (rng.random((23, 31)) < (0.05, 0.2, 0.5, 1.0)[seed])
    check(labels, noise(labels.shape))


def test_rotated_ellipses_and_rods():
    y, x = np.mgrid[-20:21, -20:21]
    rows = []
    for minor in (1.2, 4, 9):
        row = []
        for angle in np.linspace(0, np.pi, 7)[:-1]:
            along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
            row.append((along / 18) ** 2 + (across / minor) ** 2 <= 1)
        rows.append(np.hstack(row))
    labels = label(np.vstack(rows))
    check(labels, noise(labels.shape))


def test_a_tall_curve_with_a_foot():
    """Each corner hides until the one below it has gone: the slowest case for removing them in rounds."""
    lengths = np.sqrt(np.arange(200) * 40).astype(int)
    lengths[-1] = 150
    labels = (np.arange(151) <= lengths[:, None]).astype(np.int32)
    for turned in (labels, labels[::-1], labels[:, ::-1], labels.T):
        check(turned, noise(turned.shape))


def sampled(folder, count, **where):
    index = DATA / "dsb2018" / "index.csv"
    if not index.is_file():
        pytest.skip("shared/data/dsb2018 is not here")
    with index.open() as file:
        rows = [row for row in csv.DictReader(file) if all(row[k] == v for k, v in where.items())]
    return [
        DATA / "dsb2018" / folder / f"{row['id']}.png" for row in rows[:: max(1, len(rows) // count)][:count]
    ]


@pytest.mark.parametrize(
    "modality", ["fluorescence", "histology_purple_on_purple", "histology_purple_on_white", "brightfield"]
)
def test_real_nuclei(modality):
    for path in sampled("labels", 2, modality=modality):
        pixels = np.asarray(Image.open(path.parents[1] / "images" / path.name).convert("RGB"))
        check(read_labels(path), pixels)


def test_real_tissue():
    path = DATA / "tnbc" / "labels" / "01_1.png"
    if not path.is_file():
        pytest.skip("shared/data/tnbc is not here")
    check(read_labels(path), np.asarray(Image.open(DATA / "tnbc" / "images" / "01_1.png").convert("RGB")))
