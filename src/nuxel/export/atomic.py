"""Files that are either complete or absent."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from nuxel.errors import NuxelError, UsageError


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary name to write to, which takes the final name once the block has ended well.

    A run that is killed leaves no half-written file under the final name, and what was there before stays
    until its successor is complete. After an error the temporary file is removed.

    Parameters
    ----------
    path
        The final name. Its folder must exist.

    Raises
    ------
    NuxelError
        If the system refuses: disk full, folder missing or not writable.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as part:
    ...     _ = part.write_text("complete")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    part = path.with_name(f".nuxel-{secrets.token_hex(6)}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise NuxelError(_refused(path, error)) from error
        raise


@contextlib.contextmanager
def replacing_together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As :func:`replacing`, for files that belong together and of which the first vouches for the others.

    The first is taken away before any other changes, and comes last; if the system refuses one of them, all stay as
    they were.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing_together([folder / "sum.txt", folder / "parts.txt"]) as (total, parts):
    ...     _ = parts.write_text("1 2"), total.write_text("3")
    >>> sorted(file.name for file in folder.iterdir())
    ['parts.txt', 'sum.txt']
    """
    fresh = [path.with_name(f".nuxel-{secrets.token_hex(6)}.part") for path in paths]
    former = [path.with_name(f".nuxel-{secrets.token_hex(6)}.part") for path in paths]
    path, kept = paths[0], set(former)
    moved: list[tuple[Path, Path]] = []
    filled: list[Path] = []
    try:
        yield fresh
        try:
            for path, old in zip(paths, former, strict=True):
                if os.path.isdir(path):  # could be moved away as well
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, old)
                    moved.append((path, old))
            for path, new in reversed(list(zip(paths, fresh, strict=True))):
                os.replace(new, path)
                filled.append(path)
            kept.clear()
        except BaseException:
            for place in filled:
                with contextlib.suppress(OSError):
                    place.unlink()
            for place, old in reversed(moved):
                with contextlib.suppress(OSError):  # what cannot go back stays under its temporary name
                    os.replace(old, place)
            raise
    except OSError as error:
        raise NuxelError(_refused(path, error)) from error
    except NuxelError as error:
        text = str(error)
        for place, new in zip(paths, fresh, strict=True):
            text = text.replace(str(new), str(place))
        raise type(error)(text) from error
    finally:
        for part in {*fresh, *former} - kept:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _refused(path: Path, error: OSError) -> str:
    return (
        f"{path}: cannot be written ({error.strerror or error}); free space, close it in other programs, or choose "
        "another folder."
    )


def make_output_folder(folder: Path) -> None:
    """Make a folder, with those above it, and make sure that files can be written in it.

    Raises
    ------
    UsageError
        If not, so that it is said before any work is done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # not tempfile, which looks for a free name for ever where Windows refuses all of them
        probe = folder / f".nuxel-{secrets.token_hex(6)}.part"
        with probe.open("xb"):
            pass
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{folder}: the output folder cannot be written ({error.strerror}); choose another with --out"
        ) from None


def open_text(path: Path) -> TextIO:
    """Open a text file to be written: UTF-8 with the line ends that are given.

    File names may hold bytes that are no text; they are shown as escapes rather than stopping the run.
    """
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
