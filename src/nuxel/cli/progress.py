"""A progress bar on stderr, shown where stderr is a terminal, and a line for each input that failed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import progressbar


class Row(Protocol):
    """What became of an input."""

    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


@contextmanager
def progress_bar(verb: str) -> Iterator[Callable[[int, int, Row | None], None]]:
    """Give a function to call after each input with (done, total, row or None); ``verb`` is the command's."""
    terminal = sys.stderr is not None and sys.stderr.isatty()  # a process without a console has none
    bar = progressbar.ProgressBar(fd=sys.stderr) if terminal else None

    def advance(done: int, total: int, row: Row | None) -> None:
        if row and row.status == "failed":
            # at once, so that it is known even if the run does not reach its end
            start = "\r\033[K" if bar else ""
            with suppress(OSError, ValueError):  # that nobody can be told stops no other image
                print(f"{start}nuxel {verb}: {row.reason}", file=sys.stderr, flush=True)
        if bar:
            bar.max_value = total
            with suppress(OSError, ValueError):
                bar.update(done, force=True)

    try:
        yield advance
    finally:
        if bar:
            with suppress(OSError, ValueError):
                bar.finish(dirty=True)
