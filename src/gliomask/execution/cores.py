"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# The quota and the period of processor time that a container may use, in microseconds: cgroup version 2, and 1.
_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


_given: int | None = None


def given_cores() -> int | None:
    """Return how many cores one case may use if this process is a worker that shares a machine, else None."""
    return _given


def give_cores(cores: int) -> None:
    """Make this process a worker, whose cases use so many cores each."""
    global _given
    _given = cores


def usable_cores() -> int:
    """Return the number of cores this process may use, at least 1.

    It is the number of cores of the machine, of the process's affinity, or of its container's quota of processor time
    (rounded up), whichever is smallest. A worker of `map_cases` has its share of them (`given_cores`).
    """
    if _given is not None:
        return _given
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = _container_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _container_quota() -> float | None:
    """Return the cores' worth of processor time that Linux grants the container, or None where there is no limit."""
    try:
        if _CGROUP_2.is_file():
            quota, period = _CGROUP_2.read_text("ascii").split()
        else:
            quota, period = (path.read_text("ascii") for path in _CGROUP_1)
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max": no limit
        return None
    return cores if cores > 0 else None
