"""Everything that is measured of every nucleus, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.instances import Instances
from nuxel.labels.runs import Runs, find_runs
from nuxel.measure.extent import find_areas, find_boxes, fit_ellipses
from nuxel.measure.hull import find_hull_areas
from nuxel.measure.intensity import measure_channels
from nuxel.measure.perimeter import find_perimeters
from nuxel.measure.table import NucleusTable

_LENGTHS = frozenset({"centroid_y", "centroid_x", "perimeter", "major_axis", "minor_axis"})


def measure_nuclei(
    nuclei: Instances,
    pixels: NDArray[Any],
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size_um: float | None = None,
) -> NucleusTable:
    """Measure place, size, shape and intensity of every nucleus.

    Parameters
    ----------
    nuclei
        N nuclei, numbered without gaps. Negative labels (not annotated) are not measured.
    pixels
        ``(H, W)`` or ``(H, W, C)`` booleans, integers or floats: the image as it was read, not normalised. Values that
        are not finite are left out of the intensities.
    channel_names
        C names, for the columns of intensities; ``channel_0`` and so on by default. Where one is empty or occurs twice,
        all get their place appended.
    pixel_size_um
        Side of a pixel in micrometres. When given, each column of lengths or areas is followed by the same
        in micrometres, with ``_um`` or ``_um2`` after its name.

    Returns
    -------
    N rows with the columns ``label``, ``centroid_y``, ``centroid_x``, the half-open box ``y0``, ``x0``,
    ``y1``, ``x1``, ``area``, ``perimeter``, ``major_axis``, ``minor_axis``, ``eccentricity``, ``solidity``,
    then ``mean_``, ``min_`` and ``max_`` of each channel (``mean_intensity`` and so on if there is only one),
    ``score`` and ``touches_edge`` (0 or 1). Everything is defined as in scikit-image's ``regionprops``;
    centroids count from the centre of the first pixel.

    Raises
    ------
    ValueError
        If the image and the labels differ in size, the names do not match the channels, or a number is
        missing among the labels.

    Examples
    --------
    >>> labels = np.zeros((5, 8), np.int32)
    >>> labels[1:4, 2:7] = 1
    >>> pixels = np.full((5, 8, 1), 9)
    >>> table = measure_nuclei(Instances(labels), pixels, channel_names=["DAPI"], pixel_size_um=0.5)
    >>> [float(table[name][0]) for name in ("centroid_x", "area", "area_um2", "solidity", "mean_intensity")]
    [4.0, 15.0, 3.75, 1.0, 9.0]
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channel_names = [""] * pixels.shape[-1] if channel_names is None else channel_names
    _check(nuclei, pixels, channel_names)
    runs = find_runs(nuclei.labels)
    runs = runs.where(runs.value > 0)
    columns = _measure_shapes(nuclei, runs)
    intensities = measure_channels(runs, pixels, len(nuclei))
    for name, channel in zip(_distinct(channel_names), intensities, strict=True):
        columns[f"mean_{name}"] = channel.mean
        columns[f"min_{name}"] = channel.lowest
        columns[f"max_{name}"] = channel.highest
    columns["score"] = nuclei.scores
    columns["touches_edge"] = _touches_edge(columns, nuclei.labels.shape)
    if pixel_size_um is not None:
        columns = dict(_with_micrometres(columns, pixel_size_um))
    return NucleusTable(columns)


def _check(nuclei: Instances, pixels: NDArray[Any], channel_names: Sequence[str]) -> None:
    if pixels.ndim != 3 or pixels.shape[:2] != nuclei.labels.shape or pixels.dtype.kind not in "biuf":
        expected = f"({nuclei.labels.shape[0]}, {nuclei.labels.shape[1]}, C) real"
        raise ValueError(f"pixels must be {expected} numbers, got {pixels.shape} {pixels.dtype}")
    if len(channel_names) != pixels.shape[2]:
        raise ValueError(f"{pixels.shape[2]} channels need as many names, got {list(channel_names)}")


def _measure_shapes(nuclei: Instances, runs: Runs) -> dict[str, NDArray[Any]]:
    count = len(nuclei)
    areas = find_areas(runs, count)
    if not areas.all():
        missing = int(np.argmin(areas)) + 1
        raise ValueError(f"labels must be 1..{count} without gaps, but {missing} is missing: relabel them")
    boxes = find_boxes(runs, count)
    ellipses = fit_ellipses(runs, areas, boxes)
    return {
        "label": np.arange(1, count + 1, dtype=np.int32),
        "centroid_y": ellipses.centroid_y,
        "centroid_x": ellipses.centroid_x,
        **dict(zip(("y0", "x0", "y1", "x1"), boxes.T, strict=True)),
        "area": areas,
        "perimeter": find_perimeters(nuclei.labels, count),
        "major_axis": ellipses.major_axis,
        "minor_axis": ellipses.minor_axis,
        "eccentricity": ellipses.eccentricity,
        "solidity": areas / find_hull_areas(runs, boxes),
    }


def _distinct(names: Sequence[str]) -> list[str]:
    if len(names) == 1:
        return ["intensity"]
    named = [name or "channel" for name in names]
    if len(set(named)) == len(named):
        return named
    return [f"{name}_{place}" for place, name in enumerate(named)]


def _touches_edge(columns: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    at_start = (columns["y0"] == 0) | (columns["x0"] == 0)
    at_end = (columns["y1"] == shape[0]) | (columns["x1"] == shape[1])
    return np.asarray(at_start | at_end, np.uint8)


def _with_micrometres(
    columns: dict[str, NDArray[Any]], pixel_size_um: float
) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, column in columns.items():
        yield name, column
        if name in _LENGTHS:
            yield f"{name}_um", column * pixel_size_um
        elif name == "area":
            yield "area_um2", column * pixel_size_um**2
