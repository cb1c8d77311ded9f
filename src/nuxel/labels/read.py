"""Label images from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nuxel.errors import NuxelError
from nuxel.silence import silenced

TIFF_SUFFIXES = (".tif", ".tiff")
LABEL_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".npy")
"""Extensions of label images, in lower case."""

MOST_PARTS = 4
"""Of one nucleus, which the edge of an image or of an annotation may cut."""

_INT32_MAX = np.iinfo(np.int32).max
_INT32_MIN = np.iinfo(np.int32).min


def read_labels(path: Path | str) -> NDArray[np.int32]:
    """Read a label image: TIFF, PNG or NPY, of any integer type.

    The numbers stay as they are in the file: not made sequential, negative ones (not annotated) kept.
    A palette PNG gives its indices, not its colours.

    Returns
    -------
    ``(H, W)`` int32.

    Raises
    ------
    NuxelError
        If the file is missing or damaged, or holds floats, a yes/no mask (also one of integers: several
        regions of 1, 255 or the type's highest number, and 0), a colour picture, more than two dimensions, or numbers
        that int32 cannot hold.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise NuxelError(f"{path}: labels are read from {known} files; save them as one of these.")
    try:
        array = np.asarray(reader(path))
    # Each decoder has errors of its own, and all mean that this file cannot be used.
    except Exception as error:
        raise NuxelError(f"{path}: cannot be read as a label image ({_reason(error)}).") from error
    return _as_labels(array, path)


def _read_png(path: Path) -> NDArray[Any]:
    with silenced(), Image.open(path, formats=["PNG"]) as picture:
        return np.asarray(picture)


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".tif": tifffile.imread,
    ".tiff": tifffile.imread,
    ".png": _read_png,
    ".npy": _read_npy,
}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def count_marked(array: NDArray[Any]) -> tuple[int, int]:
    """The one number with which a yes/no mask marks what it means, and how many 8-connected regions have it.

    Programs save masks of 0 and 1, of 0 and 255, or of 0 and the highest number of the type. ``(0, 0)`` for an array
    that holds other numbers, or nothing but 0.
    """
    if array.dtype.kind not in "iu":
        return 0, 0
    highest = int(array.max(initial=0))
    if highest not in (1, 255, np.iinfo(array.dtype).max) or not ((array == 0) | (array == highest)).all():
        return 0, 0
    return highest, int(ndimage.label(array, np.ones((3, 3)))[1])


def refuse_mask(path: Path, marked: int, regions: int, most: int = MOST_PARTS) -> None:
    """Refuse what :func:`count_marked` found to be a mask rather than the label image of one nucleus in a few parts."""
    if regions > most:
        raise NuxelError(
            f"{path}: holds only 0 and {marked}, in several regions: a yes/no mask; labels must be integers, "
            "a number of its own a nucleus."
        )


def _as_labels(array: NDArray[Any], path: Path) -> NDArray[np.int32]:
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim == 3 and array.shape[-1] in (2, 3, 4):
        raise NuxelError(f"{path}: is a colour picture {array.shape}; labels must be one number a pixel.")
    if array.ndim != 2:
        raise NuxelError(f"{path}: has shape {array.shape}; labels must be one plane of rows and columns.")
    # most programs save masks as bytes of 0 and 255
    usual = array.dtype == np.uint8 and array.max(initial=0) == 255
    refuse_mask(path, *count_marked(array), most=1 if usual else MOST_PARTS)
    if array.dtype.kind == "b":
        raise NuxelError(f"{path}: is a yes/no mask; labels must be integers, a number of its own a nucleus.")
    if array.dtype.kind not in "iu":
        raise NuxelError(f"{path}: holds {array.dtype} values; labels must be integers.")
    lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
    if lowest < _INT32_MIN or highest > _INT32_MAX:
        raise NuxelError(
            f"{path}: holds {lowest}..{highest}; labels must lie within {_INT32_MIN}..{_INT32_MAX}."
        )
    return np.ascontiguousarray(array, np.int32)
