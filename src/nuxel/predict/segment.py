"""``nuxel.segment``: one image in, its nuclei out."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError, UsageError
from nuxel.image.normalise import normalise
from nuxel.image.pixel_size import checked_pixel_size
from nuxel.image.read import read_image
from nuxel.image.resample import ScaledImage
from nuxel.instances import Instances
from nuxel.predict.detect import attention_of, attention_output
from nuxel.predict.model import DEFAULT_MODEL, Model, checked_threads, model_path, open_models
from nuxel.predict.networks import Network
from nuxel.predict.pipeline import Options, segment_normalised


def segment(
    image: NDArray[Any] | str | PathLike[str],
    *,
    model: str | PathLike[str] | Sequence[str | PathLike[str]] = DEFAULT_MODEL,
    channel: str | int | None = None,
    z: int | Literal["max"] | None = None,
    t: int | None = None,
    pixel_size_um: float | None = None,
    threads: int | None = None,
    device: str = "auto",
    threshold: float | None = None,
    min_area: int | None = None,
    scale: float | None = None,
    diameter: float | None = None,
    tile_size: int | None = None,
    tta: bool = False,
) -> Instances:
    """Find every nucleus of one image.

    Parameters
    ----------
    image
        A file, or an array ``(H, W)`` or ``(H, W, C)`` of any real dtype: grey (C is 1), RGB, or RGBA, which is of 8
        bits or floats up to 1. What is not a number (NaN), or masked in a masked array, counts for nothing.
    model
        The name of a model that ships with nuxel, or a model file; the answers of several are averaged.
    channel, z, t
        What to read from a file that holds several (see :func:`nuxel.image.read.read_image`).
    pixel_size_um
        Micrometres per pixel, in place of what the file says.
    threads, device
        See :class:`nuxel.predict.model.Model`.
    threshold, min_area, scale, diameter, tile_size, tta
        See :class:`nuxel.predict.pipeline.Options`.

    Returns
    -------
    The nuclei, their label image as large as the image.

    Raises
    ------
    NuxelError
        If the image or the model cannot be used.

    Examples
    --------
    >>> import nuxel
    >>> import numpy as np
    >>> len(nuxel.segment(np.zeros((64, 64), np.uint8)))
    0
    """
    chosen = Options(threshold, min_area, scale, diameter, tile_size, tta)
    if pixel_size_um is not None:
        pixel_size_um = checked_pixel_size(pixel_size_um)
    files = tuple(_known_by(model_path(name)) for name in _names_of(model))
    network = _open(files, checked_threads(threads), str(device))
    if isinstance(image, (str, PathLike)):
        read = read_image(Path(os.fsdecode(image)), channel=channel, z=z, t=t, pixel_size_um=pixel_size_um)
        pixels, pixel_size_um = read.pixels, read.pixel_size_um
    elif (channel, z, t) != (None, None, None):
        raise UsageError(
            "channel, z and t choose from what a file holds; of an array give the part that is meant"
        )
    else:
        pixels = _checked(image)
    result = segment_normalised(normalise(pixels), network, chosen, pixel_size_um)
    if result.warning:
        warnings.warn(result.warning, stacklevel=2)
    return result.nuclei


def attention_map(
    image: NDArray[np.uint8], model: str | PathLike[str], *, level: int = 4, scale: float = 1.0
) -> NDArray[np.float32]:
    """Where a network with attention gates attends: the coefficients of one pyramid level, ``(H, W)`` in ``[0, 1]``.

    Source: attention Mask R-CNN paper, equation 2 and figure 6; of gates with several channels, their mean.
    Draw it over the image with :func:`nuxel.export.heat_map.draw_heat_map`.

    Parameters
    ----------
    image
        A normalised image, ``(H, W, 3)`` uint8: see :func:`nuxel.image.normalise.normalise`.
    model
        A model file.
    level
        Of the pyramid, whose level n has the stride ``2 ** n``.
    scale
        To run the network at.

    Raises
    ------
    NuxelError
        If the model cannot be used, or has no attention at that level.
    """
    opened = Model(model_path(str(model)))
    attention_output(opened.card, level)
    view = ScaledImage(image, scale)
    whole = attention_of(view, functools.partial(opened.attend, level=level), opened.card)
    rows, columns = (np.arange(n) * m // n for n, m in zip(image.shape[:2], view.shape, strict=True))
    return whole[np.ix_(rows, columns)]


_File = tuple[Path, int, int]
"""A file as it is now: where it is, when it was changed (ns) and how many bytes it has."""


def _known_by(path: Path) -> _File:
    state = path.stat()
    return path.resolve(), state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=4)
def _open(files: tuple[_File, ...], threads: int | None, device: str) -> Network:
    return open_models([path for path, *_ in files], threads=threads, device=device)


def _names_of(model: object) -> list[str]:
    names = [model] if isinstance(model, (str, PathLike)) else model
    if not isinstance(names, Sequence) or not names or not all(isinstance(n, (str, PathLike)) for n in names):
        raise UsageError(f"a model is the name of one that ships, a file, or a list of these, got {model!r}")
    return [os.fsdecode(name) for name in names]


def _may_be_rgba(pixels: NDArray[Any]) -> bool:
    return pixels.dtype == np.uint8 or (pixels.dtype.kind == "f" and not (pixels > 1).any())


def _checked(image: object) -> NDArray[Any]:
    try:
        pixels = np.asanyarray(image)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # rows of different lengths, tensors that NumPy cannot hold
        raise NuxelError(f"an image is a path or an array of numbers: {error}") from None
    if pixels.dtype.kind not in "biuf":
        what = f"an array of {pixels.dtype}" if pixels.ndim else type(image).__name__
        raise NuxelError(f"an image is a path or an array of real numbers, got {what}")
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise NuxelError(
            f"an image is (H, W) or (H, W, C) with at least one pixel, got an array of shape {pixels.shape}"
        )
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels not in (1, 3) and not (channels == 4 and _may_be_rgba(pixels)):
        raise NuxelError(
            f"an image (H, W, C) is grey, RGB or RGBA (of 8 bits, or floats up to 1), got an array of shape "
            f"{pixels.shape}: of a stack or of several channels give one plane, and move the channels to the end"
        )
    if np.ma.is_masked(pixels):
        return np.where(np.ma.getmaskarray(pixels), np.nan, np.ma.getdata(pixels))
    return np.asarray(pixels)
