"""Count the warnings of `inspect` on real cases, and on the same cases with artificial faults, and measure its time.

python benchmarks/inspection.py BRATS_FOLDER
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np

from gliomask.cases import find_cases, read_case
from gliomask.inspection import inspect
from gliomask.volume import Volume, grid_at_spacing, resample

NAMES = ("t1n", "t1c", "t2w", "t2f")


def main() -> None:
    """Print the warnings of the cases as they are, and in how many cases each fault is detected."""
    cases = find_cases(Path(sys.argv[1]))
    seconds, told, spoilt = [], {}, Counter[str]()
    for case in cases:
        volume = read_case(case, NAMES)
        files = {name: source.path for name, source in case.images.items()}
        started = time.perf_counter()
        told[case.id] = inspect(volume, NAMES, files)
        seconds.append(time.perf_counter() - started)
        for what, spoil in FAULTS.items():
            spoilt[what] += any(WORDS[what] in text for text in inspect(spoil(volume), NAMES, {}))
        for given in (NAMES, ("t1c", "t2w", "t2f")):
            kept = Volume(volume.data[[NAMES.index(name) for name in given]], volume.affine)
            spoilt[f"false: misnamed, of {' '.join(given)}"] += _misnamed(kept, given)
            for one, other in combinations(given, 2):
                swapped = tuple({one: other, other: one}.get(name, name) for name in given)
                spoilt[f"{one} <-> {other}, of {' '.join(given)}"] += _misnamed(kept, swapped)
            if "t1n" not in given:
                native = Volume(volume.data[[0, 2, 3]], volume.affine)
                spoilt["t1n given as t1c, of t1c t2w t2f"] += _misnamed(native, given)
    print(f"{len(cases)} cases, {sum(map(bool, told.values()))} with warnings; {np.median(seconds):.3f} s a case, ")
    print(f"at most {max(seconds):.3f} s")
    for name, texts in told.items():
        for text in texts:
            print(f"  {name}: {text}")
    for what, count in spoilt.items():
        print(f"{count:4d} of {len(cases)}  {what}")


def _misnamed(volume: Volume, given: tuple[str, ...]) -> bool:
    return any("misnamed" in text for text in inspect(volume, given, {}))


def _flip(*axes: int) -> Callable[[Volume], Volume]:
    return lambda volume: Volume(np.flip(volume.data, axes), volume.affine)


def _turn(*axes: int) -> Callable[[Volume], Volume]:
    return lambda volume: Volume(volume.data.swapaxes(*axes), volume.affine)


def _normalize(volume: Volume) -> Volume:
    brain = volume.data != 0
    data = volume.data.astype(np.float32)
    for channel, inside in zip(data, brain, strict=True):
        channel[inside] = (channel[inside] - channel[inside].mean()) / channel[inside].std()
    return Volume(data, volume.affine)


def _normalize_all(volume: Volume) -> Volume:
    data = volume.data.astype(np.float32)
    return Volume(np.stack([(c - c.mean()) / c.std() for c in data]), volume.affine)


def _to_one(volume: Volume) -> Volume:
    data = volume.data.astype(np.float32)
    return Volume(data / data.max(axis=(1, 2, 3), keepdims=True), volume.affine)


def _scalp(volume: Volume) -> Volume:
    """Add a shell of 6 mm, as bright as the brightest voxels of the brain, around a dark skull of 4 mm."""
    from scipy.ndimage import distance_transform_edt

    distance = np.asarray(distance_transform_edt(~(volume.data != 0).any(axis=0)))
    data = volume.data.copy()
    for channel in data:
        channel[(distance > 0) & (distance <= 4)] = max(1, np.percentile(channel[channel > 0], 5))
        channel[(distance > 4) & (distance <= 10)] = np.percentile(channel[channel > 0], 99)
    return Volume(data, volume.affine)


def _noise(volume: Volume) -> Volume:
    noise = np.random.default_rng(0).integers(0, 20, volume.data.shape)
    return Volume((volume.data + noise).astype(volume.data.dtype), volume.affine)


def _twice(volume: Volume) -> Volume:
    return Volume(volume.data[[0, 1, 2, 2]], volume.affine)


def _half(volume: Volume) -> Volume:
    return Volume(volume.data[:, :, :, :80], volume.affine)


def _wrong_size(volume: Volume) -> Volume:
    return Volume(volume.data, volume.affine @ np.diag([2, 2, 2, 1]))


def _thick(volume: Volume) -> Volume:
    return resample(volume, grid_at_spacing(volume.grid, (1, 1, 5)))


FAULTS: dict[str, Callable[[Volume], Volume]] = {
    "upside down": _flip(3),
    "front and back swapped": _flip(2),
    "turned around the left-right axis": _flip(2, 3),
    "left-right and front-back swapped": _turn(1, 2),
    "front-back and up-down swapped": _turn(2, 3),
    "normalized within the brain": _normalize,
    "normalized with the background": _normalize_all,
    "scaled to 0 to 1": _to_one,
    "a scalp around the brain": _scalp,
    "noise in the background": _noise,
    "one file twice": _twice,
    "the upper half missing": _half,
    "voxels of 2 mm in the header": _wrong_size,
    "slices of 5 mm": _thick,
}
WORDS = {
    "upside down": "upside down",
    "front and back swapped": "front and back",
    "turned around the left-right axis": "does not lie",
    "left-right and front-back swapped": "axes seem",
    "front-back and up-down swapped": "axes seem",
    "normalized within the brain": "negative",
    "normalized with the background": "the background is",
    "scaled to 0 to 1": "from 0 to 1",
    "a scalp around the brain": "skull",
    "noise in the background": "not zero",
    "one file twice": "twice",
    "the upper half missing": "cut off",
    "voxels of 2 mm in the header": "too much",
    "slices of 5 mm": "voxels of",
}


if __name__ == "__main__":
    main()
