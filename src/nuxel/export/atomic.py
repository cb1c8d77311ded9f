"""Files that are either complete or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
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
            raise NuxelError(
                f"{path}: cannot be written ({error.strerror or error}); free space or choose another folder."
            ) from error
        raise


def make_output_folder(folder: Path) -> None:
    """Make a folder, with those above it, and make sure that files can be written in it.

    Raises
    ------
    UsageError
        If not, so that it is said before any work is done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # has no name that another run could use, and is gone in any case
            pass
    except OSError as error:
        raise UsageError(
            f"{folder}: the output folder cannot be written ({error.strerror}); choose another with --out"
        ) from None


def open_text(path: Path) -> TextIO:
    """Open a text file to be written: UTF-8 with the line ends that are given.

    File names may hold bytes that are no text; they are shown as escapes rather than stopping the run.
    """
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
