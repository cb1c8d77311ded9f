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
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    go()
    assert "nuxel segment: a.png: it is empty" in shown.getvalue()
    assert "100%" in shown.getvalue()


@pytest.mark.parametrize("stderr", [None, Full()])
def test_that_nobody_can_be_told_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    go()
