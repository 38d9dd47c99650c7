"""Score tables: the scores of several sets of predictions, read from files that `gliomask evaluate` wrote."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation.results import Scores
from gliomask.evaluation.table_text import cell_text, escape_text
from gliomask.files.delimited import Line, read_delimited
from gliomask.files.parquet import read_parquet
from gliomask.metrics import METRICS, PROTOCOLS, Protocol

log = logging.getLogger(__name__)

_FACTS = ("protocol", "case", "region", "status")
_METRICS = frozenset(name for protocol in PROTOCOLS.values() for name in protocol.names)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*", re.IGNORECASE)
_DECIMALS = 6  # of CSV; other files have more, by which equal scores would be of different rank
_ROUNDING = 10.0**-_DECIMALS
_LONGEST_SHOWN = 40  # characters of a wrong value in a message
_MOST_NAMED = 5  # columns that are not used, and cases in a note


@dataclass(frozen=True)
class ScoreTable:
    """The scores of one file under one protocol."""

    name: str
    protocol: Protocol
    scores: Mapping[str, Mapping[str, Scores]]
    """Case -> region -> metric -> value; without a region that the masks of the case do not label."""
    missing: tuple[str, ...] = ()
    """Cases without a prediction, which have the worst possible scores."""
    failed: tuple[str, ...] = ()
    """Cases that could not be scored, as far as the file names them: JSON does."""


@dataclass(frozen=True)
class ComparableTables:
    """Score tables that can be compared: they share a protocol and regions, and have cases in common."""

    tables: tuple[ScoreTable, ...]
    cases: tuple[str, ...]
    """The cases that are in all tables."""
    regions: tuple[str, ...]
    """The regions that all tables have for one of these cases or more, in the protocol's order."""
    left_out: tuple[Problem, ...]
    """For each table, the cases that are not in all others."""
    notes: tuple[Problem, ...] = ()
    """Regions that not all tables have for each of the cases, because the masks do not label them there."""

    @property
    def protocol(self) -> Protocol:
        """The protocol by which all tables were scored."""
        return self.tables[0].protocol

    def cases_of(self, region: str) -> tuple[str, ...]:
        """Return those of the cases for which all tables have this region."""
        return tuple(case for case in self.cases if all(region in table.scores[case] for table in self.tables))


def read_score_tables(paths: Sequence[Path], protocol: str | None = None) -> ComparableTables:
    """Return the score tables of two or more files, checked to be comparable.

    Args:
        paths: CSV, Parquet or JSON files written by `gliomask evaluate -o`; CSV also as a spreadsheet program saved it
            again, with other separators and decimal commas. A table is named after its file, or after folder and
            file if files in several folders have the same name (`name_tables`).
        protocol: Which protocol to take if the files hold several (`--compare-protocols`).

    Returns:
        The tables. A region that a case lacks in one of them, because a mask does not label it, is compared in the
        other cases, and a note says so. A case without a region that all tables have is not compared.

    Raises:
        InputError: There are fewer than two files, a file is given twice, cannot be read or is not a score table, the
            tables differ in protocol or regions, or no case is in all of them.
    """
    if len(paths) < 2:
        raise InputError("there is nothing to compare: give the scores of two or more sets of predictions.")
    names = name_tables([path.resolve() for path in paths])
    tables = tuple(read_score_table(path, protocol, name=name) for path, name in zip(paths, names, strict=True))
    used = {table.name: table.protocol.name for table in tables}
    if len(set(used.values())) > 1:
        listed = ", ".join(f"{name} {rules}" for name, rules in used.items())
        raise InputError(
            f"the files were scored by different protocols and cannot be compared: {listed}. "
            "Score all predictions by one protocol: gliomask evaluate --protocol."
        )
    shared = sorted(set.intersection(*(set(table.scores) for table in tables)))
    if not shared:
        raise InputError(
            f"no case is in all of {', '.join(map(str, paths))} "
            f"(cases such as {', '.join(sorted(tables[0].scores)[:2])} and {sorted(tables[1].scores)[0]})."
        )
    _refuse_other_regions(tables, shared)
    labelled = {case: set.intersection(*(set(table.scores[case]) for table in tables)) for case in shared}
    compared = [case for case in shared if labelled[case]]
    if not compared:
        raise InputError(f"no region is in all of {', '.join(map(str, paths))} for the same case.")
    left_out = [(table.name, sorted(table.scores.keys() - set(shared))) for table in tables]
    return ComparableTables(
        tables,
        tuple(compared),
        tuple(region for region in tables[0].protocol.regions if any(region in labelled[case] for case in compared)),
        tuple(Problem(name, f"not in all files: {', '.join(cases)}") for name, cases in left_out if cases),
        _partly_labelled(tables, labelled),
    )


def read_score_table(path: Path, protocol: str | None = None, *, name: str = "") -> ScoreTable:
    """Return the score table of one file, named `name` or else after the file.

    Columns of other names than `gliomask evaluate` writes are not used, which is logged as a warning.

    Raises:
        InputError: As for `read_score_tables`, for one file; the row is named if a row is wrong.
    """
    if path.suffix.lower() == ".json":
        rows, failed = _json_rows(path)
    else:
        rows, failed = (_parquet_rows if path.suffix.lower() == ".parquet" else _csv_rows)(path), {}
    if not rows:
        raise InputError(f"{path}: holds no scores.")
    unused = {column: None for row in rows for column in row.cells if column not in _METRICS and column not in _FACTS}
    if unused:
        more = f" and {len(unused) - _MOST_NAMED} more" if len(unused) > _MOST_NAMED else ""
        shown = ", ".join(map(_short, list(unused)[:_MOST_NAMED])) + more
        log.warning("%s: columns that gliomask evaluate does not write are not used: %s", path, shown)
    held = list(dict.fromkeys(row.facts["protocol"] for row in rows))
    if protocol is None and len(held) > 1:
        raise InputError(
            f"{path}: holds the scores of {', '.join(map(_short, held[:5]))}; choose one of them with --protocol."
        )
    wanted = protocol or held[0]
    if wanted not in held or wanted not in PROTOCOLS:
        raise InputError(
            f"{path}: has no scores by the protocol {wanted!r}; it has {', '.join(map(_short, held[:5]))}."
        )
    scores: dict[str, dict[str, Scores]] = {}
    missing: dict[str, None] = {}
    for row in rows:
        if row.facts["protocol"] == wanted:
            case, region = row.facts["case"], row.facts["region"]
            found = row.scores(path, PROTOCOLS[wanted])
            if region in scores.setdefault(case, {}):
                raise InputError(
                    f"{path}: has two rows for {_short(region)} of {_short(case)}. Score the predictions again."
                )
            scores[case][region] = found
            if row.facts["status"] == "missing":
                missing[case] = None
    return ScoreTable(name or path.stem, PROTOCOLS[wanted], scores, tuple(missing), failed.get(wanted, ()))


@dataclass(frozen=True)
class _Row:
    """A row of a file, and where it is, for messages."""

    where: str
    facts: Mapping[str, str]
    cells: Mapping[str, object]
    """Text from CSV, any value from JSON and Parquet, by column."""

    def scores(self, path: Path, protocol: Protocol) -> Scores:
        """Return the row's scores with six decimals; an empty cell (the column of another protocol) is left out.

        Raises:
            InputError: The region is unknown to the protocol, or a score is not a number or outside its range.
        """
        region, case = self.facts["region"], self.facts["case"]
        where = f"{path}: {self.where} ({_short(region)} of {_short(case)})"
        if region not in protocol.regions:
            raise InputError(f"{where}: {protocol.name} does not score such a region; it has {_listed(protocol)}.")
        if self.facts["status"] not in ("scored", "missing"):
            raise InputError(f"{where}: the status is 'scored' or 'missing', not {_short(self.facts['status'])}.")
        found = {}
        for name in protocol.names:
            value = self.cells.get(name, "")
            if value == "":
                continue
            number = _number(value)
            if number is None or not _allowed(number, name, protocol):
                raise InputError(f"{where}: {name} cannot be {_short(value)}. Score the predictions again.")
            found[name] = round(number, _DECIMALS)
        return found


def _number(value: object) -> float | None:
    """Return the number in a cell, None if there is none; what JSON calls null is NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _allowed(value: float, name: str, protocol: Protocol) -> bool:
    """Return whether a metric can have this value under a protocol."""
    metric = METRICS.get(name.removeprefix("lesion_"))
    if math.isnan(value):
        scored = metric is not None and metric.kind != "fact"
        return name == "detection_f1" or (scored and not protocol.both_empty_is_perfect)
    if name == "volume_difference_ml":
        return math.isfinite(value)
    if value < -_ROUNDING:
        return False
    if math.isinf(value):
        return name.startswith("lesion_") and protocol.lesion_empty_mm == math.inf and "hd95" in name
    share = metric.kind == "share" if metric else name == "detection_f1"
    return not (share or name == "voxel_accuracy_of_nothing") or value <= 1 + _ROUNDING


def name_tables(places: Sequence[PurePath]) -> list[str]:
    """Return a name for each file, all of them different: as little of its path as distinguishes it from the others.

    The ending is part of the names if files of one folder differ in it only, and the drive if nothing else differs.

    Args:
        places: Absolute paths, each of another file.

    Raises:
        InputError: A file was given twice.
    """
    if len(set(places)) < len(places):
        raise InputError("a file was given twice; compare different files.")
    folders = [place.parts[1:-1] for place in places]
    for ends in ([place.stem for place in places], [place.name for place in places]):
        parts = [(*folder, end) for folder, end in zip(folders, ends, strict=True)]
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join(part[-depth:]) for part in parts]
            if len(set(names)) == len(names):
                return names
    return list(map(str, places))


def _refuse_other_regions(tables: Sequence[ScoreTable], cases: Sequence[str]) -> None:
    """Raise InputError if a table lacks, in all of these cases, a region that another has in one of them."""
    held = {table.name: {region for case in cases for region in table.scores[case]} for table in tables}
    if len(set(map(frozenset, held.values()))) > 1:
        order = tables[0].protocol.regions
        listed = "; ".join(f"{name}: {', '.join(sorted(found, key=order.index))}" for name, found in held.items())
        raise InputError(f"the files have different regions and cannot be compared: {listed}.")


def _partly_labelled(tables: Sequence[ScoreTable], labelled: Mapping[str, set[str]]) -> tuple[Problem, ...]:
    """Return a note for each region that some case lacks, and one for the cases that are left with no region."""
    nothing = [case for case, regions in labelled.items() if not regions]
    compared = [case for case, regions in labelled.items() if regions]
    notes = [Problem("not compared", f"no region is in all files for {_some(nothing)}")] if nothing else []
    for region in tables[0].protocol.regions:
        lacking = [case for case in compared if region not in labelled[case]]
        if lacking and any(region in table.scores[case] for table in tables for case in labelled):
            rest = len(compared) - len(lacking)
            what = f"not scored in all files for {len(lacking)} of {len(compared)} cases ({_some(lacking)})"
            notes.append(Problem(region, f"{what}; compared in the other {rest}" if rest else f"{what}; not compared"))
    return tuple(notes)


def _some(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else ""
    return ", ".join(cases[:_MOST_NAMED]) + more


def _csv_rows(path: Path) -> list[_Row]:
    table = read_delimited(path, lambda heading: heading in _METRICS or heading in _FACTS, as_written=True)
    columns = table.header.cells
    _refuse_repeated(path, columns)
    scores = [place for place, column in enumerate(columns) if column in _METRICS]
    for line in table.rows:
        if len(line.cells) != len(columns):
            raise InputError(
                f"{path}: line {line.number}: has another number of cells than the header; the file is cut or damaged."
            )
    decimal_comma = table.separator != "," and any(
        _DECIMAL_COMMA.fullmatch(line.cells[place]) for line in table.rows for place in scores
    )
    return [_csv_row(path, columns, line, decimal_comma=decimal_comma) for line in table.rows]


def _csv_row(path: Path, columns: Sequence[str], line: Line, *, decimal_comma: bool) -> _Row:
    """Return a row; in a file with decimal commas a point is refused, as it may separate thousands there."""
    cells = dict(zip(columns, line.cells, strict=True))
    where = f"line {line.number}"
    for name in _METRICS.intersection(cells) if decimal_comma else ():
        if "." in cells[name]:
            raise InputError(
                f"{path}: {where}: {name} is {_short(cells[name])}, while other numbers of the file have a decimal "
                "comma. Score the predictions again, or export the table in one way."
            )
        cells[name] = cells[name].replace(",", ".")
    return _row(path, where, {name: cell_text(cells.get(name, "")) for name in _FACTS}, cells)


def _parquet_rows(path: Path) -> list[_Row]:
    columns, rows = read_parquet(path)
    _refuse_repeated(path, columns)
    return [_typed_row(path, f"row {number}", cells, cells) for number, cells in enumerate(rows, start=1)]


def _refuse_repeated(path: Path, columns: Sequence[str]) -> None:
    if repeated := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise InputError(f"{path}: has two columns called {_short(repeated[0])}. Score the predictions again.")


def _json_rows(path: Path) -> tuple[list[_Row], dict[str, tuple[str, ...]]]:
    """Return the rows of a file, and the cases that failed by protocol."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}."
        ) from error
    try:
        content = json.loads(text)
        failed = {
            str(found["protocol"]["name"]): tuple(str(problem["where"]) for problem in found.get("failed", []))
            for found in _evaluations(content)
        }
        return list(_rows_of(path, content)), failed
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: does not hold scores of gliomask evaluate. Write them with its option -o."
        ) from error


def _rows_of(path: Path, content: Mapping[str, object]) -> Iterator[_Row]:
    for evaluation in _evaluations(content):
        protocol = evaluation["protocol"]["name"]
        for number, cells in enumerate(_list(evaluation["cases"]), start=1):
            yield _typed_row(path, f"row {number}", {**cells, "protocol": protocol}, cells)


def _evaluations(content: Mapping[str, object]) -> list[Any]:
    return _list(content.get("evaluations", [content]))


def _typed_row(path: Path, where: str, facts: Mapping[str, object], cells: Mapping[str, object]) -> _Row:
    """Return a row of a file whose values have types.

    Raises:
        InputError: A fact is missing or not text.
    """
    values = {name: facts.get(name) or "" for name in _FACTS}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if strange := [name for name in values if name not in texts]:
        raise InputError(f"{path}: {where}: {', '.join(strange)} must be text.")
    return _row(path, where, texts, cells)


def _row(path: Path, where: str, facts: Mapping[str, str], cells: Mapping[str, object]) -> _Row:
    if missing := [name for name, value in facts.items() if not value]:
        raise InputError(
            f"{path}: {where}: lacks {', '.join(missing)}, so the file was not written by gliomask evaluate -o, "
            "or it is cut."
        )
    return _Row(where, facts, cells)


def _list(content: object) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError
    return content


def _listed(protocol: Protocol) -> str:
    return ", ".join(protocol.regions)


def _short(value: object) -> str:
    text = repr(value)
    return escape_text(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")
