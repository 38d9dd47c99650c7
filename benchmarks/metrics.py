"""Compare the time that the scores of a case take with that of straightforward code on the whole volume.

    python benchmarks/metrics.py [TRUTH [PREDICTION]] [--protocol NAME ...]

Without files, the truth is a synthetic tumour on the grid of BraTS. Without a prediction, the prediction is the truth
shifted by a voxel along each axis, and then the same with a false island far away. Both implementations run alternately
in one process on one core. CPU time is measured, so that other work on the machine matters little. The exit status is 1
unless their values are equal.

The straightforward code uses scipy's erosion, dilation, labelling and distance transforms on whole volumes, one lesion
after another. The surfaces by area are computed by the surface-distance package; if it is not installed, they are left
out of the comparison.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.labels import LabelConvention, check_labels, get_convention, to_regions
from gliomask.metrics import Mask, Spacing, get_protocol, score_case
from gliomask.volume import read_volume

Regions = dict[str, Mask]
Scores = dict[str, dict[str, float]]
Result = TypeVar("Result")

SHAPE = (240, 240, 155)
REGIONS = ("WT", "TC", "ET")
ONE_MM: Spacing = (1.0, 1.0, 1.0)
JOIN = ndimage.generate_binary_structure(3, 2)
CONNECT = np.ones((3, 3, 3), bool)


def main() -> None:
    """Print the seconds of both implementations, their ratio, and whether the values are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", nargs="?", type=Path, help="a label map in NIfTI, instead of the synthetic tumour")
    parser.add_argument(
        "prediction", nargs="?", type=Path, help="a second label map on the same grid, instead of the shifted truth"
    )
    parser.add_argument("--protocol", nargs="+", default=["brats2021", "brats2023-gli"], help="default: %(default)s")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs, of which the medians are compared (default: %(default)s)"
    )
    parser.add_argument("--labels", default="brats2021", help="label convention of the files (default: %(default)s)")
    arguments = parser.parse_args()
    convention = get_convention(arguments.labels)
    truth, spacing_mm = read_regions(arguments.truth, convention) if arguments.truth else (synthetic_tumour(), ONE_MM)
    if arguments.prediction:
        predictions = {arguments.prediction.name: read_regions(arguments.prediction, convention)[0]}
    else:
        moved = {region: np.roll(mask, 1, (0, 1, 2)) for region, mask in truth.items()}
        island = far_ball(truth["WT"])
        predictions = {"shifted by a voxel": moved, "and a far island": {r: mask | island for r, mask in moved.items()}}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    equal = [
        compare(f"{protocol}, {name}", truth, found, spacing_mm, protocol, arguments.repeats)
        for protocol in arguments.protocol
        for name, found in predictions.items()
    ]
    sys.exit(0 if all(equal) else 1)


def compare(name: str, truth: Regions, prediction: Regions, spacing_mm: Spacing, protocol: str, repeats: int) -> bool:
    """Run both implementations alternately, print a line, and return whether their values are equal."""
    plain = {"brats2021": plain_2021, "brats2023-gli": plain_2023}[protocol]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        ours = timed(lambda: score_case(truth, prediction, spacing_mm, protocol), seconds[0])
        theirs = timed(lambda: {r: plain(truth[r], prediction[r], spacing_mm) for r in REGIONS}, seconds[1])
    pairs = [(ours[region][metric], score) for region in theirs for metric, score in theirs[region].items()]
    equal = all(math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-9) for first, second in pairs)
    quick, slow = map(statistics.median, seconds)
    print(
        f"{name}: gliomask {quick:.3f} s for all {sum(map(len, ours.values()))} numbers, straightforward {slow:.2f} s "
        f"for {len(pairs)} of them, ratio {slow / quick:.1f} (medians of {repeats}); these are "
        f"{'equal' if equal else 'DIFFERENT'}"
    )
    return equal


def timed(work: Callable[[], Result], seconds: list[float]) -> Result:
    """Return the result of a function, and append the seconds of CPU time that it took."""
    start = time.process_time()
    result = work()
    seconds.append(time.process_time() - start)
    return result


def plain_2021(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> dict[str, float]:
    """Return the scores of a whole region, computed by short code."""
    penalty_mm = get_protocol("brats2021").empty_mm or 0
    both, in_truth, in_prediction = (truth & prediction).sum(), truth.sum(), prediction.sum()
    return {
        "dice": 2 * both / (in_truth + in_prediction) if in_truth + in_prediction else 1.0,
        "hd95_pooled_mm": plain_pooled(truth, prediction, spacing_mm, penalty_mm),
        "sensitivity": both / in_truth if in_truth else float(not in_prediction),
        "specificity": (~truth & ~prediction).sum() / (~truth).sum(),
        **plain_by_area(truth, prediction, spacing_mm, penalty_mm, "hd95_surface_mm"),
    }


def plain_2023(truth: Mask, prediction: Mask, spacing_mm: Spacing) -> dict[str, float]:
    """Return the lesion-wise scores of 2023, computed for one lesion after another on the whole volume."""
    grown, lesions = ndimage.label(ndimage.binary_dilation(truth, JOIN, iterations=3), CONNECT)
    pieces, count = ndimage.label(prediction, CONNECT)
    used: set[int] = set()
    rows = []
    for number in range(1, lesions + 1):
        lesion = truth & (grown == number)
        near = set(np.unique(pieces[ndimage.binary_dilation(lesion, JOIN, iterations=3)]).tolist()) - {0}
        used |= near
        if lesion.sum() * math.prod(spacing_mm) > 50:
            found = np.isin(pieces, sorted(near))
            dice = 2 * (lesion & found).sum() / (lesion.sum() + found.sum())
            rows.append({"dice": dice, **plain_by_area(lesion, found, spacing_mm, 374, "hd95_surface_mm")})
    rows += [{"dice": 0.0, **({"hd95_surface_mm": 374.0} if rows and "hd95_surface_mm" in rows[0] else {})}] * (
        count - len(used)
    )
    means = {f"lesion_{name}": math.fsum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}
    return {**means, "lesion_fp": count - len(used)}


def plain_pooled(truth: Mask, prediction: Mask, spacing_mm: Spacing, penalty_mm: float) -> float:
    """Return the pooled HD95, computed from two distance transforms of the whole volume."""
    if not (truth.any() and prediction.any()):
        return penalty_mm if truth.any() or prediction.any() else 0.0
    ours, theirs = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    there = ndimage.distance_transform_edt(~theirs, sampling=spacing_mm)[ours]
    back = ndimage.distance_transform_edt(~ours, sampling=spacing_mm)[theirs]
    return float(np.percentile(np.concatenate([there, back]), 95))


def plain_by_area(truth: Mask, prediction: Mask, spacing_mm: Spacing, penalty_mm: float, name: str) -> dict[str, float]:
    """Return the HD95 by area of the surface-distance package as `{name: value}`, or nothing if it is not installed."""
    try:
        import surface_distance  # type: ignore[import-not-found]
    except ImportError:
        return {}
    if not (truth.any() and prediction.any()):
        return {name: penalty_mm if truth.any() or prediction.any() else 0.0}
    distances = surface_distance.compute_surface_distances(truth, prediction, spacing_mm)
    return {name: float(surface_distance.compute_robust_hausdorff(distances, 95))}


def synthetic_tumour() -> Regions:
    """Return nested, irregular regions of the size of a large glioma: balls with rugged surfaces."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 4)
    ruggedness = 8 * noise / noise.std()
    level = distance_from((95, 140, 80)) + ruggedness
    core = level < 18
    return {"WT": level < 34, "TC": core, "ET": core & (level > 10)}


def far_ball(tumour: Mask) -> Mask:
    """Return a ball with a radius of 8 voxels on the opposite side of the volume."""
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
