"""Losses of overlapping regions: soft Dice with cross-entropy or focal loss, on logits with a sigmoid each.

The table can be read without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from gliomask.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

RegionLoss = Callable[["Tensor", "Tensor"], "Tensor"]


class Loss(Protocol):
    """A loss function, as returned by `build_loss`."""

    def __call__(self, logits: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the loss; see `build_loss`."""
        ...


SMOOTH = 1.0
"""Voxels added to both sides of the Dice fraction, so that an absent region that is not predicted has a Dice of 1."""

# The weight of each coarser output relative to the next finer one, as in nnU-Net.
_COARSER = 0.5


def build_loss(name: str) -> Loss:
    """Return the loss of that name: `loss(logits, target, known)`, a scalar >= 0.

    Logits `(B, R, X, Y, Z)` may have any floating type and are converted to float32; the target has the same shape and
    is boolean, or a float in [0, 1]. All regions have the same weight, whatever their size, and so have all samples:
    the loss of a batch is the mean over its samples, however they are distributed over steps or processes.

    `known`, `(B, R)` and boolean, marks the regions of each sample that the target labels; None: all. The loss of a
    sample is the mean over its known regions. The logits of other regions do not influence it: their gradient is zero.

    Raises:
        InputError: There is no such loss; or, when it is called, the shapes differ or a sample has no known region.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name]


def dice_and_cross_entropy(logits: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """Return soft Dice loss + mean binary cross-entropy, for logits and targets as in `build_loss`."""

    def region_loss(z: Tensor, t: Tensor) -> Tensor:
        return _soft_dice_loss(z.sigmoid(), t) + _cross_entropy(z, t).mean()

    return _mean_over_regions(region_loss, logits, target, known)


def dice_and_focal(logits: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """Return soft Dice loss + mean focal loss, for logits and targets as in `build_loss`.

    The focal loss has gamma 2, `(1 - p_t)^2 * cross-entropy`, and no alpha: the paper's .25 would lower the weight of
    the rare class, which here is the tumour, and the Dice loss already balances the classes.

    Source: Lin et al. 2017, arXiv:1708.02002.
    """

    def region_loss(z: Tensor, t: Tensor) -> Tensor:
        p = z.sigmoid()
        focal = (p - t).square() * _cross_entropy(z, t)  # |p - t| is 1 - p_t for a boolean target
        return _soft_dice_loss(p, t) + focal.mean()

    return _mean_over_regions(region_loss, logits, target, known)


LOSSES: dict[str, Loss] = {"dice+ce": dice_and_cross_entropy, "dice+focal": dice_and_focal}


def supervised(
    loss_of: Loss, outputs: Tensor | Sequence[Tensor], target: Tensor, known: Tensor | None = None
) -> Tensor:
    """Return the loss of a network's output, or of its outputs on several grids (deep supervision).

    Args:
        loss_of: A loss function as returned by `build_loss`.
        outputs: Logits `(B, R, X, Y, Z)`; or several, the full grid first, then coarser ones whose sizes divide it.
            Each coarser output is compared with the target averaged over its voxels and has half the weight of the
            previous one.
        target: `(B, R, X, Y, Z)`, boolean or in [0, 1].
        known: `(B, R)`, boolean, on any device, as in `build_loss`; the same for every grid.

    Source: Lee et al. 2015, arXiv:1409.5185; weights as in Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.
    """
    from torch.nn import functional as F

    if not isinstance(outputs, Sequence):
        return loss_of(outputs, target, known)
    weights = [_COARSER**depth for depth in range(len(outputs))]
    total = weights[0] * loss_of(outputs[0], target, known)
    for weight, logits in zip(weights[1:], outputs[1:], strict=True):
        factor = [full // coarse for full, coarse in zip(target.shape[2:], logits.shape[2:], strict=True)]
        total = total + weight * loss_of(logits, F.avg_pool3d(target.float(), factor), known)
    return total / sum(weights)


def _mean_over_regions(region_loss: RegionLoss, logits: Tensor, target: Tensor, known: Tensor | None) -> Tensor:
    """Return the mean of `region_loss(z, t)` over samples and regions, with logits and target as flat float32 tensors.

    One region is computed at a time, because all activations are in memory when the loss is computed and its copies add
    to the peak. In float32, because a sum of a million bfloat16 voxels would stop growing at a few hundred.
    """
    if logits.shape != target.shape or logits.ndim != 5:
        raise InputError(
            "logits and target must share one shape (B, R, X, Y, Z); "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    regions = logits.shape[1]
    known_rows = [[True] * regions] * len(logits) if known is None else known.tolist()
    if not all(map(any, known_rows)):
        raise InputError("every sample needs at least one known region.")
    losses = [
        region_loss(z.float().flatten(), t.float().flatten()) * (regions / sum(row))  # times 1 where all are known
        for sample, truth, row in zip(logits, target, known_rows, strict=True)
        for z, t, counts in zip(sample, truth, row, strict=True)
        if counts
    ]
    total: Tensor = sum(losses[1:], losses[0])
    return total / (len(logits) * regions)


def _soft_dice_loss(p: Tensor, t: Tensor) -> Tensor:
    """Return 1 - soft Dice of one region of one sample.

    The denominator has squares (Milletari et al. 2016, arXiv:1606.04797) so that the loss of an absent region can reach
    0: small probabilities of two million voxels have a negligible sum of squares, but their plain sum would keep the
    loss near 1.
    """
    fraction = (2 * (p * t).sum() + SMOOTH) / (p.square().sum() + t.square().sum() + SMOOTH)
    return 1 - fraction


def _cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    from torch.nn import functional as F  # imported here, so that the names of the losses can be read without torch

    return F.binary_cross_entropy_with_logits(z, t, reduction="none")
