"""A model: a plan and its network, in one file that executes nothing when it is loaded."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, unknown_name
from gliomask.files import write_bytes
from gliomask.inference.windows import Inference, OnPart, Predictor, Window
from gliomask.model.file import (
    SHIPPED,
    Bits,
    find_model,
    is_onnx,
    make_record,
    misfit,
    pack,
    read_plan,
    read_weights,
)
from gliomask.model.plan import Plan
from gliomask.networks import build_network

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

EngineName = Literal["auto", "openvino", "torch"]
ENGINES = ("auto", "openvino", "torch")


@dataclass(frozen=True)
class Model:
    """A plan and the torch network that was trained for it; an `inference.Predictor`."""

    plan: Plan
    network: nn.Module
    name: str
    """The file it was loaded from, or what it is called until it is saved."""

    @property
    def engine(self) -> str:
        """The library that computes and its version, for the record."""
        return f"torch {require_torch().__version__}"

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was taken.

        Raises:
            InputError: The memory is not enough, or the precision is not to be had on the device.
        """
        from gliomask.inference.torch_engine import run_network

        return run_network(self.network, self.plan, data, inference, on_part)

    def get_ready(self, inference: Inference) -> None:
        """Nothing to do before the images are there."""


def load_model(
    path: Path | str | None = None, *, device: str = "auto", engine: EngineName = "auto", threads: int | None = None
) -> Predictor:
    """Return the model in a file, ready to predict; without a path the one inside the package.

    Args:
        path: A model file, safetensors or ONNX (which only OpenVINO runs).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        engine: `auto`: on a GPU PyTorch; on a processor OpenVINO, where it is installed and knows the network, else
            PyTorch.
        threads: Of the processor; by default one a core.

    Raises:
        InputError: The file is missing, cut, no model of gliomask's, its weights do not fit its plan, or what is
            needed to run it is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    name = SHIPPED if path is None else str(path)
    file = find_model(path)
    on_processor = device == "cpu" or (device == "auto" and (is_onnx(file) or engine == "openvino" or not has_gpu()))
    if not on_processor and (is_onnx(file) or engine == "openvino"):
        raise InputError(f"{file}: OpenVINO computes on the processor here, not on {device!r}: -d cpu, or -d auto.")
    if engine == "torch" or not on_processor:
        return load_torch_model(file, device=device, name=name, threads=threads)
    plan = read_plan(file)
    try:
        from gliomask.inference.openvino_engine import can_build, load_openvino_model

        if can_build(file, plan):
            return load_openvino_model(file, name, threads=threads)
    except (ImportError, OSError, RuntimeError) as error:
        if engine == "openvino" or is_onnx(file):
            raise InputError(f"OpenVINO does not work here ({error}): pip install openvino.") from error
        _say_once(f"OpenVINO does not work here ({error}); PyTorch computes instead.")
    else:
        if engine == "openvino" or find_spec("torch") is None:
            raise InputError(
                f"{file}: OpenVINO cannot build {plan.network} from its weights. Install PyTorch (pip install "
                "'gliomask[train]'), or have the model turned into ONNX once, where that is installed: gliomask export."
            )
    return load_torch_model(file, device=device, name=name, threads=threads)


def load_torch_model(
    path: Path | str, *, device: str = "cpu", name: str | None = None, threads: int | None = None
) -> Model:
    """Return the model in a file with its network as a torch module on a device, in evaluation.

    Raises:
        InputError: As for `load_model`.
    """
    torch = require_torch()
    from gliomask.inference.torch_engine import get_device

    path = Path(path)
    if is_onnx(path):
        raise InputError(f"{path}: an ONNX file runs in OpenVINO only; PyTorch takes the .safetensors it came from.")
    if threads:
        torch.set_num_threads(threads)
    model = new_model(read_plan(path), name=name or str(path))
    weights = read_weights(path)
    try:
        model.network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    except RuntimeError as error:
        raise misfit(path, model.plan) from error
    model.network.eval().to(get_device(device))
    return model


def new_model(plan: Plan, *, seed: int = 0, name: str = "untrained") -> Model:
    """Return a model with freshly initialised weights, the same ones for the same seed.

    Raises:
        InputError: The plan's network or an argument of it is unknown, or torch is not installed.
    """
    torch = require_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(plan.network, len(plan.modalities), len(plan.regions), **plan.network_arguments)
    return Model(plan, network, name)


def load_weights(model: Model, path: Path | str) -> None:
    """Fill a model with the weights of another one of its kind, whose sequences may be others.

    What a network does with a sequence that both know goes over to it, wherever it stands in the order. A sequence
    that is new begins with weights of zero: the model starts as the one it comes from, and learns to use it.

    Raises:
        InputError: The file is missing, damaged, or its network is of another shape.
    """
    torch = require_torch()
    path = Path(path)
    plan = read_plan(path)
    kinds = [
        f"{name} {getattr(plan, name)!r}, not {getattr(model.plan, name)!r}"
        for name in ("network", "network_arguments", "regions")
        if getattr(plan, name) != getattr(model.plan, name)
    ]
    if kinds:
        raise InputError(f"{path}: its weights are of another kind of network: {'; '.join(kinds)}.")
    before = plan.modalities
    weights = {name: torch.from_numpy(value) for name, value in read_weights(path).items()}
    for name, axis in _sequence_axes(model.plan).items():
        old = weights[name].movedim(axis, 0)
        zero = old.new_zeros(old.shape[1:])
        columns = [old[before.index(m)] if m in before else zero for m in model.plan.modalities]
        weights[name] = torch.stack(columns, dim=axis)
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(path, plan) from error


def save_model(model: Model, path: Path, *, training: Mapping[str, object] | None = None, bits: Bits = 32) -> None:
    """Write a model as one safetensors file, whole or not at all: weights, and the plan as JSON in the header.

    Args:
        model: The model.
        path: Where to; `.safetensors` by custom. An older file is replaced.
        training: Facts for the record (epoch, scores); kept in the header, never needed to predict.
        bits: How kernels are stored: in 16 bits as float16, in 8 as whole numbers with a scale for each channel. They
            are float32 again when loaded.

    Raises:
        InputError: The place cannot be written to, or the disk is full.
    """
    from safetensors.numpy import save

    stored: dict[str, NDArray[Any]] = {}
    for name, value in model.network.state_dict().items():
        stored |= pack(name, np.asarray(value.detach().cpu().numpy(), order="C"), bits)
    write_bytes(path, save(stored, metadata=make_record(model.plan, training)))


def has_gpu() -> bool:
    """Tell whether PyTorch would find a GPU that it calls CUDA, without importing it where there is none."""
    if find_spec("torch") is None or not _has_driver():
        return False
    return bool(require_torch().cuda.is_available())


def require_torch() -> Any:
    """Return the torch module.

    Raises:
        InputError: It is not installed; the message says how to get it.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is not installed, and networks need it: pip install 'gliomask[train]' "
            "(on Linux that brings CUDA; see the README for the CPU build)."
        ) from error
    return torch


@cache
def _say_once(text: str) -> None:
    log.warning(text)


@cache
def _has_driver() -> bool:
    """Whether CUDA's driver finds a device, or AMD's is there: a millisecond, not the seconds of importing torch."""
    if Path("/dev/kfd").exists():
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return int(driver.cuInit(0)) == 0
    except (OSError, AttributeError):
        return False


def _sequence_axes(plan: Plan) -> dict[str, int]:
    """Which axis of which weight counts the sequences: the one that grows with them."""
    torch = require_torch()
    with torch.device("meta"):
        one, more = (
            build_network(plan.network, len(plan.modalities) + extra, len(plan.regions), **plan.network_arguments)
            for extra in (0, 1)
        )
    shapes = {name: value.shape for name, value in one.state_dict().items()}
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(shapes[name], value.shape, strict=True)) if a != b)
        for name, value in more.state_dict().items()
        if value.shape != shapes[name]
    }
