"""A whole data set written in another layout: planned, resumed, described, with its split."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gliomask.cases import Case, Problem
from gliomask.errors import InputError
from gliomask.exchange.convert import Converted, Settings, convert_cases
from gliomask.exchange.description import Contents, describe_dataset
from gliomask.exchange.targets import Names, files_of, name_files
from gliomask.execution import HERE, Where
from gliomask.files import clear_partials, one_writer, write_text
from gliomask.labels import get_convention
from gliomask.version import VERSION

RECORD = "convert.json"
"""A file in a converted data set: how it was made, and the id that each case had before."""

# How often the record is written while cases are converted, in seconds.
_RECORD_INTERVAL = 5.0


@dataclass(frozen=True)
class Outcome:
    """What a conversion did."""

    done: tuple[Converted, ...]
    kept: tuple[str, ...]
    """New ids of cases that an earlier run has converted and whose files have not changed since."""
    problems: tuple[Problem, ...]
    new_ids: Mapping[str, str]
    """The new id of each case that is there now, by its id before."""


def restore_ids(folder: Path, cases: Sequence[Case]) -> list[Case]:
    """Return cases with the ids, patients and time points that they had before `convert` wrote this folder.

    Cases of a folder that `convert` has not written are returned as they are.

    Raises:
        InputError: The folder's record is damaged.
    """
    before = _read_record(folder / RECORD).get("cases", {}) if (folder / RECORD).is_file() else {}
    return [replace(case, **before[case.id]["before"]) if case.id in before else case for case in cases]


def refuse_own_input(source: Path, output: Path, cases: Sequence[Case]) -> None:
    """Refuse an output folder that is, holds or lies in the folder of the input, or holds one of its files.

    Raises:
        InputError: As said.
    """
    place, given = output.resolve(), source.resolve()
    if given.is_dir() and (place.is_relative_to(given) or given.is_relative_to(place)):
        raise InputError(
            f"{output}: lies in the folder that is converted, or around it. Choose another folder with -o."
        )
    for case in cases:
        for path in (*(one.path for one in case.images.values()), *([case.mask] if case.mask else [])):
            if path.resolve().is_relative_to(place):
                raise InputError(f"{output}: holds {path} of {case.id}. Choose another folder with -o.")


def convert_dataset(
    cases: Sequence[Case],
    output: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    on_case: Callable[[Converted | Problem], None] = lambda _: None,
    where: Where = HERE,
) -> Outcome:
    """Write cases to a folder in another layout, with the files that describe them, and return what became of each.

    Cases that an earlier run has written with the same settings from the same files are kept, and so are those of an
    earlier run that are not among these cases.

    Args:
        cases: With a label convention each (see `cases.resolve_conventions`).
        output: New, empty, or of an earlier run.
        settings: How cases are written.
        overwrite: Remove what an earlier run has written, instead of continuing it.
        threads: How many cases at a time.
        on_case: Called after each case.
        where: Where the cases are converted.

    Raises:
        InputError: The folder holds something else, or was written with other settings, or by another process now.
    """
    planned, problems = _plan(cases, settings)
    with one_writer(output):
        record = _open_record(output, settings, overwrite=overwrite)
        digests = {names.id: _digest(case) for case, names in planned}
        kept = [names.id for case, names in planned if _is_current(output, record, names, digests[names.id])]
        todo = [(case, names) for case, names in planned if names.id not in kept]
        for _, names in todo:
            _remove(output, record["cases"].pop(names.id, None))
        last = time.monotonic()

        def note(found: Converted | Problem) -> None:
            nonlocal last
            if isinstance(found, Converted):
                record["cases"][found.names.id] = _entry(found, digests[found.names.id])
                if time.monotonic() - last > _RECORD_INTERVAL:
                    _write_record(output, record)
                    last = time.monotonic()
            on_case(found)

        _write_description(output, settings, [names for _, names in planned])
        try:
            done, failed = convert_cases(todo, output, settings, threads=threads, on_case=note, where=where)
        finally:
            _write_record(output, record)
            _write_description(output, settings, _recorded_names(record))
        for folder in {path.parent for _, names in planned for path in files_of(names, output)}:
            clear_partials(folder)
    current = {*kept, *(found.names.id for found in done)}
    new_ids = {case.id: names.id for case, names in planned if names.id in current}
    return Outcome(tuple(done), tuple(kept), (*problems, *failed), new_ids)


def _plan(cases: Sequence[Case], settings: Settings) -> tuple[list[tuple[Case, Names]], list[Problem]]:
    """Return the names of each case's files, and the cases whose names cannot be used or are those of another case."""
    planned, problems = [], []
    for case in cases:
        try:
            planned.append((case, name_files(settings.target, case, settings.modalities)))
        except InputError as error:
            problems.append(Problem(case.id, str(error).removeprefix(f"{case.id}: ")))
    owners: dict[str, list[str]] = defaultdict(list)  # some file systems take no notice of upper and lower case
    for case, names in planned:
        owners[names.id.lower()].append(case.id)
    for case, names in planned:
        others = [other for other in owners[names.id.lower()] if other != case.id]
        if others:
            problems.append(Problem(case.id, f"would be called {names.id}, as would {', '.join(others)}. Rename it."))
    return [(case, names) for case, names in planned if len(owners[names.id.lower()]) == 1], problems


def _describe_settings(settings: Settings) -> dict[str, Any]:
    return {
        "layout": settings.target.layout.name,
        "modalities": list(settings.modalities),
        "labels": settings.convention,
    }


def _open_record(output: Path, settings: Settings, *, overwrite: bool) -> dict[str, Any]:
    """Return the record of an earlier run, or a new one that is written at once."""
    path = output / RECORD
    wanted = _describe_settings(settings)
    if path.is_file():
        record = _read_record(path)
        if overwrite:
            for entry in record["cases"].values():
                _remove(output, entry)
            record["cases"] = {}
        elif record["settings"] != wanted:
            differing = [f"{name} {old}" for name, old in record["settings"].items() if old != wanted.get(name)]
            raise InputError(
                f"{output}: was converted with other settings ({', '.join(differing)}). Choose another folder with -o, "
                "or --overwrite to convert it anew."
            )
    else:
        if any(entry.name[:8] != ".writing" for entry in output.iterdir()):
            raise InputError(
                f"{output}: is not empty, and not the output of an earlier conversion. Choose another folder with -o."
            )
        record = {"cases": {}}
    record = {"gliomask": VERSION, "settings": wanted, "cases": record["cases"]}
    _write_record(output, record)
    return record


def _read_record(path: Path) -> dict[str, Any]:
    """Return a record, in the form that the code relies on."""
    try:
        record = json.loads(path.read_text("utf-8"))
        cases = {
            str(name): {
                "before": {key: str(entry["before"][key]) for key in ("id", "patient", "timepoint")},
                "from": str(entry["from"]),
                "files": [str(file) for file in entry["files"]],
                "mask": bool(entry["mask"]),
            }
            for name, entry in record["cases"].items()
        }
        return {"settings": dict(record["settings"]), "cases": cases}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}). Delete the folder and convert again."
        ) from error


def _write_record(output: Path, record: Mapping[str, Any]) -> None:
    ordered = {**record, "cases": dict(sorted(record["cases"].items()))}
    write_text(output / RECORD, json.dumps(ordered, indent=1) + "\n")


def _entry(found: Converted, digest: str) -> dict[str, Any]:
    case, names = found.case, found.names
    files = dict.fromkeys([*names.images.values(), *([names.mask] if names.mask else [])])
    return {
        "before": {"id": case.id, "patient": case.patient, "timepoint": case.timepoint},
        "from": digest,
        "files": [file.as_posix() for file in files],
        "mask": names.mask is not None,
    }


def _digest(case: Case) -> str:
    """Return a digest of where a case comes from: paths, sizes and times of its files, and what its labels mean."""
    facts: list[Any] = [case.id, case.convention]
    files = [(modality, source.path, source.channel) for modality, source in sorted(case.images.items())]
    for role, path, channel in (*files, *([("mask", case.mask, None)] if case.mask else [])):
        try:
            status = path.stat()
            facts.append([role, str(path.resolve()), channel, status.st_size, status.st_mtime_ns])
        except OSError:  # told when it is read
            facts.append([role, str(path), channel])
    return hashlib.sha256(json.dumps(facts).encode("ascii")).hexdigest()


def _is_current(output: Path, record: Mapping[str, Any], names: Names, digest: str) -> bool:
    entry = record["cases"].get(names.id)
    return entry is not None and entry["from"] == digest and all(path.is_file() for path in files_of(names, output))


def _remove(output: Path, entry: Mapping[str, Any] | None) -> None:
    """Remove the files of a case that an earlier run has written; nothing outside the output folder."""
    for name in entry["files"] if entry else ():
        path = output / name
        if path.parent.resolve().is_relative_to(output.resolve()):
            path.unlink(missing_ok=True)


def _recorded_names(record: Mapping[str, Any]) -> list[tuple[str, bool]]:
    return [(name, entry["mask"]) for name, entry in record["cases"].items()]


def _write_description(output: Path, settings: Settings, cases: Sequence[Names | tuple[str, bool]]) -> None:
    by_mask: dict[bool, list[str]] = defaultdict(list)
    for each in cases:
        name, has_mask = (each.id, each.mask is not None) if isinstance(each, Names) else each
        by_mask[has_mask].append(name)
    contents = Contents(
        output.resolve().name,
        settings.modalities,
        get_convention(settings.convention),
        tuple(sorted(by_mask[True])),
        tuple(sorted(by_mask[False])),
    )
    for place, text in describe_dataset(settings.target, contents).items():
        write_text(output / place, text)
