"""Nuclei as smooth outlines in GeoJSON, which QuPath and others open and edit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from nuxel.labels.polygons import Points
from nuxel.labels.splines import Spline

_DIGITS = 3
_SAME = 2e-3
"""Pixels by which the corners of a curve may differ from those that its control points give: rounding."""


def nuclei_geojson(
    splines: Mapping[int, Spline],
    properties: Mapping[int, Mapping[str, Any]],
    stored: Mapping[int, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """A FeatureCollection (RFC 7946) with one polygon a nucleus, in the order of ``properties``.

    Coordinates are ``[x, y]`` in pixels with the origin at the image's upper left corner, as QuPath has them, so that
    the pixel in row r and column c covers ``[c, c + 1] x [r, r + 1]``. They have three decimals.

    Parameters
    ----------
    splines
        The outline of each nucleus, under its number.
    properties
        What JSON can hold of each nucleus, under its number. Numbers are repeated in ``measurements``, since of all
        properties QuPath keeps those and the class.
    stored
        Nuclei that have a feature already: its geometry stays as it is, to the last digit, and so do properties that
        are not given and its class. Its control points stay if its outline is still theirs, and are otherwise those of
        ``splines``, or none.

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
    stored = stored or {}
    features = []
    for number, given in properties.items():
        spline = splines.get(number)
        if number in stored:
            features.append(_kept(stored[number], number, given, spline))
        elif spline is not None:
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [_ring(spline)]},
                    "properties": {
                        **given,
                        "objectType": "annotation",
                        "label": number,
                        "control_points": _plain(spline.control),
                        "measurements": _measurements(number, given),
                    },
                }
            )
    return {"type": "FeatureCollection", "features": features}


def _kept(
    feature: Mapping[str, Any], number: int, given: Mapping[str, Any], spline: Spline | None
) -> dict[str, Any]:
    held = feature.get("properties")
    old = held if isinstance(held, dict) else {}
    merged = {"objectType": "annotation", **old, **given, "label": number}
    measured = old.get("measurements", {})
    if isinstance(measured, dict):
        others = {name: value for name, value in measured.items() if name not in given}
        merged["measurements"] = {**others, **_measurements(number, given)}
    if isinstance(old.get("classification"), dict):
        merged["classification"] = old["classification"]
    if not _is_of(feature.get("geometry"), old.get("control_points")):
        merged.pop("control_points", None)
        if spline is not None:
            merged["control_points"] = _plain(spline.control)
    return {**feature, "properties": merged}


def _measurements(number: int, given: Mapping[str, Any]) -> dict[str, float]:
    return {"label": number, **{name: v for name, v in given.items() if isinstance(v, int | float)}}


def _is_of(geometry: Any, control: Any) -> bool:
    """Whether an outline is the one that control points give, and nobody has changed either."""
    try:
        corners = np.array(geometry["coordinates"][0], float)
        ring = np.array(_ring(Spline(np.array(control, float)[:, ::-1])))
    except (TypeError, ValueError, IndexError, KeyError):
        return False
    return corners.shape == ring.shape and bool(np.abs(corners - ring).max() <= _SAME)


def _ring(spline: Spline) -> list[list[float]]:
    """The corners of a curve as the RFC wants them."""
    ring = spline.polygon()
    if _turned_area(ring) < 0:
        ring = ring[::-1]
    return _plain(np.concatenate([ring, ring[:1]]))


def encode_geojson(
    splines: Mapping[int, Spline],
    properties: Mapping[int, Mapping[str, Any]],
    stored: Mapping[int, Mapping[str, Any]] | None = None,
) -> bytes:
    """What a GeoJSON file of nuclei holds, in UTF-8; see :func:`nuclei_geojson`."""
    found = nuclei_geojson(splines, properties, stored)
    text = json.dumps(found, allow_nan=bool(stored))  # what other programs measured may be no number
    return f"{text}\n".encode()


def _plain(points: Points) -> list[list[float]]:
    """``[x, y]`` of points that are (row, column)."""
    plain: list[list[float]] = points[:, ::-1].round(_DIGITS).tolist()
    return plain


def _turned_area(ring: Points) -> float:
    """Twice the area of a polygon, positive if it turns from the x axis towards the y axis."""
    y, x = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
