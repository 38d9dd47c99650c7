"""Predicted cases in the order in which a correction by hand is most needed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from gliomask.cases import Problem, refuse_list
from gliomask.errors import InputError
from gliomask.evaluation.records import count_makers
from gliomask.evaluation.table_text import csv_text
from gliomask.files import write_text
from gliomask.labels import REGIONS

_INSTEAD = "Name the folder that predict wrote to."


@dataclass(frozen=True)
class RankedCase:
    """A predicted case, with what `predict` estimated about its mask."""

    case: str
    dice: Mapping[str, float]
    """The estimated Dice of each region that was estimated."""
    low: Mapping[str, float]
    """The lower end of the interval of each."""
    volumes_ml: Mapping[str, float]
    warnings: tuple[str, ...]

    @property
    def mean_dice(self) -> float:
        """The mean of the estimated Dice over the regions; NaN if none was estimated."""
        return fmean(self.dice.values()) if self.dice else math.nan


@dataclass(frozen=True)
class Ranking:
    """The cases of a folder of predictions, the one with the lowest estimated Dice first."""

    cases: tuple[RankedCase, ...]
    without: tuple[Problem, ...]
    """Cases for which the model makes no estimate."""
    problems: tuple[Problem, ...] = ()
    """Files that are damaged."""
    made_by: Mapping[str, int] = field(default_factory=dict)
    """How many of the masks each model made; see `find_makers`."""

    def save(self, path: Path) -> None:
        """Write a row for each case, in order, as `.csv`.

        Raises:
            InputError: The file cannot be written, or its name has another ending.
        """
        if path.suffix.lower() != ".csv":
            raise InputError(f"{path}: the ranking is written as .csv; choose this ending.")
        regions = list(dict.fromkeys(region for each in self.cases for region in each.dice))
        rows: list[dict[str, str | float]] = []
        for number, each in enumerate(self.cases, start=1):
            rows.append({"rank": number, "case": each.case, "mean_estimated_dice": each.mean_dice})
            rows[-1] |= {f"estimated_dice_{region}": each.dice[region] for region in each.dice}
            rows[-1] |= {f"low_{region}": each.low[region] for region in each.low}
            rows[-1] |= {f"{region}_ml": each.volumes_ml[region] for region in each.volumes_ml if region in REGIONS}
            rows[-1]["warnings"] = " ".join(each.warnings)
        columns = ["rank", "case", "mean_estimated_dice", *(f"estimated_dice_{region}" for region in regions)]
        columns += [f"low_{region}" for region in regions]
        columns += [name for name in dict.fromkeys(name for row in rows for name in row) if name.endswith("_ml")]
        write_text(path, csv_text([*columns, "warnings"], rows))


def rank_predictions(folder: Path) -> Ranking:
    """Return the predictions in a folder, the one whose mask probably needs correction most first.

    The order is that of the mean estimated Dice over the regions (`inference.quality`), as `predict` wrote it into
    `CASE.json`. It finds masks of which the model is uncertain, not tumours that it is certain not to see.

    Raises:
        InputError: There is no such folder, or no file of `predict` in it.
    """
    refuse_list(folder, _INSTEAD)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. {_INSTEAD}")
    found: list[RankedCase] = []
    without: list[Problem] = []
    problems: list[Problem] = []
    records: list[Mapping[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            facts = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(Problem(path.name, f"cannot be read ({error}); predict the case again"))
            continue
        if not isinstance(facts, dict) or "volumes_ml" not in facts or "case" not in facts:
            continue  # another program's file
        records.append(facts)
        ranked = _ranked(facts)
        if ranked is None:
            problems.append(Problem(path.name, "is damaged; predict the case again"))
        elif not ranked.dice:
            without.append(Problem(ranked.case, "the model estimates no Dice for such a case"))
        else:
            found.append(ranked)
    if not (found or without or problems):
        raise InputError(f"{folder}: no CASE.json of gliomask predict in it. Name the folder that predict wrote to.")
    ordered = sorted(found, key=lambda each: (each.mean_dice, each.case))
    return Ranking(tuple(ordered), tuple(without), tuple(problems), count_makers(records))


def _ranked(facts: Mapping[str, Any]) -> RankedCase | None:
    """Return the case that a `CASE.json` describes, or None if its values are not those that `predict` writes."""
    estimates, volumes, warnings = facts.get("estimated_dice", {}), facts["volumes_ml"], facts.get("warnings", [])
    try:
        dice = {str(region): _share(found["dice"]) for region, found in estimates.items()}
        low = {str(region): _share(found["low"]) for region, found in estimates.items()}
        volumes_ml = {str(name): float(volume) for name, volume in volumes.items()}
        texts = tuple(map(str, _sequence(warnings)))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return RankedCase(str(facts["case"]), dice, low, volumes_ml, texts)


def _share(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("not a share")
    return float(value)


def _sequence(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value
