"""Files: written whole or not at all, locked against other writers, as Parquet, or read from object stores."""

from gliomask.files.placeholders import is_pointer, is_web_page, refuse_placeholder
from gliomask.files.whole import (
    CLAIM_WAIT_SECONDS,
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
    "CLAIM_WAIT_SECONDS",
    "HeldError",
    "check_writable",
    "claimed",
    "clear_partials",
    "is_pointer",
    "is_web_page",
    "one_writer",
    "place_of",
    "places_of",
    "refuse_inputs",
    "refuse_placeholder",
    "replacing",
    "write_bytes",
    "write_text",
]
