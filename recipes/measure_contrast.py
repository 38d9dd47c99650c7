"""Print the contrast of each case's tumour and, with results of `score_model.py`, the scores of the case.

    python recipes/measure_contrast.py CACHE [--results results.json]

The contrast is the median of a region minus the median of the voxels within 4 voxels around it, in standard deviations
of the brain: for enhancing tumour in t1ce, for oedema in flair.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.model.plan import Plan
from gliomask.training.cache import CachedCase, cache_plan, open_cache
from gliomask.training.patches import cut_patch

FULL = "t1n+t1c+t2w+t2f"


def main() -> None:
    """Print a line for each case, in the order of the contrast of enhancing tumour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    plan = cache_plan(options.cache)
    found = {}
    if options.results is not None:
        rows = json.loads(options.results.read_text())["rows"]
        found = {row["case"]: row["dice"] for row in rows if (row["subset"], row["window"]) == (FULL, "whole")}
    cases = {case.id: contrast(case, plan) for case in open_cache(options.cache, plan)}
    print(f"{'case':28}  ET in t1ce  oedema in flair  Dice WT, TC, ET")
    for name, (enhancement, oedema) in sorted(cases.items(), key=lambda item: np.nan_to_num(item[1][0], nan=np.inf)):
        dice = ", ".join(f"{value:.2f}" for value in found.get(name, {}).values())
        print(f"{name:28}  {enhancement:10.2f}  {oedema:15.2f}  {dice}".rstrip())
    middle = np.nanmedian(list(cases.values()), axis=0)
    print(f"{'median':28}  {middle[0]:10.2f}  {middle[1]:15.2f}")


def contrast(case: CachedCase, plan: Plan) -> tuple[float, float]:
    """Return the contrast of enhancing tumour and of oedema; nan if the case has none."""
    image, regions = (array.numpy() for array in cut_patch(case, plan, np.zeros(3, np.int64), case.shape))
    whole, core, enhancing = (regions[plan.regions.index(name)] for name in ("WT", "TC", "ET"))
    t1c, flair = (image[plan.modalities.index(name)] for name in ("t1c", "t2f"))
    brain = (image != 0).any(axis=0)
    return difference(t1c, enhancing, enhancing, brain), difference(flair, whole & ~core, whole, brain)


def difference(
    channel: NDArray[np.float32], part: NDArray[np.bool_], region: NDArray[np.bool_], brain: NDArray[np.bool_]
) -> float:
    """Return the median of a part of a region minus the median of the surroundings of the region."""
    around = ndimage.binary_dilation(region, iterations=4) & ~region & brain
    return float(np.median(channel[part]) - np.median(channel[around])) if part.any() else float("nan")


if __name__ == "__main__":
    main()
