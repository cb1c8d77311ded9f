"""The folders ``images``, ``labels`` and ``masks`` of annotated images, in whatever case they are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

IMAGES, LABELS, MASKS = "images", "labels", "masks"


def is_named(name: str, *wanted: str) -> bool:
    """Whether a folder has one of these names.

    Examples
    --------
    >>> is_named("Labels", LABELS, MASKS), is_named("labels_old", LABELS)
    (True, False)
    """
    return name.casefold() in wanted


def folder_in(parent: Path, wanted: str) -> Path | None:
    """The sub-folder of this name; the one in lower case where several differ in case only."""
    if (exact := parent / wanted).is_dir():
        return exact
    others = (path for path in sorted(parent.iterdir()) if is_named(path.name, wanted) and path.is_dir())
    return next(others, None)


def file_with(folder: Path, name: str, ends: Iterable[str]) -> Path | None:
    """The first file ``<name><end>`` that there is, each end also in capitals."""
    candidates = (folder / f"{name}{written}" for end in ends for written in (end, end.upper()))
    return next((path for path in candidates if path.is_file()), None)
