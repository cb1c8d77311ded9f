"""What every file format offers: a layout known from its header, and planes decoded on demand."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError

COLOUR_NAMES = ("red", "green", "blue")
MAX_PIXELS = 2**31
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Layout:
    """What a file holds, without any of its pixels.

    Parameters
    ----------
    format
        Such as ``"PNG"`` or ``"OME-TIFF"``.
    axes
        One letter an axis, in the order of ``shape``: ``T`` time, ``C`` channel, ``Z`` depth, then always
        ``YX``, then ``S`` for red, green, blue. Any other letter is an axis that the file does not name, such
        as the pages of a plain TIFF stack. Apart from ``YX`` no axis has length 1.
    shape
        Length of every axis.
    dtype
        Of the pixels.
    channel_names
        One name for each ``C``, for each ``S``, or for the only channel.
    pixel_size_um
        Micrometres per pixel, ``None`` where the file does not say so credibly.
    """

    format: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channel_names: tuple[str, ...]
    pixel_size_um: float | None

    @property
    def plane_axes(self) -> str:
        """The axes in front of ``YX``, those that number the planes."""
        return self.axes[: self.axes.index("YX")]

    @property
    def is_colour(self) -> bool:
        """Whether a plane is red, green, blue."""
        return self.axes.endswith("S")


class Source(Protocol):
    """An opened file."""

    @property
    def layout(self) -> Layout:
        """What the file holds."""
        ...

    def plane(self, index: Sequence[int]) -> NDArray[Any]:
        """``(H, W, C)`` pixels of the plane at ``index``, one number for each of ``layout.plane_axes``."""
        ...


class Reader(Protocol):
    """A file format; a module with these two functions is one."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with ``head`` (16 bytes or the whole file) is of this format."""
        ...

    def open_source(self, path: Path) -> AbstractContextManager[Source]:
        """Read the header; raises any exception whatever on a damaged file."""
        ...


_WORKING_BYTES = 10
"""That every pixel needs besides when it is worked on: the normalised image, the maps, the labels."""


def refuse_too_large(height: int, width: int, bytes_per_pixel: int) -> None:
    """Raise NuxelError when an image has more than ``MAX_PIXELS``, or needs more memory than there is to work on."""
    if height < 1 or width < 1:
        raise NuxelError(f"its header says that it is {height} x {width} pixels, which is no image")
    if height * width > MAX_PIXELS:
        raise NuxelError(
            f"its header says that it is {height} x {width} pixels, more than the limit of {MAX_PIXELS}"
        )
    needed = height * width * (bytes_per_pixel + _WORKING_BYTES)
    if needed > available_memory():
        raise NuxelError(
            f"its {height} x {width} pixels need {needed / 2**30:.1f} GiB, more than this machine grants"
        )


def available_memory() -> float:
    """Bytes of memory of this machine or of the container's limit, whichever are fewer; infinite if neither is told."""
    return min(_of_machine(), *map(_of_container, _LIMITS))


def _of_machine() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return math.inf


def _of_container(limit: Path) -> float:
    try:
        return float(limit.read_text())
    except (OSError, ValueError):  # no such control group, or the word max
        return math.inf
