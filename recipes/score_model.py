"""Score a model on whole held-out cases, with every subset of its sequences, by one pass and by windows.

    python recipes/score_model.py MODEL CACHE --split RUN/splits_final.json -o results.json

A sequence is left out of a prepared case by setting its channel to zero. Without `--split` all cases of the cache are
scored. The rules of post-processing in the model's plan are applied, as by `predict`. A case that lacks sequences is
scored with the subsets that it has; the scores of a region that its mask does not label are NaN.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import combinations, compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
            found = [score(model, case, subset, window) for case in cases if set(subset) <= set(present(case))]
            rows += found
            report(found)
            options.output.write_text(json.dumps({"model": str(options.model), "rows": rows}, indent=1) + "\n")


def subsets(modalities: tuple[str, ...], which: str) -> list[tuple[str, ...]]:
    """Return subsets of the sequences, the largest first; `which` is an option of `--subsets`."""
    if which == "full":
        return [modalities]
    if which == "two":
        return [modalities, tuple(m for m in modalities if m in TRIO)]
    return [kept for count in range(len(modalities), 0, -1) for kept in combinations(modalities, count)]


def present(case: CachedCase) -> list[str]:
    """Return the sequences that a case has."""
    return list(compress(case.modalities, case.present))


def read_image(case: CachedCase, model: Predictor, subset: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the input of the network with some of the sequences, `(C, x, y, z)`."""
    plan = model.plan
    channels = [case.modalities.index(modality) for modality in plan.modalities]
    data = normalize(case.image()[channels], [case.moments[c] for c in channels], plan.normalization)
    data[[modality not in subset for modality in plan.modalities]] = 0
    return data


def read_truth(case: CachedCase, model: Predictor) -> dict[str, NDArray[np.bool_]]:
    """Return the true masks of the model's regions; a region that the case's mask does not label is empty."""
    regions = model.plan.regions
    return dict(zip(regions, to_regions(case.labels(), get_convention(case.convention), regions), strict=True))


def find_regions(
    model: Predictor, case: CachedCase, data: NDArray[np.float32], subset: tuple[str, ...], inference: Inference
) -> dict[str, NDArray[np.bool_]]:
    """Return the masks that `predict` would write for an input of the network."""
    plan = model.plan
    logits, _ = model.run(data, inference)
    numbers = get_convention(plan.convention)
    rules = plan.postprocessing.given(subset)
    masks = clean(to_probabilities(logits, plan.regions, rules), plan.regions, rules, case.spacing_mm)
    found = to_regions(to_labels(masks, plan.regions, numbers), numbers, plan.regions)
    return dict(zip(plan.regions, found, strict=True))


def score(model: Predictor, case: CachedCase, subset: tuple[str, ...], window: str) -> dict[str, object]:
    """Return the scores of one case: of whole regions, and by the lesion-wise rules of 2023."""
    data = read_image(case, model, subset)
    inference = Inference(window="sliding" if window == "sliding" else "whole", mirror=window == "mirrors")
    started = time.perf_counter()
    found = find_regions(model, case, data, subset, inference)
    seconds = time.perf_counter() - started
    scores = score_case(read_truth(case, model), found, case.spacing_mm, "brats2023-gli")

    def labelled(name: str) -> dict[str, float]:
        return {region: values[name] if region in case.known else math.nan for region, values in scores.items()}

    return {
        "case": case.id,
        "subset": "+".join(subset),
        "window": window,
        "present": "+".join(present(case)),
        "dice": labelled("dice"),
        "lesion_dice": labelled("lesion_dice"),
        "truth_ml": labelled("truth_ml"),
        "prediction_ml": {region: values["prediction_ml"] for region, values in scores.items()},
        "seconds": round(seconds, 3),
    }


def report(rows: list[dict[str, object]]) -> None:
    """Print the mean scores of one subset, over the cases of each kind."""
    kinds: dict[object, list[dict[str, object]]] = {}
    for row in rows:
        kinds.setdefault(row["present"], []).append(row)
    for kind, some in kinds.items():
        parts = [f"{some[0]['subset']:<16} {some[0]['window']:<8} {len(some)} cases with {kind}"]
        for name in ("dice", "lesion_dice"):
            regions = [region for region, value in some[0][name].items() if not math.isnan(value)]  # type: ignore[attr-defined]
            means = (np.mean([row[name][region] for row in some]) for region in regions)  # type: ignore[index]
            parts.append(name + " " + " ".join(f"{r} {m:.3f}" for r, m in zip(regions, means, strict=True)))
        parts.append(f"{np.mean([row['seconds'] for row in some]):.2f} s")  # type: ignore[arg-type]
        print("  ".join(parts), flush=True)


if __name__ == "__main__":
    main()
