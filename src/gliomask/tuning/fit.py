"""Temperatures and rules of post-processing fitted to cases, and the test on patients that they were not fitted to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from gliomask.errors import InputError
from gliomask.evaluation import PairedTest, paired_test
from gliomask.model.plan import Postprocessing, RegionRule
from gliomask.tuning.calibration import (
    Tables,
    calibration_error,
    count_logits,
    fit_temperature,
    left_out_temperatures,
    likelihood,
    round_temperature,
)
from gliomask.tuning.out_of_fold import (
    masks_by_rule,
    read_out_of_fold,
    save_out_of_fold,
    score_masks,
    scored_regions,
    trim,
)
from gliomask.tuning.rules import THRESHOLDS, count_settings, fit_rules, leave_out

LEAST_PATIENTS = 3
"""The number of patients without which nothing is fitted."""
ENOUGH_PATIENTS = 5
"""The number of patients without which no change is called better."""

Map = Callable[..., Any]
"""`map`, or that of a pool of processes."""


@dataclass(frozen=True)
class Calibration:
    """The temperature of a region, and what it does to the probabilities."""

    present: float
    """The temperature in the model's plan."""
    fitted: float
    """The temperature of greatest likelihood on all cases."""
    left_out: PairedTest
    """The negative log-likelihood of each patient in nats for each voxel, with the present temperature minus that with
    the one fitted to all other patients: above 0 where fitting helps."""
    error_before: float
    """The expected calibration error with the present temperature; see `calibration_error`."""
    error_after: float
    """That with the fitted temperature, on the cases it was fitted to."""

    @property
    def is_better(self) -> bool:
        """Whether a temperature that is fitted to other patients is shown to be better."""
        return _is_better(self.left_out)


@dataclass(frozen=True)
class Tuning:
    """Rules that were fitted to cases, and how much they help patients that they were not fitted to."""

    cases: int
    present: Postprocessing
    """The rules in the model's plan."""
    chosen: Postprocessing
    """The rules that were chosen on all cases."""
    rules: Postprocessing
    """The rules to be used: the chosen ones if they are shown to be better. Otherwise the present ones, with the
    temperatures that are shown to be better and thresholds that give the same masks."""
    calibration: Mapping[str, Calibration]
    tests: Mapping[str, PairedTest]
    """Scores of left-out patients, with the rules fitted to all others minus those with the present rules: `mean`, and
    for each region `Dice REGION` and `lesion-wise Dice REGION`."""
    gain_seen: float
    """The gain in mean score on the cases that the rules were chosen on, which is biased."""
    same_left_out: int
    """The number of patients whose left-out rules are the chosen ones."""

    @property
    def is_better(self) -> bool:
        """Whether the mean score of left-out patients rose, with 95 % confidence."""
        return _is_better(self.tests["mean"])

    @property
    def verdict(self) -> str:
        """A sentence that says what was shown about the masks, and which rules are used."""
        test = self.tests["mean"]
        count = f"{test.cases} patient{'' if test.cases == 1 else 's'} left out in turn"
        if self.chosen_is_start:
            return f"no other rules are better than the present ones on {count}: the masks stay as they are"
        if self.is_better:
            return f"better than before on {count}: the new rules are used"
        if test.cases < ENOUGH_PATIENTS and test.low > 0:
            return f"{count} are too few to show that new rules are better: the masks stay as they are"
        if test.high < 0:
            return f"worse than before on {count}: the masks stay as they are"
        return f"not shown to be better on {count}: the masks stay as they are"

    @property
    def chosen_is_start(self) -> bool:
        """Whether fitting chose no other rules than the present ones, but for temperatures."""
        start = with_temperatures(self.present, {name: self.chosen.rule(name).temperature for name in self.calibration})
        return start == self.chosen

    def report(self) -> dict[str, Any]:
        """Return all of this ready for JSON."""
        return {
            "cases": self.cases,
            "patients": self.tests["mean"].cases,
            "verdict": self.verdict,
            "is_better": self.is_better,
            "present": self.present.model_dump(mode="json"),
            "chosen": self.chosen.model_dump(mode="json"),
            "scores_left_out": {name: asdict(test) for name, test in self.tests.items()},
            "gain_on_the_cases_seen": self.gain_seen,
            "same_rules_left_out": self.same_left_out,
            "calibration": {
                region: asdict(one) | {"is_better": one.is_better} for region, one in self.calibration.items()
            },
        }


def _is_better(test: PairedTest) -> bool:
    return test.cases >= ENOUGH_PATIENTS and test.low > 0


def fit_tuning(
    paths: Sequence[Path],
    patients: Sequence[str],
    regions: Sequence[str],
    present: Postprocessing,
    *,
    jobs: int = 1,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Return the rules fitted to the out-of-fold logits of some cases, tested by leaving out each patient in turn.

    First a temperature is fitted for each region, then thresholds, the smallest pieces and the smallest ET by the mean
    of Dice and the lesion-wise Dice of BraTS 2023; see `fit_rules`. For the test, everything is fitted again without
    each patient.

    Args:
        paths: The file of each case; see `out_of_fold`.
        patients: The patient of each case. All cases of a patient are left out together.
        regions: The names of the channels.
        present: The rules in the model's plan.
        jobs: The number of processes that score cases in parallel.
        on_step: Called with the number of settings that have been chosen and of all.

    Raises:
        InputError: There are fewer than three patients, a file is bad, or none of the regions can be scored.
    """
    groups = [[n for n, one in enumerate(patients) if one == name] for name in dict.fromkeys(patients)]
    if len(groups) < LEAST_PATIENTS:
        raise InputError(
            f"{_counted(len(paths), 'case')} of {_counted(len(groups), 'patient')}; fitting rules needs at least "
            f"{LEAST_PATIENTS} patients, and {ENOUGH_PATIENTS} or more to show that they are better."
        )
    regions, scored = tuple(regions), scored_regions(regions)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        run: Map = map
        if jobs > 1:
            # Not forked: the threads of OpenVINO, which ran the network in this process, do not exist in a fork.
            context = multiprocessing.get_context("spawn")
            run = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=context)).map
        tables = list(run(partial(_count_case, regions=regions), paths))
        by_patient = [_sum([tables[case] for case in group]) for group in groups]
        calibration, left_out = _calibrate(by_patient, regions, present)
        start = with_temperatures(present, _accepted(calibration, {r: one.fitted for r, one in calibration.items()}))
        starts = [with_temperatures(present, _accepted(calibration, each)) for each in left_out]
        trimmed = partial(_trim_case, folder=folder, regions=regions, rules=(present, start, *starts))
        scores = _Scores(run, tuple(run(trimmed, paths)), regions, {})
        steps = _Steps(count_settings(scored) * (1 + len(groups)), on_step)
        found = fit_rules(scores, scored, start, range(len(paths)), steps.advance)
        rules = leave_out(scores, scored, starts, groups, steps.advance)
        before = scores.details(present)
        after = np.empty_like(before)
        for group, rule in zip(groups, rules, strict=True):
            after[group] = scores.details(rule)[group]
        gain_seen = float((scores.details(found.rule) - before).mean())
    tests = _tests(before, after, groups, scored)
    better = _is_better(tests["mean"]) and found.rule != start
    return Tuning(
        cases=len(paths),
        present=present,
        chosen=found.rule,
        rules=found.rule if better else _same_masks(present, start),
        calibration=calibration,
        tests=tests,
        gain_seen=gain_seen,
        same_left_out=sum(rule == found.rule for rule in rules),
    )


def with_temperatures(rules: Postprocessing, temperatures: Mapping[str, float]) -> Postprocessing:
    """Return rules with other temperatures, and thresholds that are moved so that the same voxels are above them."""
    changed = dict(rules.regions)
    for region, temperature in temperatures.items():
        rule = rules.rule(region)
        threshold = _moved(rule.threshold, rule.temperature, temperature)
        changed[region] = rule.model_copy(update={"temperature": temperature, "threshold": threshold})
    kept = {region: rule for region, rule in sorted(changed.items()) if rule != RegionRule()}
    without_et = rules.tc_threshold_without_et
    if without_et is not None:
        old = rules.rule("TC").temperature
        without_et = _moved(without_et, old, temperatures.get("TC", old))
    return rules.model_copy(update={"regions": kept, "tc_threshold_without_et": without_et})


def _moved(threshold: float, old: float, new: float) -> float:
    """Return the threshold of probabilities with a new temperature at the logit that had it with the old one."""
    if old == new or threshold == 0.5:
        return threshold
    return float(np.clip(expit(logit(threshold) * old / new), 1e-6, 1 - 1e-6))


def _same_masks(present: Postprocessing, start: Postprocessing) -> Postprocessing:
    """Return the rules at the start, with the present ones where another temperature could change masks.

    Components are removed by their mean probability, for which no equal limit exists with another temperature.
    """
    keep = {
        region: present.rule(region).temperature
        for region in {*present.regions, *start.regions}
        if present.rule(region).least_probability
    }
    temperatures = {region: start.rule(region).temperature for region in {*present.regions, *start.regions}}
    return with_temperatures(present, {**temperatures, **keep})


def _accepted(calibration: Mapping[str, Calibration], fitted: Mapping[str, float]) -> dict[str, float]:
    """Return the fitted temperatures where they are shown to be better, else the present ones."""
    return {region: fitted[region] if one.is_better else one.present for region, one in calibration.items()}


def _calibrate(
    by_patient: Sequence[Sequence[Tables]], regions: Sequence[str], present: Postprocessing
) -> tuple[dict[str, Calibration], list[dict[str, float]]]:
    """Return the calibration of each region, and for each patient the temperatures fitted to all others."""
    found: dict[str, Calibration] = {}
    left_out: list[dict[str, float]] = [{} for _ in by_patient]
    for number, region in enumerate(regions):
        tables = [patient[number] for patient in by_patient]
        together, now = sum(tables[1:], tables[0]), present.rule(region).temperature
        others = left_out_temperatures(tables)
        for temperatures, temperature in zip(left_out, others, strict=True):
            temperatures[region] = temperature
        before = [likelihood(one, now) for one in tables]
        after = [likelihood(one, temperature) for one, temperature in zip(tables, others, strict=True)]
        fitted = round_temperature(fit_temperature(together))
        found[region] = Calibration(
            present=now,
            fitted=fitted,
            left_out=paired_test(before, after),
            error_before=calibration_error(together, now),
            error_after=calibration_error(together, fitted),
        )
    return found, left_out


def _tests(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: Sequence[Sequence[int]], scored: Sequence[str]
) -> dict[str, PairedTest]:
    """Return the tests of `Tuning.tests` from the scores of the cases, `(N, R, 2)`."""
    new, old = (np.stack([scores[group].mean(axis=0) for group in groups]) for scores in (after, before))
    found = {"mean": paired_test(new.mean(axis=(1, 2)).tolist(), old.mean(axis=(1, 2)).tolist())}
    for number, region in enumerate(scored):
        for metric, name in enumerate(("Dice", "lesion-wise Dice")):
            pair = (scores[:, number, metric].tolist() for scores in (new, old))
            found[f"{name} {region}"] = paired_test(*pair)
    return found


@dataclass(frozen=True)
class _Scores:
    """The scores of the cases with given rules, as a function; the result for each set of rules is kept."""

    run: Map
    paths: tuple[Path, ...]
    regions: tuple[str, ...]
    known: dict[str, NDArray[np.float64]]

    def __call__(self, rule: Postprocessing) -> NDArray[np.float64]:
        return np.asarray(self.details(rule).mean(axis=(1, 2)))

    def details(self, rule: Postprocessing) -> NDArray[np.float64]:
        """Return Dice and lesion-wise Dice of each case and region, `(N, R, 2)`."""
        key = rule.model_dump_json()
        if key not in self.known:
            score = partial(_score_case, regions=self.regions, rule=rule)
            self.known[key] = np.array(list(self.run(score, self.paths)))
        return self.known[key]


class _Steps:
    """Counts the settings that have been chosen."""

    def __init__(self, total: int, on_step: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_step = 0, total, on_step

    def advance(self) -> None:
        self._done += 1
        self._on_step(self._done, self._total)


def _count_case(path: Path, regions: tuple[str, ...]) -> list[Tables]:
    """Return the table of logits of each region in one case; see `count_logits`."""
    case = read_out_of_fold(path, regions)
    return [count_logits(logits, truth) for logits, truth in zip(case.logits, case.truth, strict=True)]


def _trim_case(path: Path, folder: Path, regions: tuple[str, ...], rules: Sequence[Postprocessing]) -> Path:
    """Write a case cropped to what the rules can affect, to score it faster; return its new path."""
    case = trim(read_out_of_fold(path, regions), regions, rules, min(THRESHOLDS))
    save_out_of_fold(folder / path.name, case, compressed=False)
    return folder / path.name


_SCORES: dict[tuple[Path, bytes], NDArray[np.float64]] = {}
"""The scores of masks that this process has seen, by the case's file and a digest: most rules change nothing."""


def _score_case(path: Path, regions: tuple[str, ...], rule: Postprocessing) -> NDArray[np.float64]:
    case = read_out_of_fold(path, regions)
    masks = masks_by_rule(case, regions, rule)
    key = path, blake2b(np.packbits(masks).tobytes(), digest_size=16).digest()
    if key not in _SCORES:
        _SCORES[key] = score_masks(case, regions, masks)
    return _SCORES[key]


def _sum(tables: Sequence[Sequence[Tables]]) -> list[Tables]:
    """Return the tables of each region over all cases of a patient."""
    return [sum(region[1:], region[0]) for region in zip(*tables, strict=True)]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
