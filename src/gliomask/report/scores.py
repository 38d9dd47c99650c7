"""Files of scores -> a page: tables, box plots, the worst cases, and files against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gliomask.errors import InputError
from gliomask.evaluation import Contest, Entrant, Evaluation, compare_scores, describe, find_worst, read_entrant
from gliomask.evaluation.contest import RANK, more_is_better
from gliomask.figures import bland_altman_figure, contest_figure, gallery_figure, require_matplotlib, scores_figure
from gliomask.files import write_text
from gliomask.report.page import embed_figure, render
from gliomask.report.pictures import exhibit

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
    """Write the page of one or more files of scores.

    Args:
        files: As `gliomask evaluate -o` writes them.
        path: The page.
        protocol: Which scores, where a file holds those of several.
        prediction, truth: Of the first file, where its masks lie; with both there is a gallery of the worst cases.
        worst: How many cases at most the gallery shows.

    Raises:
        InputError: A file is bad, several cannot be compared, matplotlib is not installed, only one of `prediction` and
            `truth` is given, or the place cannot be written to.
    """
    require_matplotlib()
    if (prediction is None) != (truth is None):
        raise InputError("the gallery needs both: --predictions PLACE --truth PLACE.")
    contest = compare_scores(files, protocol=protocol) if len(files) > 1 else None
    entrants = contest.field.entrants if contest else (read_entrant(files[0], protocol),)
    gallery = None
    if prediction is not None and truth is not None:
        first = _evaluation(entrants[0])
        findings = find_worst(first, prediction, truth, count=worst)
        gallery = embed_figure(gallery_figure(exhibit(findings), f"the worst of {len(first.scores)} cases"))
    page = render(
        "scores.html",
        title=", ".join(entrant.name for entrant in entrants),
        protocol=entrants[0].protocol,
        sets=[_describe(entrant) for entrant in entrants],
        gallery=gallery,
        contest=_contest(contest) if contest else None,
    )
    write_text(path, page)


def _describe(entrant: Entrant) -> dict[str, object]:
    """One file's tables and pictures."""
    found = _evaluation(entrant)
    headline = entrant.protocol.headline
    regions = [region for region in entrant.protocol.regions if all(region in s for s in entrant.scores.values())]
    summary = [
        {"region": region, "metric": metric, **_statistics(entrant, region, metric)}
        for region in regions
        for metric in headline
        if all(metric in scores[region] for scores in entrant.scores.values())
    ]
    rows = found.rows()
    volumes = all({"truth_ml", "prediction_ml"} <= row.keys() for row in rows)
    return {
        "name": entrant.name,
        "cases": len(entrant.scores),
        "missing": entrant.missing,
        "summary": summary,
        "regions": regions,
        "metrics": [metric for metric in headline if all(metric in row for row in rows)],
        "rows": sorted(entrant.scores.items(), key=lambda item: (_mean_of(item[1], headline[0]), item[0])),
        "boxes": embed_figure(scores_figure(rows, headline[:2])),
        "volumes": embed_figure(bland_altman_figure(rows)) if volumes else None,
    }


def _statistics(entrant: Entrant, region: str, metric: str) -> dict[str, float]:
    found = describe([scores[region][metric] for scores in entrant.scores.values()])
    return {name: getattr(found, name) for name in ("cases", "mean", "std", "low", "high", "median")}


def _contest(found: Contest) -> dict[str, object]:
    scores = {
        metric: {
            region: {entrant.name: found.values(entrant, region, metric) for entrant in found.field.entrants}
            for region in found.field.regions
        }
        for metric in found.metrics
    }
    title = f"{found.field.protocol.name}, {len(found.field.cases)} cases"
    figure = contest_figure(scores, title, {metric: bool(more_is_better(metric)) for metric in scores})
    return {
        "cases": len(found.field.cases),
        "left_out": found.field.left_out,
        "regions": found.field.regions,
        "metrics": found.metrics,
        "standings": found.standings(),
        "duels": found.duels,
        "rank": RANK,
        "picture": embed_figure(figure),
    }


def _evaluation(entrant: Entrant) -> Evaluation:
    return Evaluation(entrant.protocol, entrant.scores, (), entrant.missing)


def _mean_of(regions: object, metric: str) -> float:
    """Of a case's regions; a score that is none counts as 1, as in `find_worst`."""
    assert isinstance(regions, dict)
    values = [scores[metric] for scores in regions.values()]
    return math.fsum(1.0 if math.isnan(value) else value for value in values) / len(values)
