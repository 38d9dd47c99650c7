"""A network of torch as an engine, on the device that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.inference.windows import Inference, OnPart, Size, Window, run_engine
from gliomask.model.choices import Precision
from gliomask.model.plan import Plan
from gliomask.networks.blocks import InstanceNorm

# What one pass over a whole brain may take beside the libraries and the images, so that predicting stays under 2 GB.
WHOLE_PASS_BYTES = 1_200_000_000
# The most that is alive at once in an encoder-decoder, in units of its largest layer's output: a skip, the upsampled
# features, the two joined (twice one), a convolution's output and its normalized copy.
_LARGEST_OUTPUTS_ALIVE = 6


def run_network(
    network: nn.Module, plan: Plan, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
) -> tuple[NDArray[np.float32], Window]:
    """Return the logits `(R, x, y, z)` for prepared images `(C, x, y, z)`; see `inference.run_engine`.

    The network stays in the mode it is in, training or evaluation.

    Raises:
        InputError: The memory is not enough, or the precision is not to be had on the device.
    """
    engine = TorchEngine(network, len(plan.modalities))
    try:
        with torch.inference_mode(), _evaluating(network), autocast(engine.device, inference.precision):
            return run_engine(engine, plan, data, inference, on_part)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        shape = " x ".join(map(str, data.shape))
        raise InputError(
            f"not enough memory for {plan.network} on {shape} voxels (window {inference.window}). Take --window "
            "sliding, another --device, or a model that was trained on smaller patches."
        ) from error


class TorchEngine:
    """A torch network as `inference.Engine`, on the device of its weights; in channels_last_3d, the faster layout."""

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        self.network = network
        self.in_channels = in_channels
        self.device = next(network.parameters()).device
        self.divisor = cast(int, network.divisor)

    @property
    def norm_sees_window(self) -> bool:
        """Whether the network normalizes by what its input holds."""
        by_window = (InstanceNorm, nn.InstanceNorm3d, nn.GroupNorm)
        return any(isinstance(module, by_window) for module in self.network.modules())

    def fits(self, shape: Size) -> bool:
        """Tell whether one pass over `(X, Y, Z)` fits: on a CPU in 1.2 GB, on a GPU in half of what is free."""
        on_gpu = self.device.type == "cuda"
        budget = torch.cuda.mem_get_info(self.device)[0] // 2 if on_gpu else WHOLE_PASS_BYTES
        return self.bytes_per_voxel * float(np.prod(shape)) <= budget

    @cached_property
    def bytes_per_voxel(self) -> float:
        """What a pass takes for each voxel, told from the largest layer of a pass over a small cube."""
        edge = 2 * self.divisor
        largest = 0

        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            nonlocal largest
            if isinstance(output, Tensor):
                largest = max(largest, output.numel() * output.element_size())

        handles = [module.register_forward_hook(note) for module in self.network.modules()]
        try:
            self.network(torch.zeros(1, self.in_channels, edge, edge, edge, device=self.device))
        finally:
            for handle in handles:
                handle.remove()
        return largest * _LARGEST_OUTPUTS_ALIVE / edge**3

    def place(self, array: NDArray[np.float32]) -> Tensor:
        """Return the array as a tensor on the device; on a CPU the same memory."""
        return torch.from_numpy(array).to(self.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits as float32."""
        return cast(Tensor, self.network(images.contiguous(memory_format=torch.channels_last_3d)).float())

    def fetch(self, array: Tensor) -> NDArray[np.float32]:
        """Return a tensor as NumPy's array."""
        return array.cpu().numpy()


def is_lack_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a CPU or GPU has no memory left; torch says it in several ways."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "bad allocation"))


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
