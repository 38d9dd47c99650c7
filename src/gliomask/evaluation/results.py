"""The scores of a set of cases: rows, summary, CSV and JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gliomask.cases import Problem
from gliomask.errors import InputError
from gliomask.evaluation.paper_table import paper_table
from gliomask.evaluation.summary import describe
from gliomask.evaluation.table_text import csv_text, escape_text
from gliomask.files import write_text
from gliomask.files.parquet import write_parquet
from gliomask.metrics import Protocol

# What `json` writes as it is: further control characters, marks that change the direction of text, and surrogates.
_NOT_PRINTED = re.compile("[\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")

Scores = Mapping[str, float]
Row = dict[str, str | float]


class Summary(list[Row]):
    """The summary rows of an evaluation: a list of dicts with all statistics, printed as a table of the main ones."""

    def __init__(self, rows: Iterable[Row], metrics: Sequence[str]) -> None:
        super().__init__(rows)
        self._metrics = metrics

    def __str__(self) -> str:
        """Return one line per region: the mean of each metric, with its 95 % interval."""
        lines = ["      " + "".join(f"{metric:>26}" for metric in self._metrics)]
        for row in self:
            cells = [_mean_and_interval(row, metric) for metric in self._metrics]
            lines.append(f"{row['region']:6}" + "".join(f"{cell:>26}" for cell in cells))
        return "\n".join(lines)


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of cases under one protocol."""

    protocol: Protocol
    scores: Mapping[str, Mapping[str, Scores]]
    """Case -> region -> metric -> value."""
    problems: tuple[Problem, ...]
    """Cases that could not be scored; they enter no mean."""
    missing: tuple[str, ...] = ()
    """Cases without a prediction; they enter every mean with the worst possible scores."""
    notes: tuple[Problem, ...] = ()
    """Remarks that change no score, such as predictions that were skipped."""
    made_by: Mapping[str, int] = field(default_factory=dict)
    """How many of the predictions each model made, as far as known; see `records.find_makers`."""

    def rows(self) -> list[Row]:
        """Return one row per case and region, sorted by case; `status` is `scored`, or `missing` (no prediction)."""
        return [
            {"case": case, "region": region, "status": "missing" if case in self.missing else "scored", **values}
            for case, regions in sorted(self.scores.items())
            for region, values in regions.items()
        ]

    def summary(self) -> Summary:
        """Return one row per region, in the protocol's order; no row for a region that was scored in no case.

        Each row has the number of `cases` in the means, of cases `missing` a prediction, and of cases whose truth,
        prediction, or both are empty (`empty_truth`, `empty_prediction`, `empty_both`). For each metric it has `_mean`,
        `_std`, `_median`, `_low` and `_high` (see `summary.describe`), the number of `_cases` for which the metric is
        defined, and `_mean_with_tumour` over the cases whose truth has the region. The last one is needed because a
        protocol that scores 1 where there was nothing to find raises the plain mean.
        """
        scored = {region for regions in self.scores.values() for region in regions}
        rows = [self._summarise(region) for region in self.protocol.regions if region in scored]
        return Summary(rows, self.protocol.headline[:2])

    def remark(self) -> str:
        """Return how many cases are missing a prediction or failed, in parentheses after a space; empty if none is."""
        parts = [f"{len(self.missing)} of them without a prediction, scored as worst"] if self.missing else []
        parts += [f"{len(self.problems)} more failed and enter no mean"] if self.problems else []
        return f" ({'; '.join(parts)})" if parts else ""

    def __str__(self) -> str:
        """Return one line per region: the means of the protocol's Dice and HD95, each with its 95 % interval."""
        count = len(self.scores)
        cases = f"{count} case{'s' if count != 1 else ''}{self.remark()}"
        return f"{self.protocol.name}, {cases}: mean [95 % interval]\n{self.summary()}"

    def save(self, path: Path | str) -> None:
        """Write the scores: rows as `.csv` or `.parquet`, everything as `.json`, or a table as `.md` or `.tex`.

        The table has the columns that a paper prints (`paper_table`), and its caption says how many cases are missing
        or failed (`remark`). CSV and Parquet have no row of a case that failed. JSON has rows, summary, problems, notes
        and the models that made the predictions; in it NaN is null and infinity is the string "inf". All files name
        the protocol, without which a score cannot be interpreted.

        Raises:
            InputError: The file cannot be written, or its name has another ending.
        """
        path = Path(path)
        if path.suffix.lower() == ".parquet":
            self._save_parquet(path)
            return
        writers = {
            ".csv": lambda: to_csv([self]),
            ".json": lambda: to_json(self.to_dict()),
            ".md": lambda: paper_table(self.protocol, self.scores, "md", self.remark()),
            ".tex": lambda: paper_table(self.protocol, self.scores, "tex", self.remark()),
        }
        if path.suffix.lower() not in writers:
            raise InputError(
                f"{path}: scores are written as {', '.join(writers)}, .parquet; choose one of these endings."
            )
        write_text(path, writers[path.suffix.lower()]())

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain lists, dicts, strings and numbers."""
        row = self.protocol
        return {
            "protocol": {"name": row.name, "description": row.description, "source": row.source},
            "headline": list(row.headline),
            "made_by": dict(self.made_by),
            "summary": self.summary(),
            "cases": self.rows(),
            "missing": list(self.missing),
            "failed": [problem.texts() for problem in self.problems],
            "notes": [note.texts() for note in self.notes],
        }

    def _save_parquet(self, path: Path) -> None:
        """Write the rows as Parquet; an undefined score is null, so that a mean leaves it out."""
        columns: dict[str, type] = dict.fromkeys(("protocol", "case", "region", "status"), str)
        columns |= dict.fromkeys(self.protocol.names, float)
        rows = [{"protocol": self.protocol.name, **row} for row in self.rows()]
        plain = [{name: _stored(value) for name, value in row.items()} for row in rows]
        write_parquet(path, columns, plain, f"scores of {self.protocol.name}")

    def _summarise(self, region: str) -> Row:
        held = {case: regions[region] for case, regions in self.scores.items() if region in regions}
        found = list(held.values())
        truths = [scores["truth_ml"] > 0 for scores in found]
        predictions = [scores["prediction_ml"] > 0 for scores in found]
        row: Row = {
            "region": region,
            "cases": len(found),
            "missing": sum(case in held for case in self.missing),
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
    """Return the rows of one or more evaluations as CSV; a metric that a protocol does not define is left blank."""
    names = dict.fromkeys(name for found in evaluations for name in found.protocol.names)
    rows = [{"protocol": found.protocol.name, **row} for found in evaluations for row in found.rows()]
    return csv_text(["protocol", "case", "region", "status", *names], rows)


def to_json(content: object) -> str:
    """Return plain content as standard JSON: NaN becomes null, and infinity the string "inf".

    Control characters and bytes of file names that are not UTF-8 are written as JSON's escapes.
    """
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    return _NOT_PRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _mean_and_interval(row: Row, metric: str) -> str:
    mean, low, high = (float(row[f"{metric}_{part}"]) for part in ("mean", "low", "high"))
    return f"{mean:.3f}" if row[f"{metric}_cases"] == 1 else f"{mean:.3f} [{low:.3f} {high:.3f}]"


def _stored(value: str | float) -> str | float | None:
    if isinstance(value, str):
        return escape_text(value)
    return None if math.isnan(value) else float(value)


def _plain(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    return content
