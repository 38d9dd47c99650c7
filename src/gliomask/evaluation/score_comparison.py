"""Several score tables of the same cases against each other: paired differences, p-values and the challenge's rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Problem
from gliomask.errors import InputError, unknown_name
from gliomask.evaluation.results import Row, to_json
from gliomask.evaluation.score_tables import ComparableTables, ScoreTable, read_score_tables
from gliomask.evaluation.significance import PairedTest, holm, mean_ranks, paired_test
from gliomask.evaluation.table_text import csv_text
from gliomask.files import write_text
from gliomask.metrics import METRICS

RANK = "rank"
"""The name of the rank among the metrics; its region is `all`."""

# Whether more is better, for the numbers that are counted per region rather than listed in METRICS.
_COUNTS = {"detection_f1": True, "lesion_fp": False, "lesion_fn": False}


@dataclass(frozen=True)
class PairedDifference:
    """The difference between two score tables in one metric of one region, or in the rank."""

    region: str
    metric: str
    first: str
    second: str
    test: PairedTest
    p_holm: float
    """The p-value of the permutation test, adjusted for the number of tests of metrics, or of ranks."""
    better: str
    """The name of the table with the better mean; empty if the means are equal."""


@dataclass(frozen=True)
class ScoreComparison:
    """Score tables compared case by case."""

    tables: ComparableTables
    metrics: tuple[str, ...]
    ranks: Mapping[str, Mapping[str, float]]
    """Table name -> case -> mean rank over regions and metrics; 1 is best."""
    differences: tuple[PairedDifference, ...]
    """One for each pair of tables in each metric of each region, followed by one for each pair in the rank."""

    def standings(self) -> list[Row]:
        """Return one row per table, best mean rank first: the mean rank, and the mean of each metric by region.

        The mean is over the cases in which the table has the score, as in its own summary; `notes` counts the others.
        The two means of a paired difference are over the cases in which both tables have it (`rows`).
        """
        rows: list[Row] = []
        for table in self.tables.tables:
            row: Row = {"entrant": table.name, "mean_rank": float(np.mean(list(self.ranks[table.name].values())))}
            for region, metric in itertools.product(self.tables.regions, self.metrics):
                row[f"{region}_{metric}"] = _mean(self.values(table, region, metric))
            rows.append(row)
        return sorted(rows, key=lambda row: row["mean_rank"])

    def values(self, table: ScoreTable, region: str, metric: str) -> list[float]:
        """Return one metric of the shared cases that have the region (`ComparableTables.cases_of`), in their order.

        Infinite distances are replaced as in `compare_scores`.
        """
        return _values(self.tables, table, region, metric)

    def notes(self) -> list[Problem]:
        """Return what is not in all the numbers: regions that cases do not label, and scores that are undefined (NaN).

        Metrics of one region and table that are undefined in equally many cases share a note.
        """
        found = list(self.tables.notes)
        for table, region in itertools.product(self.tables.tables, self.tables.regions):
            by_count: dict[int, list[str]] = {}
            for metric in self.metrics:
                count = sum(map(math.isnan, self.values(table, region, metric)))
                by_count.setdefault(count, []).append(metric)
            total = len(self.tables.cases_of(region))
            found += [
                Problem(
                    table.name,
                    f"no {' and no '.join(metrics)} of {region} in {count} of {total} case{'s' if total != 1 else ''}: "
                    "left out of the means and differences, counted as the best in the ranks",
                )
                for count, metrics in by_count.items()
                if count
            ]
        return found

    def rows(self) -> list[Row]:
        """Return one row per paired difference; `cases` is the number of cases in which both scores are defined."""
        return [
            {
                **{"protocol": self.tables.protocol.name, "region": found.region, "metric": found.metric},
                **{"first": found.first, "second": found.second, "cases": found.test.cases, "ties": found.test.ties},
                **{"first_mean": found.test.first, "second_mean": found.test.second},
                **{name: getattr(found.test, name) for name in ("difference", "low", "high", "effect")},
                **{"p_wilcoxon": found.test.p_wilcoxon, "p_permutation": found.test.p_permutation},
                **{"p_holm": found.p_holm, "better": found.better},
            }
            for found in self.differences
        ]

    def save(self, path: Path | str) -> None:
        """Write the paired differences as `.csv`, or differences, standings and ranks as `.json`.

        Raises:
            InputError: The file cannot be written, or its name has another ending.
        """
        path = Path(path)
        rows = self.rows()
        if path.suffix.lower() == ".csv":
            write_text(path, csv_text(list(rows[0]), rows))
        elif path.suffix.lower() == ".json":
            write_text(path, to_json(self._to_dict()))
        else:
            raise InputError(f"{path}: comparisons are written as .csv or .json; choose one of these endings.")

    def _to_dict(self) -> dict[str, object]:
        return {
            "protocol": self.tables.protocol.name,
            "metrics": list(self.metrics),
            "cases": list(self.tables.cases),
            "left_out": [note.texts() for note in self.tables.left_out],
            "notes": [note.texts() for note in self.notes()],
            "standings": self.standings(),
            "ranks": {name: dict(ranks) for name, ranks in self.ranks.items()},
            "duels": self.rows(),  # the key of gliomask 0.1
        }


def compare_scores(
    paths: Sequence[Path], *, protocol: str | None = None, metrics: Sequence[str] = ()
) -> ScoreComparison:
    """Compare score tables of the same cases.

    Only cases that are in all files are compared; the others are listed in `ComparableTables.left_out`. For each pair
    of tables, region and metric, the differences are tested case by case (`paired_test`). The rank is the challenge's:
    for each case, region and metric the tables are ranked, and tied tables share their mean rank. The ranks are
    averaged over regions and metrics for each case, and then over the cases. The mean rank per case is tested between
    two tables in the same way as a metric. A region that the masks of a case do not label is left out for this case,
    whose rank is the mean over its other regions.

    An undefined score (NaN; in 2026, nothing to find and nothing found) enters no mean and no difference; in the
    ranking it counts as the best possible score, because finding nothing was correct. `ScoreComparison.notes` counts
    such scores. An infinite distance is replaced by the penalty for
    a whole region, so that a mean exists.

    Args:
        paths, protocol: As for `read_score_tables`.
        metrics: Columns of the files; by default the Dice and the HD95 that the protocol reports first.

    Raises:
        InputError: As for `read_score_tables`; or a metric is unknown, missing, or neither better nor worse when it is
            larger.

    Source: Bakas et al. 2018, arXiv:1811.02629, for the rank and its permutation test (one-sided there, which is half
        of the p-value here).
    """
    tables = read_score_tables(paths, protocol)
    chosen = tuple(dict.fromkeys(metrics)) or tables.protocol.headline[:2]
    for metric in chosen:
        _check_metric(tables, metric)
    ranks = _case_ranks(tables, chosen)
    by_metric = [
        _difference(region, metric, pair, [_values(tables, table, region, metric) for table in pair])
        for region, metric in itertools.product(tables.regions, chosen)
        for pair in itertools.combinations(tables.tables, 2)
    ]
    by_rank = [
        _difference("all", RANK, pair, [list(ranks[table.name].values()) for table in pair])
        for pair in itertools.combinations(tables.tables, 2)
    ]
    return ScoreComparison(tables, chosen, ranks, (*_adjusted(by_metric), *_adjusted(by_rank)))


def more_is_better(metric: str) -> bool | None:
    """Return whether a larger value of a metric is better; None if it is neither, or the metric is unknown."""
    if metric in _COUNTS or metric == RANK:
        return _COUNTS.get(metric, False)
    row = METRICS.get(metric) or METRICS.get(metric.removeprefix("lesion_"))
    return None if row is None or row.kind == "fact" else row.kind == "share"


def _check_metric(tables: ComparableTables, metric: str) -> None:
    rankable = [name for name in tables.protocol.names if more_is_better(name) is not None]
    if metric not in tables.protocol.names:
        raise unknown_name("metric", metric, rankable)
    if metric not in rankable:
        raise InputError(f"{metric}: a larger value is neither better nor worse. Compare one of {', '.join(rankable)}.")
    for table in tables.tables:
        if lacking := [case for case in tables.cases if any(metric not in s for s in table.scores[case].values())]:
            raise InputError(
                f"{table.name}: has no {metric} for {', '.join(lacking[:5])}. Score the predictions again."
            )


def _values(tables: ComparableTables, table: ScoreTable, region: str, metric: str) -> list[float]:
    cases = tables.cases_of(region)
    found = [table.scores[case][region][metric] for case in cases]
    if not any(map(math.isinf, found)):
        return found
    everything = [other.scores[case][region][metric] for other in tables.tables for case in cases]
    worst = max([tables.protocol.empty_mm or 0.0, *filter(math.isfinite, everything)])
    return [worst if math.isinf(value) else value for value in found]


def _case_ranks(tables: ComparableTables, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    layers: list[NDArray[np.float64]] = []  # (cases, tables) each; NaN for a case that lacks the region
    for region, metric in itertools.product(tables.regions, metrics):
        values = np.array([_values(tables, table, region, metric) for table in tables.tables])  # (tables, cases)
        loss = -values if more_is_better(metric) else values
        best = -1.0 if more_is_better(metric) else 0.0
        there = np.isin(tables.cases, tables.cases_of(region))
        layers.append(np.full((len(tables.cases), len(tables.tables)), math.nan))
        layers[-1][there] = mean_ranks(np.where(np.isnan(loss), best, loss).T)
    means = np.nanmean(layers, axis=0)
    return {
        table.name: dict(zip(tables.cases, means[:, place].tolist(), strict=True))
        for place, table in enumerate(tables.tables)
    }


def _difference(
    region: str, metric: str, pair: tuple[ScoreTable, ScoreTable], values: Sequence[Sequence[float]]
) -> PairedDifference:
    first, second = (table.name for table in pair)
    test = paired_test(*values)
    gain = test.difference if more_is_better(metric) else -test.difference
    better = first if gain > 0 else second if gain < 0 else ""
    return PairedDifference(region, metric, first, second, test, math.nan, better)


def _adjusted(differences: Sequence[PairedDifference]) -> list[PairedDifference]:
    adjusted = holm([found.test.p_permutation for found in differences])
    return [replace(found, p_holm=p) for found, p in zip(differences, adjusted, strict=True)]


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
