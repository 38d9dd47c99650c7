"""The 3-D attention U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.networks.blocks import LEVELS, Norm, conv, down_conv
from gliomask.networks.unet import UNet


class AttentionUNet(UNet):
    """Attention U-Net of Oktay et al. 2018 (arXiv:1804.03999): a `UNet` with attention gates in its skip connections.

    A gate computes weights from the skip connection's features and the decoder's features one level coarser, and
    multiplies the former by them. As in the paper, the finest skip connection has no gate, because its features are too
    simple to select from. Differences from the paper: no deep supervision, and instance norm instead of batch norm. The
    arguments are those of `UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = LEVELS,
        norm: Norm = "instance",
        dropout: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, channels, norm, dropout)
        self.gates = nn.ModuleList(AttentionGate(fine, coarse) for fine, coarse in list(pairwise(channels))[1:])

    def select(self, level: int, skip: Tensor, coarser: Tensor) -> Tensor:
        """Return a level's skip connection multiplied by its gate's coefficients; the finest level's unchanged."""
        if level == 0:
            return skip
        gated: Tensor = self.gates[level - 1](skip, coarser)
        return gated


class AttentionGate(nn.Module):
    """Multiply the voxels of a skip connection by coefficients in (0, 1), computed on the gating signal's coarser grid.

    Oktay et al. 2018, equation 1 and figure 2: `sigmoid(psi(relu(theta(skip) + phi(gating))))`.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.theta = down_conv(skip_channels, skip_channels, bias=False)
        self.phi = conv(gating_channels, skip_channels, kernel=1)
        self.psi = conv(skip_channels, 1, kernel=1)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:  # (B, C, 2X, 2Y, 2Z) and (B, G, X, Y, Z)
        return skip * self.coefficients(skip, gating)

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the coefficient of each voxel of the skip connection, `(B, 1, 2X, 2Y, 2Z)`, in (0, 1)."""
        both = torch.relu(self.theta(skip) + self.phi(gating))  # (B, C, X, Y, Z)
        coarse = torch.sigmoid(self.psi(both))  # (B, 1, X, Y, Z)
        fine = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
        return fine.to(skip.dtype)  # autocast interpolates in float32, which would double the memory of the product
