"""The phantom: what a synthetic examination promises, on coarse grids."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gliomask.errors import InputError
from gliomask.phantom import ANATOMY, KINDS, Kind, Phantom, make_phantom

NCR, ED, ET = 1, 2, 3
SEEDS = range(6)


@cache
def phantom(seed: int, kind: Kind | None = None, size: int = 80) -> Phantom:
    """Return a phantom, made once for all tests, none of which changes it."""
    return make_phantom(seed, size=size, kind=kind)


def healthy(made: Phantom, tissue: str, away_voxels: int = 1) -> NDArray[np.bool_]:
    """Return the inner voxels of a healthy tissue: no tumour near, and where the tissue is thick, none of its rim."""
    mask = (made.anatomy == ANATOMY[tissue]) & ~ndimage.binary_dilation(made.tissues > 0, iterations=2)
    return ndimage.binary_erosion(mask, iterations=away_voxels) if away_voxels else mask


def mean(made: Phantom, sequence: str, mask: NDArray[np.bool_]) -> float:
    """Return the mean of one sequence in a mask that is not empty."""
    assert mask.any()
    return float(made.images[sequence][mask].mean())


def cores(made: Phantom, least_voxels: int = 4) -> int:
    """Return how many separate cores (NCR and ET together, 26-connected) of at least so many voxels there are."""
    parts, _ = ndimage.label(np.isin(made.tissues, (NCR, ET)), np.ones((3, 3, 3)))
    return int((np.bincount(parts.ravel())[1:] >= least_voxels).sum())


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_seed_always_gives_the_same_phantom(kind: Kind | None) -> None:
    """Two calls agree in every voxel of every array."""
    first, again = phantom(7, kind, 48), make_phantom(7, size=48, kind=kind)
    for name, image in first.images.items():
        np.testing.assert_array_equal(image, again.images[name])
    np.testing.assert_array_equal(first.tissues, again.tissues)
    np.testing.assert_array_equal(first.anatomy, again.anatomy)


def test_seeds_differ_in_anatomy_tumour_and_scanner() -> None:
    """No two of six seeds share their head, their tumour or their scale."""
    made = [phantom(seed, "ring") for seed in SEEDS]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert (one.anatomy != other.anatomy).mean() > 0.02
            assert (one.tissues != other.tissues).any()
            assert not np.array_equal(one.images["t1n"], other.images["t1n"])


def test_the_kind_changes_the_tumour_and_not_the_person() -> None:
    """With one seed, far from the tumour, a ring and a non-enhancing tumour grow in one head."""
    ring, flat = phantom(3, "ring"), phantom(3, "non_enhancing")
    near = ndimage.binary_dilation((ring.tissues > 0) | (flat.tissues > 0), iterations=12)
    assert (~near & (ring.anatomy > 0)).sum() > 10_000
    assert (ring.anatomy == flat.anatomy)[~near].mean() > 0.98


def test_seeds_draw_kinds_at_about_65_20_15() -> None:
    """Without a kind, most seeds give an enhancing tumour, and some a non-enhancing one."""
    enhancing = [bool((make_phantom(seed, size=32).tissues == ET).any()) for seed in range(40)]
    assert 0.65 <= np.mean(enhancing) <= 0.97


@pytest.mark.parametrize(("size", "shape"), [(48, (48, 48, 31)), (80, (80, 80, 52)), (97, (97, 97, 63))])
def test_size_sets_the_grid_and_the_spacing(size: int, shape: tuple[int, int, int]) -> None:
    """The grid covers 240 x 240 x 155 mm whatever the size, in LPS, with one corner of the field of view."""
    made = phantom(0, "ring", size)
    assert all(image.shape == shape and image.dtype == np.int16 for image in made.images.values())
    assert made.tissues.shape == made.anatomy.shape == shape
    h = 240 / size
    np.testing.assert_allclose(np.diag(made.affine)[:3], (-h, -h, h))
    np.testing.assert_allclose(made.affine @ (-0.5, -0.5, -0.5, 1), (0.5, 239.5, -0.5, 1), atol=1e-9)


@pytest.mark.slow
def test_the_full_size_is_the_grid_of_brats() -> None:
    """By default 240 x 240 x 155 voxels of 1 mm, with the affine of the challenge and about 1.4 litres of brain."""
    made = make_phantom(0)
    assert made.tissues.shape == (240, 240, 155)
    np.testing.assert_array_equal(made.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert 1.2e6 < (made.anatomy > 0).sum() < 1.8e6


@pytest.mark.parametrize("kind", KINDS)
def test_one_head_at_every_size(kind: Kind) -> None:
    """Brain, tumour and its middle agree between 3 mm and 5 mm voxels."""
    fine, coarse = phantom(5, kind), phantom(5, kind, 48)
    for part in ("anatomy", "tissues"):
        a, b = getattr(fine, part) > 0, getattr(coarse, part) > 0
        assert a.sum() * 3**3 == pytest.approx(b.sum() * 5**3, rel=0.12)
        middles = [m.affine @ (*np.argwhere(v).mean(0), 1) for m, v in ((fine, a), (coarse, b))]
        assert np.linalg.norm(middles[0] - middles[1]) < 4


@pytest.mark.parametrize("seed", SEEDS)
def test_background_is_zero_and_the_brain_is_one_piece(seed: int) -> None:
    """The four sequences are > 0 in the same voxels, those with an anatomy; these are connected and without holes."""
    made = phantom(seed)
    brain = made.anatomy > 0
    assert set(made.images) == {"t1n", "t1c", "t2w", "t2f"}
    for image in made.images.values():
        np.testing.assert_array_equal(image > 0, brain)
        assert image.min() == 0
    assert ndimage.label(brain)[1] == 1
    assert (ndimage.binary_fill_holes(brain) & ~brain).sum() == 0
    assert 0.12 < brain.mean() < 0.22


@pytest.mark.parametrize("seed", SEEDS)
def test_tissues_have_the_contrast_of_their_sequence(seed: int) -> None:
    """T1: white > deep grey and cortex > CSF; T2: the reverse; FLAIR: CSF dark, cortex a little above white matter."""
    made = phantom(seed)
    white, ventricle = healthy(made, "white"), healthy(made, "ventricle", 0)
    grey, csf = healthy(made, "grey", 0), healthy(made, "csf", 0)
    for sequence in ("t1n", "t1c"):
        assert (
            mean(made, sequence, white) > mean(made, sequence, healthy(made, "deep")) > mean(made, sequence, ventricle)
        )
    assert mean(made, "t1n", white) > mean(made, "t1n", grey) > mean(made, "t1n", csf)
    assert mean(made, "t2w", csf) > mean(made, "t2w", grey) > mean(made, "t2w", white)
    assert mean(made, "t2w", ventricle) > 2 * mean(made, "t2w", white)
    assert mean(made, "t2f", ventricle) < 0.8 * mean(made, "t2f", white)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_anatomy_is_complete_on_both_sides(seed: int) -> None:
    """Every tissue is there, left and right of the midline, in proportions of a brain; size 48 still has ventricles."""
    made = phantom(seed)
    left = np.broadcast_to(np.arange(made.anatomy.shape[0])[:, None, None] >= 40, made.anatomy.shape)
    for number in ANATOMY.values():
        halves = [(made.anatomy[side] == number).sum() for side in (left, ~left)]
        assert min(halves) > 0.2 * max(halves)
    brain = (made.anatomy > 0).sum()
    assert 0.2 < (made.anatomy == ANATOMY["grey"]).sum() / brain < 0.6
    assert 0.2 < (made.anatomy == ANATOMY["white"]).sum() / brain < 0.6
    assert 0.005 < (made.anatomy == ANATOMY["ventricle"]).sum() / brain < 0.06
    assert (phantom(seed, None, 48).anatomy == ANATOMY["ventricle"]).sum() > 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_tumour_stays_in_the_brain_and_out_of_the_ventricles(seed: int, kind: Kind) -> None:
    """No tissue of the tumour lies outside of the brain or in a ventricle."""
    made = phantom(seed, kind)
    tumour = made.tissues > 0
    assert tumour.any()
    assert set(np.unique(made.tissues)) <= {0, NCR, ED, ET}
    assert not tumour[made.anatomy == 0].any()
    assert not tumour[made.anatomy == ANATOMY["ventricle"]].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_oedema_follows_the_white_matter(seed: int) -> None:
    """Of the white matter near the core far more is oedematous than of the cortex."""
    made = phantom(seed, "ring")
    core = np.isin(made.tissues, (NCR, ET))
    near = ndimage.binary_dilation(core, iterations=5) & ~core
    shares = {name: (made.tissues[near & (made.anatomy == ANATOMY[name])] == ED).mean() for name in ("white", "grey")}
    assert shares["white"] > 1.4 * shares["grey"]


@pytest.mark.parametrize("size", [48, 80])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_ring_surrounds_the_necrosis(seed: int, size: int) -> None:
    """Necrosis is there, and most of what touches it is enhancing tumour; oedema lies around."""
    made = phantom(seed, "ring", size)
    necrosis = made.tissues == NCR
    shell = ndimage.binary_dilation(necrosis) & ~necrosis
    assert necrosis.sum() >= 10
    assert (made.tissues[shell] == ET).mean() > 0.55
    assert (made.tissues == ED).sum() > (made.tissues == ET).sum() / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_even_the_smallest_ring_has_all_tissues(seed: int) -> None:
    """At 32 voxels, 7.5 mm each, NCR, ED and ET are all there."""
    assert set(np.unique(phantom(seed, "ring", 32).tissues)) == {0, NCR, ED, ET}


@pytest.mark.parametrize("seed", SEEDS)
def test_tumour_tissues_show_in_their_sequences(seed: int) -> None:
    """ET is bright after contrast agent, necrosis is not, and oedema is bright on FLAIR and T2."""
    made = phantom(seed, "ring")
    white = healthy(made, "white")

    def ratio(sequence: str, tissue: int) -> float:
        return mean(made, sequence, made.tissues == tissue) / mean(made, sequence, white)

    assert ratio("t1c", ET) > 1.2 > 1.0 > ratio("t1n", ET)
    assert ratio("t1c", NCR) < 1.0
    assert ratio("t2f", ED) > 1.25
    assert ratio("t2w", ED) > 1.3
    assert ratio("t2w", NCR) > ratio("t2w", ED)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_non_enhancing_tumour_has_a_core_and_no_enhancement(seed: int) -> None:
    """No ET at all; the core is bright on T2 and FLAIR, dark on both T1."""
    made = phantom(seed, "non_enhancing")
    core, white = made.tissues == NCR, healthy(made, "white")
    assert not (made.tissues == ET).any()
    for sequence in ("t2w", "t2f"):
        assert mean(made, sequence, core) > 1.3 * mean(made, sequence, white)
    for sequence in ("t1n", "t1c"):
        assert mean(made, sequence, core) < 0.95 * mean(made, sequence, white)


@pytest.mark.parametrize("seed", range(8))
def test_foci_are_separate(seed: int) -> None:
    """There are two to four separate cores, and enhancing tumour among them."""
    made = phantom(seed, "foci")
    assert 2 <= cores(made) <= 4
    assert (made.tissues == ET).any()


@pytest.mark.parametrize(("seed", "size"), [(-1, 48), (0, 31), (0, 0)])
def test_bad_numbers_are_refused(seed: int, size: int) -> None:
    """A negative seed and a grid too small to show a ring raise InputError."""
    with pytest.raises(InputError, match=r"got|at least"):
        make_phantom(seed, size=size)


def test_an_unknown_kind_is_refused_with_a_hint() -> None:
    """The error names the nearest kind."""
    with pytest.raises(InputError, match="did you mean 'ring'"):
        make_phantom(0, size=48, kind="rings")  # type: ignore[arg-type]


def test_a_phantom_cannot_be_changed() -> None:
    """The record is frozen."""
    with pytest.raises(FrozenInstanceError):
        phantom(0).affine = np.eye(4)  # type: ignore[misc]
