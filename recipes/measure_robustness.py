"""Score a model on held-out cases whose images are degraded in known ways, beside the images as they are.

    python recipes/measure_robustness.py MODEL CACHE --split RUN/splits_final.json -o robustness.json

The images are degraded after they are normalized, in the bounding box of the brain. Only cases with all sequences of
the model and masks of all its regions are used. The rules of post-processing in the model's plan are applied.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from score_model import find_regions, present, read_image, read_truth
from torch import Tensor

from gliomask.inference.loading import load_model
from gliomask.inference.windows import Inference, Predictor
from gliomask.metrics import dice
from gliomask.training.augment.brain import find_brain
from gliomask.training.augment.faults import BiasField, Shift, apply_bias_field, apply_shift
from gliomask.training.augment.intensity import Noise, apply_noise
from gliomask.training.augment.resolution import Blur, LowResolution, apply_blur, apply_low_resolution
from gliomask.training.cache import CachedCase, open_cache

Change = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Score the cases with each kind of degraded images and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    model = load_model(options.model)
    plan = model.plan
    cases = [case for case in open_cache(options.cache, plan) if set(plan.modalities) <= set(present(case))]
    if options.split:
        held_out = json.loads(options.split.read_text())[0]["val"]
        cases = [case for case in cases if case.id in held_out]
    rows = []
    for name, change in degradations(plan.modalities).items():
        found = [{"images": name, "case": case.id, "dice": score(model, case, change)} for case in cases]
        means = {region: np.mean([row["dice"][region] for row in found]) for region in plan.regions}
        print(f"{name:<40} " + " ".join(f"{region} {mean:.3f}" for region, mean in means.items()), flush=True)
        rows += found
        options.output.write_text(json.dumps({"model": str(options.model), "rows": rows}, indent=1) + "\n")


def degradations(modalities: tuple[str, ...]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the degradations by name; each takes and returns an image `(C, x, y, z)`."""

    def every(change: Change) -> Callable[[Tensor], Tensor]:
        def apply(image: Tensor) -> Tensor:
            brain = find_brain(image)
            return torch.stack([change(channel, brain) for channel in image])

        return apply

    def shifted(image: Tensor, modality: str) -> Tensor:
        result = image.clone()
        channel = modalities.index(modality)
        shift = Shift(channel, (2, 0, 0))
        result[channel] = apply_shift(image[channel], find_brain(image), shift)
        return result

    found: dict[str, Callable[[Tensor], Tensor]] = {
        "as they are": lambda image: image,
        "slices of 5 mm, all sequences": every(partial(apply_low_resolution, low=LowResolution((1.0, 1.0, 5.0)))),
        "blur of one voxel, all sequences": every(partial(apply_blur, blur=Blur(1.0))),
        "noise of a tenth, all sequences": every(partial(apply_noise, noise=Noise(0.1, seed=0))),
        "bias field of 30 %, all sequences": every(partial(apply_bias_field, bias=BiasField(0.3, seed=0))),
    }
    return found | {f"{name} shifted by 2 mm": partial(shifted, modality=name) for name in modalities}


def score(model: Predictor, case: CachedCase, change: Callable[[Tensor], Tensor]) -> Mapping[str, float]:
    """Return the Dice of each region in one case."""
    image = torch.from_numpy(read_image(case, model, model.plan.modalities))
    data = np.ascontiguousarray(change(image).numpy())
    found = find_regions(model, case, data, model.plan.modalities, Inference(window="whole"))
    return {region: dice(mask, found[region]) for region, mask in read_truth(case, model).items()}


if __name__ == "__main__":
    main()
