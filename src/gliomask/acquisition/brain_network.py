"""The two networks of deepbet 1.0.2 that find the brain, as graphs of OpenVINO built from their weights alone.

Each is a LinkNet (Chaurasia and Culurciello 2017, arXiv:1707.03718) in three dimensions with 2.1 million weights and
instance norms without scale and shift. Source: Fisch et al. 2024, "deepbet: Fast brain extraction of T1-weighted MRI
using Convolutional Neural Networks", doi:10.1016/j.compbiomed.2024.108845; weights under the MIT licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.inference.openvino_import import openvino
from gliomask.inference.openvino_import import opset13 as ops

Weights = Mapping[str, NDArray[Any]]
Node = Any  # openvino's nodes; every operation takes and gives them

_EPS = 1e-5  # of torch's instance norms
_SPATIAL = [2, 3, 4]


def build_brain_graph(weights: Weights, edge: int) -> openvino.Model:
    """Return the graph from an image `(1, 1, edge, edge, edge)` to the probability of brain, of the same shape.

    Args:
        weights: By the names of deepbet's state dictionary.
        edge: Voxels along each axis, a multiple of 32.

    Raises:
        KeyError: A weight is missing.
    """
    image = ops.parameter([1, 1, edge, edge, edge], np.float32, name="image")
    x = ops.relu(_norm(_conv(weights, image, "init.0", stride=2, pad=3)))
    x = ops.max_pool(x, [2] * 3, [1] * 3, [1] * 3, [1] * 3, [3] * 3, "floor", "explicit").output(0)
    skips = [x]
    for level in range(4):
        x = _block(weights, x, f"down{level}.block1", stride=1 if level == 0 else 2)
        x = _block(weights, x, f"down{level}.block2")
        skips.append(x)
    x = skips.pop()
    for level in range(4):
        x = ops.add(_up(weights, x, f"up{level}", stride=1 if level == 3 else 2), skips.pop())
    x = ops.relu(_norm(_transposed(weights, x, "tp_conv1.0", stride=2, pad=1)))
    x = ops.relu(_norm(_conv(weights, x, "conv.0", pad=1)))
    x = ops.softmax(_transposed(weights, x, "tp_conv2", stride=2, pad=0), 1)
    brain = ops.gather(x, ops.constant(np.array([1])), ops.constant(np.array(1)))
    return openvino.Model([ops.result(brain, name="brain")], [image], "brain")


def _block(weights: Weights, x: Node, name: str, stride: int = 1) -> Node:
    inner = ops.relu(_norm(_conv(weights, x, f"{name}.double_conv.0", stride=stride, pad=1)))
    inner = _norm(_conv(weights, inner, f"{name}.double_conv.3", pad=1))
    if f"{name}.downsample.0.weight" in weights:
        x = _norm(_conv(weights, x, f"{name}.downsample.0", stride=stride))
    return ops.relu(ops.add(inner, x))


def _up(weights: Weights, x: Node, name: str, stride: int) -> Node:
    x = ops.relu(_norm(_conv(weights, x, f"{name}.conv1.0")))
    x = ops.relu(_norm(_transposed(weights, x, f"{name}.tp_conv.0", stride=stride, pad=1)))
    return ops.relu(_norm(_conv(weights, x, f"{name}.conv2.0")))


def _conv(weights: Weights, x: Node, name: str, stride: int = 1, pad: int = 0) -> Node:
    x = ops.convolution(x, _constant(weights[f"{name}.weight"]), [stride] * 3, [pad] * 3, [pad] * 3, [1] * 3)
    return _with_bias(weights, x, name)


def _transposed(weights: Weights, x: Node, name: str, stride: int, pad: int) -> Node:
    """A transposed convolution that gives `stride` times the grid."""
    extra = [stride - 1 if pad else 0] * 3
    kernel = _constant(weights[f"{name}.weight"])
    x = ops.convolution_backprop_data(x, kernel, [stride] * 3, None, [pad] * 3, [pad] * 3, [1] * 3, "explicit", extra)
    return _with_bias(weights, x, name)


def _with_bias(weights: Weights, x: Node, name: str) -> Node:
    bias = weights.get(f"{name}.bias")
    return x if bias is None else ops.add(x, _constant(bias.reshape(1, -1, 1, 1, 1)))


def _norm(x: Node) -> Node:
    return ops.mvn(x, ops.constant(_SPATIAL), True, _EPS, "inside_sqrt")


def _constant(values: NDArray[Any]) -> Node:
    return ops.constant(np.ascontiguousarray(values, np.float32))
