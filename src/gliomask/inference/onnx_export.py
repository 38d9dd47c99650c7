"""A model as ONNX: the same network and plan in one file, for other programs and for predicting without PyTorch."""

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
from gliomask.files import write_bytes
from gliomask.inference.loading import Model
from gliomask.inference.torch_engine import TorchEngine
from gliomask.inference.windows import NetworkFacts
from gliomask.model.file import make_record
from gliomask.networks.blocks import InstanceNorm, SameConv

log = logging.getLogger(__name__)

_LARGEST_EDGE = 1024


def export_model(
    model: Model, path: Path, *, training: Mapping[str, object] | None = None, half: bool = True
) -> tuple[int, ...] | None:
    """Write a model as ONNX, whole or not at all, with its plan and training record in the file's metadata.

    Input `images` `(1, C, X, Y, Z)`, prepared as the plan says; output `logits` `(1, R, X, Y, Z)`. Everything is
    computed in float32.

    Args:
        model: On the CPU.
        path: Ends in `.onnx`; an older file is replaced.
        training: Facts for the record.
        half: Store kernels as float16, turned to float32 as the file is loaded: half the bytes.

    Returns:
        None: X, Y and Z may be any multiples of the network's `divisor`. Otherwise the only size it takes: some
        networks cannot be written down for any other than that of their patches.

    Raises:
        InputError: The package `onnx` or `onnxscript` is missing, the network cannot be written as ONNX, or the place
            cannot be written to.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: name the file with the ending .onnx.")
    _require_onnx()
    # a copy in evaluation: the pass that tells the memory would teach a batch norm otherwise
    engine = TorchEngine(copy.deepcopy(model.network).eval(), len(model.plan.modalities))
    with torch.inference_mode():
        facts = NetworkFacts(engine.divisor, engine.norm_sees_window, engine.bytes_per_voxel)
    network = _for_onnx(model.network)
    size = tuple(-(-n // engine.divisor) * engine.divisor for n in model.plan.patch_size)
    fixed: tuple[int, ...] | None = None
    try:
        proto = _traced(network, len(model.plan.modalities), size, engine.divisor)
    except Exception as error:  # the exporter raises many kinds, of no common ancestor
        log.info("%s: not for all sizes (%s)", model.plan.network, type(error).__name__)
        fixed = size
        try:
            proto = _traced(network, len(model.plan.modalities), size, None)
        except Exception as last:
            raise InputError(f"{model.plan.network} cannot be written as ONNX by this PyTorch: {last}") from last
    if half:
        _halve(proto)
    _describe(proto, make_record(model.plan, training, network={**vars(facts), "size": fixed}))
    write_bytes(path, proto.SerializeToString())
    return fixed


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch.onnx uses it)
    except ImportError as error:
        raise InputError("writing ONNX needs two packages: pip install 'gliomask[export]'.") from error
    return onnx


class _OnnxInstanceNorm(nn.Module):
    """`InstanceNorm` as ONNX's own operation, which other programs have a quick kernel for."""

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
    """A copy in evaluation whose layers ONNX has words for; the weights are the same."""
    copied = copy.deepcopy(network).eval().cpu().float()
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InstanceNorm):
                setattr(parent, name, _OnnxInstanceNorm(child))
            elif isinstance(child, SameConv):
                child.forward = super(SameConv, child).forward  # type: ignore[assignment, method-assign]
    return copied


def _traced(network: nn.Module, sequences: int, size: tuple[int, ...], divisor: int | None) -> Any:
    """The ONNX message for images of any multiple of `divisor`, or for None of this size."""
    shapes = None
    if divisor is not None:
        dims = (torch.export.Dim(axis, min=1, max=_LARGEST_EDGE // divisor) for axis in "xyz")
        shapes = ({axis: divisor * dim for axis, dim in enumerate(dims, start=2)},)
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
    """What torch's exporter says about itself is not for who exports a model."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _halve(proto: Any) -> None:
    """Store kernels as float16, each with a cast to float32 before its first use."""
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
    """Leave our record as the only metadata: the exporter's would name places on this machine."""
    del proto.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer, proto.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
