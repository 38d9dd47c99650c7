"""What the files of a run folder say about the run, checked as they are read; torch is not needed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.own_files import read_json, reading, to_json
from gliomask.training.split import Split

Row = dict[str, float]
"""One epoch in the log; NaN where a value was not finite."""

# Keys that every row has. Only the first three must be finite.
_KEYS = ("epoch", "step", "hours", "learning_rate", "train_loss", "train_seconds", "peak_memory_gb")
_FINITE = _KEYS[:3]
# Larger numbers come from damage and overflow where the curves are drawn.
_LARGEST = 1e300
_RESTORE = "Restore the file from a copy, or start a new run."


def read_config(folder: Path) -> TrainConfig:
    """Return the configuration of the run in a folder.

    Raises:
        InputError: There is no run, or its `config.json` is damaged or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no run there (no config.json).")
    fields = read_json(path, _RESTORE)
    if not isinstance(fields, dict):
        raise InputError(f"{path}: not the config of a run: it holds a {type(fields).__name__}. {_RESTORE}")
    try:
        return make_config(**fields)
    except InputError as error:
        raise InputError(f"{path}: not the config of a run of this version: {error}") from error


def read_log(folder: Path) -> list[Row]:
    """Return the log of a run, a row for each epoch; an empty list if no epoch has finished.

    Values that were not finite are stored as null and returned as NaN.

    Raises:
        InputError: `log.jsonl` is damaged; the line is named.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    with reading(path, _RESTORE):
        lines = path.read_text("utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        with reading(path, _RESTORE):
            try:
                rows.append(check_row(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def write_log(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the log of a run, a line of JSON for each row; values that are not finite become null."""
    lines = (json.dumps(to_json(dict(row)), allow_nan=False) + "\n" for row in rows)
    write_text(folder / "log.jsonl", "".join(lines))


def check_row(row: Any) -> Row:
    """Return a row of a log with NaN in place of None.

    Raises:
        ValueError: It is not a mapping of names to numbers, lacks a key that every row has, or its epoch, step or hours
            are not finite numbers from 0, or a number is as large as only damage makes it.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row must be an object, not a {type(row).__name__}")
    numbers = {key: math.nan if value is None else value for key, value in row.items()}
    wrong = [key for key, value in numbers.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    wrong += [key for key in _KEYS if key not in numbers]
    if not wrong:
        wrong += [key for key in _FINITE if not 0 <= numbers[key] < 1e15]
        wrong += [key for key, value in numbers.items() if _LARGEST < abs(value) < math.inf]
    if wrong:
        raise ValueError(f"no valid number for {', '.join(map(repr, wrong))}")
    return numbers


def read_run_split(folder: Path, fold: int) -> Split:
    """Return the ids of the cases that a run trains and validates on, as `train` and `val`.

    Raises:
        InputError: `splits_final.json` is missing or damaged, or has no such fold.
    """
    path = folder / "splits_final.json"
    stored = read_json(path, _RESTORE)
    with reading(path, _RESTORE):
        splits = TypeAdapter(list[Split]).validate_python(stored)
        if fold >= len(splits):
            raise ValueError(f"it has {len(splits)} split(s), and fold {fold} is needed")
        if missing := {"train", "val"} - splits[fold].keys():
            raise ValueError(f"split {fold} lacks {' and '.join(sorted(missing))}")
        if both := set(splits[fold]["train"]) & set(splits[fold]["val"]):
            raise ValueError(f"split {fold} both trains and validates on {min(both)}")
        return splits[fold]


def read_trained_on(folder: Path) -> frozenset[str]:
    """Return the ids of the cases that the models of a run were trained on.

    Raises:
        InputError: As for `read_run_split`; or the run's `config.json` is missing or damaged.
    """
    try:
        fold = int(_facts(folder).get("fold", 0))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder / 'config.json'}: missing or damaged, so that it is not known which cases the model was trained "
            "on. Restore it, or copy the model file to another folder and give only cases that it was not trained on."
        ) from error
    return frozenset(read_run_split(folder, fold)["train"])


def read_start(folder: Path) -> str | None:
    """Return the model that a run started from, as it was named; None if it began with initial weights.

    Raises:
        InputError: Its `config.json` cannot be read.
    """
    with reading(folder / "config.json", _RESTORE):
        start = _facts(folder).get("start_from")
        return None if start is None else str(start)


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return facts


def best_row(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the row of the best epoch: that with the highest mean Dice, or without validation the last row."""
    validated = [row for row in rows if not math.isnan(row.get("val_dice", math.nan))]
    return max(validated, key=lambda row: row["val_dice"]) if validated else rows[-1]
