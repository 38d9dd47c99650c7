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
    """What `build_loss` returns."""

    def __call__(self, logits: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the loss; see `build_loss`."""
        ...


SMOOTH = 1.0
"""Voxels added to both sides of the Dice fraction: a region that is absent and predicted so counts as hit."""

# Each coarser answer counts half of the one before it, as in nnU-Net.
_COARSER = 0.5


def build_loss(name: str) -> Loss:
    """Return the loss of that name: `loss(logits, target, known)`, a scalar >= 0.

    Logits `(B, R, X, Y, Z)` are of any floating type and computed on in float32; the target has the same shape and is
    boolean, or a float in [0, 1]. Regions count alike, whatever their size, and samples too: a batch costs the mean of
    what its samples cost, however it is shared out over steps or processes.

    `known`, `(B, R)` and boolean, marks the regions of each sample that the target labels; None: all. A sample costs
    the mean of its known regions. The logits of the others do not influence the loss: their gradient is zero.

    Raises:
        InputError: There is no such loss; or, when it is called, the shapes differ, or nothing of a sample is known.
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

    The focal loss has gamma 2, `(1 - p_t)^2 * cross-entropy`, and no alpha: the paper's .25 takes weight from the rare
    class, which here is tumour, and Dice balances the two already.

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
    """Return the loss of a network's answer, or of its answers on several grids (deep supervision).

    Args:
        loss_of: As `build_loss` returns it.
        outputs: Logits `(B, R, X, Y, Z)`; or several, the full grid first, then coarser ones whose sizes divide it.
            Each coarser one is held against the target averaged over its voxels, and counts half of the one before.
        target: `(B, R, X, Y, Z)`, boolean or in [0, 1].
        known: `(B, R)`, boolean, on any device: as in `build_loss`, on every grid alike.

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
    """Return the mean of `region_loss(z, t)`, given each sample's and region's logits and target in a row of float32.

    One region at a time: a loss is taken when every activation is held for the way back, so its own copies add to the
    peak, and sums of a million bfloat16 voxels would stand still at a few hundred.
    """
    if logits.shape != target.shape or logits.ndim != 5:
        raise InputError(
            "logits and target must share one shape (B, R, X, Y, Z); "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    regions = logits.shape[1]
    known_rows = [[True] * regions] * len(logits) if known is None else known.tolist()
    if not all(map(any, known_rows)):
        raise InputError("of each sample one region at least must be known.")
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

    Squares in the denominator (Milletari et al. 2016, arXiv:1606.04797) let an absent region come to rest: the haze of
    small probabilities over two million voxels sums to nothing there, whereas their plain sum would keep the loss at 1.
    """
    fraction = (2 * (p * t).sum() + SMOOTH) / (p.square().sum() + t.square().sum() + SMOOTH)
    return 1 - fraction


def _cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    from torch.nn import functional as F  # here, so that the names are there without torch

    return F.binary_cross_entropy_with_logits(z, t, reduction="none")
