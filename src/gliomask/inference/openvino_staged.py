"""The U-Nets of nnU-Net as OpenVINO graphs, built from the weights alone.

The networks themselves are defined in `networks/staged_unet.py`.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from gliomask.inference.openvino_import import opset13 as ops
from gliomask.inference.openvino_nodes import Node, Weights, constant, conv, per_channel
from gliomask.inference.windows import NetworkFacts

STAGED = ("plain_conv_unet", "residual_encoder_unet")
"""The networks whose graph can be built here."""

_SLOPE = 0.01
# The peak in units of the finest level's features: a skip connection (1), the upsampled features (1), their
# concatenation (2), a convolution's output (1) and its normalized copy (1).
_ALIVE = 6


def is_staged(weights: Weights) -> bool:
    """Return whether these are the weights of a network in `STAGED`."""
    return "decoder.transpconvs.0.weight" in weights


def staged_channels(weights: Weights) -> tuple[int, int]:
    """Return the number of sequences, and of regions or classes.

    Raises:
        KeyError: A weight is missing.
    """
    first = "encoder.stem" if _is_residual(weights) else "encoder.stages.0.0"
    return weights[f"{first}.convs.0.conv.weight"].shape[1], len(weights["decoder.seg_layers.0.weight"])


def staged_widths(weights: Weights) -> list[int]:
    """Return the number of features of each level, from the finest to the coarsest."""
    part = "blocks.0.conv1" if _is_residual(weights) else "0.convs.0"
    names = (f"encoder.stages.{level}.{part}.conv.weight" for level in count())
    widths = []
    for name in names:
        if name not in weights:
            break
        widths.append(len(weights[name]))
    return widths


def staged_facts(weights: Weights) -> NetworkFacts:
    """Return the properties of the network that are needed to run it.

    Raises:
        KeyError, ValueError: The weights do not fit together.
    """
    widths = staged_widths(weights)
    if len(widths) < 2:
        raise ValueError("fewer than two levels")
    steps = np.prod([_stride(weights, level, len(widths)) for level in range(1, len(widths))], axis=0)
    first = "encoder.stem.convs.0.norm" if _is_residual(weights) else "encoder.stages.0.0.convs.0.norm"
    x, y, z = (int(step) for step in steps)
    return NetworkFacts(
        x if x == y == z else (x, y, z),
        norm_sees_window=f"{first}.weight" in weights and f"{first}.running_var" not in weights,
        bytes_per_voxel=4 * widths[0] * _ALIVE,
    )


def staged(weights: Weights, x: Node) -> Node:
    """Return the logits of images, as in evaluation mode.

    Raises:
        KeyError: A weight is missing.
        RuntimeError: The shapes of the weights do not fit together.
    """
    levels = len(staged_widths(weights))
    if _is_residual(weights):
        x = _stack(weights, x, "encoder.stem")
    skips = []
    for level in range(levels):
        stride = _stride(weights, level, levels)
        name = f"encoder.stages.{level}"
        x = (
            _residual_stage(weights, x, name, stride)
            if _is_residual(weights)
            else _stack(weights, x, f"{name}.0", stride)
        )
        skips.append(x)
    x = skips.pop()
    for number in range(levels - 1):
        up = f"decoder.transpconvs.{number}"
        kernel = weights[f"{up}.weight"]
        stride = list(kernel.shape[2:])
        wide = ops.convolution_backprop_data(x, constant(kernel), stride, pads_begin=[0] * 3, pads_end=[0] * 3)
        wide = ops.add(wide, per_channel(weights[f"{up}.bias"]))
        x = _stack(weights, ops.concat([wide, skips.pop()], 1), f"decoder.stages.{number}")
    return conv(weights, x, f"decoder.seg_layers.{levels - 2}")


def _is_residual(weights: Weights) -> bool:
    return "encoder.stem.convs.0.conv.weight" in weights


def _stride(weights: Weights, level: int, levels: int) -> list[int]:
    """Return the stride from the level before, which is the kernel of the transposed convolution back to it."""
    if level == 0:
        return [1, 1, 1]
    return list(weights[f"decoder.transpconvs.{levels - 1 - level}.weight"].shape[2:])


def _stack(weights: Weights, x: Node, name: str, stride: list[int] | None = None) -> Node:
    for number in count():
        part = f"{name}.convs.{number}"
        if f"{part}.conv.weight" not in weights:
            return x
        step = stride if stride and number == 0 else [1, 1, 1]
        x = _leaky(conv(weights, x, f"{part}.conv", f"{part}.norm", step))
    raise AssertionError("unreachable")


def _residual_stage(weights: Weights, x: Node, name: str, stride: list[int]) -> Node:
    for number in count():
        part = f"{name}.blocks.{number}"
        if f"{part}.conv1.conv.weight" not in weights:
            return x
        step = stride if number == 0 else [1, 1, 1]
        inner = _leaky(conv(weights, x, f"{part}.conv1.conv", f"{part}.conv1.norm", step))
        inner = conv(weights, inner, f"{part}.conv2.conv", f"{part}.conv2.norm")
        if max(step) > 1:
            x = ops.avg_pool(x, step, [0] * 3, [0] * 3, step, False)
        skip = f"{part}.skip.{int(max(step) > 1)}"
        if f"{skip}.conv.weight" in weights:
            x = conv(weights, x, f"{skip}.conv", f"{skip}.norm")
        x = _leaky(ops.add(inner, x))
    raise AssertionError("unreachable")


def _leaky(x: Node) -> Node:
    return ops.prelu(x, constant(np.array([_SLOPE])))
