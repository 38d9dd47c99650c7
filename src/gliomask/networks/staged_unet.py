"""The U-Nets of nnU-Net: a plain and a residual encoder with any kernels and strides, and one decoder for both.

Sub-modules have the names that they have in nnU-Net's checkpoints, so that its weights fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.networks.blocks import (
    MOST_BLOCKS,
    Norm,
    SameConv,
    UpConv,
    check_image,
    checked_channels,
    checked_rates,
    norm_layer,
    score_conv,
)

Steps = Sequence[int] | int
"""A number for each axis, or one for all."""

_CHANNELS = (32, 64, 128, 256, 320, 320)
_BLOCKS = (1, 3, 4, 6)  # deeper levels have as many as the last
_SLOPE = 0.01


class ConvNorm(nn.Module):
    """A convolution and its norm, and by default a leaky ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        norm: Norm,
        *,
        stride: Sequence[int] = (1, 1, 1),
        bias: bool = True,
        dropout: float = 0.0,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = SameConv(inputs, outputs, tuple(kernel), bias=bias, stride=tuple(stride))
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / (inputs * math.prod(kernel))))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.dropout = nn.Dropout(dropout)
        self.norm = norm_layer(norm, outputs)
        self.active = nn.LeakyReLU(_SLOPE, inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.active(self.norm(self.dropout(self.conv(x))))
        return found


class ConvStack(nn.Module):
    """Several `ConvNorm` one after the other; the first has the stride."""

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        norm: Norm,
        stride: Sequence[int],
        rate: float,
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(
                ConvNorm(
                    inputs if number == 0 else outputs,
                    outputs,
                    kernel,
                    norm,
                    stride=stride if number == 0 else (1, 1, 1),
                    dropout=rate,
                )
                for number in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.convs(x)
        return found


class ResidualBlock(nn.Module):
    """Two convolutions added to their input, which is averaged over the stride and projected if the features differ.

    Source: He et al. 2019, arXiv:1812.01187 (ResNet-D).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        norm: Norm,
        stride: tuple[int, int, int],
        rate: float,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, kernel, norm, stride=stride, dropout=rate)
        self.conv2 = ConvNorm(outputs, outputs, kernel, norm, active=False)
        parts: list[nn.Module] = []
        if max(stride) > 1:
            parts.append(nn.AvgPool3d(stride, stride))
        if inputs != outputs:
            parts.append(ConvNorm(inputs, outputs, (1, 1, 1), norm, bias=False, active=False))
        self.skip = nn.Sequential(*parts)
        self.active = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.active(self.conv2(self.conv1(x)) + self.skip(x))
        return found


class _Stage(nn.Module):
    """The residual blocks of a level; the first has the stride."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.blocks(x)
        return found


class _Encoder(nn.Module):
    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        if stem is not None:
            self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x) if hasattr(self, "stem") else x
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class _Decoder(nn.Module):
    """Transposed convolutions, concatenation with the encoder's features, convolutions, and logits of each level."""

    def __init__(self, shape: _Shape, out_channels: int, convs: Sequence[int], norm: Norm) -> None:
        super().__init__()
        ups, stages, scores = [], [], []
        for level in reversed(range(len(shape.widths) - 1)):  # the coarsest first
            fine, coarse = shape.widths[level], shape.widths[level + 1]
            ups.append(_up(coarse, fine, shape.strides[level + 1]))
            count = convs[len(shape.widths) - 2 - level]
            rate = shape.rates[level]
            stages.append(ConvStack(count, 2 * fine, fine, shape.kernels[level], norm, (1, 1, 1), rate))
            scores.append(score_conv(fine, out_channels))
        self.transpconvs = nn.ModuleList(ups)
        self.stages = nn.ModuleList(stages)
        self.seg_layers = nn.ModuleList(scores)

    def forward(self, levels: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        x = levels.pop()
        logits = []
        for number, (up, stage, score) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat([up(x), levels.pop()], dim=1))
            if self.training or number == len(self.stages) - 1:
                logits.append(score(x))
        return tuple(reversed(logits)) if self.training else logits[0]


class _Shape:
    """The checked arguments that both networks have in common."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        kernels: object,
        strides: object,
        dropout: float,
    ) -> None:
        self.widths = checked_channels(in_channels, out_channels, channels)
        levels = len(self.widths)
        self.kernels = _by_level("kernels", kernels, 3, levels)
        self.strides = _by_level("strides", strides, 2, levels, first=1)
        if any(kernel % 2 == 0 for kernel in sum(self.kernels, ())):
            raise InputError(f"kernels must be odd; got {kernels!r}.")
        if max(self.strides[0]) > 1:
            raise InputError(f"strides: the first level keeps the image's grid; got {self.strides[0]}.")
        self.rates = checked_rates(dropout, levels)
        x, y, z = (math.prod(stride[axis] for stride in self.strides) for axis in range(3))
        self.divisors = (x, y, z)


class _StagedUNet(nn.Module):
    """What both networks have in common: the check of the image, and the order of the parts."""

    def __init__(self, in_channels: int, shape: _Shape, encoder: _Encoder, decoder: _Decoder) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisors = shape.divisors
        self.divisor = max(shape.divisors)
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisors)
        logits: Tensor | tuple[Tensor, ...] = self.decoder(self.encoder(image))
        return logits  # (B, R, X, Y, Z)


class PlainConvUNet(_StagedUNet):
    """The U-Net of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), which its plans call PlainConvUNet.

    Levels are downsampled by strided convolutions and upsampled by transposed convolutions of the same stride. In
    training mode the logits of all levels but the coarsest are returned, for deep supervision.

    Args:
        in_channels, out_channels: The number of sequences and of regions or classes.
        channels: Features of each level, from the finest to the coarsest.
        kernels: The kernel of each level's convolutions, three odd numbers each; by default 3 along all axes.
        strides: The stride from the level before, three numbers for each level; by default 2 along all axes, and 1 for
            the first level.
        convs, decoder_convs: The number of convolutions of each level: one number, or one for each level, and in the
            decoder from the coarsest to the finest.
        norm: "instance", "batch" or None.
        dropout: Dropout rate after each convolution: one number, or one for each level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = _CHANNELS,
        kernels: Sequence[Steps] | int = 3,
        strides: Sequence[Steps] | int = 2,
        convs: Sequence[int] | int = 2,
        decoder_convs: Sequence[int] | int = 2,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        shape = _Shape(in_channels, out_channels, channels, kernels, strides, dropout)
        counts = _counts("convs", convs, len(shape.widths))
        inputs = pairwise((in_channels, *shape.widths))
        stages = [
            nn.Sequential(ConvStack(count, before, after, kernel, norm, stride, rate))
            for (before, after), count, kernel, stride, rate in zip(
                inputs, counts, shape.kernels, shape.strides, shape.rates, strict=True
            )
        ]
        below = _counts("decoder_convs", decoder_convs, len(shape.widths) - 1)
        super().__init__(in_channels, shape, _Encoder(stages), _Decoder(shape, out_channels, below, norm))


class ResidualEncoderUNet(_StagedUNet):
    """The U-Net with a residual encoder of nnU-Net's presets M, L and XL (Isensee et al. 2024, arXiv:2404.09556).

    A convolution widens the image to the first level's features. Levels are downsampled by the first convolution of
    their first block. The decoder is that of `PlainConvUNet`, with one convolution for each level.

    Args:
        in_channels, out_channels, channels, kernels, strides, decoder_convs, norm, dropout: As for `PlainConvUNet`.
        blocks: The number of residual blocks of each level; by default 1, 3, 4, 6, 6, ...
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = _CHANNELS,
        kernels: Sequence[Steps] | int = 3,
        strides: Sequence[Steps] | int = 2,
        blocks: Sequence[int] | int | None = None,
        decoder_convs: Sequence[int] | int = 1,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        shape = _Shape(in_channels, out_channels, channels, kernels, strides, dropout)
        levels = len(shape.widths)
        default = [_BLOCKS[min(level, len(_BLOCKS) - 1)] for level in range(levels)]
        counts = _counts("blocks", default if blocks is None else blocks, levels)
        first, rate = shape.widths[0], shape.rates[0]
        stem = ConvStack(1, in_channels, first, shape.kernels[0], norm, (1, 1, 1), rate)
        inputs = (first, *shape.widths[:-1])
        stages = [
            _Stage(
                [
                    ResidualBlock(
                        inputs[level] if number == 0 else shape.widths[level],
                        shape.widths[level],
                        shape.kernels[level],
                        norm,
                        shape.strides[level] if number == 0 else (1, 1, 1),
                        shape.rates[level],
                    )
                    for number in range(counts[level])
                ]
            )
            for level in range(levels)
        ]
        below = _counts("decoder_convs", decoder_convs, levels - 1)
        super().__init__(in_channels, shape, _Encoder(stages, stem), _Decoder(shape, out_channels, below, norm))


def _up(inputs: int, outputs: int, stride: tuple[int, int, int]) -> nn.ConvTranspose3d:
    """Return the transposed convolution whose kernel is its stride."""
    if stride == (2, 2, 2):
        layer: nn.ConvTranspose3d = UpConv(inputs, outputs, bias=True)
    else:
        layer = nn.ConvTranspose3d(inputs, outputs, stride, stride)
    nn.init.normal_(layer.weight, std=math.sqrt(1 / inputs))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _counts(name: str, given: object, levels: int) -> list[int]:
    """Return a number for each level.

    Raises:
        InputError: There are not as many as levels, or one is not a whole number from 1 to 100.
    """
    values = [given] * levels if isinstance(given, int) else list(given) if isinstance(given, list | tuple) else []
    if len(values) != levels or not all(type(value) is int and 1 <= value <= MOST_BLOCKS for value in values):
        raise InputError(f"{name} must be a whole number from 1 to {MOST_BLOCKS} or {levels} of them; got {given!r}.")
    return values


def _by_level(
    name: str, given: object, usual: int, levels: int, first: int | None = None
) -> list[tuple[int, int, int]]:
    """Return three numbers for each level; `first` replaces the default of the first level.

    Raises:
        InputError: There are not as many as levels, or one is not a whole number from 1 to 16.
    """
    if given == usual:
        given = [usual if first is None or level else first for level in range(levels)]
    elif isinstance(given, int):
        given = [given] * levels
    found = []
    for step in given if isinstance(given, list | tuple) else ():
        values = [step] * 3 if isinstance(step, int) else list(step) if isinstance(step, list | tuple) else []
        if len(values) == 3 and all(type(value) is int and 1 <= value <= 16 for value in values):
            found.append((values[0], values[1], values[2]))
    if len(found) != levels:
        raise InputError(f"{name} must be three whole numbers from 1 to 16 for each of {levels} levels; got {given!r}.")
    return found
