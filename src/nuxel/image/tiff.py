"""TIFF, BigTIFF, OME-TIFF and ImageJ stacks."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.image.reader import COLOUR_NAMES, Layout, available_memory, refuse_too_large
from nuxel.image.tiff_metadata import channel_names, pixel_size_um, refuse_impossible_set
from nuxel.image.tiff_segments import refuse_bad_segments

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG_COMPRESSIONS = (6, 7)
_ALPHA = (1, 2)
_MASK = 4
"""The bit of a page's kind that says: of which pixels of another page are to be seen."""
_LISTED = 8
_VIEW_NAMES = ("label", "macro", "thumbnail", "overview", "preview")
"""What Bio-Formats calls the other pictures of a slide."""
_VIEW = 0.3
"""The next level of a pyramid, or a thumbnail, has at most this share of an image's pixels; rounding included."""


class Samples(Enum):
    """What the samples of one pixel are."""

    GREY = "grey, perhaps with alpha"
    COLOUR = "red, green, blue, perhaps with alpha"
    CHANNELS = "channels"


def recognises(head: bytes) -> bool:
    """See `nuxel.image.reader.Reader`."""
    return head.startswith(_MAGIC)


@contextmanager
def open_source(path: Path) -> Iterator[TiffSource]:
    """See `nuxel.image.reader.Reader`."""
    with tifffile.TiffFile(path) as tif:
        _refuse_missing_pages(tif)
        refuse_impossible_set(tif)
        yield TiffSource(tif)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of the OME-TIFF set that a TIFF file is of, beginning with that of the first plane; else itself."""
    with tifffile.TiffFile(path) as tif:
        refuse_impossible_set(tif)
        # most OME-TIFFs name no file, and to list the pages of a long stack takes time
        series = tif.series if tif.is_ome and "FileName=" in (tif.ome_metadata or "") else []
        pages = [page for one in series for page in one.pages if page is not None]
        return tuple(dict.fromkeys(Path(page.parent.filehandle.path) for page in pages)) or (path,)


class TiffSource:
    """An opened TIFF file.

    Of a pyramid and its thumbnail the largest image is read; equally large ones of one kind are the planes of one
    unnamed axis. Several images of other sizes or kinds are refused. Orientation tags are ignored, as
    microscopes' programs do.
    """

    def __init__(self, tif: tifffile.TiffFile) -> None:
        self._series = _largest(tif.series)
        first = self._series[0]
        self._page = first.keyframe
        _refuse_unreadable(self._page)
        self._samples = _samples(first)
        # unsqueezed, because an image of one row or column must keep it
        self._axes, self._shape = first.get_axes(False), first.get_shape(False)
        self._plane_axes = [
            i
            for i, (axis, length) in enumerate(zip(self._axes, self._shape, strict=True))
            if length > 1 and axis not in "YX" and (axis != "S" or self._samples is Samples.CHANNELS)
        ]
        self.layout = self._described(tif)

    def _described(self, tif: tifffile.TiffFile) -> Layout:
        letters = _distinct("".join(self._axes[i] for i in self._plane_axes).replace("S", "C"))
        lengths = [self._shape[i] for i in self._plane_axes]
        channels = lengths[letters.index("C")] if "C" in letters else 1
        if len(self._series) > 1:
            letters, lengths = "I" + letters, [len(self._series), *lengths]
        height, width = (self._shape[self._axes.index(axis)] for axis in "YX")
        refuse_too_large(height, width, math.ceil(self._page.nbytes / max(1, height * width)))
        names = channel_names(tif, self._series, channels)
        axes, shape = f"{letters}YX", (*lengths, height, width)
        if _is_coloured(self._page, self._samples):
            axes, shape = f"{axes}S", (*shape, 3)
            names = names if channels > 1 else COLOUR_NAMES
        elif names == ("channel 0",):
            names = ("grey",)
        dtype = (
            _palette_dtype(self._page) if self._page.photometric == _PALETTE else np.dtype(self._page.dtype)
        )
        return Layout(_format(tif), axes, shape, dtype, names, pixel_size_um(tif, self._series))

    def plane(self, index: Sequence[int]) -> NDArray[Any]:
        """``(H, W, C)`` pixels of the plane at ``index``, one number for each of ``layout.plane_axes``."""
        numbers = list(index)
        series = self._series[numbers.pop(0) if len(self._series) > 1 else 0]
        where: list[int | slice] = [0] * len(self._axes)
        for position, number in zip(self._plane_axes, numbers, strict=True):
            where[position] = number
        for position, axis in enumerate(self._axes):
            if axis in "YX" or (axis == "S" and self._samples is Samples.COLOUR):
                where[position] = slice(None)
        pixels, page = _decoded(series, self._shape, where)
        if self._samples is Samples.COLOUR:
            planar = self._axes.index("S") < self._axes.index("Y")
            return (np.moveaxis(pixels, 0, -1) if planar else pixels)[:, :, :3]
        if self._axes.index("X") < self._axes.index("Y"):
            pixels = pixels.T
        return _grey_or_palette(pixels, page)


def _largest(found: Sequence[tifffile.TiffPageSeries]) -> list[tifffile.TiffPageSeries]:
    """The series with the most pixels a plane, and those that are exactly like it.

    Raises
    ------
    NuxelError
        If there are others that are no smaller views of it.
    """
    found = [s for s in found if not s.keyframe.subfiletype & _MASK] or list(found)
    best = max(found, key=_area)
    kind = _kind(best)
    alike = [s for s in found if _kind(s) == kind]
    others = [s for s in found if _kind(s) != kind and not _is_view(s, best)]
    if others:
        kinds = [f"{'x'.join(map(str, s.shape))} {s.dtype}" for s in (best, *others[: _LISTED - 1])]
        more = f" and {len(others) - _LISTED + 1} more" if len(others) >= _LISTED else ""
        raise NuxelError(
            f"holds several images that are not planes of one ({', '.join(kinds)}{more}): save the one that you mean "
            "as a file of its own"
        )
    return alike


def _kind(series: tifffile.TiffPageSeries) -> tuple[object, ...]:
    """What all planes of one image have in common."""
    page = series.keyframe
    return series.axes, series.shape, series.dtype, page.photometric, page.samplesperpixel


def _area(series: tifffile.TiffPageSeries) -> int:
    lengths = dict(zip(series.get_axes(False), series.get_shape(False), strict=True))
    return int(lengths.get("Y", 0) * lengths.get("X", 0))


def _is_view(series: tifffile.TiffPageSeries, best: tifffile.TiffPageSeries) -> bool:
    """Whether a series says that it is a reduced view of another image, or is so small that it must be.

    In OME-TIFF views are below their image; what stands beside it is another one, unless it is called a view.
    """
    called = series.kind != "ome" or any(word in series.name.lower() for word in _VIEW_NAMES)
    return bool(series.keyframe.is_reduced) or (called and _area(series) <= _VIEW * _area(best))


def _samples(series: tifffile.TiffPageSeries) -> Samples:
    page = series.keyframe
    count = page.samplesperpixel
    # Zeiss LSM calls three channels RGB, but has no axis of samples
    if page.photometric in (_RGB, _YCBCR) and count in (3, 4) and "S" in series.get_axes(False):
        return Samples.COLOUR
    if count == 1 or (count == 2 and tuple(page.extrasamples) and page.extrasamples[0] in _ALPHA):
        return Samples.GREY
    return Samples.CHANNELS


def _is_coloured(page: tifffile.TiffPage, samples: Samples) -> bool:
    return samples is Samples.COLOUR or page.photometric == _PALETTE


def _distinct(letters: str) -> str:
    """Axes of one name are told apart by nothing, so all but the first of them have no name."""
    return "".join("Q" if axis in letters[:i] else axis for i, axis in enumerate(letters))


def _format(tif: tifffile.TiffFile) -> str:
    if tif.is_ome:
        return "OME-TIFF"
    return "ImageJ TIFF" if tif.is_imagej else "TIFF"


def _decoded(
    series: tifffile.TiffPageSeries, shape: Sequence[int], where: Sequence[int | slice]
) -> tuple[NDArray[Any], tifffile.TiffPage]:
    """The part ``where`` of a series, decoding only the page that holds it, and that page."""
    page_size = math.prod(series.keyframe.shape)
    inside = next(i for i, number in enumerate(where) if isinstance(number, slice))
    split = next((i for i in range(inside, -1, -1) if math.prod(shape[i:]) == page_size), None)
    if split is None:  # rows and columns come before other axes
        if series.nbytes > available_memory() / 2:
            raise NuxelError(
                "its planes lie side by side and do not fit in memory: save it with Y and X as last axes"
            )
        return np.asarray(series.asarray()).reshape(tuple(shape))[tuple(where)], series.keyframe
    numbers = [int(number) for number in where[:split] if not isinstance(number, slice)]
    pages = math.prod(shape[:split])
    if len(series.pages) == 1 < pages:
        # ImageJ and tifffile describe a stack beyond 4 GB by its first page alone
        return np.array(_mapped(series, shape)[tuple(where)]), series.keyframe
    page = series.pages[int(np.ravel_multi_index(numbers, shape[:split])) if split else 0]
    if page is None:
        raise NuxelError("the chosen plane is in another file of its OME-TIFF set, which is missing")
    _refuse_missing_bytes(page, series.keyframe)
    refuse_bad_segments(page, series.keyframe)
    block: NDArray[Any] = page.asarray().reshape(shape[split:])
    # of the pages of one image only palettes differ; to read the tags of each takes time, and some have none
    own = page.aspage() if series.keyframe.photometric == _PALETTE else series.keyframe
    return block[tuple(where[split:])], own


def _mapped(series: tifffile.TiffPageSeries, shape: Sequence[int]) -> NDArray[Any]:
    tif = series.parent
    if series.dataoffset is None or tif is None:
        raise NuxelError("it says that it holds more pages than it does")
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    return np.memmap(tif.filehandle.path, dtype, "r", series.dataoffset, tuple(shape))


def _grey_or_palette(pixels: NDArray[Any], page: tifffile.TiffPage) -> NDArray[Any]:
    """``(H, W, 1)`` with bright as high, or ``(H, W, 3)`` through the palette."""
    if page.photometric == _PALETTE:
        palette = np.asarray(page.colormap)
        dtype = _palette_dtype(page)
        # palettes hold 16 bits, though some programs write 8
        if dtype == np.uint8 and palette.max() > 255:
            palette = palette >> 8
        numbers = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
        return np.moveaxis(palette.astype(dtype)[:, numbers], 0, -1)
    # tifffile writes booleans as they are and calls them "white is zero"
    inverted = page.photometric == _MINISWHITE and not (
        pixels.dtype == bool and str(page.software).startswith("tifffile")
    )
    if inverted and pixels.dtype.kind == "u":
        pixels = pixels.dtype.type(2**page.bitspersample - 1) - pixels
    elif inverted and pixels.dtype.kind in "bi":
        pixels = ~pixels
    elif inverted and np.isfinite(pixels).any():
        finite = pixels[np.isfinite(pixels)]
        pixels = finite.max() + finite.min() - pixels
    return pixels[:, :, None]


def _palette_dtype(page: tifffile.TiffPage) -> np.dtype[Any]:
    """Of the colours: as many as a byte numbers are shown with a byte each, and more keep the palette's 16 bits."""
    return np.dtype(np.uint8 if page.bitspersample <= 8 else np.uint16)


def _refuse_unreadable(page: tifffile.TiffPage) -> None:
    if page.dtype is None or np.dtype(page.dtype).kind not in "buif":
        raise NuxelError(
            f"its pixels are {page.dtype}, where numbers are needed: save it as integers or floats"
        )
    if page.photometric == _PALETTE and page.colormap is None:
        raise NuxelError("it has a palette's numbers and no palette: save it as RGB")
    converted = page.photometric == _YCBCR and page.compression in _JPEG_COMPRESSIONS
    if page.photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE) and not converted:
        raise NuxelError(f"its colours are {_name(page.photometric)}, which is not read: save it as RGB")


def _name(photometric: Any) -> str:
    return getattr(photometric, "name", str(photometric))


def _refuse_missing_pages(tif: tifffile.TiffFile) -> None:
    """A truncated file ends in a page that points to a next one that is not there."""
    if tif.is_ndpi:
        return
    if not len(tif.pages):
        raise NuxelError("it is cut short: its first page is missing")
    layout, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(tif.pages[-1].offset + layout.tagnosize + tags * layout.tagsize)
    if struct.unpack(layout.offsetformat, file.read(layout.offsetsize)) != (0,):
        raise NuxelError("it is cut short: some of its pages are missing")


def _refuse_missing_bytes(page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage) -> None:
    """tifffile leaves what it cannot find unset."""
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    segments = 1 if keyframe.is_contiguous else math.prod(keyframe.chunked)
    if not any(page.databytecounts):
        raise NuxelError("it holds no pixels")
    if max(ends, default=0) > page.parent.filehandle.size or len(ends) < segments:
        raise NuxelError("it is cut short: some of its pixels are missing")
