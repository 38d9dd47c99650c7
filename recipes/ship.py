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
from dataclasses import replace
from pathlib import Path

import numpy as np

from gliomask.cases import MODALITIES
from gliomask.inference.loading import load_torch_model, save_model
from gliomask.model.plan import Postprocessing, TypicalTumour
from gliomask.training.run import load_run

SHIPPED = Path(__file__).parents[1] / "src" / "gliomask" / "weights" / "default.safetensors"
CITE = (
    "Menze 2015 (doi:10.1109/TMI.2014.2377694), Bakas 2017 (doi:10.1038/sdata.2017.117), "
    "Bakas 2018 (arXiv:1811.02629), Baid 2021 (arXiv:2107.02314)"
)


def main() -> None:
    """Write the model file and print its training record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--results", type=Path, help="With post-processing, as predict does.")
    parser.add_argument("--typical", type=Path, help="The limits written by recipes/fit_plausibility.py.")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    model = load_torch_model(options.folder / "joined.safetensors")
    if options.rules:
        rules = Postprocessing.model_validate(json.loads(options.rules.read_text())["postprocessing"])
        model = replace(model, plan=model.plan.model_copy(update={"postprocessing": rules}))
    if options.typical:
        typical = TypicalTumour.model_validate(json.loads(options.typical.read_text()))
        model = replace(model, plan=model.plan.model_copy(update={"typical": typical}))
    training, learned = record(options.folder)
    if options.results:
        training["held out"] = held_out(options.results, "+".join(model.plan.modalities), learned)
    options.output.parent.mkdir(exist_ok=True)
    save_model(model, options.output, training=training, bits=8)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
    print(json.dumps(training, indent=2))


def record(output: Path) -> tuple[dict[str, object], set[str]]:
    """Return the training record, and the ids of the cases that were used for training in any stage."""
    told: dict[str, object] = {}
    learned: set[str] = set()
    for network in sorted(path for path in output.iterdir() if path.is_dir()):
        stages = []
        for folder in sorted(network.iterdir(), key=lambda path: (path / "config.json").stat().st_mtime):
            run = load_run(folder)
            config, last, split = run.config, run.rows()[-1], run.split()
            learned |= set(split["train"])
            size = "whole brains" if config.whole_brain else f"patches of {config.patch_size}"
            often = (
                f", cases that hardly enhance {config.repeat_faint} times an epoch" if config.repeat_faint > 1 else ""
            )
            stages.append(
                f"{folder.name}: {size}, {last['step']} steps, {len(split['train'])} cases, rate {config.lr:g}, each "
                f"sequence left out with {config.drop_modalities:g}{often}"
            )
        told[f"network {network.name}"] = "; ".join(stages)
    sources = Counter(name.split("_")[0].lower() for name in learned)
    names = {"brats19": "BraTS 2019", "brats2021": "BraTS 2021", "brats18": "BraTS 2018"}
    facts = {
        "data": f"{len(learned)} cases: "
        + ", ".join(f"{count} of {names.get(source, source)}" for source, count in sorted(sources.items())),
        **told,
        "recipe": "recipes/default_model.py",
        "license": "Apache-2.0",
        "cite": CITE,
        "use": "research only, not a medical device; adult glioma before surgery, skull-stripped",
    }
    return facts, learned


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
