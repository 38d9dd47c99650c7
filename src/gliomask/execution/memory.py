"""The memory of this process: what the C library does with freed memory, and the peak so far."""

from __future__ import annotations

import ctypes
import sys

# Parameters of `mallopt`, from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_RETURNED_FROM_BYTES = 16_000_000


def keep_memory() -> bool:
    """Make the C library keep freed memory for later allocations, and tell whether it does.

    By default glibc requests memory from the system for every large tensor and returns it when the tensor is freed, and
    the system fills each page with zeros again. After this call large blocks come from the heap, which only grows: a
    training step of the U-Net takes two thirds of the time, and its peak memory rises from 2.1 to 2.7 GB (128^3).

    The setting holds until the process ends and concerns CPU memory only. On systems other than Linux with glibc
    nothing is done. A second call has no effect.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, -1))


def return_memory() -> bool:
    """Make the C library return freed blocks of 16 MB or more to the system at once, and tell whether it does.

    By default glibc raises the size from which it does so to that of the largest block freed so far, up to 32 MB. The
    channels of an examination then come from the heaps of several threads, where holes remain between them, and the
    memory of a process grows with the number of examinations it has predicted; `benchmarks/README.md` gives the effect.

    The setting holds until the process ends. After `keep_memory` it has no effect, nor on systems other than Linux with
    glibc.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_M_MMAP_THRESHOLD, _RETURNED_FROM_BYTES))


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc; others, such as musl, have no such settings."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def peak_memory_gb() -> float:
    """Return the peak memory of the process so far; NaN where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
