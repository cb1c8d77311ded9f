"""Pixel size and channel names out of OME-XML, ImageJ's description and plain TIFF tags."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import tifffile

from nuxel.errors import NuxelError
from nuxel.image.pixel_size import square_pixel, unit_in_um

_MOST_PLANES = 1_000_000
_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}


def pixel_size_um(tif: tifffile.TiffFile, images: Sequence[tifffile.TiffPageSeries]) -> float | None:
    """Micrometres per pixel: OME's word first, then ImageJ's, then the resolution tags'. None where images differ."""
    sizes = {
        _side_um(tif, series, pixels) for series, pixels in zip(images, _ome_pixels(tif, images), strict=True)
    }
    return sizes.pop() if len(sizes) == 1 else None


def _side_um(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, pixels: ElementTree.Element | None
) -> float | None:
    if pixels is not None:
        x, y = _ome_length(pixels, "PhysicalSizeX"), _ome_length(pixels, "PhysicalSizeY")
        side = square_pixel(x, y)
        # where both are credible and only their being square is not, no other word counts
        if side is not None or None not in (square_pixel(x, None), square_pixel(y, None), x, y):
            return side
    # ImageJ leaves the unit of the tags at "none" and writes its own into the description
    unit = unit_in_um(str((tif.imagej_metadata or {}).get("unit", "")))
    page = series.keyframe
    if unit is None:
        unit = _UM_PER_RESOLUTION_UNIT.get(int(page.resolutionunit))
    if unit is None or "XResolution" not in page.tags:
        return None
    per_x, per_y = page.resolution
    return square_pixel(unit / per_x if per_x > 0 else None, unit / per_y if per_y > 0 else None)


def channel_names(
    tif: tifffile.TiffFile, images: Sequence[tifffile.TiffPageSeries], count: int
) -> tuple[str, ...]:
    """The names of the ``count`` channels, ``"channel 0"`` and so on where the file has none or its images differ."""
    named = [_ome_names(pixels) for pixels in _ome_pixels(tif, images)]
    names = named[0] or _imagej_names(tif, count)
    if len(names) != count or any(other != named[0] for other in named):
        names = [""] * count
    return tuple(name or f"channel {i}" for i, name in enumerate(names))


def refuse_impossible_set(tif: tifffile.TiffFile) -> None:
    """Raise NuxelError where OME-XML asks for more planes than any file has, or for files that are none.

    tifffile would make room for all planes, and wait for what a pipe may say.
    """
    for pixels in _all_ome_pixels(tif):
        sizes = [pixels.get(f"Size{axis}", "1") for axis in "CZT"]
        if math.prod(int(size) for size in sizes if size.isdecimal()) > _MOST_PLANES:
            raise NuxelError(
                f"its header says that it holds {' x '.join(sizes)} planes, more than any file does"
            )
        for uuid in pixels.findall("{*}TiffData/{*}UUID"):
            name = uuid.get("FileName", "")
            path = os.path.join(tif.filehandle.dirname, name)
            if name and os.path.exists(path) and not os.path.isfile(path):
                raise NuxelError(f"it says that planes of it are in {name}, which is not a regular file")


def _all_ome_pixels(tif: tifffile.TiffFile) -> list[ElementTree.Element]:
    try:
        return ElementTree.fromstring(tif.ome_metadata or "<OME/>").findall("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return []


def _ome_pixels(
    tif: tifffile.TiffFile, images: Sequence[tifffile.TiffPageSeries]
) -> list[ElementTree.Element | None]:
    """The Pixels element that describes each of the images, None where there is none."""
    found = _all_ome_pixels(tif)
    place = {id(series): number for number, series in enumerate(tif.series)}
    places = [place[id(series)] for series in images]
    return [found[number] if number < len(found) else None for number in places]


def _ome_length(pixels: ElementTree.Element, name: str) -> float | None:
    unit = unit_in_um(pixels.get(f"{name}Unit", "µm"))
    try:
        return float(pixels.get(name, "")) * unit if unit else None
    except ValueError:
        return None


def _ome_names(pixels: ElementTree.Element | None) -> list[str]:
    return [] if pixels is None else [str(c.get("Name", "")).strip() for c in pixels.findall("{*}Channel")]


def _imagej_names(tif: tifffile.TiffFile, count: int) -> list[str]:
    """ImageJ labels every plane; they name the channels when channels are the only planes."""
    metadata: dict[str, Any] = tif.imagej_metadata or {}
    labels = metadata.get("Labels", [])
    if metadata.get("images") != count or not isinstance(labels, list | tuple):
        return []
    return [str(label).strip() for label in labels]
