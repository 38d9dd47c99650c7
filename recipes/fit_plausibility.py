"""Measure the whole tumours of true masks, and write the limits beyond which `predict` warns into a model file.

    python recipes/fit_plausibility.py CACHE -o typical.json
    python recipes/fit_plausibility.py CACHE -o typical.json --model best.safetensors --write fitted.safetensors

CACHE is a cache of `gliomask prepare`; cases whose masks do not label the whole tumour are left out. The limits are the
extreme values over all cases, so that none of them gives a warning. They describe gliomas; that other diseases lie
beyond them is not tested.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gliomask.files import write_text
from gliomask.inference.plausibility import measure_pieces
from gliomask.labels import get_convention, to_regions
from gliomask.model.edit import replace_plan
from gliomask.model.file import read_plan
from gliomask.model.plan import TypicalTumour
from gliomask.training.cache import CachedCase, cache_plan, open_cache


def main() -> None:
    """Measure all cases, and print and write the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--piece-mm3", type=float, default=500.0, help="the smallest piece (default %(default)s)")
    parser.add_argument("--model", type=Path, help="The model file that the limits are for.")
    parser.add_argument("--write", type=Path, help="The model file to write, with the same weights and the limits.")
    options = parser.parse_args()
    if options.write and not options.model:
        parser.error("--write needs --model")
    cases = open_cache(options.cache, cache_plan(options.cache))
    typical = measure([case for case in cases if "WT" in case.known], options.piece_mm3)
    text = json.dumps(typical.model_dump(mode="json"), indent=2) + "\n"
    print(text, end="")
    write_text(options.output, text)
    if options.write:
        plan = read_plan(options.model)
        replace_plan(options.model, plan.model_copy(update={"typical": typical}), options.write)


def measure(cases: list[CachedCase], piece_mm3: float) -> TypicalTumour:
    """Return the limits of the true whole tumours of some cases, rounded towards more tolerance."""
    pieces = []
    for case in cases:
        (mask,) = to_regions(case.labels(), get_convention(case.convention), ("WT",))
        pieces.append(measure_pieces(mask, case.spacing_mm, piece_mm3))
    found = [volumes for volumes in pieces if volumes]
    return TypicalTumour(
        cases=len(found),
        piece_mm3=piece_mm3,
        least_ml=int(10 * min(map(sum, found))) / 10,
        most_pieces=max(map(len, found)),
        least_share=int(100 * min(volumes[0] / sum(volumes) for volumes in found)) / 100,
    )


if __name__ == "__main__":
    main()
