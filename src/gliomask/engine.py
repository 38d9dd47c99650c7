"""A model as a function of arrays: whole or in windows, mirrored or not, on the device that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.errors import InputError
from gliomask.model import Model
from gliomask.networks.blocks import InstanceNorm

Window = Literal["auto", "whole", "sliding"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
OnPart = Callable[[float], None]

# Windows overlap by half; each is weighted by a Gaussian whose sigma is an eighth of it, so that borders count little.
_OVERLAP = 0.5
_SIGMA = 1 / 8

# What one pass over a whole brain may take beside the libraries and the images, so that predicting stays under 2 GB.
_WHOLE_PASS_BYTES = 1_200_000_000
# The most that is alive at once in an encoder-decoder, in units of its largest layer's output: a skip, the upsampled
# features, the two joined (twice one), a convolution's output and its normalized copy.
_LARGEST_OUTPUTS_ALIVE = 6

# The axes to flip of (B, C, X, Y, Z); the image as it is comes first.
_MIRRORS = [axes for count in range(4) for axes in combinations((2, 3, 4), count)]


@dataclass(frozen=True)
class Inference:
    """How a network is run over a volume."""

    window: Window = "auto"
    """`whole`: one pass over the brain's box. `sliding`: windows of the patch size. `auto`: see `choose_window`."""
    mirror: bool = False
    """Average over the eight mirror images (test-time augmentation); eight times the work."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor computes in it, else fp32. `fp16` needs a GPU."""


def run_network(
    model: Model, data: NDArray[np.float32], inference: Inference, *, on_part: OnPart = lambda _: None
) -> tuple[Tensor, Window]:
    """Return the logits `(R, x, y, z)` for prepared images `(C, x, y, z)`, and the window that was taken.

    The images are padded with zeros to sizes the network takes, and the answer is cut back. Several passes (windows,
    mirrors) are averaged as logits. After each, `on_part` is called with the share of the work that is done.

    Raises:
        InputError: The memory is not enough, or the precision is not to be had on the device.
    """
    try:
        return _run(model, data, inference, on_part)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        shape = " x ".join(map(str, data.shape))
        raise InputError(
            f"not enough memory for {model.plan.network} on {shape} voxels (window {inference.window}). Take --window "
            "sliding, another --device, or a model that was trained on smaller patches."
        ) from error


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a CPU or GPU has no memory left; torch says it in several ways."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "bad allocation"))


def _run(model: Model, data: NDArray[np.float32], inference: Inference, on_part: OnPart) -> tuple[Tensor, Window]:
    network = model.network
    device = next(network.parameters()).device
    images = torch.from_numpy(data)[None].to(device, memory_format=torch.channels_last_3d)
    divisor = cast(int, network.divisor)
    with torch.inference_mode(), _evaluating(network), autocast(device, inference.precision):
        window = choose_window(model, images, inference)
        once = _whole if window == "whole" else _sliding
        size = _multiple(images.shape[2:] if window == "whole" else model.plan.patch_size, divisor)
        axes: list[tuple[int, ...]] = [()]
        if inference.mirror:
            axes = [
                tuple(a for a, flipped in zip((2, 3, 4), flips, strict=True) if flipped)
                for flips in product((0, 1), repeat=3)
            ]
        total = torch.zeros((1, len(model.plan.regions), *images.shape[2:]), device=device)
        for number, flipped in enumerate(axes):
            report = partial(_report, on_part, number, len(axes))
            total += once(network, images.flip(flipped), size, report).flip(flipped)
    return (total[0] / len(axes)).cpu(), window


def choose_window(model: Model, images: Tensor, inference: Inference) -> Window:
    """Return the window that `inference` asks for, or under `auto` the one that answers best and fits.

    A network with instance or group norm sees other statistics in a whole brain than in the patches it was trained on,
    and answers worse there (docs/design.md has the figures): it gets windows. Any other gets the whole volume in one
    pass where that fits in memory: on a CPU 1.2 GB, on a GPU half of what is free. What a pass takes is told from the
    largest layer of a pass over a small cube.
    """
    if inference.window != "auto":
        return inference.window
    if not model.plan.whole_brain and any(
        isinstance(module, InstanceNorm | nn.InstanceNorm3d | nn.GroupNorm) for module in model.network.modules()
    ):
        return "sliding"
    on_gpu = images.device.type == "cuda"
    budget = torch.cuda.mem_get_info(images.device)[0] // 2 if on_gpu else _WHOLE_PASS_BYTES
    edge = 2 * cast(int, model.network.divisor)
    largest = 0

    def note(_: nn.Module, __: Any, output: Tensor) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    handles = [module.register_forward_hook(note) for module in model.network.modules()]
    try:
        model.network(images.new_zeros(1, images.shape[1], edge, edge, edge))
    finally:
        for handle in handles:
            handle.remove()
    needed = largest * _LARGEST_OUTPUTS_ALIVE * images[0, 0].numel() / edge**3
    return "whole" if needed <= budget else "sliding"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which convolutions run in half precision, or one that changes nothing.

    Raises:
        InputError: fp16 is asked for on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 needs a GPU; on this device take bf16, fp32 or auto.")
    wanted = precision in ("bf16", "fp16") or (precision == "auto" and computes_in_bf16(device))
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=wanted)


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether the device has units for bfloat16, so that it is faster there and not emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def get_device(name: str) -> torch.device:
    """Return the device of a name: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        InputError: There is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r} (known: auto, cpu, cuda, cuda:0, mps).") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise InputError(f"device {name!r} is not on this machine (or this PyTorch was built without it). Use -d auto.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: there are {torch.cuda.device_count()} GPUs, from cuda:0. Use -d auto.")
    return device


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _multiple(size: tuple[int, ...] | torch.Size, divisor: int) -> tuple[int, ...]:
    return tuple(-(-n // divisor) * divisor for n in size)


def _report(on_part: OnPart, number: int, count: int, share: float) -> None:
    on_part((number + share) / count)


def _whole(network: nn.Module, images: Tensor, size: tuple[int, ...], on_part: OnPart) -> Tensor:
    answer = _cut_back(network(_pad(images, size)).float(), images.shape[2:])
    on_part(1.0)
    return answer


def _sliding(network: nn.Module, images: Tensor, size: tuple[int, ...], on_part: OnPart) -> Tensor:
    padded = _pad(images, tuple(max(a, b) for a, b in zip(images.shape[2:], size, strict=True)))
    weights = _gaussian(size, images.device)
    total: Tensor | None = None
    weight = torch.zeros(padded.shape[2:], device=images.device)
    places = list(product(*(_starts(n, window) for n, window in zip(padded.shape[2:], size, strict=True))))
    for number, place in enumerate(places, start=1):
        x, y, z = (slice(start, start + window) for start, window in zip(place, size, strict=True))
        logits = network(padded[:, :, x, y, z].contiguous(memory_format=torch.channels_last_3d)).float()
        if total is None:
            total = torch.zeros((1, logits.shape[1], *padded.shape[2:]), device=images.device)
        total[:, :, x, y, z] += logits * weights
        weight[x, y, z] += weights
        on_part(number / len(places))
    assert total is not None
    return _cut_back(total / weight, images.shape[2:])


def _starts(length: int, window: int) -> list[int]:
    """The windows' first voxels: evenly spread, overlapping by half at least, ending with the axis."""
    step = max(1, int(window * (1 - _OVERLAP)))
    count = -(-(length - window) // step) + 1
    return [round(i * (length - window) / max(count - 1, 1)) for i in range(count)]


def _gaussian(size: tuple[int, ...], device: torch.device) -> Tensor:
    axes = [torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n * _SIGMA)) ** 2) for n in size]
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return weights.clamp_min(1e-4).to(device)  # a voxel that only a corner sees still gets an answer


def _margins(inner: torch.Size, outer: tuple[int, ...]) -> list[tuple[int, int]]:
    return [((o - i) // 2, o - i - (o - i) // 2) for i, o in zip(inner, outer, strict=True)]


def _pad(images: Tensor, size: tuple[int, ...]) -> Tensor:
    margins = _margins(images.shape[2:], size)
    return F.pad(images, [side for pair in reversed(margins) for side in pair]).contiguous(
        memory_format=torch.channels_last_3d
    )


def _cut_back(answer: Tensor, size: torch.Size) -> Tensor:
    starts = [low for low, _ in _margins(size, tuple(answer.shape[2:]))]
    x, y, z = (slice(start, start + n) for start, n in zip(starts, size, strict=True))
    return answer[:, :, x, y, z]
