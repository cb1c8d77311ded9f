"""``nuxel segment``: files in, products out, nothing lost and nothing done twice."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from nuxel import __version__
from nuxel.errors import NuxelError, UsageError
from nuxel.export.heat_map import write_heat_map
from nuxel.export.label_tiff import prepared_labels
from nuxel.export.overlay import write_overlay
from nuxel.export.run_lengths import write_run_lengths
from nuxel.export.run_record import SummaryRow, write_run_record, write_summary
from nuxel.export.table import write_table
from nuxel.image.find import FoundImage, find_images, refuse_collisions
from nuxel.image.image import Image
from nuxel.image.normalise import normalise
from nuxel.image.pixel_size import checked_pixel_size
from nuxel.image.read import read_image
from nuxel.image.resample import ScaledImage
from nuxel.instances import Instances
from nuxel.labels.read import read_labels
from nuxel.measure.nuclei import measure_nuclei
from nuxel.predict.detect import attention_of, attention_output
from nuxel.predict.model import Model
from nuxel.predict.networks import NamedNetwork
from nuxel.predict.pipeline import Options, Seen, decode_seen, look_at, warning_of
from nuxel.predict.scale import Size

Progress = Callable[[int, int, SummaryRow], None]
FORMATS = ("run-length",)
_PACKAGES = ("numpy", "scipy", "onnxruntime", "tifffile", "imagecodecs", "pillow")


@dataclass(frozen=True)
class Reading:
    """What of each file to read; see :func:`nuxel.image.read.read_image`."""

    channel: str | int | None = None
    z: int | str | None = None
    t: int | None = None
    pixel_size_um: float | None = None

    def __post_init__(self) -> None:
        if self.pixel_size_um is not None:
            checked_pixel_size(self.pixel_size_um)


@dataclass(frozen=True)
class Products:
    """The files that one image becomes. The label image is written last: where it stands, all stand."""

    labels: Path
    table: Path
    overlay: Path
    attention: Path | None

    @classmethod
    def of(cls, found: FoundImage, out: Path, *, attention: bool = False) -> Products:
        stem = out / found.relative
        ends = ("_labels.tif", "_nuclei.csv", "_overlay.png", "_attention.png")
        labels, table, overlay, map_ = (stem.with_name(stem.name + end) for end in ends)
        return cls(labels, table, overlay, map_ if attention else None)

    def exist(self) -> bool:
        paths = (self.labels, self.table, self.overlay, self.attention)
        return all(path is None or (path.is_file() and path.stat().st_size) for path in paths)

    def make_way(self) -> None:
        """Make the folder, and take away the label image of an earlier result, which no longer vouches for it."""
        try:
            self.labels.parent.mkdir(parents=True, exist_ok=True)
            self.labels.unlink(missing_ok=True)
        except OSError as error:
            raise NuxelError(
                f"{self.labels}: cannot be written ({error.strerror}); choose another folder with --out"
            ) from None


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
        If the tiles would be smaller than the network's stride, a format is not known, or the network has no attention
        at that level.
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

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything besides the input that can change a result."""
        options = asdict(self.options)
        options.pop("tile_size")  # the result does not depend on it
        return {"model": self.model.sha256, "nuxel": __version__, **options, **asdict(self.reading)}


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
        Before anything is written: no input, two inputs with the same output, an output folder that cannot be
        written, or, without ``overwrite``, a label image in the place of a result that this function did not write.
    """
    found = find_images(inputs)
    refuse_collisions(found)
    if not job.overwrite:
        _refuse_others_labels(Products.of(item, job.out).labels for item in found)
    _prepare(job.out)
    started = time.time()
    rows: list[SummaryRow] = []
    try:
        for row in _each(found, job):
            rows.append(row)
            if progress:
                progress(len(rows), len(found), row)
        if "run-length" in job.formats:
            write_run_lengths(job.out / "run_lengths.csv", _named_labels(found, rows, job.out))
    finally:
        write_summary(job.out / "summary.csv", rows)
        write_run_record(job.out / "run.json", _record(job, rows, started))
    return rows


def _refuse_others_labels(paths: Iterable[Path]) -> None:
    """Refuse to replace label images that a person, another program or ``nuxel propagate`` made."""
    for path in paths:
        record = _description(path)
        if record is not None and "fingerprint" not in record:
            raise UsageError(
                f"{path}: exists already, and is not as nuxel segment wrote it; choose another folder with --out, or "
                "replace it with --overwrite"
            )


def _named_labels(
    found: Sequence[FoundImage], rows: Sequence[SummaryRow], out: Path
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """The label images of what is done, now or before, under the bare name of each image, or its path."""
    names = Counter(item.relative.name for item in found)
    for item, row in zip(found, rows, strict=True):
        if row.status != "failed":
            single = names[item.relative.name] == 1
            name = item.relative.name if single else item.relative.as_posix()
            yield name, read_labels(Products.of(item, out).labels)


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".nuxel-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{out}: the output folder cannot be written ({error.strerror}); choose another with --out"
        ) from None


def _each(found: Sequence[FoundImage], job: Job) -> Iterator[SummaryRow]:
    """The rows in order. While the network looks at one image, the one before is decoded, measured and written."""
    with ThreadPoolExecutor(2) as pool:
        before: Future[SummaryRow] | None = None
        for item in found:
            seen = _attempt(item, partial(_look, item, job))
            if before:
                yield before.result()
            before = pool.submit(_attempt, item, partial(_finish, seen, job, pool))
            if job.model.threads == 1:
                wait([before])
        if before:
            yield before.result()


def _attempt(item: FoundImage, step: Callable[[], _Step]) -> _Step | SummaryRow:
    """What ``step`` gives, or the row of a failure: one image must never take the others down."""
    start = time.perf_counter()
    try:
        return step()
    except NuxelError as error:
        reason = str(error)
    except MemoryError:
        reason = f"{item.path}: not enough memory for an image of this size"
    except Exception as error:
        reason = " ".join(f"{item.path}: unexpected {type(error).__name__}: {error}".split())
    return SummaryRow(str(item.path), "failed", reason, seconds=time.perf_counter() - start)


def _look(item: FoundImage, job: Job) -> _Looked | SummaryRow:
    """What the network sees in one file, or the row of an earlier result that still stands."""
    start = time.perf_counter()
    products = Products.of(item, job.out, attention=job.attention is not None)
    fingerprint = _fingerprint(item.path, job)
    if not job.overwrite and products.exist() and (row := _previous(products.labels, fingerprint)):
        return replace(row, file=str(item.path))
    image = read_image(item.path, **asdict(job.reading))
    display = normalise(image.pixels)
    size, seen = look_at(display, job.model, job.options, image.pixel_size_um)
    alpha = None
    if job.attention is not None:
        attend = partial(cast(Model, job.model).attend, level=job.attention)
        alpha = attention_of(ScaledImage(display, size.scale), attend, job.model.card)
    return _Looked(
        item, products, fingerprint, image, display, size, seen, alpha, time.perf_counter() - start
    )


def _finish(looked: _Looked | SummaryRow, job: Job, pool: Executor) -> SummaryRow:
    """Decode, measure and write what the network saw; a row passes as it is."""
    if isinstance(looked, SummaryRow):
        return looked
    start = time.perf_counter()
    image, products = looked.image, looked.products
    nuclei = decode_seen(looked.seen, (image.height, image.width), job.model.card, job.options)
    row = replace(_row(looked, nuclei), reason=warning_of(looked.size, looked.seen, job.model.card))
    products.make_way()
    others = [
        pool.submit(write_overlay, products.overlay, looked.display, nuclei),
        pool.submit(_measure_and_write, products.table, nuclei, image),
    ]
    if products.attention is not None and looked.attention is not None:
        others.append(pool.submit(write_heat_map, products.attention, looked.display, looked.attention))
    described = json.dumps({"fingerprint": looked.fingerprint, "summary": asdict(row)})
    with prepared_labels(products.labels, nuclei.labels, image.pixel_size_um, described):
        for product in others:
            product.result()
    return replace(row, seconds=looked.seconds + time.perf_counter() - start)


def _measure_and_write(path: Path, nuclei: Instances, image: Image) -> None:
    table = measure_nuclei(
        nuclei, image.pixels, channel_names=image.channel_names, pixel_size_um=image.pixel_size_um
    )
    write_table(path, table)


def _fingerprint(path: Path, job: Job) -> str:
    """A hash of everything that decides the result."""
    # what is no regular file is for the reader to refuse; opening a pipe would wait for ever
    content = _file_hash(path) if path.is_file() else ""
    return hashlib.sha256(json.dumps([content, job.parameters], sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NuxelError(f"{path}: the file cannot be read ({error.strerror})") from None


def _previous(labels: Path, fingerprint: str) -> SummaryRow | None:
    """The row of an earlier result with the same fingerprint; None for any other file."""
    record = _description(labels)
    if not record or record.get("fingerprint") != fingerprint:
        return None
    with suppress(KeyError, TypeError):
        return SummaryRow(
            **{**record["summary"], "status": "skipped", "reason": "done before", "seconds": 0.0}
        )
    return None


def _description(labels: Path) -> dict[str, Any] | None:
    """What a label image says of the run that wrote it: nothing if another program did; None of what is no TIFF."""
    try:
        with tifffile.TiffFile(labels) as file:
            text = file.pages.first.description
    except Exception:  # tifffile raises anything on damaged files
        return None
    with suppress(ValueError):
        record = json.loads(text)
        return record if isinstance(record, dict) else {}
    return {}


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
        "parameters": {**asdict(job.options), **asdict(job.reading)},
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": time.time() - started,
        "images": {status: statuses.count(status) for status in ("done", "skipped", "failed")},
    }


@cache
def _packages() -> dict[str, str]:
    """The installed releases; asking for one reads and parses a file."""
    return {name: version(name) for name in _PACKAGES}
