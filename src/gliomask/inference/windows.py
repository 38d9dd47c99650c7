"""A network over a volume: whole or in windows, mirrored or not; the same for every engine, and written once.

An engine moves arrays and runs the network; padding, windows, their weights and mirrors are here. The arithmetic below
is common to NumPy arrays and torch tensors, so that on a GPU nothing travels that need not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gliomask.model.choices import Precision
from gliomask.model.plan import Plan

Window = Literal["auto", "whole", "sliding"]
Size = tuple[int, ...]
OnPart = Callable[[float], None]

# Windows overlap by half; each is weighted by a Gaussian whose sigma is an eighth of it, so that borders count little.
_OVERLAP = 0.5
_SIGMA = 1 / 8

# The spatial axes of `(C, X, Y, Z)` to flip; the image as it is comes first.
_MIRRORS = [axes for count in range(4) for axes in combinations((1, 2, 3), count)]


@dataclass(frozen=True)
class Inference:
    """How a network is run over a volume."""

    window: Window = "auto"
    """`whole`: one pass over the brain's box. `sliding`: windows of the patch size. `auto`: see `choose_window`."""
    mirror: bool = False
    """Average over the eight mirror images (test-time augmentation); eight times the work."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor computes in it, else fp32. `fp16` needs a GPU."""


@dataclass(frozen=True)
class NetworkFacts:
    """What must be known of a network to run it, whatever it is made of."""

    divisor: int
    """X, Y and Z of what it takes are multiples of it."""
    norm_sees_window: bool
    """It normalizes by what its input holds (instance or group norm)."""
    bytes_per_voxel: float
    """What one pass takes in memory, to an order."""
    size: Size | None = None
    """The only X, Y and Z that it takes; None: any."""


class Predictor(Protocol):
    """What `predict` takes: a plan, and a way to run arrays."""

    @property
    def plan(self) -> Plan:
        """What goes in and comes out."""

    @property
    def name(self) -> str:
        """What the model is called in facts and messages."""

    @property
    def engine(self) -> str:
        """The library that computes and its version, for the record."""

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = ...
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was taken."""

    def get_ready(self, inference: Inference) -> None:
        """Do what can be done before the images are there, so that it can be done while they are read."""


class Engine(Protocol):
    """A network ready to run, and the arrays it runs on."""

    @property
    def divisor(self) -> int:
        """X, Y and Z of what `forward` takes are multiples of it."""

    @property
    def norm_sees_window(self) -> bool:
        """Whether the network normalizes by what its input holds (instance or group norm)."""

    def fits(self, shape: Size) -> bool:
        """Tell whether one pass over `(X, Y, Z)` fits in memory."""

    def place(self, array: NDArray[np.float32]) -> Any:
        """Return the array where the network computes."""

    def forward(self, images: Any) -> Any:
        """Return logits `(1, R, X, Y, Z)` as float32 of images `(1, C, X, Y, Z)`, both placed."""

    def fetch(self, array: Any) -> NDArray[np.float32]:
        """Return a placed array as NumPy's."""


def run_engine(
    engine: Engine, plan: Plan, data: NDArray[np.float32], inference: Inference, on_part: OnPart
) -> tuple[NDArray[np.float32], Window]:
    """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was taken.

    The images are padded with zeros to sizes the network takes, and the answer is cut back. Several passes (windows,
    mirrors) are averaged as logits. After each, `on_part` is called with the share of the work that is done.
    """
    shape = data.shape[1:]
    window = choose_window(engine, plan, shape, inference)
    once = _whole if window == "whole" else _sliding
    size = _multiple(shape, engine.divisor) if window == "whole" else window_size(engine, plan)
    mirrors = _MIRRORS if inference.mirror else _MIRRORS[:1]
    total: NDArray[np.float32] | None = None
    for number, axes in enumerate(mirrors):
        report = partial(report_part, on_part, number, len(mirrors))
        answer = np.flip(once(engine, np.flip(data, axes), size, report), axes)
        total = answer if total is None else total + answer
    assert total is not None
    return total if len(mirrors) == 1 else total / np.float32(len(mirrors)), window


def choose_window(engine: Engine, plan: Plan, shape: Size, inference: Inference) -> Window:
    """Return the window that `inference` asks for, or under `auto` the one that answers best and fits.

    A network with instance or group norm sees other statistics in a whole brain than in the patches it was trained on,
    and answers worse there (docs/design.md has the figures): it gets windows, unless its plan says that whole brains
    are what it was trained on. Any other gets the whole volume in one pass where that fits in memory.
    """
    if inference.window != "auto":
        return inference.window
    knows_patches = engine.norm_sees_window and not getattr(plan, "whole_brain", False)
    return "whole" if not knows_patches and engine.fits(shape) else "sliding"


def window_size(engine: Engine, plan: Plan) -> Size:
    """Return the size of a sliding window: the patches', to the next size that the network takes."""
    return _multiple(plan.patch_size, engine.divisor)


def report_part(on_part: OnPart, number: int, count: int, share: float) -> None:
    """Call `on_part` with the share of a whole of which one of several equal parts is done to a share."""
    on_part((number + share) / count)


def _multiple(size: Size, divisor: int) -> Size:
    return tuple(-(-n // divisor) * divisor for n in size)


def _whole(engine: Engine, data: NDArray[np.float32], size: Size, on_part: OnPart) -> NDArray[np.float32]:
    answer = engine.fetch(engine.forward(engine.place(_pad(data, size))))
    on_part(1.0)
    return _cut_back(answer[0], data.shape[1:])


def _sliding(engine: Engine, data: NDArray[np.float32], size: Size, on_part: OnPart) -> NDArray[np.float32]:
    padded = _pad(data, tuple(max(a, b) for a, b in zip(data.shape[1:], size, strict=True)))
    images, weights = engine.place(padded), engine.place(_gaussian(size))
    total: Any = None
    weight = engine.place(np.zeros(padded.shape[2:], np.float32))
    places = list(product(*(_starts(n, window) for n, window in zip(padded.shape[2:], size, strict=True))))
    for number, place in enumerate(places, start=1):
        x, y, z = (slice(start, start + window) for start, window in zip(place, size, strict=True))
        logits = engine.forward(images[:, :, x, y, z])
        if total is None:
            total = engine.place(np.zeros((1, logits.shape[1], *padded.shape[2:]), np.float32))
        total[:, :, x, y, z] += logits * weights
        weight[x, y, z] += weights
        on_part(number / len(places))
    total /= weight
    return _cut_back(engine.fetch(total)[0], data.shape[1:])


def _starts(length: int, window: int) -> list[int]:
    """The windows' first voxels: evenly spread, overlapping by half at least, ending with the axis."""
    step = max(1, int(window * (1 - _OVERLAP)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / max(count - 1, 1)) for i in range(count)]


def _gaussian(size: Size) -> NDArray[np.float32]:
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n * _SIGMA)) ** 2).astype(np.float32) for n in size]
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(np.maximum(weights, np.float32(1e-4)))  # a voxel that only a corner sees still gets an answer


def _margins(inner: Size, outer: Size) -> list[slice]:
    return [slice((o - i) // 2, (o - i) // 2 + i) for i, o in zip(inner, outer, strict=True)]


def _pad(data: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """The images as a batch of one in the middle of zeros."""
    padded = np.zeros((1, len(data), *size), np.float32)
    x, y, z = _margins(data.shape[1:], size)
    padded[0, :, x, y, z] = data
    return padded


def _cut_back(answer: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    x, y, z = _margins(size, answer.shape[1:])
    return answer[:, x, y, z]
