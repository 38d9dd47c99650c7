"""Losses of overlapping regions: soft Dice with cross-entropy or focal loss, on logits with a sigmoid each.

The table can be read without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gliomask.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]

SMOOTH = 1.0
"""Voxels added to both sides of the Dice fraction: a region that is absent and predicted so counts as hit."""


def build_loss(name: str) -> Loss:
    """Return the loss of that name: `loss(logits, target)`, a scalar >= 0.

    Logits `(B, R, X, Y, Z)` are of any floating type and computed on in float32; the target has the same shape and is
    boolean, or a float in [0, 1]. Regions count alike, whatever their size.

    Raises:
        InputError: There is no such loss; or, when it is called, the shapes differ.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return soft Dice loss + mean binary cross-entropy, for logits and targets as in `build_loss`."""

    def region_loss(z: Tensor, t: Tensor) -> Tensor:
        return _soft_dice_loss(z.sigmoid(), t) + _cross_entropy(z, t).mean()

    return _mean_over_regions(region_loss, logits, target)


def dice_and_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Return soft Dice loss + mean focal loss, for logits and targets as in `build_loss`.

    The focal loss has gamma 2, `(1 - p_t)^2 * cross-entropy`, and no alpha: the paper's .25 takes weight from the rare
    class, which here is tumour, and Dice balances the two already.

    Source: Lin et al. 2017, arXiv:1708.02002.
    """

    def region_loss(z: Tensor, t: Tensor) -> Tensor:
        p = z.sigmoid()
        focal = (p - t).square() * _cross_entropy(z, t)  # |p - t| is 1 - p_t for a boolean target
        return _soft_dice_loss(p, t) + focal.mean()

    return _mean_over_regions(region_loss, logits, target)


LOSSES: dict[str, Loss] = {"dice+ce": dice_and_cross_entropy, "dice+focal": dice_and_focal}


def _mean_over_regions(region_loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean of `region_loss(z, t)`, given each region's logits and target in one row of float32.

    One region at a time: a loss is taken when every activation is held for the way back, so its own copies add to the
    peak, and sums of a million bfloat16 voxels would stand still at a few hundred.
    """
    if logits.shape != target.shape or logits.ndim != 5:
        raise InputError(
            "logits and target must share one shape (B, R, X, Y, Z); "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    regions = zip(logits.unbind(1), target.unbind(1), strict=True)
    losses = [region_loss(z.float().flatten(), t.float().flatten()) for z, t in regions]
    return sum(losses[1:], losses[0]) / len(losses)


def _soft_dice_loss(p: Tensor, t: Tensor) -> Tensor:
    """Return 1 - soft Dice of one region, its voxels summed over the whole batch.

    A patch without enhancing tumour then does not say on its own what the region is worth. Squares in the denominator
    (Milletari et al. 2016, arXiv:1606.04797) let an absent region come to rest: the haze of small probabilities over
    two million voxels sums to nothing there, whereas their plain sum would keep the loss at 1.
    """
    fraction = (2 * (p * t).sum() + SMOOTH) / (p.square().sum() + t.square().sum() + SMOOTH)
    return 1 - fraction


def _cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    from torch.nn import functional as F  # here, so that the names are there without torch

    return F.binary_cross_entropy_with_logits(z, t, reduction="none")
