"""What the transforms and the inferer of a MONAI bundle do, translated to the fields of our plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gliomask.errors import InputError
from gliomask.foreign.monai_config import Config, class_of, steps_of
from gliomask.model.choices import ChannelNormalization
from gliomask.model.sampling import Windows

log = logging.getLogger(__name__)

Arguments = Mapping[str, Any]

_MILLIMETRE = (1.0, 1.0, 1.0)

# Transforms that change no intensity of what they are given.
_HARMLESS = frozenset(
    {"LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "CastToTyped", "ConcatItemsd", "DeleteItemsd"}
)
# Transforms after the network that do what is done here anyway: thresholds, the way back and saving.
_AFTERWARDS = frozenset(
    {"CopyItemsd", "EnsureTyped", "Invertd", "Lambdad", "MapLabelValued", "SaveImaged", "ToTensord"}
)
# The arguments of transforms after the network that say how logits become a mask.
_DECIDING = {"Activationsd": frozenset({"sigmoid", "softmax"}), "AsDiscreted": frozenset({"argmax", "threshold"})}


@dataclass(frozen=True)
class Preparation:
    """How images are prepared."""

    normalization: ChannelNormalization = "none"
    axes: str = ""
    """The orientation to which images are turned; empty: they stay as they are stored."""
    spacing_mm: tuple[float, float, float] = _MILLIMETRE
    crop: bool = False


@dataclass(frozen=True)
class Decision:
    """How logits become a mask."""

    softmax: bool = False
    threshold: float = 0.5


@dataclass(frozen=True)
class Cutting:
    """The windows that a network is run in."""

    windows: Windows
    patch_size: tuple[int, int, int] | None
    """None: one pass over the whole image."""


def read_preparation(config: Config) -> Preparation:
    """Return how a bundle prepares images.

    Raises:
        InputError: A transform is not supported; the message names it.
    """
    where = f"{config.where}: preprocessing"
    found = Preparation()
    for name, arguments in steps_of(config.get("preprocessing", "preprocess", "transforms"), where):
        if name in _HARMLESS:
            continue
        if name not in _PREPARING:
            known = ", ".join(sorted({*_PREPARING, *_HARMLESS}))
            raise InputError(f"{where}: {name} is not supported (supported: {known}).")
        found = _PREPARING[name](found, arguments, f"{where}: {name}")
    if found.normalization == "none":
        log.warning("%s: the images are not normalized there; they are used as they are stored.", config.where)
    return found


def read_decision(config: Config) -> Decision:
    """Return how a bundle turns logits into a mask.

    Raises:
        InputError: An argument that decides about the mask is an expression other than a reference or a number, or has
            a value that cannot be used; the message names it.
    """
    where = f"{config.where}: postprocessing"
    found = Decision()
    part = config.get_transforms("postprocessing", "postprocess", arguments=_DECIDING)
    for name, arguments in steps_of(part, where):
        if name == "Activationsd":
            _read_switch(arguments, "sigmoid", where)
            found = replace(found, softmax=_read_switch(arguments, "softmax", where))
        elif name == "AsDiscreted":
            found = replace(found, softmax=found.softmax or _read_switch(arguments, "argmax", where))
            threshold = _first(arguments.get("threshold"))
            if threshold is not None and not _is_number(threshold):
                raise InputError(f"{where}: threshold is {str(threshold)[:80]!r}. Write a number between 0 and 1.")
            found = replace(found, threshold=found.threshold if threshold is None else float(threshold))
        elif name not in _AFTERWARDS:
            log.warning("%s: %s is left out. See gliomask tune for rules of your own.", where, name)
    if not 0 < found.threshold < 1:
        raise InputError(f"{where}: a threshold of {found.threshold} is not between 0 and 1.")
    return found


def _read_switch(arguments: Arguments, name: str, where: str) -> bool:
    """Return whether an argument is true; one that is missing is not."""
    value = _first(arguments.get(name))
    if value not in (None, False, True):
        raise InputError(f"{where}: {name} is {str(value)[:80]!r}. Write true or false.")
    return bool(value)


def _first(value: Any) -> Any:
    """Return the value for the first key, which is the answer of the network, of an argument with one for each key."""
    return (value[0] if value else None) if isinstance(value, list) else value


def read_cutting(config: Config) -> Cutting:
    """Return the windows in which a bundle runs its network.

    Raises:
        InputError: The inferer is not supported, or its windows cannot be used.
    """
    where = f"{config.where}: inferer"
    part = config.get("inferer")
    name, arguments = class_of(part, where, "monai.inferers") if part is not None else ("SimpleInferer", {})
    if name == "SimpleInferer":
        return Cutting(Windows(), None)
    if name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        raise InputError(f"{where}: {name} is not supported (only SlidingWindowInferer and SimpleInferer).")
    edges: Any = arguments.get("roi_size")
    edges = [edges] * 3 if isinstance(edges, int) else edges
    mode = arguments.get("mode", "constant")
    overlap, sigma = arguments.get("overlap", 0.25), arguments.get("sigma_scale", 0.125)
    problems = [
        *(["roi_size is not three whole numbers"] if not _is_size(edges) else []),
        *([f"mode is {mode!r}"] if mode not in ("constant", "gaussian") else []),
        *([f"overlap is {overlap!r}"] if not (_is_number(overlap) and 0 <= overlap < 1) else []),
        *([f"sigma_scale is {sigma!r}"] if not (_is_number(sigma) and sigma > 0) else []),
        *(["padding_mode is not constant"] if arguments.get("padding_mode", "constant") != "constant" else []),
        *(["cval is not 0"] if arguments.get("cval", 0) != 0 else []),
    ]
    if problems:
        raise InputError(f"{where}: {'; '.join(problems)}, which is not supported.")
    windows = Windows(
        overlap=overlap, placement="fixed", sigma=sigma if mode == "gaussian" else None, least_weight=1e-3
    )
    if min(edges) <= 0:  # in MONAI the size of the image along this axis
        return Cutting(windows, None)
    return Cutting(windows, (edges[0], edges[1], edges[2]))


def _is_size(edges: Any) -> bool:
    return isinstance(edges, Sequence) and len(edges) == 3 and all(type(edge) is int for edge in edges)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _normalize(found: Preparation, arguments: Arguments, where: str) -> Preparation:
    """MONAI's NormalizeIntensityd: z-scores over the non-zero voxels, or over all of the image."""
    unsupported = [name for name in ("subtrahend", "divisor") if arguments.get(name) is not None]
    if unsupported:
        raise InputError(f"{where} with {', '.join(unsupported)} is not supported.")
    if not arguments.get("channel_wise", False):
        raise InputError(f"{where} without channel_wise is not supported: it normalizes all sequences together.")
    if found.normalization != "none":
        raise InputError(f"{where} is there twice.")
    return replace(found, normalization="zscore" if arguments.get("nonzero", False) else "zscore_box")


def _turn(found: Preparation, arguments: Arguments, where: str) -> Preparation:
    axes = arguments.get("axcodes")
    if not isinstance(axes, str) or len(axes) != 3:
        raise InputError(f"{where}: axcodes must be three letters, such as RAS.")
    return replace(found, axes=axes.upper())


def _space(found: Preparation, arguments: Arguments, where: str) -> Preparation:
    spacing = arguments.get("pixdim")
    spacing = [spacing] * 3 if _is_number(spacing) else spacing
    if not isinstance(spacing, Sequence) or len(spacing) != 3 or not all(map(_is_number, spacing)):
        raise InputError(f"{where}: pixdim must be three numbers, in millimetres.")
    mode = arguments.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, list) and mode else mode
    if mode != "bilinear":
        raise InputError(f"{where} with the mode {mode!r} is not supported (only bilinear).")
    return replace(found, spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])))


def _crop(found: Preparation, arguments: Arguments, where: str) -> Preparation:
    """MONAI's CropForegroundd: to the box of all voxels above zero."""
    others = sorted(set(arguments) - {"keys", "source_key", "allow_smaller", "margin", "allow_missing_keys"})
    if others or arguments.get("margin", 0) not in (0, [0, 0, 0]):
        raise InputError(f"{where} with {', '.join(others) or 'a margin'} is not supported.")
    if found.normalization == "zscore_box":
        raise InputError(f"{where} after a normalization of all voxels is not supported.")
    return replace(found, crop=True)


_PREPARING: Mapping[str, Callable[[Preparation, Arguments, str], Preparation]] = {
    "CropForegroundd": _crop,
    "NormalizeIntensityd": _normalize,
    "Orientationd": _turn,
    "Spacingd": _space,
}
