"""Scenes: images and masks of one case on one grid, and where the masks differ; as JSON and as NIfTI volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import SEQUENCE_NAMES, SHOWN_FIRST, Case
from gliomask.cases.read import read_channels
from gliomask.errors import InputError
from gliomask.evaluation.conventions import find_conventions
from gliomask.evaluation.pairs import mask_stem
from gliomask.figures import AGREEMENT_COLOURS, FOOTER, REGION_COLOURS
from gliomask.figures.case import brain_box, display_window
from gliomask.labels import LONG_NAMES, LabelConvention, check_labels, count_labels, label_values, to_regions
from gliomask.metrics import Mask, dice
from gliomask.volume import Box, Volume, gzip_nifti, match_axes, nifti_bytes, read_volume, voxel_volume_ml

if TYPE_CHECKING:
    from gliomask.acquisition.review import StudyReview

Role = Literal["truth", "prediction", "mask"]

AGREED, MISSED, FALSE = 1, 2, 3

_AGREEMENT = (
    (AGREED, "agreed", "in both"),
    (MISSED, "missed", "only in the truth"),
    (FALSE, "false", "only in the mask"),
)

# Data types that browsers' typed arrays and WebGL textures support; all others are sent as float32.
_SENT_AS_IS = ("uint8", "int16", "uint16", "float32")

_ENDING = ".nii.gz"
_MARGIN_MM = 8.0
_INNERMOST_FIRST = ("ET", "TC", "WT", "RC")

_FAST = 1  # gzip level: on the same machine, speed matters more than size


@dataclass(frozen=True, eq=False)
class ShownMask:
    """A label map, `(1, X, Y, Z)` uint8 in the values of its convention, and its role in the viewer."""

    name: str
    """The name in its URL: letters, digits and `-`."""
    role: Role
    label: str
    labels: Volume
    convention: LabelConvention
    file: Path | None = None
    """Where it was read."""

    def region(self, name: str) -> Mask:
        """Return one region, `(X, Y, Z)`; empty if the convention cannot express it."""
        found: Mask = to_regions(self.labels.data[0], self.convention, (name,))[0]
        return found


@dataclass(frozen=True, eq=False)
class Scene:
    """A case to look at; all images and masks are on one grid."""

    title: str
    images: Mapping[str, Volume]
    """The images by internal sequence name (`t1n t1c t2w t2f`), one channel each, in display order."""
    masks: tuple[ShownMask, ...] = ()

    def with_labels(self, name: str, labels: NDArray[np.uint8]) -> Scene:
        """Return the scene with other labels, `(X, Y, Z)`, in the mask of a name; the part that is sent stays."""
        masks = tuple(
            replace(mask, labels=Volume(labels[None], mask.labels.affine)) if mask.name == name else mask
            for mask in self.masks
        )
        changed = replace(self, masks=masks)
        vars(changed)["box"] = self.box  # the page has its voxels already
        return changed

    @property
    def truth(self) -> ShownMask | None:
        """The mask with which the others are compared, or None."""
        return next((mask for mask in self.masks if mask.role == "truth"), None)

    @cached_property
    def box(self) -> Box:
        """The bounding box of the non-empty part, with a margin; only this is sent, as most of a grid is air."""
        filled = [volume.data[0] for volume in (*self.images.values(), *(mask.labels for mask in self.masks))]
        inside = filled[0] != 0
        for data in filled[1:]:
            inside |= data != 0
        return brain_box(Volume(inside[None], next(iter(self.images.values())).affine), _MARGIN_MM)


def read_scene(case: Case, masks: Sequence[Path] = (), *, labels: str | None = None) -> Scene:
    """Return a scene with the images of a case, its own mask as the truth, and other masks.

    The first of the other masks has the role of the prediction.

    Args:
        case: The case; all of its sequences are read.
        masks: Label maps on the grid of the case; their axes may be stored in another order. The case's own mask may be
            among them and keeps the role of the truth.
        labels: The label convention of the masks; see `find_conventions` for the default. The case's own mask is read
            by the convention of the case if that is known.

    Raises:
        InputError: A file is bad, lies on another grid, or its label convention is ambiguous.
    """
    shown = [modality for modality in SHOWN_FIRST if modality in case.images]
    if not shown:
        raise InputError(f"{case.id}: has no sequence to show its mask on (t1, t1ce, t2 or flair).")
    return make_scene(case, read_channels(case, shown), masks, labels=labels)


def read_raw_scene(review: StudyReview, masks: Sequence[Path], *, labels: str | None = None) -> Scene:
    """Return a scene with the images of a raw study as they were acquired, and masks in the space of one of them.

    Args:
        review: The study.
        masks: Label maps on the grid that the JSON beside the first of them names, by default that of the reference.
            The images are interpolated to it.
        labels: The label convention of the masks; see `find_conventions` for the default.

    Raises:
        InputError: As for `read_scene`.
    """
    from gliomask.acquisition.review import space_of

    space = space_of(masks[0], review.alignment) if masks else review.alignment.reference
    images = review.images_in(space)
    shown = {modality: _rounded(images[modality]) for modality in SHOWN_FIRST if modality in images}
    return make_scene(Case(review.id, {}), shown, masks, labels=labels)


def _rounded(image: Volume) -> Volume:
    """Return interpolated values as int16 where that is fine enough, as they are half the size."""
    largest = float(np.abs(image.data).max(initial=0))
    if image.data.dtype != np.float32 or not 255 < largest < np.iinfo(np.int16).max:
        return image
    return Volume(np.rint(image.data).astype(np.int16), image.affine)


def make_scene(case: Case, images: Mapping[str, Volume], masks: Sequence[Path], *, labels: str | None = None) -> Scene:
    """Return a scene of images that were read before; see `read_scene`.

    Raises:
        InputError: A mask is bad, lies on another grid than the images, or its label convention is ambiguous.
    """
    grid = next(iter(images.values())).grid
    masks = [path for path in masks if case.mask is None or path.resolve() != case.mask.resolve()]
    read = []
    for number, path in enumerate(masks, 1):
        convention = find_conventions({case.id: path}, labels)[case.id]
        name, role, label = _place(number, path)
        read.append(ShownMask(name, role, label, match_axes(_read_labels(path, convention), grid), convention, path))
    if case.mask is not None:
        convention = find_conventions({case.id: case.mask}, case.convention or labels)[case.id]
        labels_on_grid = match_axes(_read_labels(case.mask, convention), grid)
        read.append(ShownMask("truth", "truth", "truth", labels_on_grid, convention, case.mask))
    for mask in read:
        if difference := grid.difference(mask.labels.grid):
            raise InputError(
                f"{mask.file}: its grid differs from that of {case.id}'s images in {difference}. "
                "Is it this case's mask?"
            )
    return Scene(case.id, images, tuple(read))


def compare_masks(truth: Mask, prediction: Mask) -> NDArray[np.uint8]:
    """Compare two masks of one shape: voxels in both are `AGREED`, in the truth only `MISSED`, in the other `FALSE`."""
    places: NDArray[np.uint8] = np.select([truth & prediction, truth, prediction], [AGREED, MISSED, FALSE], 0).astype(
        np.uint8
    )
    return places


def volume_names(scene: Scene) -> tuple[str, ...]:
    """Return the names of all volumes that a page of this scene may request, ending in .nii.gz."""
    return tuple(_volumes(scene))


def volume_bytes(scene: Scene, name: str) -> bytes:
    """Return one volume of the scene as .nii.gz: voxels and affine of `Scene.box`, without header text.

    Raises:
        KeyError: The name is not in `volume_names`.
    """
    return packed(_volumes(scene)[name](), scene.box)


def packed(volume: Volume, box: Box) -> bytes:
    """Return a part of a volume as .nii.gz: voxels and affine, without header text."""
    return gzip_nifti(nifti_bytes(_as_sent(volume, box)), _FAST)


def scene_content(scene: Scene, prefix: str = "volumes/") -> dict[str, Any]:
    """Return the scene as the page's script reads it, ready for JSON; see `gliomask.viewer`.

    Args:
        scene: The scene.
        prefix: The part of a volume's URL before its name.
    """
    regions = [name for name in REGION_COLOURS if any(name in mask.convention.regions for mask in scene.masks)]
    return {
        "title": scene.title,
        "notice": FOOTER,
        "start_mm": _start_mm(scene),
        "first_voxel": [int(span.start) for span in scene.box],
        "images": [
            {
                "name": name,
                "label": SEQUENCE_NAMES.get(name, name),
                "url": f"{prefix}{name}{_ENDING}",
                "window": _window(image.data[0]),
            }
            for name, image in scene.images.items()
        ],
        "masks": [_mask_content(mask, prefix) for mask in scene.masks],
        "regions": [{"name": name, "label": LONG_NAMES[name], "color": REGION_COLOURS[name]} for name in regions],
        "comparisons": [_comparison_content(*pair, prefix) for pair in _compared(scene)],
        "agreement": [
            {"value": value, "name": name, "label": label, "color": AGREEMENT_COLOURS[name]}
            for value, name, label in _AGREEMENT
        ],
    }


def _place(number: int, path: Path) -> tuple[str, Role, str]:
    return ("prediction", "prediction", "prediction") if number == 1 else (f"mask-{number}", "mask", mask_stem(path))


def _read_labels(path: Path, convention: LabelConvention) -> Volume:
    volume = read_volume(path, mask=True)
    check_labels(label_values(volume.data), convention, str(path))
    return volume


def _compared(scene: Scene) -> list[tuple[ShownMask, ShownMask, str]]:
    """Return the comparisons: the truth, another mask, and a region that both conventions can express."""
    truth = scene.truth
    if truth is None:
        return []
    return [
        (truth, mask, region)
        for mask in scene.masks
        if mask is not truth
        for region in REGION_COLOURS
        if region in truth.convention.regions and region in mask.convention.regions
    ]


def _volumes(scene: Scene) -> dict[str, Callable[[], Volume]]:
    """Return a function that computes each volume, by name."""
    functions: dict[str, Callable[[], Volume]] = {}
    for name, image in scene.images.items():
        functions[f"{name}{_ENDING}"] = partial(Volume, image.data, image.affine)
    for mask in scene.masks:
        functions[f"{mask.name}{_ENDING}"] = partial(Volume, mask.labels.data, mask.labels.affine)
    for truth, mask, region in _compared(scene):
        functions[f"{mask.name}-{region}{_ENDING}"] = partial(_comparison, truth, mask, region)
    return functions


def _comparison(truth: ShownMask, mask: ShownMask, region: str) -> Volume:
    return Volume(compare_masks(truth.region(region), mask.region(region))[None], truth.labels.affine)


def _as_sent(volume: Volume, box: Box) -> Volume:
    data = np.ascontiguousarray(volume.data[:, box[0], box[1], box[2]])
    if data.dtype.name not in _SENT_AS_IS or not data.dtype.isnative:
        data = data.astype(np.float32)
    corner = np.eye(4)
    corner[:3, 3] = [span.start for span in box]
    return Volume(data, volume.affine @ corner)


def _mask_content(mask: ShownMask, prefix: str) -> dict[str, Any]:
    counts, voxel_ml = count_labels(mask.labels.data), voxel_volume_ml(mask.labels.affine)
    regions = mask.convention.regions
    return {
        "name": mask.name,
        "role": mask.role,
        "label": mask.label,
        "url": f"{prefix}{mask.name}{_ENDING}",
        "convention": mask.convention.name,
        "tissues": [
            {"value": value, "name": tissue, "label": LONG_NAMES[tissue]}
            for value, tissue in sorted(mask.convention.tissues.items())
        ],
        "regions": {name: sorted(values) for name, values in regions.items()},
        "volumes_ml": {
            name: round(sum(int(counts[value]) for value in values) * voxel_ml, 3) for name, values in regions.items()
        },
    }


def _comparison_content(truth: ShownMask, mask: ShownMask, region: str, prefix: str) -> dict[str, Any]:
    true, predicted = truth.region(region), mask.region(region)
    counts = count_labels(compare_masks(true, predicted))
    return {
        "mask": mask.name,
        "region": region,
        "url": f"{prefix}{mask.name}-{region}{_ENDING}",
        "dice": round(dice(true, predicted), 4) if counts[1:].any() else None,
        "volumes_ml": {
            name: round(int(counts[value]) * voxel_volume_ml(truth.labels.affine), 3) for value, name, _ in _AGREEMENT
        },
    }


def _window(image: NDArray[Any]) -> list[float]:
    low, high = display_window(image)
    return [round(low, 3), round(max(high, low + 1e-3), 3)]


def _start_mm(scene: Scene) -> list[float]:
    """Return the initial crosshair: the slices with most of the innermost non-empty region, or else the centre."""
    grid = next(iter(scene.images.values())).grid
    index = [(size - 1) / 2 for size in grid.shape]
    for mask, region in ((mask, region) for region in _INNERMOST_FIRST for mask in scene.masks):
        found = mask.region(region)
        if found.any():
            index = [float(np.count_nonzero(found, axis=axes).argmax()) for axes in ((1, 2), (0, 2), (0, 1))]
            break
    return [round(float(value), 2) for value in (grid.affine @ [*index, 1.0])[:3]]
