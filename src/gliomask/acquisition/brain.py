"""Brain extraction: where the brain is in an image of a whole head."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from gliomask.acquisition.brain_network import build_brain_graph
from gliomask.errors import InputError
from gliomask.inference.openvino_import import openvino
from gliomask.volume import Volume, reorient

Mask = NDArray[np.bool_]

_COARSE, _FINE = 128, 256  # voxels along each edge of what the two networks see
_MARGIN = 0.1  # of the brain's box, on each side
_FILLED = 0.02  # a plane belongs to the brain's box when more of it than this is brain
_LEAST_ML, _MOST_ML = 700.0, 2200.0  # adult brains, with what a tumour adds


def extract_brain(head: Volume, *, threads: int | None = None) -> Mask:
    """Return the mask `(X, Y, Z)` of the brain in the first channel of an image with a skull.

    A first network finds the brain's box in the whole image at 128 x 128 x 128, a second one the brain inside it at
    256 x 256 x 256; the voxel size does not matter. The largest connected piece is kept and its holes are filled.
    The networks are deepbet's; see `brain_network`.

    Raises:
        InputError: The networks are not part of this installation, or no brain is found.
    """
    oriented = reorient(Volume(head.data[:1], head.affine), "RAS")
    image = np.nan_to_num(np.asarray(oriented.data[0], np.float32))
    small = _resized(image, (_COARSE,) * 3)
    low, high = np.quantile(small, [0.005, 0.995])
    if high <= low:
        raise InputError("no brain was found: the image has one intensity only.")
    coarse = largest_piece(_run("bbox", _normalized(small, low, high), threads) > 0.5)
    box = _box(coarse, image.shape)
    fine = _run("brain", _normalized(_resized(image[box], (_FINE,) * 3), low, high), threads)
    mask = np.zeros(image.shape, bool)
    inside = image[box].shape
    mask[box] = binary_fill_holes(largest_piece(_resized(fine, inside) > 0.5))
    found: Mask = reorient(Volume(mask[None], oriented.affine), head.grid.axes).data[0]
    return found


def release_networks() -> None:
    """Free the memory of the networks, more than 1 GB once they have run; `extract_brain` loads them again."""
    _compiled.cache_clear()
    _weights.cache_clear()


def largest_piece(mask: Mask) -> Mask:
    """Return the largest 26-connected piece of a mask.

    Raises:
        InputError: The mask is empty.
    """
    kept: Mask = cc3d.largest_k(mask, k=1, connectivity=26) > 0
    if not kept.any():
        raise InputError("no brain was found. Is this a whole head in MRI?")
    return kept


def implausible_volume(volume_ml: float) -> str | None:
    """Return a warning about a brain mask that is too small or too large for an adult's brain, else None."""
    if _LEAST_ML <= volume_ml <= _MOST_ML:
        return None
    return (
        f"the brain mask holds {volume_ml:.0f} mL; an adult's brain has {_LEAST_ML:.0f} to {_MOST_ML:.0f} mL. "
        "Look at it, and give a mask of your own with --skull-strip FILE if it is wrong."
    )


def _run(name: str, image: NDArray[np.float32], threads: int | None) -> NDArray[np.float32]:
    answer: NDArray[np.float32] = _compiled(name, image.shape[0], threads)(image[None, None])[0][0, 0]
    return answer


@cache
def _compiled(name: str, edge: int, threads: int | None) -> Any:
    # float32: in bfloat16 the mask of a head changes by more than the networks' own error.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
        settings["ENABLE_CPU_PINNING"] = False  # else several processes keep to the same cores
    weights = {key.partition(".")[2]: value for key, value in _weights().items() if key.startswith(f"{name}.")}
    return openvino.Core().compile_model(build_brain_graph(weights, edge), "CPU", settings)


@cache
def _weights() -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load_file

    path = Path(str(files("gliomask"))) / "acquisition" / "assets" / "brain.safetensors"
    if not path.is_file():
        raise InputError(
            "brain extraction is not part of this installation: its networks could not be fetched when gliomask was "
            "built. Install it again with a network, or give a brain mask with --skull-strip FILE."
        )
    return {name: value.astype(np.float32) for name, value in load_file(path).items()}


def _resized(data: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Take the nearest voxel for each of the new grid's, whose outer faces are those of the old one."""
    for axis, (old, new) in enumerate(zip(data.shape, shape, strict=True)):
        data = data.take(((np.arange(new) + 0.5) * old / new).astype(int), axis=axis)
    return data


def _normalized(image: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    scaled = ((image - low) / (high - low)).clip(0, 1)
    # The mean and deviation with which the networks were trained.
    result: NDArray[np.float32] = (0.226 * (scaled - scaled.mean()) / scaled.std(ddof=1) + 0.449).astype(np.float32)
    return result


def _box(coarse: Mask, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """The box around the brain in a grid of `shape`, with a margin."""
    spans = []
    for axis, size in enumerate(shape):
        share = np.moveaxis(coarse, axis, 0).reshape(coarse.shape[axis], -1).mean(axis=1)
        inside = np.flatnonzero(share > _FILLED)
        if not len(inside):
            raise InputError("no brain was found. Is this a whole head in MRI?")
        first, last = inside[0], inside[-1] + 1
        scale = size / coarse.shape[axis]
        centre, length = round((first + last) / 2 * scale), round((last - first) * scale * (1 + 2 * _MARGIN))
        spans.append(slice(max(0, int(centre - length / 2)), min(size, int(centre + length / 2))))
    return spans[0], spans[1], spans[2]
