"""Files of outlines, one an image: which kinds there are, and the label image that each makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nuxel.data.aperio_xml import read_regions
from nuxel.data.geojson import read_features
from nuxel.errors import NuxelError
from nuxel.labels.polygons import Points, paint_polygons

_GEOJSON = ".geojson"
OUTLINE_SUFFIXES = (".xml", _GEOJSON)
OUTLINES_END = "_nuclei.geojson"
"""What ``nuxel propagate`` writes after an image's name."""


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
        If the file cannot be used (see :func:`nuxel.data.aperio_xml.read_regions` and
        :func:`nuxel.data.geojson.read_features`), or most of its outlines lie beyond an image of this shape.

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
    path = Path(path)
    if path.suffix.lower() == _GEOJSON:
        nuclei: Sequence[Sequence[Points]] = read_features(path)
    else:
        nuclei = [[region] for region in read_regions(path)]
    owner = [number for number, parts in enumerate(nuclei, 1) for _ in parts]
    parts = [part for of_one in nuclei for part in of_one]
    drawn = [part for part in parts if len(part)]
    within = sum(bool((part.max(axis=0) > 0).all() and (part.min(axis=0) < shape).all()) for part in drawn)
    if 2 * within < len(drawn):
        raise NuxelError(
            f"{path}: only {within} of its {len(drawn)} outlines reach into an image of {shape[0]} x {shape[1]} "
            "pixels; it belongs to another image, or the image was cut or scaled."
        )
    return np.array([0, *owner], np.int32)[paint_polygons(parts, shape)]
