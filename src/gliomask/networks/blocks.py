"""Building blocks of the networks: argument checks, initialised convolutions, and normalization layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.errors import InputError, unknown_name

Norm = Literal["instance", "batch"] | None

Conv = TypeVar("Conv", bound=nn.Conv3d | nn.ConvTranspose3d)

LEVELS = (16, 32, 64, 128, 256)
"""The default numbers of features of a network's five levels, from the finest to the coarsest."""


class InstanceNorm(nn.Module):
    """Normalize each sample and channel to zero mean and unit variance, then apply a learned scale and shift.

    The result equals that of `nn.InstanceNorm3d(channels, affine=True)`. That layer copies channels_last_3d tensors to
    another layout and back; the batch norm kernel, called for one sample at a time, does not (a forward pass of the
    U-Net takes 1.2 s instead of 2.0). A grid of a single voxel, whose variance is zero, gives the learned shift.

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, X, Y, Z), any B
        if x.shape[2:].numel() == 1:
            # zero, but part of the graph, so that both parameters get a gradient
            centred = (x - x) * self.weight[:, None, None, None]
            return (centred + self.bias[:, None, None, None]).to(x.dtype)
        samples = [self._normalise(sample) for sample in x.chunk(x.shape[0])]
        return samples[0] if len(samples) == 1 else torch.cat(samples)

    def _normalise(self, sample: Tensor) -> Tensor:
        return F.batch_norm(sample, None, None, self.weight, self.bias, training=True, eps=self.eps)


class SameConv(nn.Conv3d):
    """A convolution with an odd kernel that keeps the size of the grid, with a workaround for small grids.

    With a stride the grid becomes smaller by that factor.

    Where an axis is shorter than the kernel, torch 2.13 on a CPU in bfloat16 returns weight gradients that are partly
    uninitialised memory (a fault in oneDNN; it concerns kernel 3 at 2 voxels, the coarsest level of a 32^3 patch, and
    kernel 5 at 1 to 4 voxels). Such small grids are computed in float32, at negligible cost.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, ...],
        *,
        bias: bool,
        stride: int | tuple[int, ...] = 1,
    ) -> None:
        padding = kernel // 2 if isinstance(kernel, int) else tuple(edge // 2 for edge in kernel)
        super().__init__(inputs, outputs, kernel, stride, padding=padding, bias=bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, X, Y, Z) to (B, outputs, X, Y, Z)
        if x.device.type != "cpu" or all(
            edge >= kernel for edge, kernel in zip(x.shape[2:], self.kernel_size, strict=True)
        ):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return F.conv3d(x.float(), self.weight.float(), bias, self.stride, self.padding).to(x.dtype)


class UpConv(nn.ConvTranspose3d):
    """A transposed 2x2x2 convolution of stride 2, computed as a 1x1x1 convolution followed by a pixel shuffle.

    Values and weights equal those of `nn.ConvTranspose3d`, whose gradients take three times as long on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__(inputs, outputs, 2, stride=2, bias=bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        # (B, inputs, X, Y, Z) to (B, outputs, 2X, 2Y, 2Z)
        kernel = self.weight.permute(2, 3, 4, 1, 0).reshape(8 * self.out_channels, self.in_channels, 1, 1, 1)
        return shuffle_up(F.conv3d(x, kernel, None if self.bias is None else self.bias.repeat(8)))


def shuffle_up(x: Tensor) -> Tensor:
    """Rearrange `(B, 8C, X, Y, Z)` to twice the grid, `(B, C, 2X, 2Y, 2Z)`, in channels_last_3d.

    Input channel `(4i + 2j + k) C + c` at voxel `(x, y, z)` becomes channel c of voxel `(2x + i, 2y + j, 2z + k)`, with
    i, j and k being 0 or 1.

    Source: Shi et al. 2016, arXiv:1609.05158 (in 2-D, with another order of the channels).
    """
    batch, channels, *grid = x.shape
    split = x.permute(0, 2, 3, 4, 1).reshape(batch, *grid, 2, 2, 2, channels // 8)
    fine = split.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *(2 * size for size in grid), channels // 8)
    return fine.permute(0, 4, 1, 2, 3)


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return the normalization layer of that name, or the identity for None.

    Raises:
        InputError: The name is unknown.
    """
    if norm is None:
        return nn.Identity()
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    raise unknown_name("norm", str(norm), ("instance", "batch", "None"))


def conv(inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True) -> SameConv:
    """Return a convolution that keeps the size of the grid, initialised for a following ReLU (He et al. 2015)."""
    return _initialised(SameConv(inputs, outputs, kernel, bias=bias), math.sqrt(2 / (inputs * kernel**3)))


def down_conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv3d:
    """Return a 2x2x2 convolution of stride 2, which halves the grid."""
    return _initialised(nn.Conv3d(inputs, outputs, 2, stride=2, bias=bias), math.sqrt(2 / (inputs * 8)))


def up_conv(inputs: int, outputs: int, *, bias: bool = True) -> UpConv:
    """Return a transposed 2x2x2 convolution of stride 2, which doubles the grid."""
    # each output voxel depends on one element of the kernel, and no ReLU follows
    return _initialised(UpConv(inputs, outputs, bias=bias), math.sqrt(1 / inputs))


def score_conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv3d:
    """Return the 1x1x1 convolution from features to logits.

    The bias is initialised to -2, a probability of .12, because most voxels are background and the first training steps
    need not be spent on learning that (Lin et al. 2017, section 4.1, with a prior that is large enough for the gradient
    of the Dice loss).
    """
    layer = _initialised(nn.Conv3d(inputs, outputs, 1, bias=bias), math.sqrt(1 / inputs))
    if layer.bias is not None:
        nn.init.constant_(layer.bias, -2.0)
    return layer


def conv_norm_relu(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Return a 3x3x3 convolution, normalization and ReLU; with a normalization the convolution has no bias."""
    return nn.Sequential(conv(inputs, outputs, bias=norm is None), norm_layer(norm, outputs), nn.ReLU(inplace=True))


def double_conv(inputs: int, outputs: int, norm: Norm, dropout: float = 0.0) -> nn.Sequential:
    """Return a U-Net level: convolution, normalization and ReLU twice, with dropout between them."""
    between = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(conv_norm_relu(inputs, outputs, norm), *between, conv_norm_relu(outputs, outputs, norm))


# Larger networks than anyone trains; numbers beyond come from a mistake or a damaged file, and would take all memory.
MOST_LEVELS, MOST_FEATURES, MOST_BLOCKS = 10, 16_384, 100


def checked_channels(in_channels: int, out_channels: int, channels: Sequence[int]) -> tuple[int, ...]:
    """Return the features of the levels as a tuple.

    Raises:
        InputError: A number is not a positive integer or is far too large, or there are fewer than two levels.
    """
    for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not _is_count(count):
            raise InputError(f"{name} must be a whole number of at least 1; got {count!r}.")
    listed = isinstance(channels, Sequence) and not isinstance(channels, str)
    if not listed or len(channels) < 2 or not all(map(_is_count, channels)):
        raise InputError(
            f"channels must list the features of two or more levels as whole numbers above 0; got {channels!r}. "
            f"The default is {LEVELS}."
        )
    if len(channels) > MOST_LEVELS or max(channels) > MOST_FEATURES:
        raise InputError(
            f"channels may list {MOST_LEVELS} levels of up to {MOST_FEATURES} features; got {str(channels)[:100]}."
        )
    return tuple(channels)


def checked_rates(dropout: float | Sequence[float], levels: int) -> tuple[float, ...]:
    """Return the dropout rate of each level; a single number is used for all levels.

    Raises:
        InputError: A rate is not in [0, 1), or the number of rates is not that of the levels.
    """
    rates = tuple(dropout) if isinstance(dropout, Sequence) else (dropout,) * levels
    if len(rates) != levels or not all(_is_rate(rate) for rate in rates):
        raise InputError(
            f"dropout must be a number in [0, 1), or {levels} of them, one for each level; got {dropout!r}."
        )
    return rates


def check_image(image: Tensor, in_channels: int, divisor: int | tuple[int, int, int]) -> None:
    """Check the shape of a network's input.

    Args:
        image: The input.
        in_channels: The number of channels that the network takes.
        divisor: What X, Y and Z must be multiples of: one number, or one for each of them.

    Raises:
        InputError: The image is not `(B, in_channels, X, Y, Z)`, or X, Y or Z is not a multiple of `divisor`.
    """
    divisors = divisor if isinstance(divisor, tuple) else (divisor,) * 3
    shape = tuple(image.shape)
    if len(shape) != 5 or shape[1] != in_channels:
        raise InputError(f"the network takes images of shape (B, {in_channels}, X, Y, Z); got {shape}.")
    if any(size < step or size % step for size, step in zip(shape[2:], divisors, strict=True)):
        steps = divisors[0] if len(set(divisors)) == 1 else divisors
        raise InputError(
            f"the network takes X, Y and Z that are multiples of {steps}; got {shape[2:]}. Pad the image first."
        )


def _initialised(layer: Conv, deviation: float) -> Conv:
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
