"""Laws of the usable cores: the machine, the process's affinity and the container each set a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gliomask.execution import cores, usable_cores


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a machine of eight cores without affinity; return the file with the container's quota."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_CGROUP_2", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_CGROUP_1", (tmp_path / "quota", tmp_path / "period"))
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_containers_quota_is_a_limit(eight_cores: Path, text: str, expected: int) -> None:
    """It is rounded up; "max" and a file that cannot be understood mean no limit."""
    eight_cores.write_text(text)
    assert usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("0", 8)])
def test_the_older_files_of_containers_are_read(eight_cores: Path, quota: str, expected: int) -> None:
    """In cgroup version 1 a quota of -1 means no limit."""
    (eight_cores.parent / "quota").write_text(quota)
    (eight_cores.parent / "period").write_text("100000")
    assert usable_cores() == expected


@pytest.mark.usefixtures("eight_cores")
def test_affinity_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's job may use fewer cores than its machine has; Windows and macOS report no affinity."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6})
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
