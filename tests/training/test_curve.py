"""The course of a run: its seconds without interruptions, and how its loss fell."""

from __future__ import annotations

import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from nuxel.training.curve import loss_fall, read_curve, training_seconds


def test_a_fall_of_the_loss() -> None:
    assert loss_fall([]) is None
    assert loss_fall([1.0]) is None
    assert loss_fall([1.0, 0.75]) == 0.25
    assert loss_fall([9.0] * 12 + [2.0] * 4 + [1.0, 2.0, 1.0, 2.0]) == 0.25
    assert loss_fall([1.0, 1.5]) == -0.5


def test_seconds_between_sessions_do_not_count(tmp_path: Path, monkeypatch) -> None:
    """The second session opens its file at 1000 s, and goes on from step 4, at which the first was after 40 s."""
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for begin, steps in ((100.0, [2, 4, 6]), (1000.0, [6, 8])):
        now[0] = begin
        writer = SummaryWriter(tmp_path, purge_step=steps[0] - 1)
        for number, step in enumerate(steps, 1):
            now[0] = begin + 20 * number
            writer.add_scalar("loss", 1.0, step)
        writer.close()
    assert training_seconds(tmp_path) == {2: 20, 4: 40, 6: 60, 8: 80}


def test_an_empty_event_file_is_no_session(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    assert training_seconds(tmp_path) == {}


def test_a_run_without_rows_has_no_curve(tmp_path: Path) -> None:
    assert read_curve(tmp_path) == []
