"""Train the model that gliomask ships, or one like it on your own BraTS copy.

    python recipes/default_model.py DATA -o OUT

DATA is a folder of cases with all four sequences and masks, in any layout, or a cache that `gliomask prepare` made of
them. OUT gets a run for each stage; a call that was stopped, however, goes on where it was when it is made again.
Every stage but the last holds the same patients out, so that the figures are honest; the last one, which makes the
model, learns from all of them, and its figures are those of the stage before. `--stop-before everyone` leaves it out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gliomask.cache import is_cache
from gliomask.cases import find_cases, resolve_conventions
from gliomask.cli.bar import train_with_bar
from gliomask.config import make_config

COMMON: dict[str, Any] = {
    "network": "fast",
    "modalities": ("t1n", "t1c", "t2w", "t2f"),
    "drop_modalities": 0.25,
    "transplant": 0.3,
    "ema": 0.999,
    "seed": 0,
}

# Each begins with the weights of the one before and its own learning rate: warm restarts (arXiv:1608.03983).
STAGES: dict[str, dict[str, Any]] = {
    # many cheap steps first: a step on 96^3 takes less than half of one on 128^3
    "small": {"patch_size": 96, "lr": 1e-3, "share": 20},
    "large": {"patch_size": 128, "lr": 1e-3, "share": 30},
    # what it will see when it predicts: the brain in its box, in one pass
    "whole": {"whole_brain": True, "lr": 5e-4, "share": 30},
    # it had not learned its own cases yet: the same again, longer, and at last closer to how it is used
    "large-again": {"patch_size": 128, "lr": 1e-3, "share": 50},
    "whole-again": {"whole_brain": True, "drop_modalities": 0.15, "lr": 5e-4, "share": 30},
    # by now it knows its cases by heart: more variety
    "everyone": {
        "whole_brain": True,
        "drop_modalities": 0.15,
        "augment": 1.5,
        "transplant": 0.4,
        "lr": 4e-4,
        "share": 40,
        "val_fraction": 0.0,
    },
}


def main() -> None:
    """Run the stages one after the other, each from the one before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=3.3, help="of all stages together (default 3.3)")
    parser.add_argument("--val-fraction", type=float, default=0.19, help="of the patients, held out (default 0.19)")
    parser.add_argument("--stop-before", choices=STAGES, help="leave out this stage and those after it")
    options = parser.parse_args()
    cases = options.data
    if not is_cache(cases):
        cases = resolve_conventions(find_cases(cases))
    before: Path | None = None
    for name, stage in STAGES.items():
        if name == options.stop_before:
            break
        values = {"val_fraction": options.val_fraction, "val_every": None} | COMMON | stage
        budget = 3600 * options.hours * values.pop("share") / sum(stage["share"] for stage in STAGES.values())
        folder = options.output / name
        config = make_config(**values, budget_seconds=budget, start_from=before and str(before))
        resume = (folder / "checkpoint.pt").is_file()
        before = train_with_bar(cases, folder, config, resume=resume).last


if __name__ == "__main__":
    main()
