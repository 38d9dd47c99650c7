"""The 3-D SegNet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.networks.blocks import LEVELS, Norm, check_image, checked_channels, conv_norm_relu, score_conv


class SegNet(nn.Module):
    """SegNet of Badrinarayanan et al. 2017 (arXiv:1511.00561), in 3-D.

    The decoder gets no features from the encoder, only the positions of the 2x2x2 maxima: unpooling places the values
    at these positions, and convolutions fill in the zeros around them. Every level, the last one included, ends with
    pooling and has two convolutions, from the third level on three (as in VGG-16). Differences from the paper: fewer
    features, and instance norm instead of batch norm, because training on a CPU uses batches of one or two.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from the finest to the coarsest; with N levels the image's edges must be
            multiples of 2^N.
        norm: "instance", "batch" or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int] = LEVELS, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        self.in_channels = in_channels
        self.divisor = 2 ** len(widths)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()  # numbered like the encoder: [0] is the finest level
        for level, (inputs, width) in enumerate(pairwise((in_channels, *widths))):
            same = [width] * (2 if level < 2 else 3)
            outputs = widths[max(level - 1, 0)]  # the number of features at the next finer level's maxima
            self.encoder.append(_convs((inputs, *same), norm))
            self.decoder.append(_convs((*same, outputs), norm))
        self.score = score_conv(widths[0], out_channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = image
        positions = []
        for level in self.encoder:
            x, where = F.max_pool3d(level(x), 2, return_indices=True)  # (B, 16, X/2, ...) to (B, 256, X/32, ...)
            positions.append(where)
        for level in reversed(self.decoder):
            x = level(unpool(x, positions.pop()))  # (B, 128, X/16, ...) to (B, 16, X, Y, Z)
        logits: Tensor = self.score(x)
        return logits  # (B, R, X, Y, Z)


def unpool(maxima: Tensor, where: Tensor) -> Tensor:
    """Return twice the grid, with each maximum at the position where pooling found it and zeros elsewhere.

    Args:
        maxima: `(B, C, X, Y, Z)`.
        where: The indices returned by `F.max_pool3d(..., 2, return_indices=True)`, of the same shape.
    """
    if not maxima.is_contiguous(memory_format=torch.channels_last_3d):
        return F.max_unpool3d(maxima, where, (2, 2, 2))
    # torch's own function does not keep channels_last_3d; converting its result back takes four times as long
    values, positions = (x.permute(0, 2, 3, 4, 1).flatten(1, 3) for x in (maxima, where))  # (B, XYZ, C)
    batch, channels, *grid = maxima.shape
    fine = values.new_zeros(batch, 8 * values.shape[1], channels).scatter_(1, positions, values)
    return fine.view(batch, *(2 * size for size in grid), channels).permute(0, 4, 1, 2, 3)


def _convs(widths: Sequence[int], norm: Norm) -> nn.Sequential:
    return nn.Sequential(*(conv_norm_relu(inputs, outputs, norm) for inputs, outputs in pairwise(widths)))
