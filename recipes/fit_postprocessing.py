"""Fit the temperatures and post-processing rules of a model to stored logits, as `gliomask tune` does.

    python recipes/fit_postprocessing.py OUT_OF_FOLD -o rules.json
    python recipes/fit_postprocessing.py OUT_OF_FOLD -o rules.json --model best.safetensors --write fitted.safetensors
    python recipes/fit_postprocessing.py --rules rules.json --model best.safetensors --write fitted.safetensors

`gliomask tune MODEL CASES -o FILE` predicts the cases and fits in one go. This script is for logits that are there
already, of the folds of a cross-validation for example.

OUT_OF_FOLD contains an `.npz` file for each case, on the bounding box of its brain, as `recipes/predict_out_of_fold.py`
writes it: `logits` (R, x, y, z), float16, the output of the network; `truth` (R, x, y, z), 0 or 1; `spacing_mm` (3,).
Each case must have been predicted by a model that was not trained on its patient; rules that are fitted on training
cases are useless. Patients are told from the names of the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gliomask.cases import find_patient
from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.model.file import read_plan
from gliomask.model.plan import Postprocessing
from gliomask.tuning import fit_tuning, write_tuned


def main() -> None:
    """Fit rules or read them, print and save them, and write them into a model file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the rules and their test.")
    parser.add_argument("--rules", type=Path, help="Rules from an earlier run, to be written into a model.")
    parser.add_argument(
        "--regions", default="WT,TC,ET", help="The regions of the channels; with --model, the regions of the model."
    )
    parser.add_argument("--model", type=Path, help="The model file that the rules are for.")
    parser.add_argument(
        "--write", type=Path, help="The model file to write, with the same weights and the fitted rules."
    )
    parser.add_argument("--jobs", type=int, default=1, help="The number of processes that score cases in parallel.")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (arguments.rules is None) or (arguments.write and not arguments.model):
        parser.error("name a folder or --rules, and with --write also --model")
    plan = read_plan(arguments.model) if arguments.model else None
    if arguments.rules:
        rules = Postprocessing.model_validate(json.loads(arguments.rules.read_text("utf-8"))["postprocessing"])
    else:
        paths = sorted(arguments.folder.glob("*.npz"))
        found = fit_tuning(
            paths,
            [find_patient(path.stem).patient for path in paths],
            plan.regions if plan else tuple(arguments.regions.split(",")),
            plan.postprocessing if plan else Postprocessing(),
            jobs=arguments.jobs,
            on_step=lambda done, total: print(f"{done} of {total} settings", file=sys.stderr, flush=True),
        )
        rules = found.rules
        text = json.dumps({"postprocessing": rules.model_dump(mode="json"), "report": found.report()}, indent=2) + "\n"
        print(text, end="")
        if arguments.output:
            write_text(arguments.output, text)
    if arguments.write:
        assert plan is not None
        write_tuned(arguments.model, plan, rules, arguments.write)
        print(f"wrote {arguments.write}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
