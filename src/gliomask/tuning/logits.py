"""The logits of a model for cases with true masks, computed as `predict` computes them and stored for fitting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from gliomask.cases import Case, Problem, read_case, read_mask
from gliomask.errors import InputError
from gliomask.inference.prediction import predict_cases
from gliomask.inference.record import describe_images, describe_settings, fingerprint
from gliomask.inference.result import Prediction
from gliomask.inference.windows import Inference, OnPart, Predictor, Window
from gliomask.labels import get_convention, to_regions
from gliomask.metrics import joint_box
from gliomask.model.plan import Plan, Postprocessing
from gliomask.tuning.out_of_fold import OutOfFold, read_made_from, save_out_of_fold

# Beyond it, a probability in float32 is 0 or 1.
_LARGEST_LOGIT = 16.0


def store_logits(
    model: Predictor,
    cases: Sequence[Case],
    folder: Path,
    *,
    inference: Inference,
    on_part: Callable[[int, float], None] = lambda number, fraction: None,
) -> tuple[list[Case], list[Problem]]:
    """Write `CASE.npz` for each case into a folder (see `OutOfFold`); return the cases that have one, and the others.

    A file that the same model made with the same options from the same images and mask is kept.

    Args:
        model: The model.
        cases: Cases with masks, each with a label convention; see `resolve_conventions`.
        folder: Made if it does not exist.
        inference: How the network is run.
        on_part: Called with the number of a case among those that are computed, from 0, and the completed fraction of
            the work on it.
    """
    problems: list[Problem] = []
    keys: dict[str, str] = {}
    for case in cases:
        try:
            keys[case.id] = _key(model, case, inference)
        except InputError as error:
            problems.append(_problem(case, error))
    to_do = [case for case in cases if case.id in keys and read_made_from(folder / f"{case.id}.npz") != keys[case.id]]
    answers = predict_cases(_Uncalibrated(model), to_do, inference=inference, on_part=on_part)
    for number, (case, found) in enumerate(zip(to_do, answers, strict=True)):
        try:
            if isinstance(found, InputError):
                raise found
            save_out_of_fold(folder / f"{case.id}.npz", logits_of(found), made_from=keys[case.id])
        except InputError as error:
            problems.append(_problem(case, error))
        on_part(number, 1.0)
    failed = {problem.where for problem in problems}
    return [case for case in cases if case.id not in failed], problems


def predict_logits(model: Predictor, case: Case, inference: Inference | None = None) -> OutOfFold:
    """Return the logits of one case with its true mask; see `OutOfFold`.

    Raises:
        InputError: As for `predict`, or the mask is missing, bad, or on another grid.
    """
    [found] = predict_cases(_Uncalibrated(model), [case], inference=inference or Inference())
    if isinstance(found, InputError):
        raise found
    return logits_of(found)


def logits_of(found: Prediction) -> OutOfFold:
    """Return the logits of a prediction that was made without rules, cropped to the brain, with the true mask.

    They are the log odds of the regions' probabilities on the grid of the images.

    Raises:
        InputError: The mask is missing, bad, or on another grid than the images.
    """
    case, regions = found.case, found.plan.regions
    grid = found.probabilities.grid
    mask = read_mask(case, grid).data[0]
    truth = to_regions(mask, get_convention(case.convention or found.convention), regions)
    brain = np.asarray(read_case(case, found.plan.modalities).data.any(axis=0))
    x, y, z = joint_box(brain, *truth)
    with np.errstate(divide="ignore"):
        logits = np.clip(logit(found.probabilities.data[:, x, y, z]), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    decided: NDArray[np.bool_] | None = None
    if found.plan.classes:
        decided = to_regions(found.labels.data[0], get_convention(found.convention), regions)[:, x, y, z]
    contrast = "t1c" in case.images
    return OutOfFold(case.id, logits.astype(np.float16), truth[:, x, y, z], grid.spacing_mm, decided, contrast)


@dataclass(frozen=True)
class _Uncalibrated:
    """A model without its rules of post-processing."""

    model: Predictor

    @property
    def plan(self) -> Plan:
        return self.model.plan.model_copy(update={"postprocessing": Postprocessing(), "typical": None})

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def engine(self) -> str:
        return self.model.engine

    @property
    def digest(self) -> str:
        return self.model.digest

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
    ) -> tuple[NDArray[np.float32], Window]:
        return self.model.run(data, inference, on_part)

    def get_ready(self, inference: Inference) -> None:
        self.model.get_ready(inference)


def _key(model: Predictor, case: Case, inference: Inference) -> str:
    """Return a digest of everything that the logits and the true mask of a case follow from."""
    if case.mask is None:
        raise InputError(f"{case.id}: has no mask (a file such as {case.id}_seg.nii.gz).")
    facts: dict[str, Any] = {
        "settings": describe_settings([model.digest], inference, ""),
        "images": describe_images(case, model.plan.modalities),
        "mask": str(fingerprint(case.mask)),
        "convention": case.convention,
        "regions": list(model.plan.regions),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _problem(case: Case, error: InputError) -> Problem:
    return Problem(case.id, str(error).removeprefix(f"{case.id}: "))
