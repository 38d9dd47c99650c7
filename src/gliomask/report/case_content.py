"""The content of a page's viewer: images, regions and probabilities on one isotropic grid, and their surfaces."""

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
_HEAD_MARGIN_MM = 18.0  # shows skull and scalp
_WITH_SKULL = 1.2  # times the brain's voxels are not zero in an image of a head
_STRIP = 12
_BRAIN_MM, _REGION_MM = 4.0, 2.0
_BRAIN_TRIANGLES, _REGION_TRIANGLES = 16_000, 14_000
_LEAST_PROBABILITY = 0.02


@dataclass(frozen=True, eq=False)
class ResampledCase:
    """A case on an isotropic grid in LPS order, cropped to its brain; all arrays are `(X, Y, Z)`."""

    affine: NDArray[np.float64]
    edge_mm: float
    greys: Mapping[str, NDArray[np.uint8]]
    """The grey levels by the name of the sequence."""
    regions: Mapping[str, Mask]
    probabilities: Mapping[str, NDArray[np.uint8]]
    """The probabilities by region, scaled to 0 to 250."""

    @property
    def start(self) -> list[int]:
        """The slices shown first: those with most of the innermost non-empty region, or else the middle ones."""
        for name in ("ET", "TC", "WT", "RC"):
            if name in self.regions and self.regions[name].any():
                mask = self.regions[name]
                return [int(np.count_nonzero(mask, axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1))]
        return [size // 2 for size in next(iter(self.greys.values())).shape]


def resample_case(
    images: Mapping[str, Volume],
    regions: Mapping[str, Mask],
    probabilities: Mapping[str, NDArray[np.float32]],
    *,
    brain: Mask | None = None,
    finest_mm: float = _FINEST_MM,
) -> ResampledCase:
    """Return a case resampled for the viewer; its voxels have the smallest edge of the image, at least `finest_mm`.

    It is cropped to the brain and the regions, with a wider margin if the images show more than the brain.

    Args:
        images: The images by name, one channel each, on one grid.
        regions, probabilities: Arrays by region, on the same grid.
        brain: The voxels of the brain; by default those that are not 0 in at least one image.
        finest_mm: The smallest edge of a voxel.
    """
    affine = next(iter(images.values())).affine
    shown = {name: reorient(image, "LPS") for name, image in images.items()}
    filled = np.logical_or.reduce([image.data[0] != 0 for image in shown.values()])
    inside = filled if brain is None else reorient(Volume(brain[None], affine), "LPS").data[0]
    has_skull = np.count_nonzero(filled) > _WITH_SKULL * np.count_nonzero(inside)
    masks = {name: reorient(Volume(mask[None], affine), "LPS") for name, mask in regions.items()}
    inside = np.logical_or.reduce([inside, *(mask.data[0] for mask in masks.values())])
    likely = {name: reorient(Volume(values[None], affine), "LPS") for name, values in probabilities.items()}
    oriented = next(iter(shown.values())).affine
    box = brain_box(Volume(inside[None], oriented), _HEAD_MARGIN_MM if has_skull else _MARGIN_MM)
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
    return ResampledCase(
        affine=next(iter(cubes.values())).affine,
        edge_mm=edge,
        greys={name: to_grey(image.data[0]) for name, image in cubes.items()},
        regions={name: onto_cubes(mask, nearest=True).data[0].astype(bool) for name, mask in masks.items()},
        probabilities={name: _to_bytes(onto_cubes(one, nearest=False).data[0]) for name, one in likely.items()},
    )


def viewer_content(resampled: ResampledCase) -> dict[str, Any]:
    """Return the content that the viewer's script reads, ready for JSON."""
    shape = next(iter(resampled.greys.values())).shape
    middle = (np.array(shape) - 1) / 2
    places = []
    for plane in PLANES:
        ends = []
        for index in (0, 1):
            place = middle.copy()
            place[plane.axis] = index
            ends.append(float((resampled.affine @ [*place, 1.0])[plane.axis]))
        places.append([round(ends[0], 3), round(ends[1] - ends[0], 5)])
    return {
        "shape": list(shape),
        "edge_mm": resampled.edge_mm,
        "start": resampled.start,
        "places_mm": places,
        "images": [{"name": name, "data": pack(grey)} for name, grey in resampled.greys.items()],
        "regions": [{"name": name, "colour": REGION_COLOURS[name]} for name in resampled.regions],
        "masks": pack_bits(resampled.regions),
        "probabilities": [{"name": name, "data": pack(values)} for name, values in resampled.probabilities.items()],
    }


def strip(resampled: ResampledCase) -> list[dict[str, str]]:
    """Return axial slices spread over the tumour (or the brain, without a tumour), bottom to top, with captions."""
    grey = next(iter(resampled.greys.values()))
    tumour = np.logical_or.reduce(list(resampled.regions.values()))
    where = np.flatnonzero((tumour if tumour.any() else grey > 0).any(axis=(0, 1)))
    first, last = (int(where[0]), int(where[-1])) if len(where) else (0, grey.shape[2] - 1)
    places = np.unique(np.rint(np.linspace(first, last, min(_STRIP, last - first + 1))).astype(int)).tolist()
    drawn = draw_slices(grey, resampled.regions, 0, places)
    start, step = viewer_place(resampled, 0)
    return [
        {"source": source, "caption": f"z = {start + step * place:.0f} mm"}
        for source, place in zip(drawn, places, strict=True)
    ]


def stills(resampled: ResampledCase) -> list[dict[str, str]]:
    """Return one slice per plane, for readers without scripts."""
    grey = next(iter(resampled.greys.values()))
    return [
        {
            "source": draw_slices(grey, resampled.regions, number, [resampled.start[plane.axis]])[0],
            "caption": plane.name,
        }
        for number, plane in enumerate(PLANES)
    ]


def viewer_place(resampled: ResampledCase, plane: int) -> tuple[float, float]:
    """Return the position of the first slice of a plane in mm, and the distance to the next one."""
    axis = PLANES[plane].axis
    middle = (np.array(next(iter(resampled.greys.values())).shape) - 1) / 2
    middle[axis] = 0
    at = float((resampled.affine @ [*middle, 1.0])[axis])
    middle[axis] = 1
    return at, float((resampled.affine @ [*middle, 1.0])[axis]) - at


def surfaces(brain: Mask, regions: Mapping[str, Mask], affine: NDArray[np.float64]) -> dict[str, Any]:
    """Return the surfaces of the brain and of each region, outermost first, ready for JSON.

    Points are in tenths of a millimetre from the centre of the brain, RAS+, as int16; triangles are uint16.
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
    """Scale probabilities from 0..1 to 0..250; those below 0.02 become 0."""
    kept = np.where(probabilities < _LEAST_PROBABILITY, 0, probabilities)
    scaled: NDArray[np.uint8] = np.rint(250 * np.clip(kept, 0, 1)).astype(np.uint8)
    return scaled
