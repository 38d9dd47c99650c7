"""A residual U-Net at half resolution, optimised for training speed on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.errors import InputError
from gliomask.networks.blocks import (
    MOST_BLOCKS,
    Norm,
    SameConv,
    check_image,
    checked_channels,
    conv,
    conv_norm_relu,
    down_conv,
    norm_layer,
    score_conv,
    shuffle_up,
)

# The initial scale of a residual block's last normalization, small so that the block changes its input little at first.
# Goyal et al. 2017 (arXiv:1706.02677, section 5.1) start at zero, with which the layers before it get no gradient in
# the first step.
_INITIAL_SCALE = 0.1


class Fast(nn.Module):
    """A residual U-Net whose finest level has half the image's resolution.

    A first convolution of stride 2 combines 2x2x2 voxels, so that nothing is computed at full resolution, where even 16
    features are expensive and processors least efficient. Each level consists of residual blocks of two dense 3x3x3
    convolutions with 32 features or more (He et al. 2016, arXiv:1512.03385). In the decoder, the features of a 1x1x1
    convolution are upsampled by repetition and added to the encoder's. The head computes the logits of the eight voxels
    that belong to each feature vector and arranges them on the full grid (pixel shuffle, Shi et al. 2016,
    arXiv:1609.05158).

    In training mode `forward` returns the logits of several grids: of the full one and of those at a quarter, an eighth
    ... of its resolution (deep supervision, Lee et al. 2015, arXiv:1409.5185). In evaluation mode it returns those of
    the full grid alone.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from half resolution to the coarsest; with N levels the image's edges must be
            multiples of 2^N.
        blocks: Residual blocks of each level of the encoder, one number for all levels or one for each; the decoder has
            one block in each level.
        norm: "instance", "batch" or None.
        sides: Compare the two sides of the brain, since most tumours lie in one of them: from the second level on, the
            features after a 1x1x1 convolution, mirrored along X (left to right in our plans), are added to the
            features. The middle of the grid should lie near that of the brain; on these coarse grids an offset of a
            few voxels matters little.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: int | Sequence[int] = 1,
        norm: Norm = "instance",
        *,
        sides: bool = False,
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        depths = _checked_blocks(blocks, len(widths))
        self.in_channels = in_channels
        self.divisor = 2 ** len(widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(_halved(inputs, outputs, norm), *(ResidualBlock(outputs, norm) for _ in range(depth)))
            for (inputs, outputs), depth in zip(pairwise((in_channels, *widths)), depths, strict=True)
        )
        self.across = nn.ModuleList(_zero_conv(width) for width in widths[1:] if sides)
        # up, decoder and scores are numbered like the encoder: [0] is the finest level
        self.up = nn.ModuleList(conv(coarse, fine, kernel=1) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(ResidualBlock(width, norm) for width in widths[:-1])
        self.head = spread_score(widths[0], out_channels)
        self.scores = nn.ModuleList(score_conv(width, out_channels) for width in widths[1:-1])

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = image
        skips = []
        for i, level in enumerate(self.encoder):
            x = level(x)  # (B, 32, X/2, Y/2, Z/2) to (B, 256, X/16, Y/16, Z/16)
            if i > 0 and len(self.across) > 0:
                x = x + self.across[i - 1](x.flip(2))
            skips.append(x)
        skips.pop()
        coarser: list[Tensor] = []  # logits (B, R, X/4, ...), (B, R, X/8, ...)
        for i in reversed(range(len(skips))):
            x = self.decoder[i](skips.pop() + F.interpolate(self.up[i](x), scale_factor=2))  # to (B, 32, X/2, ...)
            if self.training and i > 0:
                coarser.insert(0, self.scores[i - 1](x))
        logits = shuffle_up(self.head(x))  # (B, R, X, Y, Z)
        return (logits, *coarser) if self.training else logits


def fast_large(
    in_channels: int,
    out_channels: int,
    channels: Sequence[int] = (64, 128, 256, 320),
    blocks: int | Sequence[int] = 2,
    norm: Norm = "instance",
) -> Fast:
    """Return a wider and deeper `Fast`, meant for training on a GPU."""
    return Fast(in_channels, out_channels, channels, blocks, norm)


def fast_sides(
    in_channels: int,
    out_channels: int,
    channels: Sequence[int] = (32, 64, 128, 256),
    blocks: int | Sequence[int] | None = None,
    norm: Norm = "instance",
) -> Fast:
    """Return a `Fast` that compares the two sides of the brain.

    By default the finest and the coarsest level have one residual block and the levels between have two.
    """
    if blocks is None:
        blocks = [1, *[2] * (len(channels) - 2), 1]
    return Fast(in_channels, out_channels, channels, blocks, norm, sides=True)


class ResidualBlock(nn.Module):
    """Add the output of two 3x3x3 convolutions to their input, then apply a ReLU."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        last = [conv(channels, channels, bias=norm is None), norm_layer(norm, channels)]
        self.residual = nn.Sequential(conv_norm_relu(channels, channels, norm), *last)
        with torch.no_grad():
            last[norm is not None].get_parameter("weight").mul_(_INITIAL_SCALE)

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, X, Y, Z)
        return F.relu(x + self.residual(x), inplace=True)


def spread_score(inputs: int, outputs: int) -> nn.Conv3d:
    """Return the 1x1x1 convolution to the logits of 2x2x2 voxels, for `shuffle_up`.

    The weights of the eight voxels are equal at first.
    """
    layer = score_conv(inputs, 8 * outputs)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[:outputs].repeat(8, 1, 1, 1, 1))
    return layer


def _zero_conv(channels: int) -> SameConv:
    """Return a 1x1x1 convolution whose weights are zero at first."""
    layer = conv(channels, channels, kernel=1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def _halved(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        down_conv(inputs, outputs, bias=norm is None), norm_layer(norm, outputs), nn.ReLU(inplace=True)
    )


def _checked_blocks(blocks: int | Sequence[int], levels: int) -> tuple[int, ...]:
    depths = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,) * levels
    if len(depths) != levels or not all(_is_depth(n) for n in depths):
        raise InputError(
            f"blocks must be a whole number from 0 to {MOST_BLOCKS}, or {levels} of them, one for each level; "
            f"got {blocks!r}."
        )
    return depths


def _is_depth(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_BLOCKS
