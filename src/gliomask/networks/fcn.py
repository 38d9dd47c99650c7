"""The 3-D fully convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from gliomask.networks.blocks import LEVELS, Norm, check_image, checked_channels, double_conv, score_conv


class FCN(nn.Module):
    """Fully convolutional network of Long et al. 2015 (arXiv:1411.4038), in 3-D.

    There is no decoder: a 1x1x1 convolution computes a score map from each level's features, and from the coarsest
    level on each map is upsampled to twice its grid and added to the next, as in FCN-8s. Differences from the paper:
    two 3x3x3 convolutions in each level instead of VGG-16; instance norm; score maps of all levels up to full
    resolution (FCN-8s uses three of five and ends at an eighth of the resolution, too coarse for an enhancing rim that
    is two voxels thick); and trilinear upsampling throughout, with which the paper's learned upsampling is initialised.

    Args:
        in_channels, out_channels: The number of sequences and of regions.
        channels: Features of each level, from the finest to the coarsest; with N levels the image's edges must be
            multiples of 2^(N-1).
        norm: "instance", "batch" or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int] = LEVELS, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        widths = checked_channels(in_channels, out_channels, channels)
        self.in_channels = in_channels
        self.divisor = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(
            double_conv(inputs, outputs, norm) for inputs, outputs in pairwise((in_channels, *widths))
        )
        # The maps are summed, so one bias is enough: that of the coarsest level.
        self.scores = nn.ModuleList(
            score_conv(width, out_channels, bias=level == len(widths) - 1) for level, width in enumerate(widths)
        )

    def forward(self, image: Tensor) -> Tensor:  # (B, C, X, Y, Z)
        check_image(image, self.in_channels, self.divisor)
        x = self.encoder[0](image)  # (B, 16, X, Y, Z)
        maps = [self.scores[0](x)]
        for level, score in zip(self.encoder[1:], self.scores[1:], strict=True):
            x = level(F.max_pool3d(x, 2))  # ... (B, 256, X/16, Y/16, Z/16)
            maps.append(score(x))
        logits: Tensor = maps.pop()  # (B, R, X/16, Y/16, Z/16)
        while maps:
            upsampled = F.interpolate(logits, scale_factor=2, mode="trilinear", align_corners=False)
            logits = upsampled + maps.pop()
        return logits  # (B, R, X, Y, Z)
