"""Prediction: from a model and an examination to the mask of the tumour."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gliomask.cases import MODALITIES, Case, find_cases, read_case
from gliomask.errors import InputError, describe, is_lack_of_memory
from gliomask.execution import ahead
from gliomask.inference.averaging import common_plan, mean_probabilities
from gliomask.inference.cross_check import can_cross_check, compare_with_flair
from gliomask.inference.plausibility import find_unusual
from gliomask.inference.postprocessing import clean
from gliomask.inference.preprocessing import Prepared, prepare
from gliomask.inference.quality import estimate_dice
from gliomask.inference.record import describe_images, describe_settings
from gliomask.inference.result import Prediction
from gliomask.inference.windows import Inference, OnPart, Predictor
from gliomask.inspection import inspect
from gliomask.labels import get_convention, to_labels
from gliomask.model.plan import Plan
from gliomask.volume import (
    Volume,
)

log = logging.getLogger(__name__)


_DEFAULT = Inference()
_NO_CONTRAST = (
    "no t1c: only that sequence shows contrast enhancement, so {regions} cannot be predicted reliably. "
    "Rely on the other regions only, or give t1c."
)


def predict(
    model: Predictor | Sequence[Predictor],
    case: Case | Path | str,
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: OnPart = lambda _: None,
) -> Prediction:
    """Return the predicted mask of a case.

    Args:
        model: The value that `load_model` returned, or several such values (the folds of a cross-validation, for
            example). Of several models, which must have the same regions, the probabilities are averaged, each
            calibrated by its own plan; all other rules are those of the first model's plan.
        case: A case with the sequences in the model's plan, or the path of a folder with one case; sequences may be
            missing only if the plan says `can_miss`.
        inference: How the network is run.
        convention: The label convention of the mask; by default that of the plan.
        on_part: Called with the completed fraction of the network's work, for a progress bar.

    Raises:
        InputError: A needed sequence is missing, a file is bad (see `read_case`), the convention is unknown, the
            models have different regions, there is no model, or the folder holds no case or several.
    """
    if not isinstance(case, Case):
        case = _only_case(Path(case))
    [found] = predict_cases(
        model, [case], inference=inference, convention=convention, on_part=lambda _, fraction: on_part(fraction)
    )
    if isinstance(found, InputError):
        raise found
    return found


def _only_case(folder: Path) -> Case:
    cases = find_cases(folder)
    if len(cases) > 1:
        raise InputError(
            f"{folder}: holds {len(cases)} cases. Name the folder of one of them, or predict each case that "
            "gliomask.find_cases returns."
        )
    return cases[0]


def predict_cases(
    model: Predictor | Sequence[Predictor],
    cases: Iterable[Case],
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: Callable[[int, float], None] = lambda _, __: None,
) -> Iterator[Prediction | InputError]:
    """Yield the result of `predict` for each case, in order, or an error for a case that cannot be predicted.

    Whatever goes wrong with one case, lack of memory included, the others are still predicted. While one case is
    computed the next one is read, and while the first is read the models are prepared.

    Args:
        model, inference, convention: As for `predict`.
        cases: The cases; each is taken from the iterable just before it is read.
        on_part: Called with the case's number, from 0, and the completed fraction of the network's work on it.

    Raises:
        InputError: The convention, the precision or the models are not valid, which concerns all cases.
    """
    models = list(model) if isinstance(model, Sequence) else [model]
    plan = common_plan(models)
    name = get_convention(convention or plan.convention).name
    plans = [member.plan for member in models]
    with closing(ahead(partial(_ready_or_error, plans), cases, threads=1)) as coming:
        for member in models:
            member.get_ready(inference)
        for number, ready in enumerate(coming):
            if isinstance(ready, InputError):
                yield ready
            else:
                yield _answer_or_error(models, plan, ready, inference, name, partial(on_part, number))
            del ready


def predict_in_turn(
    plans: Sequence[Plan],
    load: Callable[[], Sequence[Predictor]],
    case: Case,
    *,
    inference: Inference,
    convention: str | None,
    on_part: OnPart = lambda _: None,
    turns: tuple[AbstractContextManager[Any], AbstractContextManager[Any]] = (nullcontext(), nullcontext()),
) -> Prediction:
    """Return the result of `predict`, in one of several threads that each have a case.

    Args:
        plans: The plans of the models.
        load: Returns the models; called when the case has been read.
        case: The case.
        inference, convention, on_part: As for `predict`.
        turns: Two locks that are held while the case is read, and while it is computed.

    Raises:
        InputError: As for `predict`, and whatever else goes wrong, with the name of the case.
    """
    reading, computing = turns
    try:
        with reading:
            ready = _read(plans, case)
        with computing:
            models = load()
            plan = common_plan(models)
            return _answer(models, plan, ready, inference, get_convention(convention or plan.convention).name, on_part)
    except Exception as error:
        raise case_error(case, error) from error


@dataclass(frozen=True)
class _Ready:
    """A case that is prepared for each of the models."""

    case: Case
    prepared: list[Prepared]
    images: dict[str, str]
    """Their fingerprints; see `describe_images`."""
    warnings: tuple[str, ...]
    seconds: float


def _ready_or_error(plans: Sequence[Plan], case: Case) -> _Ready | InputError:
    try:
        return _read(plans, case)
    except Exception as error:
        return case_error(case, error)


def _read(plans: Sequence[Plan], case: Case) -> _Ready:
    """Read and prepare a case, only once for models whose plans prepare it in the same way."""
    started = time.perf_counter()
    by_view: dict[tuple[object, ...], Prepared] = {}
    prepared = []
    warnings: dict[str, None] = {}
    images = describe_images(case, [name for plan in plans for name in plan.modalities])
    for plan in plans:
        check_sequences(plan, case)
        view = (plan.modalities, plan.axes, plan.spacing_mm, plan.normalizations, plan.crop, plan.resampling)
        if view not in by_view:
            volume = read_case(case, plan.modalities)
            warnings |= dict.fromkeys(_inspect(case, volume, plan))
            by_view[view] = prepare(volume, plan)
        prepared.append(by_view[view])
    return _Ready(case, prepared, images, tuple(warnings), time.perf_counter() - started)


def _answer_or_error(
    models: Sequence[Predictor], plan: Plan, ready: _Ready, inference: Inference, convention: str, on_part: OnPart
) -> Prediction | InputError:
    try:
        return _answer(models, plan, ready, inference, convention, on_part)
    except Exception as error:
        return case_error(ready.case, error)


def _answer(
    models: Sequence[Predictor], plan: Plan, ready: _Ready, inference: Inference, convention: str, on_part: OnPart
) -> Prediction:
    started = time.perf_counter()
    rules = plan.postprocessing.given(ready.case.images)
    probabilities, decided, window = mean_probabilities(models, plan, ready.prepared, inference, on_part)
    masks = clean(probabilities.data, plan.regions, rules, probabilities.spacing_mm, decided)
    labels = to_labels(masks, plan.regions, get_convention(convention))
    unusual = find_unusual(masks, plan, probabilities.spacing_mm)
    if inference.cross_check and can_cross_check(models, ready.case):
        whole_tumour = masks[plan.regions.index("WT")]
        different = compare_with_flair(models, plan, ready.prepared, whole_tumour, inference)
        unusual += [different] if different else []
    estimates = {}
    if len(models) == 1 and not inference.mirror:  # as when the estimates were checked
        estimates = estimate_dice(probabilities.data, masks, plan, ready.case.images)
    return Prediction(
        case=ready.case,
        labels=Volume(labels[None], probabilities.affine),
        probabilities=probabilities,
        plan=plan.model_copy(update={"postprocessing": rules}),
        convention=convention,
        model=", ".join(member.name for member in models),
        engine=models[0].engine,
        window=window,
        seconds=ready.seconds + time.perf_counter() - started,
        warnings=(*ready.warnings, *unusual),
        settings=describe_settings([member.digest for member in models], inference, convention),
        images=ready.images,
        estimates=estimates,
    )


def case_error(case: Case, error: Exception) -> InputError:
    """Return any exception as an error that names the case."""
    if isinstance(error, InputError):
        text = str(error)
        found = error if text.startswith(case.id) else InputError(f"{case.id}: {text}")
    elif is_lack_of_memory(error):
        found = InputError(f"{case.id}: not enough memory for images of this size. Close other programs.")
    else:
        log.info("%s", case.id, exc_info=error)
        found = InputError(f"{case.id}: {describe(error)}")
    if found is not error:
        found.__cause__ = error
    return found


def _inspect(case: Case, images: Volume, plan: Plan) -> tuple[str, ...]:
    files = {modality: source.path for modality, source in case.images.items()}
    found = inspect(images, plan.modalities, files, spacing_mm=plan.spacing_mm, axes=plan.axes)
    unreliable = plan.needs_contrast(case.images)
    return (*found, _NO_CONTRAST.format(regions=" and ".join(unreliable))) if unreliable else found


def check_sequences(plan: Plan, case: Case) -> None:
    """Refuse a case without a sequence that the model needs.

    Raises:
        InputError: The case has none of the plan's sequences, or lacks one and the model was not trained for that.
    """
    missing = [modality for modality in plan.modalities if modality not in case.images]
    if not missing or (plan.can_miss and len(missing) < len(plan.modalities)):
        return
    raise InputError(
        f"{case.id}: the model needs {', '.join(plan.modalities)}; missing: {', '.join(missing)} "
        f"(there: {', '.join(m for m in MODALITIES if m in case.images) or 'none'}). "
        "Give the missing files, or use a model that was trained with missing sequences (train --drop-modalities 0.3)."
    )
