"""Models made by other programs, written as a model file of ours that is checked against the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import replacing
from gliomask.foreign import Hints, find_model, is_foreign, read_foreign
from gliomask.inference.averaging import decide
from gliomask.inference.loading import Model, load_model, model_of, save_model
from gliomask.inference.preprocessing import prepare
from gliomask.inference.windows import Inference, OnPart, Predictor
from gliomask.model.file import Bits
from gliomask.phantom import make_phantom
from gliomask.volume import Volume

# A file whose probabilities differ by more than this on average is not the same network.
_LARGEST_MEAN_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Agreement:
    """How well a written file agrees with the original, on one window of a phantom in float32."""

    labels: float
    """The share of the voxels of tumour in either answer that are in the same regions in both; 1 without any."""
    largest: float
    """The largest difference of a probability."""
    mean: float
    """The mean difference of the probabilities."""
    engine: str
    """The library that ran the file, and its version; the original is run by PyTorch."""


def import_model(
    path: Path, target: Path, *, hints: Hints, bits: Bits = 16, on_part: OnPart = lambda _: None
) -> tuple[Model, Agreement]:
    """Write a model that another program made as a safetensors file with its plan inside, whole or not at all.

    Args:
        path: A model of nnU-Net v2 or MONAI; see `foreign`.
        target: The file to write, ending in `.safetensors`.
        hints: What the model's own files do not say.
        bits: How kernels are stored; see `save_model`.
        on_part: Called with the completed fraction of the check.

    Returns:
        The original, and how well the file agrees with it.

    Raises:
        InputError: The path is no model of another program, or its reader refuses it; the file cannot be written or
            does not agree with the original.
    """
    find_model(path)
    if not is_foreign(path):
        raise InputError(
            f"{path}: no model of nnU-Net v2 (a folder with plans.json, one of its folds, or a zip) or MONAI (a folder "
            "or zip with configs/metadata.json and configs/inference.json, or weights that end in .pt). Files of "
            "gliomask need no import."
        )
    found = read_foreign(path, hints)
    original = model_of(found.plan, found.read_weights(), path)
    with replacing(target) as partial:
        save_model(original, partial, training=found.facts, bits=bits)
        agreement = compare(original, load_model(partial, device="cpu"), on_part)
        if not agreement.mean <= _LARGEST_MEAN_DIFFERENCE:
            raise InputError(
                f"{path}: stored in {bits} bits the network answers differently (probabilities differ by "
                f"{agreement.mean:.3f} on average). Import it with more --bits."
            )
    return original, agreement


def compare(original: Predictor, written: Predictor, on_part: OnPart = lambda _: None) -> Agreement:
    """Return how well two models with the same plan agree, on one window of a phantom in float32."""
    plan = original.plan
    # Of the size that the network sees, because a whole head takes half a minute.
    phantom = make_phantom(0, size=max(48, max(plan.patch_size) * 5 // 4))
    voxel_mm = float(np.linalg.norm(phantom.affine[:3, 0]))
    affine = phantom.affine @ np.diag([*[min(plan.spacing_mm) / voxel_mm] * 3, 1.0])
    volume = Volume(np.stack([phantom.images[name] for name in plan.modalities]), affine)
    data = _middle(prepare(volume, plan).data, plan.patch_size)
    inference = Inference("sliding", precision="fp32")
    answers = []
    for number, model in enumerate((original, written)):
        logits, _ = model.run(data, inference)
        answers.append(decide(logits, plan))
        on_part((number + 1) / 2)
    (one, first), (other, second) = answers
    differences = np.abs(one - other)
    found = first.any(axis=0) | second.any(axis=0)
    same = (first == second).all(axis=0)
    return Agreement(
        float(same[found].mean()) if found.any() else 1.0,
        float(differences.max()),
        float(differences.mean()),
        written.engine,
    )


def _middle(data: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the middle of the images, no larger than a size."""
    starts = [max(0, (edge - most) // 2) for edge, most in zip(data.shape[1:], size, strict=True)]
    x, y, z = (slice(start, start + most) for start, most in zip(starts, size, strict=True))
    return np.ascontiguousarray(data[:, x, y, z])
