"""Time the scores of a case against straightforward scipy on the whole volume.

    python benchmarks/metrics.py [TRUTH [PREDICTION]]

Without files, a synthetic tumour on the grid of BraTS. Without a prediction, the truth moved by a voxel along each
axis, then the same with a false island far away. Both ways run in turn in this one process; their values must be equal,
or the exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.labels import LabelConvention, check_labels, get_convention, to_regions
from gliomask.metrics import Mask, Spacing, score_case
from gliomask.volume import read_volume

Regions = dict[str, Mask]
Scores = dict[str, dict[str, float]]

SHAPE = (240, 240, 155)
REGIONS = ("WT", "TC", "ET")
ONE_MM: Spacing = (1.0, 1.0, 1.0)
PENALTY_MM = float(np.linalg.norm(SHAPE))


def main() -> None:
    """Print the seconds of both ways, their ratio, and whether the values are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", nargs="?", type=Path, help="a label map in NIfTI, instead of the synthetic tumour")
    parser.add_argument("prediction", nargs="?", type=Path, help="another on its grid, instead of the moved truth")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way; medians count (default: %(default)s)")
    parser.add_argument("--labels", default="brats2021", help="what the numbers mean (default: %(default)s)")
    arguments = parser.parse_args()
    convention = get_convention(arguments.labels)
    truth, spacing_mm = read_regions(arguments.truth, convention) if arguments.truth else (synthetic_tumour(), ONE_MM)
    if arguments.prediction:
        predictions = {arguments.prediction.name: read_regions(arguments.prediction, convention)[0]}
    else:
        moved = {region: np.roll(mask, 1, (0, 1, 2)) for region, mask in truth.items()}
        island = far_ball(truth["WT"])
        predictions = {"moved by a voxel": moved, "and a far island": {r: mask | island for r, mask in moved.items()}}
    equal = [compare(name, truth, found, spacing_mm, arguments.repeats) for name, found in predictions.items()]
    sys.exit(0 if all(equal) else 1)


def compare(name: str, truth: Regions, prediction: Regions, spacing_mm: Spacing, repeats: int) -> bool:
    """Run both ways in turn, print a line, and tell whether their values are equal."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        ours = timed(lambda: score_case(truth, prediction, spacing_mm, "brats2021"), seconds[0])
        theirs = timed(lambda: plain_scores(truth, prediction, spacing_mm), seconds[1])
    pairs = [(score, theirs[region][metric]) for region in ours for metric, score in ours[region].items()]
    equal = all(math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9) for first, second in pairs)
    quick, plain = map(statistics.median, seconds)
    distances = ", ".join(f"{region} {scores['hd95_pooled_mm']:.3f}" for region, scores in ours.items())
    print(
        f"{name}: gliomask {quick:.3f} s, whole volume {plain:.2f} s, ratio {plain / quick:.1f} "
        f"(medians of {repeats}); {len(pairs)} values {'equal' if equal else 'DIFFERENT'} (HD95 in mm: {distances})"
    )
    return equal


def timed(work: Callable[[], Scores], seconds: list[float]) -> Scores:
    """Return the result of some work, and append the seconds it took."""
    start = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - start)
    return result


def plain_scores(truth: Regions, prediction: Regions, spacing_mm: Spacing) -> Scores:
    """Return the same scores by the shortest code: erosion and distance transform of the whole volume."""
    scores = {}
    for region in REGIONS:
        t, p = truth[region], prediction[region]
        both, in_truth, in_prediction = (t & p).sum(), t.sum(), p.sum()
        scores[region] = {
            "dice": 2 * both / (in_truth + in_prediction) if in_truth + in_prediction else 1.0,
            "hd95_pooled_mm": plain_hausdorff_95(t, p, spacing_mm),
            "sensitivity": both / in_truth if in_truth else float(not in_prediction),
            "specificity": (~t & ~p).sum() / (~t).sum(),
        }
    return scores


def plain_hausdorff_95(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> float:
    """Return the pooled HD95 from two distance transforms of the whole volume."""
    if not (truth.any() and prediction.any()):
        return PENALTY_MM if truth.any() or prediction.any() else 0.0
    ours, theirs = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    there = ndimage.distance_transform_edt(~theirs, sampling=spacing_mm)[ours]
    back = ndimage.distance_transform_edt(~ours, sampling=spacing_mm)[theirs]
    return float(np.percentile(np.concatenate([there, back]), 95))


def synthetic_tumour() -> Regions:
    """Return nested, irregular regions of the size of a large glioma: the levels of a ball with a rugged surface."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 4)
    ruggedness = 8 * noise / noise.std()
    level = distance_from((95, 140, 80)) + ruggedness
    core = level < 18
    return {"WT": level < 34, "TC": core, "ET": core & (level > 10)}


def far_ball(tumour: Mask) -> Mask:
    """Return a ball of 8 voxels radius on the other side of the volume."""
    centre = np.argwhere(tumour).mean(axis=0) if tumour.any() else np.zeros(3)
    return distance_from(np.array(tumour.shape) - centre, tumour.shape) < 8


def distance_from(
    centre: tuple[float, ...] | NDArray[np.float64], shape: tuple[int, ...] = SHAPE
) -> NDArray[np.float64]:
    """Return each voxel's distance from a point, in voxels."""
    offsets = [axis - c for axis, c in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True)]
    return np.asarray(np.sqrt(sum(offset**2 for offset in offsets)))


def read_regions(path: Path, convention: LabelConvention) -> tuple[Regions, Spacing]:
    """Return the regions of a label map and its voxel size."""
    volume = read_volume(path, mask=True)
    labels = volume.data[0]
    check_labels(np.unique(labels).tolist(), convention, str(path))
    return dict(zip(REGIONS, to_regions(labels, convention, REGIONS), strict=True)), volume.spacing_mm


if __name__ == "__main__":
    main()
