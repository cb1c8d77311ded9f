"""A folder of annotated images is the same to predicting, training and evaluating, however its names are written."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.data.label_sets import find_labels
from nuxel.evaluation.evaluate import evaluate
from nuxel.evaluation.images import find_displays
from nuxel.image.find import find_images

LABELS = np.zeros((12, 10), np.uint16)
LABELS[2:5, 2:6] = 1
LABELS[7:10, 4:8] = 2


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("images/x.png", "labels/x.png"),
        ("Images/x.png", "Labels/x.png"),
        ("Images/x.png", "labels/x.TIF"),
        ("IMAGES/x.PNG", "MASKS/x.tif"),
        ("images/x.png", "labels/x.Tif"),
        ("images/x.png", "Labels/x_labels.TIF"),
        ("set/Images/deep/x.png", "set/Masks/deep/x.PNG"),
    ],
)
def test_label_images_in_a_folder_beside_the_images(tmp_path: Path, image: str, labels: str) -> None:
    write(tmp_path / image, np.zeros((12, 10), np.uint8))
    write(tmp_path / labels, LABELS)
    everywhere_the_same(tmp_path, image)


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("Images", "masks"), ("Images", "Masks")])
@pytest.mark.parametrize("end", [".png", ".PNG"])
def test_masks_of_one_nucleus_each(tmp_path: Path, images: str, masks: str, end: str) -> None:
    image = f"x/{images}/x{end}"
    write(tmp_path / image, np.zeros((12, 10), np.uint8))
    for label in (1, 2):
        write(tmp_path / "x" / masks / f"{'ab'[label - 1]}{end}", (label == LABELS).astype(np.uint8) * 255)
    everywhere_the_same(tmp_path, image)


def everywhere_the_same(root: Path, image: str) -> None:
    """Each room finds the one image, and for it the two nuclei of LABELS."""
    assert [found.path for found in find_images([root])] == [root / image]
    (annotated,) = find_annotated(Source(str(root)))
    assert annotated.image == root / image
    np.testing.assert_array_equal(read_annotated(annotated)[1], LABELS)
    ((name, source),) = find_labels(root).items()
    assert Path(name).name == "x"
    np.testing.assert_array_equal(source.read(None), LABELS)
    predicted = root.with_name(root.name + "_predicted")
    write(predicted / f"{name}_labels.tif", LABELS)
    assert find_displays(evaluate(predicted, root)) == {name: root / image}
