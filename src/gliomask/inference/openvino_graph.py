"""The `fast` networks, those of nnU-Net and their ensembles as OpenVINO graphs, built from the weights alone.

The networks themselves are defined and described in `networks/fast.py` and `networks/ensemble.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.inference.openvino_import import openvino
from gliomask.inference.openvino_import import opset13 as ops
from gliomask.inference.openvino_nodes import SPATIAL, Node, Weights, constant, conv
from gliomask.inference.openvino_staged import (
    STAGED,
    is_staged,
    staged,
    staged_channels,
    staged_facts,
    staged_widths,
)
from gliomask.inference.windows import NetworkFacts, Size
from gliomask.volume import round_up_to_multiple

GRAPHS = ("fast", "fast_large", "fast_sides", *STAGED)
"""The networks whose graph can be built here; ensembles of them can be built too."""


def has_graph(network: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether the graph of a network can be built here."""
    if network != "ensemble":
        return network in GRAPHS
    try:
        return all(name in GRAPHS for name, _ in arguments["members"])
    except (KeyError, TypeError, ValueError):
        return False


def graph_facts(weights: Weights) -> NetworkFacts:
    """Return the properties of the network with these weights that are needed to run it.

    Raises:
        KeyError, ValueError: The weights are not those of a supported network.
    """
    facts = [staged_facts(member) if is_staged(member) else _fast_facts(member) for member in members_of(weights)]
    steps = [round_up_to_multiple((1, 1, 1), fact.divisor) for fact in facts]
    x, y, z = (math.lcm(*edges) for edges in zip(*steps, strict=True))
    return NetworkFacts(
        x if x == y == z else (x, y, z),
        norm_sees_window=any(fact.norm_sees_window for fact in facts),
        bytes_per_voxel=max(fact.bytes_per_voxel for fact in facts),  # the members run one after the other
    )


def channels_of(weights: Weights) -> tuple[int, int]:
    """Return the number of sequences and of regions.

    Raises:
        KeyError: The weights are not those of a supported network.
    """
    first = members_of(weights)[0]
    if is_staged(first):
        return staged_channels(first)
    return first["encoder.0.0.0.weight"].shape[1], len(first["head.weight"]) // 8


def widths_of(weights: Weights) -> list[int]:
    """Return the number of features of each level of one network, from the finest to the coarsest."""
    if is_staged(weights):
        return staged_widths(weights)
    levels = 0
    while f"encoder.{levels}.0.0.weight" in weights:
        levels += 1
    return [len(weights[f"encoder.{level}.0.0.weight"]) for level in range(levels)]


def members_of(weights: Weights) -> list[Weights]:
    """Return the weights of each member of an ensemble, or those of a single network as its only member."""
    members: dict[int, dict[str, NDArray[Any]]] = {}
    for name, value in weights.items():
        found = re.fullmatch(r"members\.(\d+)\.(.+)", name)
        if found is None:
            return [weights]
        members.setdefault(int(found[1]), {})[found[2]] = value
    return [members[number] for number in sorted(members)]


def build_graph(weights: Weights, size: Size, *, shift: bool = True) -> openvino.Model:
    """Return the graph that maps images `(1, C, *size)` to logits `(1, R, *size)`, as in evaluation mode.

    Members, features, blocks and the kind of norm are derived from the weights. A batch norm's running statistics are
    merged into the convolution before it.

    Args:
        weights: The weights of a network or of an ensemble.
        size: `(X, Y, Z)`.
        shift: Whether every second member of an ensemble gets the images shifted; see `networks.ensemble`.

    Raises:
        KeyError: A weight is missing.
        ValueError: A variance is negative.
        RuntimeError: The shapes of the weights do not fit together.
    """
    sequences, regions = channels_of(weights)
    image = ops.parameter([1, sequences, *size], np.float32, name="images")
    members = members_of(weights)
    total: Node = None
    for number, member in enumerate(members):
        voxels = number % 2 if shift else 0
        moved = _shifted(image, voxels)
        answer = staged(member, moved) if is_staged(member) else _fast(member, moved, regions, size)
        logits = _shifted(answer, -voxels)
        total = logits if total is None else ops.add(total, logits)
    if len(members) > 1:
        total = ops.multiply(total, constant(np.array(1 / len(members))))
    return openvino.Model([ops.result(total, name="logits")], [image], "gliomask")


def _fast_facts(weights: Weights) -> NetworkFacts:
    widths = widths_of(weights)
    if len(widths) < 2:
        raise ValueError("fewer than two levels")
    instance = "encoder.0.0.1.weight" in weights and "encoder.0.0.1.running_var" not in weights
    # At half resolution five tensors of features are alive at once: two of a residual block, a skip connection, a
    # convolution's output and its normalized copy.
    return NetworkFacts(2 ** len(widths), norm_sees_window=instance, bytes_per_voxel=4 * widths[0] * 5 / 8)


def _fast(weights: Weights, x: Node, regions: int, size: Size) -> Node:
    skips = []
    for level in range(len(widths_of(weights))):
        x = ops.relu(conv(weights, x, f"encoder.{level}.0.0", f"encoder.{level}.0.1", stride=[2, 2, 2]))
        for block in count(1):
            if f"encoder.{level}.{block}.residual.1.weight" not in weights:
                break
            x = _residual(weights, x, f"encoder.{level}.{block}")
        if f"across.{level - 1}.weight" in weights:
            x = ops.add(x, conv(weights, _mirrored(x), f"across.{level - 1}"))
        skips.append(x)
    skips.pop()
    for level in reversed(range(len(skips))):
        x = ops.add(skips.pop(), _repeated(conv(weights, x, f"up.{level}")))
        x = _residual(weights, x, f"decoder.{level}")
    return _shuffle_up(conv(weights, x, "head"), regions, size)


def _residual(weights: Weights, x: Node, name: str) -> Node:
    inner = ops.relu(conv(weights, x, f"{name}.residual.0.0", f"{name}.residual.0.1"))
    return ops.relu(ops.add(x, conv(weights, inner, f"{name}.residual.1", f"{name}.residual.2")))


def _shifted(x: Node, voxels: int) -> Node:
    return ops.roll(x, ops.constant([voxels] * 3), ops.constant(SPATIAL)) if voxels else x


def _mirrored(x: Node) -> Node:
    """Return the features mirrored along the first axis of the grid."""
    return ops.slice(x, *map(ops.constant, ([-1], [-(2**31)], [-1], [2])))


def _repeated(x: Node) -> Node:
    """Return the features on twice the grid, each voxel repeated."""
    scales = ops.constant(np.full(3, 2, np.float32))
    return ops.interpolate(
        *(x, scales, "nearest", "scales"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=ops.constant(SPATIAL),
    )


def _shuffle_up(x: Node, regions: int, size: Size) -> Node:
    """Return eight scores for each region and voxel arranged on twice the grid; see `networks.blocks.shuffle_up`."""
    half = [n // 2 for n in size]
    split = ops.reshape(x, ops.constant([2, 2, 2, regions, *half]), False)
    fine = ops.transpose(split, ops.constant([3, 4, 0, 5, 1, 6, 2]))
    return ops.reshape(fine, ops.constant([1, regions, *size]), False)
