"""A network in OpenVINO as an engine for processors: quick to start, and torch need not be installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.inference.openvino_graph import build_graph, channels_of, graph_facts, has_graph, members_of, widths_of
from gliomask.inference.openvino_import import openvino
from gliomask.inference.windows import (
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
from gliomask.model.file import damaged, is_onnx, misfit, read_record, read_weights
from gliomask.model.plan import Plan, plan_from_dict

# What one pass may take beside the libraries and the images.
_WHOLE_PASS_BYTES = 600_000_000


@dataclass(frozen=True)
class OpenVINOModel:
    """A plan and its network in OpenVINO; an `inference.Predictor`."""

    plan: Plan
    name: str
    network: OpenVINONetwork

    @property
    def engine(self) -> str:
        """The library that computes and its version, for the record."""
        return f"openvino {openvino.__version__.partition('-')[0]}"

    def run(
        self, data: NDArray[np.float32], inference: Inference, on_part: OnPart = lambda _: None
    ) -> tuple[NDArray[np.float32], Window]:
        """Return the logits `(R, x, y, z)` of prepared images `(C, x, y, z)`, and the window that was taken.

        Raises:
            InputError: fp16 is asked for, or OpenVINO fails (memory, say).
        """
        return run_engine(_Engine(self.network, inference.precision), self.plan, data, inference, on_part)

    def get_ready(self, inference: Inference) -> None:
        """Compile the network for the window, where that is known before the images are."""
        engine = _Engine(self.network, inference.precision)
        if choose_window(engine, self.plan, (1, 1, 1), inference) == "sliding":
            self.network.compiled(window_size(engine, self.plan), inference.precision)


class OpenVINONetwork:
    """A network that is compiled for a size when that is first asked for; the last one is kept.

    Sizes are fixed: compiling takes a tenth of a second, and what comes out is quicker than with sizes left open.

    Args:
        graph: Returns the graph for images of a size.
        facts: What is known of it.
        threads: Of the processor; None for one a core.
    """

    def __init__(self, graph: Callable[[Size], openvino.Model], facts: NetworkFacts, threads: int | None) -> None:
        self.facts = facts
        self._graph = graph
        self._threads = threads
        self._lock = Lock()
        self._last: tuple[Size, Precision, Any] | None = None

    def compiled(self, size: Size, precision: Precision) -> Any:
        """Return an infer request for images of a size.

        Raises:
            InputError: fp16 is asked for, or OpenVINO cannot compile it.
        """
        if precision == "fp16":
            raise InputError("--precision fp16 needs a GPU; on this device take bf16, fp32 or auto.")
        with self._lock:
            if self._last is None or self._last[:2] != (size, precision):
                self._last = None  # its memory goes before more is asked for
                self._last = (size, precision, self._compile(size, precision))
            return self._last[2]

    def _compile(self, size: Size, precision: Precision) -> Any:
        core = openvino.Core()
        able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" or (precision == "auto" and able) else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
        try:
            return core.compile_model(self._graph(size), "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise _failed(error) from error


@dataclass(frozen=True)
class _Engine:
    """A network at a precision, as `inference.Engine`."""

    network: OpenVINONetwork
    precision: Precision

    @property
    def divisor(self) -> int:
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
            answer: NDArray[np.float32] = request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)[0]
        except RuntimeError as error:
            raise _failed(error) from error
        return answer

    def fetch(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array


def can_build(path: Path, plan: Plan) -> bool:
    """Tell whether OpenVINO can run a model file: ONNX, or weights of a network that is known here."""
    return is_onnx(path) or has_graph(plan.network, plan.network_arguments)


def load_openvino_model(path: Path, name: str, *, threads: int | None = None) -> OpenVINOModel:
    """Return the model in a file, ready to predict on the processor.

    Raises:
        InputError: The file is missing, cut, no model of gliomask's, or its weights do not fit its plan.
        RuntimeError: OpenVINO does not work on this machine.
    """
    record = read_record(path)
    plan = plan_from_dict(record.get("plan"), str(path))
    openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    build = _onnx if is_onnx(path) else _safetensors
    graph, facts = build(path, plan, record)
    return OpenVINOModel(plan, name, OpenVINONetwork(graph, facts, threads))


def _safetensors(path: Path, plan: Plan, _: dict[str, Any]) -> tuple[Callable[[Size], openvino.Model], NetworkFacts]:
    weights = read_weights(path)
    try:
        facts = graph_facts(weights)
        build_graph(weights, (facts.divisor,) * 3)  # for its errors
        fits = channels_of(weights) == (len(plan.modalities), len(plan.regions))
    except (KeyError, ValueError, RuntimeError) as error:
        raise misfit(path, plan) from error
    if not fits or not _as_asked(plan, weights):
        raise misfit(path, plan)
    return lambda size: build_graph(weights, size), facts


def _onnx(path: Path, plan: Plan, record: dict[str, Any]) -> tuple[Callable[[Size], openvino.Model], NetworkFacts]:
    try:
        facts = NetworkFacts(**record["network"])
        openvino.Core().read_model(path)
    except (KeyError, TypeError, RuntimeError) as error:
        raise damaged(path, error) from error

    def graph(size: Size) -> openvino.Model:
        model = openvino.Core().read_model(path)
        model.reshape([1, len(plan.modalities), *size])
        return model

    return graph, facts


def _as_asked(plan: Plan, weights: dict[str, NDArray[Any]]) -> bool:
    """Whether the weights are of the members and levels that the plan names, where it names them."""
    members = members_of(weights)
    asked = [plan.network_arguments]
    if plan.network == "ensemble":
        asked = [arguments for _, arguments in plan.network_arguments["members"]]
    return len(asked) == len(members) and all(
        arguments.get("channels") is None or list(arguments["channels"]) == widths_of(member)
        for arguments, member in zip(asked, members, strict=True)
    )


def _failed(error: RuntimeError) -> InputError:
    words = str(error).strip().splitlines()
    return InputError(
        f"OpenVINO failed ({words[-1] if words else type(error).__name__}). Too little memory? Take --window sliding, "
        "or compute with PyTorch: --engine torch."
    )
