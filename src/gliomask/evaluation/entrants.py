"""The scores of several sets of predictions, read back from the files that `gliomask evaluate` wrote."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation.table import Scores
from gliomask.metrics import PROTOCOLS, Protocol

_FACTS = ("protocol", "case", "region", "status")


@dataclass(frozen=True)
class Entrant:
    """One file's scores under one protocol."""

    name: str
    protocol: Protocol
    scores: Mapping[str, Mapping[str, Scores]]
    """Case -> region -> metric -> value."""
    missing: tuple[str, ...] = ()
    """Cases without a prediction, scored as the worst."""


@dataclass(frozen=True)
class Field:
    """Entrants that may be compared: of one protocol, with the cases that all of them have."""

    entrants: tuple[Entrant, ...]
    cases: tuple[str, ...]
    regions: tuple[str, ...]
    left_out: tuple[Problem, ...]
    """Of each file the cases that others lack."""

    @property
    def protocol(self) -> Protocol:
        """The rules by which all were scored."""
        return self.entrants[0].protocol


def read_field(paths: Sequence[Path], protocol: str | None = None) -> Field:
    """Return the scores in two or more files, brought together.

    Args:
        paths: CSV or JSON files, as `gliomask evaluate -o` writes them. An entrant is called as its file, or, where
            files of several folders are called alike, as folder and file.
        protocol: Which of them, where the files hold several (`--compare-protocols`).

    Raises:
        InputError: There are less than two files, one cannot be read or is no such table, they were scored by
            different protocols or have different regions, or no case is in all of them.
    """
    if len(paths) < 2:
        raise InputError("there is nothing to compare: give the scores of two or more sets of predictions.")
    names = _names(paths)
    entrants = tuple(read_entrant(path, protocol, name=name) for path, name in zip(paths, names, strict=True))
    used = {entrant.name: entrant.protocol.name for entrant in entrants}
    if len(set(used.values())) > 1:
        listed = ", ".join(f"{name} {rules}" for name, rules in used.items())
        raise InputError(
            f"the files were scored by different rules, which cannot be compared: {listed}. "
            "Score all by one: gliomask evaluate --protocol."
        )
    regions = _common_regions(entrants)
    shared = sorted(set.intersection(*(set(entrant.scores) for entrant in entrants)))
    if not shared:
        raise InputError(
            f"no case is in all of {', '.join(map(str, paths))} "
            f"(cases such as {', '.join(sorted(entrants[0].scores)[:2])} and {sorted(entrants[1].scores)[0]})."
        )
    left_out = [(entrant.name, sorted(entrant.scores.keys() - set(shared))) for entrant in entrants]
    return Field(
        entrants,
        tuple(shared),
        regions,
        tuple(Problem(name, f"not in all files: {', '.join(cases)}") for name, cases in left_out if cases),
    )


def read_entrant(path: Path, protocol: str | None = None, *, name: str = "") -> Entrant:
    """Return the scores in one file; called `name`, or as the file.

    Raises:
        InputError: As for `read_field`, of one file.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}).") from error
    rows = _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text)
    held = list(dict.fromkeys(str(row["protocol"]) for row in rows))
    if protocol is None and len(held) > 1:
        raise InputError(f"{path}: holds the scores of {', '.join(held)}; choose one of them with --protocol.")
    wanted = protocol or held[0]
    if wanted not in held or wanted not in PROTOCOLS:
        raise InputError(f"{path}: has no scores by the rules of {wanted}; it has {', '.join(held)}.")
    scores: dict[str, dict[str, Scores]] = {}
    missing: dict[str, None] = {}
    for row in rows:
        if row["protocol"] == wanted:
            regions = scores.setdefault(str(row["case"]), {})
            if row["region"] in regions:
                raise InputError(f"{path}: has two rows for {row['region']} of {row['case']}; score anew.")
            regions[str(row["region"])] = _numbers(path, row)
            if row["status"] == "missing":
                missing[str(row["case"])] = None
    return Entrant(name or path.stem, PROTOCOLS[wanted], scores, tuple(missing))


def _names(paths: Sequence[Path]) -> list[str]:
    """Call each file by as little of its path as tells it from the others."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("one file was given twice; compare different ones.")
    parts = [(*path.resolve().parts[1:-1], path.stem) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [path.name for path in paths]  # they differ in their ending alone


def _common_regions(entrants: Sequence[Entrant]) -> tuple[str, ...]:
    regions: dict[str, tuple[str, ...]] = {}
    for entrant in entrants:
        first = next(iter(entrant.scores.values()))
        for case, found in entrant.scores.items():
            if set(found) != set(first):
                raise InputError(
                    f"{entrant.name}: {case} has the regions {', '.join(found)}, others {', '.join(first)}."
                )
        regions[entrant.name] = tuple(first)
    if len({frozenset(names) for names in regions.values()}) > 1:
        listed = "; ".join(f"{name}: {', '.join(found)}" for name, found in regions.items())
        raise InputError(f"the files have different regions, which cannot be compared: {listed}.")
    return next(iter(regions.values()))


def _csv_rows(path: Path, text: str) -> list[Mapping[str, object]]:
    return _checked(path, list(csv.DictReader(io.StringIO(text))))


def _json_rows(path: Path, text: str) -> list[Mapping[str, object]]:
    try:
        content = json.loads(text)
        evaluations = content.get("evaluations", [content])
        rows = [{"protocol": found["protocol"]["name"], **row} for found in evaluations for row in found["cases"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no scores of gliomask evaluate. Write them with its -o.") from error
    return _checked(path, rows)


def _checked(path: Path, rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    rows = list(rows)
    if not rows:
        raise InputError(f"{path}: holds no scores.")
    if missing := [fact for fact in _FACTS if any(row.get(fact) in (None, "") for row in rows)]:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}, so it was not written by gliomask evaluate -o, or is cut."
        )
    return rows


def _numbers(path: Path, row: Mapping[str, object]) -> Scores:
    """Return a row's scores; what JSON calls null is no number, a blank (another protocol's column) is left out."""
    scores = {}
    for name, value in row.items():
        if name in _FACTS or value == "":
            continue
        try:
            scores[name] = math.nan if value is None else float(str(value))
        except ValueError as error:
            raise InputError(
                f"{path}: {name} of {row['region']} of {row['case']} is no number: {value!r}. Score anew."
            ) from error
    return scores
