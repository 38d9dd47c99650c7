"""The memory allocator keeps freed memory on glibc and is left alone elsewhere."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from gliomask.training.allocator import keep_memory

on_glibc = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")), reason="needs glibc"
)


def faults(call: str) -> int:
    """Return how many pages the system maps while a process allocates and frees 64 MB eight more times."""
    code = f"""
import ctypes, resource
from gliomask.training.allocator import keep_memory
{call}
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
def use():
    place = library.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(place, 1, 64 << 20)
    library.free(ctypes.c_void_p(place))
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(run.stdout)


@on_glibc
def test_freed_memory_is_used_again() -> None:
    """A large block that was freed is reused without new pages; by default every page is mapped again."""
    assert faults("assert keep_memory(); assert keep_memory()") < 100
    assert faults("") > 1000


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No C library is loaded on other systems."""

    def refuse(name: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert not keep_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl, for example, does not have these settings."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_memory()
