"""Learning from masks that were corrected by hand: they replace the cases' own, and whether it helped is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.evaluation import PairedTest, paired_test
from gliomask.evaluation.conventions import find_conventions
from gliomask.evaluation.pairs import EDITED
from gliomask.files import write_text
from gliomask.inference.loading import load_torch_model
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.learned import learned_from, seen_patients
from gliomask.training.run import Run, refuse_incomparable
from gliomask.training.run_comparison import common_cases
from gliomask.training.validation import dice_as_predicted
from gliomask.volume import NIFTI_ENDINGS

_LEVEL = 0.05
_FEWEST = 6  # with 5 cases, the least p-value of the permutation test is 2 / 2^5 = .0625


def use_corrections(cases: Sequence[Case], folder: Path, labels: str | None = None) -> tuple[list[Case], list[str]]:
    """Return the cases with the corrected masks of a folder in place of their own, and the ids of these cases.

    The label convention is that in `CASE_edited.json`, or as for `evaluation.find_conventions`.

    Args:
        cases: The cases, with or without masks.
        folder: Holds `CASE_edited.nii.gz` files, at any depth.
        labels: The label convention, if the files do not tell it.

    Raises:
        InputError: There is no corrected mask, one belongs to none of the cases, or a case has two.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for ending in NIFTI_ENDINGS for path in folder.rglob(f"*{EDITED}{ending}")):
        case = path.name.partition(EDITED)[0]
        if case in found:
            raise InputError(f"{case}: has two corrected masks, {found[case]} and {path}. Remove one.")
        found[case] = path
    if not found:
        raise InputError(
            f"{folder}: no corrected mask (CASE{EDITED}.nii.gz). Correct masks with gliomask view CASE MASK --edit."
        )
    unknown = sorted(found.keys() - {case.id for case in cases})
    if unknown:
        raise InputError(
            f"{folder}: corrected masks of cases whose images are not given: {', '.join(unknown[:5])}. "
            "Name the folder with their images as CASES."
        )
    conventions = find_conventions(found, labels)
    corrected = [
        replace(case, mask=found[case.id], convention=conventions[case.id].name) if case.id in found else case
        for case in cases
    ]
    return corrected, sorted(found)


@dataclass(frozen=True)
class Improvement:
    """How a model that was trained further differs from the one that it started from, on held-out cases."""

    tests: Mapping[str, PairedTest]
    """Dice after minus Dice before, for each region and, as `mean`, for their mean."""
    before_saw: str = ""
    """A sentence that says what is known about whether the model before was trained on these patients."""

    @property
    def is_better(self) -> bool:
        """Whether the mean Dice rose: with 95 % confidence by its interval, and by the permutation test too.

        With few cases the interval is too narrow; the test is exact, and cannot show anything with fewer than 6 cases.
        """
        mean = self.tests["mean"]
        return mean.low > 0 and mean.p_permutation < _LEVEL

    @property
    def verdict(self) -> str:
        """A sentence that says what was shown, and which model to use."""
        mean = self.tests["mean"]
        count = f"{mean.cases} held-out case{'' if mean.cases == 1 else 's'}"
        if mean.cases and self.is_better:
            return f"better than before on {count}: use the new model"
        if mean.cases and mean.high < 0 and mean.p_permutation < _LEVEL:
            return f"worse than before on {count}: go on with the model that you started from"
        few = f", and fewer than {_FEWEST} cannot show it" if mean.cases < _FEWEST else ""
        return (
            f"not shown to be better on {count}{few}: go on with the model that you started from, or correct more cases"
        )


def compare_with_start(run: Run, *, on_case: Callable[[int, int], None] = lambda done, total: None) -> Improvement:
    """Score the last model of a run and the model that it started from on the cases that the run held out.

    The best model of the run is not scored, because it was chosen by its Dice on these same cases. The masks are those
    of `predict`, with the rules of post-processing of each model. The result is also written to `before_after.md` in
    the run's folder.

    Raises:
        InputError: The run started from no model, held out no case, or its prepared cases no longer exist; or the model
            that it started from was made for other sequences, regions or voxel sizes.
    """
    if run.config.start_from is None:
        raise InputError(f"{run.folder}: did not start from a model (--from), so there is nothing to compare with.")
    before, after = load_torch_model(Path(run.config.start_from)), load_torch_model(run.last)
    refuse_incomparable(run.config, before.plan, after.plan)
    cases, notes = common_cases({"run": run})
    if not cases:
        raise InputError(f"{run.folder}: no held-out case to compare on. {' '.join(notes)}")
    scores: list[list[dict[str, float]]] = []
    for number, model in enumerate((after, before)):
        scores.append([])
        for done, case in enumerate(cases, start=1):
            scores[-1].append(dice_as_predicted(model, case, run.config.precision))
            on_case(number * len(cases) + done, 2 * len(cases))
    regions = after.plan.regions
    values = {region: [[score[region] for score in each] for each in scores] for region in regions}
    values["mean"] = [[_mean(score) for score in each] for each in scores]
    tests = {name: paired_test(*pair) for name, pair in values.items()}
    found = Improvement(tests, _what_start_saw(run.config, cases))
    write_text(run.folder / "before_after.md", _table(found))
    return found


def _mean(dice: Mapping[str, float]) -> float:
    known = [value for value in dice.values() if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _table(found: Improvement) -> str:
    lines = ["| Dice | cases | before | after | difference (95 % interval) | p (permutation) |", "|---" * 6 + "|"]
    for name, test in found.tests.items():
        lines.append(
            f"| {name} | {test.cases} | {test.second:.3f} | {test.first:.3f} | {test.difference:+.3f} "
            f"({test.low:+.3f} to {test.high:+.3f}) | {test.p_permutation:.3f} |"
        )
    return "\n".join([*lines, "", found.verdict[0].upper() + found.verdict[1:] + ".", "", found.before_saw, ""])


def _what_start_saw(config: TrainConfig, cases: Sequence[CachedCase]) -> str:
    learned = learned_from(Path(config.start_from or ""))
    table = Path(config.patients) if config.patients and Path(config.patients).is_file() else None
    patients, seen = {case.patient for case in cases}, seen_patients(cases, learned.ids, table)
    if seen:
        return (
            f"The model before was trained on {len(seen)} of these {len(patients)} patients: its scores are too high."
        )
    if learned.unknown is not None:
        return (
            f"It is not known whether the model before was trained on these patients: no splits_final.json lies beside "
            f"{learned.unknown}. If it was, its scores are too high."
        )
    return "The model before was trained on none of these patients, as the splits_final.json beside it says."
