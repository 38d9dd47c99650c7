"""The answer for a raw study: the mask in the patient's own space, and the facts about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.acquisition.alignment import load_alignment
from gliomask.acquisition.native import NativeAnswer, to_native
from gliomask.acquisition.prepare_study import PreparedStudy
from gliomask.acquisition.study import Study
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.inference.prediction import Prediction
from gliomask.volume import NIFTI_ENDINGS, Volume, write_volume

PREPARED = "prepared"
"""The space of the prepared images, as an alternative to a sequence's own."""


def write_answer(
    study: Study, prepared: PreparedStudy, prediction: Prediction, path: Path, *, space: str, probabilities: bool
) -> dict[str, float]:
    """Write the mask of a raw study, its facts as JSON beside it, and return the volumes of its regions in mL.

    Also written: the mask on the prepared grid, into the folder of the prepared images, for reports and the viewer.
    The mask in the wanted space is written last: where it is, the rest is too.

    Args:
        study: The images as they came.
        prepared: What was made of them.
        prediction: The answer on the prepared grid.
        path: `ID.nii.gz`; the facts go to `ID.json`.
        space: A sequence whose own grid the mask is wanted on, "reference" or "prepared".
        probabilities: Also write `ID_probabilities.nii.gz`, a channel for each region.

    Raises:
        InputError: The space is none of the study's, or the place cannot be written to.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    answer = _answer(study, prepared, prediction, space)
    source = study.chosen[answer.modality].files[0] if answer.modality in study.chosen else None
    like = source if source and source.name.lower().endswith(NIFTI_ENDINGS) else None
    write_volume(prepared.folder / f"{stem}_prediction.nii.gz", prediction.labels)
    if probabilities:
        rounded = Volume(answer.probabilities.data.round(4), answer.probabilities.affine)
        write_volume(path.with_name(f"{stem}_probabilities.nii.gz"), rounded, like=like)
    facts = _facts(prediction, prepared, answer)
    write_text(path.with_name(f"{stem}.json"), json.dumps(facts, indent=2) + "\n")
    write_volume(path, answer.labels, like=like)
    return answer.volumes_ml


def _answer(study: Study, prepared: PreparedStudy, prediction: Prediction, space: str) -> NativeAnswer:
    if space == PREPARED:
        volumes = prediction.volumes_ml()
        return NativeAnswer(
            PREPARED,
            prediction.labels,
            prediction.probabilities,
            {region: volumes[region] for region in prediction.plan.regions},
        )
    alignment = load_alignment(prepared.folder / "transforms")
    modality = alignment.reference if space == "reference" else space
    if modality not in alignment.native:
        raise InputError(
            f"{study.id}: has no {modality}, in whose space the mask is wanted; it has {', '.join(alignment.native)}. "
            "Choose another with --space."
        )
    return to_native(prediction, alignment, modality)


def _facts(prediction: Prediction, prepared: PreparedStudy, answer: NativeAnswer) -> Mapping[str, Any]:
    spacing = np.linalg.norm(answer.labels.affine[:3, :3], axis=0)
    return {
        **prediction.facts(),
        "space": answer.modality,
        "spacing_mm": [round(float(edge), 4) for edge in spacing],
        "volumes_ml": answer.volumes_ml,
        "volumes_ml_prepared": prediction.volumes_ml(),
        "quality": {name: round(value, 4) for name, value in prepared.quality.items()},
        "warnings": [*prepared.warnings, *prediction.warnings],
        "seconds_prepare": dict(prepared.seconds),
    }
