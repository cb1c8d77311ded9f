"""``nuxel segment``: files in, products out, nothing lost and nothing done twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import imagecodecs
import numpy as np
import onnxruntime
import PIL
import scipy
import tifffile
from numpy.typing import NDArray

from nuxel import __version__
from nuxel.errors import NuxelError, UsageError, reason_of
from nuxel.export.atomic import make_output_folder
from nuxel.export.heat_map import write_heat_map
from nuxel.export.label_tiff import write_labels
from nuxel.export.overlay import write_overlay
from nuxel.export.run_lengths import write_run_lengths
from nuxel.export.run_record import SummaryRow, write_run_record, write_summary
from nuxel.export.table import write_table
from nuxel.image.find import FoundImage, find_images, refuse_collisions
from nuxel.image.image import Image
from nuxel.image.normalise import normalise
from nuxel.image.read import Reading, files_of, read_image
from nuxel.image.resample import ScaledImage
from nuxel.instances import Instances
from nuxel.labels.read import read_labels
from nuxel.measure.nuclei import measure_nuclei
from nuxel.names import RUN_LENGTHS, RUN_RECORD, SUMMARY
from nuxel.predict.detect import attention_of, attention_output
from nuxel.predict.model import Model
from nuxel.predict.networks import NamedNetwork
from nuxel.predict.pipeline import Options, Seen, check_options, decode_seen, look_at, warning_of
from nuxel.predict.products import Products, described, previous_row, refuse_inputs, refuse_others_in
from nuxel.predict.scale import Size

Progress = Callable[[int, int, SummaryRow], None]
FORMATS = ("run-length",)
_PACKAGES = (np, scipy, onnxruntime, tifffile, imagecodecs, PIL)


@dataclass(frozen=True)
class Job:
    """A run of one model with one set of options over many files.

    Parameters
    ----------
    formats
        Written beside the usual products: ``"run-length"`` for ``run_lengths.csv``, the table of the 2018 Data Science
        Bowl, with all images that are done.
    attention
        Level of the network's pyramid whose attention is drawn over each image too; None for none.

    Raises
    ------
    UsageError
        If the tiles would be smaller than the network's stride, a format is not known, the network has no attention
        at that level, or the options ask for what it cannot do.
    """

    model: NamedNetwork
    out: Path
    options: Options = field(default_factory=Options)
    reading: Reading = field(default_factory=Reading)
    overwrite: bool = False
    formats: tuple[str, ...] = ()
    attention: int | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise UsageError(f"no format {unknown[0]!r}; known: {', '.join(FORMATS)}")
        stride = self.model.card.stride
        if self.options.tile_size is not None and self.options.tile_size < stride:
            raise UsageError(f"the tile size must be at least {stride} pixels, got {self.options.tile_size}")
        if self.attention is not None:
            attention_output(self.model.card, self.attention)
        check_options(self.model.card, self.options)

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything besides the input that can change a result."""
        options = asdict(self.options)
        options.pop("tile_size")  # the result does not depend on it
        drawn = {} if self.attention is None else {"attention_level": self.attention}
        return {"model": self.model.sha256, "nuxel": __version__, **options, **asdict(self.reading), **drawn}


@dataclass(frozen=True, eq=False)
class _Looked:
    """One image when the network has looked at it, in ``seconds``."""

    item: FoundImage
    products: Products
    fingerprint: str
    image: Image
    display: NDArray[np.uint8]
    size: Size
    seen: Seen
    attention: NDArray[np.float32] | None
    seconds: float


_Step = TypeVar("_Step")


def segment_files(
    inputs: Sequence[str | Path], job: Job, progress: Progress | None = None
) -> list[SummaryRow]:
    """Segment files, folders and patterns; write the products, ``summary.csv`` and ``run.json`` into ``job.out``.

    An input that fails is reported in its row, with the reason, and the others are still done. A result is left as it
    is if its input, the model and the parameters are the same and all its products exist.

    Parameters
    ----------
    inputs
        See :func:`nuxel.image.find.find_images`; the sub-folders of a folder are kept.
    job
        Model, options and where to write.
    progress
        Called with (done, total, row) after each input.

    Raises
    ------
    UsageError
        Before anything is written: no input, two inputs with the same output, an input in the place of a result, an
        output folder that cannot be written, or, without ``overwrite``, a file in the place of a result that this
        function did not write.
    """
    found = find_images(inputs)
    refuse_collisions(found)
    products = [_products(item, job) for item in found]
    refuse_inputs(found, products)
    if not job.overwrite:
        refuse_others_in(job.out, run_lengths="run-length" in job.formats)
        for of_one in products:
            of_one.refuse_others()
    make_output_folder(job.out)
    started = time.time()
    rows: list[SummaryRow] = []
    finished: list[Future[SummaryRow]] = []
    try:
        for done, row in enumerate(_each(found, job, finished), 1):
            if progress:
                progress(done, len(found), row)
        if "run-length" in job.formats:
            rows = [one.result() for one in finished]
            write_run_lengths(job.out / RUN_LENGTHS, _named_labels(found, rows, job.out))
    finally:
        try:
            # also of what was being written when the run was interrupted
            rows = [one.result() for one in finished]
            write_summary(job.out / SUMMARY, rows)
        finally:
            write_run_record(job.out / RUN_RECORD, _record(job, rows, started))
    return rows


def _products(item: FoundImage, job: Job) -> Products:
    return Products.of(item, job.out, attention=job.attention is not None)


def _named_labels(
    found: Sequence[FoundImage], rows: Sequence[SummaryRow], out: Path
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """The label images of what is done, now or before, under the bare name of each image, or its path."""
    names = Counter(item.relative.name for item in found)
    for item, row in zip(found, rows, strict=True):
        if row.nuclei is not None:
            single = names[item.relative.name] == 1
            name = item.relative.name if single else item.relative.as_posix()
            yield name, read_labels(Products.of(item, out).labels)


def _each(found: Sequence[FoundImage], job: Job, finished: list[Future[SummaryRow]]) -> Iterator[SummaryRow]:
    """The rows in order. While the network looks at one image, the one before is decoded, measured and written.

    The future of a row is in ``finished`` from when its image is handed on, so that an interrupted run has it, too.
    """
    inputs = {os.path.realpath(item.path) for item in found}
    # an image that is being finished when the run is interrupted must still find somebody to write its products
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as finisher:
        for item in found:
            seen = _attempt(item, partial(_look, item, job, inputs))
            if finished:
                yield finished[-1].result()
            finished.append(finisher.submit(_attempt, item, partial(_finish, seen, job, writer)))
            if job.model.threads == 1:
                wait(finished[-1:])
        if finished:
            yield finished[-1].result()


def _attempt(item: FoundImage, step: Callable[[], _Step]) -> _Step | SummaryRow:
    """What ``step`` gives, or the row of a failure: one image must never take the others down."""
    start = time.perf_counter()
    try:
        return step()
    except Exception as error:
        seconds = time.perf_counter() - start
        return SummaryRow(str(item.path), "failed", reason_of(error, item.path), seconds=seconds)


def _look(item: FoundImage, job: Job, inputs: Container[str]) -> _Looked | SummaryRow:
    """What the network sees in one file, or a row: of an earlier result that still stands, or of a file whose planes
    are done with another of the ``inputs``."""
    start = time.perf_counter()
    files = files_of(item.path)
    own = os.path.realpath(item.path)
    first = next((path for path in files if os.path.realpath(path) in inputs), item.path)
    if os.path.realpath(first) != own:
        reason = f"belongs to the OME-TIFF set of {first.name}, see there"
        return SummaryRow(str(item.path), "skipped", reason, seconds=0.0)
    products = _products(item, job)
    fingerprint = _fingerprint(files, job)
    if not job.overwrite and products.exist() and (row := previous_row(products.labels, fingerprint)):
        return replace(row, file=str(item.path))
    image = read_image(item.path, **asdict(job.reading))
    display = normalise(image.pixels)
    try:
        size, seen = look_at(display, job.model, job.options, image.pixel_size_um)
    except NuxelError as error:
        raise NuxelError(f"{item.path}: {error}") from None
    alpha = None
    if job.attention is not None:
        attend = partial(cast(Model, job.model).attend, level=job.attention)
        alpha = attention_of(ScaledImage(display, size.scale), attend, job.model.card)
    return _Looked(
        item, products, fingerprint, image, display, size, seen, alpha, time.perf_counter() - start
    )


def _finish(looked: _Looked | SummaryRow, job: Job, writer: Executor) -> SummaryRow:
    """Decode, measure and write what the network saw; a row passes as it is."""
    if isinstance(looked, SummaryRow):
        return looked
    start = time.perf_counter()
    image, products = looked.image, looked.products
    nuclei = decode_seen(looked.seen, (image.height, image.width), job.model.card, job.options)
    row = replace(_row(looked, nuclei), reason=warning_of(looked.size, looked.seen, job.model.card))
    text = described(looked.fingerprint, row)
    with products.replaced() as parts:
        others = [
            writer.submit(write_overlay, parts.overlay, looked.display, nuclei),
            writer.submit(_measure_and_write, parts.table, nuclei, image),
        ]
        if parts.attention is not None and looked.attention is not None:
            others.append(writer.submit(write_heat_map, parts.attention, looked.display, looked.attention))
        try:
            write_labels(parts.labels, nuclei.labels, image.pixel_size_um, text)
        finally:
            wait(others)  # nothing may be written when the names have gone
        for product in others:
            product.result()
    return replace(row, seconds=looked.seconds + time.perf_counter() - start)


def _measure_and_write(path: Path, nuclei: Instances, image: Image) -> None:
    table = measure_nuclei(
        nuclei, image.pixels, channel_names=image.channel_names, pixel_size_um=image.pixel_size_um
    )
    write_table(path, table)


def _fingerprint(files: Iterable[Path], job: Job) -> str:
    """A hash of everything that decides the result."""
    # what is no regular file is for the reader to refuse; opening a pipe would wait for ever
    content = [_file_hash(path) if path.is_file() else "" for path in files]
    return hashlib.sha256(json.dumps([content, job.parameters], sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NuxelError(f"{path}: the file cannot be read ({error.strerror})") from None


def _row(looked: _Looked, nuclei: Instances) -> SummaryRow:
    count, pixels = len(nuclei), looked.image.height * looked.image.width
    area = float(np.count_nonzero(nuclei.labels))
    size_um = looked.image.pixel_size_um
    return SummaryRow(
        file=str(looked.item.path),
        status="done",
        nuclei=count,
        mean_area=area / count if count else None,
        per_megapixel=count / pixels * 1e6,
        per_mm2=count / (pixels * size_um**2) * 1e6 if size_um else None,
        scale=looked.size.scale,
        diameter=looked.size.diameter,
    )


def _record(job: Job, rows: Sequence[SummaryRow], started: float) -> dict[str, Any]:
    statuses = [row.status for row in rows]
    return {
        "nuxel": __version__,
        "python": platform.python_version(),
        "packages": _packages(),
        "model": {"file": job.model.name, "sha256": job.model.sha256, "title": job.model.card.title},
        "provider": job.model.provider,
        "threads": job.model.threads,
        "parameters": {**asdict(job.options), **asdict(job.reading), "attention_level": job.attention},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": time.time() - started,
        "images": {status: statuses.count(status) for status in ("done", "skipped", "failed")},
    }


def _packages() -> dict[str, str]:
    """The releases that ran, as they say themselves: ONNX Runtime may be installed as one of several packages."""
    return {module.__name__: str(module.__version__) for module in _PACKAGES}
