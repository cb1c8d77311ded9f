"""The line for each input that failed, wherever stderr leads."""

from __future__ import annotations

import io
import sys
from typing import NamedTuple

import pytest

from nuxel.cli.progress import progress_bar


class Row(NamedTuple):
    status: str
    reason: str


class Full(io.StringIO):
    """A log on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def go() -> None:
    with progress_bar("segment") as advance:
        advance(1, 2, Row("failed", "a.png: it is empty"))
        advance(2, 2, Row("done", ""))


def test_failures_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    go()
    assert capsys.readouterr().err == "nuxel segment: a.png: it is empty\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, done = Terminal(), []

    class Bar:
        max_value = 0

        def __init__(self, fd: object) -> None:
            assert fd is shown

        def update(self, value: int, *, force: bool) -> None:
            assert force
            done.append((value, self.max_value))

        def finish(self, *, dirty: bool) -> None:
            done.append(("finished", dirty))

    monkeypatch.setattr("progressbar.ProgressBar", Bar)
    monkeypatch.setattr(sys, "stderr", shown)
    go()
    assert "nuxel segment: a.png: it is empty" in shown.getvalue()
    assert done == [(1, 2), (2, 2), ("finished", True)]


@pytest.mark.parametrize("stderr", [None, Full()])
def test_that_nobody_can_be_told_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    go()
