"""What the page's viewer shows: images, regions and probabilities on one grid of cubes, and surfaces in space."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.figures import PLANES, REGION_COLOURS
from gliomask.figures.case import brain_box
from gliomask.labels import LONG_NAMES
from gliomask.metrics import Mask
from gliomask.report.pixels import draw_slices, pack, pack_bits, to_grey
from gliomask.report.surface import find_surface
from gliomask.volume import Volume, grid_at_spacing, reorient, resample

_FINEST_MM = 1.0
_MARGIN_MM = 3.0
_STRIP = 12
_BRAIN_MM, _REGION_MM = 4.0, 2.0
_BRAIN_TRIANGLES, _REGION_TRIANGLES = 16_000, 14_000
_LEAST_PROBABILITY = 0.02


@dataclass(frozen=True, eq=False)
class Scene:
    """One case on cubes in LPS order, cut to its brain: all arrays `(X, Y, Z)`."""

    affine: NDArray[np.float64]
    edge_mm: float
    greys: Mapping[str, NDArray[np.uint8]]
    """By the sequence's name."""
    regions: Mapping[str, Mask]
    probabilities: Mapping[str, NDArray[np.uint8]]
    """By region, 0 to 250."""

    @property
    def start(self) -> list[int]:
        """The slices to begin with: those with the most of the innermost region that there is; else the middle ones."""
        for name in ("ET", "TC", "WT", "RC"):
            if name in self.regions and self.regions[name].any():
                mask = self.regions[name]
                return [int(np.count_nonzero(mask, axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1))]
        return [size // 2 for size in next(iter(self.greys.values())).shape]


def make_scene(
    images: Mapping[str, Volume],
    regions: Mapping[str, Mask],
    probabilities: Mapping[str, NDArray[np.float32]],
    *,
    finest_mm: float = _FINEST_MM,
) -> Scene:
    """Return a case as the viewer has it; cubes are as small as the voxels, but not under `finest_mm`.

    Args:
        images: One channel each, on one grid.
        regions, probabilities: On the same grid.
        finest_mm: The least edge of a cube.
    """
    affine = next(iter(images.values())).affine
    shown = {name: reorient(image, "LPS") for name, image in images.items()}
    inside = np.logical_or.reduce([image.data[0] != 0 for image in shown.values()])
    masks = {name: reorient(Volume(mask[None], affine), "LPS") for name, mask in regions.items()}
    inside |= np.logical_or.reduce([mask.data[0] for mask in masks.values()])
    likely = {name: reorient(Volume(values[None], affine), "LPS") for name, values in probabilities.items()}
    oriented = next(iter(shown.values())).affine
    box = brain_box(Volume(inside[None], oriented), _MARGIN_MM)
    edge = max(finest_mm, min(next(iter(shown.values())).spacing_mm))

    def onto_cubes(volume: Volume, *, nearest: bool) -> Volume:
        corner = np.eye(4)
        corner[:3, 3] = [span.start for span in box]
        cut = Volume(np.ascontiguousarray(volume.data[:, box[0], box[1], box[2]]), volume.affine @ corner)
        if np.allclose(cut.spacing_mm, edge, rtol=1e-3):
            return cut
        grid = grid_at_spacing(cut.grid, (edge, edge, edge))
        data = cut.data.astype(np.uint8) if cut.data.dtype == bool else cut.data
        return resample(Volume(data, cut.affine), grid, nearest=nearest)

    cubes = {name: onto_cubes(image, nearest=False) for name, image in shown.items()}
    return Scene(
        affine=next(iter(cubes.values())).affine,
        edge_mm=edge,
        greys={name: to_grey(image.data[0]) for name, image in cubes.items()},
        regions={name: onto_cubes(mask, nearest=True).data[0].astype(bool) for name, mask in masks.items()},
        probabilities={name: _to_bytes(onto_cubes(one, nearest=False).data[0]) for name, one in likely.items()},
    )


def viewer_content(scene: Scene) -> dict[str, Any]:
    """Return what the viewer's script reads, ready for JSON."""
    shape = next(iter(scene.greys.values())).shape
    middle = (np.array(shape) - 1) / 2
    places = []
    for plane in PLANES:
        ends = []
        for index in (0, 1):
            place = middle.copy()
            place[plane.axis] = index
            ends.append(float((scene.affine @ [*place, 1.0])[plane.axis]))
        places.append([round(ends[0], 3), round(ends[1] - ends[0], 5)])
    return {
        "shape": list(shape),
        "edge_mm": scene.edge_mm,
        "start": scene.start,
        "places_mm": places,
        "images": [{"name": name, "data": pack(grey)} for name, grey in scene.greys.items()],
        "regions": [{"name": name, "colour": REGION_COLOURS[name]} for name in scene.regions],
        "masks": pack_bits(scene.regions),
        "probabilities": [{"name": name, "data": pack(values)} for name, values in scene.probabilities.items()],
    }


def strip(scene: Scene) -> list[dict[str, str]]:
    """Return axial slices spread over the tumour (without one, the brain), bottom to top, with captions."""
    grey = next(iter(scene.greys.values()))
    tumour = np.logical_or.reduce(list(scene.regions.values()))
    where = np.flatnonzero((tumour if tumour.any() else grey > 0).any(axis=(0, 1)))
    first, last = (int(where[0]), int(where[-1])) if len(where) else (0, grey.shape[2] - 1)
    places = np.unique(np.rint(np.linspace(first, last, min(_STRIP, last - first + 1))).astype(int)).tolist()
    drawn = draw_slices(grey, scene.regions, 0, places)
    start, step = viewer_place(scene, 0)
    return [
        {"source": source, "caption": f"z = {start + step * place:.0f} mm"}
        for source, place in zip(drawn, places, strict=True)
    ]


def stills(scene: Scene) -> list[dict[str, str]]:
    """Return one slice a plane, for readers without scripts."""
    grey = next(iter(scene.greys.values()))
    return [
        {"source": draw_slices(grey, scene.regions, number, [scene.start[plane.axis]])[0], "caption": plane.name}
        for number, plane in enumerate(PLANES)
    ]


def viewer_place(scene: Scene, plane: int) -> tuple[float, float]:
    """Return where the first slice of a plane lies, in mm, and how far it is to the next."""
    axis = PLANES[plane].axis
    middle = (np.array(next(iter(scene.greys.values())).shape) - 1) / 2
    middle[axis] = 0
    at = float((scene.affine @ [*middle, 1.0])[axis])
    middle[axis] = 1
    return at, float((scene.affine @ [*middle, 1.0])[axis]) - at


def surfaces(brain: Mask, regions: Mapping[str, Mask], affine: NDArray[np.float64]) -> dict[str, Any]:
    """Return the surfaces of the brain and of each region, from the outside in, ready for JSON.

    Points are tenths of a millimetre from the brain's middle, RAS+, as int16; triangles are uint16.
    """
    nets = {"brain": find_surface(brain, affine, _BRAIN_MM, _BRAIN_TRIANGLES)}
    nets |= {
        name: find_surface(regions[name], affine, _REGION_MM, _REGION_TRIANGLES)
        for name in ("RC", "WT", "TC", "ET")
        if name in regions
    }
    there = [net.points for net in nets.values() if len(net.points)]
    if not there:
        return {"radius": 0, "parts": []}
    centre = (np.concatenate(there).min(axis=0) + np.concatenate(there).max(axis=0)) / 2
    parts = []
    for name, net in nets.items():
        if len(net.points):
            points = np.rint(10 * (net.points - centre)).astype("<i2")
            parts.append(
                {
                    "name": name,
                    "label": LONG_NAMES.get(name, name),
                    "colour": REGION_COLOURS.get(name, "#dcdcdc"),
                    "points": base64.b64encode(points.tobytes()).decode(),
                    "triangles": base64.b64encode(net.triangles.astype("<u2").tobytes()).decode(),
                }
            )
    radius = max(float(np.linalg.norm(points - centre, axis=1).max()) for points in there)
    return {"radius": round(10 * radius), "parts": parts}


def _to_bytes(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities from 0 to 1 as 0 to 250; next to none is none."""
    kept = np.where(probabilities < _LEAST_PROBABILITY, 0, probabilities)
    scaled: NDArray[np.uint8] = np.rint(250 * np.clip(kept, 0, 1)).astype(np.uint8)
    return scaled
