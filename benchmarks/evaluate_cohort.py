"""Measure the peak memory of `gliomask evaluate` over few and over many cases, whose masks must not be held together.

All cases are links to the true mask of a phantom, which is scored against itself. Prints the peak memory of the whole
command for each number of cases and their ratio, and exits with status 1 if the ratio is more than `MOST_RATIO`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gliomask.cases import find_cases
from gliomask.phantom import write_phantoms

MOST_RATIO = 1.5  # what is kept are the scores


def measure(mask: Path, folder: Path, cases: int) -> tuple[float, float]:
    """Return the peak memory in MB and the seconds of processor time of scoring a mask as so many cases."""
    truth, predictions = folder / f"truth{cases}", folder / f"predictions{cases}"
    predictions.mkdir()
    for number in range(cases):
        name = f"BraTS2021_{number:05d}"
        (truth / name).mkdir(parents=True)
        os.link(mask, truth / name / f"{name}_seg.nii.gz")
        os.link(mask, predictions / f"{name}.nii.gz")
    scores = folder / f"{cases}.csv"
    words = [sys.executable, "-m", "gliomask", "evaluate", str(predictions), str(truth), "-o", str(scores), "-q"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = len(scores.read_text("utf-8").splitlines()) if scores.is_file() else 0
    if process.returncode or lines <= cases:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}, {lines} lines")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=60)
    parser.add_argument("--many", type=int, default=1251)
    parser.add_argument("--size", type=int, default=96, help="voxels of the phantom along the longest axis")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "phantom", 1, size=options.size)
        mask = find_cases(folder / "phantom")[0].mask
        assert mask is not None
        found = {}
        for cases in (options.few, options.many):
            started = time.perf_counter()
            found[cases], seconds = measure(mask, folder, cases)
            took = time.perf_counter() - started
            print(f"{cases} cases: {found[cases]:.0f} MB, {seconds:.1f} s of CPU time, {took:.1f} s", flush=True)
    ratio = found[options.many] / found[options.few]
    growth = (found[options.many] - found[options.few]) / (options.many - options.few)
    print(f"ratio {ratio:.2f}, {1000 * growth:.0f} kB for each further case")
    sys.exit(0 if ratio <= MOST_RATIO else 1)


if __name__ == "__main__":
    main()
