"""Images for the pictures: beside the truth, or in a folder that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuxel.errors import UsageError
from nuxel.evaluation.evaluate import Evaluation, evaluate
from nuxel.evaluation.images import find_displays, read_display

Draw = Callable[..., np.ndarray]
Save = Callable[..., Path]
IMAGE = np.arange(240, dtype=np.uint8).reshape(12, 20)
LABELS = np.ones((12, 20), np.int32)


def evaluated(tmp_path: Path, save: Save, *truths: str, truth: str = "truth") -> Evaluation:
    for name in truths:
        save(f"{truth}/{name}", LABELS if "masks" not in name else LABELS.astype(np.uint8))
        stem = Path(name).stem if "masks" not in name else name.partition("/")[0]
        save(f"out/{stem}_labels.tif", LABELS)
    return evaluate(tmp_path / "out", tmp_path / truth)


def test_images_beside_labels(tmp_path: Path, save: Save) -> None:
    found = evaluated(tmp_path, save, "labels/a.png", "labels/b.npy")
    assert find_displays(found) == {}
    (tmp_path / "truth" / "images").mkdir()
    assert find_displays(found) == {}
    image = save("truth/images/a.png", IMAGE)
    assert find_displays(found) == {"a": image}


def test_images_beside_masks(tmp_path: Path, save: Save) -> None:
    image = save("truth/x/images/x.png", IMAGE)
    found = evaluated(tmp_path, save, "x/masks/1.png", "y/masks/1.png")
    assert find_displays(found) == {"x": image}


def test_a_folder_that_is_named(tmp_path: Path, save: Save) -> None:
    found = evaluated(tmp_path, save, "a.png", "b.png")
    assert find_displays(found) == {}
    image = save("pictures/deep/a.tif", IMAGE)
    assert find_displays(found, tmp_path / "pictures") == {"a": image}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image in this folder"):
        find_displays(found, tmp_path / "empty")


def test_arrays_have_no_images(squares: Draw) -> None:
    assert find_displays(evaluate(squares(1), squares(1))) == {}


def test_displays_are_stretched(save: Save) -> None:
    display, reason = read_display(save("a.png", IMAGE), (12, 20))
    assert display is not None
    assert (display.shape, display.dtype, reason) == ((12, 20, 3), np.uint8, "")
    assert display.max() == 255


def test_why_not(save: Save, tmp_path: Path) -> None:
    assert read_display(None, (12, 20)) == (None, "no image was found (--images DIR)")
    path = save("a.png", IMAGE)
    assert read_display(path, (12, 21)) == (None, f"{path} is 12 x 20 pixels, its labels 12 x 21")
    (tmp_path / "bad.png").write_bytes(b"text")
    display, reason = read_display(tmp_path / "bad.png", (12, 20))
    assert display is None
    assert reason.startswith(str(tmp_path / "bad.png"))
