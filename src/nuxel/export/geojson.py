"""Nuclei as smooth outlines in GeoJSON, which QuPath and others open and edit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nuxel.export.atomic import replacing
from nuxel.labels.polygons import Points
from nuxel.labels.splines import Spline

_POINTS = 8
"""Corners of the polygon for each control point: they lie on the curve, which leaves their chords by far less than a
pixel."""
_DIGITS = 3


def nuclei_geojson(
    splines: Mapping[int, Spline], properties: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """A FeatureCollection (RFC 7946) with one polygon a nucleus, in the order of ``splines``.

    Coordinates are ``[x, y]`` in pixels with the origin at the image's upper left corner, as QuPath has them, so that
    the pixel in row r and column c covers ``[c, c + 1] x [r, r + 1]``. They have three decimals.

    Parameters
    ----------
    splines
        The outline of each nucleus, under its number.
    properties
        What JSON can hold of each nucleus, under its number.

    Returns
    -------
    The properties of a feature are those given, with ``label``, the number, and ``control_points``, the points that the
    spline goes through: a periodic cubic one, with one unit of parameter between two (:class:`Spline`). ``objectType``
    makes QuPath take it for an annotation, which can be edited. The ring is closed, and runs counter-clockwise where y
    points up, as the RFC wants it.

    Examples
    --------
    >>> circle = Spline(np.array([[0.0, 4.0], [4.0, 8.0], [8.0, 4.0], [4.0, 0.0]]))
    >>> (feature,) = nuclei_geojson({7: circle}, {7: {"score": 0.5}})["features"]
    >>> feature["properties"]["label"], feature["properties"]["score"], len(feature["geometry"]["coordinates"][0])
    (7, 0.5, 33)
    """
    features = []
    for number, spline in splines.items():
        ring = spline.points(_POINTS * len(spline.control))
        if _turned_area(ring) < 0:
            ring = ring[::-1]
        closed = np.concatenate([ring, ring[:1]])
        more = {"objectType": "annotation", "label": number, "control_points": _plain(spline.control)}
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [_plain(closed)]},
                "properties": {**properties[number], **more},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write_geojson(
    path: Path | str, splines: Mapping[int, Spline], properties: Mapping[int, Mapping[str, Any]]
) -> None:
    """Write nuclei as GeoJSON; see :func:`nuclei_geojson`.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    text = json.dumps(nuclei_geojson(splines, properties), allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _plain(points: Points) -> list[list[float]]:
    """``[x, y]`` of points that are (row, column)."""
    plain: list[list[float]] = points[:, ::-1].round(_DIGITS).tolist()
    return plain


def _turned_area(ring: Points) -> float:
    """Twice the area of a polygon, positive if it turns from the x axis towards the y axis."""
    y, x = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
