"""Score a model on whole held-out cases, with every subset of its sequences, by one pass and by windows.

    python recipes/score_model.py MODEL CACHE --split RUN/splits_final.json -o results.json

A sequence is left out of a prepared case by setting its channel to zero. Without `--split` all cases of the cache are
scored. The rules of post-processing in the model's plan are applied, as by `predict`.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np

from gliomask.inference.loading import load_model
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.inference.preprocessing import normalize
from gliomask.inference.windows import Inference, Predictor
from gliomask.labels import get_convention, to_labels, to_regions
from gliomask.metrics import score_case
from gliomask.training.cache import CachedCase, open_cache

TRIO = ("t1c", "t2w", "t2f")


def main() -> None:
    """Write the scores and print their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--subsets", choices=("all", "two", "full"), default="all", help="two: all four, and without t1"
    )
    parser.add_argument("--windows", nargs="+", choices=("whole", "sliding", "mirrors"), default=["whole"])
    options = parser.parse_args()
    model = load_model(options.model)
    cases = open_cache(options.cache, model.plan)
    if options.split:
        held_out = json.loads(options.split.read_text())[0]["val"]
        cases = [case for case in cases if case.id in held_out]
    rows = []
    for window in options.windows:
        for subset in subsets(model.plan.modalities, options.subsets if window == "whole" else "full"):
            for case in cases:
                rows.append(score(model, case, subset, window))
            report([row for row in rows if row["subset"] == "+".join(subset) and row["window"] == window])
            options.output.write_text(json.dumps({"model": str(options.model), "rows": rows}, indent=1) + "\n")


def subsets(modalities: tuple[str, ...], which: str) -> list[tuple[str, ...]]:
    """Return subsets of the sequences, the largest first; `which` is an option of `--subsets`."""
    if which == "full":
        return [modalities]
    if which == "two":
        return [modalities, tuple(m for m in modalities if m in TRIO)]
    return [kept for count in range(len(modalities), 0, -1) for kept in combinations(modalities, count)]


def score(model: Predictor, case: CachedCase, subset: tuple[str, ...], window: str) -> dict[str, object]:
    """Return the scores of one case: of whole regions, and by the lesion-wise rules of 2023."""
    plan = model.plan
    channels = [case.modalities.index(modality) for modality in plan.modalities]
    data = normalize(case.image()[channels], [case.moments[c] for c in channels], plan.normalization)
    data[[modality not in subset for modality in plan.modalities]] = 0
    inference = Inference(window="sliding" if window == "sliding" else "whole", mirror=window == "mirrors")
    started = time.perf_counter()
    logits, _ = model.run(data, inference)
    seconds = time.perf_counter() - started
    numbers = get_convention(plan.convention)
    truth = to_regions(case.labels(), get_convention(case.convention), plan.regions)
    rules = plan.postprocessing.given(subset)
    masks = clean(to_probabilities(logits, plan.regions, rules), plan.regions, rules, case.spacing_mm)
    found = to_regions(to_labels(masks, plan.regions, numbers), numbers, plan.regions)
    sides = [dict(zip(plan.regions, masks, strict=True)) for masks in (truth, found)]
    scores = score_case(sides[0], sides[1], case.spacing_mm, "brats2023-gli")
    dice = {region: values["dice"] for region, values in scores.items()}
    lesion = {region: values["lesion_dice"] for region, values in scores.items()}
    return {
        "case": case.id,
        "subset": "+".join(subset),
        "window": window,
        "dice": dice,
        "lesion_dice": lesion,
        "truth_ml": {region: values["truth_ml"] for region, values in scores.items()},
        "prediction_ml": {region: values["prediction_ml"] for region, values in scores.items()},
        "seconds": round(seconds, 3),
    }


def report(rows: list[dict[str, object]]) -> None:
    """Print the mean scores of one subset."""
    first = rows[0]
    parts = [f"{first['subset']:<16} {first['window']:<8} {len(rows)} cases"]
    for name in ("dice", "lesion_dice"):
        regions: list[str] = list(first[name])  # type: ignore[call-overload]
        means = (np.mean([row[name][region] for row in rows]) for region in regions)  # type: ignore[index]
        parts.append(name + " " + " ".join(f"{r} {m:.3f}" for r, m in zip(regions, means, strict=True)))
    parts.append(f"{np.mean([row['seconds'] for row in rows]):.2f} s")  # type: ignore[arg-type]
    print("  ".join(parts), flush=True)


if __name__ == "__main__":
    main()
