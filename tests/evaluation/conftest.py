"""Small label images whose scores are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Labels = NDArray[np.int32]


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
