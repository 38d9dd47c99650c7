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

    Residual stages of one, two, then three 5x5x5 convolutions learn what to add to their input. 2x2x2 convolutions of
    stride 2 lead down in place of pooling, transposed ones lead up, with a PReLU behind each, and a decoder's stage
    works on the encoder's fine features beside its own. What differs: instance norm (the paper has none), a sigmoid per
    region in place of the softmax, and an image of several sequences, which are added to the first stage's features in
    turn, as the paper's single one is to all of them.

    At full width it is by far the heaviest of the networks: 5x5x5 kernels cost 4.6 times what 3x3x3 ones do.

    Args:
        in_channels, out_channels: Sequences in, regions out.
        channels: Features of each level, from the finest to the coarsest; N of them ask for multiples of 2^(N-1).
            The first is at least `in_channels`.
        norm: "instance", "batch" or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int] = LEVELS, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        if widths[0] < in_channels:
            raise InputError(
                f"the V-Net's first stage is added to the image: channels must start with {in_channels} "
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
        # up and decoder are counted like the encoder, [0] the finest; half of what a decoder's stage works on comes
        # from below, half from the encoder
        joined = [2 * width for width in widths[:-1]]
        below = [*joined[1:], widths[-1]]
        self.up = nn.ModuleList(
            _activated(up_conv(coming, width, bias=norm is None), width, norm)
            for coming, width in zip(below, widths[:-1], strict=True)
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
    """Add what `depth` 5x5x5 convolutions make of the input to the input, then apply a PReLU.

    An input of fewer channels than the stage has is added in turn: channels 0 1 2 0 1 2 ... of three.
    """

    def __init__(self, inputs: int, channels: int, depth: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for coming in [inputs, *[channels] * (depth - 1)]:
            layers += [conv(coming, channels, 5, bias=norm is None), norm_layer(norm, channels), nn.PReLU(channels)]
        self.residual = nn.Sequential(*layers[:-1])  # the last PReLU comes after the sum
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
