"""Whether a file is one that nuxel wrote, told by what it holds and not by its name."""

from __future__ import annotations

import os
from pathlib import Path

from nuxel.errors import UsageError
from nuxel.export.png import SOFTWARE
from nuxel.names import FOLDER_FILES

_HEADERS = (b"label,centroid_y,", b"file,status,reason,nuclei,", b"ImageId,EncodedPixels\n")
_RECORDS = (b"file,status,reason,", b"ImageId,EncodedPixels\n")
"""Also of what ``nuxel propagate`` writes, which ``nuxel segment`` must not replace."""
_RAN_ON = b'"provider": "'
"""In the record of a run, but not in the JSON file of an evaluation."""
_MARKS = {".png": SOFTWARE, ".json": _RAN_ON}
_READ = 1 << 16
"""The mark of a picture is at its beginning, and a record of a run is smaller."""


def refuse_others(path: Path) -> None:
    """Raise UsageError where a PNG, CSV or JSON file stands that nuxel did not write; an empty file is nobody's.

    Label images are told apart by their description, where results are skipped.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_READ)
    except PermissionError:
        if os.path.lexists(path):
            raise UsageError(replaces_others(path)) from None
        return
    except OSError:  # nothing is there, or writing will say what stands in the way
        return
    own = head.startswith(_HEADERS) if path.suffix == ".csv" else _MARKS[path.suffix] in head
    if head and not own:
        raise UsageError(replaces_others(path))


def is_record(path: Path) -> bool:
    """Whether it is the summary, the record or the table of a run of ``nuxel segment`` or ``nuxel propagate``."""
    if path.name.casefold() not in FOLDER_FILES:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_READ)
    except OSError:
        return False
    return head.startswith(_RECORDS) or _RAN_ON in head


def replaces_others(path: Path) -> str:
    """The sentence with which a file of a person or of another program is kept."""
    return (
        f"{path}: exists already, and is not as nuxel segment wrote it; choose another folder with --out, or replace "
        "it with --overwrite"
    )
