"""Save the logits of a model for cases that it was not trained on, for `recipes/fit_postprocessing.py`.

    python recipes/predict_out_of_fold.py BRATS_FOLDER -m run/best.safetensors --split run/splits_final.json -o oof
    python recipes/predict_out_of_fold.py BRATS_FOLDER -m cv/fold1/best.safetensors \
        --split cv/fold1/splits_final.json --fold 1 -o oof

The cases are those that the split holds out (`val` of the fold). Each case gets an `.npz` file; existing ones
are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from gliomask.cases import Case, find_cases, read_case, read_mask, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_model
from gliomask.inference.postprocessing.out_of_fold import OutOfFold, save_out_of_fold
from gliomask.inference.preprocessing import onto_plan, prepare
from gliomask.inference.windows import Inference, Predictor
from gliomask.labels import get_convention, to_regions


def main() -> None:
    """Predict the held-out cases and save their logits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True, help="The run's splits_final.json.")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-d", "--device", default="auto")
    arguments = parser.parse_args()
    held_out = set(json.loads(arguments.split.read_text("utf-8"))[arguments.fold]["val"])
    cases = [case for case in resolve_conventions(find_cases(arguments.folder)) if case.id in held_out]
    if len(cases) < len(held_out):
        raise InputError(f"{arguments.folder}: has {len(cases)} of the {len(held_out)} cases that the split holds out.")
    model = load_model(arguments.model, device=arguments.device)
    for case in cases:
        path = arguments.output / f"{case.id}.npz"
        if not path.exists():
            save_out_of_fold(path, predict_logits(model, case))
            print(path, file=sys.stderr)


def predict_logits(model: Predictor, case: Case) -> OutOfFold:
    """Return the logits of a case on the grid of the network's input, with the true mask on the same grid."""
    plan = model.plan
    prepared = prepare(read_case(case, plan.modalities), plan)
    logits, _ = model.run(prepared.data, Inference())
    x, y, z = prepared.framed.box
    mask = onto_plan(read_mask(case), plan, nearest=True).data[0, x, y, z]
    truth = to_regions(mask, get_convention(case.convention or plan.convention), plan.regions)
    return OutOfFold(case.id, np.asarray(logits).astype(np.float16), truth, prepared.framed.grid.spacing_mm)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
