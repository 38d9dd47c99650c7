"""The memory allocator of glibc keeps or returns freed memory as it is told, and other systems are left alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from gliomask.execution.memory import keep_memory, return_memory

on_glibc = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")), reason="needs glibc"
)


def number_of(code: str) -> float:
    """Return the number that a program prints in a process of its own, with the allocator's own settings.

    Dask's workers are started with others (`MALLOC_TRIM_THRESHOLD_`), which stay in the environment of this process.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain)
    return float(run.stdout)


def faults(call: str) -> float:
    """Return how many pages the system maps while a process allocates and frees 64 MB eight more times."""
    return number_of(f"""
import ctypes, resource
from gliomask.execution.memory import keep_memory
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
""")


@on_glibc
def test_freed_memory_is_used_again() -> None:
    """A large block that was freed is reused without new pages; by default every page is mapped again."""
    assert faults("assert keep_memory(); assert keep_memory()") < 100
    assert faults("") > 1000


def megabytes_left(call: str) -> float:
    """Return how much memory a process has more after 12 images of 20 MB, each followed by a small block that stays."""
    return number_of(f"""
import os
import numpy as np
from gliomask.execution.memory import keep_memory, return_memory
{call}
def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
np.ones(30_000_000, np.uint8)
before = used()
images, small = [], []
for _ in range(12):
    images.append(np.ones(20_000_000, np.uint8))
    small.append(np.ones(1_000_000, np.uint8))  # more than fits between the blocks of the imports
images.clear()
print(used() - before)
""")


@on_glibc
def test_freed_images_are_returned_to_the_system() -> None:
    """Small blocks between the images do not hold their memory; by default they do, once a larger one was freed."""
    assert megabytes_left("assert return_memory(); assert return_memory()") < 20
    assert megabytes_left("") > 100
    assert megabytes_left("assert keep_memory(); assert return_memory()") > 100


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No C library is loaded on other systems."""

    def refuse(name: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert not keep_memory()
        assert not return_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl, for example, does not have these settings."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_memory()
    assert not return_memory()
