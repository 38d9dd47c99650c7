"""Write a trained model into the package, with 8-bit kernels, rules of post-processing and a training record.

    python recipes/ship.py OUT --rules rules.json --results results.json

OUT is the folder written by `recipes/default_model.py`, rules.json is written by `recipes/fit_postprocessing.py`, and
results.json by `recipes/score_model.py` with OUT/held_out.safetensors on the held-out cases. The training record
contains no case ids.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from gliomask.cases import MODALITIES
from gliomask.inference.loading import load_torch_model, save_model
from gliomask.model.file import read_training
from gliomask.model.plan import DiceEstimate, Postprocessing, TypicalTumour
from gliomask.training.run import load_run

SHIPPED = Path(__file__).parents[1] / "src" / "gliomask" / "weights" / "default.safetensors"
CITE = (
    "Menze 2015 (doi:10.1109/TMI.2014.2377694), Bakas 2017 (doi:10.1038/sdata.2017.117), "
    "Bakas 2018 (arXiv:1811.02629), Baid 2021 (arXiv:2107.02314)"
)
CITE_UPENN = "Bakas 2022 (doi:10.1038/s41597-022-01560-7)"
# How the ids of each data set begin, in lower case.
SOURCES = {
    "bratsx_flair_": "BraTS 2018 to 2020 (FLAIR and whole tumour only)",
    "brats18_": "BraTS 2018",
    "brats19_": "BraTS 2019",
    "brats2021_": "BraTS 2021",
    "upenn-gbm-": "UPENN-GBM",
}


def main() -> None:
    """Write the model file and print its training record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--results", type=Path, help="With post-processing, as predict does.")
    parser.add_argument("--before", type=Path, help="The model file that the first stage of each network started from.")
    parser.add_argument("--note", help="A sentence about the training that the runs do not record.")
    parser.add_argument("--typical", type=Path, help="The limits written by recipes/fit_plausibility.py.")
    parser.add_argument("--quality", type=Path, help="The estimates written by recipes/fit_quality.py.")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    model = load_torch_model(options.folder / "joined.safetensors")
    if options.rules:
        rules = Postprocessing.model_validate(json.loads(options.rules.read_text())["postprocessing"])
        model = replace(model, plan=model.plan.model_copy(update={"postprocessing": rules}))
    if options.typical:
        typical = TypicalTumour.model_validate(json.loads(options.typical.read_text()))
        model = replace(model, plan=model.plan.model_copy(update={"typical": typical}))
    if options.quality:
        fields = json.loads(options.quality.read_text())
        estimates = {region: DiceEstimate.model_validate(found) for region, found in fields.items()}
        model = replace(model, plan=model.plan.model_copy(update={"dice_estimates": estimates}))
    training, learned = record(options.folder, read_training(options.before) if options.before else {})
    if options.note:
        training["note"] = options.note
    if options.results:
        training["held out"] = held_out(options.results, "+".join(model.plan.modalities), learned)
    options.output.parent.mkdir(exist_ok=True)
    save_model(model, options.output, training=training, bits=8)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
    print(json.dumps(training, indent=2))


def record(output: Path, before: Mapping[str, object]) -> tuple[dict[str, object], set[str]]:
    """Return the training record, and the ids of the cases that were used for training in any stage.

    `before` is the record of the model that the first stages started from, which must have been trained on some of the
    same cases; empty if they started from initial weights.
    """
    told: dict[str, object] = {}
    learned: set[str] = set()
    for network in sorted(path for path in output.iterdir() if path.is_dir()):
        stages = []
        for folder in sorted(network.iterdir(), key=lambda path: (path / "config.json").stat().st_mtime):
            run = load_run(folder)
            config, last, split = run.config, run.rows()[-1], run.split()
            learned |= set(split["train"])
            size = "whole brains" if config.whole_brain else f"patches of {config.patch_size}"
            options = [f"each sequence left out with {config.drop_modalities:g}"]
            if config.lone_modality:
                options.append(f"all but one with {config.lone_modality:g}")
            if config.partial_share and any(name.lower().startswith("bratsx_flair_") for name in split["train"]):
                options.append(f"{config.partial_share:g} of the patches from cases with some regions only")
            if config.repeat_faint > 1:
                options.append(f"cases that hardly enhance {config.repeat_faint} times an epoch")
            stages.append(
                f"{folder.name}: {size}, {last['step']} steps, {len(split['train'])} cases, rate {config.lr:g}, "
                + ", ".join(options)
            )
        name = f"network {network.name}"
        told[name] = "; ".join([*([str(before[name])] if name in before else []), *stages])
    sources = Counter(source_of(name) for name in learned)
    facts = {
        "data": f"{len(learned)} cases: "
        + ", ".join(f"{count} of {source}" for source, count in sorted(sources.items())),
        **told,
        "recipe": "recipes/default_model.py",
        "license": "Apache-2.0",
        "cite": ", ".join([CITE, CITE_UPENN] if SOURCES["upenn-gbm-"] in sources else [CITE]),
        "use": "research only, not a medical device; adult glioma before surgery, skull-stripped",
    }
    return facts, learned


def source_of(case_id: str) -> str:
    """Return the data set that a case is from, in words; what stands before the first `_` where it is not known."""
    known = (source for start, source in SOURCES.items() if case_id.lower().startswith(start))
    return next(known, case_id.split("_")[0])


def held_out(results: Path, subset: str, learned: set[str]) -> str:
    """Return a sentence with the mean Dice of the held-out cases, with all sequences and in one pass."""
    rows = [row for row in json.loads(results.read_text())["rows"] if row["subset"] == subset]
    rows = [row for row in rows if row["window"] == "whole"]
    means = {region: np.mean([row["dice"][region] for row in rows]) for region in rows[0]["dice"]}
    text = ", ".join(f"{region} {mean:.3f}" for region, mean in means.items())
    seen = "before the last stage" if learned & {row["case"] for row in rows} else "that it has not learned from"
    return f"mean Dice {text} on {len(rows)} cases {seen}, with all of {', '.join(MODALITIES)}"


if __name__ == "__main__":
    main()
