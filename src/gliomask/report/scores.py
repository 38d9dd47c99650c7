"""The report of score tables: summaries, box plots, the worst cases, and a comparison of several tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gliomask.errors import InputError
from gliomask.evaluation import (
    Evaluation,
    ScoreComparison,
    ScoreTable,
    compare_scores,
    describe,
    find_worst,
    read_score_table,
)
from gliomask.evaluation.score_comparison import RANK
from gliomask.figures import (
    bland_altman_figure,
    gallery_figure,
    require_matplotlib,
    scores_figure,
)
from gliomask.files import write_text
from gliomask.report.page import embed_figure, render
from gliomask.report.pictures import draw_score_comparison, gallery_cases

_WORST = 6
_Row = dict[str, str | float]


def write_scores_report(
    files: Sequence[Path],
    path: Path,
    *,
    protocol: str | None = None,
    prediction: Path | None = None,
    truth: Path | None = None,
    worst: int = _WORST,
) -> None:
    """Write the page of one or more score tables.

    Args:
        files: Score tables written by `gliomask evaluate -o`.
        path: The page to write.
        protocol: The protocol to show if a file holds the scores of several.
        prediction, truth: Where the masks of the first file lie; if both are given, the page has a gallery of the worst
            cases.
        worst: The largest number of cases in the gallery.

    Raises:
        InputError: A file is bad, the files cannot be compared, matplotlib is not installed, only one of `prediction`
            and `truth` is given, or the page cannot be written.
    """
    require_matplotlib()
    if (prediction is None) != (truth is None):
        raise InputError("the gallery needs both masks: give --predictions PLACE and --truth PLACE.")
    comparison = compare_scores(files, protocol=protocol) if len(files) > 1 else None
    tables = comparison.tables.tables if comparison else (read_score_table(files[0], protocol),)
    gallery = None
    if prediction is not None and truth is not None:
        first = _evaluation(tables[0])
        findings = find_worst(first, prediction, truth, count=worst)
        gallery = embed_figure(gallery_figure(gallery_cases(findings), f"the worst of {len(first.scores)} cases"))
    page = render(
        "scores.html",
        title=", ".join(table.name for table in tables),
        protocol=tables[0].protocol,
        sets=[_describe(table) for table in tables],
        gallery=gallery,
        comparison=_comparison(comparison) if comparison else None,
    )
    write_text(path, page)


def _describe(table: ScoreTable) -> dict[str, object]:
    """Return the tables and figures of one score table, for the template."""
    found = _evaluation(table)
    headline = table.protocol.headline
    regions = [region for region in table.protocol.regions if any(region in s for s in table.scores.values())]
    summary = [
        {"region": region, "metric": metric, **_statistics(table, region, metric)}
        for region in regions
        for metric in headline
        if all(metric in scores[region] for scores in table.scores.values() if region in scores)
    ]
    rows = found.rows()
    volumes = all({"truth_ml", "prediction_ml"} <= row.keys() for row in rows)
    return {
        "name": table.name,
        "cases": len(table.scores),
        "missing": table.missing,
        "failed": table.failed,
        "summary": summary,
        "regions": regions,
        "metrics": [metric for metric in headline if all(metric in row for row in rows)],
        "rows": sorted(table.scores.items(), key=lambda item: (_mean_of(item[1], headline[0]), item[0])),
        "boxes": embed_figure(scores_figure(rows, headline[:2])),
        "volumes": embed_figure(bland_altman_figure(rows)) if volumes else None,
    }


def _statistics(table: ScoreTable, region: str, metric: str) -> dict[str, float]:
    found = describe([scores[region][metric] for scores in table.scores.values() if region in scores])
    return {name: getattr(found, name) for name in ("cases", "mean", "std", "low", "high", "median")}


def _comparison(found: ScoreComparison) -> dict[str, object]:
    return {
        "cases": len(found.tables.cases),
        "left_out": (*found.tables.left_out, *found.notes()),
        "regions": found.tables.regions,
        "metrics": found.metrics,
        "standings": found.standings(),
        "differences": found.differences,
        "rank": RANK,
        "picture": embed_figure(draw_score_comparison(found)),
    }


def _evaluation(table: ScoreTable) -> Evaluation:
    return Evaluation(table.protocol, table.scores, (), table.missing)


def _mean_of(regions: object, metric: str) -> float:
    """Return the mean of a metric over the regions of a case; an undefined score counts as 1, as in `find_worst`."""
    assert isinstance(regions, dict)
    values = [scores[metric] for scores in regions.values()]
    return math.fsum(1.0 if math.isnan(value) else value for value in values) / len(values)
