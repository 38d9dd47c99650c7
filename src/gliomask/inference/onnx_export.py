"""Export of a model to ONNX: network and plan in one file, for other programs and for prediction without PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.extras import missing_extra
from gliomask.files import write_bytes
from gliomask.inference.loading import Model
from gliomask.inference.torch_engine import TorchEngine
from gliomask.inference.windows import Divisor, NetworkFacts
from gliomask.model.file import make_record
from gliomask.networks.blocks import InstanceNorm, SameConv
from gliomask.volume import round_up_to_multiple

log = logging.getLogger(__name__)

_LARGEST_EDGE = 1024


def export_model(
    model: Model, path: Path, *, training: Mapping[str, object] | None = None, half: bool = True
) -> tuple[int, ...] | None:
    """Export a model to ONNX, with its plan and training record in the file's metadata; whole or not at all.

    The input `images` is `(1, C, X, Y, Z)`, prepared as described by the plan; the output `logits` is
    `(1, R, X, Y, Z)`. All computations are in float32.

    Args:
        model: A model on the CPU.
        path: The file to write, ending in `.onnx`; an older file is replaced.
        training: Facts for the training record.
        half: Store kernels as float16, which halves the file; they are converted to float32 when the file is loaded.

    Returns:
        None if X, Y and Z may be any multiples of the network's `divisor`. Otherwise the only size `(X, Y, Z)` that the
        exported network accepts, since some networks can be exported for the size of their patches only.

    Raises:
        InputError: The package `onnx` or `onnxscript` is missing, the network cannot be exported, or the file cannot be
            written.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: choose a file name that ends in .onnx.")
    _require_onnx()
    # a copy in evaluation mode, because measuring the memory runs the network and would update batch norm statistics
    engine = TorchEngine(copy.deepcopy(model.network).eval(), len(model.plan.modalities))
    with torch.inference_mode():
        facts = NetworkFacts(engine.divisor, engine.norm_sees_window, engine.bytes_per_voxel)
    proto, fixed = _traced_for_sizes(model, engine.divisor)
    if half:
        _halve(proto)
    _describe(proto, make_record(model.plan, training, network={**vars(facts), "size": fixed}))
    write_bytes(path, proto.SerializeToString())
    return fixed


def _traced_for_sizes(model: Model, divisor: Divisor) -> tuple[Any, tuple[int, ...] | None]:
    """Return the ONNX message for all sizes and None, or the message for the size of the patches and that size."""
    network = _for_onnx(model.network)
    sequences = len(model.plan.modalities)
    size = round_up_to_multiple(model.plan.patch_size, divisor)
    try:
        return _traced(network, sequences, size, divisor), None
    except Exception as error:  # the exporter raises exceptions of many types without a common base class
        log.info("%s: cannot be exported for all sizes (%s)", model.plan.network, type(error).__name__)
    try:
        return _traced(network, sequences, size, None), size
    except Exception as error:
        raise InputError(f"{model.plan.network} cannot be exported to ONNX by this PyTorch: {error}") from error


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch.onnx uses it)
    except ImportError as error:
        raise missing_extra("ONNX export needs onnx and onnxscript", "export") from error
    return onnx


class _OnnxInstanceNorm(nn.Module):
    """`InstanceNorm` as a single ONNX operation, for which other programs have a fast kernel."""

    def __init__(self, layer: InstanceNorm) -> None:
        super().__init__()
        self.eps = layer.eps
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:  # (1, C, X, Y, Z)
        answer: Tensor = torch.onnx.ops.symbolic(
            "InstanceNormalization", (x, self.weight, self.bias), {"epsilon": self.eps}, dtype=x.dtype, shape=x.shape
        )
        return answer


def _for_onnx(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, with the same weights, whose layers can be expressed in ONNX."""
    copied = copy.deepcopy(network).eval().cpu().float()
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(parent, name, _OnnxInstanceNorm(child))
            elif isinstance(child, SameConv):
                child.forward = super(SameConv, child).forward  # type: ignore[assignment, method-assign]
    return copied


def _traced(network: nn.Module, sequences: int, size: tuple[int, ...], divisor: Divisor | None) -> Any:
    """Return the ONNX message for sizes of any multiple of `divisor`, or with None for this size only."""
    shapes = None
    if divisor is not None:
        steps = round_up_to_multiple((1, 1, 1), divisor)
        dims = [
            torch.export.Dim(axis, min=1, max=_LARGEST_EDGE // step) for axis, step in zip("xyz", steps, strict=True)
        ]
        shapes = ({axis: step * dim for axis, (step, dim) in enumerate(zip(steps, dims, strict=True), start=2)},)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (torch.zeros(1, sequences, *size),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings and log messages of torch's exporter, which users cannot act on."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _halve(proto: Any) -> None:
    """Store kernels as float16, each followed by a cast to float32."""
    onnx = _require_onnx()
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            casts.append(onnx.helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=1))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{tensor.name}.half"))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(casts + nodes)
    named = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.value_info if f"{value.name}.half" not in named]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


def _describe(proto: Any, metadata: Mapping[str, str]) -> None:
    """Replace all metadata by our record, because the exporter's contains paths of this machine."""
    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer, proto.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
