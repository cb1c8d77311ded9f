"""The folders ``images``, ``labels`` and ``masks`` of annotated images, and what is in them, in whatever case."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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


def pick(names: Iterable[str], wanted: str) -> str | None:
    """The name that is the wanted one but for its case; the wanted one itself, if it is there.

    Examples
    --------
    >>> pick(["Images", "images"], IMAGES), pick(["LABELS"], LABELS), pick(["x"], MASKS)
    ('images', 'LABELS', None)
    """
    alike = [name for name in names if is_named(name, wanted)]
    return wanted if wanted in alike else next(iter(alike), None)


class Listings:
    """Finds files and folders by names in any case, and lists each folder once."""

    def __init__(self) -> None:
        self._listed: dict[Path, Mapping[str, Sequence[str]] | None] = {}

    def folder(self, parent: Path, wanted: str) -> Path | None:
        """The sub-folder of this name; the one in lower case where several differ in case only."""
        listed = self._list(parent)
        name = wanted if listed is None else pick(listed.get(wanted, ()), wanted)
        return parent / name if name and (parent / name).is_dir() else None

    def file(self, folder: Path, name: str, ends: Iterable[str]) -> Path | None:
        """The first file ``<name><end>`` that there is: the name as it stands, the end (in lower case) in any."""
        listed = self._list(folder)
        for end in ends:
            alike = [name + end]
            if listed is not None:
                # the file that is written so before one whose end is written otherwise
                found = sorted(listed.get((name + end).casefold(), ()), key=lambda one: one != alike[0])
                alike = [one for one in found if one.startswith(name)]
            if alike and (folder / alike[0]).is_file():
                return folder / alike[0]
        return None

    def _list(self, folder: Path) -> Mapping[str, Sequence[str]] | None:
        """The names in a folder by themselves in lower case; None if it may not be listed (but perhaps looked into)."""
        if folder not in self._listed:
            names: dict[str, list[str]] = defaultdict(list)
            try:
                for name in sorted(os.listdir(folder)):
                    names[name.casefold()].append(name)
                self._listed[folder] = names
            except OSError:
                self._listed[folder] = None
        return self._listed[folder]
