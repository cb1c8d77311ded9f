"""An image as it comes off the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Image:
    """One two-dimensional image: grey, or red, green, blue.

    Parameters
    ----------
    pixels
        ``(H, W, C)`` in the file's own dtype (bool, integer or floating point) and range, row by column.
        ``C`` is 1 for a grey image or one chosen channel, 3 for colour. Floats may hold NaN and infinities.
    pixel_size_um
        Length of the side of one pixel in micrometres, ``None`` where it is not known.
    channel_names
        ``C`` names.
    source
        The path that it was read from, as it was given.

    Raises
    ------
    ValueError
        If ``pixels`` is not three-dimensional or there is not one name per channel.

    Examples
    --------
    >>> import numpy as np
    >>> image = Image(np.zeros((4, 6, 3), np.uint8), 0.25, ("red", "green", "blue"), "slide.tif")
    >>> image.height, image.width
    (4, 6)
    """

    pixels: NDArray[Any]
    pixel_size_um: float | None
    channel_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] != len(self.channel_names):
            raise ValueError(
                f"shape {self.pixels.shape} does not fit (H, W, {len(self.channel_names)} channels)"
            )

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])
