"""The files that one image becomes, and whose those are that stand in their place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from nuxel.errors import NuxelError, UsageError
from nuxel.export.atomic import replacing_together
from nuxel.export.own import refuse_others, replaces_others
from nuxel.export.run_record import SummaryRow
from nuxel.image.find import FoundImage
from nuxel.image.tiff import recognises as is_tiff
from nuxel.names import ATTENTION_END, LABELS_END, OVERLAY_END, RUN_LENGTHS, RUN_RECORD, SUMMARY, TABLE_END

_FINGERPRINT, _ROW = "fingerprint", "summary"


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
        ends = (LABELS_END, TABLE_END, OVERLAY_END, ATTENTION_END)
        labels, table, overlay, map_ = (stem.with_name(stem.name + end) for end in ends)
        return cls(labels, table, overlay, map_ if attention else None)

    def __iter__(self) -> Iterator[Path]:
        return (path for path in (self.labels, self.table, self.overlay, self.attention) if path is not None)

    def exist(self) -> bool:
        return all(path.is_file() and path.stat().st_size for path in self)

    @contextmanager
    def replaced(self) -> Iterator[Products]:
        """Names to write all files under, which take their own together once the block has ended well.

        Until then an earlier result stays. The label image vouches for the others, and comes last.
        """
        try:
            self.labels.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NuxelError(
                f"{self.labels}: cannot be written ({error.strerror}); choose another folder with --out"
            ) from None
        with replacing_together(list(self)) as parts:
            yield Products(*parts, *([None] if self.attention is None else []))

    def refuse_others(self) -> None:
        """Raise UsageError if one of the files is of a person, another program or ``nuxel propagate``.

        A truncated label image counts as ours: an interrupted run left it.
        """
        for path in self:
            if path != self.labels:
                refuse_others(path)
        record = _description(self.labels)
        ours = _is_cut_short(self.labels) if record is None else _FINGERPRINT in record
        if not ours:
            raise UsageError(replaces_others(self.labels))


def refuse_inputs(found: Sequence[FoundImage], products: Iterable[Products]) -> None:
    """Raise UsageError if an image would be replaced by a product of another one."""
    inputs = {os.path.realpath(item.path): item.path for item in found}
    for path in (path for of_one in products for path in of_one):
        if image := inputs.get(os.path.realpath(path)):
            raise UsageError(f"{image}: would be replaced by a result; choose another folder with --out")


def refuse_others_in(out: Path, *, run_lengths: bool) -> None:
    """Raise UsageError if a file that a run writes once into its folder is not nuxel's own."""
    for name in (SUMMARY, RUN_RECORD, *([RUN_LENGTHS] if run_lengths else [])):
        refuse_others(out / name)


def described(fingerprint: str, row: SummaryRow) -> str:
    """What a label image says of the run that wrote it."""
    return json.dumps({_FINGERPRINT: fingerprint, _ROW: vars(row)})


def previous_row(labels: Path, fingerprint: str) -> SummaryRow | None:
    """The row of an earlier result with the same fingerprint; None for any other file."""
    record = _description(labels)
    if not record or record.get(_FINGERPRINT) != fingerprint:
        return None
    with suppress(KeyError, TypeError):
        before = SummaryRow(**record[_ROW])
        reason = "; ".join(filter(None, ("done before", before.reason)))
        return SummaryRow(**{**vars(before), "status": "skipped", "reason": reason, "seconds": 0.0})
    return None


def _is_cut_short(labels: Path) -> bool:
    """Whether a file that is no readable TIFF is not there, empty, or begins like one."""
    try:
        with labels.open("rb") as file:
            head = file.read(4)
    except OSError:
        return True
    return not head or is_tiff(head)


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
