"""A progress bar on stderr, shown where stderr is a terminal, and a line for each input that failed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    bar = progressbar.ProgressBar(fd=sys.stderr) if sys.stderr.isatty() else None

    def advance(done: int, total: int, row: Row | None) -> None:
        if row and row.status == "failed":
            # at once, so that it is known even if the run does not reach its end
            start = "\r\033[K" if bar else ""
            print(f"{start}nuxel {verb}: {row.reason}", file=sys.stderr, flush=True)
        if bar:
            bar.max_value = total
            bar.update(done, force=True)

    try:
        yield advance
    finally:
        if bar:
            bar.finish(dirty=True)
