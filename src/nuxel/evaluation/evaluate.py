"""``nuxel.evaluate``: every prediction against its truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.data.image_names import match_names
from nuxel.data.label_sets import LabelArray, LabelSource, Nothing, find_labels
from nuxel.errors import NuxelError, UsageError
from nuxel.evaluation.index import Index, read_index
from nuxel.evaluation.pairs import Pair, pair_labels
from nuxel.evaluation.scores import ImageScores, score_image
from nuxel.evaluation.summary import Summary, summarise
from nuxel.instances import Instances

Given = str | os.PathLike[str] | NDArray[Any] | Instances
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """How to compare.

    Parameters
    ----------
    threshold
        IoU in ``(0, 1)`` that a match must exceed, for precision, recall, F1, PQ and error classes.
    hausdorff
        Measure the Hausdorff distances of matched nuclei too. Not for slides that are read in bands.
    boxes
        Also the VOC and COCO average precision of scored boxes; needs the tables that ``nuxel segment`` writes, and
        ``nuxel[report]`` installed.
    allow_missing
        Count a truth without a prediction as an image in which nothing was found.
    where
        Only images whose row in the index has these values.
    group
        Columns (or one column) of the index to make tables of; all that tell images apart when empty.
    """

    threshold: float = 0.5
    hausdorff: bool = False
    boxes: bool = False
    allow_missing: bool = False
    where: Mapping[str, str] = field(default_factory=dict)
    group: Sequence[str] | str = ()

    def __post_init__(self) -> None:
        threshold: object = self.threshold
        if not isinstance(threshold, Real) or not 0 < float(threshold) < 1:
            raise UsageError(f"the IoU threshold must lie between 0 and 1, got {threshold!r}")
        if not isinstance(self.where, Mapping):
            raise UsageError(f'where is a mapping, such as {{"split": "test"}}, got {self.where!r}')
        if isinstance(self.group, str):
            object.__setattr__(self, "group", (self.group,))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result: a row for each image, and what they say together.

    Parameters
    ----------
    images
        Scores of each image, sorted by name.
    pairs
        The label images they come from, in the same order.
    settings
        How they were compared.
    boxes
        Average precision of the scored boxes by name, see :func:`nuxel.evaluation.detections.box_scores`; empty
        unless asked for.
    """

    images: Sequence[ImageScores]
    pairs: Sequence[Pair]
    settings: Settings
    boxes: Mapping[str, float] = field(default_factory=dict)

    @property
    def totals(self) -> Summary:
        """All images together."""
        return summarise(self.images)

    @property
    def missing(self) -> list[str]:
        """The images that have no prediction and count as such in which nothing was found."""
        return [pair.image for pair in self.pairs if isinstance(pair.predicted, Nothing)]

    @property
    def notes(self) -> list[str]:
        """What is to be known of the images, a sentence each."""
        of = len(self.images)
        counts = {
            "have no prediction and count as empty": len(self.missing),
            "have no annotated pixel and are left out of all means": sum(
                not row.annotated for row in self.images
            ),
        }
        return [f"{count} of {of} images {what}" for what, count in counts.items() if count]

    @property
    def groups(self) -> dict[str, dict[str, Summary]]:
        """For each column of the index, for each of its values, the images that have it."""
        columns = dict.fromkeys(name for row in self.images for name in row.groups)
        return {column: self._groups_of(column) for column in columns}

    def _groups_of(self, column: str) -> dict[str, Summary]:
        values = sorted({row.groups[column] for row in self.images}, key=_numbers_first)
        return {
            value: summarise([row for row in self.images if row.groups[column] == value]) for value in values
        }


def evaluate(
    predicted: Given,
    truth: Given,
    *,
    index: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    iou: float = 0.5,
    hausdorff: bool = False,
    boxes: bool = False,
    allow_missing: bool = False,
    where: Mapping[str, str] | None = None,
    group: Sequence[str] | str = (),
) -> Evaluation:
    """Compare predicted nuclei with true ones.

    Parameters
    ----------
    predicted, truth
        Each a label image ``(H, W)`` of integers, what :func:`nuxel.segment` returns, a label file (TIFF, PNG, NPY), a
        run-length CSV, or a folder: the output of ``nuxel segment``, label files, or the competition's
        ``<id>/masks/*.png``. What belongs together is told by the path below the folder. In the truth, negative labels
        are pixels that are not annotated.
    index
        A CSV with a column ``id`` or ``ImageId`` and columns that put images into groups.
    progress
        Called with (done, total, image) after each image.
    iou
        What a match must exceed, in ``(0, 1)``, for precision, recall, F1, PQ and error classes.
    hausdorff, boxes, allow_missing, where, group
        See :class:`Settings`.

    Returns
    -------
    Evaluation
        With ``images``, ``totals`` and ``groups``.

    Raises
    ------
    UsageError
        If a path does not exist, nothing matches, or something has no partner.
    NuxelError
        If a file cannot be read, or two that belong together differ in shape.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 2]])
    >>> result = evaluate(np.array([[7, 7, 7, 0, 0]]), truth)
    >>> result.totals.mean["recall"], result.totals.mean["aji"], result.images[0].errors["missed"]
    (0.5, 0.6, 1)
    """
    chosen = Settings(iou, hausdorff, boxes, allow_missing, {} if where is None else where, group)
    rows = None if index is None else read_index(index)
    if rows is None and (chosen.where or chosen.group):
        raise UsageError("where and group speak of columns of an index: give one as index (--index CSV)")
    found, true = _sources(predicted, "prediction"), _sources(truth, "truth")
    lone = len(found) == len(true) == 1 and not any(
        isinstance(given, (str, os.PathLike)) and Path(given).is_dir() for given in (predicted, truth)
    )
    if rows and chosen.where:
        partner = match_names(found, true, lone=lone)
        true = {name: true[name] for name in rows.select(true, chosen.where)}
        found = {
            name: source
            for name, source in found.items()
            if (partner[name] in true if name in partner else rows.has(name, chosen.where))
        }
    pairs = pair_labels(found, true, lone=lone, allow_missing=chosen.allow_missing)
    images = []
    groups = _groups(rows, pairs, chosen.group)
    for done, pair in enumerate(pairs, 1):
        images.append(_score(pair, chosen, groups.get(pair.image, {})))
        if progress:
            progress(done, len(pairs), pair.image)
    return Evaluation(images, pairs, chosen, _box_scores(pairs) if chosen.boxes else {})


def _box_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    from nuxel.evaluation.detections import box_scores

    return box_scores(pairs)


def _numbers_first(value: str) -> tuple[bool, float, str]:
    return (False, float(value), "") if value.isdecimal() else (True, 0.0, value)


def _sources(given: Given, name: str) -> dict[str, LabelSource]:
    scores = None
    if isinstance(given, Instances):
        scores = dict(enumerate(given.scores.tolist(), 1))
        given = given.labels
    if isinstance(given, np.ndarray):
        if given.ndim != 2 or given.dtype.kind not in "iu":
            raise NuxelError(f"the {name} is {given.shape} {given.dtype}; labels must be (H, W) integers.")
        if isinstance(given, np.ma.MaskedArray):
            raise NuxelError(f"the {name} is a masked array; fill it (with -1 in the truth: not annotated)")
        return {"image": LabelArray(given, f"the {name}", scores)}
    if not isinstance(given, (str, os.PathLike)):
        raise NuxelError(f"the {name} is a path, an array or Instances, got {type(given).__name__}")
    return find_labels(Path(given))


def _groups(index: Index | None, pairs: Sequence[Pair], columns: Sequence[str]) -> dict[str, dict[str, str]]:
    return index.groups([pair.image for pair in pairs], columns) if index else {}


def _score(pair: Pair, settings: Settings, groups: Mapping[str, str]) -> ImageScores:
    labels = (pair.count_in_bands(),) if pair.is_slide else pair.read()
    return score_image(
        pair.image, *labels, threshold=settings.threshold, hausdorff=settings.hausdorff, groups=groups
    )
