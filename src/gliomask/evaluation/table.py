"""The scores of a set of cases: rows, their summary, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation.summary import describe
from gliomask.files import write_text
from gliomask.metrics import Protocol

Scores = Mapping[str, float]
Row = dict[str, str | float]


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of cases under one protocol."""

    protocol: Protocol
    scores: Mapping[str, Mapping[str, Scores]]
    """Case -> region -> metric -> value."""
    problems: tuple[Problem, ...]
    """Cases that could not be scored; they are in no mean."""
    missing: tuple[str, ...] = ()
    """Cases without a prediction; they are in every mean, at their worst."""
    notes: tuple[Problem, ...] = ()
    """What was left aside or should be known, and costs no score."""

    def rows(self) -> list[Row]:
        """Return a row for each case and region, sorted by case; `status` is `scored`, or `missing` (no prediction)."""
        return [
            {"case": case, "region": region, "status": "missing" if case in self.missing else "scored", **values}
            for case, regions in sorted(self.scores.items())
            for region, values in regions.items()
        ]

    def summary(self) -> list[Row]:
        """Return a row for each region, in the protocol's order. No case scored: no row.

        Of each region the numbers of `cases` in the means, of those `missing` a prediction, and of those whose truth,
        whose prediction, or both are empty (`empty_truth`, `empty_prediction`, `empty_both`). Of each metric `_mean`,
        `_std`, `_median`, `_low` and `_high` (see `summary.describe`), `_cases` for which it is defined, and
        `_mean_with_tumour` over the cases whose truth has the region: a year that gives 1 where there was nothing to
        find can lift a mean by that alone.
        """
        return [self._summed_up(region) for region in self.protocol.regions] if self.scores else []

    def __str__(self) -> str:
        """A line a region: the means of the year's Dice and Hausdorff distance, each with its 95 % interval."""
        metrics = self.protocol.headline[:2]
        count = len(self.scores)
        lines = [f"{self.protocol.name}, {count} case{'s' if count != 1 else ''}: mean [95 % interval]"]
        lines.append("      " + "".join(f"{metric:>26}" for metric in metrics))
        for row in self.summary():
            cells = [_mean_and_interval(row, metric) for metric in metrics]
            lines.append(f"{row['region']:6}" + "".join(f"{cell:>26}" for cell in cells))
        return "\n".join(lines)

    def save(self, path: Path | str) -> None:
        """Write the scores: rows as CSV, or, where the name ends in `.json`, rows, summary and what went wrong.

        The protocol is in either: a score without its year says nothing. In JSON a number that is not defined is null,
        and infinity the string "inf".

        Raises:
            InputError: The place cannot be written to, or the name ends in neither `.csv` nor `.json`.
        """
        path = Path(path)
        writers = {".csv": lambda: to_csv([self]), ".json": lambda: to_json(self.to_dict())}
        if path.suffix.lower() not in writers:
            raise InputError(f"{path}: scores are written as .csv or .json; choose one of these endings.")
        write_text(path, writers[path.suffix.lower()]())

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain lists, dicts, strings and numbers."""
        row = self.protocol
        return {
            "protocol": {"name": row.name, "description": row.description, "source": row.source},
            "headline": list(row.headline),
            "summary": self.summary(),
            "cases": self.rows(),
            "missing": list(self.missing),
            "failed": [asdict(problem) for problem in self.problems],
            "notes": [asdict(note) for note in self.notes],
        }

    def _summed_up(self, region: str) -> Row:
        found = [regions[region] for regions in self.scores.values()]
        truths = [scores["truth_ml"] > 0 for scores in found]
        predictions = [scores["prediction_ml"] > 0 for scores in found]
        row: Row = {
            "region": region,
            "cases": len(found),
            "missing": len(self.missing),
            "empty_truth": truths.count(False),
            "empty_prediction": predictions.count(False),
            "empty_both": sum(not (truth or prediction) for truth, prediction in zip(truths, predictions, strict=True)),
        }
        for metric in self.protocol.names:
            values = [scores[metric] for scores in found]
            row |= {f"{metric}_{name}": value for name, value in asdict(describe(values)).items()}
            with_tumour = [value for value, there in zip(values, truths, strict=True) if there]
            row[f"{metric}_mean_with_tumour"] = describe(with_tumour).mean
        return row


def to_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return the rows of one or more evaluations as CSV; a metric that a protocol lacks is left blank."""
    names = dict.fromkeys(name for found in evaluations for name in found.protocol.names)
    text = io.StringIO()
    table = csv.DictWriter(text, ["protocol", "case", "region", "status", *names], lineterminator="\n")
    table.writeheader()
    for found in evaluations:
        for row in found.rows():
            numbers = {key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()}
            table.writerow({"protocol": found.protocol.name, **numbers})
    return text.getvalue()


def to_json(content: object) -> str:
    """Return plain content as JSON that any reader takes: no NaN, no Infinity."""
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _mean_and_interval(row: Row, metric: str) -> str:
    mean, low, high = (float(row[f"{metric}_{part}"]) for part in ("mean", "low", "high"))
    return f"{mean:.3f} [{low:.3f} {high:.3f}]"


def _plain(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    return content
