"""The table of scores that a paper prints, in Markdown or LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from gliomask.evaluation.summary import describe
from gliomask.metrics import Protocol, metric_name

_HEADINGS = ("Region", "Score", "n", "Mean ± SD", "Median [IQR]", "95 % CI of the mean")


def paper_table(
    protocol: Protocol,
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    kind: Literal["md", "tex"],
    remark: str = "",
) -> str:
    """Return a table with a row for each region and metric that the protocol reports first.

    The columns are the number of cases n for which the score is defined, mean ± sample standard deviation, median with
    the quartiles in brackets, and the 95 % bootstrap interval of the mean (`summary.describe`). Of a single case only
    the value is given. An undefined number is a dash. The caption has the number of cases, followed by the remark
    (`Evaluation.remark`). LaTeX needs the package booktabs.
    """
    rows = []
    for region in protocol.regions:
        for metric in protocol.headline:
            values = [regions[region][metric] for regions in scores.values() if region in regions]
            if values:
                rows.append([region, metric_name(metric), *_cells(values)])
    caption = f"{protocol.name}, {len(scores)} case{'s' if len(scores) != 1 else ''}{remark}"
    return _markdown(caption, rows) if kind == "md" else _latex(caption, rows)


def _cells(values: Sequence[float]) -> list[str]:
    found = describe(values)
    if found.cases < 2:
        return [str(found.cases), _number(found.mean), "–", "–"]
    numbers = np.array([value for value in values if not math.isnan(value)])
    # The nearest rank, as nothing lies between a number and infinity.
    low, high = np.percentile(numbers, (25, 75), method="nearest")
    return [
        str(found.cases),
        f"{_number(found.mean)} ± {_number(found.std)}",
        f"{_number(found.median)} [{_number(low)}, {_number(high)}]",
        f"{_number(found.low)} to {_number(found.high)}",
    ]


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _markdown(caption: str, rows: Sequence[Sequence[str]]) -> str:
    lines = [f"{caption}.", "", "| " + " | ".join(_HEADINGS) + " |", "|---|---|--:|--:|--:|--:|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _latex(caption: str, rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{_escaped(caption)}.}}",
        "\\begin{tabular}{llrrrr}",
        "\\toprule",
        _latex_row(_HEADINGS),
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\"


def _escaped(text: str) -> str:
    for sign, written in (("%", "\\%"), ("_", "\\_"), ("±", "$\\pm$"), ("∞", "$\\infty$"), ("–", "--")):
        text = text.replace(sign, written)
    return text
