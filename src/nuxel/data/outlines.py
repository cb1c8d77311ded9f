"""Files of outlines, one an image: which kinds there are, and the label image that each makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.data.aperio_xml import read_regions
from nuxel.data.geojson import Feature, read_features
from nuxel.errors import NuxelError
from nuxel.labels.polygons import Points, paint_polygons, pixels_of, polygon_runs

_GEOJSON = ".geojson"
OUTLINE_SUFFIXES = (".xml", _GEOJSON)


@dataclass(frozen=True, eq=False)
class Outlines:
    """The nuclei of a file of outlines.

    Parameters
    ----------
    path
        The file.
    nuclei
        The parts of each nucleus, ``(V, 2)`` float64 corners (row, column) each.
    features
        What a GeoJSON file says of each nucleus; empty for Aperio XML.
    """

    path: Path
    nuclei: Sequence[Sequence[Points]]
    features: Sequence[Feature] = ()

    @cached_property
    def _parts(self) -> list[Points]:
        return [part for of_one in self.nuclei for part in of_one]

    @cached_property
    def _owner(self) -> NDArray[np.int32]:
        """The number of each part's nucleus."""
        return np.array([n for n, parts in enumerate(self.nuclei, 1) for _ in parts], np.int32)

    def paint(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """The label image ``(H, W)``; see :func:`read_outlines`.

        Raises
        ------
        NuxelError
            If most of the outlines lie beyond an image of this shape.
        """
        drawn = [part for part in self._parts if len(part)]
        within = sum(
            bool((part.max(axis=0) > 0).all() and (part.min(axis=0) < shape).all()) for part in drawn
        )
        if 2 * within < len(drawn):
            raise NuxelError(
                f"{self.path}: only {within} of its {len(drawn)} outlines reach into an image of {shape[0]} x "
                f"{shape[1]} pixels; it belongs to another image, or the image was cut or scaled."
            )
        return np.append(np.int32(0), self._owner)[paint_polygons(self._parts, shape)]

    def count_shared(self, shape: tuple[int, int]) -> int:
        """Pixels that more than one nucleus encloses."""
        runs = polygon_runs(self._parts, shape)
        owner = np.repeat(self._owner[runs.value].astype(np.int64), runs.stop - runs.start)
        several = len(self.nuclei) + 1
        pixels = np.unique(pixels_of(runs, shape[1]) * several + owner) // several
        return int((np.unique(pixels, return_counts=True)[1] > 1).sum())


def load_outlines(path: Path | str) -> Outlines:
    """The nuclei of an Aperio XML or GeoJSON file, by its suffix.

    Raises
    ------
    NuxelError
        If the file cannot be used: see :func:`nuxel.data.aperio_xml.read_regions` and
        :func:`nuxel.data.geojson.read_features`.
    """
    path = Path(path)
    if path.suffix.lower() == _GEOJSON:
        features = read_features(path)
        return Outlines(path, [feature.parts for feature in features], features)
    return Outlines(path, [[region] for region in read_regions(path)])


def read_outlines(path: Path | str, shape: tuple[int, int]) -> NDArray[np.int32]:
    """The label image of an Aperio XML or GeoJSON file: its i-th nucleus has the number i.

    Where nuclei overlap, the smaller one keeps the pixel, so that none is lost inside another. A number is missing, the
    nucleus without a pixel, where it encloses nothing (fewer than three corners, or all on one line), is drawn again
    later in the file, or lies beyond the image; every other nucleus has at least one pixel. See
    :func:`nuxel.labels.polygons.paint_polygons`.

    Parameters
    ----------
    path
        The file, of which the suffix says what it is.
    shape
        ``(H, W)`` of the image that it belongs to, which the file itself does not say.

    Returns
    -------
    ``(H, W)`` int32; 0 is background.

    Raises
    ------
    NuxelError
        If the file cannot be used (see :func:`load_outlines`), or most of its outlines lie beyond an image of this
        shape.

    Examples
    --------
    >>> import tempfile
    >>> corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in [(1, 0), (4, 0), (4, 2), (1, 2)])
    >>> region = f"<Region><Vertices>{corners}</Vertices></Region>"
    >>> xml = f"<Annotations><Annotation><Regions>{region}</Regions></Annotation></Annotations>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.xml"
    ...     _ = path.write_text(xml)
    ...     read_outlines(path, (3, 5)).tolist()
    [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    """
    return load_outlines(path).paint(shape)
