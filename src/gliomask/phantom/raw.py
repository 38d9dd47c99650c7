"""Raw synthetic examinations: whole heads, each sequence on its own grid, moved, shaded and noisy, and the truth.

What is known exactly, because it was made so: how each image was moved, where the brain is and where the tumour is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter

from gliomask.errors import InputError
from gliomask.files import write_text
from gliomask.phantom.dicom import write_dicom_study
from gliomask.phantom.examination import Phantom, make_phantom
from gliomask.volume import Grid, Volume, bounding_box, write_volume

Matrix = NDArray[np.float64]

_PAD_MM = 36  # around the brain's grid, for skull and scalp
_AIR_MM = 10  # around the head in every image
_CSF_MM, _SKULL_MM, _SCALP_MM = 3.0, 9.0, 15.0  # depths, from the brain's surface to the outer side of each layer
# Brain masks contain the fluid around the brain. In a real examination with reference masks (TCGA-FG-6692, T2), the
# signal of fluid goes on until about 1 mm outside of them.
_MASK_MM = _CSF_MM - 1.0
# Signal relative to the brain's median: fluid, bone, marrow-free skull is dark; the fat of the scalp bright in T1.
_LAYERS = {
    "t1n": (0.35, 0.12, 1.6, 0.5),
    "t1c": (0.35, 0.12, 1.7, 0.5),
    "t2w": (2.2, 0.12, 1.0, 2.0),
    "t2f": (0.35, 0.12, 0.9, 0.5),
}
"""Of each sequence: subarachnoid fluid, skull, scalp, eyes."""


@dataclass(frozen=True)
class RawImage:
    """One sequence as a scanner would give it, and the truth about it."""

    image: Volume
    brain: NDArray[np.bool_]
    """The brain and the fluid around it, as brain masks have them, on the image's own grid."""
    tissues: NDArray[np.uint8]
    """0, 1 NCR, 2 ED, 3 ET on the image's own grid."""
    from_head: Matrix
    """From a place in the head, before it moved, to the same place in this image; millimetres, RAS+, rigid."""


@dataclass(frozen=True)
class Scanner:
    """How the images of a head are acquired."""

    degrees: float = 20.0
    """The largest rotation between the head's rest and an image, about a random axis."""
    shift_mm: float = 30.0
    """The largest shift."""
    thickness_mm: tuple[float, float] = (1, 6)
    """The least and greatest slice thickness."""
    edge_mm: float = 1.0
    """The largest edge of a voxel within a slice, and every edge of a 3-D acquisition."""
    three_d: tuple[str, ...] = ("t1c",)
    """The sequences that are acquired in three dimensions, sagittally; the others are thick axial slices."""


def make_raw_phantom(
    seed: int,
    *,
    size: int = 240,
    degrees: float = 20.0,
    shift_mm: float = 30.0,
    thickness_mm: tuple[float, float] = (1, 6),
    edge_mm: float = 1.0,
) -> dict[str, RawImage]:
    """Return a synthetic examination of a whole head, by sequence.

    T1 with contrast is acquired in three dimensions, sagittally, at 1 mm; the others in thick axial slices, one of them
    oblique. Between the sequences the head moves.

    Args:
        seed: As of `make_phantom`, whose brain it is.
        size: Voxels along the longest axis of the brain's grid; 240 is 1 mm.
        degrees, shift_mm, thickness_mm, edge_mm: See `Scanner`.

    Raises:
        InputError: See `make_phantom`.
    """
    return acquire(make_phantom(seed, size=size), seed, Scanner(degrees, shift_mm, thickness_mm, edge_mm))


def acquire(phantom: Phantom, seed: int, scanner: Scanner) -> dict[str, RawImage]:
    """Return the images of a stripped examination as a scanner would have made them: skull and scalp, moved, shaded.

    Args:
        phantom: The brain; of `anatomy`, only what is not zero counts.
        seed: Of the movements, grids, shading and noise.
        scanner: How the images are acquired.
    """
    rng = np.random.default_rng([seed, 19])
    return {name: _acquired(rng, phantom, name, scanner) for name in phantom.images}


def write_raw_phantoms(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 240,
    dicom: bool = False,
    on_case: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write raw examinations as NIfTI or DICOM, a folder each, and return the folders.

    A folder `.truth` beside the images holds for each sequence `NAME_brain.nii.gz` and `NAME_tissues.nii.gz` on its own
    grid (1 NCR, 2 ED, 3 ET), and `movements.json` with each `from_head` matrix. Its name begins with a dot, so that a
    search for studies passes over it.

    Raises:
        InputError: The folder holds something already or cannot be written to, or see `make_phantom`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and not empty. Choose another folder.")
    folders = []
    for number in range(1, count + 1):
        case = folder / f"RAW_{number:03d}"
        found = make_raw_phantom(seed * 10_000 + number, size=size)
        if dicom:
            write_dicom_study(case, {name: raw.image for name, raw in found.items()}, number=number)
        else:
            for name, raw in found.items():
                write_volume(case / f"{name}.nii.gz", raw.image)
        write_truth(found, case / ".truth")
        folders.append(case)
        on_case(case.name)
    return folders


def write_truth(images: dict[str, RawImage], folder: Path) -> None:
    """Write what is known about the images of a raw phantom; see `write_raw_phantoms`."""
    for name, raw in images.items():
        write_volume(folder / f"{name}_brain.nii.gz", Volume(raw.brain[None].astype(np.uint8), raw.image.affine))
        write_volume(folder / f"{name}_tissues.nii.gz", Volume(raw.tissues[None], raw.image.affine))
    movements = {name: raw.from_head.tolist() for name, raw in images.items()}
    write_text(folder / "movements.json", json.dumps(movements, indent=2) + "\n")


def _acquired(
    rng: np.random.Generator,
    phantom: Phantom,
    name: str,
    scanner: Scanner,
) -> RawImage:
    head, brain, tissues, affine = _with_skull(phantom, name)
    move = _movement(rng, scanner.degrees, scanner.shift_mm)
    grid = _own_grid(rng, name, move @ affine, head.shape, scanner)
    sampled = _sampled(head, affine, move, grid)
    shaded = sampled * _shading(rng, grid.shape)
    level = float(np.median(head[brain]))
    noise = 0.02 * level * rng.standard_normal((2, *grid.shape)).astype(np.float32)
    image = np.hypot(shaded + noise[0], noise[1])  # Rician, as a magnitude's noise is
    inside = _sampled(brain.astype(np.float32), affine, move, grid) > 0.5
    labels = _sampled_labels(tissues, affine, move, grid)
    return RawImage(Volume(np.round(image)[None].astype(np.int16), grid.affine), inside, labels, move)


def _with_skull(
    phantom: Phantom, name: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8], Matrix]:
    """The image of one sequence on a larger grid, with fluid, skull, scalp, eyes and neck around the brain."""
    spacing = float(np.linalg.norm(phantom.affine[:3, 0]))
    pad = round(_PAD_MM / spacing)
    image = np.pad(phantom.images[name].astype(np.float32), pad)
    tissues, brain = np.pad(phantom.tissues, pad), np.pad(phantom.anatomy > 0, pad)
    affine = phantom.affine.copy()
    affine[:3, 3] -= phantom.affine[:3, :3] @ np.full(3, pad)
    depth = distance_transform_edt(~brain, sampling=spacing).astype(np.float32)
    depth = gaussian_filter(depth, 2.0 / spacing)  # a skull does not follow every fold
    fluid, skull, scalp, eye = (share * float(np.median(image[brain])) for share in _LAYERS[name])
    outside = np.select(
        [depth < _CSF_MM, depth < _SKULL_MM, depth < _SCALP_MM], [fluid, skull, scalp], default=np.float32(0)
    ).astype(np.float32)
    # The phantom's axes are straight: each place's coordinates follow from one index each.
    places = np.meshgrid(
        *(affine[axis, axis] * np.arange(n) + affine[axis, 3] for axis, n in enumerate(brain.shape)),
        indexing="ij",
        sparse=True,
    )
    indices = np.argwhere(brain)
    centre = affine[:3, :3] @ indices.mean(axis=0) + affine[:3, 3]
    half = np.abs(affine[:3, :3]).sum(axis=1) * (indices.max(axis=0) - indices.min(axis=0)) / 2
    for side in (-1, 1):
        at = centre + np.array([side * 0.5, 1.12, -0.45]) * half
        outside[_distance(places, at) < 12] = eye
    neck = _distance(places[:2], centre[:2] - np.array([0, 0.25 * half[1]])) < 45
    below = (places[2] < centre[2] - 0.75 * half[2]) & neck & (outside == 0)
    outside[below] = 0.7 * scalp
    whole = np.where(brain, image, gaussian_filter(outside, 0.6 / spacing))
    box = bounding_box(whole > 0.02 * scalp, [round(_AIR_MM / spacing)] * 3)
    assert box is not None
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ [span.start for span in box]
    return whole[box], (brain | (depth < _MASK_MM))[box], tissues[box], shifted


def _distance(places: Sequence[NDArray[np.float64]], point: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(places, point, strict=True)))
    return total


def _movement(rng: np.random.Generator, degrees: float, shift_mm: float) -> Matrix:
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    move = np.eye(4)
    move[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    direction = rng.standard_normal(3)
    move[:3, 3] = direction / np.linalg.norm(direction) * rng.uniform(0, shift_mm)
    return move


def _own_grid(rng: np.random.Generator, name: str, moved: Matrix, shape: tuple[int, ...], scanner: Scanner) -> Grid:
    """The grid of a sequence: voxels, orientation and field of view as scanners choose them."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    places = corners @ moved[:3, :3].T + moved[:3, 3]
    if name in scanner.three_d:  # sagittal: rows from front to back, columns downwards, slices from right to left
        directions = np.array([[0, 0, -1.0], [-1.0, 0, 0], [0, -1.0, 0]])
        spacing = np.full(3, scanner.edge_mm)
    else:
        tilt = np.deg2rad(rng.uniform(-12, 12) if name == "t2w" else 0)
        directions = np.array([[-1.0, 0, 0], [0, -np.cos(tilt), -np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]).T
        edge = float(rng.uniform(0.6, 1.0)) * scanner.edge_mm
        spacing = np.array([edge, edge, float(rng.uniform(*scanner.thickness_mm))])
    along = places @ directions
    low, high = along.min(axis=0), along.max(axis=0)
    x, y, z = (int(n) for n in np.ceil((high - low) / spacing) + 1)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = directions @ low
    return Grid((x, y, z), affine)


def _sampled(values: NDArray[np.float32], affine: Matrix, move: Matrix, grid: Grid) -> NDArray[np.float32]:
    """The moved head on a grid; thick slices are the mean over their extent."""
    parts = max(1, round(grid.spacing_mm[2]))
    total = np.zeros(grid.shape, np.float32)
    back = np.linalg.inv(move @ affine)
    for part in range(parts):
        shift = np.eye(4)
        shift[2, 3] = (part + 0.5) / parts - 0.5
        to_index = back @ grid.affine @ shift
        total += affine_transform(
            values, to_index[:3, :3], to_index[:3, 3], output_shape=grid.shape, order=1, mode="constant"
        )
    mean: NDArray[np.float32] = total / np.float32(parts)
    return mean


def _sampled_labels(tissues: NDArray[np.uint8], affine: Matrix, move: Matrix, grid: Grid) -> NDArray[np.uint8]:
    """The tissue that fills most of each voxel of a grid, 0 where tumour fills less than half of it."""
    labels = np.zeros(grid.shape, np.uint8)
    box = bounding_box(tissues != 0)
    if box is None:
        return labels
    # Only where the tumour is: the rest of the grid takes most of the time and stays 0.
    corners = np.array(np.meshgrid(*((span.start, span.stop) for span in box), indexing="ij")).reshape(3, -1)
    to_grid = np.linalg.inv(grid.affine) @ move @ affine
    places = to_grid[:3, :3] @ corners + to_grid[:3, 3:]
    low = np.maximum(np.floor(places.min(axis=1)) - 2, 0).astype(int)
    high = np.minimum(np.ceil(places.max(axis=1)) + 3, grid.shape).astype(int)
    part = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    shifted = grid.affine.copy()
    shifted[:3, 3] += grid.affine[:3, :3] @ low
    x, y, z = (int(size) for size in high - low)
    inside = Grid((x, y, z), shifted)
    shares = np.stack([_sampled((tissues == value).astype(np.float32), affine, move, inside) for value in (1, 2, 3)])
    labels[part] = np.where(shares.sum(axis=0) > 0.5, shares.argmax(axis=0) + 1, 0)
    return labels


def _shading(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A smooth bias field of up to 15 % to either side."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    weights = rng.uniform(-0.08, 0.08, 6)
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    field = 1 + weights[0] * x + weights[1] * y + weights[2] * z
    field = field + weights[3] * x * y + weights[4] * y * z + weights[5] * (x**2 - 1 / 3)
    shaded: NDArray[np.float32] = np.asarray(field, np.float32)
    return shaded
