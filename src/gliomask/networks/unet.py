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

    Each level has two 3x3x3 convolutions. The encoder downsamples by max-pooling, the decoder upsamples by transposed
    2x2x2 convolutions, and the encoder's features of each level are concatenated with the decoder's. Differences from
    the papers: convolutions are padded, so that the output has the size of the input, and instance norm replaces
    Çiçek's batch norm, because training on a CPU uses batches of one or two.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from the finest to the coarsest; with N levels the image's edges must be
            multiples of 2^(N-1).
        norm: "instance", "batch" or None. `norm=None` gives the plain variant with ReLU and dropout only.
        dropout: Dropout rate between the two convolutions of a level, in encoder and decoder: one number for all levels
            or one for each. The default with a norm is 0: normalization regularises already, and torch draws dropout
            masks on one core (a training step takes 1.6 times as long). The default without a norm is .1 .1 .2 .2 .3
            from fine to coarse.
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
        # up and decoder are numbered like the encoder: [0] is the finest level
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
        """Return the features of a level's skip connection that the decoder gets: all of them, unchanged."""
        return skip
