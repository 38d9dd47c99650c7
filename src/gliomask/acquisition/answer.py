"""The answer for a raw study: the mask in the patient's own space, and the facts about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.acquisition.alignment import load_alignment
from gliomask.acquisition.native import NativeAnswer, to_native
from gliomask.acquisition.places import PREPARED
from gliomask.acquisition.prepare_study import PreparedStudy, describe_request
from gliomask.acquisition.preprocess import PreprocessSettings
from gliomask.acquisition.study import Study
from gliomask.errors import InputError
from gliomask.files import write_bytes, write_text
from gliomask.inference.record import beside, digest_of, is_readable, read_facts
from gliomask.inference.result import Prediction, volumes_of
from gliomask.volume import NIFTI_ENDINGS, Volume, gzip_nifti, nifti_bytes, write_volume


def answer_request(
    study: Study, settings: PreprocessSettings, prediction_settings: Mapping[str, Any], space: str
) -> dict[str, Any]:
    """Return what determines the mask of a raw study, ready for JSON.

    Args:
        study: The images.
        settings: How they are prepared.
        prediction_settings: See `inference.record.describe_settings`.
        space: Where the mask is wanted.
    """
    return {"space": space, "preparation": describe_request(study, settings), **prediction_settings}


def find_answer(
    path: Path, request: Mapping[str, Any], *, probabilities: bool, any_model: bool = False
) -> tuple[bool, str]:
    """Return whether the mask at a path is kept, and the reason where it is replaced or was changed by hand.

    It is kept if its JSON says that it was made for the same request, with `any_model` by whatever model, and all that
    is wanted is whole.

    Raises:
        InputError: The mask was changed by hand, and made for other images than those of the request: it must neither
            be taken for their answer nor be lost.
    """
    if not path.exists():
        return False, ""
    facts = read_facts(beside(path, ".json"))
    if facts is None:
        return False, "there is no readable JSON beside the mask"
    if not is_readable(path, mask=True):
        return False, "the mask is damaged"
    before = facts.get("request")
    before = before if isinstance(before, dict) else {}
    if facts.get("mask") != digest_of(path.read_bytes()):
        made_for, images = _images_of(before), _images_of(request)
        if made_for is not None and images is not None and made_for != images:
            raise InputError(
                f"{path.name} was changed by hand and made for other images than those of this study now; it is "
                "neither used nor replaced. Move it away with its JSON (--overwrite replaces it)."
            )
        return True, "the mask was changed after it was written; it is kept (--overwrite replaces it)"
    compared = {name: value for name, value in request.items() if not (any_model and name == "models")}
    if others := sorted(name for name, value in compared.items() if before.get(name) != value):
        return False, f"it was made with other settings: {', '.join(others)}"
    if probabilities and not is_readable(beside(path, "_probabilities.nii.gz")):
        return False, "its probabilities are missing or damaged"
    return True, ""


def _images_of(request: Mapping[str, Any]) -> Any:
    """The fingerprints of the images in a request; None where there are none."""
    preparation = request.get("preparation")
    return preparation.get("images") if isinstance(preparation, Mapping) else None


def write_answer(
    study: Study,
    prepared: PreparedStudy,
    prediction: Prediction,
    path: Path,
    *,
    request: Mapping[str, Any],
    probabilities: bool,
) -> dict[str, float]:
    """Write the mask of a raw study, its facts as JSON beside it, and return the volumes of its regions in mL.

    Also written: the mask on the prepared grid, into the folder of the prepared images, for reports and the viewer.
    The mask in the wanted space is written last: where it is, the rest is too.

    Args:
        study: The images as they came.
        prepared: What was made of them.
        prediction: The answer on the prepared grid.
        path: `ID.nii.gz`; the facts go to `ID.json`.
        request: What the mask was asked for; see `answer_request`. Its `space` is a sequence whose own grid the mask is
            wanted on, "reference" or "prepared".
        probabilities: Also write `ID_probabilities.nii.gz`, a channel for each region.

    Raises:
        InputError: The space is none of the study's, or the place cannot be written to.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    answer = _answer(study, prepared, prediction, str(request["space"]), probabilities=probabilities)
    source = study.chosen[answer.modality].files[0] if answer.modality in study.chosen else None
    like = source if source and source.name.lower().endswith(NIFTI_ENDINGS) else None
    write_volume(prepared.folder / f"{stem}_prediction.nii.gz", prediction.labels)
    if answer.probabilities is not None and probabilities:
        rounded = Volume(answer.probabilities.data.round(4), answer.probabilities.affine)
        write_volume(path.with_name(f"{stem}_probabilities.nii.gz"), rounded, like=like)
    content = gzip_nifti(nifti_bytes(answer.labels, like=like))
    # An earlier mask must not stand beside the facts of this one, should the process end between the two: it would be
    # taken for one that was changed by hand.
    path.unlink(missing_ok=True)
    facts = {**_facts(prediction, prepared, answer), "request": dict(request), "mask": digest_of(content)}
    write_text(path.with_name(f"{stem}.json"), json.dumps(facts, indent=2) + "\n")
    write_bytes(path, content)
    return answer.volumes_ml


def _answer(
    study: Study, prepared: PreparedStudy, prediction: Prediction, space: str, *, probabilities: bool
) -> NativeAnswer:
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
    return to_native(prediction, alignment, modality, probabilities=probabilities)


def _facts(prediction: Prediction, prepared: PreparedStudy, answer: NativeAnswer) -> Mapping[str, Any]:
    spacing = np.linalg.norm(answer.labels.affine[:3, :3], axis=0)
    return {
        **prediction.facts(),
        "space": answer.modality,
        "spacing_mm": [round(float(edge), 4) for edge in spacing],
        "volumes_ml": volumes_of(answer.labels, prediction.convention),
        "volumes_ml_prepared": prediction.volumes_ml(),
        "quality": {name: round(value, 4) for name, value in prepared.quality.items()},
        "warnings": list(dict.fromkeys((*prepared.warnings, *prediction.warnings))),
        "seconds_prepare": dict(prepared.seconds),
    }
