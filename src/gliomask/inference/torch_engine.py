"""A torch network as an inference engine, on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import get_ident
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gliomask.errors import InputError, is_lack_of_memory
from gliomask.execution import given_cores, usable_cores
from gliomask.inference.windows import Divisor, Inference, OnPart, Size, Window, run_engine
from gliomask.model.choices import Precision, check_device_name
from gliomask.model.plan import Plan
from gliomask.networks.blocks import InstanceNorm
from gliomask.volume import round_up_to_multiple

# The memory that one pass over a whole brain may need on a CPU, in addition to the libraries and the images, so that
# prediction stays under 2 GB.
WHOLE_PASS_BYTES = 1_200_000_000
# The peak memory of an encoder-decoder in units of its largest layer's output: a skip connection (1), the upsampled
# features (1), their concatenation (2), a convolution's output (1) and its normalized copy (1).
_LARGEST_OUTPUTS_ALIVE = 6


def run_network(
    network: nn.Module, plan: Plan, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
) -> tuple[NDArray[np.float32], Window]:
    """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)` and the window used; see `run_engine`.

    The network is left in the mode it was in, training or evaluation.

    Raises:
        InputError: The memory is not sufficient, or the device does not support the precision.
    """
    engine = TorchEngine(network, len(plan.modalities))
    try:
        with torch.inference_mode(), _evaluating(network), autocast(engine.device, inference.precision):
            return run_engine(engine, plan, data, inference, on_part)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        shape = " x ".join(map(str, data.shape))
        smaller = "" if inference.window == "sliding" else "--window sliding, "
        raise InputError(
            f"not enough memory for {plan.network} on {shape} voxels (window {inference.window}). Close other "
            f"programs, or use {smaller}another --device, or a model that was trained on smaller patches."
        ) from error


class TorchEngine:
    """A torch network as an `Engine`, on the device of its weights; images are in channels_last_3d, which is faster."""

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        self.network = network
        self.in_channels = in_channels
        self.device = next(network.parameters()).device
        steps = cast(tuple[int, int, int], getattr(network, "divisors", (network.divisor,) * 3))
        self.divisor: Divisor = steps if len(set(steps)) > 1 else steps[0]

    @property
    def norm_sees_window(self) -> bool:
        """Whether the network normalizes by statistics of its input (instance or group norm)."""
        by_window = (InstanceNorm, nn.InstanceNorm3d, nn.GroupNorm)
        return any(isinstance(module, by_window) for module in self.network.modules())

    def fits(self, shape: Size) -> bool:
        """Return whether one pass over `(X, Y, Z)` fits in 1.2 GB on a CPU, or in half of the free memory of a GPU."""
        on_gpu = self.device.type == "cuda"
        budget = torch.cuda.mem_get_info(self.device)[0] // 2 if on_gpu else WHOLE_PASS_BYTES
        return self.bytes_per_voxel * float(np.prod(shape)) <= budget

    @cached_property
    def bytes_per_voxel(self) -> float:
        """The estimated memory of a pass for each voxel, from the largest layer output in a pass over a small cube."""
        size = [2 * edge for edge in round_up_to_multiple((1, 1, 1), self.divisor)]
        largest, thread = 0, get_ident()

        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            nonlocal largest
            if isinstance(output, Tensor) and get_ident() == thread:  # another thread may use the network too
                largest = max(largest, output.numel() * output.element_size())

        handles = [module.register_forward_hook(note) for module in self.network.modules()]
        try:
            self.network(torch.zeros(1, self.in_channels, *size, device=self.device))
        finally:
            for handle in handles:
                handle.remove()
        return largest * _LARGEST_OUTPUTS_ALIVE / float(np.prod(size))

    def place(self, array: NDArray[np.float32]) -> Tensor:
        """Return the array as a tensor on the network's device; on a CPU they share memory."""
        return torch.from_numpy(array).to(self.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits as float32."""
        return cast(Tensor, self.network(images.contiguous(memory_format=torch.channels_last_3d)).float())

    def flip(self, array: Tensor, axes: Size) -> Tensor:
        """Return a tensor with some axes reversed."""
        return array.flip(axes)

    def fetch(self, array: Tensor) -> NDArray[np.float32]:
        """Return a tensor as a NumPy array."""
        return array.cpu().numpy()


def limit_threads(threads: int | None) -> None:
    """Let torch use so many processor threads; by default no more than the cores that this process may use."""
    cores = usable_cores()
    if threads or given_cores() or cores < torch.get_num_threads():
        torch.set_num_threads(threads or cores)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which convolutions run in half precision, or one without effect.

    Raises:
        InputError: fp16 is asked for on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 needs a GPU; use bf16, fp32 or auto on this device.")
    wanted = precision in ("bf16", "fp16") or (precision == "auto" and computes_in_bf16(device))
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=wanted)


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16 in hardware, so that it is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def get_device(name: str) -> torch.device:
    """Return the torch device with that name: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        InputError: This machine has no such device.
    """
    check_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise InputError(
            f"device {name!r} is not available: this machine does not have it, or this PyTorch was built without "
            "support for it. Use -d auto."
        )
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r} is not available: this machine has {torch.cuda.device_count()} GPUs, numbered from "
            "cuda:0. Use -d auto."
        )
    return device


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
