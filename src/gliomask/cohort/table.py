"""The tables of a folder of predicted cases, `volumes.csv`, `volumes.parquet` and `failed.csv`, while they grow."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gliomask.cases import Problem
from gliomask.cases.folders import BESIDE_A_MASK
from gliomask.cohort.rows import Row, columns_of, read_row
from gliomask.errors import InputError
from gliomask.evaluation.table_text import cell_text, csv_text, escape_text
from gliomask.files import one_writer, write_text
from gliomask.files.parquet import can_parquet, parquet_name, write_parquet
from gliomask.files.remote import url_of
from gliomask.inference.record import digest_of, read_facts
from gliomask.volume import NIFTI_ENDINGS

VOLUMES = "volumes.csv"
PARQUET = "volumes.parquet"
FAILED = "failed.csv"

_FAILED_COLUMNS = ("case", "reason", "older_mask_sha256")
_PARQUET_NAME = "volumes of "
_EVERY_SECONDS = 5.0
_SHARE = 50
"""A table that grows is written again after this many times the time that writing it took, if that is longer."""
_TURN = f"{VOLUMES} and {FAILED}"
_LONGEST_TURN = 60.0
"""Seconds to wait for another program that writes the tables of the same folder."""
_NOT_OURS = "exists already and is not a table that gliomask wrote. It is left as it is; move it away."


@dataclass(frozen=True)
class Written:
    """What `FolderTable.write` wrote."""

    rows: int
    failed: int
    problems: tuple[Problem, ...] = ()
    """Files that could not be written, and why."""


@dataclass
class FolderTable:
    """The table of the cases in a folder that `predict` writes to.

    The JSON files beside the masks are the state: rows are made of them, whoever wrote them, so that a table that was
    interrupted is completed by the next one, and several runs may work on one folder. A JSON without a mask is no
    finished case. Cases that failed are known to the run only; `failed.csv` keeps those of earlier runs until their
    mask is there.
    """

    folder: Path
    rows: dict[str, Row] = field(default_factory=dict)
    """The row of each case, by the name of its files without the ending."""
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)
    _due: float = 0.0

    def ask(self, cases: Iterable[str]) -> None:
        """Name the cases that this run is to do: what an earlier run wrote about their failure does not hold now."""
        self._asked.update(cases)

    def fail(self, case: str, reason: str, paths: Iterable[Path] = ()) -> None:
        """Note that a case failed; the folders of its files are taken out of the reason, as they may name people."""
        folders = {path.parent for path in paths} | {self.folder}
        names = {f"{url}/" if (url := url_of(folder)) else f"{folder}{os.sep}" for folder in folders}
        names |= {f"{folder.absolute()}{os.sep}" for folder in folders if not url_of(folder)}  # as workers name them
        for name in sorted(names, key=len, reverse=True):  # a folder may contain another one
            reason = reason.replace(name, "")
        before = self._failed.get(case, "")
        if reason not in before:
            self._failed[case] = f"{before}; {reason}" if before else reason
        self._asked.add(case)

    def refresh(self) -> None:
        """Read the JSON files that are new or have changed, and forget those that are gone; one look at the folder."""
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            found = {entry.name: entry for entry in entries}
            stems = {name[: -len(ending)] for name in found for ending in NIFTI_ENDINGS if name.endswith(ending)}
            there = {stem: found[f"{stem}.json"] for stem in stems if f"{stem}.json" in found}
            self.rows = {stem: row for stem, row in self.rows.items() if stem in there}
            self._seen = {stem: key for stem, key in self._seen.items() if stem in there}
            for stem, entry in there.items():
                with suppress(OSError):  # replaced at this moment: the next look finds it
                    state = entry.stat()
                    key = (state.st_mtime_ns, state.st_size)
                    if self._seen.get(stem) != key:
                        row = read_row(read_facts(self.folder / entry.name) or {})
                        self.rows.pop(stem, None)
                        if row is not None:
                            self.rows[stem] = row
                        self._seen[stem] = key

    def left_out(self) -> tuple[Problem, ...]:
        """Return the masks that have no row, and the JSON files of cases whose mask is gone, by name."""
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        masks = {name: name.removesuffix(end) for end in NIFTI_ENDINGS for name in names if name.endswith(end)}
        jsons = {name for name in names if name.endswith(".json") and name[:-5] not in masks.values()}
        return (
            *(
                Problem(name, f"has no row, as {stem}.json is missing or is not one that predict wrote")
                for name, stem in sorted(masks.items())
                if not {stem, *(stem.removesuffix(ending) for ending in BESIDE_A_MASK)} & self.rows.keys()
            ),
            *(
                Problem(name, "has no row, as the mask beside it is gone")
                for name in sorted(jsons)
                if read_row(read_facts(self.folder / name) or {}) is not None
            ),
        )

    def is_nothing(self) -> bool:
        """Return whether the folder holds no finished case and no table, or does not exist."""
        self.refresh()
        return not self.rows and not any((self.folder / name).exists() for name in (VOLUMES, FAILED))

    def write_if_due(self) -> tuple[Problem, ...]:
        """Write the tables if a few seconds have passed since the last time; return what could not be written."""
        if time.monotonic() < self._due or self.is_nothing():
            return ()
        started = time.monotonic()
        problems = self.write().problems
        now = time.monotonic()
        self._due = now + max(_EVERY_SECONDS, _SHARE * (now - started))
        return problems

    def write(self) -> Written:
        """Write the tables, each whole or not at all; one that is as it should be is not written again.

        Files of these names that gliomask did not write are left as they are, and a table of volumes is not replaced by
        an empty one: the masks may have been moved elsewhere and the table kept. Programs that work on one folder take
        turns, so that none replaces what another has just written by what it read before.
        """
        with ExitStack() as turn:
            if self.folder.is_dir():
                with suppress(InputError):  # the folder cannot be written to, which is said where a table has changed
                    turn.enter_context(one_writer(self.folder, _TURN, wait_seconds=_LONGEST_TURN))
            return self._write()

    def _write(self) -> Written:
        self.refresh()
        rows = sorted(self.rows.values(), key=lambda row: str(row["case"]))
        columns = columns_of(rows)
        text = csv_text(list(columns), rows)
        failed = self._failures()
        failed_text = csv_text(_FAILED_COLUMNS, failed)
        problems: list[Problem] = []
        if rows:
            self._replace(VOLUMES, text, ("case", "patient", "timepoint", "sequences"), problems)
            self._write_parquet(columns, rows, _PARQUET_NAME + digest_of(text.encode("utf-8")), problems)
        if failed or (self.folder / FAILED).exists():
            self._replace(FAILED, failed_text, _FAILED_COLUMNS, problems)
        return Written(len(rows), len(failed), tuple(problems))

    def _replace(self, name: str, text: str, begins: Collection[str], problems: list[Problem]) -> None:
        path = self.folder / name
        try:
            before = path.read_text("utf-8") if path.exists() else None
            if before == text:
                return
            if before is not None and not before.startswith(",".join(begins)):
                problems.append(Problem(name, _NOT_OURS))
                return
            write_text(path, text)
        except (InputError, OSError, UnicodeDecodeError) as error:
            problems.append(Problem(name, _unwritten(error)))

    def _write_parquet(self, columns: Mapping[str, type], rows: list[Row], name: str, problems: list[Problem]) -> None:
        path = self.folder / PARQUET
        if not can_parquet():
            if path.exists():
                problems.append(Problem(PARQUET, "is not kept up to date, because pyarrow (extra cohort) is missing"))
            return
        try:
            before = parquet_name(path) if path.exists() else None
            if before is not None and not before.startswith(_PARQUET_NAME):
                problems.append(Problem(PARQUET, _NOT_OURS))
            elif before != name:
                # What is no text in UTF-8 is escaped as in the CSV file.
                plain = [{key: escape_text(v) if isinstance(v, str) else v for key, v in row.items()} for row in rows]
                write_parquet(path, columns, plain, name)
        except (InputError, OSError) as error:
            problems.append(Problem(PARQUET, _unwritten(error)))

    def _failures(self) -> list[dict[str, str]]:
        """Return the rows of `failed.csv`: what failed now, and what failed before and has no newer mask since."""
        masks = {str(row["case"]): str(row.get("mask_sha256", "unknown")) for row in self.rows.values()}
        found = {case: (reason, masks.get(case, "")) for case, reason in self._failed.items()}
        for case, reason, older in read_failed(self.folder / FAILED):
            if case not in self._asked and masks.get(case, "") == older:
                found.setdefault(case, (reason, older))
        return [
            {"case": case, "reason": reason, "older_mask_sha256": older}
            for case, (reason, older) in sorted(found.items())
        ]


def read_failed(path: Path) -> list[tuple[str, str, str]]:
    """Return case, reason and the digest of an older mask, of each row of a `failed.csv`; none if there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    if not lines or tuple(lines[0]) != _FAILED_COLUMNS:
        return []
    return [(cell_text(line[0]), cell_text(line[1]), line[2]) for line in lines[1:] if len(line) == 3]


def _unwritten(error: Exception) -> str:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    # What Windows says of a file that another program has open; of a full disk it would mislead.
    refused = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
    why = " Another program may have it open;" if refused else ""
    return f"was not written: {text.rstrip('.')}.{why} `gliomask table` writes it again later."
