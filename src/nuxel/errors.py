"""Errors that a person is meant to read: one sentence that says what, where and what to do."""

from __future__ import annotations

from pathlib import Path


class NuxelError(Exception):
    """Something that the user gave cannot be used. The message is shown as it stands, without a traceback."""


class UsageError(NuxelError):
    """The command or the call itself is wrong, so nothing was started (exit code 2)."""


class InterruptedRunError(NuxelError):
    """A run stopped part-way; what it has written stays."""


def reason_of(error: Exception, path: Path) -> str:
    """Why one input among many failed, in one line.

    Examples
    --------
    >>> reason_of(NuxelError("a.png: it is empty (0 bytes)"), Path("a.png"))
    'a.png: it is empty (0 bytes)'
    >>> reason_of(MemoryError(), Path("a.png"))
    'a.png: not enough memory for an image of this size'
    >>> reason_of(ValueError("too\\n few"), Path("a.png"))
    'a.png: unexpected ValueError: too few'
    """
    if isinstance(error, NuxelError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"{path}: not enough memory for an image of this size"
    return " ".join(f"{path}: unexpected {type(error).__name__}: {error}".split())
