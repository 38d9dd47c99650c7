"""A model and an examination -> where the tumour is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliomask.cases import MODALITIES, Case, read_case
from gliomask.engine import Inference, OnPart, Window, run_network
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.inspection import inspect
from gliomask.labels import REGIONS, count_labels, get_convention, to_labels
from gliomask.model import Model
from gliomask.plan import Plan
from gliomask.postprocessing import clean, to_probabilities
from gliomask.prepare import prepare, restore
from gliomask.version import VERSION
from gliomask.volume import Volume, write_volume


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
            "versions": {"gliomask": VERSION, "torch": torch.__version__, "numpy": np.__version__},
            "seconds": round(self.seconds, 2),
            "note": "Research use only, not a medical device.",
        }


_DEFAULT = Inference()


def predict(
    model: Model | Sequence[Model],
    case: Case,
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: OnPart = lambda _: None,
) -> Prediction:
    """Return where the tumour is in a case.

    Args:
        model: On the device to compute on (`load_model`). Of several (the folds of a cross-validation, say) the
            probabilities are averaged, each calibrated by its own plan; they must have the same regions, and the first
            one's plan names the rest.
        case: With the sequences that the model's plan names; one may lack only if the plan says `can_miss`.
        inference: How to run the network.
        convention: The numbers to answer in; by default the plan's.
        on_part: Called with the share of the network's work that is done, for a progress bar.

    Raises:
        InputError: A needed sequence is missing, a file is bad (see `read_case`), the convention is unknown, the
            models have other regions from one another, or there is none.
    """
    started = time.perf_counter()
    models = [model] if isinstance(model, Model) else list(model)
    plan = _common_plan(models)
    numbers = get_convention(convention or plan.convention)
    for member in models:
        check_sequences(member.plan, case)
    total: Volume | None = None
    warnings: dict[str, None] = {}
    for number, member in enumerate(models):
        images = read_case(case, member.plan.modalities)
        warnings |= dict.fromkeys(_inspect(case, images, member.plan))
        answer, window = _probabilities(member, images, inference, partial(_part, on_part, number, len(models)))
        total = answer if total is None else Volume(total.data + answer.data, total.affine)
    assert total is not None
    probabilities = Volume(total.data / len(models), total.affine)
    masks = clean(probabilities.data, plan.regions, plan.postprocessing, probabilities.spacing_mm)
    labels = to_labels(masks, plan.regions, numbers)
    return Prediction(
        case=case,
        labels=Volume(labels[None], probabilities.affine),
        probabilities=probabilities,
        plan=plan,
        convention=numbers.name,
        model=", ".join(member.name for member in models),
        window=window,
        seconds=time.perf_counter() - started,
        warnings=tuple(warnings),
    )


def _common_plan(models: Sequence[Model]) -> Plan:
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
    return inspect(images, plan.modalities, files, spacing_mm=plan.spacing_mm, axes=plan.axes)


def _probabilities(model: Model, images: Volume, inference: Inference, on_part: OnPart) -> tuple[Volume, Window]:
    prepared = prepare(images, model.plan)
    logits, window = run_network(model, prepared.data, inference, on_part=on_part)
    return restore(prepared, to_probabilities(logits.numpy(), model.plan.regions, model.plan.postprocessing)), window


def _part(on_part: OnPart, number: int, count: int, share: float) -> None:
    on_part((number + share) / count)


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
