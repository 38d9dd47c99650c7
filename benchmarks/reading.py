"""Compare the time that gliomask takes to read and prepare four NIfTI files with that of plain code.

The plain code uses nibabel's `get_fdata` (float64), computes the z-score over the non-zero voxels of the whole volume,
and crops to the brain. Both run alternately in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from gliomask.cases import MODALITIES, Case, find_cases, read_case
from gliomask.inference.preprocessing import brain_box, prepare
from gliomask.model.plan import Plan
from gliomask.phantom import write_phantoms


def plainly(case: Case) -> np.ndarray:
    """Return the cropped, normalized sequences, computed as in most tutorials."""
    channels = []
    for modality in MODALITIES:
        data = nib.load(case.images[modality].path).get_fdata()
        brain = data != 0
        data = (data - data[brain].mean()) / data[brain].std()
        data[~brain] = 0
        channels.append(data)
    stacked = np.stack(channels)
    x, y, z = brain_box(stacked)
    return stacked[:, x, y, z].astype(np.float32)


def ours(case: Case) -> np.ndarray:
    """Return the same, computed by `read_case` and `prepare`."""
    plan = Plan(modalities=tuple(MODALITIES))
    return prepare(read_case(case, plan.modalities), plan).data


def _seconds(work: Callable[[Case], np.ndarray], case: Case) -> float:
    """Return the seconds that a function takes for a case."""
    started = time.perf_counter()
    work(case)
    return time.perf_counter() - started


def main() -> None:
    """Print the medians of both, their ratio, and the largest difference of their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="?", type=Path, help="a folder of cases; by default a phantom of full size")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.cases is None:
            write_phantoms(Path(folder) / "cases", 1)
        case = find_cases(options.cases or Path(folder) / "cases")[0]
        difference = float(np.abs(plainly(case) - ours(case)).max())
        times = [(_seconds(plainly, case), _seconds(ours, case)) for _ in range(options.repeats)]
    plain, own = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{case.id}: plain {plain:.3f} s, gliomask {own:.3f} s, ratio {plain / own:.1f}")
    print(f"largest difference {difference:.1e} standard deviations")


if __name__ == "__main__":
    main()
