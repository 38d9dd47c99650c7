"""Running a network over a volume: in one pass or in sliding windows, with or without mirroring.

An engine moves arrays and runs the network; padding, windows, their weights and mirroring are implemented here, once
for all engines. The arithmetic works on NumPy arrays and torch tensors alike, so that on a GPU nothing is copied that
need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from math import ceil
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gliomask.model.choices import Precision
from gliomask.model.plan import Plan
from gliomask.model.sampling import Windows
from gliomask.volume import round_up_to_multiple

Window = Literal["auto", "whole", "sliding"]
Size = tuple[int, ...]
Divisor = int | tuple[int, int, int]
"""X, Y and Z must be multiples of it; or of one number each."""
OnPart = Callable[[float], None]
"""A function that is called with the completed fraction of the work, from 0 to 1."""


@dataclass(frozen=True)
class Inference:
    """Options for running a network over a volume."""

    window: Window = "auto"
    """`whole`: one pass over the brain's bounding box. `sliding`: overlapping windows of the patch size. `auto`: see
    `choose_window`."""
    mirror: bool = False
    """Average over the mirror images along the plan's axes (test-time augmentation): with three axes eight times as
    long."""
    precision: Precision = "auto"
    """`auto`: bf16 where the device computes in it in hardware, else fp32. `fp16` needs a GPU."""
    cross_check: bool = False
    """Run the network a second time on T2-FLAIR alone, if the case and the model allow it, and warn if the two whole
    tumours differ much. The mask is not changed."""


@dataclass(frozen=True)
class NetworkFacts:
    """Properties of a network that are needed to run it, independent of the engine."""

    divisor: Divisor
    """X, Y and Z of the input must be multiples of it, or of one number each."""
    norm_sees_window: bool
    """Whether the network normalizes by statistics of its input (instance or group norm)."""
    bytes_per_voxel: float
    """An estimate of the memory that one pass needs for each voxel."""
    size: Size | None = None
    """The only size `(X, Y, Z)` that the network accepts, or None if any multiple of `divisor` will do."""


class Predictor(Protocol):
    """What `predict` needs of a model: its plan, and a method that runs its network."""

    @property
    def plan(self) -> Plan:
        """The plan from the model file."""

    @property
    def name(self) -> str:
        """The model's name in messages and in the JSON of a prediction."""

    @property
    def engine(self) -> str:
        """The library that runs the network and its version, such as `torch 2.13.0`."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the model's file; empty if it was not loaded from a file."""

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = ...
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was used."""

    def get_ready(self, inference: Inference) -> None:
        """Do the preparations that do not depend on the images, so that they can run while images are read."""


class Engine(Protocol):
    """A network that is ready to run, with the functions that move arrays to its device and back."""

    @property
    def divisor(self) -> Divisor:
        """X, Y and Z of the images given to `forward` must be multiples of it, or of one number each."""

    @property
    def norm_sees_window(self) -> bool:
        """Whether the network normalizes by statistics of its input (instance or group norm)."""

    def fits(self, shape: Size) -> bool:
        """Return whether one pass over a volume `(X, Y, Z)` fits in memory."""

    def place(self, array: NDArray[np.float32]) -> Any:
        """Return the array on the device where the network runs."""

    def forward(self, images: Any) -> Any:
        """Return the logits `(1, R, X, Y, Z)`, float32, of images `(1, C, X, Y, Z)`; both are on the device."""

    def flip(self, array: Any, axes: Size) -> Any:
        """Return an array on the device with some axes reversed."""

    def fetch(self, array: Any) -> NDArray[np.float32]:
        """Return an array on the device as a NumPy array."""


def run_engine(
    engine: Engine, plan: Plan, data: NDArray[np.float32], inference: Inference, on_part: OnPart
) -> tuple[NDArray[np.float32], Window]:
    """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was used.

    The images are padded with zeros to a size that the network accepts, and the logits are cropped back. The logits of
    several passes (windows, mirror images) are averaged. After each pass `on_part` is called with the completed
    fraction of the work.
    """
    shape = data.shape[1:]
    window = choose_window(engine, plan, shape, inference)
    mirrors = mirror_images(plan.mirror_axes) if inference.mirror else [()]
    within: Sequence[Size] = [()]
    size: Size
    if window == "whole":
        run_once, size = _whole, round_up_to_multiple(shape, engine.divisor)
    else:
        if plan.windows.mirror_windows:
            mirrors, within = [()], mirrors
        run_once, size = partial(_sliding, rules=plan.windows, mirrors=within), window_size(engine, plan)
    total: NDArray[np.float32] | None = None
    for number, axes in enumerate(mirrors):
        report = partial(report_part, on_part, number, len(mirrors))
        logits = np.flip(run_once(engine, np.flip(data, axes), size, report), axes)
        total = logits if total is None else total + logits
    assert total is not None
    return total if len(mirrors) == 1 else total / np.float32(len(mirrors)), window


def mirror_images(axes: Sequence[int]) -> list[Size]:
    """Return the axes of `(C, X, Y, Z)` along which the image is flipped in each pass; none in the first.

    Args:
        axes: The axes of `(X, Y, Z)` along which it may be flipped, from 0.
    """
    spatial = [axis + 1 for axis in axes]
    return [flipped for count in range(len(spatial) + 1) for flipped in combinations(spatial, count)]


def choose_window(engine: Engine, plan: Plan, shape: Size, inference: Inference) -> Window:
    """Return the window that `inference` asks for, or for `auto` the most accurate one that fits in memory.

    The statistics that an instance or group norm uses differ between a whole brain and the patches that the network was
    trained on, which makes its predictions worse (see `gliomask docs design`). Such a network gets sliding windows,
    unless its plan says that it was trained on whole brains. All other networks get the whole volume in one pass if
    that fits in memory.
    """
    if inference.window != "auto":
        return inference.window
    needs_patches = engine.norm_sees_window and not plan.whole_brain
    return "whole" if not needs_patches and engine.fits(shape) else "sliding"


def window_size(engine: Engine, plan: Plan) -> Size:
    """Return the size of a sliding window: that of the training patches, rounded up to a multiple of the divisor."""
    return round_up_to_multiple(plan.patch_size, engine.divisor)


def report_part(on_part: OnPart, number: int, count: int, fraction: float) -> None:
    """Report overall progress from the progress of part `number` of `count` equal parts, numbered from 0."""
    on_part((number + fraction) / count)


def _whole(engine: Engine, data: NDArray[np.float32], size: Size, on_part: OnPart) -> NDArray[np.float32]:
    logits = engine.fetch(engine.forward(engine.place(_pad(data, size))))
    on_part(1.0)
    return _crop(logits[0], data.shape[1:])


def _sliding(
    engine: Engine,
    data: NDArray[np.float32],
    size: Size,
    on_part: OnPart,
    *,
    rules: Windows,
    mirrors: Sequence[Size],
) -> NDArray[np.float32]:
    padded = _pad(data, tuple(max(a, b) for a, b in zip(data.shape[1:], size, strict=True)))
    images, weights = engine.place(padded), engine.place(_weights(size, rules))
    total: Any = None
    weight = engine.place(np.zeros(padded.shape[2:], np.float32))
    corners = list(product(*(_starts(n, edge, rules) for n, edge in zip(padded.shape[2:], size, strict=True))))
    for number, corner in enumerate(corners, start=1):
        x, y, z = (slice(start, start + window) for start, window in zip(corner, size, strict=True))
        logits = _mirrored_mean(engine, images[:, :, x, y, z], mirrors)
        if total is None:
            total = engine.place(np.zeros((1, logits.shape[1], *padded.shape[2:]), np.float32))
        total[:, :, x, y, z] += logits * weights
        weight[x, y, z] += weights
        on_part(number / len(corners))
    total /= weight
    return _crop(engine.fetch(total)[0], data.shape[1:])


def _mirrored_mean(engine: Engine, images: Any, mirrors: Sequence[Size]) -> Any:
    """Return the mean logits of one window over its mirror images; the axes of each are those of `(C, X, Y, Z)`."""
    if len(mirrors) == 1:
        return engine.forward(images)
    total: Any = 0
    for axes in mirrors:
        in_batch = tuple(axis + 1 for axis in axes)
        flipped = engine.flip(images, in_batch) if axes else images
        logits = engine.forward(flipped)
        total = total + (engine.flip(logits, in_batch) if axes else logits)
    return total / len(mirrors)


def _starts(length: int, window: int, rules: Windows) -> list[int]:
    """Return the first voxel of each window along an axis, overlapping by at least what the rules say.

    The first window starts at 0 and the last one ends at `length`.
    """
    step, rest = max(1.0, window * (1 - rules.overlap)), length - window
    if rules.placement == "fixed":
        return [min(i * int(step), rest) for i in range(ceil(rest / int(step)) + 1)]
    count = ceil(rest / step) + 1
    return [round(i * rest / max(count - 1, 1)) for i in range(count)]


def _weights(size: Size, rules: Windows) -> NDArray[np.float32]:
    """Return the weight of each voxel of a window, 1 at the most."""
    if rules.sigma is None:
        return np.ones(size, np.float32)
    centres = [n // 2 if rules.centre == "voxel" else (n - 1) / 2 for n in size]
    axes = [
        np.exp(-0.5 * ((np.arange(n) - centre) / (n * rules.sigma)) ** 2).astype(np.float32)
        for n, centre in zip(size, centres, strict=True)
    ]
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(np.maximum(weights, np.float32(rules.least_weight)))


def _margins(inner: Size, outer: Size) -> list[slice]:
    return [slice((o - i) // 2, (o - i) // 2 + i) for i, o in zip(inner, outer, strict=True)]


def _pad(data: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Return the images as a batch of one, padded with zeros on all sides to a size."""
    padded = np.zeros((1, len(data), *size), np.float32)
    x, y, z = _margins(data.shape[1:], size)
    padded[0, :, x, y, z] = data
    return padded


def _crop(logits: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    x, y, z = _margins(size, logits.shape[1:])
    return logits[:, x, y, z]
