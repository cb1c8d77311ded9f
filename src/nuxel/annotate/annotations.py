"""What people have annotated of an image, as ``nuxel propagate`` takes it up: pixels or curves, and who drew them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.data.geojson import Feature
from nuxel.data.label_sets import LabelSource
from nuxel.data.nuclei_table import read_nuclei_table
from nuxel.data.outlines import OUTLINE_SUFFIXES, Outlines, load_outlines
from nuxel.data.thin import UNKNOWN
from nuxel.errors import NuxelError
from nuxel.names import LABELS_END, TABLE_END

Labels = NDArray[np.int32]

HUMAN, PROPOSED = "human", "proposed"


@dataclass(frozen=True, eq=False)
class Annotations:
    """What is annotated of one image.

    Parameters
    ----------
    labels
        ``(H, W)`` int32: a nucleus where positive, known to be none where 0, not annotated where negative.
    features
        The GeoJSON feature of each nucleus that was read from one, under its number. One that others hide, or that
        lies beyond the image, has no pixel and is here all the same.
    proposed
        Nuclei that a model proposed in an earlier round and nobody has confirmed since, with their scores, if they are
        known.
    notes
        What the user should know, a clause each.
    """

    labels: Labels
    features: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    proposed: Mapping[int, float | None] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_annotations(source: LabelSource | None, shape: tuple[int, int]) -> Annotations:
    """The annotations of an image of this shape; without a source nothing is annotated.

    Nuclei of a GeoJSON file have the numbers that its property or measurement ``label`` gives them, if each has a
    positive one of its own, and their places in the file otherwise. Proposals of an earlier round are known by the
    class ``proposed`` of their feature (by its property ``source`` where it has no class), or by the table
    ``<stem>_nuclei.csv`` beside a label image ``<stem>_labels.tif``.

    Raises
    ------
    NuxelError
        If they cannot be read, or are of another shape.
    """
    if source is None:
        return Annotations(np.full(shape, UNKNOWN, np.int32))
    path = Path(source.where)
    if path.suffix.lower() in OUTLINE_SUFFIXES:
        return _drawn(load_outlines(path), shape)
    labels = source.read(shape)
    if labels.shape != shape:
        raise NuxelError(f"{source.where}: is {labels.shape}, but its image is {shape}")
    table = path.with_name(path.name.removesuffix(LABELS_END) + TABLE_END)
    if not path.name.endswith(LABELS_END) or not table.is_file():
        return Annotations(labels)
    present = set(np.unique(labels).tolist())
    return Annotations(labels, proposed={n: score for n, score in _read_table(table).items() if n in present})


def _drawn(outlines: Outlines, shape: tuple[int, int]) -> Annotations:
    numbers = _numbers(outlines)
    painted = outlines.paint(shape)
    labels = np.array([0, *numbers], np.int32)[painted]
    notes = []
    if hidden := len(numbers) - np.count_nonzero(np.bincount(painted.ravel(), minlength=1)[1:]):
        notes.append(
            f"{hidden} of {len(numbers)} outlines have no pixel: hidden by others, drawn twice, without an area, or "
            "beyond the image"
        )
    if shared := outlines.count_shared(shape):
        notes.append(f"outlines overlap in {shared} pixels, which the smaller nucleus has in the label image")
    features = dict(zip(numbers, outlines.features, strict=False))
    return Annotations(
        labels,
        {number: feature.stored for number, feature in features.items()},
        {number: _score(one) for number, one in features.items() if _origin(one) == PROPOSED},
        notes,
    )


def _numbers(outlines: Outlines) -> list[int]:
    own = [_measured(feature, "label") for feature in outlines.features]
    numbers = [int(n) for n in own if n is not None and n == round(n) and 0 < n <= np.iinfo(np.int32).max]
    if len(set(numbers)) == len(outlines.nuclei):
        return numbers
    return list(range(1, len(outlines.nuclei) + 1))


def _origin(feature: Feature) -> Any:
    kind = feature.properties.get("classification")
    return kind.get("name") if isinstance(kind, dict) else feature.properties.get("source")


def _score(feature: Feature) -> float | None:
    return _measured(feature, "score")


def _measured(feature: Feature, name: str) -> float | None:
    """A finite number among the properties, or among what QuPath leaves of them: its measurements."""
    for held in (feature.properties, feature.properties.get("measurements")):
        value = held.get(name) if isinstance(held, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    return None


def _read_table(path: Path) -> dict[int, float | None]:
    """Number and score of each proposal in the table of an earlier round; none in a table of something else."""
    try:
        return {
            int(row["label"]): float(row["score"]) if row.get("score") else None
            for row in read_nuclei_table(path)[1]
            if row.get("source", "").strip().lower() == PROPOSED
        }
    except (OSError, ValueError, csv.Error) as error:
        raise NuxelError(
            f"{path}: not the table that nuxel propagate wrote ({error}); mend it, or remove it to take all "
            "its nuclei for annotated by you"
        ) from error
