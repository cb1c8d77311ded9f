"""Nuclei as polygons in GeoJSON, as QuPath, ``nuxel propagate`` and others write them: one file an image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nuxel.errors import NuxelError
from nuxel.labels.polygons import Points

_FARTHEST = 1e7  # pixels; no slide is as large


@dataclass(frozen=True, eq=False)
class Feature:
    """One nucleus of a GeoJSON file.

    Parameters
    ----------
    parts
        ``(V, 2)`` float64 corners (row, column) of each part of it; V can be 0. Pixel ``(r, c)`` covers
        ``[r, r + 1) x [c, c + 1)``.
    stored
        The feature as it stands in the file.
    """

    parts: list[Points]
    stored: dict[str, Any] = field(repr=False)

    @property
    def properties(self) -> dict[str, Any]:
        """What the file says of the nucleus beside its outline."""
        found = self.stored.get("properties")
        return found if isinstance(found, dict) else {}


def read_features(path: Path | str) -> list[Feature]:
    """The nuclei of a GeoJSON file (RFC 7946), one a feature, in the order of the file.

    Coordinates are ``[x, y]`` in pixels with the origin at the image's upper left corner. Of a cell that QuPath found,
    the nucleus counts. Holes are filled.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features, or one feature, of polygons and multi-polygons.

    Raises
    ------
    NuxelError
        If the file is missing, empty, no JSON or that of something else, a feature is no area, or a corner is not two
        numbers.
    """
    path = Path(path)
    found = _parsed(path)
    if isinstance(found, dict):
        found = found.get("features") if found.get("type") == "FeatureCollection" else [found]
    if not isinstance(found, list) or not all(_is_feature(one) for one in found):
        _refuse(path, "is no GeoJSON with features")
    return [Feature(_parts(path, number, feature), feature) for number, feature in enumerate(found, 1)]


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text)
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})")
    except RecursionError:
        _refuse(path, "is nested too deeply to be GeoJSON")
    except ValueError as error:  # bytes that are no UTF-8, too
        _refuse(path, f"is no JSON ({error})" if path.stat().st_size else "is empty")


def _is_feature(found: Any) -> bool:
    return isinstance(found, dict) and found.get("type") == "Feature"


def _parts(path: Path, number: int, feature: dict[str, Any]) -> list[Points]:
    geometry = feature.get("nucleusGeometry") or feature.get("geometry")
    if not isinstance(geometry, dict):
        geometry = {"type": "no geometry"}
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        _refuse(path, f"has {kind} for feature {number}, but a nucleus is a Polygon or a MultiPolygon")
    polygons: Any = [coordinates] if kind == "Polygon" else coordinates
    try:
        # without the third coordinate that some programs give
        parts = [
            np.array([corner[:2] for corner in polygon[0]], float).reshape(-1, 2) for polygon in polygons
        ]
        if not all((np.abs(part) < _FARTHEST).all() for part in parts):
            raise ValueError
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        _refuse(path, f"has a corner in feature {number} that is not two numbers of pixels")
    return [part[:, ::-1] for part in parts]


def _refuse(path: Path, why: str) -> NoReturn:
    raise NuxelError(
        f"{path}: {why}; use GeoJSON of the nuclei of one image, in pixels, as QuPath exports it."
    )
