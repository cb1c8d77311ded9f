"""How many processors this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def available_cpus() -> int:
    """Processors granted by the scheduler and by the container's limit, whichever is fewer; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, container_limit() or affinity))


def container_limit(version_2: Path = _CGROUP_2, version_1: tuple[Path, Path] = _CGROUP_1) -> int | None:
    """The control group's CPU quota rounded up to whole processors, None where there is none."""
    try:
        quota, period = (
            version_2.read_text().split() if version_2.exists() else [p.read_text() for p in version_1]
        )
        return None if quota == "max" or int(quota) <= 0 else -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
