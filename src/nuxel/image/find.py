"""Which images the user means by files, folders and patterns, and where their outputs go."""

from __future__ import annotations

import glob
import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from nuxel.errors import UsageError
from nuxel.image.formats import READABLE, is_image_folder, is_image_name, stem
from nuxel.image.layout import IMAGES, LABELS, MASKS, Listings, is_named
from nuxel.names import FOLDER_FILES, IMAGE_ENDS

_SKIPPED = ("__macosx", "system volume information", "$recycle.bin", "lost+found")


@dataclass(frozen=True)
class FoundImage:
    """One image to work on.

    Parameters
    ----------
    path
        The file, or the folder of an OME-Zarr.
    relative
        Where its outputs go below the output folder, without extension: its sub-folders below the folder or
        pattern that it was found by, then the bare name.
    """

    path: Path
    relative: PurePath


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[FoundImage]:
    """Every image among ``inputs``, in the order of ``inputs`` and sorted within each, each file once.

    A file that is named is taken whatever it is called. A folder is searched with its sub-folders for the
    extensions of images (any case), those included that nuxel has no reader for yet, so that they fail by
    name and not in silence. A pattern (``*``, ``?``, ``[..]``, ``**``) picks from what such a search would
    find. Not found in folders: hidden files and folders, what nuxel itself writes, and a folder ``masks`` or
    ``labels`` beside a folder ``images`` (any case), as in the layout of the Data Science Bowl.

    Raises
    ------
    UsageError
        If an input is missing, holds or matches no image, or cannot be listed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "plate").mkdir()
    ...     (Path(folder) / "plate" / "A1.PNG").touch()
    ...     [str(found.relative) for found in find_images([folder])]
    ['plate/A1']
    """
    if not inputs:
        raise UsageError("no input was given: name image files, folders or patterns")
    unique: dict[tuple[str, str], FoundImage] = {}
    for given in inputs:
        for found in _of_one_input(os.fspath(given)):
            # the name as it stands, the folder resolved: links to one file under two names are two images
            unique.setdefault((os.path.realpath(found.path.parent), found.path.name), found)
    return list(unique.values())


def refuse_collisions(found: Iterable[FoundImage]) -> None:
    """Raise UsageError when two images would write the same output, on any file system.

    Examples
    --------
    >>> refuse_collisions([FoundImage(Path(name), PurePath("a")) for name in ("a.png", "a.tif")])
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    nuxel.errors.UsageError: a.png and a.tif would both write the output 'a': rename one or ...
    """
    owners: dict[str, FoundImage] = {}
    for image in found:
        # some file systems do not tell A from a, nor the two ways to write an accented letter
        key = unicodedata.normalize("NFC", image.relative.as_posix()).casefold()
        other = owners.setdefault(key, image)
        if other is not image:
            raise UsageError(
                f"{other.path} and {image.path} would both write the output '{image.relative.as_posix()}': "
                "rename one or run them separately, each with its own --out"
            )


def _of_one_input(given: str) -> list[FoundImage]:
    path = Path(given)
    if not given:
        raise UsageError("an input is empty: name image files, folders or patterns")
    if os.path.isdir(given) and not is_image_folder(path):
        return _in_folder(path)
    if os.path.lexists(path):
        return [FoundImage(path, PurePath(stem(path)))]
    if glob.has_magic(given):
        return _matching(given)
    raise UsageError(f"{given}: there is no such file or folder")


def _in_folder(folder: Path) -> list[FoundImage]:
    found = [_below(folder, path) for path in _search(folder, set())]
    if not found:
        own = " but for what nuxel itself writes" if any(_is_own(path) for path in folder.iterdir()) else ""
        raise UsageError(f"{folder}: no image in this folder or below it{own} ({_looked_for()})")
    return found


def _matching(pattern: str) -> list[FoundImage]:
    """What a pattern matches, relative to the folder in front of its first wildcard."""
    root, rest = _split(pattern)
    pattern_below = os.path.join(glob.escape(str(root)), *rest)
    # the shortest way to a file first: links may lead to it, too, in circles
    found = sorted(
        glob.glob(pattern_below, recursive=True), key=lambda match: (len(Path(match).parts), match)
    )
    matches = [Path(match) for match in found]
    if not matches:
        raise UsageError(f"{pattern}: nothing matches this pattern")
    visited: set[str] = set()
    images: dict[Path, None] = {}
    for match in matches:
        folders = list(itertools.takewhile(lambda folder: folder != root, (match, *match.parents)))
        if not all(_is_candidate(folder) for folder in folders):
            continue
        if os.path.isdir(match) and not is_image_folder(match):
            images.update(dict.fromkeys(_search(match, visited)))
        elif is_image_name(match):
            images[match] = None
    if not images:
        raise UsageError(f"{pattern}: no image matches this pattern ({_looked_for()})")
    return [_below(root, path) for path in sorted(images, key=lambda path: (len(path.parts), path))]


def _split(pattern: str) -> tuple[Path, Sequence[str]]:
    """The folder in front of the first wildcard, and the rest; a folder may have brackets in its name."""
    parts = Path(pattern).parts
    for count, part in enumerate(parts):
        if glob.has_magic(part) and not os.path.isdir(Path(*parts[: count + 1])):
            return Path(*parts[:count]), parts[count:]
    return Path(*parts), ()


def _below(root: Path, path: Path) -> FoundImage:
    return FoundImage(path, PurePath(path.relative_to(root).parent, stem(path)))


def _looked_for() -> str:
    return f"looked for {', '.join(READABLE)} and slide formats"


def _search(folder: Path, visited: set[str]) -> Iterator[Path]:
    """Images in ``folder`` and below, sorted, each real folder once so that loops of links end."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: this folder cannot be listed ({error.strerror})") from error
    for path in filter(_is_candidate, entries):
        if os.path.isdir(path) and not is_image_folder(path):
            yield from _search(path, visited)
        elif is_image_name(path):
            yield path


def _is_candidate(path: Path) -> bool:
    """Whether a file or folder that nobody named is looked at."""
    name = path.name.casefold()
    if name.startswith(".") or name in _SKIPPED or _is_own(path):
        return False
    return not is_named(name, LABELS, MASKS) or Listings().folder(path.parent, IMAGES) is None


def _is_own(path: Path) -> bool:
    """Whether it has the name of what nuxel itself writes."""
    name = path.name.casefold()
    return name.endswith(IMAGE_ENDS) or name in FOLDER_FILES
