"""Which cases the rules of a model can be fitted to, and the model file with the fitted rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliomask.cases import Case, Problem
from gliomask.foreign import is_foreign, read_training
from gliomask.inference.loading import load_torch_model, save_model
from gliomask.labels import get_convention
from gliomask.model.edit import replace_plan
from gliomask.model.plan import Plan, Postprocessing
from gliomask.training.record import read_trained_on


@dataclass(frozen=True)
class Usable:
    """The cases that rules can be fitted to, and the others."""

    cases: tuple[Case, ...]
    left_out: tuple[Problem, ...]
    """Each case that is left out, with the reason."""
    split: Path | None
    """The file that says which cases the model was trained on; None if there is none beside it."""


def choose_cases(model: Path, plan: Plan, cases: Sequence[Case]) -> Usable:
    """Return the cases that rules can be fitted to: those with all regions in their masks that it did not learn from.

    The cases that it learned from are known if the model file lies in the folder of its run.

    Args:
        model: The model file.
        plan: Its plan.
        cases: Cases with masks, each with a label convention.

    Raises:
        InputError: The record of the run is damaged.
    """
    split = model.absolute().parent / "splits_final.json"
    trained = read_trained_on(split.parent) if split.is_file() else frozenset()
    kept, left_out = [], []
    for case in cases:
        known = get_convention(case.convention or plan.convention)
        unknown = [region for region in plan.regions if not known.knows(region)]
        if case.id in trained:
            left_out.append(Problem(case.id, f"the model was trained on it ({split})"))
        elif unknown:
            left_out.append(Problem(case.id, f"its mask ({known.name}) does not label {', '.join(unknown)}"))
        else:
            kept.append(case)
    return Usable(tuple(kept), tuple(left_out), split if trained else None)


def write_tuned(model: Path, plan: Plan, rules: Postprocessing, target: Path) -> None:
    """Write a model file with other rules of post-processing; everything else in it stays the same.

    The estimates of Dice in the plan were checked with the old rules, so that they are left out if the rules differ. A
    model that another program made is written as a file of ours, with its weights in 32 bits.

    Raises:
        InputError: As for `replace_plan`; for a model of another program as for `load_torch_model`.
    """
    changed = {} if rules == plan.postprocessing else {"postprocessing": rules, "dice_estimates": {}}
    tuned = plan.model_copy(update=changed)
    if is_foreign(model):
        save_model(replace(load_torch_model(model), plan=tuned), target, training=read_training(model))
    else:
        replace_plan(model, tuned, target)
