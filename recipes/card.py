"""Write MODEL_CARD.md from the results of `score_model.py`; every number in its tables comes from them.

    python recipes/card.py MODEL results.json postprocessed.json rules.json --robustness robustness.json \
        --raw raw.json -o MODEL_CARD.md

results.json is of the network alone, postprocessed.json of the same network with the rules of post-processing in its
plan. rules.json was written by `fit_postprocessing.py` and contains these rules and what a case gains by them;
robustness.json was written by `measure_robustness.py`, and raw.json by `measure_raw.py`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gliomask.evaluation.summary import describe
from gliomask.model.file import read_plan, read_training
from gliomask.model.plan import Plan

REGIONS = ("WT", "TC", "ET")
COMMON = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
FULL = "t1n+t1c+t2w+t2f"

Rows = Sequence[dict[str, Any]]


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("postprocessed", type=Path)
    parser.add_argument("rules", type=Path)
    parser.add_argument("--robustness", type=Path)
    parser.add_argument("--raw", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("MODEL_CARD.md"))
    options = parser.parse_args()
    rows, cleaned = (json.loads(path.read_text())["rows"] for path in (options.results, options.postprocessed))
    report = json.loads(options.rules.read_text())["report"]
    template = Path(__file__).with_name("card.md").read_text("utf-8")
    places = values(options.model, rows, cleaned) | gains(report, rows, cleaned)
    for name, path in (("robustness", options.robustness), ("raw", options.raw)):
        degraded = json.loads(path.read_text())["rows"] if path else []
        places[name] = images_table(degraded) if degraded else "Not measured."
    options.output.write_text(template.format(**places), "utf-8")


def values(model: Path, rows: Rows, cleaned: Rows) -> dict[str, str]:
    """Return the values of the placeholders in the template."""
    plan, training = read_plan(model), read_training(model)
    whole = select(cleaned, FULL, "whole")
    return {
        "cases": str(len(whole)),
        "size": f"{model.stat().st_size / 1e6:.1f}",
        "sequences": ", ".join(COMMON[name] for name in plan.modalities),
        "training": "\n".join(f"* {name}: {value}" for name, value in training.items() if isinstance(value, str)),
        "regions": region_table(whole),
        "ways": ways_table(rows, cleaned),
        "subsets": subset_table(cleaned, plan.modalities) + partial_table(cleaned, plan.modalities),
        "worst": worst_table(whole),
        "quality": quality_table(plan),
    }


def gains(report: dict[str, Any], rows: Rows, cleaned: Rows) -> dict[str, str]:
    """Return the gain by post-processing, that of rules fitted again, and the calibration of each region."""
    lines = [
        "| region | temperature | calibration error | fitted temperature | error with it |",
        "|---|---|---|---|---|",
    ]
    for region, found in report["calibration"].items():
        before, after = found["error_before"], found["error_after"]
        lines.append(f"| {region} | {found['present']:.3f} | {before:.4f} | {found['fitted']:.3f} | {after:.4f} |")
    alone, with_rules = (
        {
            row["case"]: fmean([*row["dice"].values(), *row["lesion_dice"].values()])
            for row in select(some, FULL, "whole")
        }
        for some in (rows, cleaned)
    )
    differences = [with_rules[case] - score for case, score in alone.items()]
    left_out = report["scores_left_out"]["mean"]
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return {
        "gain": f"{fmean(differences):.3f}",
        "gain_error": f"{error:.3f}",
        "gain_left_out": "{difference:.3f} (95 % interval {low:.3f} to {high:.3f})".format(**left_out),
        "calibration": "\n".join(lines),
    }


def select(rows: Rows, subset: str, window: str) -> Rows:
    """Return the rows of one subset of the sequences and one way to predict."""
    return [row for row in rows if row["subset"] == subset and row["window"] == window]


def region_table(rows: Rows) -> str:
    """Return a table with mean, confidence interval and median of Dice and lesion-wise Dice for each region."""
    lines = ["| region | score | mean | 95 % interval | median | cases |", "|---|---|---|---|---|---|"]
    for name, title in (("dice", "Dice"), ("lesion_dice", "lesion-wise Dice (2023)")):
        for region in REGIONS:
            found = describe([row[name][region] for row in rows])
            interval = f"{found.low:.3f} to {found.high:.3f}"
            lines.append(f"| {region} | {title} | {found.mean:.3f} | {interval} | {found.median:.3f} | {found.cases} |")
    return "\n".join(lines)


def ways_table(rows: Rows, cleaned: Rows) -> str:
    """Return a table of the mean Dice in one pass, with windows and with mirror images, and with post-processing."""
    names = {"whole": "one pass", "sliding": "`--window sliding`", "mirrors": "one pass, `--tta`"}
    kinds = [(f"{title}, the network alone", select(rows, FULL, window)) for window, title in names.items()]
    for window, title in names.items():
        kinds.append(
            (f"{title}, post-processed" + " (the default)" * (window == "whole"), select(cleaned, FULL, window))
        )
    lines = ["| how | WT | TC | ET | lesion-wise WT | TC | ET |", "|---|---|---|---|---|---|---|"]
    for title, some in kinds:
        if some:
            numbers = [mean(some, name, region) for name in ("dice", "lesion_dice") for region in REGIONS]
            lines.append(f"| {title} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def subset_table(rows: Rows, modalities: Sequence[str]) -> str:
    """Return a table of the mean Dice for each subset of the sequences, with intervals, for cases with all of them."""
    lines = ["| sequences | cases | WT | TC | ET |", "|---|---|---|---|---|"]
    complete = [row for row in rows if row["present"] == "+".join(modalities)]
    for subset in dict.fromkeys(row["subset"] for row in complete if row["window"] == "whole"):
        some = select(complete, subset, "whole")
        given = ", ".join(COMMON[name] for name in subset.split("+"))
        scores = [with_interval(some, region) for region in REGIONS]
        lines.append(f"| {given} | {len(some)} | {' | '.join(scores)} |")
    return "\n".join(lines)


def partial_table(rows: Rows, modalities: Sequence[str]) -> str:
    """Return the rows of held-out cases with fewer sequences, scored with all that each of them has."""
    some = [row for row in rows if row["present"] != "+".join(modalities) and row["window"] == "whole"]
    some = [row for row in some if row["subset"] == row["present"]]
    if not some:
        return ""
    lines = ["| sequences of the cases | cases | region | mean Dice | median | lowest |", "|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(row["present"] for row in some):
        given = ", ".join(COMMON[name] for name in kind.split("+"))
        for region in REGIONS:
            values = [row["dice"][region] for row in some if row["present"] == kind]
            values = [value for value in values if not math.isnan(value)]
            if values:
                found = describe(values)
                score = f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
                lines.append(
                    f"| {given} only | {len(values)} | {region} | {score} | {found.median:.3f} | {min(values):.3f} |"
                )
    return "\n\nHeld-out cases of which only these sequences and regions are known:\n\n" + "\n".join(lines)


def images_table(rows: Rows) -> str:
    """Return a table of the mean Dice by images, as `measure_robustness.py` or `measure_raw.py` changed them."""
    lines = ["| images | cases | WT | TC | ET |", "|---|---|---|---|---|"]
    for images in dict.fromkeys(row["images"] for row in rows):
        some = [row for row in rows if row["images"] == images]
        lines.append(f"| {images} | {len(some)} | {' | '.join(mean(some, 'dice', region) for region in REGIONS)} |")
    return "\n".join(lines)


def with_interval(rows: Rows, region: str) -> str:
    """Return the mean Dice of a region with the confidence interval of the mean, as text."""
    found = describe([row["dice"][region] for row in rows])
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def worst_table(rows: Rows) -> str:
    """Return a table of the five cases with the lowest mean Dice, with their volumes."""
    worst = sorted(rows, key=lambda row: sum(row["dice"].values()))[:5]
    lines = ["| held-out case | Dice WT, TC, ET | true mL | found mL |", "|---|---|---|---|"]
    for row in worst:
        parts = [
            ", ".join(f"{row[name][region]:.{digits}f}" for region in REGIONS)
            for name, digits in (("dice", 2), ("truth_ml", 1), ("prediction_ml", 1))
        ]
        lines.append(f"| {row['case']} | {' | '.join(parts)} |")
    return "\n".join(lines)


def quality_table(plan: Plan) -> str:
    """Return a table of how well the Dice of a case is estimated without its true mask."""
    if not plan.dice_estimates:
        return "Not measured."
    lines = [
        "| region | cases | sequences | rank correlation | true minus estimated Dice, in 4 cases of 5 |",
        "|---|---|---|---|---|",
    ]
    for region, found in plan.dice_estimates.items():
        named = " or ".join("+".join(COMMON[name] for name in names) for names in found.sequences)
        between = f"{found.low:+.2f} to {found.high:+.2f}"
        lines.append(f"| {region} | {found.cases} | {named} | {found.rank_correlation:.2f} | {between} |")
    return "\n".join(lines)


def mean(rows: Rows, name: str, region: str) -> str:
    """Return the mean of one score of a region as text; cases without that score are left out."""
    numbers = [row[name][region] for row in rows if not math.isnan(row[name][region])]
    return f"{sum(numbers) / len(numbers):.3f}" if numbers else "none"


if __name__ == "__main__":
    main()
