"""A progress bar on stderr, shown where stderr is a terminal, and a line for each input that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nuxel.export.run_record import SummaryRow


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, SummaryRow], None]]:
    """Give a function to call after each input with (done, total, row)."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int, row: SummaryRow) -> None:
            bar.update(task, completed=done, total=total, description=f"{row.file}: {row.nuclei or 0} nuclei")
            if row.status == "failed":
                # at once, so that it is known even if the run does not reach its end
                console.print(f"nuxel segment: {row.reason}", markup=False, highlight=False, soft_wrap=True)

        yield advance
