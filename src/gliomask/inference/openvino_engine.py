"""A network in OpenVINO as an inference engine for processors; it starts quickly and does not need torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, is_lack_of_memory
from gliomask.execution import usable_cores
from gliomask.foreign import model_digest, read_plan, read_weights
from gliomask.inference.openvino_graph import build_graph, channels_of, graph_facts, has_graph, members_of, widths_of
from gliomask.inference.openvino_import import openvino
from gliomask.inference.windows import (
    Divisor,
    Inference,
    NetworkFacts,
    OnPart,
    Size,
    Window,
    choose_window,
    run_engine,
    window_size,
)
from gliomask.model.choices import Precision
from gliomask.model.file import damaged, is_onnx, misfit, read_record
from gliomask.model.plan import Plan
from gliomask.volume import round_up_to_multiple

# The memory that one pass may need in addition to the libraries and the images.
_WHOLE_PASS_BYTES = 600_000_000

# No network has a coarser level than this; more comes from a damaged file.
_LARGEST_DIVISOR = 1024

Graph = Callable[[Size], openvino.Model]
"""A function that returns the graph for images of a size `(X, Y, Z)`."""


@dataclass(frozen=True)
class OpenVINOModel:
    """A plan and its network in OpenVINO; a `Predictor`.

    It can be pickled: the file's path and the settings are stored, and the network is loaded again from the file.
    """

    plan: Plan
    name: str
    network: OpenVINONetwork
    digest: str = ""
    """The SHA-256 of the file it was loaded from."""

    @property
    def engine(self) -> str:
        """The library that runs the network and its version, such as `openvino 2025.3.0`."""
        return f"openvino {openvino.__version__.partition('-')[0]}"

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was used.

        Several threads may call it; they run one after the other, because one run uses all threads of the processor.

        Raises:
            InputError: The precision is fp16, or OpenVINO fails, for lack of memory for example.
        """
        with self.network.lock:
            return run_engine(_Engine(self.network, inference.precision), self.plan, data, inference, on_part)

    def get_ready(self, inference: Inference) -> None:
        """Compile the network for its sliding window, if that is used whatever the images are."""
        engine = _Engine(self.network, inference.precision)
        if choose_window(engine, self.plan, (1, 1, 1), inference) == "sliding":
            self.network.compiled(window_size(engine, self.plan), inference.precision)


class OpenVINONetwork:
    """The network in a model file, compiled when a size is first asked for; only the last size is kept.

    Each size is compiled separately, which takes a tenth of a second, because the result runs faster than a network
    compiled for variable sizes.

    Args:
        path: A model file.
        threads: Processor threads; by default one for each core that may be used.

    Raises:
        InputError: The file is missing, damaged or not a gliomask model, or its weights do not fit its plan.
        RuntimeError: OpenVINO does not work on this machine.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = path.absolute()
        self.lock = RLock()
        self._asked_threads = threads
        self._threads = threads or _default_threads()
        self.plan = read_plan(path)
        openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
        build = _read_onnx if is_onnx(path) else _read_numbers
        self._graph, self.facts = build(path, self.plan)
        self._last: tuple[Size, Precision, Any] | None = None

    def __reduce__(self) -> tuple[type[OpenVINONetwork], tuple[Path, int | None]]:
        return OpenVINONetwork, (self.path, self._asked_threads)

    def compiled(self, size: Size, precision: Precision) -> Any:
        """Return an inference request for images of a size; it must be used by one thread at a time.

        Raises:
            InputError: The precision is fp16, or OpenVINO cannot compile the network.
        """
        if precision == "fp16":
            raise InputError("--precision fp16 needs a GPU; use bf16, fp32 or auto on this device.")
        with self.lock:
            if self._last is None or self._last[:2] != (size, precision):
                self._last = None  # frees its memory before more is needed
                self._last = (size, precision, self._compile(size, precision))
            return self._last[2]

    def _compile(self, size: Size, precision: Precision) -> Any:
        core = openvino.Core()
        in_hardware = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        use_bf16 = precision == "bf16" or (precision == "auto" and in_hardware)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if use_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
            # Otherwise every process with fewer threads than cores keeps to the first cores, several to the same ones.
            options["ENABLE_CPU_PINNING"] = False
        try:
            return core.compile_model(self._graph(size), "CPU", options).create_infer_request()
        except (RuntimeError, MemoryError) as error:
            raise _failure(error) from error


@dataclass(frozen=True)
class _Engine:
    """A network at one precision, as an `Engine`."""

    network: OpenVINONetwork
    precision: Precision

    @property
    def divisor(self) -> Divisor:
        return self.network.facts.divisor

    @property
    def norm_sees_window(self) -> bool:
        return self.network.facts.norm_sees_window

    def fits(self, shape: Size) -> bool:
        return (
            self.network.facts.size is None
            and self.network.facts.bytes_per_voxel * float(np.prod(shape)) <= _WHOLE_PASS_BYTES
        )

    def place(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array

    def forward(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        request = self.network.compiled(images.shape[2:], self.precision)
        try:
            logits: NDArray[np.float32] = request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)[0]
        except (RuntimeError, MemoryError) as error:
            raise _failure(error) from error
        return logits

    def flip(self, array: NDArray[np.float32], axes: Size) -> NDArray[np.float32]:
        return np.flip(array, axes)

    def fetch(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array


def can_build(path: Path, plan: Plan) -> bool:
    """Return whether OpenVINO can run a model file: ONNX, or the weights of a network whose graph is built here."""
    return is_onnx(path) or has_graph(plan.network, plan.network_arguments)


def load_openvino_model(path: Path, name: str, *, threads: int | None = None) -> OpenVINOModel:
    """Return the model in a file, ready to predict on the processor.

    Raises:
        InputError: The file is missing, damaged or not a gliomask model, or its weights do not fit its plan.
        RuntimeError: OpenVINO does not work on this machine.
    """
    network = OpenVINONetwork(path, threads)
    return OpenVINOModel(network.plan, name, network, model_digest(path))


def _default_threads() -> int | None:
    """Return the number of usable cores where it is smaller than that of the machine, else None for OpenVINO's own."""
    cores = usable_cores()
    return cores if cores < (os.cpu_count() or 1) else None


def _read_numbers(path: Path, plan: Plan) -> tuple[Graph, NetworkFacts]:
    weights = read_weights(path)
    try:
        facts = graph_facts(weights)
        smallest = round_up_to_multiple((1, 1, 1), facts.divisor)
        if max(smallest) > _LARGEST_DIVISOR:
            raise ValueError("too many levels")
        shift = plan.network_arguments.get("shift", True) is True
        build_graph(weights, smallest, shift=shift)  # raises if the weights do not fit together
        channels = (len(plan.modalities), plan.output_channels)
        fits = channels_of(weights) == channels and _has_asked_channels(plan, weights)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError, RuntimeError) as error:
        raise misfit(path, plan) from error
    if not fits:
        raise misfit(path, plan)
    return lambda size: build_graph(weights, size, shift=shift), facts


def _read_onnx(path: Path, plan: Plan) -> tuple[Graph, NetworkFacts]:
    facts = _stored_facts(path, read_record(path).get("network"))

    def graph(size: Size) -> openvino.Model:
        model = openvino.Core().read_model(path)
        model.reshape([1, len(plan.modalities), *size])
        return model

    try:
        _check_onnx(
            graph(facts.size or tuple(2 * n for n in round_up_to_multiple((1, 1, 1), facts.divisor))), path, plan
        )
    except (RuntimeError, MemoryError, ValueError) as error:
        raise damaged(path, error) from error
    return graph, facts


def _stored_facts(path: Path, fields: Any) -> NetworkFacts:
    """Return the facts that `export_model` stored in an ONNX file's record."""
    try:
        facts = NetworkFacts(**fields)
        steps = [facts.divisor] if isinstance(facts.divisor, int) else list(facts.divisor)
        edges = [*steps, *(facts.size or ())]
        valid = (
            all(type(edge) is int and 1 <= edge <= _LARGEST_DIVISOR for edge in edges)
            and len(steps) in (1, 3)
            and len(edges) - len(steps) in (0, 3)
            and 0 < float(facts.bytes_per_voxel) < float("inf")
        )
    except (TypeError, ValueError) as error:
        raise damaged(path, error) from error
    if not valid:
        raise damaged(path, ValueError("the facts about its network are not valid"))
    return facts


def _check_onnx(model: openvino.Model, path: Path, plan: Plan) -> None:
    """Check the number of regions and that all weights are finite.

    Raises:
        InputError: The output does not have the plan's regions.
        ValueError: A weight is NaN or infinite.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise misfit(path, plan)
    size = list(model.input(0).get_shape())[2:]
    if list(model.output(0).get_shape()) != [1, plan.output_channels, *size]:
        raise misfit(path, plan)
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.data.dtype.kind == "f" and not np.isfinite(node.data).all():
            raise ValueError("weights are NaN or infinite")


def _has_asked_channels(plan: Plan, weights: dict[str, NDArray[Any]]) -> bool:
    """Return whether the weights have the members and the features of each level that the plan names, if it does."""
    members = members_of(weights)
    asked = [plan.network_arguments]
    if plan.network == "ensemble":
        asked = [arguments for _, arguments in plan.network_arguments["members"]]
    return len(asked) == len(members) and all(
        arguments.get("channels") is None or list(arguments["channels"]) == widths_of(member)
        for arguments, member in zip(asked, members, strict=True)
    )


def _failure(error: Exception) -> InputError:
    if is_lack_of_memory(error):
        return InputError("not enough memory for OpenVINO. Use --window sliding, or close other programs.")
    lines = str(error).strip().splitlines()
    return InputError(
        f"OpenVINO failed ({lines[-1] if lines else type(error).__name__}). Try PyTorch instead: --engine torch."
    )
