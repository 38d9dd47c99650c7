"""Several sets of predictions of the same cases against each other: paired differences, and the challenge's rank."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, unknown_name
from gliomask.evaluation.entrants import Entrant, Field, read_field
from gliomask.evaluation.paired import PairedTest, compare_paired, holm, mean_ranks
from gliomask.evaluation.table import Row, to_json
from gliomask.files import write_text
from gliomask.metrics import METRICS

RANK = "rank"
"""The name under which the rank stands among the metrics; its region is `all`."""

_COUNTS = {"detection_f1": True, "lesion_fp": False, "lesion_fn": False}


@dataclass(frozen=True)
class Duel:
    """Two entrants in one metric of one region, or in the rank over all."""

    region: str
    metric: str
    first: str
    second: str
    test: PairedTest
    p_holm: float
    """The permutation test's p-value, adjusted for the number of duels of metrics, or of ranks."""
    better: str
    """Whose mean is better; blank where they are equal."""


@dataclass(frozen=True)
class Contest:
    """Entrants compared."""

    field: Field
    metrics: tuple[str, ...]
    ranks: Mapping[str, Mapping[str, float]]
    """Entrant -> case -> mean rank over regions and metrics, 1 the best."""
    duels: tuple[Duel, ...]
    """Each pair of entrants in each metric of each region, then in the rank."""

    def standings(self) -> list[Row]:
        """Return a row for each entrant, best rank first: its mean rank, and the mean of each metric by region."""
        rows: list[Row] = []
        for entrant in self.field.entrants:
            row: Row = {"entrant": entrant.name, "mean_rank": float(np.mean(list(self.ranks[entrant.name].values())))}
            for region, metric in itertools.product(self.field.regions, self.metrics):
                row[f"{region}_{metric}"] = _mean(self.values(entrant, region, metric))
            rows.append(row)
        return sorted(rows, key=lambda row: row["mean_rank"])

    def values(self, entrant: Entrant, region: str, metric: str) -> list[float]:
        """Return one metric of the shared cases, in their order; infinite distances as `compare_scores` has them."""
        return _values(self.field, entrant, region, metric)

    def rows(self) -> list[Row]:
        """Return a row for each duel."""
        return [
            {
                **{"protocol": self.field.protocol.name, "region": duel.region, "metric": duel.metric},
                **{"first": duel.first, "second": duel.second, "cases": duel.test.cases, "ties": duel.test.ties},
                **{"first_mean": duel.test.first, "second_mean": duel.test.second},
                **{name: getattr(duel.test, name) for name in ("difference", "low", "high", "effect")},
                **{"p_wilcoxon": duel.test.p_wilcoxon, "p_permutation": duel.test.p_permutation},
                **{"p_holm": duel.p_holm, "better": duel.better},
            }
            for duel in self.duels
        ]

    def save(self, path: Path | str) -> None:
        """Write the duels as CSV, or, where the name ends in `.json`, everything.

        Raises:
            InputError: The place cannot be written to, or the name ends in neither.
        """
        path = Path(path)
        if path.suffix.lower() == ".csv":
            write_text(path, _to_csv(self.rows()))
        elif path.suffix.lower() == ".json":
            write_text(path, to_json(self._to_dict()))
        else:
            raise InputError(f"{path}: comparisons are written as .csv or .json; choose one of these endings.")

    def _to_dict(self) -> dict[str, object]:
        return {
            "protocol": self.field.protocol.name,
            "metrics": list(self.metrics),
            "cases": list(self.field.cases),
            "left_out": [asdict(note) for note in self.field.left_out],
            "standings": self.standings(),
            "ranks": {name: dict(ranks) for name, ranks in self.ranks.items()},
            "duels": self.rows(),
        }


def compare_scores(paths: Sequence[Path], *, protocol: str | None = None, metrics: Sequence[str] = ()) -> Contest:
    """Compare sets of scores of the same cases.

    Only cases that all files have are compared; the others are named in `Field.left_out`. For each pair of entrants,
    region and metric: the differences case by case (`compare_paired`). The rank is the challenge's: in each case,
    region and metric the entrants are ranked, ties sharing the mean of their places; of each case the mean over regions
    and metrics; of these the mean over the cases. Between two entrants it is tested like any other number of a case.

    A score that is none (in 2026, nothing on either side) is in no difference; in the rank it is as good as the best
    there is, which it says. An infinite distance counts as the penalty of a whole region, so that a mean exists.

    Args:
        paths, protocol: As for `read_field`.
        metrics: Columns of the files; by default the protocol's own Dice and HD95.

    Raises:
        InputError: As for `read_field`; a metric is unknown or missing, or more of it is neither better nor worse.

    Source: Bakas et al. 2018, arXiv:1811.02629, for the rank and its permutation test (there one-sided, for the better
        of the two: half of the p-value here).
    """
    field = read_field(paths, protocol)
    chosen = tuple(dict.fromkeys(metrics)) or field.protocol.headline[:2]
    for metric in chosen:
        _check_metric(field, metric)
    ranks = _case_ranks(field, chosen)
    duels = [
        _duel(region, metric, pair, [_values(field, entrant, region, metric) for entrant in pair])
        for region, metric in itertools.product(field.regions, chosen)
        for pair in itertools.combinations(field.entrants, 2)
    ]
    ranked = [
        _duel("all", RANK, pair, [list(ranks[entrant.name].values()) for entrant in pair])
        for pair in itertools.combinations(field.entrants, 2)
    ]
    return Contest(field, chosen, ranks, (*_adjusted(duels), *_adjusted(ranked)))


def more_is_better(metric: str) -> bool | None:
    """Tell whether a larger value of a metric is better; None where it is neither, or there is no such metric."""
    if metric in _COUNTS or metric == RANK:
        return _COUNTS.get(metric, False)
    row = METRICS.get(metric) or METRICS.get(metric.removeprefix("lesion_"))
    return None if row is None or row.kind == "fact" else row.kind == "share"


def _check_metric(field: Field, metric: str) -> None:
    rankable = [name for name in field.protocol.names if more_is_better(name) is not None]
    if metric not in field.protocol.names:
        raise unknown_name("metric", metric, rankable)
    if metric not in rankable:
        raise InputError(f"{metric}: more of it is neither better nor worse. Compare one of {', '.join(rankable)}.")
    for entrant in field.entrants:
        if lacking := [case for case in field.cases if any(metric not in s for s in entrant.scores[case].values())]:
            raise InputError(f"{entrant.name}: has no {metric} for {', '.join(lacking[:5])}; score anew.")


def _values(field: Field, entrant: Entrant, region: str, metric: str) -> list[float]:
    found = [entrant.scores[case][region][metric] for case in field.cases]
    if not any(map(math.isinf, found)):
        return found
    everything = [other.scores[case][region][metric] for other in field.entrants for case in field.cases]
    worst = max([field.protocol.empty_mm or 0.0, *filter(math.isfinite, everything)])
    return [worst if math.isinf(value) else value for value in found]


def _case_ranks(field: Field, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    layers: list[NDArray[np.float64]] = []
    for region, metric in itertools.product(field.regions, metrics):
        values = np.array([_values(field, entrant, region, metric) for entrant in field.entrants])  # (entrants, cases)
        worse = -values if more_is_better(metric) else values
        best = -1.0 if more_is_better(metric) else 0.0
        layers.append(mean_ranks(np.where(np.isnan(worse), best, worse).T))
    means = np.mean(layers, axis=0)  # (cases, entrants)
    return {
        entrant.name: dict(zip(field.cases, means[:, place].tolist(), strict=True))
        for place, entrant in enumerate(field.entrants)
    }


def _duel(region: str, metric: str, pair: tuple[Entrant, Entrant], values: Sequence[Sequence[float]]) -> Duel:
    first, second = (entrant.name for entrant in pair)
    test = compare_paired(*values)
    gain = test.difference if more_is_better(metric) else -test.difference
    better = first if gain > 0 else second if gain < 0 else ""
    return Duel(region, metric, first, second, test, math.nan, better)


def _adjusted(duels: Sequence[Duel]) -> list[Duel]:
    adjusted = holm([duel.test.p_permutation for duel in duels])
    return [replace(duel, p_holm=p) for duel, p in zip(duels, adjusted, strict=True)]


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _to_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()
