"""Text of CSV tables: file names of any kind in, plain text out that a spreadsheet takes for text, and back."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

# What a spreadsheet takes for the beginning of a formula; the last four are the same signs in East Asian width.
_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_LIKE_FORMULA = re.compile(rf"'*[{_FORMULA}]")
_QUOTED_FORMULA = re.compile(rf"'+[{_FORMULA}]")

# Control characters, marks that change the direction of text, and the surrogates by which Python keeps the bytes of a
# file name that is not UTF-8.
_HIDDEN = "\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
_IN_A_CELL = re.compile(rf"[{_HIDDEN}]|\\(?=[xu][0-9a-f]{{2}})")  # also a backslash that looks like an escape
_IN_A_PAGE = re.compile(rf"(?![\t\n\r])[{_HIDDEN}]")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")


def escape_text(text: str) -> str:
    r"""Return a text with every control character written as its escape (`\x1b`), so that it is valid UTF-8.

    Bytes of a file name that is not UTF-8 become `\udcXX`. Other text is returned unchanged. `unescape_text` is the
    inverse.
    """
    return _IN_A_CELL.sub(_escape, text)


def escape_page(text: str) -> str:
    """Return a text of several lines with control characters escaped, but for line ends and tabs; as `escape_text`."""
    return _IN_A_PAGE.sub(_escape, text)


def unescape_text(text: str) -> str:
    """Return the text of which `escape_text` made this one."""
    return _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, str | float]]) -> str:
    """Return rows as CSV: floats with six decimals, absent columns blank.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, and control characters are escaped
    (`escape_text`). `cell_text` is the inverse.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def cell_text(cell: str) -> str:
    """Return the text that `csv_text` wrote into a cell."""
    return unescape_text(cell[1:] if _QUOTED_FORMULA.match(cell) else cell)


def _cell(value: str | float) -> str | int:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, int):
        return value
    text = escape_text(value)
    return f"'{text}" if _LIKE_FORMULA.match(text) else text


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
