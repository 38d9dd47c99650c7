"""The losses of regions: bounds, values computed by hand, gradients and equivalences."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from gliomask.errors import InputError
from gliomask.training.losses import LOSSES, build_loss, supervised

every_loss = pytest.mark.parametrize("name", LOSSES)


def some(batch: int = 2, regions: int = 3) -> tuple[Tensor, Tensor]:
    """Return random logits and targets of a tenth of the voxels."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, regions, 8, 6, 5)
    return torch.randn(shape, generator=generator) * 3, torch.rand(shape, generator=generator) < 0.1


@every_loss
def test_a_confident_right_prediction_has_no_loss(name: str) -> None:
    """With logits of +-20 and the right sign the loss is about 0, also for an absent region."""
    _, target = some()
    target[:, 2] = False
    assert 0 <= build_loss(name)(40.0 * target - 20, target) < 1e-5


@every_loss
def test_the_loss_of_an_absent_region_becomes_small(name: str) -> None:
    """With a probability of .1 % in each of a quarter of a million voxels the loss is small, not near 1."""
    target = torch.zeros(1, 1, 64, 64, 64, dtype=torch.bool)
    logits = torch.full(target.shape, math.log(0.001))
    assert build_loss(name)(logits, target) < 0.3


@every_loss
def test_a_confident_wrong_prediction_has_a_high_loss(name: str) -> None:
    """With logits of +-20 and the wrong sign the loss is 1 for Dice plus about 20 nats per voxel."""
    _, target = some()
    assert build_loss(name)(20 - 40.0 * target, target) > 20


@every_loss
def test_more_confident_right_predictions_have_a_lower_loss(name: str) -> None:
    """The loss decreases as right logits grow and as wrong ones shrink."""
    _, target = some()
    sides = 2.0 * target - 1
    losses = [build_loss(name)(scale * sides, target).item() for scale in (-8, -4, -1, 0, 1, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize(("name", "second"), [("dice+ce", math.log(2)), ("dice+focal", math.log(2) / 4)])
def test_hand_solved_value(name: str, second: float) -> None:
    """Eight voxels at p = .5, four of them true: Dice (2*2 + 1) / (8/4 + 4 + 1), cross-entropy ln 2, focal ln 2 / 4."""
    target = torch.zeros(1, 1, 2, 2, 2)
    target[..., 0] = 1
    loss = build_loss(name)(torch.zeros(1, 1, 2, 2, 2), target)
    assert loss.item() == pytest.approx(1 - 5 / 7 + second)


@every_loss
@pytest.mark.parametrize("scale", [0.0, 5.0, 100.0])
def test_gradients_stay_finite_where_nothing_is_true(name: str, scale: float) -> None:
    """For an empty target no gradient raises a logit, and all are finite."""
    logits = (some()[0] * scale).requires_grad_()
    build_loss(name)(logits, torch.zeros_like(logits, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.min() >= 0
    assert logits.grad.sum() < 3


@every_loss
def test_regions_have_equal_weight(name: str) -> None:
    """The loss of three regions is the mean of the three."""
    logits, target = some()
    alone = [build_loss(name)(logits[:, i : i + 1], target[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(build_loss(name)(logits, target), torch.stack(alone).mean())


@every_loss
def test_the_loss_of_a_batch_is_the_mean_over_its_samples(name: str) -> None:
    """However it is divided over accumulated parts or processes."""
    logits, target = some(batch=4)
    alone = [build_loss(name)(logits[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(build_loss(name)(logits, target), torch.stack(alone).mean())


@every_loss
def test_deep_supervision_of_one_output_is_the_plain_loss(name: str) -> None:
    """One tensor and a tuple of one give the plain loss; right outputs on every grid have no loss."""
    logits, target = some()
    plain = build_loss(name)(logits, target)
    assert supervised(build_loss(name), logits, target) == plain
    assert supervised(build_loss(name), (logits,), target) == plain
    whole = torch.zeros(1, 3, 8, 8, 8, dtype=torch.bool)
    whole[:, :, :4] = True
    right = tuple(40.0 * whole[..., ::step, ::step, ::step] - 20 for step in (1, 2, 4))
    assert supervised(build_loss(name), right, whole) < 1e-5


def test_each_coarser_output_has_half_the_weight() -> None:
    """Weights 4, 2, 1 over 7; the coarse target is the mean over its voxels, here a half everywhere."""
    target = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    target[..., ::2] = True
    losses = [torch.tensor(3.0), torch.tensor(5.0), torch.tensor(7.0)]
    met: list[Tensor] = []

    def note(z: Tensor, t: Tensor, known: Tensor | None = None) -> Tensor:
        met.append(t)
        return losses[len(met) - 1]

    outputs = tuple(torch.zeros(1, 1, n, n, n) for n in (4, 2, 1))
    assert supervised(note, outputs, target) == pytest.approx((4 * 3 + 2 * 5 + 7) / 7)
    assert [t.shape[-1] for t in met] == [4, 2, 1]
    assert all((t == 0.5).all() for t in met[1:])


@every_loss
def test_bfloat16_logits_are_computed_on_in_float32(name: str) -> None:
    """The value does not depend on layout and type of the logits or on the type of the target."""
    logits, target = some()
    logits = logits.bfloat16()
    expected = build_loss(name)(logits.float(), target)
    loss = build_loss(name)(logits.to(memory_format=torch.channels_last_3d), target.float())
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss, expected)


@every_loss
def test_shapes_that_differ_are_refused(name: str) -> None:
    """A target that would broadcast is an error."""
    logits, target = some()
    with pytest.raises(InputError, match=r"got \(2, 3, 8, 6, 5\) and \(2, 1, 8, 6, 5\)"):
        build_loss(name)(logits, target[:, :1])


def test_an_unknown_loss_is_refused() -> None:
    """The message gives the nearest name."""
    with pytest.raises(InputError, match="unknown loss 'dice_ce'; did you mean 'dice\\+ce'"):
        build_loss("dice_ce")


@pytest.mark.parametrize(
    ("name", "oracle", "regions"), [("dice+focal", "DiceFocalLoss", 3), ("dice+ce", "DiceCELoss", 1)]
)
def test_monai_agrees(name: str, oracle: str, regions: int) -> None:
    """MONAI's losses with the same choices give the same value and gradient (its cross-entropy: one region only)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        losses: Any = pytest.importorskip("monai.losses")
        theirs = getattr(losses, oracle)(sigmoid=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0)
    logits, target = some(regions=regions)
    logits.requires_grad_()
    values = [build_loss(name)(logits, target), theirs(logits, target.float())]
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
