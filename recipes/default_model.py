"""Train the model that gliomask ships, or one like it on your own BraTS copy.

    python recipes/default_model.py DATA -o OUT

DATA is a folder of cases with all four sequences and masks, in any layout, or a cache of them made by `gliomask
prepare`. Two networks are trained and joined into one model. OUT contains a folder for each network, with a run for
each stage. An interrupted call continues where it stopped when it is repeated.

Every stage except the last of each network holds out the same patients. OUT/held_out.safetensors joins the networks as
they were before the last stage, so it can be scored on these patients. OUT/joined.safetensors is the final model,
trained on all patients. `--stop-before everyone` leaves the last stage out.

`--start MODEL` begins with the weights of a joined model instead of initial ones, for further training on more cases.
Hold out cases that it was not trained on; recipes/README.md, "Training further", names a model and a split.

Both networks can be trained at the same time, on a GPU or with a processor core each (`--threads 1`): call the script
with `--network fast` and, in parallel, with `--network fast_sides`, and then without this option to join them.
"""

from __future__ import annotations

import argparse
from itertools import takewhile
from pathlib import Path
from typing import Any

from gliomask.cases import find_cases, resolve_conventions
from gliomask.cli.bar import train_with_bar
from gliomask.inference.ensembling import join_models, split_model
from gliomask.inference.loading import save_model
from gliomask.training.cache import is_cache
from gliomask.training.config import make_config
from gliomask.training.run import Run

COMMON: dict[str, Any] = {
    "modalities": ("t1n", "t1c", "t2w", "t2f"),
    "ema": 0.9995,
    "seed": 0,
    # With a few dozen cases networks overfit soon; more variety from the start helped (see recipes/README.md).
    "augment": 2.0,
    "transplant": 0.5,
    "histograms": 0.3,
    "lesion_contrast": 0.5,
    # Where masks of the whole tumour only are among the cases, two patches in five are from them.
    "partial_share": 0.4,
    # With a falling rate, small cores that had been found were lost again; a constant rate with an average over all
    # steps keeps them.
    "schedule": "constant",
}
WHOLE_BRAINS: dict[str, Any] = {
    "whole_brain": True,
    "drop_modalities": 0.25,
    "lone_modality": 0.1,
    "thick_slices": 0.08,
    "repeat_faint": 2,
}
# Each stage starts from the averaged weights of the previous one. `minutes` are for two CPU cores.
STAGES: dict[str, dict[str, Any]] = {
    "patches": {"patch_size": 128, "drop_modalities": 0.3, "lr": 1e-3, "minutes": 60},
    # As in prediction, the network sees the whole bounding box of the brain in one pass. Cases with a core that hardly
    # enhances are drawn twice per epoch, because such cores were missed even in training cases.
    "whole": WHOLE_BRAINS | {"lr": 5e-4, "minutes": 30},
    "everyone": {
        **WHOLE_BRAINS,
        "lr": 4e-4,
        "minutes": 20,
        "val_fraction": 0.0,
        "split": None,
    },
}
# The two make different errors, so their mean is better than either.
NETWORKS = ("fast", "fast_sides")


def main() -> None:
    """Train each network in its stages, and join the networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, help="train this one only")
    hours = round(minutes() / 60, 2)
    parser.add_argument("--hours", type=float, default=hours, help="for each network (default %(default)s)")
    parser.add_argument("--val-fraction", type=float, default=0.19, help="of the patients, held out (default 0.19)")
    parser.add_argument("--split", help="a JSON file that names the cases to hold out, instead of drawing them")
    parser.add_argument("--start", type=Path, metavar="MODEL", help="a joined model, whose weights are trained further")
    parser.add_argument("--threads", type=int, help="processor threads of a training (default: all cores)")
    parser.add_argument("--stop-before", choices=STAGES, help="leave out this stage and later ones")
    options = parser.parse_args()
    starts = {model.plan.network: model for model in split_model(options.start)} if options.start else {}
    networks = [options.network] if options.network else NETWORKS
    if starts and not starts.keys() >= set(networks):
        parser.error(f"--start {options.start}: it contains {', '.join(starts)}; needed are {', '.join(networks)}")
    cases = options.data
    if not is_cache(cases):
        cases = resolve_conventions(find_cases(cases))
    ends: list[list[Path]] = []
    for network in networks:
        runs: list[Run] = []
        for name, stage in takewhile(lambda item: item[0] != options.stop_before, STAGES.items()):
            held_out = {"val_fraction": options.val_fraction, "split": options.split}
            values = COMMON | {"network": network, "threads": options.threads} | held_out | stage
            budget = 3600 * options.hours * values.pop("minutes") / minutes()
            folder = options.output / network / name
            resume = (folder / "checkpoint.pt").is_file()
            start = runs[-1].last if runs else None
            if not runs and starts:
                start = options.output / f"start_{network}.safetensors"
                if not resume:
                    start.parent.mkdir(parents=True, exist_ok=True)
                    save_model(starts[network], start)
            config = make_config(**values, budget_seconds=budget, start_from=start and str(start))
            runs.append(train_with_bar(cases, folder, config, resume=resume))
        ends.append([run.last for run in runs[-2:]])
    if options.network or options.stop_before not in (None, "everyone"):
        return
    names = ["held_out", "joined"]
    if options.stop_before == "everyone":
        names, ends = names[:1], [files[-1:] for files in ends]
    for name, files in zip(names, zip(*ends, strict=True), strict=True):
        save_model(join_models(files), options.output / f"{name}.safetensors")


def minutes() -> int:
    """Return the duration of all stages of one network, in minutes."""
    return sum(stage["minutes"] for stage in STAGES.values())


if __name__ == "__main__":
    main()
