"""Pixel size and channel names out of OME-XML, ImageJ's description and plain TIFF tags."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import tifffile

from nuxel.image.pixel_size import square_pixel, unit_in_um

_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}


def pixel_size_um(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> float | None:
    """Micrometres per pixel: OME's word first, then ImageJ's, then the resolution tags'."""
    pixels = _ome_pixels(tif, series)
    if pixels is not None:
        side = square_pixel(_ome_length(pixels, "PhysicalSizeX"), _ome_length(pixels, "PhysicalSizeY"))
        if side is not None:
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


def channel_names(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, count: int) -> tuple[str, ...]:
    """The names of the ``count`` channels, ``"channel 0"`` and so on where the file has none."""
    names = _ome_names(tif, series) or _imagej_names(tif, count)
    if len(names) != count:
        names = [""] * count
    return tuple(name or f"channel {i}" for i, name in enumerate(names))


def _ome_pixels(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> ElementTree.Element | None:
    """The Pixels element that describes ``series``."""
    if not tif.ome_metadata:
        return None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return None
    found = root.findall("{*}Image/{*}Pixels")
    position = next(i for i, one in enumerate(tif.series) if one is series)
    return found[position] if position < len(found) else None


def _ome_length(pixels: ElementTree.Element, name: str) -> float | None:
    unit = unit_in_um(pixels.get(f"{name}Unit", "µm"))
    try:
        return float(pixels.get(name, "")) * unit if unit else None
    except ValueError:
        return None


def _ome_names(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> list[str]:
    pixels = _ome_pixels(tif, series)
    return [] if pixels is None else [str(c.get("Name", "")).strip() for c in pixels.findall("{*}Channel")]


def _imagej_names(tif: tifffile.TiffFile, count: int) -> list[str]:
    """ImageJ labels every plane; they name the channels when channels are the only planes."""
    metadata: dict[str, Any] = tif.imagej_metadata or {}
    labels = metadata.get("Labels", [])
    if metadata.get("images") != count or not isinstance(labels, list | tuple):
        return []
    return [str(label).strip() for label in labels]
