"""Train the model that gliomask ships, or one like it on your own BraTS copy.

    python recipes/default_model.py DATA -o OUT

DATA is a folder of cases with all four sequences and masks, in any layout, or a cache that `gliomask prepare` made of
them. Two networks are trained and joined into one model. OUT gets a folder for each network with a run for each stage;
a call that was stopped, however, goes on where it was when it is made again. Every stage but a network's last holds the
same patients out, so that figures are honest: OUT/held_out.safetensors joins the networks before their last stage,
OUT/joined.safetensors, the model, after it, when they have learned from all. `--stop-before everyone` leaves that out.

A GPU has time for both networks at once: `--network fast` and `--network fast_sides` beside each other, then a call
without, which joins them.
"""

from __future__ import annotations

import argparse
from itertools import takewhile
from pathlib import Path
from typing import Any

from gliomask.cases import find_cases, resolve_conventions
from gliomask.cli.bar import train_with_bar
from gliomask.inference.ensembling import join_models
from gliomask.inference.loading import save_model
from gliomask.training.cache import is_cache
from gliomask.training.config import make_config
from gliomask.training.run import Run

COMMON: dict[str, Any] = {
    "modalities": ("t1n", "t1c", "t2w", "t2f"),
    "ema": 0.9995,
    "seed": 0,
    # A few dozen cases are soon known by heart: what helped was variety from the start.
    "augment": 2.0,
    "transplant": 0.5,
    "histograms": 0.3,
    "lesion_contrast": 0.5,
    # As the rate fell, small cores that had been found were lost again: a constant rate, and an average over all steps.
    "schedule": "constant",
}
# Each stage begins with the average of the one before; `minutes` are on two cores.
STAGES: dict[str, dict[str, Any]] = {
    "patches": {"patch_size": 128, "drop_modalities": 0.3, "lr": 1e-3, "minutes": 60},
    # What it will see when it predicts: the brain in its box, in one pass. Cores that do not enhance come twice as
    # often: little of them was found, in cases learned from as well.
    "whole": {"whole_brain": True, "drop_modalities": 0.25, "lr": 5e-4, "minutes": 30, "repeat_faint": 2},
    "everyone": {
        "whole_brain": True,
        "drop_modalities": 0.25,
        "lr": 4e-4,
        "minutes": 20,
        "repeat_faint": 2,
        "val_fraction": 0.0,
    },
}
# They err elsewhere, so that their mean is better than either.
NETWORKS = ("fast", "fast_sides")


def main() -> None:
    """Run the stages of each network one after the other, each from the one before, and join the networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, help="train this one only")
    hours = round(minutes() / 60, 2)
    parser.add_argument("--hours", type=float, default=hours, help="for each network (default %(default)s)")
    parser.add_argument("--val-fraction", type=float, default=0.19, help="of the patients, held out (default 0.19)")
    parser.add_argument("--stop-before", choices=STAGES, help="leave out this stage and later ones")
    options = parser.parse_args()
    cases = options.data
    if not is_cache(cases):
        cases = resolve_conventions(find_cases(cases))
    ends: list[list[Path]] = []
    for network in [options.network] if options.network else NETWORKS:
        runs: list[Run] = []
        for name, stage in takewhile(lambda item: item[0] != options.stop_before, STAGES.items()):
            values = COMMON | {"network": network, "val_fraction": options.val_fraction, "val_every": None} | stage
            budget = 3600 * options.hours * values.pop("minutes") / minutes()
            folder = options.output / network / name
            start = str(runs[-1].last) if runs else None
            config = make_config(**values, budget_seconds=budget, start_from=start)
            resume = (folder / "checkpoint.pt").is_file()
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
    """Return those of a network's stages together."""
    return sum(stage["minutes"] for stage in STAGES.values())


if __name__ == "__main__":
    main()
