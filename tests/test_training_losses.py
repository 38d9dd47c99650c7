"""Laws of the region losses."""

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
def test_a_sure_and_right_answer_costs_nothing(name: str) -> None:
    """Logits of +-20 on the right side: about 0, also for a region that is not there."""
    _, target = some()
    target[:, 2] = False
    assert 0 <= build_loss(name)(40.0 * target - 20, target) < 1e-5


@every_loss
def test_an_absent_region_comes_to_rest(name: str) -> None:
    """Nothing there, and every one of a quarter of a million voxels at .1 %: the loss is small, not near 1."""
    target = torch.zeros(1, 1, 64, 64, 64, dtype=torch.bool)
    logits = torch.full(target.shape, math.log(0.001))
    assert build_loss(name)(logits, target) < 0.3


@every_loss
def test_a_sure_and_wrong_answer_costs_much(name: str) -> None:
    """Logits of +-20 on the wrong side: the whole Dice and about 20 nats a voxel."""
    _, target = some()
    assert build_loss(name)(20 - 40.0 * target, target) > 20


@every_loss
def test_a_surer_right_answer_costs_less(name: str) -> None:
    """The loss falls as right logits grow, and as wrong ones shrink."""
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
    """An empty target pushes every logit down or leaves it, and never explodes."""
    logits = (some()[0] * scale).requires_grad_()
    build_loss(name)(logits, torch.zeros_like(logits, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.min() >= 0
    assert logits.grad.sum() < 3


@every_loss
def test_regions_count_alike(name: str) -> None:
    """The loss of three regions is the mean of the three."""
    logits, target = some()
    alone = [build_loss(name)(logits[:, i : i + 1], target[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(build_loss(name)(logits, target), torch.stack(alone).mean())


@every_loss
def test_a_batch_costs_the_mean_of_its_samples(name: str) -> None:
    """However it is shared out: over steps that add up their gradients, or over processes."""
    logits, target = some(batch=4)
    alone = [build_loss(name)(logits[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(build_loss(name)(logits, target), torch.stack(alone).mean())


@every_loss
def test_one_answer_costs_the_same_with_and_without_supervision_of_depths(name: str) -> None:
    """A single tensor and a tuple of one are the plain loss; right answers on every grid cost nothing."""
    logits, target = some()
    plain = build_loss(name)(logits, target)
    assert supervised(build_loss(name), logits, target) == plain
    assert supervised(build_loss(name), (logits,), target) == plain
    whole = torch.zeros(1, 3, 8, 8, 8, dtype=torch.bool)
    whole[:, :, :4] = True
    right = tuple(40.0 * whole[..., ::step, ::step, ::step] - 20 for step in (1, 2, 4))
    assert supervised(build_loss(name), right, whole) < 1e-5


def test_coarser_answers_count_half_as_much_each() -> None:
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
    """Layout and dtype of the logits, and a boolean or float target, leave the value as it is."""
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
