"""Check how well the Dice of a case can be estimated from its probabilities, and write the result into a model file.

    python recipes/fit_quality.py t1n+t1c+t2w+t2f=OOF t2f=OOF_FLAIR -o quality.json
    python recipes/fit_quality.py t1n+t1c+t2w+t2f=OOF -o quality.json --model best.safetensors --write new.safetensors

Each argument names the sequences that the cases had and a folder of `recipes/predict_out_of_fold.py`. Without t1c only
the whole tumour is used. The rules of post-processing are those of the model file.

A region is written only if the estimates order the cases as the true Dice does: Spearman's correlation of at least .5,
and above 0 with 95 % confidence. The interval of true minus estimated Dice is meant to hold for four cases of five; how
often it holds for a case that it was not fitted to is printed (leave-one-out).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gliomask.files import write_text
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.inference.quality import expected_dice
from gliomask.metrics import dice
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_plan
from gliomask.model.plan import DiceEstimate, Plan
from gliomask.tuning.out_of_fold import read_out_of_fold

Pairs = dict[str, list[tuple[tuple[str, ...], float, float]]]  # region: sequences, estimated and true Dice of a case
_LEAST_CASES, _LEAST_CORRELATION = 8, 0.5


def main() -> None:
    """Compare estimates and true Dice, print and write what holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="SEQUENCES=FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="The model file; default: the built-in model.")
    parser.add_argument("--write", type=Path, help="The model file to write, with the same weights and the estimates.")
    options = parser.parse_args()
    plan = read_plan(options.model)
    pairs: Pairs = {region: [] for region in plan.regions}
    for each in options.folders:
        names, _, folder = each.partition("=")
        collect(pairs, plan, tuple(names.split("+")), Path(folder))
    estimates = {region: found for region, cases in pairs.items() if (found := fit(region, cases)) is not None}
    text = json.dumps({region: found.model_dump(mode="json") for region, found in estimates.items()}, indent=2)
    write_text(options.output, text + "\n")
    if options.write:
        if not options.model:
            parser.error("--write needs --model")
        replace_plan(options.model, plan.model_copy(update={"dice_estimates": estimates}), options.write)


def collect(pairs: Pairs, plan: Plan, sequences: tuple[str, ...], folder: Path) -> None:
    """Add the estimated and the true Dice of every case of a folder."""
    rules = plan.postprocessing.given(sequences)
    for path in sorted(folder.glob("*.npz")):
        case = read_out_of_fold(path, plan.regions)
        probabilities = to_probabilities(case.logits.astype(np.float32), plan.regions, rules)
        masks = clean(probabilities, plan.regions, rules, case.spacing_mm)
        for region, probability, mask, truth in zip(plan.regions, probabilities, masks, case.truth, strict=True):
            estimated = expected_dice(probability, mask)
            if estimated is not None and region not in plan.needs_contrast(sequences):
                pairs[region].append((sequences, estimated, dice(truth, mask)))


def fit(region: str, cases: list[tuple[tuple[str, ...], float, float]]) -> DiceEstimate | None:
    """Return the estimate's quality for a region, or None if it does not hold; print both."""
    if len(cases) < _LEAST_CASES:
        print(f"{region}: {len(cases)} cases are too few")
        return None
    estimated, true = (np.array([case[place] for case in cases]) for place in (1, 2))
    rank = float(spearmanr(estimated, true).statistic)
    # Fisher's transformation, with the variance of Bonett and Wright (2000) for ranks.
    lower = math.tanh(math.atanh(rank) - 1.96 * math.sqrt((1 + rank**2 / 2) / (len(cases) - 3)))
    errors = true - estimated
    low, high = interval(errors)
    inside = []
    for number, error in enumerate(errors):
        least, most = interval(np.delete(errors, number))
        inside.append(least <= error <= most)
    print(
        f"{region}: {len(cases)} cases, rank correlation {rank:.2f} (at least {lower:.2f} with 95 % confidence), mean "
        f"error {np.abs(errors).mean():.3f}, true minus estimated Dice {low:+.2f} to {high:+.2f}, which holds for "
        f"{np.mean(inside):.0%} of the cases left out"
    )
    if rank < _LEAST_CORRELATION or lower <= 0:
        print(f"{region}: not written")
        return None
    return DiceEstimate(
        cases=len(cases),
        rank_correlation=round(rank, 2),
        low=round(low, 3),
        high=round(high, 3),
        sequences=tuple(dict.fromkeys(case[0] for case in cases)),
    )


def interval(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval in which the error of a new case lies with a probability of 80 %, if it is one like these.

    Source: conformal prediction, Vovk et al. 2005: the k-th smallest and the k-th largest of n errors, k = .1 (n + 1).
    """
    cut = max(1, math.floor(0.1 * (len(errors) + 1)))
    ordered = np.sort(errors)
    return float(ordered[cut - 1]), float(ordered[-cut])


if __name__ == "__main__":
    main()
