"""Read one image of any format, or say in one sentence why not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.image import raster, tiff
from nuxel.image.choose import choose_planes
from nuxel.image.formats import LATER
from nuxel.image.image import Image
from nuxel.image.pixel_size import checked_pixel_size
from nuxel.image.reader import Reader, Source
from nuxel.silence import silenced

READERS: tuple[Reader, ...] = (tiff, raster)


@dataclass(frozen=True)
class Reading:
    """What to read of each of many files; see :func:`read_image`."""

    channel: str | int | None = None
    z: int | Literal["max"] | None = None
    t: int | None = None
    pixel_size_um: float | None = None

    def __post_init__(self) -> None:
        if self.pixel_size_um is not None:
            checked_pixel_size(self.pixel_size_um)


def read_image(
    path: str | os.PathLike[str],
    *,
    channel: str | int | None = None,
    z: int | Literal["max"] | None = None,
    t: int | None = None,
    pixel_size_um: float | None = None,
) -> Image:
    """Read one two-dimensional image from PNG, JPEG, BMP, TIFF, BigTIFF or OME-TIFF.

    The content decides which format it is, not the extension. Alpha is dropped, palettes are looked up,
    "white is zero" is inverted, CMYK JPEG becomes RGB, and a JPEG is turned upright. Of a pyramid the largest
    level is read.

    Parameters
    ----------
    path
        The file.
    channel
        Name (any case) or index from 0. Must be given for a file of several channels; of a colour image
        (``red``, ``green``, ``blue``) it may be.
    z
        Index from 0, or ``"max"`` for the maximum over all z planes. Must be given for a file of several.
    t
        Index from 0. Must be given for a file of several time points.
    pixel_size_um
        Micrometres per pixel, in place of what the file says. The file is believed between 0.01 and 20
        micrometres and where pixels are square within 1 %; otherwise the size counts as unknown.

    Returns
    -------
    Image
        With ``(H, W, 1)`` or ``(H, W, 3)`` pixels.

    Raises
    ------
    NuxelError
        If the file is missing, damaged, not an image, too large, or ambiguous (then the sentence lists what
        it holds).
    UsageError
        If an argument has no meaning for any file.

    Examples
    --------
    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
    ...     read_image(f"{folder}/a.png", channel="green").pixels.shape
    (4, 6, 1)
    """
    side_um = None if pixel_size_um is None else checked_pixel_size(pixel_size_um)
    with _opened(Path(path)) as source:
        choice = choose_planes(source.layout, channel=channel, z=z, t=t)
        pixels = source.plane(choice.planes[0])
        for index in choice.planes[1:]:
            # fmax, so that a NaN in one plane does not hide what the others show
            pixels = np.fmax(pixels, source.plane(index))
        pixels = _native(pixels if choice.sample is None else pixels[:, :, choice.sample, None])
        if side_um is None:
            side_um = source.layout.pixel_size_um
    return Image(pixels, side_um, choice.names, os.fspath(path))


def files_of(path: Path) -> tuple[Path, ...]:
    """Every file that the planes of an image are in: itself, or the set that an OME-TIFF says it is of.

    The file of the first plane comes first, whichever of the set ``path`` is. Of what cannot be read it is ``path``
    alone; :func:`read_image` says why.
    """
    try:
        with _silence():
            return tiff.files_of(path) if _reader(path) is tiff else (path,)
    except Exception:  # tifffile raises anything on damaged files
        return (path,)


def describe_image(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file holds, from its header alone, ready for JSON; nothing has to be chosen.

    Returns
    -------
    dict
        ``path``, ``format``, ``axes`` (one letter each: T time, C channel, Z depth, Y, X, S colours; others
        have no name in the file), ``shape`` (the length of every axis), ``dtype``, ``channel_names`` and
        ``pixel_size_um`` (``None`` when unknown).

    Raises
    ------
    NuxelError
        If the file is missing, damaged, not an image, or too large.
    """
    with _opened(Path(path)) as source:
        layout = source.layout
    return {
        "path": os.fspath(path),
        "format": layout.format,
        "axes": layout.axes,
        "shape": list(layout.shape),
        "dtype": layout.dtype.name,
        "channel_names": list(layout.channel_names),
        "pixel_size_um": layout.pixel_size_um,
    }


_NOT_READ = ("not supported", "Unsupported", "unsupported", "cannot handle", "not a known COMPRESSION")
"""With these words codecs refuse what is whole."""


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    """The opened file; whatever goes wrong while it is open becomes one sentence that names it."""
    try:
        with _silence(), _reader(path).open_source(path) as source:
            yield source
    except NuxelError as error:
        raise type(error)(_sentence(path, str(error))) from error
    except MemoryError as error:
        raise NuxelError(f"{path}: there is not enough memory to read it") from error
    except PermissionError as error:
        raise NuxelError(f"{path}: you have no permission to read it") from error
    except Exception as error:
        # the codecs raise anything on damaged files: struct.error, KeyError, SyntaxError ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if not isinstance(error, TypeError) and any(words in reason for words in _NOT_READ):
            raise NuxelError(
                f"{path}: it is of a kind that is not read ({reason}): save it as PNG, or as TIFF without compression"
            ) from error
        raise NuxelError(f"{path}: it is damaged or incomplete ({reason})") from error


def _sentence(path: Path, text: str) -> str:
    return f"{path} {text}" if text.startswith(("holds ", "has ")) else f"{path}: {text}"


def _reader(path: Path) -> Reader:
    form = LATER.get(path.suffix.lower())
    if not path.exists():
        raise NuxelError("there is no such file")
    if form:
        raise NuxelError(f"it is in {form} format, which nuxel has no reader for yet: export it as OME-TIFF")
    if path.is_dir():
        raise NuxelError("it is a folder, where one image file is needed")
    if not path.is_file():
        raise NuxelError("it is not a regular file")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise NuxelError("it is empty (0 bytes)")
    for reader in READERS:
        if reader.recognises(head):
            return reader
    raise NuxelError("its content is not PNG, JPEG, BMP or TIFF")


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what tifffile logs and Pillow warns about off the user's screen: errors tell what matters."""
    log = logging.getLogger("tifffile")

    def reject(_: logging.LogRecord) -> bool:
        return False

    log.addFilter(reject)
    try:
        with silenced():
            yield
    finally:
        log.removeFilter(reject)


def _native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Contiguous, in memory and in the byte order of this machine, whatever the file's."""
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
