"""MONAI's networks for brain tumours, adapted to be trained, saved, loaded and used like ours.

MONAI is imported when one of them is built, because the import takes seconds. The names of the weights are MONAI's,
preceded by `body.`. All networks are adapted in the same way: the shape of the images is checked; instance norms are
replaced by ours, with the same values and names (see `blocks.InstanceNorm`); convolutions have a workaround for small
grids (see `guard`); and the bias of the last layer is initialised to -2, as in our networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from gliomask.errors import InputError, unknown_name
from gliomask.extras import missing_extra
from gliomask.networks.blocks import (
    MOST_BLOCKS,
    MOST_FEATURES,
    MOST_LEVELS,
    InstanceNorm,
    check_image,
    checked_channels,
)

_PRIOR_LOGIT = -2.0  # as in `blocks.score_conv`

# The features of nnU-Net for patches of 128^3: doubled at each level from 32 on, and limited to 320 to save memory.
_NNUNET_LEVELS = (32, 64, 128, 256, 320, 320)


class MonaiNetwork(nn.Module):
    """One of MONAI's networks with the interface of ours: `divisor`, `in_channels` and a check of the images."""

    def __init__(self, body: nn.Module, in_channels: int, divisor: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor = divisor
        self.body = body
        _own_instance_norms(body)
        guard(body)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        return cast("Tensor | tuple[Tensor, ...]", self.compute(image))

    def compute(self, image: Tensor) -> Any:
        """Return the logits; in training mode with deep supervision, those of coarser grids follow."""
        return self.body(image)


class DynUNet(MonaiNetwork):
    """MONAI's DynUNet, with a forward pass of our own.

    In MONAI's module each weight is registered under two names, which safetensors does not accept; and the logits of
    coarser grids are upsampled to the full grid, while ours keep their resolution.
    """

    def __init__(self, body: Any, in_channels: int, divisor: int) -> None:
        del body.skip_layers
        super().__init__(body, in_channels, divisor)

    def compute(self, image: Tensor) -> Any:
        """Return the logits; in training mode with deep supervision, those of coarser grids follow, finest first."""
        body = cast(Any, self.body)
        x = body.input_block(image)
        skips = [x]
        for down in body.downsamples:
            x = down(x)
            skips.append(x)
        x = body.bottleneck(x)
        levels: list[Tensor] = []
        for up in body.upsamples:
            x = up(x, skips.pop())
            levels.insert(0, x)
        logits = body.output_block(x)
        if not (self.training and body.deep_supervision):
            return logits
        heads = zip(body.deep_supervision_heads, levels[1:], strict=False)  # the coarsest levels have no head
        return (logits, *(head(level) for head, level in heads))


def segresnet(
    in_channels: int,
    out_channels: int,
    init_filters: int = 16,
    blocks_down: Sequence[int] = (1, 2, 2, 4),
    dropout: float = 0.0,
) -> MonaiNetwork:
    """Return MONAI's SegResNet (Myronenko 2018, arXiv:1810.11654), without the variational branch.

    As in the paper, it uses group norm with eight groups.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        init_filters: Features of the finest level, doubled at each coarser level; a multiple of 8.
        blocks_down: Residual blocks of each level of the encoder, for two levels or more; the decoder has one block in
            each level.
        dropout: Rate in [0, 1) at which whole channels are dropped after the first convolution.

    Raises:
        InputError: MONAI is not installed, or an argument is out of range.
    """
    _check_counts(in_channels=in_channels, out_channels=out_channels, init_filters=init_filters)
    depths = _checked_blocks(blocks_down)
    if init_filters % 8:
        raise InputError(f"init_filters must be a multiple of 8; got {init_filters}.")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(f"dropout must be a number in [0, 1); got {dropout!r}.")
    body = import_monai("segresnet").SegResNet(
        init_filters=init_filters,
        in_channels=in_channels,
        out_channels=out_channels,
        dropout_prob=dropout or None,
        norm=("group", {"num_groups": 8}),
        blocks_down=depths,
        blocks_up=(1,) * (len(depths) - 1),
    )
    _start_at_prior(body.conv_final[-1])
    return MonaiNetwork(body, in_channels, 2 ** (len(depths) - 1))


def swin_unetr(in_channels: int, out_channels: int, feature_size: int = 24, norm: str = "instance") -> MonaiNetwork:
    """Return MONAI's Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266).

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        feature_size: Features of the finest level, doubled at each coarser level; a multiple of 12. The paper uses 48.
        norm: The normalization of the convolutions: "instance" (without learned scale and shift, as in MONAI) or
            "batch".

    Raises:
        InputError: MONAI or einops is not installed, or an argument is out of range.
    """
    _check_counts(in_channels=in_channels, out_channels=out_channels, feature_size=feature_size)
    if feature_size % 12:
        raise InputError(f"feature_size must be a multiple of 12; got {feature_size}.")
    _import("einops")  # MONAI imports it only in the forward pass
    norm_name = _chosen(norm, {"instance": "instance", "batch": "batch"})
    with torch.device("cpu"):  # its constructor reads values of tensors, which is not possible on the device "meta"
        body = import_monai("swin_unetr").SwinUNETR(
            in_channels, out_channels, feature_size=feature_size, norm_name=norm_name
        )
    body.to(torch.get_default_device())
    _start_at_prior(body.out)
    return MonaiNetwork(body, in_channels, 32)


def dynunet(
    in_channels: int,
    out_channels: int,
    channels: Sequence[int] = _NNUNET_LEVELS,
    residual: bool = False,
    deep_supervision: bool = True,
    norm: str = "instance",
) -> MonaiNetwork:
    """Return MONAI's DynUNet, configured as nnU-Net does for patches of 128^3 (Isensee et al. 2021).

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from the finest to the coarsest, for three levels or more; with N levels the
            image's edges must be multiples of 2^(N-1).
        residual: Whether the levels are residual blocks.
        deep_supervision: Whether `forward` also returns logits of coarser grids in training mode: those of all decoder
            levels but the two coarsest, so that six levels give four outputs (three levels give two), the full grid
            first.
        norm: "instance" or "batch".

    Raises:
        InputError: MONAI is not installed, or an argument is out of range.

    Source: doi:10.1038/s41592-020-01008-z.
    """
    widths = checked_channels(in_channels, out_channels, channels)
    if len(widths) < 3:
        raise InputError(f"channels of a dynunet must list three levels or more; got {widths}.")
    _check_flags(residual=residual, deep_supervision=deep_supervision)
    halvings = len(widths) - 1
    body = import_monai("dynunet").DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * len(widths),
        strides=[1, *[2] * halvings],
        upsample_kernel_size=[2] * halvings,
        filters=widths,
        norm_name=_chosen(norm, {"instance": ("instance", {"affine": True}), "batch": "batch"}),
        deep_supervision=deep_supervision,
        deep_supr_num=max(1, halvings - 2),
        res_block=residual,
    )
    for head in (body.output_block, *(body.deep_supervision_heads if deep_supervision else ())):
        _start_at_prior(head)
    return DynUNet(body, in_channels, 2**halvings)


def mednext(
    in_channels: int,
    out_channels: int,
    size: Literal["S", "B", "M", "L"] = "S",
    kernel: Literal[3, 5] = 3,
    deep_supervision: bool = True,
) -> MonaiNetwork:
    """Return MONAI's MedNeXt (Roy et al. 2023, arXiv:2303.09975).

    Its depthwise convolutions need few operations but are slow on a CPU. As in the paper, it uses group norm with one
    group for each channel, which is equivalent to instance norm.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        size: The paper's variant, from the smallest to the largest.
        kernel: Edge of the depthwise convolutions' kernel.
        deep_supervision: Whether `forward` returns logits of all five grids in training mode, the full grid first.

    Raises:
        InputError: MONAI is not installed, or an argument is out of range.
    """
    _check_counts(in_channels=in_channels, out_channels=out_channels)
    _check_flags(deep_supervision=deep_supervision)
    if size not in ("S", "B", "M", "L"):
        raise unknown_name("size of mednext", str(size), ("S", "B", "M", "L"))
    if kernel not in (3, 5):
        raise InputError(f"kernel must be 3 or 5; got {kernel!r}.")
    body = import_monai("mednext").create_mednext(
        size,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel,
        deep_supervision=deep_supervision,
    )
    for head in (body.out_0, *(body.out_blocks if deep_supervision else ())):
        _start_at_prior(head)
    return MonaiNetwork(body, in_channels, 16)


def guard(network: nn.Module) -> None:
    """Make the network's 3-D convolutions correct on small grids under bfloat16 autocast on a CPU.

    Where an axis is shorter than the kernel, torch 2.13 returns weight gradients that are partly uninitialised memory
    (see `blocks.SameConv`), also for strided, grouped and transposed convolutions. Such grids are computed in float32.
    The network is changed in place; its parameters and their names stay the same.
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _GuardedConv
        elif type(module) is nn.ConvTranspose3d:
            module.__class__ = _GuardedTransposedConv


class _GuardedConv(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:  # (B, inputs, X, Y, Z)
        if _fits(self, x):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


class _GuardedTransposedConv(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # (B, inputs, X, Y, Z)
        if _fits(self, x):
            return super().forward(x, output_size)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float(), output_size).to(x.dtype)


def _fits(layer: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> bool:
    return x.device.type != "cpu" or all(n >= k for n, k in zip(x.shape[2:], layer.kernel_size, strict=True))


class _PlainInstanceNorm(InstanceNorm):
    """An instance norm without learned scale and shift, and therefore without saved weights."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        for name in ("weight", "bias"):
            value = getattr(self, name).detach()
            delattr(self, name)
            self.register_buffer(name, value, persistent=False)


def _own_instance_norms(network: nn.Module) -> None:
    """Replace torch's instance norms, and group norms with one channel in each group, by ours."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            own = _own_instance_norm(child)
            if own is not None:
                setattr(parent, name, own)


def _own_instance_norm(layer: nn.Module) -> InstanceNorm | None:
    if isinstance(layer, nn.InstanceNorm3d):
        channels, affine = layer.num_features, layer.affine
    elif isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels:
        channels, affine = layer.num_channels, layer.affine
    else:
        return None
    if not affine:
        return _PlainInstanceNorm(channels, layer.eps)
    own = InstanceNorm(channels, layer.eps)
    own.load_state_dict(layer.state_dict())
    return own


def import_monai(module: str) -> Any:
    """Return a module of MONAI's networks.

    Raises:
        InputError: MONAI is not installed.
    """
    return _import(f"monai.networks.nets.{module}")


def _import(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation warnings of its dependencies, which users cannot act on
            return import_module(module)
    except ImportError as error:
        raise missing_extra(f"this network needs MONAI ({error})", "monai") from error


def _start_at_prior(head: nn.Module) -> None:
    """Initialise the bias of the last layer to the prior logit."""
    (bias,) = (parameter for name, parameter in head.named_parameters() if name.endswith("bias"))
    nn.init.constant_(bias, _PRIOR_LOGIT)


def _chosen(norm: object, choices: dict[str, Any]) -> Any:
    if not isinstance(norm, str) or norm not in choices:
        raise unknown_name("norm", str(norm), choices)
    return choices[norm]


def _check_counts(**counts: object) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{name} must be a whole number of at least 1; got {count!r}.")
        if count > MOST_FEATURES:
            raise InputError(f"{name} may be at most {MOST_FEATURES}; got {count}.")


def _check_flags(**flags: object) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputError(f"{name} must be true or false; got {flag!r}.")


def _checked_blocks(blocks: object) -> tuple[int, ...]:
    if isinstance(blocks, str) or not isinstance(blocks, Sequence) or len(blocks) < 2:
        raise InputError(f"blocks_down must list the number of residual blocks of two or more levels; got {blocks!r}.")
    _check_counts(**{f"blocks_down[{level}]": count for level, count in enumerate(blocks)})
    if len(blocks) > MOST_LEVELS or max(blocks) > MOST_BLOCKS:
        raise InputError(f"blocks_down may list {MOST_LEVELS} levels of up to {MOST_BLOCKS} blocks; got {blocks!r}.")
    return tuple(blocks)
