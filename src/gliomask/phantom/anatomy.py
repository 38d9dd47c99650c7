"""A head without a skull: folded cortex, white matter, deep grey, ventricles, cerebellum, brain stem, vessels.

Positions are in millimetres from the centre of the head (x to the left, y to the back, z to the top) and are deformed
afterwards by smooth noise. A solid is given by the depth below its surface, `> 0` inside, so that the share of a voxel
that a tissue fills follows from the depth of the voxel's centre and the voxel size: at coarse voxels thin sulci become
fainter instead of breaking up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from gliomask.phantom.cortex import DEEPEST_MM, sulci
from gliomask.phantom.fields import Field, Frame, Place, Point, ellipsoid, join, noise, share, tube

# Thickness of the cortex of the cerebrum and of the cerebellum's folia, in mm.
_CORTEX_MM = 2.8
_FOLIA_MM = 1.3


@dataclass(frozen=True)
class Push:
    """Mass effect: tissue within about `reach_mm` of `centre` is displaced away from it, by up to `shift_mm`."""

    centre: Point
    reach_mm: float
    shift_mm: float


@dataclass(frozen=True)
class Head:
    """The anatomy inside the brain: `mask` is `(X, Y, Z)` over the frame's box, all else has a value per voxel of it.

    `csf`, `grey`, `white`, `deep` and `ventricle` are shares of the voxel that add up to 1; `vessel` (everything that
    takes up contrast agent: sinuses, veins, choroid plexus) overlies them. `cerebrum` and `ventricles` are depths in mm
    below the surface; `cerebrum` is negative in the cerebellum and the brain stem.
    """

    mask: NDArray[np.bool_]
    csf: Field
    grey: Field
    white: Field
    deep: Field
    ventricle: Field
    vessel: Field
    cerebrum: Field
    ventricles: Field


@dataclass(frozen=True)
class _Parts:
    """Depths below the surfaces of the large parts of the brain, and distances (mm) to the clefts between them."""

    main: Field
    temporal: Field
    cerebrum: Field
    cerebellum: Field
    stem: Field
    sylvian: Field
    tentorium: Field


def make_head(seed: int, frame: Frame, pushes: tuple[Push, ...]) -> Head:
    """Return the head of a seed, deformed by the mass effect of its tumours."""
    rng = np.random.default_rng([seed, 1])
    place = _bent(rng, frame, pushes)
    solid = _parts(*place, frame.spacing_mm)
    rim = np.float32(0.4) + np.float32(0.6) * noise(rng, frame, 25)
    mask = join(join(solid.cerebrum, solid.cerebellum, 9), solid.stem, 5) > -np.clip(rim, -0.5, 2)
    # The cisterns between the parts: in front of the pons and behind it.
    mask |= ellipsoid(*place, (0, -2, -21), (30, 30, 15)) > 0
    mask |= ellipsoid(*place, (0, 23, -33), (19, 13, 15)) > 0
    mask = _filled(mask)
    x, y, z = (axis[mask] for axis in place)
    parts = _Parts(*(getattr(solid, name)[mask] for name in _Parts.__dataclass_fields__))
    ax, h = np.abs(x), frame.spacing_mm

    width = np.clip(np.float32(rng.uniform(0.3, 0.8)) + np.float32(0.25) * noise(rng, frame, 30)[mask], 0.25, 1.2)
    winds = [np.float32(2.2) * noise(rng, frame, 13)[mask] for _ in range(3)]
    csf, cortex = _cerebral_cortex(rng, (x, y, z), winds, parts, width, h)
    low_csf, low_cortex = _cerebellar_cortex(rng, (ax, y, z), parts, noise(rng, frame, 14)[mask], h)
    low = parts.cerebellum > parts.cerebrum
    csf, cortex = np.where(low, low_csf, csf), np.where(low, low_cortex, cortex)
    stalk = _stalk(ax, y, z, parts.stem, h)
    csf, cortex = csf * (1 - stalk), cortex * (1 - stalk)
    csf = np.maximum(csf, _cisterns(ax, y, z, h))

    ventricles = _ventricles(rng, x, y, z)
    ventricle = share(ventricles, h)
    deep = np.minimum(share(_nuclei(ax, y, z), h), 1 - np.maximum(csf, ventricle))
    csf = np.minimum(csf, 1 - ventricle)
    grey = np.clip(cortex - csf, 0, 1 - csf - ventricle - deep)
    wobbly = (np.abs(x + winds[0] / 3), y + winds[1], z + winds[2])
    vessel = _vessels(wobbly, parts, csf, noise(rng, frame, 5)[mask], h)
    white = 1 - csf - ventricle - deep - grey
    below = np.maximum(parts.cerebellum, parts.stem) - parts.cerebrum
    return Head(mask, csf, grey, white, deep, ventricle, vessel, np.minimum(parts.cerebrum, -below), ventricles)


def _bent(rng: np.random.Generator, frame: Frame, pushes: tuple[Push, ...]) -> Place:
    """Return the position of every voxel in the model head: individual proportions, asymmetry and mass effect."""
    sizes = rng.uniform(0.95, 1.02, 3).astype(np.float32)
    place = frame.places
    for push in pushes:
        away = [axis - np.float32(c) for axis, c in zip(place, push.centre, strict=True)]
        distance = np.sqrt(sum(np.square(a) for a in away))
        # There is no displacement at the surface, because the skull is rigid.
        give = np.clip(ellipsoid(*place, (0, 0, 5), (66, 86, 66)) / 25, 0, 1)
        ratio = distance / np.float32(push.reach_mm)
        shift = np.float32(push.shift_mm) * give * np.exp(-np.square(ratio)) * ratio * np.float32(2.33)
        shift /= np.maximum(distance, 1)
        place = (place[0] - shift * away[0], place[1] - shift * away[1], place[2] - shift * away[2])
    coarse = [np.float32(2.6) * noise(rng, frame, 42) for _ in place]
    fine = [np.float32(1.1) * noise(rng, frame, 15) for _ in place]
    bent = [(p + c + f) / size for p, c, f, size in zip(place, coarse, fine, sizes, strict=True)]
    return bent[0], bent[1], bent[2]


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest component of a mask with its holes filled.

    What cannot be reached from the corner of the box counts as inside.
    """
    pieces = label(mask)[0]
    outside = label(pieces != np.bincount(pieces[mask]).argmax())[0]
    filled: NDArray[np.bool_] = outside != outside[0, 0, 0]
    return filled


def _parts(x: Field, y: Field, z: Field, h: float) -> _Parts:
    """Return the large parts: cerebrum (frontal to occipital lobe, and temporal lobes), cerebellum, brain stem."""
    ax = np.abs(x)
    # Narrower at the front, with a flat base that rises towards the back, above the cerebellum.
    front = ellipsoid(x, y, z, (0, -25, 12), (59, 60, 49))
    main = join(front, ellipsoid(x, y, z, (0, 12, 15), (66, 75, 55)), 14)
    base = z + 23 - np.float32(0.10) * np.maximum(y + 20, 0) + np.float32(0.1) * np.maximum(ax - 20, 0)
    main = -join(-main, -base, 10)
    tilt = np.float32(0.2)
    slope = z - tilt * (y + 10)
    temporal = ellipsoid(ax, y, slope, (42, -5, -18), (22, 44, 21))
    temporal = join(temporal, ellipsoid(ax, y, slope, (25, 3, -20), (13, 30, 13)), 8)
    hemispheres = ellipsoid(ax, y, z, (21, 51, -38), (31, 31, 23))
    cerebellum = join(hemispheres, ellipsoid(x, y, z, (0, 52, -36), (14, 25, 21)), 3)
    stem = tube(ax, y, z, ((0, 8, -4, 15), (0, 12, -16, 14), (0, 8, -30, 16), (0, 14, -44, 10.5), (0, 22, -78, 7)))
    stem = join(stem, ellipsoid(x, y, z, (0, 8, -31), (19, 15, 13)), 3)
    cerebrum = join(main, temporal, 6)
    sylvian, tentorium = _cleft(main, temporal, h), _cleft(cerebrum, cerebellum, h)
    return _Parts(main, temporal, cerebrum, cerebellum, stem, sylvian, tentorium)


def _cleft(a: Field, b: Field, h: float) -> Field:
    """Return the distance in mm to the sheet on which two solids are equally deep."""
    apart = a - b
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(apart, h)))
    distance: Field = np.abs(apart) / np.maximum(slope, np.float32(0.35))
    return distance


def _cerebral_cortex(
    rng: np.random.Generator,
    place: Place,
    winds: Sequence[Field],
    parts: _Parts,
    width: Field,
    h: float,
) -> tuple[Field, Field]:
    """Return the shares of CSF, and of CSF and cortex together, in the cerebrum; `width` is half that of a sulcus."""
    x, y, z = place
    ax = np.abs(x)
    # The walls of sulci wind as they go deeper and do not all point to the same line.
    wx, wy, wz = (axis + wind for axis, wind in zip(place, winds, strict=True))
    callosum = ellipsoid(np.zeros_like(y), y, z, (0, 2, 3), (1e3, 41, 25))
    fissure = np.hypot(ax, np.maximum(callosum, 0))
    depth = np.minimum(parts.cerebrum, fissure)
    wall = np.full_like(x, DEEPEST_MM)
    near = (depth < DEEPEST_MM + 4) & (depth > -3)
    temporal = parts.temporal > parts.main
    distance, bottom = sulci(rng, (wx[near], wy[near], wz[near]), temporal[near])
    wall[near] = np.hypot(distance, np.maximum(depth[near] - bottom, 0))
    wall = np.minimum(wall, fissure)
    wall = np.minimum(wall, _sylvian(ax, y, z, parts))
    surface = np.minimum(parts.cerebrum - np.float32(0.6) * width, parts.tentorium - np.float32(0.8))
    # Sulci are wider at the surface; the upper side of the corpus callosum has no cortex.
    width = width * (1 + np.exp(np.minimum(-depth / 5, 0)))
    thick = np.where((callosum > 0.5) & (ax < 9) & (z > -4), np.float32(0.2), np.float32(_CORTEX_MM))
    return _sheet(wall, surface, width, h), _sheet(wall, surface - thick, width + thick, h)


def _sheet(wall: Field, surface: Field, half: Field, h: float) -> Field:
    """Return the share of a voxel that lies within `half` mm of a wall, on either side, or outside a surface."""
    sheet = share(half - wall, h) - share(-half - wall, h)
    covered: Field = np.maximum(sheet, share(-surface, h))
    return covered


def _sylvian(ax: Field, y: Field, z: Field, parts: _Parts) -> Field:
    """Return the distance to the lateral fissure: the cleft above the temporal lobe, with the insula at its bottom."""
    deep = np.clip(np.float32(25) - np.float32(0.7) * np.maximum(y - 5, 0), 0, 25)
    cleft = np.hypot(parts.sylvian, np.maximum(parts.cerebrum - deep, 0))
    cleft = np.where(ax > 20, cleft + np.float32(0.2), np.float32(DEEPEST_MM))
    insula = -ellipsoid(
        ax + np.float32(0.009) * np.square(y + 6) - np.float32(0.15) * z, y, z, (42, -7, 0), (1.0, 21, 13)
    )
    lateral: Field = np.where(deep > 1, np.minimum(cleft, insula), np.float32(DEEPEST_MM))
    return np.asarray(np.maximum(lateral, 0))


def _cerebellar_cortex(
    rng: np.random.Generator, place: Place, parts: _Parts, ripple: Field, h: float
) -> tuple[Field, Field]:
    """Return the shares of CSF, and of CSF and cortex together, in the cerebellum, whose folia form a fan."""
    ax, y, z = place
    hinge = 24 - np.float32(0.010) * np.square(ax)
    fan = np.float32(30) * np.arctan2(z + 38, y - hinge) + np.float32(0.4) * ax + np.float32(1.5) * ripple
    depth = parts.cerebellum
    walls = []
    for wave, bottom in ((11.5, 14.0), (4.4, 6.0)):
        phase = np.abs(np.sin(fan * np.float32(np.pi / wave)))
        away = np.arcsin(np.minimum(phase, 1)) * np.float32(wave / np.pi)
        walls.append(np.hypot(away, np.maximum(depth - bottom, 0)))
    wall = np.minimum(walls[0], walls[1] + np.float32(0.15))
    surface = np.minimum(depth - np.float32(0.5), parts.tentorium - np.float32(0.8))
    half = np.full_like(wall, 0.5)
    return _sheet(wall, surface, half, h), _sheet(
        wall, surface - np.float32(_FOLIA_MM), half + np.float32(_FOLIA_MM), h
    )


def _stalk(ax: Field, y: Field, z: Field, stem: Field, h: float) -> Field:
    """Return the share of parts without cortex: brain stem, cerebellar peduncles, surroundings of the thalami."""
    peduncles = tube(ax, y, z, ((0, 14, -31, 9), (18, 34, -37, 7), (24, 46, -38, 5)))
    middle = ellipsoid(ax, y, z, (0, 6, 0), (24, 27, 20))
    return share(np.maximum(np.maximum(stem - np.float32(0.8), peduncles), middle), h)


def _cisterns(ax: Field, y: Field, z: Field, h: float) -> Field:
    """Return the share of the cisterns at the base of the brain and behind the midbrain."""
    base = ellipsoid(ax, y, z, (0, -14, -22), (11, 9, 5))
    behind = ellipsoid(ax, y, z, (0, 33, -8), (9, 5, 6))
    pontine = ellipsoid(ax, y, z, (0, -9, -36), (13, 4, 14))
    great = ellipsoid(ax, y, z, (0, 56, -60), (10, 12, 5))
    return share(np.maximum(np.maximum(base, behind), np.maximum(pontine, great)), h)


def _ventricles(rng: np.random.Generator, x: Field, y: Field, z: Field) -> Field:
    """Return the depth below the surface of the ventricles: two lateral ones with horns, the third, the fourth."""
    ax = np.abs(x)
    plump, lopsided = rng.uniform(-1.2, 1.8), rng.normal(0, 0.5)
    # Frontal horns and bodies are slits, taller than wide: a tube in a stretched space.
    wide, tall = np.float32(1.5), np.float32(0.72)
    path = ((13, -33, 6, 3.4), (7, -20, 11, 4.6), (9, 2, 17, 4.4), (16, 22, 14, 5.0), (24, 33, 6, 6.2))
    body = tube(wide * ax, y, tall * z, tuple((1.5 * a, b, 0.72 * c, r) for a, b, c, r in path))
    behind = tube(ax, y, z, ((25, 34, 5, 6.4), (23, 44, 2, 4.2), (21, 56, 0, 2.2)))
    below = tube(ax, y, z, ((26, 34, 3, 6.0), (33, 22, -10, 3.2), (33, 4, -17, 2.6), (28, -9, -19, 2.4)))
    lateral = join(join(body, behind, 2), below, 2) + np.float32(plump) + np.sign(x) * np.float32(lopsided)
    # A thin septum separates the two.
    lateral = np.minimum(lateral, ax - np.float32(0.7))
    third = ellipsoid(ax, y, z, (0, 5, -3), (2.0 + max(plump, -0.8), 13, 11))
    fourth = ellipsoid(ax, y, z, (0, 29, -36), (6.8, 5, 9)) + np.float32(0.3 * plump)
    depth: Field = np.maximum(lateral, np.maximum(third, fourth))
    return depth


def _nuclei(ax: Field, y: Field, z: Field) -> Field:
    """Return the depth below the surface of the deep grey matter: caudate, lentiform, thalamus, hippocampus."""
    caudate = tube(ax, y, z, ((15, -27, 4, 6.0), (16, -12, 13, 4.2), (19, 8, 19, 2.6), (25, 22, 15, 1.8)))
    lentiform = ellipsoid(ax - np.float32(0.14) * (y + 4), y, z, (25, -5, 1), (7.5, 19, 10))
    thalamus = ellipsoid(ax - np.float32(0.25) * (y - 10), y, z, (10, 10, 6), (8, 15, 9))
    hippocampus = tube(ax, y, z, ((24, -12, -22, 6), (27, 4, -21, 4), (28, 18, -13, 3.6), (20, 28, -3, 2.6)))
    return np.maximum(np.maximum(caudate, lentiform), np.maximum(thalamus, hippocampus))


def _vessels(place: Place, parts: _Parts, csf: Field, dots: Field, h: float) -> Field:
    """Return how much of a voxel takes up contrast: sinuses, large veins and arteries, choroid plexus, pial vessels."""
    ax, y, z = place
    over = np.maximum(parts.cerebrum, 0)
    sagittal = np.float32(1.0) + np.float32(0.012) * (y + 90) - np.maximum(ax, ax + over - 2)
    sagittal = np.where(((z > 0) | (y > 30)) & (parts.cerebrum > parts.cerebellum), sagittal, np.float32(-9))
    transverse = tube(ax, y, z, ((0, 84, -15, 3), (18, 81, -17, 2.4), (40, 66, -22, 2.4), (52, 45, -28, 2.2)))
    straight = tube(ax, y, z, ((0, 2, 9, 0.9), (0, 32, 8, 1.5), (0, 50, 2, 1.7), (0, 82, -14, 2.0)))
    middle = tube(
        ax, y, z, ((5, -14, -18, 1.4), (22, -19, -16, 1.3), (32, -14, -14, 1.2), (40, -2, -4, 1.0), (43, 16, 8, 0.7))
    )
    front = tube(ax, y, z, ((1, -16, -16, 1.3), (1, -42, -4, 1.2), (1, -38, 22, 1.1), (1, -6, 34, 0.8)))
    basilar = tube(ax, y, z, ((0, -6, -20, 1.6), (0, -9, -38, 1.6), (0, 0, -60, 1.3)))
    plexus = tube(ax, y, z, ((9, 4, 13, 0.6), (17, 24, 10, 1.2), (25, 34, 2, 2.1), (31, 24, -8, 1.0)))
    depth = np.maximum.reduce([sagittal, transverse, straight, middle, front, basilar, plexus])
    falx = np.float32(0.35) * share(np.float32(0.5) - ax, h) * csf
    pial = csf * np.clip(dots - np.float32(1.2), 0, 0.8)
    uptake: Field = np.maximum.reduce([share(depth, h), falx, pial])
    return uptake
