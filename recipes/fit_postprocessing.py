"""Fit the temperatures and post-processing rules of a model on cases that it was not trained on.

    python recipes/fit_postprocessing.py OUT_OF_FOLD -o rules.json
    python recipes/fit_postprocessing.py OUT_OF_FOLD -o rules.json --model best.safetensors --write fitted.safetensors
    python recipes/fit_postprocessing.py --rules rules.json --model best.safetensors --write fitted.safetensors

OUT_OF_FOLD contains an `.npz` file for each case, on the bounding box of its brain, as `recipes/predict_out_of_fold.py`
writes it: `logits` (R, x, y, z), float16, the output of the network; `truth` (R, x, y, z), 0 or 1; `spacing_mm` (3,).
Each case must have been predicted by a model that was not trained on its patient; rules that are fitted on training
cases are useless.

First a temperature is fitted for each region, then the thresholds, the smallest pieces and the smallest ET by the mean
of Dice and the lesion-wise Dice of BraTS 2023. For each setting, the smallest change within one standard error of the
best value is chosen. Leaving out one case at a time measures what a new case gains. If that is not more than zero, only
the temperatures are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.inference.postprocessing.calibration import (
    Tables,
    calibration_error,
    count_logits,
    fit_temperature,
    held_out_likelihoods,
    likelihood,
)
from gliomask.inference.postprocessing.fitting import THRESHOLDS, fit_rules, leave_one_out
from gliomask.inference.postprocessing.out_of_fold import read_out_of_fold, save_out_of_fold, score_rule, trim
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_plan
from gliomask.model.plan import Plan, Postprocessing, RegionRule


def main() -> None:
    """Fit rules or read them, print and save them, and write them into a model file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the rules and their evaluation.")
    parser.add_argument("--rules", type=Path, help="Rules from an earlier run, to be written into a model.")
    parser.add_argument(
        "--regions", default="WT,TC,ET", help="The regions of the channels; with --model, the regions of the model."
    )
    parser.add_argument("--model", type=Path, help="The model file that the rules are for.")
    parser.add_argument(
        "--write", type=Path, help="The model file to write, with the same weights and the fitted rules."
    )
    parser.add_argument("--jobs", type=int, default=1, help="The number of processes that score cases in parallel.")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (arguments.rules is None) or (arguments.write and not arguments.model):
        parser.error("name a folder or --rules, and with --write also --model")
    plan = read_plan(arguments.model) if arguments.model else None
    if arguments.rules:
        rule = Postprocessing.model_validate(json.loads(arguments.rules.read_text("utf-8"))["postprocessing"])
    else:
        regions = plan.regions if plan else tuple(arguments.regions.split(","))
        rule, report = fit(sorted(arguments.folder.glob("*.npz")), regions, arguments.jobs)
        text = json.dumps({"postprocessing": rule.model_dump(mode="json"), "report": report}, indent=2) + "\n"
        print(text, end="")
        if arguments.output:
            write_text(arguments.output, text)
    if arguments.write:
        write(arguments.model, plan, rule, arguments.write)


def fit(paths: Sequence[Path], regions: Sequence[str], jobs: int) -> tuple[Postprocessing, dict[str, object]]:
    """Return the fitted rules and a report on them, computed from the files of the cases."""
    if len(paths) < 3:
        raise InputError(f"{len(paths)} .npz files; fitting rules needs at least 3 cases.")
    with ProcessPoolExecutor(jobs) as pool, TemporaryDirectory() as folder:
        tables = list(pool.map(partial(count_case, regions=tuple(regions)), paths))
        calibration = {region: fit_region([case[n] for case in tables]) for n, region in enumerate(regions)}
        temperatures = {region: round(facts["temperature"], 3) for region, facts in calibration.items()}
        start = Postprocessing(regions={region: RegionRule(temperature=t) for region, t in temperatures.items()})
        trimmed = partial(trim_case, folder=Path(folder), regions=tuple(regions), rule=start)
        scores = Scores(pool, tuple(pool.map(trimmed, paths)), tuple(regions), {})
        found = fit_rules(scores, regions, start, range(len(paths)))
        gains, rules = leave_one_out(scores, regions, start, len(paths))
        kept = found.rule if gains.mean() > 0 else start
        before, after = scores.details(start), scores.details(kept)
    report = {
        "cases": len(paths),
        "calibration": calibration,
        "score_before": found.before,
        "score_after": float(after.mean()),
        "chosen": found.rule.model_dump(mode="json"),
        "chosen_is_kept": bool(gains.mean() > 0),
        "gain_on_the_cases_seen": found.after - found.before,
        "gain_left_out": float(gains.mean()),
        "gain_left_out_standard_error": float(gains.std(ddof=1) / np.sqrt(len(gains))),
        "cases_left_out_that_lose": int((gains < -1e-6).sum()),
        "same_rule_left_out": sum(rule == found.rule for rule in rules),
        "dice": {r: [float(before[:, n, 0].mean()), float(after[:, n, 0].mean())] for n, r in enumerate(regions)},
        "lesion_dice_brats2023": {
            r: [float(before[:, n, 1].mean()), float(after[:, n, 1].mean())] for n, r in enumerate(regions)
        },
    }
    return kept, report


@dataclass(frozen=True)
class Scores:
    """The scores of the cases with given rules, as a function; the result for each set of rules is kept."""

    pool: ProcessPoolExecutor
    paths: tuple[Path, ...]
    regions: tuple[str, ...]
    known: dict[str, np.ndarray]

    def __call__(self, rule: Postprocessing) -> np.ndarray:
        return self.details(rule).mean(axis=(1, 2))

    def details(self, rule: Postprocessing) -> np.ndarray:
        """Return Dice and lesion-wise Dice of each case and region, `(N, R, 2)`."""
        key = rule.model_dump_json()
        if key not in self.known:
            score = partial(score_case, regions=self.regions, rule=rule)
            self.known[key] = np.array(list(self.pool.map(score, self.paths)))
            print(f"{len(self.known):4d} {self.known[key].mean():.5f} {key}", file=sys.stderr, flush=True)
        return self.known[key]


def count_case(path: Path, regions: tuple[str, ...]) -> list[Tables]:
    """Return the table of logits of each region in one case; see `count_logits`."""
    case = read_out_of_fold(path, regions)
    return [count_logits(logits, truth) for logits, truth in zip(case.logits, case.truth, strict=True)]


def trim_case(path: Path, folder: Path, regions: tuple[str, ...], rule: Postprocessing) -> Path:
    """Write a case cropped to what the rules can affect, to score it faster; return its new path."""
    save_out_of_fold(folder / path.name, trim(read_out_of_fold(path, regions), regions, rule, min(THRESHOLDS)))
    return folder / path.name


def score_case(path: Path, regions: tuple[str, ...], rule: Postprocessing) -> np.ndarray:
    """Return Dice and lesion-wise Dice of each region in one case, `(R, 2)`."""
    return score_rule(read_out_of_fold(path, regions), regions, rule)


def fit_region(tables: Sequence[Tables]) -> dict[str, float]:
    """Return the temperature of one region, with the likelihoods and calibration errors before and after."""
    together = sum(tables[1:], tables[0])
    temperature = fit_temperature(together)
    before, held_out = held_out_likelihoods(tables)
    return {
        "temperature": temperature,
        "negative_log_likelihood_before": likelihood(together),
        "negative_log_likelihood_after": likelihood(together, temperature),
        "case_negative_log_likelihood_before": before,
        "case_negative_log_likelihood_left_out": held_out,
        "calibration_error_before": calibration_error(together),
        "calibration_error_after": calibration_error(together, temperature),
    }


def write(model: Path, plan: Plan | None, rule: Postprocessing, target: Path) -> None:
    """Write the model file with the rules in its plan and its weights unchanged."""
    assert plan is not None
    replace_plan(model, plan.model_copy(update={"postprocessing": rule, "dice_estimates": {}}), target)
    print(f"wrote {target}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
