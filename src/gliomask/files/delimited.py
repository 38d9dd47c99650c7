"""Tables as text, CSV and TSV, as spreadsheets and other programs of any language write them.

The separator is the one by which the first line names most columns that the reader knows; the encoding is told by the
file's first bytes, or is UTF-8, or else Windows-1252. What could be read in two ways is refused.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gliomask.errors import InputError
from gliomask.files.placeholders import refuse_placeholder

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
"""What may stand between the cells of a line, with its name."""

# Longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32"),
    (b"\x00\x00\xfe\xff", "utf-32", "UTF-32"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
    (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "is a workbook of a spreadsheet, or a zip file. Save the sheet as CSV."),
    (b"\xd0\xcf\x11\xe0", "is a workbook of Excel. Save the sheet as CSV."),
    (b"PAR1", "is a Parquet file. Give it the ending .parquet."),
    (b"\x1f\x8b", "is compressed. Unpack it."),
    (b"%PDF", "is a PDF file. Save the table as CSV."),
    (b"{\\rtf", "is a text document. Save the table as CSV."),
)
_INVISIBLE = "\ufeff\u200b\u200e\u200f\u2060"
_EXCEL_SEPARATOR = re.compile(r"""\s*["']?sep=([^\r"])["']?\s*""", re.IGNORECASE)
_NO_SEPARATOR = ","


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    number: int
    """The line of the file that the row begins on, from 1."""
    cells: tuple[str, ...]
    """Without spaces around them, unless they were to be kept as written."""


@dataclass(frozen=True)
class DelimitedText:
    """A table as it was read."""

    header: Line
    rows: tuple[Line, ...]
    """Without rows of empty cells."""
    separator: str
    encoding: str
    """Its name, as shown to users."""
    doubt: str = ""
    """Where the encoding is a guess: a cell that would read otherwise if the guess is wrong, with its line."""

    @property
    def described(self) -> str:
        """How the file was read, in words."""
        return f"{self.encoding}, cells separated by {SEPARATORS.get(self.separator, repr(self.separator))}"


def read_delimited(path: Path, is_heading: Callable[[str], bool], *, as_written: bool = False) -> DelimitedText:
    """Return the header and the rows of a table in CSV, TSV or the like.

    Lines may end in any way; blank lines and rows of empty cells are left out. A first line `sep=;`, as Excel writes
    it, names the separator.

    Args:
        path: The file.
        is_heading: Tells whether the reader knows a heading. The separator by which most are known is taken.
        as_written: Keep spaces around the cells.

    Raises:
        InputError: The file cannot be read or is none of text, it is empty, its separator or its encoding could be
            several, or a quotation mark is not closed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error
    refuse_placeholder(content, str(path))
    for start, what in _OTHER_FORMATS:
        if content.startswith(start):
            raise InputError(f"{path}: {what}")
    text, encoding = _decode(path, content)
    given = _EXCEL_SEPARATOR.fullmatch(text.partition("\n")[0])
    separator = given.group(1) if given else _find_separator(path, text, is_heading)
    lines = _lines(path, text, separator, as_written=as_written)
    if given:
        next(lines)
    found = [line for line in lines if any(map(_stripped, line.cells))]
    if not found:
        raise InputError(f"{path}: is empty. Copy or download it again.")
    doubt = _first_special(found) if encoding == "Windows-1252" else ""
    return DelimitedText(found[0], tuple(found[1:]), separator, encoding, doubt)


def _decode(path: Path, content: bytes) -> tuple[str, str]:
    """Return the text of a file, and the name of its encoding."""
    told = next(((codec, name) for mark, codec, name in _MARKS if content.startswith(mark)), None)
    told = told or _without_mark(content)
    for codec, name in [told] if told else [("utf-8", "UTF-8"), ("cp1252", "Windows-1252")]:
        try:
            return content.decode(codec), name
        except UnicodeDecodeError as error:
            at = f"line {content[: error.start].count(10) + 1}"
    tried = told[1] if told else "UTF-8 or Windows-1252"
    raise InputError(f"{path}: {at}: is no text in {tried}. Save it as UTF-8.")


def _without_mark(content: bytes) -> tuple[str, str] | None:
    """Return the encoding of UTF-16 without a mark, in which every second byte of an English heading is zero."""
    even, odd = content[0:16:2], content[1:16:2]
    if len(odd) >= 2 and 0 not in even and set(odd) == {0}:
        return "utf-16-le", "UTF-16"
    if len(odd) >= 2 and 0 not in odd and set(even) == {0}:
        return "utf-16-be", "UTF-16"
    return None


def _find_separator(path: Path, text: str, is_heading: Callable[[str], bool]) -> str:
    headers = {separator: _first_cells(text, separator) for separator in SEPARATORS}
    apart = {separator: cells for separator, cells in headers.items() if len(cells) > 1}
    known = {separator: sum(map(is_heading, cells)) for separator, cells in apart.items()}
    most = max(known.values(), default=0)
    best = [separator for separator, count in known.items() if count == most]
    if not most:  # a single column, or headings that the reader does not know and will refuse
        return max(apart, key=lambda separator: len(apart[separator]), default=_NO_SEPARATOR)
    if len(best) > 1:
        names = " or ".join(SEPARATORS[separator] for separator in best)
        raise InputError(f"{path}: the cells of the first line can be separated by {names}. Use one of them only.")
    return best[0]


def _first_cells(text: str, separator: str) -> list[str]:
    """Return the cells of the first line that is not blank, or none if it cannot be read with this separator."""
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True):
            if any(map(_stripped, cells)):
                return [_stripped(cell) for cell in cells]
    except csv.Error:
        pass
    return []


def _lines(path: Path, text: str, separator: str, *, as_written: bool) -> Iterator[Line]:
    content = io.StringIO(text, newline="")
    reader = csv.reader(content, delimiter=separator, skipinitialspace=not as_written, strict=True)
    number = 1
    try:
        for cells in reader:
            yield Line(number, tuple(cells if as_written else map(_stripped, cells)))
            number = reader.line_num + 1
    except csv.Error as error:
        what = str(error)
        if "unexpected end" in what:
            what = "a quotation mark that begins a cell is not closed"
        elif "expected after" in what:
            what = "a quotation mark in the middle of a cell; write it twice within a cell that is quoted"
        raise InputError(f"{path}: line {number}: {what}.") from error


def _stripped(cell: str) -> str:
    return cell.strip().strip(_INVISIBLE).strip()


def _first_special(lines: list[Line]) -> str:
    """Return the first cell with a letter that is not in ASCII, with its line."""
    return next((f"{cell!r} in line {line.number}" for line in lines for cell in line.cells if not cell.isascii()), "")
