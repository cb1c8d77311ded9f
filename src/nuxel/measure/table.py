"""The table of measurements: one row a nucleus, one NumPy array a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NucleusTable:
    """Measurements of the nuclei of one image.

    Parameters
    ----------
    columns
        Name to ``(N,)`` array, in the order in which they are shown. All have the same length.

    Raises
    ------
    ValueError
        If the columns differ in length.

    Examples
    --------
    >>> table = NucleusTable({"label": np.array([1, 2]), "area": np.array([10, 30])})
    >>> len(table), table["area"].mean()
    (2, np.float64(20.0))
    """

    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        shapes = {name: np.shape(column) for name, column in self.columns.items()}
        if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"columns must be one-dimensional and equally long, got {shapes}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]
