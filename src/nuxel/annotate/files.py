"""``nuxel propagate`` over many files: annotations in, corrected sets out, nothing of a person's overwritten."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel import __version__
from nuxel.annotate.annotations import HUMAN, PROPOSED, Annotations, Labels, read_annotations
from nuxel.annotate.propagate import Propagated, draw_propagated, propagate
from nuxel.annotate.tasks import Task
from nuxel.data.thin import UNKNOWN
from nuxel.errors import UsageError, reason_of
from nuxel.export.atomic import make_output_folder, replacing
from nuxel.export.csv_text import encode_csv
from nuxel.export.geojson import encode_geojson
from nuxel.export.label_tiff import prepared_labels
from nuxel.export.png import encode_png
from nuxel.image.image import Image
from nuxel.image.normalise import normalise
from nuxel.image.read import Reading, read_image
from nuxel.labels.relabel import relabel
from nuxel.labels.splines import splines_of
from nuxel.names import LABELS_END, OUTLINES_END, OVERLAY_END, SUMMARY, TABLE_END
from nuxel.predict.networks import Detector, Network
from nuxel.predict.pipeline import Options, segment_normalised


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


_COLUMNS = [column.name for column in fields(PropagatedRow)]


@dataclass(frozen=True)
class Propagation:
    """How the nuclei of many images are propagated, and where to.

    Parameters
    ----------
    network
        A model file or a run, opened.
    out
        Folder for the products, which keep the sub-folders of their images.
    options, reading
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
    reading: Reading = field(default_factory=Reading)

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
        Before anything is written: a product is there already, ``summary.csv`` is another's, or the folder cannot be
        made.
    """
    for task in tasks:
        for path in _products(task, how.out):
            if path.exists():
                raise UsageError(
                    f"{path}: exists already, and may have been corrected; choose another folder or remove it"
                )
    if _earlier_rows(how.out / SUMMARY) is None:
        raise UsageError(
            f"{how.out / SUMMARY}: exists already, and is not as nuxel propagate wrote it; choose another folder"
        )
    for folder in (how.out, *{path.parent for task in tasks for path in _products(task, how.out)}):
        make_output_folder(folder)
    rows: list[PropagatedRow] = []
    try:
        for task in tasks:
            rows.append(_attempt(task, how))
            if progress:
                progress(len(rows), len(tasks), rows[-1])
    finally:
        _write_summary(how.out / SUMMARY, rows)
    return rows


def _write_summary(path: Path, rows: Sequence[PropagatedRow]) -> None:
    """Rows of a run after those of earlier runs into the same folder."""
    done = {row.file for row in rows}
    earlier = [line for line in _earlier_rows(path) or () if line[0] not in done]
    with replacing(path) as part:
        part.write_bytes(encode_csv(_COLUMNS, [*earlier, *(list(asdict(row).values()) for row in rows)]))


def _earlier_rows(path: Path) -> list[list[str]] | None:
    """The rows of a summary that is there; None if it is not one of this command."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", errors="backslashreplace", newline="") as file:
            header, *lines = [*csv.reader(file)] or [_COLUMNS]
    except (OSError, csv.Error):
        return None
    return [line for line in lines if line] if header == _COLUMNS else None


def _products(task: Task, out: Path) -> list[Path]:
    """The files of an image, its label image last."""
    stem = out / task.image.relative
    ends = (TABLE_END, OUTLINES_END, OVERLAY_END, LABELS_END)
    return [stem.with_name(stem.name + end) for end in ends]


def _attempt(task: Task, how: Propagation) -> PropagatedRow:
    """The row of an image, which must never take the others down."""
    try:
        return _propagate_file(task, how)
    except Exception as error:
        return PropagatedRow(str(task.image.path), "failed", reason_of(error, task.image.path))


def _propagate_file(task: Task, how: Propagation) -> PropagatedRow:
    image = read_image(task.image.path, **asdict(how.reading))
    shape = image.height, image.width
    known = read_annotations(task.annotations, shape)
    truth = None if task.truth is None else read_annotations(task.truth, shape).labels
    annotations = known.labels
    if how.partial:
        annotations = np.where(annotations == 0, np.int32(UNKNOWN), annotations)
    display = normalise(image.pixels)
    seen = segment_normalised(display, how.network, how.options, image.pixel_size_um)
    found = propagate(annotations, seen.nuclei, max(known.features, default=0))
    coverage = float((found.labels != UNKNOWN).mean())
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
        coverage,
    )


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
    named = {
        number: {**values, "classification": {"name": values["source"]}}
        for number, values in described.items()
    }
    splines = splines_of(np.maximum(propagated.labels, 0), how.tolerance)
    rows = ([number, *values.values()] for number, values in described.items())
    contents = {
        table: encode_csv(["label", "source", "score"], rows),
        outlines: encode_geojson(splines, named, known.features),
        overlay: encode_png(picture),
    }
    # all files of an image or none: half of them would be taken for somebody's corrections
    with (
        prepared_labels(labels, propagated.labels, image.pixel_size_um, json.dumps(record)),
        contextlib.ExitStack() as others,
    ):
        for path, content in contents.items():
            others.enter_context(replacing(path)).write_bytes(content)
    return [str(values["source"]) for values in described.values()]
