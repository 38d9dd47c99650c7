"""Files: written whole or not at all, locked against other writers, as Parquet, or read from object stores."""

from gliomask.files.whole import (
    LEASE_SECONDS,
    HeldError,
    check_writable,
    claimed,
    clear_partials,
    one_writer,
    place_of,
    places_of,
    refuse_inputs,
    replacing,
    write_bytes,
    write_text,
)

__all__ = [
    "LEASE_SECONDS",
    "HeldError",
    "check_writable",
    "claimed",
    "clear_partials",
    "one_writer",
    "place_of",
    "places_of",
    "refuse_inputs",
    "replacing",
    "write_bytes",
    "write_text",
]
