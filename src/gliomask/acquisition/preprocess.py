"""From the images of one examination as they were acquired to aligned images of the brain, and the way back.

Steps: the brain is found in every image; every image is registered to the reference, rigidly; the reference's brain is
registered to the atlas, rigidly, as BraTS has it, so that volumes stay what they are; each image is interpolated once,
onto the grid of 1 mm; outside the brain it is set to zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from gliomask.acquisition.alignment import Alignment, Matrix, carry
from gliomask.acquisition.atlas import AtlasName, atlas_grid, own_grid, read_atlas
from gliomask.acquisition.brain import extract_brain, implausible_volume, largest_piece, release_networks
from gliomask.acquisition.other_tools import StrippingTool, strip_with
from gliomask.acquisition.registration import Registering, mutual_information, register
from gliomask.acquisition.resampling import box_of_masks, carry_all
from gliomask.acquisition.shading import without_shading
from gliomask.acquisition.study import REFERENCES
from gliomask.cases import Case, Source
from gliomask.errors import InputError
from gliomask.volume import Box, Grid, Volume, bounding_box, grid_at_spacing, voxel_volume_ml, write_volume

Mask = NDArray[np.bool_]
Stripping = Literal["networks", "none"] | StrippingTool | Path

# An image whose outermost voxels are zero to more than this share has no skull and no air: it was stripped before.
_STRIPPED = 0.25
# A brain on the atlas's own grid that overlaps it by this Dice was brought there before: BraTS's cases reach .9.
_ON_ATLAS = 0.85
# The voxels at which a brain is compared with the atlas: people differ from it by more.
_ATLAS_MM = 3.0
# How much of the head around the brain takes part in a registration.
_AROUND_MM = 10.0
# A search begins with the centres of two brain masks on each other. One that ends further away than this has gone
# astray; it is begun again until it has been tried this often.
_FURTHEST_MM, _TRIES = 40.0, 3
# Less agreement than this of an image's own brain mask with the common one: look at its registration.
_POOR_OVERLAP = 0.88
# The spellings with which BraTS 2021 names its files.
_NAMES = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}


@dataclass(frozen=True)
class PreprocessSettings:
    """How an examination is prepared."""

    atlas: AtlasName = "sri24"
    """Whose space the images are brought into; "none": the patient's own, straightened."""
    skull_strip: Stripping = "networks"
    """How the brain is found: deepbet's networks, not at all, another program, or a mask on the reference's grid."""
    register: Registering = "greedy"
    """What registers the sequences to the reference, and that to the atlas; "none": they are aligned already, and
    Greedy finds the atlas."""
    n4: bool = False
    """Whether shading is taken out of the images for the registration; the prepared images keep it."""
    reference: str | None = None
    """The sequence the others are registered to; by default the first of `REFERENCES` that is there."""
    threads: int | None = None


@dataclass(frozen=True)
class Preprocessed:
    """Aligned images of the brain, and all that is needed to go back."""

    images: Mapping[str, Volume]
    """By sequence, on one grid of 1 mm, float32, zero outside the brain."""
    brain: Volume
    """The brain mask on that grid."""
    alignment: Alignment
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Steps that were left out, and why."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """The seconds that each step took."""


def preprocess(
    images: Mapping[str, Volume],
    settings: PreprocessSettings | None = None,
    *,
    on_step: Callable[[str, float], None] = lambda name, share: None,
) -> Preprocessed:
    """Return the images of one examination aligned, on one grid of 1 mm and without skull.

    The measures in `alignment.quality`: for each sequence `overlap_SEQUENCE`, the Dice of the brain found in that image
    with the common brain mask after alignment, and `nmi_SEQUENCE`, the normalized mutual information with the reference
    inside it (1 to 2); `overlap_atlas` with the atlas's brain; `brain_ml`.

    Args:
        images: By sequence (`t1n t1c t2w t2f`, any of them), one channel each, each on a grid of its own, with or
            without skull.
        settings: By default those of `PreprocessSettings()`.
        on_step: Called with the name of each step as it begins, and the share of the work that is done.

    Raises:
        InputError: There is no image, no brain is found, or an image cannot be registered.
    """
    settings = settings or PreprocessSettings()
    if not images:
        raise InputError("there is no image to prepare.")
    clock = _Steps(on_step, len(images))
    reference = settings.reference or next(name for name in REFERENCES if name in images)
    if reference not in images:
        raise InputError(f"the reference {reference} is not among the images ({', '.join(images)}).")
    brains = _find_brains(images, reference, settings, clock)
    release_networks()
    to_image = _register_all(_without_shading(images, brains, settings), brains, reference, settings, clock)
    grid, to_reference, overlap = _place(images, brains, reference, settings, clock)
    clock.begin("resampling")
    alignment = Alignment(
        reference=reference,
        grid=grid,
        native={name: image.grid for name, image in images.items()},
        to_native={name: to_image[name] @ to_reference for name in images},
    )
    masks = {name: Volume(mask[None], images[name].affine) for name, mask in brains.items()}
    found = carry_all(masks, alignment, box_of_masks(masks, alignment), threads=settings.threads)
    brain = _common_brain(found, reference)
    carried = carry_all(images, alignment, _around_brain(brain), threads=settings.threads)
    quality = _measure(carried, found, brain, reference)
    quality |= {"brain_ml": float(np.count_nonzero(brain) * voxel_volume_ml(grid.affine))} | overlap
    clock.end()
    return Preprocessed(
        images={
            name: Volume(np.where(brain, image, 0)[None].astype(np.float32), grid.affine)
            for name, image in carried.items()
        },
        brain=Volume(brain[None].astype(np.uint8), grid.affine),
        alignment=replace(alignment, quality=quality),
        warnings=tuple(quality_warnings(quality)),
        notes=tuple(clock.notes),
        steps=clock.seconds,
    )


def write_preprocessed(found: Preprocessed, case_id: str, folder: Path) -> Case:
    """Write a case as BraTS 2021 names it, with the brain mask and the transforms beside it, and return it.

    `ID_t1.nii.gz` and so on, `ID_brain.nii.gz`, and the folder `transforms` (see `Alignment.save`). Intensities of more
    than 255 are rounded to int16, others stay float32.

    Raises:
        InputError: The place cannot be written to.
    """
    found.alignment.save(folder / "transforms")
    write_volume(folder / f"{case_id}_brain.nii.gz", found.brain)
    sources = {}
    for name, image in found.images.items():
        path = image_path(folder, case_id, name)
        write_volume(path, Volume(_compact(image.data), image.affine))
        sources[name] = Source(path)
    return Case(case_id, sources)


def image_path(folder: Path, case_id: str, modality: str) -> Path:
    """Return where `write_preprocessed` puts a sequence."""
    return folder / f"{case_id}_{_NAMES[modality]}.nii.gz"


def is_stripped(image: Volume) -> bool:
    """Tell whether an image has no skull and no air any more: what surrounds the brain is exactly zero.

    Scanners also set air to zero. So what is not zero must be no larger than a brain.
    """
    data = image.data[0]
    filled = int(np.count_nonzero(data))
    volume_ml = filled * voxel_volume_ml(image.affine)
    return filled < (1 - _STRIPPED) * data.size and implausible_volume(volume_ml) is None


class _Steps:
    """The step at work, the seconds of those before it, and word of both to whoever watches."""

    def __init__(self, on_step: Callable[[str, float], None], images: int) -> None:
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self._on_step, self._count, self._done = on_step, 2 * images + 2, 0
        self._name, self._started = "", 0.0

    def begin(self, name: str) -> None:
        self.end()
        self._name, self._started = name, time.perf_counter()
        self._on_step(name, self._done / self._count)
        self._done += 1

    def end(self) -> None:
        if self._name:
            self.seconds[self._name] = round(time.perf_counter() - self._started, 2)


def _find_brains(
    images: Mapping[str, Volume], reference: str, settings: PreprocessSettings, clock: _Steps
) -> dict[str, Mask]:
    brains: dict[str, Mask] = {}
    for name, image in images.items():
        clock.begin(f"brain in {name}")
        if isinstance(settings.skull_strip, Path):
            if name == reference:
                brains[name] = _given_brain(settings.skull_strip, image)
        elif settings.skull_strip == "none":
            brains[name] = image.data[0] != 0
        elif is_stripped(image):
            brains[name] = image.data[0] != 0
            clock.notes.append(f"{name} has no skull already: its brain is what is not zero.")
        elif settings.skull_strip == "networks":
            brains[name] = extract_brain(image, threads=settings.threads)
        else:
            brains[name] = strip_with(settings.skull_strip, image)
    return brains


def _given_brain(path: Path, image: Volume) -> Mask:
    from gliomask.volume import read_volume

    mask = read_volume(path, mask=True)
    if difference := image.grid.difference(mask.grid):
        raise InputError(f"{path}: the brain mask must lie on the reference's grid; they differ in {difference}.")
    brain: Mask = mask.data[0] > 0
    return brain


def _register_all(
    images: Mapping[str, Volume],
    brains: Mapping[str, Mask],
    reference: str,
    settings: PreprocessSettings,
    clock: _Steps,
) -> dict[str, Matrix]:
    """For each image the matrix from the reference's space to its own."""
    found = {}
    fixed = _around(images[reference], brains[reference]) if reference in brains else images[reference]
    for name, image in images.items():
        clock.begin(f"registering {name}")
        if name == reference or settings.register == "none":
            found[name] = np.eye(4)
            continue
        if not image.grid.difference(images[reference].grid) and _lie_alike(brains, name, reference):
            found[name] = np.eye(4)
            clock.notes.append(f"{name} lies on {reference} already: it was not registered.")
            continue
        start = None
        if name in brains and reference in brains:
            start = _shift(images[reference], brains[reference], image, brains[name])
        try:
            found[name] = _register(fixed, image, start, settings)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return found


def _register(fixed: Volume, moving: Volume, start: Matrix | None, settings: PreprocessSettings) -> Matrix:
    """The map from the fixed image to the moving one; a search that went astray is begun again.

    Greedy's samples are random, and rarely a step of its search leads out of the image.
    """
    program: Registering = "ants" if settings.register == "ants" else "greedy"
    for _ in range(_TRIES):
        found = register(fixed, moving, start=start, program=program, threads=settings.threads)
        if start is None or _distance_mm(fixed, found, start) < _FURTHEST_MM:
            break
    return found


def _distance_mm(image: Volume, first: Matrix, second: Matrix) -> float:
    """The distance between the places to which two maps take the centre of an image."""
    centre = image.affine @ [*((size - 1) / 2 for size in image.data.shape[1:]), 1]
    return float(np.linalg.norm((first - second) @ centre))


def _around(image: Volume, brain: Mask) -> Volume:
    """The part of an image around the brain: registering takes as long as the fixed image has voxels."""
    box = bounding_box(brain, [round(_AROUND_MM / edge) for edge in image.spacing_mm])
    if box is None:
        return image
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [span.start for span in box]
    part: tuple[slice, ...] = (slice(None), *box)
    return Volume(image.data[part], affine)


def _without_shading(
    images: Mapping[str, Volume], brains: Mapping[str, Mask], settings: PreprocessSettings
) -> Mapping[str, Volume]:
    if not (settings.n4 and settings.register != "none"):
        return images
    return {name: without_shading(image, brains[name]) if name in brains else image for name, image in images.items()}


def _lie_alike(brains: Mapping[str, Mask], name: str, reference: str) -> bool:
    """Whether two stripped images of one grid have the same outline, so that they were registered before."""
    if name not in brains or reference not in brains:
        return False
    return _dice(brains[name], brains[reference]) > 0.99


def _shift(first: Volume, first_brain: Mask, second: Volume, second_brain: Mask) -> Matrix:
    """The translation that takes the centre of one brain to that of the other."""
    move = np.eye(4)
    move[:3, 3] = _centre(second, second_brain) - _centre(first, first_brain)
    return move


def _centre(image: Volume, brain: Mask) -> NDArray[np.float64]:
    places = np.argwhere(brain).mean(axis=0)
    centre: NDArray[np.float64] = image.affine[:3, :3] @ places + image.affine[:3, 3]
    return centre


def _place(
    images: Mapping[str, Volume],
    brains: Mapping[str, Mask],
    reference: str,
    settings: PreprocessSettings,
    clock: _Steps,
) -> tuple[Grid, Matrix, dict[str, float]]:
    """The prepared grid, the map from its space to the reference's, and how well the brain fits the atlas."""
    clock.begin("finding the atlas")
    image, brain = images[reference], brains[reference]
    stripped = Volume(np.where(brain, image.data[0], 0)[None].astype(np.float32), image.affine)
    if settings.atlas == "none":
        return own_grid(Volume(brain[None], image.affine)), np.eye(4), {}
    grid = atlas_grid(settings.atlas)
    atlas = read_atlas(settings.atlas, grid_at_spacing(grid, (_ATLAS_MM,) * 3))
    theirs = atlas.data[0] > 0
    mask = Volume(brain[None], image.affine)
    if not grid.difference(image.grid):
        there = _dice(carry(mask, np.eye(4), atlas.grid).data[0] > 0.5, theirs)
        if there > _ON_ATLAS:
            clock.notes.append(f"{reference} lies on the atlas already: it was not moved.")
            return grid, np.eye(4), {"overlap_atlas": there}
    start = _shift(atlas, theirs, image, brain)
    found = _register(_around(atlas, theirs), _around(stripped, brain), start, settings)
    return grid, found, {"overlap_atlas": _dice(carry(mask, found, atlas.grid).data[0] > 0.5, theirs)}


def _common_brain(found: Mapping[str, NDArray[np.float32]], reference: str) -> Mask:
    """What most images call brain; the reference counts twice, as it lies exactly."""
    weights = {name: 2.0 if name == reference else 1.0 for name in found}
    share = sum(weights[name] * mask for name, mask in found.items()) / sum(weights.values())
    filled: Mask = binary_fill_holes(largest_piece(np.asarray(share) > 0.5))
    return filled


def _around_brain(brain: Mask) -> Box:
    box = bounding_box(brain)
    assert box is not None, "the largest piece of a mask is never empty"
    return box


def _measure(
    images: Mapping[str, NDArray[np.float32]], found: Mapping[str, NDArray[np.float32]], brain: Mask, reference: str
) -> dict[str, float]:
    quality = {f"overlap_{name}": _dice(mask > 0.5, brain) for name, mask in found.items()}
    inside = {name: np.where(brain, image, 0) for name, image in images.items()}
    for name in images:
        if name != reference:
            quality[f"nmi_{name}"] = mutual_information(inside[reference], inside[name])
    return quality


def quality_warnings(quality: Mapping[str, float]) -> list[str]:
    """Return a sentence for each measure of `preprocess` that is poor."""
    said = []
    for name, value in quality.items():
        if name.startswith("overlap_") and value < (0.75 if name == "overlap_atlas" else _POOR_OVERLAP):
            what = "the atlas" if name == "overlap_atlas" else name.removeprefix("overlap_")
            said.append(
                f"the brain of {what} overlaps the common brain mask with a Dice of {value:.2f} only: look at the "
                "alignment before you use the answer."
            )
    if problem := implausible_volume(quality["brain_ml"]):
        said.append(problem)
    return said


def _dice(first: Mask, second: Mask) -> float:
    together = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * float(np.count_nonzero(first & second)) / together if together else 1.0


def _compact(data: NDArray[np.float32]) -> NDArray[np.generic]:
    if np.abs(data).max() > 255 and np.abs(data).max() < np.iinfo(np.int16).max:
        return np.round(data).astype(np.int16)
    return data
