"""Train the model that gliomask ships, or one like it on your own BraTS copy.

    python recipes/default_model.py DATA -o OUT

DATA is a folder of cases with all four sequences and masks, in any layout, or a cache that `gliomask prepare` made of
them. Two networks are trained and joined into one model. OUT gets a folder for each network with a run for each stage;
a call that was stopped, however, goes on where it was when it is made again. Every stage but a network's last holds the
same patients out, so that figures are honest: OUT/held_out.safetensors joins the networks before their last stage,
OUT/joined.safetensors, the model, after it, when they have learned from all. `--stop-before everyone` leaves that out.
"""

from __future__ import annotations

import argparse
from itertools import takewhile
from pathlib import Path
from typing import Any

from gliomask.cache import is_cache
from gliomask.cases import find_cases, resolve_conventions
from gliomask.cli.bar import train_with_bar
from gliomask.config import make_config
from gliomask.joining import join_models
from gliomask.model import save_model
from gliomask.run import Run

COMMON: dict[str, Any] = {"modalities": ("t1n", "t1c", "t2w", "t2f"), "ema": 0.999, "seed": 0}

# Each stage begins with the weights of the one before and its own learning rate: warm restarts (arXiv:1608.03983).
# `minutes` are those of the shipped model, on two cores.
FIRST: dict[str, dict[str, Any]] = {
    # many cheap steps first: a step on 96^3 takes less than half of one on 128^3
    "small": {"patch_size": 96, "lr": 1e-3, "minutes": 20},
    "large": {"patch_size": 128, "lr": 1e-3, "minutes": 30},
    # what it will see when it predicts: the brain in its box, in one pass
    "whole": {"whole_brain": True, "lr": 5e-4, "minutes": 30},
    # it had not learned its own cases yet: the same again, longer, and at last closer to how it is used
    "large-again": {"patch_size": 128, "lr": 1e-3, "minutes": 50},
    "whole-again": {"whole_brain": True, "drop_modalities": 0.15, "lr": 5e-4, "minutes": 30},
    # by now it knows its cases by heart: more variety
    "everyone": {
        "whole_brain": True,
        "drop_modalities": 0.15,
        "augment": 1.5,
        "transplant": 0.4,
        "lr": 4e-4,
        "minutes": 40,
        "val_fraction": 0.0,
    },
}
# More variety from the start, and another network, so that it errs elsewhere. It goes on from its best epoch, and at a
# constant rate: as the rate fell, small cores that had been found were lost again (see the README).
SECOND: dict[str, dict[str, Any]] = {
    "patches": {"patch_size": 128, "drop_modalities": 0.25, "lr": 1e-3, "minutes": 80},
    "whole": {"whole_brain": True, "lr": 5e-4, "schedule": "constant", "minutes": 32, "from": "best"},
    "everyone": {"whole_brain": True, "lr": 4e-4, "schedule": "constant", "minutes": 22, "val_fraction": 0.0},
}
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "fast": ({"drop_modalities": 0.25, "transplant": 0.3}, FIRST),
    "fast_sides": ({"drop_modalities": 0.15, "transplant": 0.5, "augment": 2.0, "histograms": 0.3}, SECOND),
}


def main() -> None:
    """Run the stages of each network one after the other, each from the one before, and join the networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=round(minutes() / 60, 1), help="of all (default %(default)s)")
    parser.add_argument("--val-fraction", type=float, default=0.19, help="of the patients, held out (default 0.19)")
    parser.add_argument("--stop-before", choices=sorted({*FIRST, *SECOND}), help="leave out this stage and later ones")
    options = parser.parse_args()
    cases = options.data
    if not is_cache(cases):
        cases = resolve_conventions(find_cases(cases))
    ends: list[list[Path]] = []
    for network, (settings, stages) in NETWORKS.items():
        runs: list[Run] = []
        for name, stage in takewhile(lambda item: item[0] != options.stop_before, stages.items()):
            values = COMMON | {"val_fraction": options.val_fraction, "val_every": None} | settings | stage
            budget = 3600 * options.hours * values.pop("minutes") / minutes()
            folder = options.output / network / name
            start = str(getattr(runs[-1], values.pop("from", "last"))) if runs else None
            config = make_config(network=network, **values, budget_seconds=budget, start_from=start)
            resume = (folder / "checkpoint.pt").is_file()
            runs.append(train_with_bar(cases, folder, config, resume=resume))
        ends.append([run.last for run in runs[-2:]])
    names = ["held_out", "joined"]
    if options.stop_before == "everyone":
        names, ends = names[:1], [files[-1:] for files in ends]
    elif options.stop_before is not None:
        return
    for name, files in zip(names, zip(*ends, strict=True), strict=True):
        save_model(join_models(files), options.output / f"{name}.safetensors")


def minutes() -> int:
    """Return those of all stages together."""
    return sum(stage["minutes"] for _, stages in NETWORKS.values() for stage in stages.values())


if __name__ == "__main__":
    main()
