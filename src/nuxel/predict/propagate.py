"""``nuxel propagate``: a model's nuclei where nobody annotated, and people's annotations as they are.

Source: partially labeled exemplars paper, section III.C, figures 6 and 7: a model trained on some of the nuclei
proposes the others, a person corrects, and so on until all are annotated.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel import __version__
from nuxel.data.outlines import OUTLINES_END
from nuxel.data.thin import UNKNOWN
from nuxel.decode.detections import LEAST_LEFT
from nuxel.errors import NuxelError, UsageError
from nuxel.export.atomic import replacing
from nuxel.export.geojson import write_geojson
from nuxel.export.label_tiff import prepared_labels
from nuxel.export.png import encode_png
from nuxel.image.find import FoundImage
from nuxel.image.image import Image
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.instances import Instances
from nuxel.labels.border import border_pixels
from nuxel.labels.relabel import relabel
from nuxel.labels.splines import splines_of
from nuxel.predict.annotations import (
    HUMAN,
    PROPOSED,
    TABLE_END,
    Annotations,
    LabelReader,
    Labels,
    read_annotations,
    unknown_everywhere,
)
from nuxel.predict.networks import Detector, Network
from nuxel.predict.pipeline import Options, segment_normalised

_ANNOTATED, _ADDED, _TRUE = (0, 125, 255), (240, 125, 0), (0, 165, 0)
"""Colours of outlines: what people annotated, what is proposed, and the truth."""
_AGAIN = 0.5
_TINY = 1e-9
_GAP = 4
_GREY = 128


@dataclass(frozen=True)
class Task:
    """An image, what is annotated of it, and all its nuclei, each if there is such."""

    image: FoundImage
    annotations: LabelReader | None
    truth: LabelReader | None = None


@dataclass(frozen=True, eq=False)
class Propagated:
    """Annotated and proposed nuclei of one image.

    Parameters
    ----------
    labels
        ``(H, W)`` int32 label image. Annotated nuclei have the numbers that they had, proposed ones those that follow
        the highest of these; 0 is known to be background, and -1 is what nobody annotated and no proposal covers.
    scores
        The score of each proposed nucleus by its number, in ``[0, 1]``, or None where it is not known any more.
    """

    labels: Labels
    scores: Mapping[int, float | None]

    def sources(self) -> dict[int, str]:
        """``"human"`` or ``"proposed"`` for each nucleus by its number, in rising order."""
        numbers = np.unique(self.labels[self.labels > 0]).tolist()
        return {number: PROPOSED if number in self.scores else HUMAN for number in numbers}


def propagate(annotations: Labels, proposals: Instances) -> Propagated:
    """Add the proposals that lie where nobody annotated.

    Parameters
    ----------
    annotations
        ``(H, W)`` int32: a nucleus where positive, known to be none where 0, not annotated where negative. Numbers may
        be missing, and a nucleus may consist of several parts.
    proposals
        What a model finds in the image.

    Returns
    -------
    Every annotated nucleus with its number and exactly its pixels. No proposal has an annotated pixel: one that reaches
    into what is annotated keeps the largest 4-connected region of what lies outside if that is more than half of it
    (:data:`~nuxel.decode.detections.LEAST_LEFT`), and is left out otherwise: then it mostly shows a nucleus that is
    annotated already, or one where there is known to be none. It is left out, too, if that region lies around an
    annotated nucleus of which the proposal covers more than half: then it shows that nucleus, which somebody outlined
    tightly.

    Raises
    ------
    NuxelError
        If the shapes differ, or the numbers of the annotations leave none for the proposals.

    Examples
    --------
    >>> annotations = np.array([[5, -1, -1, -1, -1, -1, 0, 0]], np.int32)
    >>> found = Instances(np.array([[1, 1, 1, 0, 2, 2, 2, 3]], np.int32), np.array([0.9, 0.8, 0.7], np.float32))
    >>> propagate(annotations, found).labels.tolist()
    [[5, -1, -1, -1, 6, 6, 0, 0]]
    """
    if annotations.shape != proposals.labels.shape:
        raise NuxelError(
            f"the annotations are {annotations.shape}, but the image is {proposals.labels.shape}"
        )
    labels = np.maximum(annotations, UNKNOWN)
    number = max(int(labels.max(initial=0)), 0)
    if number > np.iinfo(np.int32).max - len(proposals):
        raise NuxelError(f"the annotations have the number {number}, which leaves none for what is proposed")
    annotated = relabel(np.maximum(annotations, 0))  # a number may be in the thousands of millions
    areas = np.bincount(annotated.ravel())
    scores: dict[int, float | None] = {}
    for index, box in enumerate(ndimage.find_objects(proposals.labels, len(proposals))):
        whole = proposals.labels[box] == index + 1
        free = whole & (annotations[box] < 0)
        if free.sum() < whole.sum():
            free = _largest(free)
            covered = np.bincount(annotated[box][whole])
            again = 1 + np.flatnonzero(covered[1:] > _AGAIN * areas[1 : len(covered)])
            if any(_lies_around(free, whole & (annotated[box] == nucleus)) for nucleus in again):
                continue
        if free.sum() > LEAST_LEFT * whole.sum():
            number += 1
            labels[box][free] = number
            scores[number] = float(proposals.scores[index])
    return Propagated(labels, scores)


def _lies_around(region: NDArray[np.bool_], nucleus: NDArray[np.bool_]) -> bool:
    """Whether no straight line through the middle of the nucleus has all of the region on one side."""
    offsets = np.argwhere(region) - np.argwhere(nucleus).mean(axis=0)
    rows, columns = offsets[offsets.any(axis=1)].T
    directions = np.sort(np.arctan2(rows, columns))
    gaps = np.diff(directions, append=directions[:1] + 2 * np.pi)
    return bool(directions.size and gaps.max() < np.pi - _TINY)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected region of a mask, the first of equal ones."""
    regions, count = ndimage.label(mask)
    if not count:
        return mask
    return np.asarray(regions == 1 + np.bincount(regions.ravel())[1:].argmax())


def draw_propagated(
    display: NDArray[np.uint8], annotations: Labels, propagated: Propagated, truth: Labels | None = None
) -> NDArray[np.uint8]:
    """The image with outlines, side by side: the annotations, the truth if it is given, and the result (figure 6).

    Annotated nuclei are blue, proposed ones orange, true ones green.

    Parameters
    ----------
    display
        ``(H, W, 3)`` uint8.
    annotations, truth
        ``(H, W)`` int32.

    Returns
    -------
    ``(H, W', 3)`` uint8.
    """
    nuclei = np.maximum(propagated.labels, 0)
    proposed = np.isin(nuclei, list(propagated.scores))
    panels = [_outlined(display, annotations, _ANNOTATED)]
    if truth is not None:
        panels.append(_outlined(display, truth, _TRUE))
    result = _outlined(display, np.where(proposed, 0, nuclei), _ANNOTATED)
    panels.append(_outlined(result, np.where(proposed, nuclei, 0), _ADDED))
    gap = np.full((len(display), _GAP, 3), _GREY, np.uint8)
    return np.hstack([part for panel in panels for part in (gap, panel)][1:])


def _outlined(display: NDArray[np.uint8], labels: Labels, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    row, column = np.divmod(border_pixels(np.pad(labels, 1)), labels.shape[1] + 2)
    drawn = np.array(display)
    drawn[row - 1, column - 1] = colour
    return drawn


@dataclass(frozen=True)
class PropagatedRow:
    """One image of a run; the fields are the columns of summary.csv, and ``None`` is an empty field.

    Parameters
    ----------
    status
        ``done`` or ``failed``.
    reason
        Why it failed, or what the user should know of the result.
    human, proposed
        How many nuclei were annotated, and how many were added.
    coverage
        Share of the image's pixels that are annotated, background included, or covered by a proposal.
    """

    file: str
    status: str
    reason: str = ""
    human: int | None = None
    proposed: int | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class Propagation:
    """How the nuclei of many images are propagated, and where to.

    Parameters
    ----------
    network
        A model file or a run, opened.
    out
        Folder for the products, which keep the sub-folders of their images.
    options
        As for ``nuxel segment``.
    partial
        In the annotations 0 means not annotated, rather than background.
    tolerance
        Of the splines, in pixels: see :func:`nuxel.labels.splines.fit_spline`.
    complete
        What is neither annotated nor proposed is background: the labels are full ones then, without -1.

    Raises
    ------
    UsageError
        If the tolerance is not a positive number.
    """

    network: Network | Detector
    out: Path
    options: Options = field(default_factory=Options)
    partial: bool = False
    tolerance: float = 1.0
    complete: bool = False

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and math.isfinite(self.tolerance)):
            raise UsageError(f"the tolerance must be a positive number of pixels, got {self.tolerance}")


def propagate_files(
    tasks: Sequence[Task],
    how: Propagation,
    progress: Callable[[int, int, PropagatedRow], None] | None = None,
) -> list[PropagatedRow]:
    """Propagate the annotations of many images, and write for each, after its name

    - ``_labels.tif``: the label image,
    - ``_nuclei.csv``: the source of each nucleus, and its score if it is proposed,
    - ``_nuclei.geojson``: their outlines as splines (:func:`nuxel.export.geojson.nuclei_geojson`); those that came as
      GeoJSON stay as they are,
    - ``_overlay.png``: :func:`draw_propagated`;

    and ``summary.csv``, where the rows of other images stay. Nothing is overwritten, since a person may have corrected
    it. An image that fails is reported in its row, and the others are still done. One without annotations has all its
    nuclei proposed. What an earlier round proposed and nobody has confirmed since stays marked as proposed.

    Parameters
    ----------
    progress
        Called with (done, total, row) after each image.

    Raises
    ------
    UsageError
        Before anything is written: a product is there already, or the folder cannot be made.
    """
    for task in tasks:
        for path in _products(task, how.out):
            if path.exists():
                raise UsageError(
                    f"{path}: exists already, and may have been corrected; choose another folder or remove it"
                )
    try:
        for folder in {path.parent for task in tasks for path in _products(task, how.out)}:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{how.out}: the output folder cannot be written ({error.strerror}); choose another with --out"
        ) from None
    rows: list[PropagatedRow] = []
    try:
        for task in tasks:
            rows.append(_attempt(task, how))
            if progress:
                progress(len(rows), len(tasks), rows[-1])
    finally:
        _write_summary(how.out / "summary.csv", rows)
    return rows


def _write_summary(path: Path, rows: Sequence[PropagatedRow]) -> None:
    """Rows of a run after those of earlier runs into the same folder."""
    names = [column.name for column in fields(PropagatedRow)]
    mine = [list(asdict(row).values()) for row in rows]
    earlier: list[list[Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = [*csv.reader(file)] or [names]
        done = {row.file for row in rows}
        earlier = [line for line in lines if header == names and line and line[0] not in done]
    _write_csv(path, names, [*earlier, *mine])


def _products(task: Task, out: Path) -> list[Path]:
    """The files of an image, its label image last."""
    stem = out / task.image.relative
    ends = (TABLE_END, OUTLINES_END, "_overlay.png", "_labels.tif")
    return [stem.with_name(stem.name + end) for end in ends]


def _attempt(task: Task, how: Propagation) -> PropagatedRow:
    """The row of an image, which must never take the others down."""
    path = task.image.path
    try:
        return _propagate_file(task, how)
    except NuxelError as error:
        reason = str(error)
    except MemoryError:
        reason = f"{path}: not enough memory for an image of this size"
    except Exception as error:
        reason = " ".join(f"{path}: unexpected {type(error).__name__}: {error}".split())
    return PropagatedRow(str(path), "failed", reason)


def _propagate_file(task: Task, how: Propagation) -> PropagatedRow:
    image = read_image(task.image.path)
    shape = image.height, image.width
    known = _annotations(task, shape)
    truth = None if task.truth is None else read_annotations(task.truth, shape).labels
    annotations = known.labels
    if how.partial:
        annotations = np.where(annotations == 0, np.int32(UNKNOWN), annotations)
    display = normalise(image.pixels)
    seen = segment_normalised(display, how.network, how.options, image.pixel_size_um)
    found = propagate(annotations, seen.nuclei)
    if how.complete:
        np.maximum(found.labels, 0, out=found.labels)
    propagated = Propagated(found.labels, {**known.proposed, **found.scores})
    picture = draw_propagated(display, annotations, propagated, truth)
    sources = _write(task, how, image, propagated, known, picture)
    notes = [seen.warning] if seen.warning else []
    notes += known.notes
    if scattered := _in_parts(propagated.labels):
        notes.append(
            f"{scattered} nuclei have several parts; the outlines show the largest, the labels all of them"
        )
    if (annotations < 0).all():
        notes.append("nothing was annotated")
    elif (annotations >= 0).all():
        notes.append(
            "all of it is annotated, so nothing was proposed; give what nobody looked at a negative number, or say "
            "--partial if 0 means that"
        )
    return PropagatedRow(
        str(task.image.path),
        "done",
        "; ".join(notes),
        sources.count(HUMAN),
        sources.count(PROPOSED),
        float((propagated.labels != UNKNOWN).mean()),
    )


def _annotations(task: Task, shape: tuple[int, int]) -> Annotations:
    if task.annotations is None:
        return Annotations(unknown_everywhere(shape))
    return read_annotations(task.annotations, shape)


def _in_parts(labels: Labels) -> int:
    """How many nuclei consist of several 8-connected regions."""
    dense = relabel(np.maximum(labels, 0))  # a number may be in the thousands of millions
    masks = (dense[box] == number for number, box in enumerate(ndimage.find_objects(dense), 1))
    return sum(ndimage.label(mask, np.ones((3, 3)))[1] > 1 for mask in masks)


def _write(
    task: Task,
    how: Propagation,
    image: Image,
    propagated: Propagated,
    known: Annotations,
    picture: NDArray[np.uint8],
) -> list[str]:
    """Write the products of an image, and return the source of each nucleus, also of those that others hide."""
    table, outlines, overlay, labels = _products(task, how.out)
    hidden = {number: PROPOSED if number in known.proposed else HUMAN for number in known.features}
    described = {
        number: {"source": source, "score": propagated.scores.get(number)}
        for number, source in sorted({**hidden, **propagated.sources()}.items())
    }
    record = {"nuxel": __version__, "propagated": how.network.card.title}
    with prepared_labels(labels, propagated.labels, image.pixel_size_um, json.dumps(record)):
        _write_csv(
            table, ["label", "source", "score"], ([n, *values.values()] for n, values in described.items())
        )
        named = {
            number: {**values, "classification": {"name": values["source"]}}
            for number, values in described.items()
        }
        splines = splines_of(np.maximum(propagated.labels, 0), how.tolerance)
        write_geojson(outlines, splines, named, known.features)
        with replacing(overlay) as part:
            part.write_bytes(encode_png(picture))
    return [str(values["source"]) for values in described.values()]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """UTF-8 with a header; floats with six digits, None as an empty field."""
    with (
        replacing(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
