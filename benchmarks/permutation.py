"""Compare the time of the permutation test of `compare-scores` with that of `scipy.stats.permutation_test`.

    python benchmarks/permutation.py [--repeats N]

Both compute the exact p-value of the mean of paired differences, for numbers of cases up to 14; above that, gliomask
draws random signs. They run alternately in one process. The exit status is 1 unless the p-values are equal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gliomask.evaluation.significance import permutation_p

COUNTS = (6, 8, 10, 12, 14)


def main() -> None:
    """Print a line for each number of cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the medians are compared")
    options = parser.parse_args()
    equal = [compare(count, options.repeats) for count in COUNTS]
    sys.exit(0 if all(equal) else 1)


def compare(count: int, repeats: int) -> bool:
    """Time both tests on the same differences, print a line, and return whether the p-values are equal."""
    differences = np.random.default_rng(count).normal(0.3, 1.0, count)
    columns: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        ours = timed(permutation_p, differences, columns[0])
        theirs = timed(scipy_p, differences, columns[1])
    quick, slow = (statistics.median(column[1:]) for column in columns)  # the first run warms up
    times = f"gliomask {1e3 * quick:.2f} ms, scipy {1e3 * slow:.2f} ms"
    print(f"{count:2d} cases: {times}, ratio {slow / quick:.1f}, p {ours:.4f}")
    return abs(ours - theirs) < 1e-12


def scipy_p(differences: NDArray[np.float64]) -> float:
    """Return the exact two-sided p-value of scipy; for one sample it changes the signs in all ways."""
    found = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    return float(found.pvalue)


def timed(
    test: Callable[[NDArray[np.float64]], float], differences: NDArray[np.float64], seconds: list[float]
) -> float:
    """Return a p-value, and append the seconds of CPU time that it took."""
    started = time.process_time()
    result = test(differences)
    seconds.append(time.process_time() - started)
    return result


if __name__ == "__main__":
    main()
