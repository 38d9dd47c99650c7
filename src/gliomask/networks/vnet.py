"""The V-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.networks.blocks import (
    LEVELS,
    Norm,
    check_image,
    checked_channels,
    conv,
    down_conv,
    norm_layer,
    score_conv,
    up_conv,
)


class VNet(nn.Module):
    """V-Net of Milletari et al. 2016 (arXiv:1606.04797).

    The levels are residual stages of one, two, then three 5x5x5 convolutions. Convolutions of 2x2x2 with stride 2
    downsample instead of pooling, transposed ones upsample, each followed by a PReLU, and the decoder's features are
    concatenated with the encoder's of the same level. Differences from the paper: instance norm (the paper has none), a
    sigmoid for each region instead of a softmax, and several input sequences. These are repeated in turn to be added to
    the features of the first stage, as the paper's single sequence is added to all of them.

    At full width it is by far the most expensive network: a 5x5x5 kernel costs 4.6 times as much as a 3x3x3 one.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from the finest to the coarsest; with N levels the image's edges must be
            multiples of 2^(N-1). The first must be at least `in_channels`.
        norm: "instance", "batch" or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int] = LEVELS, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        if widths[0] < in_channels:
            raise InputError(
                f"the V-Net adds the image to its first stage: channels must start with {in_channels} "
                f"(in_channels) or more; got {widths}."
            )
        depths = [min(level + 1, 3) for level in range(len(widths))]
        self.in_channels = in_channels
        self.divisor = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(
            ResidualStage(in_channels if level == 0 else width, width, depth, norm)
            for level, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )
        self.down = nn.ModuleList(
            _activated(down_conv(fine, coarse, bias=norm is None), coarse, norm) for fine, coarse in pairwise(widths)
        )
        # up and decoder are numbered like the encoder, [0] is the finest level; of the input of a decoder stage, half
        # the features come from the coarser level and half from the encoder
        joined = [2 * width for width in widths[:-1]]
        below = [*joined[1:], widths[-1]]
        self.up = nn.ModuleList(
            _activated(up_conv(coarser, width, bias=norm is None), width, norm)
            for coarser, width in zip(below, widths[:-1], strict=True)
        )
        self.decoder = nn.ModuleList(
            ResidualStage(width, width, depth, norm) for width, depth in zip(joined, depths[:-1], strict=True)
        )
        self.score = score_conv(joined[0], out_channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = self.encoder[0](image)  # (B, 16, X, Y, Z)
        skips = []
        for down, stage in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = stage(down(x))  # ... (B, 256, X/16, Y/16, Z/16)
        for up, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))  # (B, 256, X/8, ...) to (B, 32, X, Y, Z)
        logits: Tensor = self.score(x)
        return logits  # (B, R, X, Y, Z)


class ResidualStage(nn.Module):
    """Add the output of `depth` 5x5x5 convolutions to their input, then apply a PReLU.

    An input with fewer channels than the stage has is repeated in turn before it is added: channels 0 1 2 0 1 2 ... of
    three.
    """

    def __init__(self, inputs: int, channels: int, depth: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in [inputs, *[channels] * (depth - 1)]:
            layers += [conv(width, channels, 5, bias=norm is None), norm_layer(norm, channels), nn.PReLU(channels)]
        self.residual = nn.Sequential(*layers[:-1])  # the last PReLU follows the sum
        self.activation = nn.PReLU(channels)
        self.repeats = -(-channels // inputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, X, Y, Z)
        change = self.residual(x)  # (B, channels, X, Y, Z)
        if self.repeats > 1:
            x = torch.cat([x] * self.repeats, dim=1)[:, : change.shape[1]]
        total: Tensor = self.activation(change + x.to(change.dtype))
        return total


def _activated(layer: nn.Module, channels: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(layer, norm_layer(norm, channels), nn.PReLU(channels))
