"""Measure the augmentation of a training patch, and compare it with MONAI's transforms on the same random draws.

    python benchmarks/augment.py [--draws N] [--channels N] [--edge N]

Each change is measured alone, and then all of them with their default probabilities. Everything runs alternately in one
process with one thread, as during a training. The result is in milliseconds of CPU time, because that is what the
training loses. If MONAI is not installed, only gliomask is measured. MONAI has no shift of a sequence and no thick
slices, so these are part of the default line but not of the comparison. Its elastic deformation is of a different kind
and is left out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gliomask.training.augment import Augmentation, augment
from gliomask.training.augment.brain import find_brain, find_present
from gliomask.training.augment.faults import BiasField, Shift, apply_shift, sample_shift
from gliomask.training.augment.intensity import Contrast, Gamma, Noise
from gliomask.training.augment.patch import Intensity, apply_intensity, sample_intensity
from gliomask.training.augment.resolution import Blur, LowResolution
from gliomask.training.augment.spatial import Elastic, Flip, Turn, apply_flip, apply_turn, sample_flip, sample_turn

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai import transforms as monai
except ImportError:
    monai = None

Pair = tuple[Tensor, Tensor]
Work = Callable[[], object]

COMPARABLE = replace(Augmentation(), shift_probability=0.0, thick_slices_probability=0.0)

INTENSITIES = {
    "bias_field": BiasField(0.2, seed=1),
    "low_resolution": LowResolution((1.5, 1.5, 1.5)),
    "blur": Blur(0.8),
    "contrast": Contrast(1.2, 0.2),
    "inverted_gamma": Gamma(0.8, inverted=True),
    "gamma": Gamma(0.8),
    "noise": Noise(0.05, seed=1),
}

# MONAI's transforms for each kind of change.
STEPS: Mapping[str, Callable[[Any], list[Any]]] = {
    "bias_field": lambda _: [monai.RandBiasField(prob=1.0, coeff_range=(-0.3, 0.3))],
    "low_resolution": lambda low: [monai.RandSimulateLowResolution(prob=1.0, zoom_range=[1 / low.edges[0]] * 2)],
    "blur": lambda blur: [monai.GaussianSmooth(blur.sigma_voxels)],
    "contrast": lambda c: [monai.ScaleIntensityFixedMean(c.factor - 1), monai.StdShiftIntensity(c.shift)],
    "inverted_gamma": lambda gamma: [monai.AdjustContrast(gamma.exponent, invert_image=True, retain_stats=True)],
    "gamma": lambda gamma: [monai.AdjustContrast(gamma.exponent, retain_stats=True)],
    "noise": lambda noise: [monai.RandGaussianNoise(prob=1.0, std=noise.sd, sample_std=False)],
}


def main() -> None:
    """Print a line for each change, then the mean and the slowest draws of the default, then both libraries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100, help="number of patches (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="repetitions of each single change (default: %(default)s)"
    )
    parser.add_argument("--channels", type=int, default=4, help="number of sequences (default: %(default)s)")
    parser.add_argument("--edge", type=int, default=128, help="edge of the patch in voxels (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    image, target = ball(options.channels, options.edge)
    generator = seeded(0)
    print(f"{options.channels} x {options.edge}^3, medians of {options.repeats}")
    for name, (ours, theirs) in single_changes(image, target).items():
        times = in_turn(options.repeats, ours, theirs if monai else None)
        print(f"{name:30} {compared(*map(statistics.median, times))}")
    whole = sorted(in_turn(options.draws, lambda: augment(image, target, generator))[0])
    tail = whole[math.ceil(0.99 * len(whole)) - 1]
    print(f"default, {len(whole)} draws: mean {statistics.mean(whole):.0f}, 99th percentile {tail:.0f}, ", end="")
    print(f"largest {whole[-1]:.0f} ms")
    if monai:
        numbers = iter(range(2 * options.draws + 2))  # each seed is used by gliomask and then by MONAI
        both = in_turn(
            options.draws,
            lambda: augment(image, target, seeded(next(numbers) // 2), COMPARABLE),
            lambda: monai_augment(image, target, seeded(next(numbers) // 2)),
        )
        print(f"{'what both have, means':30} {compared(*map(statistics.mean, both))}")


def seeded(number: int) -> torch.Generator:
    """Return a new generator with a seed."""
    return torch.Generator().manual_seed(number)


def ball(channels: int, edge: int) -> Pair:
    """Return noise in a ball that fills half of the patch, as the brain, and three nested balls as regions."""
    axis = (torch.arange(edge) - (edge - 1) / 2) / edge
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    image = torch.randn(channels, edge, edge, edge, generator=seeded(0)) * (radius < 0.5)
    return image, torch.stack([radius < 0.3, radius < 0.2, radius < 0.1])


def in_turn(repeats: int, *ways: Work | None) -> list[list[float]]:
    """Return the milliseconds of each function, run alternately, after one run of each to warm up."""
    times: list[list[float]] = [[] for way in ways if way]
    for _ in range(repeats + 1):
        for column, way in zip(times, filter(None, ways), strict=True):
            started = time.thread_time()
            way()
            column.append(1e3 * (time.thread_time() - started))
    return [column[1:] for column in times]


def compared(ours: float, theirs: float | None = None) -> str:
    """Return the times and their ratio as text."""
    return f"gliomask {ours:6.1f} ms" + (f", MONAI {theirs:7.1f} ms, ratio {theirs / ours:.1f}" if theirs else "")


def single_changes(image: Tensor, target: Tensor) -> dict[str, tuple[Work, Work | None]]:
    """Return each change and MONAI's equivalent or None: spatial changes of all channels, other changes of one."""
    channel, brain = image[0], find_brain(image)
    flip, stretch, turn = Flip((0, 1, 2)), Turn(scale=1.1), Turn((20.0, 10.0, -15.0), 1.1)
    bent, thick = replace(turn, elastic=Elastic(6.0, seed=1)), Intensity(low_resolution=LowResolution((1.0, 1.0, 4.0)))
    rows: dict[str, tuple[Work, Work | None]] = {
        "flip": (lambda: apply_flip(image, target, flip), lambda: monai_space(image, target, flip, None)),
        "scaling": (lambda: apply_turn(image, target, stretch), lambda: monai_space(image, target, Flip(), stretch)),
        "rotation": (lambda: apply_turn(image, target, turn), lambda: monai_space(image, target, Flip(), turn)),
        "rotation and elastic": (lambda: apply_turn(image, target, bent), None),
        "shift, one channel": (lambda: apply_shift(channel, brain, Shift(0, (1, -2, 1))), None),
        "thick slices, one channel": (lambda: apply_intensity(channel, brain, thick), None),
    }
    for name, record in INTENSITIES.items():
        change = Intensity(**{name: record})
        rows[f"{name.replace('_', ' ')}, one channel"] = (
            lambda change=change: apply_intensity(channel, brain, change),
            lambda change=change: monai_intensity(channel, brain, change),
        )
    return rows


def monai_augment(image: Tensor, target: Tensor, generator: torch.Generator) -> Pair:
    """Return a patch changed by MONAI with the parameters that `augment` would draw."""
    flip, turn = sample_flip(generator, COMPARABLE), sample_turn(generator, COMPARABLE)
    sample_shift(generator, COMPARABLE, find_present(image))  # its probability is 0, but it draws a number
    intensities = [sample_intensity(generator, COMPARABLE) for _ in image]
    image, target = monai_space(image, target, flip, turn)
    brain = find_brain(image)
    for channel, intensity in zip(image, intensities, strict=True):
        if intensity != Intensity():
            channel.copy_(monai_intensity(channel, brain, intensity))
    return image, target


def monai_space(image: Tensor, target: Tensor, flip: Flip, turn: Turn | None) -> Pair:
    """Return a mirrored, rotated and scaled copy of a patch, made by MONAI."""
    both = [image.clone(), target.clone()]
    for index, mode in enumerate(("bilinear", "nearest")):
        if flip.axes:
            both[index] = monai.Flip(flip.axes)(both[index])
        if turn:
            radians, scales = [math.radians(angle) for angle in turn.degrees], [1 / turn.scale] * 3
            change = monai.Affine(radians, scale_params=scales, mode=mode, padding_mode="zeros", image_only=True)
            both[index] = change(both[index])
    return torch.as_tensor(both[0]), torch.as_tensor(both[1])


def monai_intensity(channel: Tensor, brain: Tensor, intensity: Intensity) -> Tensor:
    """Return one channel changed by MONAI in the same order as by gliomask, with the background reset to 0."""
    changed = channel[None]
    for name, steps in STEPS.items():
        record = getattr(intensity, name)
        for step in steps(record) if record else ():
            changed = step(changed)
    return torch.where(brain, torch.as_tensor(changed)[0], 0.0)


if __name__ == "__main__":
    main()
