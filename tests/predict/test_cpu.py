"""The container's limit, read from both generations of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nuxel.predict import cpu
from nuxel.predict.cpu import available_cpus, container_limit

ABSENT = (Path("/nonexistent/quota"), Path("/nonexistent/period"))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("1600000 100000", 16),
        ("", None),
        ("nonsense here", None),
        ("100000 0", None),
    ],
)
def test_version_2(tmp_path: Path, text: str, limit: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert container_limit(file, ABSENT) == limit


@pytest.mark.parametrize(("quota", "limit"), [("-1\n", None), ("300000\n", 3), ("50000\n", 1), ("x", None)])
def test_version_1(tmp_path: Path, quota: str, limit: int | None) -> None:
    files = tmp_path / "quota", tmp_path / "period"
    files[0].write_text(quota)
    files[1].write_text("100000\n")
    assert container_limit(tmp_path / "absent", files) == limit


def test_no_control_group(tmp_path: Path) -> None:
    assert container_limit(tmp_path / "absent", ABSENT) is None


@pytest.mark.parametrize(("limit", "expected"), [(None, 8), (3, 3), (1, 1), (64, 8)])
def test_the_smaller_of_scheduler_and_container_counts(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpu, "container_limit", lambda: limit)
    assert available_cpus() == expected


def test_without_a_scheduler_to_ask_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(cpu, "container_limit", lambda: None)
    assert available_cpus() == 1
