"""Small label images whose scores are known, and folders of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

Labels = NDArray[np.int32]
Save = Callable[..., Path]


@pytest.fixture
def squares() -> Callable[..., Labels]:
    """Draw nuclei as squares of 10 x 10 pixels on a grid; ``shift`` moves those named to the right."""

    def draw(*numbers: int, shift: dict[int, int] | None = None, shape: tuple[int, int] = (40, 60)) -> Labels:
        labels = np.zeros(shape, np.int32)
        for number in numbers:
            row, column = divmod(number - 1, 4)
            left = 2 + 14 * column + (shift or {}).get(number, 0)
            labels[2 + 13 * row : 12 + 13 * row, left : left + 10] = number
        return labels

    return draw


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save labels (or any array) below ``tmp_path``, in the format that the name says."""

    def write(name: str, array: NDArray[np.generic]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, array)
        elif path.suffix == ".tif":
            tifffile.imwrite(path, array)
        else:
            Image.fromarray(array if array.dtype == np.uint8 else array.astype(np.uint16)).save(path)
        return path

    return write
