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

    The encoder hands its decoder no features, only where each 2x2x2 maximum lay: unpooling puts the values back there,
    and convolutions fill in the zeros around them. Every level pools, the last one too, and has two convolutions, or
    three from the third level on (VGG-16). What differs: fewer features, and instance norm instead of batch norm, since
    a CPU trains on batches of one or two.

    Args:
        in_channels, out_channels: Sequences in, regions out.
        channels: Features of each level, from the finest to the coarsest; N of them ask for multiples of 2^N.
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
        self.decoder = nn.ModuleList()  # counted like the encoder: [0] is the finest level
        for level, (coming, width) in enumerate(pairwise((in_channels, *widths))):
            same = [width] * (2 if level < 2 else 3)
            leaving = widths[max(level - 1, 0)]  # what the next finer level's maxima have
            self.encoder.append(_convs((coming, *same), norm))
            self.decoder.append(_convs((*same, leaving), norm))
        self.score = score_conv(widths[0], out_channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = image
        places = []
        for level in self.encoder:
            x, where = F.max_pool3d(level(x), 2, return_indices=True)  # (B, 16, X/2, ...) to (B, 256, X/32, ...)
            places.append(where)
        for level in reversed(self.decoder):
            x = level(unpool(x, places.pop()))  # (B, 128, X/16, ...) to (B, 16, X, Y, Z)
        logits: Tensor = self.score(x)
        return logits  # (B, R, X, Y, Z)


def unpool(maxima: Tensor, where: Tensor) -> Tensor:
    """Return a grid twice as fine that holds each maximum where the pooling found it, and zeros.

    Args:
        maxima: `(B, C, X, Y, Z)`.
        where: The indices that `F.max_pool3d(..., 2, return_indices=True)` gave, of the same shape.
    """
    if not maxima.is_contiguous(memory_format=torch.channels_last_3d):
        return F.max_unpool3d(maxima, where, (2, 2, 2))
    # torch's own leaves the layout, and with the copy back takes four times as long
    values, places = (x.permute(0, 2, 3, 4, 1).flatten(1, 3) for x in (maxima, where))  # (B, XYZ, C)
    batch, channels, *grid = maxima.shape
    fine = values.new_zeros(batch, 8 * values.shape[1], channels).scatter_(1, places, values)
    return fine.view(batch, *(2 * size for size in grid), channels).permute(0, 4, 1, 2, 3)


def _convs(widths: Sequence[int], norm: Norm) -> nn.Sequential:
    return nn.Sequential(*(conv_norm_relu(inputs, outputs, norm) for inputs, outputs in pairwise(widths)))
