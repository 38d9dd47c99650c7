"""A glioma in a head: cores with an enhancing rim, and oedema that spreads along the white matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from gliomask.phantom.anatomy import Head, Push
from gliomask.phantom.fields import Field, Frame, Point, ellipsoid, noise, share

Kind = Literal["ring", "foci", "non_enhancing"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KIND_ODDS = (0.65, 0.20, 0.15)

# Label numbers inside gliomask.
NCR, ED, ET = 1, 2, 3

# A tissue that fills less than a fifth of a voxel cannot be the largest of five in it.
_LITTLE = 0.2

# Typical locations of gliomas (mm, left side): frontal, precentral, parietal, angular, temporal, insular, occipital.
_SITES: tuple[Point, ...] = (
    (31, -40, 18),
    (28, -12, 38),
    (30, 28, 34),
    (40, 30, 12),
    (42, -2, -18),
    (36, -12, 6),
    (27, 52, 10),
)


@dataclass(frozen=True)
class Core:
    """One solid part of a tumour: an ellipsoid that noise makes irregular, in mm from the middle of the head."""

    centre: Point
    radii: Point

    @property
    def radius(self) -> float:
        """The radius of a ball of the same volume, in mm."""
        return float(np.prod(self.radii) ** (1 / 3))


@dataclass(frozen=True)
class TumourPlan:
    """The parameters of a tumour: kind, cores, thickness of the rim and reach of the oedema in mm."""

    kind: Kind
    cores: tuple[Core, ...]
    rim_mm: float
    oedema_mm: float

    @property
    def pushes(self) -> tuple[Push, ...]:
        """The mass effect of the cores on the head."""
        return tuple(Push(core.centre, 2.0 * core.radius, 0.30 * core.radius) for core in self.cores)


@dataclass(frozen=True)
class Tumour:
    """A tumour over the voxels of a head's mask: `tissues`, and the visible share of each in a voxel, 0 to 1."""

    tissues: NDArray[np.uint8]
    core: Field
    rim: Field
    oedema: Field
    grain: Field


def plan_tumour(seed: int, kind: Kind | None) -> TumourPlan:
    """Return the parameters of the tumour of a seed; the kind is drawn too if it is not given."""
    rng = np.random.default_rng([seed, 2])
    drawn = KINDS[int(rng.choice(len(KINDS), p=_KIND_ODDS))]
    kind = drawn if kind is None else kind
    side = 1 if rng.random() < 0.5 else -1
    site = _SITES[int(rng.integers(len(_SITES)))]
    x, y, z = np.array(site) * (side, 1, 1) + rng.uniform(-5, 5, 3)
    low, high = {"ring": (15, 25), "foci": (12, 16), "non_enhancing": (16, 26)}[kind]
    main = _core(rng, (float(x), float(y), float(z)), float(rng.uniform(low, high)))
    cores = (main, *_satellites(rng, main)) if kind == "foci" else (main,)
    reach = rng.uniform(4, 9) if kind == "non_enhancing" else rng.uniform(13, 26)
    return TumourPlan(kind, cores, float(rng.uniform(2.2, 4.0)), float(reach))


def grow_tumour(seed: int, frame: Frame, head: Head, plan: TumourPlan) -> Tumour:
    """Return the planned tumour, fitted into the head: never outside the cerebrum and never in a ventricle."""
    rng = np.random.default_rng([seed, 3])
    x, y, z = (axis[head.mask] for axis in frame.places)
    lumps, bumps, grain = (noise(rng, frame, scale)[head.mask] for scale in (17, 8, 6))
    h = frame.spacing_mm
    side = np.float32(np.sign(plan.cores[0].centre[0]))
    depth = np.full_like(x, -1e3)
    for part in plan.cores:
        rough = np.float32(part.radius) * (np.float32(0.16) * lumps + np.float32(0.11) * bumps)
        depth = np.maximum(depth, ellipsoid(x, y, z, part.centre, part.radii) + rough)
    free = np.minimum(head.cerebrum - np.float32(1.5), -head.ventricles - np.float32(0.5))
    own_side = np.abs(x) - 2 if len(plan.cores) > 1 else side * x + 3
    solid = np.minimum(np.minimum(depth, free), own_side)
    solid = np.where(head.ventricle < _LITTLE, solid, np.minimum(solid, 0))
    thick = _rim(rng, frame, head, plan, bumps)
    spread = _spread(head, plan, -depth, lumps, bumps)
    if len(plan.cores) == 1:
        spread = spread - 2 * np.maximum(-side * x, 0)

    tissues = np.zeros(x.shape, np.uint8)
    wet = (spread > 0) & (head.cerebrum > 0) & (head.csf < 0.4) & (head.ventricle < _LITTLE)
    tissues[wet] = ED
    tissues[solid > 0] = NCR
    tissues[(solid > 0) & (solid < thick)] = ET
    tissues *= _attached(head.mask, tissues, solid > 0)
    soft = h + 1.2
    core = share(solid, soft)
    rim = core * share(thick - solid, soft) * (thick > 0)
    fluid = np.clip(head.csf + head.ventricle, 0, 1)
    oedema = np.where((tissues > 0) | (spread < 0), share(spread - 2, 9 + h), 0) * (1 - fluid) * (head.cerebrum > 0)
    return Tumour(tissues, core, rim, oedema.astype(np.float32), grain)


def _core(rng: np.random.Generator, centre: Point, radius: float) -> Core:
    """Return an ellipsoidal core of about this radius."""
    stretch = np.exp(rng.uniform(-0.18, 0.18, 3))
    a, b, c = radius * stretch / np.prod(stretch) ** (1 / 3)
    return Core(centre, (float(a), float(b), float(c)))


def _satellites(rng: np.random.Generator, main: Core) -> tuple[Core, ...]:
    """Return one to three smaller cores that touch neither the main one nor each other."""
    wanted = int(rng.integers(1, 4))
    x, y, _ = main.centre
    others: list[Core] = []
    for _ in range(60):
        heading = rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        radius = float(rng.uniform(7.5, 10.5))
        away = main.radius * 1.3 + radius * 1.3 + rng.uniform(11, 25)
        centre = np.array(main.centre) + heading * away
        a, b, c = (float(v) for v in centre)
        clear = all(np.linalg.norm(centre - o.centre) > 1.3 * (radius + o.radius) + 11 for o in others)
        if clear and _has_room((a, b, c)):
            others.append(_core(rng, (a, b, c), radius))
        if len(others) == wanted:
            break
    # If there is no room nearby, one across the midline, as if the glioma had spread along the corpus callosum.
    return tuple(others) or (_core(rng, (-30.0 if x > 0 else 30.0, 20.0 if y > 0 else -20.0, 33.0), 9.0),)


def _has_room(centre: Point) -> bool:
    """Tell whether a small core fits at a place: deep in the cerebrum, away from the midline and the ventricles."""
    x, _, z = centre
    deep = float(np.linalg.norm((np.array(centre) - (0, 2, 16)) / (62, 82, 48))) < 0.64
    return deep and abs(x) > (20 if z > 28 else 26) and z > -8


def _rim(rng: np.random.Generator, frame: Frame, head: Head, plan: TumourPlan, bumps: Field) -> Field:
    """Return the thickness of the enhancing rim in mm at every voxel: uneven, with nodules and a few gaps."""
    if plan.kind == "non_enhancing":
        return np.zeros_like(bumps)
    uneven = noise(rng, frame, 10)[head.mask]
    thick = np.float32(plan.rim_mm) * (1 + np.float32(0.45) * uneven + np.float32(0.25) * bumps)
    thick += np.float32(4) * np.maximum(uneven - np.float32(0.9), 0)
    # A rim thinner than a voxel would break up into separate voxels.
    thick = np.maximum(thick, np.float32(0.8 * frame.spacing_mm))
    rim: Field = np.where(uneven < -1.6, np.float32(0), thick)
    return rim


def _spread(head: Head, plan: TumourPlan, distance: Field, lumps: Field, bumps: Field) -> Field:
    """Return the depth of each voxel inside the oedema in mm; it spreads along white matter, hardly into cortex."""
    reach = np.float32(plan.oedema_mm)
    spread = reach * (np.float32(0.8) + np.float32(0.35) * lumps + np.float32(0.12) * bumps) - distance
    held: Field = spread - reach * (np.float32(0.75) * head.grey + np.float32(0.45) * head.deep)
    return held


def _attached(mask: NDArray[np.bool_], tissues: NDArray[np.uint8], solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which voxels are connected to a core, so that no piece of oedema is isolated."""
    volume = np.zeros(mask.shape, bool)
    volume[mask] = tissues > 0
    parts = label(volume)[0][mask]
    keep = np.zeros(int(parts.max()) + 1, bool)
    keep[np.unique(parts[solid])] = True
    keep[0] = False
    return keep[parts]
