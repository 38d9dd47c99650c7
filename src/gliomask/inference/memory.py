"""Recognising that a computation failed for lack of memory."""

from __future__ import annotations

# The messages of torch, OpenVINO and oneDNN, in lower case.
_MESSAGES = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "failed to allocate"),
    *("bad allocation", "bad_alloc", "out of memory", "insufficient memory", "could not allocate"),
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error means that CPU or GPU memory is exhausted; libraries report this in several ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    text = str(error).lower()
    return any(message in text for message in _MESSAGES)
