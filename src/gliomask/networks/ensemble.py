"""Several networks combined into one that returns the mean of their logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gliomask.errors import InputError

Member = tuple[str, Mapping[str, Any]]

_MOST_MEMBERS = 100


class Ensemble(nn.Module):
    """The mean of several networks' logits.

    Every second member gets the image shifted cyclically by one voxel along each axis, and its logits are shifted back.
    The coarser grids of networks whose first layer has a stride are then aligned differently with the image, and the
    edges of the mean are finer than those of a single member.

    In training mode `forward` returns the same mean. The members' coarser outputs for deep supervision are dropped;
    they are used only when a member is trained alone.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        members: The name and the arguments of each network, as for `build_network`; two or more.
        shift: False leaves out the shift, for networks that give the same answer wherever the image lies.

    Raises:
        InputError: There are fewer than two members, or a member is unknown or is itself an ensemble.

    Source: Hansen and Salamon 1990, doi:10.1109/34.58871.
    """

    def __init__(self, in_channels: int, out_channels: int, members: Sequence[Member] = (), shift: bool = True) -> None:
        from gliomask.networks import build_network  # which imports this file by its name

        super().__init__()
        try:
            named = [(str(name), dict(arguments)) for name, arguments in members]
        except (TypeError, ValueError) as error:
            raise InputError(f"members must be pairs of a network's name and its arguments; got {members!r}") from error
        if len(named) < 2:
            raise InputError(
                "an ensemble needs two or more members. Join models with: "
                "gliomask join A.safetensors B.safetensors -o C.safetensors"
            )
        if len(named) > _MOST_MEMBERS:
            raise InputError(f"an ensemble may have at most {_MOST_MEMBERS} members; got {len(named)}.")
        if any(name == "ensemble" for name, _ in named):
            raise InputError("the members of an ensemble must not be ensembles. Join their members instead.")
        self.members = nn.ModuleList(
            build_network(name, in_channels, out_channels, **arguments) for name, arguments in named
        )
        self.shift = shift
        steps = [getattr(member, "divisors", (member.divisor,) * 3) for member in self.members]
        self.divisors = tuple(math.lcm(*edges) for edges in zip(*steps, strict=True))
        self.divisor = max(self.divisors)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        total: Tensor | None = None
        for number, member in enumerate(self.members):
            shift = number % 2 if self.shift else 0
            logits = _shifted(_finest(member(_shifted(image, shift))), -shift)
            total = logits if total is None else total + logits
        assert total is not None
        return total / len(self.members)


def _finest(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _shifted(x: Tensor, voxels: int) -> Tensor:
    return torch.roll(x, (voxels,) * 3, (2, 3, 4)) if voxels else x
