"""A model and an examination -> where the tumour is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import MODALITIES, Case, read_case
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.inference.plausibility import describe_unusual, measure_pieces
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.inference.preprocessing import Prepared, prepare, restore
from gliomask.inference.windows import Inference, OnPart, Predictor, Window, report_part
from gliomask.inspection import inspect
from gliomask.labels import REGIONS, count_labels, get_convention, to_labels
from gliomask.model.plan import Plan
from gliomask.version import VERSION
from gliomask.volume import Spacing, Volume, write_volume


@dataclass(frozen=True)
class Prediction:
    """The answer for one case, on the grid its images came on."""

    case: Case
    labels: Volume
    """One uint8 channel in the numbers of `convention`."""
    probabilities: Volume
    """One float32 channel for each of the plan's regions; zero outside the brain's box."""
    plan: Plan
    convention: str
    model: str
    engine: str
    """The library that computed, and its version."""
    window: Window
    seconds: float
    warnings: tuple[str, ...] = ()
    """What about the images is not what the model knows; see `inspect`."""

    @property
    def missing(self) -> list[str]:
        """The plan's sequences that the case does not have."""
        return [modality for modality in self.plan.modalities if modality not in self.case.images]

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume in mL of each tissue and region that the convention can express."""
        convention = get_convention(self.convention)
        counts = count_labels(self.labels.data)
        voxel_ml = abs(float(np.linalg.det(self.labels.affine[:3, :3]))) / 1000
        parts = {tissue: [value] for value, tissue in convention.tissues.items() if tissue not in REGIONS}
        parts |= {region: list(values) for region, values in convention.regions.items()}
        return {name: round(float(counts[values].sum()) * voxel_ml, 3) for name, values in parts.items()}

    def save(self, path: Path | str, *, probabilities: bool = False) -> None:
        """Write the mask as NIfTI with the input's grid and header, and its facts as JSON beside it.

        Args:
            path: `CASE.nii.gz` or `.nii`; the facts go to `CASE.json`.
            probabilities: Also write `CASE_probabilities.nii.gz`, 4-D, a channel a region.

        Raises:
            InputError: The place cannot be written to.
        """
        path = Path(path)
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        like = next(iter(self.case.images.values())).path
        write_volume(path, self.labels, like=like)
        if probabilities:
            rounded = Volume(self.probabilities.data.round(4), self.probabilities.affine)
            write_volume(path.with_name(f"{stem}_probabilities.nii.gz"), rounded, like=like)
        write_text(path.with_name(f"{stem}.json"), json.dumps(self.facts(), indent=2) + "\n")

    def facts(self) -> dict[str, Any]:
        """Return what a reader of the mask needs to know, ready for JSON."""
        convention = get_convention(self.convention)
        return {
            "case": self.case.id,
            "volumes_ml": self.volumes_ml(),
            "labels": {"convention": convention.name, **{str(v): t for v, t in sorted(convention.tissues.items())}},
            "sequences": {m: m in self.case.images for m in self.plan.modalities},
            "model": self.model,
            "network": self.plan.network,
            "window": self.window,
            "regions": list(self.plan.regions),
            "postprocessing": self.plan.postprocessing.model_dump(mode="json"),
            "warnings": list(self.warnings),
            "versions": {"gliomask": VERSION, **dict([self.engine.split(" ")]), "numpy": np.__version__},
            "seconds": round(self.seconds, 2),
            "note": "Research use only, not a medical device.",
        }


_DEFAULT = Inference()
_NO_CONTRAST = (
    "no t1c: enhancement shows in that sequence alone, so ET is a guess and TC not much more. "
    "Rely on WT only, or give t1c."
)


def predict(
    model: Predictor | Sequence[Predictor],
    case: Case,
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: OnPart = lambda _: None,
) -> Prediction:
    """Return where the tumour is in a case.

    Args:
        model: What `load_model` returned. Of several (the folds of a cross-validation, say) the probabilities are
            averaged, each calibrated by its own plan; they must have the same regions, and the first one's plan names
            the rest.
        case: With the sequences that the model's plan names; one may lack only if the plan says `can_miss`.
        inference: How to run the network.
        convention: The numbers to answer in; by default the plan's.
        on_part: Called with the share of the network's work that is done, for a progress bar.

    Raises:
        InputError: A needed sequence is missing, a file is bad (see `read_case`), the convention is unknown, the
            models have other regions from one another, or there is none.
    """
    [found] = predict_cases(
        model, [case], inference=inference, convention=convention, on_part=lambda _, share: on_part(share)
    )
    if isinstance(found, InputError):
        raise found
    return found


def predict_cases(
    model: Predictor | Sequence[Predictor],
    cases: Sequence[Case],
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: Callable[[int, float], None] = lambda _, __: None,
) -> Iterator[Prediction | InputError]:
    """Yield what `predict` would return for each case, in order; for a bad one its error, and the others go on.

    While one case is computed, the next one is read; while the first is read, the models get ready.

    Args:
        model, inference, convention: As for `predict`.
        cases: As for `predict`.
        on_part: Called with the case's number, from 0, and the share of the network's work on it that is done.

    Raises:
        InputError: What is wrong for all cases: the convention, the precision, the models.
    """
    models = list(model) if isinstance(model, Sequence) else [model]
    plan = _common_plan(models)
    name = get_convention(convention or plan.convention).name
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(_read, models, case) for case in cases[:1]]
        for member in models:
            member.get_ready(inference)
        for number in range(len(cases)):
            ready = coming.pop().result()
            coming += [reader.submit(_read, models, case) for case in cases[number + 1 : number + 2]]
            if isinstance(ready, InputError):
                yield ready
                continue
            try:
                yield _answer(models, plan, ready, inference, name, partial(on_part, number))
            except InputError as error:
                yield error


@dataclass(frozen=True)
class _Ready:
    """A case as each of some models sees it."""

    case: Case
    prepared: list[Prepared]
    warnings: tuple[str, ...]
    seconds: float


def _read(models: Sequence[Predictor], case: Case) -> _Ready | InputError:
    """Read and prepare a case; once for models that see it alike, as the folds of a cross-validation do."""
    started = time.perf_counter()
    seen: dict[tuple[object, ...], Prepared] = {}
    views = []
    warnings: dict[str, None] = {}
    try:
        for member in models:
            check_sequences(member.plan, case)
            plan = member.plan
            view = (plan.modalities, plan.axes, plan.spacing_mm, plan.normalization)
            if view not in seen:
                images = read_case(case, plan.modalities)
                warnings |= dict.fromkeys(_inspect(case, images, plan))
                seen[view] = prepare(images, plan)
            views.append(seen[view])
    except InputError as error:
        return error
    return _Ready(case, views, tuple(warnings), time.perf_counter() - started)


def _answer(
    models: Sequence[Predictor], plan: Plan, ready: _Ready, inference: Inference, convention: str, on_part: OnPart
) -> Prediction:
    started = time.perf_counter()
    total: Volume | None = None
    for number, (member, prepared) in enumerate(zip(models, ready.prepared, strict=True)):
        part = partial(report_part, on_part, number, len(models))
        logits, window = member.run(prepared.data, inference, part)
        answer = restore(prepared, to_probabilities(logits, member.plan.regions, member.plan.postprocessing))
        total = answer if total is None else Volume(total.data + answer.data, total.affine)
    assert total is not None
    probabilities = total if len(models) == 1 else Volume(total.data / len(models), total.affine)
    rules = plan.postprocessing.given(ready.case.images)
    masks = clean(probabilities.data, plan.regions, rules, probabilities.spacing_mm)
    labels = to_labels(masks, plan.regions, get_convention(convention))
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
        warnings=(*ready.warnings, *_unusual(masks, plan, probabilities.spacing_mm)),
    )


def _unusual(masks: NDArray[np.bool_], plan: Plan, spacing_mm: Spacing) -> list[str]:
    if plan.typical is None or "WT" not in plan.regions:
        return []
    pieces_ml = measure_pieces(masks[plan.regions.index("WT")], spacing_mm, plan.typical.piece_mm3)
    warning = describe_unusual(pieces_ml, plan.typical)
    return [warning] if warning else []


def _common_plan(models: Sequence[Predictor]) -> Plan:
    """The first one's plan, with every sequence that any of them takes."""
    if not models:
        raise InputError("no model was given.")
    first, *others = models
    for other in others:
        if other.plan.regions != first.plan.regions:
            raise InputError(
                f"{other.name}: answers in {', '.join(other.plan.regions)}, {first.name} in "
                f"{', '.join(first.plan.regions)}. Only models with the same regions can be averaged."
            )
    modalities = tuple(dict.fromkeys(m for member in models for m in member.plan.modalities))
    return first.plan.model_copy(update={"modalities": modalities})


def _inspect(case: Case, images: Volume, plan: Plan) -> tuple[str, ...]:
    files = {modality: source.path for modality, source in case.images.items()}
    found = inspect(images, plan.modalities, files, spacing_mm=plan.spacing_mm, axes=plan.axes)
    blind = "ET" in plan.regions and "t1c" in plan.modalities and "t1c" not in case.images
    return (*found, _NO_CONTRAST) if blind else found


def check_sequences(plan: Plan, case: Case) -> None:
    """Refuse a case that lacks a sequence which the model was not trained to miss.

    Raises:
        InputError: As said, or the case has none of the plan's sequences.
    """
    missing = [modality for modality in plan.modalities if modality not in case.images]
    if not missing or (plan.can_miss and len(missing) < len(plan.modalities)):
        return
    raise InputError(
        f"{case.id}: the model needs {', '.join(plan.modalities)}; missing: {', '.join(missing)} "
        f"(there: {', '.join(m for m in MODALITIES if m in case.images) or 'none'}). "
        "Give the missing files, or take a model that was trained to miss sequences (train --drop-modalities 0.3)."
    )
