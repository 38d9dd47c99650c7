"""Laws of mirror images, rotation, scaling and elastic deformation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gliomask.training.augment.brain import find_brain
from gliomask.training.augment.spatial import Elastic, Flip, Turn, apply_flip, apply_turn
from round_brain import ANISOTROPIC, radius, seeded, some

TURNS = [
    Turn((-25, 10, 15)),
    Turn((0, 0, 30), 1.2),
    Turn((-30, 30, 20), 0.8),
    Turn(scale=1.2),
    Turn((10, -20, 5), 0.9, Elastic(6.0, seed=2)),
]


def centroid(weights: Tensor) -> Tensor:
    """Return the centre of mass `(3,)` in voxels."""
    axes = torch.meshgrid(*(torch.arange(n).double() for n in weights.shape), indexing="ij")
    return torch.stack([(axis * weights).sum() / weights.sum() for axis in axes])


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_two_flips_are_none(axes: tuple[int, ...]) -> None:
    """The same flip twice gives the original back."""
    image, target = some()
    image[0, 2, 3, 4], target[0, 2, 3, 4] = 9, True  # something that is not symmetric
    twice = apply_flip(*apply_flip(image, target, Flip(axes)), Flip(axes))
    assert torch.equal(twice[0], image)
    assert torch.equal(twice[1], target)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_flips_keep_what_there_is(axes: tuple[int, ...]) -> None:
    """Each region has as many voxels as before, each channel the same values."""
    image, target = some()
    new_image, new_target = apply_flip(image, target, Flip(axes))
    assert torch.equal(new_target.flatten(1).sum(1), target.flatten(1).sum(1))
    assert torch.equal(new_image.flatten(1).sort(1).values, image.flatten(1).sort(1).values)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_take_image_and_target_along(axis: int) -> None:
    """A marked voxel ends up at the other end of the axis, and only of that one, in both."""
    image, target = torch.zeros(2, *ANISOTROPIC), torch.zeros(1, *ANISOTROPIC, dtype=torch.bool)
    place = [1, 2, 3]
    image[:, 1, 2, 3], target[:, 1, 2, 3] = 1, True
    place[axis] = ANISOTROPIC[axis] - 1 - place[axis]
    for changed in apply_flip(image, target, Flip((axis,))):
        assert all(channel.nonzero().tolist() == [place] for channel in changed)


@pytest.mark.parametrize("turn", [Turn(), Turn(elastic=Elastic(0.0, seed=1)), Turn((0, 360, 0))])
def test_no_turn_is_no_change(turn: Turn) -> None:
    """By 0 degrees, at scale 1 and bent by 0 voxels the image stays within 1e-4, the target exactly."""
    image, target = some()
    new_image, new_target = apply_turn(image, target, turn)
    assert (new_image - image).abs().max() < 1e-4
    assert torch.equal(new_target, target)


@pytest.mark.parametrize(("axis", "dims"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_moves_voxels_to_voxels(axis: int, dims: tuple[int, int]) -> None:
    """By 90 degrees about X, Y, Z: `torch.rot90` of Y to Z, Z to X, X to Y."""
    image = torch.randn(2, 12, 12, 12, generator=seeded())
    target = image > 0.5
    degrees = [0.0, 0.0, 0.0]
    degrees[axis] = 90.0
    new_image, new_target = apply_turn(image, target, Turn((degrees[0], degrees[1], degrees[2])))
    moved = [dim + 1 for dim in dims]
    assert (new_image - image.rot90(1, moved)).abs().max() < 1e-4
    assert torch.equal(new_target, target.rot90(1, moved))


def test_the_turn_about_z_comes_first() -> None:
    """90 degrees about Z and about X carry a voxel on the X axis to Y, and on to Z."""
    image = torch.zeros(1, 9, 9, 9)
    image[0, 8, 4, 4] = 1
    turned, _ = apply_turn(image, image > 0, Turn((90.0, 0.0, 90.0)))
    assert turned[0].argmax() == torch.tensor([4 * 81 + 4 * 9 + 8])


@pytest.mark.parametrize("turn", TURNS)
def test_image_and_target_turn_together(turn: Turn) -> None:
    """A bright ball off the centre and its region keep one centre of mass, within half a voxel, and do move."""
    shape = (32, 28, 24)
    ball = radius(shape, (5, -3, 2)) < 4
    image, target = apply_turn(ball[None].float(), ball[None], turn)
    assert (centroid(image[0]) - centroid(target[0])).norm() < 0.5
    assert (centroid(target[0]) - centroid(ball)).norm() > 0.5


@pytest.mark.parametrize("degrees", [(20, 10, -15), (0, 0, 0)])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
def test_scale_is_size_after_over_size_before(scale: float, degrees: tuple[float, float, float]) -> None:
    """A ball's volume grows with the cube of the scale, about the patch's centre, and a turn does not change it."""
    shape = (40, 36, 32)
    ball = radius(shape) < 9
    _, target = apply_turn(ball[None].float(), ball[None], Turn(degrees, scale))
    assert target.sum() / ball.sum() == pytest.approx(scale**3, rel=0.03)
    assert (centroid(target[0]) - centroid(ball)).norm() < 0.1


def test_regions_turn_each_for_itself() -> None:
    """Overlapping, disjoint and empty regions come out as if each had been turned alone."""
    shape = (20, 18, 16)
    regions = [radius(shape) < 6, radius(shape, (2, 0, 0)) < 4, radius(shape, (-6, 4, 0)) < 2, radius(shape) < 0]
    image, turn = torch.ones(1, *shape), Turn((20, 30, -10), 1.1)
    together = apply_turn(image, torch.stack(regions), turn)[1]
    alone = [apply_turn(image, region[None], turn)[1][0] for region in regions]
    assert torch.equal(together, torch.stack(alone))
    assert together.flatten(1).any(1).tolist() == [True, True, True, False]


def test_the_outline_stays_sharp() -> None:
    """A turned brain of 1s is no larger than before: interpolation leaves no faint shell around it."""
    shape = (40, 36, 32)
    brain = radius(shape) < 12
    image, _ = apply_turn(brain[None].float(), brain[None], Turn((20, 10, -15)))
    assert find_brain(image).sum() == pytest.approx(int(brain.sum()), rel=0.02)
    assert image[image != 0].min() > 0.1


@pytest.mark.parametrize("scale", [0.75, 1.3])
def test_scaling_alone_is_a_turn_by_nothing(scale: float) -> None:
    """The quick way, an axis at a time, gives what the way through a sampling grid gives."""
    image = torch.randn(3, 24, 21, 16, generator=seeded())  # brain and target up to the patch's faces
    target = image[:2] > 0
    quick, quick_target = apply_turn(image, target, Turn(scale=scale), Flip((1,)))
    slow, slow_target = apply_turn(image, target, Turn((1e-9, 0, 0), scale), Flip((1,)))
    assert (quick - slow).abs().max() < 1e-4
    assert torch.equal(quick_target, slow_target)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("axes", [(), (0,), (1, 2)])
def test_a_flip_within_a_turn_comes_first(turn: Turn, axes: tuple[int, ...]) -> None:
    """Mirrored and turned in one go is mirrored, then turned."""
    image, target = some()
    together, regions = apply_turn(image, target, turn, Flip(axes))
    expected, expected_regions = apply_turn(*apply_flip(image, target, Flip(axes)), turn)
    # A voxel that lies just between two may go to either; an outline may so lose or win one.
    assert ((together - expected).abs() > 1e-3).float().mean() < 1e-3
    assert (regions != expected_regions).float().mean() < 1e-3


def test_elastic_deformation_is_smooth_bounded_and_folds_nothing() -> None:
    """Read off images of the coordinates: no voxel comes from further than asked for, and each keeps its side."""
    shape = (60, 52, 44)
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))
    for seed in range(5):
        turn = Turn(elastic=Elastic(9.0, seed))
        read_at, _ = apply_turn(coordinates + 1000, coordinates > 0, turn)  # 1000: no voxel is background
        moves = (read_at - 1000 - coordinates)[:, 10:-10, 10:-10, 10:-10]  # away from what comes in
        assert 1 < moves.abs().max() < 9
        steps = torch.stack([moves.diff(dim=axis)[:, :31, :31, :23] for axis in (1, 2, 3)], dim=-1)
        jacobian = torch.eye(3) + steps.permute(1, 2, 3, 0, 4)
        assert steps.abs().max() < 0.6
        assert torch.linalg.det(jacobian).min() > 0


def test_the_seed_decides_how_it_is_bent() -> None:
    """The same seed bends the same way, another another."""
    image, target = some()
    bent = [apply_turn(image, target, Turn(elastic=Elastic(6.0, seed)))[0] for seed in (1, 1, 2)]
    assert torch.equal(bent[0], bent[1])
    assert not torch.equal(bent[0], bent[2])
