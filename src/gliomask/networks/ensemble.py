"""Several networks as one, whose answer is the mean of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gliomask.errors import InputError

Member = tuple[str, Mapping[str, Any]]


class Ensemble(nn.Module):
    """The mean of several networks' logits.

    Every second member sees the image moved on by a voxel along each axis (what leaves on one side comes in on the
    other), and its answer is moved back: networks that begin with a stride lay their coarser grids over the image in
    another way then, and the mean has finer edges than each alone.

    In training `forward` returns the same mean; the members' deep supervision is for when they are trained by
    themselves.

    Args:
        in_channels, out_channels: Sequences in, regions out.
        members: Of each its name and its arguments, as for `build_network`; two or more.

    Raises:
        InputError: There are fewer than two members, or one is of no known kind or an ensemble itself.

    Source: Hansen and Salamon 1990, doi:10.1109/34.58871.
    """

    def __init__(self, in_channels: int, out_channels: int, members: Sequence[Member] = ()) -> None:
        from gliomask.networks import build_network  # which imports this file by its name

        super().__init__()
        try:
            named = [(str(name), dict(arguments)) for name, arguments in members]
        except (TypeError, ValueError) as error:
            raise InputError(f"members must be pairs of a network's name and its arguments; got {members!r}") from error
        if len(named) < 2:
            raise InputError("an ensemble has two members or more: gliomask join A.safetensors B.safetensors -o C.")
        if any(name == "ensemble" for name, _ in named):
            raise InputError("an ensemble's members are networks, not ensembles; join those that they are made of.")
        self.members = nn.ModuleList(
            build_network(name, in_channels, out_channels, **arguments) for name, arguments in named
        )
        self.divisor: int = max(member.divisor for member in self.members)  # type: ignore[type-var,assignment]

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        total: Tensor | None = None
        for place, member in enumerate(self.members):
            logits = _moved(_finest(member(_moved(image, place % 2))), -(place % 2))
            total = logits if total is None else total + logits
        assert total is not None
        return total / len(self.members)


def _finest(answer: Tensor | Sequence[Tensor]) -> Tensor:
    return answer if isinstance(answer, Tensor) else answer[0]


def _moved(x: Tensor, voxels: int) -> Tensor:
    return torch.roll(x, (voxels,) * 3, (2, 3, 4)) if voxels else x
