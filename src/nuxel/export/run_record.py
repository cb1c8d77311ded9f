"""What a run did: one line an input in summary.csv, and everything needed to repeat it in run.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nuxel.export.atomic import open_text, replacing
from nuxel.export.csv_text import encode_csv


@dataclass(frozen=True)
class SummaryRow:
    """One input of a run; the fields are the columns of summary.csv, and ``None`` is an empty field.

    Parameters
    ----------
    file
        The input, as the person named it.
    status
        ``done``, ``skipped`` or ``failed``.
    reason
        Why it was skipped or failed, or why nuclei may be missing, in one sentence.
    nuclei
        How many were found.
    mean_area
        Mean area in pixels; ``None`` without nuclei.
    per_megapixel
        Nuclei per million pixels of the image.
    per_mm2
        Nuclei per square millimetre; ``None`` when the pixel size is unknown.
    scale
        Factor by which the image was resized for the network.
    diameter
        Typical diameter of a nucleus in pixels of the image.
    seconds
        Time spent on this input.
    """

    file: str
    status: str
    reason: str = ""
    nuclei: int | None = None
    mean_area: float | None = None
    per_megapixel: float | None = None
    per_mm2: float | None = None
    scale: float | None = None
    diameter: float | None = None
    seconds: float | None = None


def write_summary(path: Path | str, rows: Iterable[SummaryRow]) -> None:
    r"""Write summary.csv: UTF-8, a header, one line an input, lines ending in ``\n``.

    Floats have six significant digits; what is unknown or not finite is an empty field.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    names = [field.name for field in fields(SummaryRow)]
    with replacing(path) as part:
        part.write_bytes(encode_csv(names, ([getattr(row, name) for name in names] for row in rows)))


def write_run_record(path: Path | str, record: Mapping[str, Any]) -> None:
    """Write run.json: sorted keys, indented, UTF-8.

    Paths become text, NumPy numbers and arrays plain numbers and lists, and what is not finite ``null``.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    TypeError
        If the record holds something that JSON has no form for.
    """
    text = json.dumps(_plain(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as part, open_text(part) as file:
        file.write(text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
