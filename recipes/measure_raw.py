"""Score `predict --raw` on real cases that were made raw again, beside the same cases predicted as they are.

    python recipes/measure_raw.py CASES -o raw.json

A phantom's skull and scalp are put around each stripped brain; each sequence is moved by up to 10 degrees and 10 mm and
sampled on a grid of its own, with shading and noise: once all at 1 mm, once all in slices of 5 mm. The masks are scored
in the space of each reference against the true mask moved in the same way.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.native import to_native
from gliomask.acquisition.preprocess import PreprocessSettings, preprocess, write_preprocessed
from gliomask.cases import Case, find_cases, read_case, read_mask
from gliomask.inference.loading import load_model
from gliomask.inference.prediction import predict
from gliomask.inference.windows import Predictor
from gliomask.labels import convert_labels, get_convention, to_regions
from gliomask.metrics import dice
from gliomask.phantom.examination import Phantom
from gliomask.phantom.raw import Scanner, acquire

REGIONS = ("WT", "TC", "ET")
# Numbered as in `Phantom.tissues`.
TISSUES = get_convention("brats2023")
WAYS = {
    "raw, 1 mm": Scanner(degrees=10, shift_mm=10, thickness_mm=(1, 1), edge_mm=1.0),
    "raw, slices of 5 mm": Scanner(degrees=10, shift_mm=10, thickness_mm=(5, 5), edge_mm=1.0, three_d=()),
}


def main() -> None:
    """Score every case in every way and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="default: the built-in model")
    options = parser.parse_args()
    model = load_model(options.model)
    rows: list[dict[str, object]] = []
    for number, case in enumerate(find_cases(options.cases), 1):
        phantom = as_phantom(case)
        rows.append({"images": "as they are", "case": case.id, "dice": score_prepared(model, case, phantom.tissues)})
        for name, scanner in WAYS.items():
            rows.append({"images": name, "case": case.id, **score_raw(model, phantom, number, scanner)})
        print(json.dumps(rows[-1 - len(WAYS) :]), flush=True)
        options.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    for name in ("as they are", *WAYS):
        found = [row["dice"] for row in rows if row["images"] == name]
        means = {region: np.mean([scores[region] for scores in found]) for region in REGIONS}  # type: ignore[index]
        print(f"{name:<24} " + " ".join(f"{region} {mean:.3f}" for region, mean in means.items()), flush=True)


def as_phantom(case: Case) -> Phantom:
    """Return a real, stripped case in the form of a phantom."""
    names = tuple(case.images)
    volume = read_case(case, names)
    assert case.convention is not None
    tissues = convert_labels(read_mask(case, volume.grid).data[0], get_convention(case.convention), TISSUES, case.id)
    brain = (volume.data != 0).any(axis=0)
    images = {name: image.astype(np.int16) for name, image in zip(names, volume.data, strict=True)}
    return Phantom(images, tissues, brain.astype(np.uint8), volume.affine)


def score_prepared(model: Predictor, case: Case, tissues: NDArray[np.uint8]) -> dict[str, float]:
    """Return the Dice of a case that is predicted as it is."""
    return scores(tissues, predict(model, case, convention="brats2023").labels.data[0])


def score_raw(model: Predictor, phantom: Phantom, seed: int, scanner: Scanner) -> dict[str, object]:
    """Return the Dice in the reference's own space, and the measures of the preparation."""
    heads = acquire(phantom, seed, scanner)
    found = preprocess({name: raw.image for name, raw in heads.items()}, PreprocessSettings())
    with TemporaryDirectory() as folder:
        prediction = predict(model, write_preprocessed(found, "case", Path(folder)), convention="brats2023")
    native = to_native(prediction, found.alignment)
    return {
        "dice": scores(heads[native.modality].tissues, native.labels.data[0]),
        "quality": {name: round(value, 4) for name, value in found.alignment.quality.items()},
        "warnings": [*found.warnings, *prediction.warnings],
    }


def scores(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> dict[str, float]:
    """Return the Dice of each region of two label maps."""
    pairs = zip(to_regions(truth, TISSUES, REGIONS), to_regions(prediction, TISSUES, REGIONS), strict=True)
    return {region: round(dice(*pair), 4) for region, pair in zip(REGIONS, pairs, strict=True)}


if __name__ == "__main__":
    main()
