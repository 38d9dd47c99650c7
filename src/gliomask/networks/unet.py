"""The 3-D U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.networks.blocks import (
    LEVELS,
    Norm,
    check_image,
    checked_channels,
    checked_rates,
    double_conv,
    score_conv,
    up_conv,
)


class UNet(nn.Module):
    """U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), in 3-D as in Çiçek et al. 2016 (arXiv:1606.06650).

    A level is two 3x3x3 convolutions. Max-pooling leads down, transposed 2x2x2 convolutions lead up, and each level's
    features are joined to the decoder's by concatenation. What differs: convolutions are padded, so that what comes out
    has the size of what goes in, and instance norm stands in for Çiçek's batch norm, since a CPU trains on batches of
    one or two.

    Args:
        in_channels, out_channels: Sequences in, regions out.
        channels: Features of each level, from the finest to the coarsest; N of them ask for multiples of 2^(N-1).
        norm: "instance", "batch" or None. `norm=None` is the plain recipe: ReLU and dropout alone.
        dropout: Rate between a level's two convolutions, on the way down and up: one for all levels, or one a level.
            The default is 0 with a norm, which steadies training already, while torch draws dropout masks on one core
            (a train step takes 1.6 times as long); without a norm it is .1 .1 .2 .2 .3, from fine to coarse.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = LEVELS,
        norm: Norm = "instance",
        dropout: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        if dropout is None:
            dropout = 0.0 if norm else [0.1 * (1 + level // 2) for level in range(len(widths))]
        rates = checked_rates(dropout, len(widths))
        self.in_channels = in_channels
        self.divisor = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(
            double_conv(inputs, outputs, norm, rate)
            for (inputs, outputs), rate in zip(pairwise((in_channels, *widths)), rates, strict=True)
        )
        # up and decoder are counted like the encoder: [0] is the finest level
        self.up = nn.ModuleList(up_conv(coarse, fine) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(
            double_conv(2 * width, width, norm, rate) for width, rate in zip(widths[:-1], rates[:-1], strict=True)
        )
        self.score = score_conv(widths[0], out_channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = self.encoder[0](image)  # (B, 16, X, Y, Z)
        skips = []
        for level in self.encoder[1:]:
            skips.append(x)
            x = level(F.max_pool3d(x, 2))  # ... (B, 256, X/16, Y/16, Z/16)
        for i in reversed(range(len(skips))):
            joined = torch.cat([self.select(i, skips.pop(), x), self.up[i](x)], dim=1)
            x = self.decoder[i](joined)  # ... (B, 16, X, Y, Z)
        logits: Tensor = self.score(x)
        return logits  # (B, R, X, Y, Z)

    def select(self, level: int, skip: Tensor, coarser: Tensor) -> Tensor:
        """Return what of a level's skip goes on to the decoder: all of it."""
        return skip
