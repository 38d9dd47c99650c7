"""Average the weights of two models of the same network, of which one was trained from the other.

    python recipes/average_weights.py BEFORE AFTER --share 0.4 -o averaged.safetensors

The weights are `(1 - share) * before + share * after`; everything else is that of AFTER. Both models must have the same
network, sequences and regions.

Source: Wortsman et al. 2022, arXiv:2109.01903 (weights of a model before and after fine-tuning).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from gliomask.errors import InputError
from gliomask.inference.loading import Model, load_torch_model, save_model

ALIKE = ("modalities", "regions", "network", "network_arguments")


def main() -> None:
    """Write the averaged model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--share", type=float, required=True, help="the share of AFTER, from 0 to 1")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error("--share must be from 0 to 1")
    save_model(average(options.before, options.after, options.share), options.output)


def average(before: Path, after: Path, share: float) -> Model:
    """Return the model in the file `after` with the averaged weights."""
    first, second = load_torch_model(before), load_torch_model(after)
    differing = [name for name in ALIKE if getattr(first.plan, name) != getattr(second.plan, name)]
    if differing:
        raise InputError(f"{after}: {', '.join(differing)} differ from {before}; only like models can be averaged.")
    old, new = first.network.state_dict(), second.network.state_dict()
    second.network.load_state_dict(
        {key: (1 - share) * old[key] + share * new[key] if new[key].is_floating_point() else new[key] for key in new}
    )
    # Estimates of the Dice were checked for other weights.
    return replace(second, plan=second.plan.model_copy(update={"dice_estimates": {}}))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
