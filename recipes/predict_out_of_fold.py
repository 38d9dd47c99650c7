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

from gliomask.cases import find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_model
from gliomask.tuning import predict_logits
from gliomask.tuning.out_of_fold import save_out_of_fold


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


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
