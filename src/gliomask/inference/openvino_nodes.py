"""Nodes of OpenVINO graphs that several networks use: convolutions with their norms, and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.inference.openvino_import import opset13 as ops

Weights = Mapping[str, NDArray[Any]]
Node = Any  # a node of an OpenVINO graph, the input and output of every operation

SPATIAL = [2, 3, 4]
"""The axes X, Y and Z of features `(1, C, X, Y, Z)`."""

_EPS = 1e-5  # added to variances, as in torch's norms and ours


def conv(weights: Weights, x: Node, name: str, norm: str = "", stride: Sequence[int] = (1, 1, 1)) -> Node:
    """Return a convolution followed by its norm, if it has one.

    A batch norm's running statistics are merged into the convolution.

    Raises:
        KeyError: A weight is missing.
        ValueError: A variance is negative.
        RuntimeError: The shapes of the weights do not fit together.
    """
    kernel, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    scale, shift = weights.get(f"{norm}.weight"), weights.get(f"{norm}.bias")
    frozen = f"{norm}.running_var" in weights
    if frozen:
        assert scale is not None
        assert shift is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = scale / np.sqrt(weights[f"{norm}.running_var"] + _EPS)
        if not np.isfinite(scale).all():
            raise ValueError(f"a variance of {norm} is negative")
        kernel = kernel * scale[:, None, None, None, None]
        bias = shift - weights[f"{norm}.running_mean"] * scale
    pad = [(edge - 1) // 2 for edge in kernel.shape[2:]]
    x = ops.convolution(x, constant(kernel), list(stride), pad, pad, [1] * 3)
    if bias is not None:
        x = ops.add(x, per_channel(bias))
    if scale is None or shift is None or frozen:
        return x
    x = ops.mvn(x, ops.constant(SPATIAL), True, _EPS, "inside_sqrt")
    return ops.add(ops.multiply(x, per_channel(scale)), per_channel(shift))


def constant(values: NDArray[Any]) -> Node:
    """Return an array as a float32 constant."""
    return ops.constant(np.ascontiguousarray(values, np.float32))


def per_channel(values: NDArray[Any]) -> Node:
    """Return one number for each channel, shaped to be combined with features."""
    return constant(values.reshape(1, -1, 1, 1, 1))
