"""Loading and saving models: a plan and its network in one file; loading a file never executes code from it."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, unknown_name
from gliomask.execution.memory import return_memory
from gliomask.extras import install_command
from gliomask.files import write_bytes
from gliomask.foreign import find_model, model_digest, read_plan, read_weights
from gliomask.inference.windows import Inference, OnPart, Predictor, Window
from gliomask.model.choices import check_device_name
from gliomask.model.file import (
    SHIPPED,
    Bits,
    is_onnx,
    make_record,
    misfit,
    pack,
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
    """A plan and the torch network that was trained for it; a `Predictor`."""

    plan: Plan
    network: nn.Module
    name: str
    """The path of its file, or a description if it has not been saved."""
    digest: str = ""
    """The SHA-256 of the file it was loaded from; empty if it was not loaded from a file."""

    @property
    def engine(self) -> str:
        """The library that runs the network and its version, such as `torch 2.13.0`."""
        return f"torch {require_torch().__version__}"

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was used.

        Raises:
            InputError: The memory is not sufficient, or the device does not support the precision.
        """
        from gliomask.inference.torch_engine import run_network

        return run_network(self.network, self.plan, data, inference, on_part)

    def get_ready(self, inference: Inference) -> None:
        """Do nothing: a torch network needs no preparation."""


def load_model(
    path: Path | str | None = None, *, device: str = "auto", engine: EngineName = "auto", threads: int | None = None
) -> Predictor:
    """Return the model in a file, ready to predict; without a path the model inside the package.

    Args:
        path: A model file, safetensors or ONNX, or a model made by another program (see `foreign`); ONNX runs in
            OpenVINO only.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        engine: `auto` uses PyTorch on a GPU. On a processor it uses OpenVINO if that is installed and supports the
            network, else PyTorch.
        threads: Processor threads; by default one for each core that may be used.

    Raises:
        InputError: The file is missing, damaged or not a gliomask model, its weights do not fit its plan, or a package
            that is needed to run it is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    check_device_name(device)
    name = SHIPPED if path is None else str(path)
    file = find_model(path)
    needs_openvino = is_onnx(file) or engine == "openvino"
    on_processor = device == "cpu" or (device == "auto" and (needs_openvino or not has_gpu()))
    if needs_openvino and not on_processor:
        raise InputError(f"{file}: OpenVINO runs on the processor only, not on {device!r}. Use -d cpu or -d auto.")
    if on_processor:
        return_memory()
    if on_processor and engine != "torch":
        model = _load_with_openvino(file, name, threads, required=needs_openvino)
        if model is not None:
            return model
    return load_torch_model(file, device=device, name=name, threads=threads)


def _load_with_openvino(file: Path, name: str, threads: int | None, *, required: bool) -> Predictor | None:
    """Return the model in OpenVINO, or None if PyTorch should be used instead.

    Raises:
        InputError: OpenVINO cannot run the model, and it is required or PyTorch is not installed.
    """
    plan = read_plan(file)
    try:
        from gliomask.inference.openvino_engine import can_build, load_openvino_model

        if can_build(file, plan):
            return load_openvino_model(file, name, threads=threads)
    except (ImportError, OSError, RuntimeError) as error:
        if required:
            raise InputError(f"OpenVINO does not work here ({error}): pip install openvino.") from error
        _warn_once(f"OpenVINO does not work here ({error}); PyTorch is used instead.")
        return None
    if required or find_spec("torch") is None:
        raise InputError(
            f"{file}: OpenVINO cannot build {plan.network} from its weights. Install PyTorch "
            f"({install_command('train')}), or export the model to ONNX where PyTorch is installed: gliomask export."
        )
    return None


def load_torch_model(
    path: Path | str, *, device: str = "cpu", name: str | None = None, threads: int | None = None
) -> Model:
    """Return the model in a file with its network as a torch module on a device, in evaluation mode.

    Raises:
        InputError: As for `load_model`.
    """
    require_torch()
    from gliomask.inference.torch_engine import get_device, limit_threads

    path = find_model(path)
    if is_onnx(path):
        raise InputError(f"{path}: ONNX files run in OpenVINO only. For PyTorch use the .safetensors file.")
    limit_threads(threads)
    model = model_of(read_plan(path), read_weights(path), path, name=name)
    model.network.to(get_device(device))
    return replace(model, digest=model_digest(path))


def model_of(plan: Plan, weights: Mapping[str, NDArray[Any]], path: Path, *, name: str | None = None) -> Model:
    """Return the model with a plan and weights that were read from a path, on the CPU and in evaluation mode.

    Raises:
        InputError: The weights do not fit the plan, or torch is not installed.
    """
    torch = require_torch()
    _check_shapes(path, plan, weights)
    model = new_model(plan, name=name or str(path))
    try:
        model.network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    except RuntimeError as error:
        raise misfit(path, plan) from error
    model.network.eval()
    return model


def _check_shapes(path: Path, plan: Plan, weights: Mapping[str, NDArray[Any]]) -> None:
    """Refuse weights that are not those of the plan's network, before memory is allocated for it.

    Raises:
        InputError: As said, or the network cannot be built from the plan's arguments.
    """
    try:
        with require_torch().device("meta"):  # tensors with shapes and without memory
            network = _build(plan, "its plan")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if shapes != {name: value.shape for name, value in weights.items()}:
        raise misfit(path, plan)


def new_model(plan: Plan, *, seed: int = 0, name: str = "untrained") -> Model:
    """Return a model with newly initialised weights; the same seed gives the same weights.

    Raises:
        InputError: The plan's network or an argument of it is unknown, or torch is not installed.
    """
    torch = require_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(plan, name)
    return Model(plan, network, name)


def _build(plan: Plan, where: str) -> nn.Module:
    try:
        return build_network(plan.network, len(plan.modalities), plan.output_channels, **plan.network_arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        arguments = str(plan.network_arguments)[:200]
        raise InputError(f"{where}: {plan.network} cannot be built from its arguments {arguments}: {error}.") from error


def load_weights(model: Model, path: Path | str) -> None:
    """Copy the weights in a model file to a model with the same network, whose sequences may differ.

    The weights for sequences that both models have are copied, whatever the order of the sequences. The weights for
    sequences that only the new model has are set to zero, so that its logits are those of the old model until it is
    trained.

    Raises:
        InputError: The file is missing or damaged, or its network or the orientation of its images differs.
    """
    torch = require_torch()
    path = find_model(path)
    if is_onnx(path):
        raise InputError(
            f"{path}: an ONNX file cannot be trained further. Name the .safetensors file it was made from."
        )
    plan = read_plan(path)
    differences = [
        f"{name} {getattr(plan, name)!r}, not {getattr(model.plan, name)!r}"
        for name in ("network", "network_arguments", "regions", "axes")
        if getattr(plan, name) != getattr(model.plan, name)
    ]
    if differences:
        raise InputError(f"{path}: its weights are for another network: {'; '.join(differences)}.")
    arrays = read_weights(path)
    _check_shapes(path, plan, arrays)
    weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
    for name, axis in _sequence_axes(model.plan).items():
        old = weights[name].movedim(axis, 0)
        zero = old.new_zeros(old.shape[1:])
        by_sequence = dict(zip(plan.modalities, old, strict=True))
        weights[name] = torch.stack([by_sequence.get(m, zero) for m in model.plan.modalities], dim=axis)
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(path, plan) from error


def save_model(model: Model, path: Path, *, training: Mapping[str, object] | None = None, bits: Bits = 32) -> None:
    """Write a model as one safetensors file, whole or not at all: weights, and the plan as JSON in the header.

    Args:
        model: The model.
        path: The file to write, by custom ending in `.safetensors`; an older file is replaced.
        training: Facts for the training record in the header (epoch, scores); prediction does not need them.
        bits: How kernels are stored: 16 for float16, 8 for integers with a scale for each output channel. They are
            converted to float32 when the file is loaded.

    Raises:
        InputError: The file cannot be written.
    """
    from safetensors.numpy import save

    stored: dict[str, NDArray[Any]] = {}
    for name, value in model.network.state_dict().items():
        stored |= pack(name, np.asarray(value.detach().cpu().numpy(), order="C"), bits)
    write_bytes(path, save(stored, metadata=make_record(model.plan, training)))


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU as `cuda`; PyTorch is imported only where a driver is found."""
    if find_spec("torch") is None or not _has_driver():
        return False
    return bool(require_torch().cuda.is_available())


def require_torch() -> Any:
    """Return the torch module.

    Raises:
        InputError: PyTorch is not installed; the message says how to install it.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"this needs PyTorch, which is part of the extra train: {install_command('train')} "
            "(on Linux that installs CUDA too; the README says how to get the smaller CPU build)."
        ) from error
    return torch


@cache
def _warn_once(text: str) -> None:
    log.warning(text)


@cache
def _has_driver() -> bool:
    """Return whether CUDA's driver finds a device or AMD's is loaded; importing torch to find out takes seconds."""
    if Path("/dev/kfd").exists():
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return int(driver.cuInit(0)) == 0
    except (OSError, AttributeError):
        return False


def _sequence_axes(plan: Plan) -> dict[str, int]:
    """Return for each weight that depends on the number of sequences the axis whose length grows with it."""
    torch = require_torch()
    with torch.device("meta"):
        one, more = (
            build_network(plan.network, len(plan.modalities) + extra, plan.output_channels, **plan.network_arguments)
            for extra in (0, 1)
        )
    shapes = {name: value.shape for name, value in one.state_dict().items()}
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(shapes[name], value.shape, strict=True)) if a != b)
        for name, value in more.state_dict().items()
        if value.shape != shapes[name]
    }
