"""Models of nnU-Net v2: a folder that its training wrote, one of its folds, or an exported zip archive."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gliomask.errors import InputError
from gliomask.foreign.checkpoint import read_checkpoint, to_arrays
from gliomask.foreign.found import Arrays, Found, Hints
from gliomask.foreign.meaning import Labels, given_channels, read_channels, read_classes, read_regions
from gliomask.foreign.nnunet_plan import Configuration, read_configuration
from gliomask.foreign.source import Files
from gliomask.model.plan import Plan
from gliomask.model.sampling import Origin, Windows

log = logging.getLogger(__name__)

_OTHER_DATASET = "Is this the dataset.json that it was trained with?"
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_FOLD = re.compile(r"fold_(\d+|all)")

# The first convolution of a plain and of a residual encoder.
_FIRST = ("encoder.stages.0.0.convs.0.conv.weight", "encoder.stem.convs.0.conv.weight")

Shapes = dict[str, tuple[int, ...]]

# nnU-Net weights windows in float16, whose smallest number above zero is 6e-8, relative to a largest weight of 10.
_WINDOWS = Windows(centre="voxel", least_weight=6e-9, mirror_windows=True)


def is_nnunet(path: Path) -> bool:
    """Return whether a path is a model of nnU-Net, of version 1 too: a folder with its plans, a fold or an archive."""
    if path.is_dir():
        names = ("plans.json", "plans.pkl")
        return any((folder / name).is_file() for folder in (path, path.parent) for name in names) and (
            _is_model(path) or _FOLD.fullmatch(path.name) is not None
        )
    if path.suffix.lower() != ".zip" or not path.is_file():
        return False
    return any(PurePosixPath(name).name in ("plans.json", "plans.pkl") for name in Files(path).names())


def read_nnunet(path: Path, hints: Hints) -> Found:
    """Return the plan and the weights of a model of nnU-Net v2.

    A folder stands for the mean of all its folds, as in nnU-Net, `fold_0` for that fold alone.

    Raises:
        InputError: A file is missing, cut short or no data; or the model is one of version 1, of a cascade, or uses
            something else that is not supported, which the message names.
    """
    files, folds = _locate(path, hints)
    checkpoints = _checkpoints(files, folds)
    plans, dataset = files.json("plans.json"), files.json("dataset.json")
    first = _Checkpoint.read(files, checkpoints[0])
    configuration = read_configuration(plans, first.configuration or _named(files), files.describe("plans.json"))
    channels = _channels(dataset, configuration, hints, files.describe("dataset.json"), path)
    labels = _labels(dataset, files.describe("dataset.json"))
    _check_counts(first, len(channels), labels, files.describe("dataset.json"))
    network, arguments = configuration.network, dict(configuration.network_arguments)
    if first.norm is not None:
        arguments["norm"] = first.norm
    if len(checkpoints) > 1:
        arguments = {"members": [[network, arguments]] * len(checkpoints), "shift": False}
        network = "ensemble"
    names = [PurePosixPath(name).parent.name.removeprefix("fold_") for name in checkpoints]
    plan = Plan(
        modalities=channels,
        regions=labels.regions,
        classes=labels.classes,
        convention=labels.convention,
        axes=configuration.axes(hints.axes),
        spacing_mm=configuration.spacing_mm,
        channel_normalization=configuration.normalization,
        resampling=configuration.resampling,
        patch_size=configuration.patch_size,
        windows=_WINDOWS,
        mirror_axes=tuple(axis + configuration.flat for axis in first.mirror_axes),
        network=network,
        network_arguments=arguments,
        origin=Origin(
            made_with=_made_with(plans, first, configuration.name, names)[:500], license=hints.license, cite=hints.cite
        ),
    )
    return Found(
        plan,
        partial(_read_weights, files, tuple(checkpoints), configuration.flat),
        (path,)
        if files.is_archive
        else tuple(files.path / name for name in ("plans.json", "dataset.json", *checkpoints)),
        {
            "folds": names,
            "checkpoint": PurePosixPath(checkpoints[0]).name,
            "dataset": str(plans.get("dataset_name", "")),
        },
    )


def _is_model(folder: Path) -> bool:
    return (folder / "plans.json").is_file() or (folder / "plans.pkl").is_file()


def _locate(path: Path, hints: Hints) -> tuple[Files, str]:
    """Return the files of the model, and the fold that is wanted; empty for all."""
    if path.is_dir():
        folder, fold = (path, "") if _is_model(path) else (path.parent, path.name)
        if not (folder / "plans.json").is_file():
            raise _first_version(path)
        return Files(folder), fold
    inside = [
        str(PurePosixPath(name).parent) for name in Files(path).names() if PurePosixPath(name).name == "plans.json"
    ]
    if not inside:
        raise _first_version(path)
    places = {_configuration_of(place): place for place in inside}
    wanted = hints.configuration or ("3d_fullres" if "3d_fullres" in places else next(iter(places)))
    if wanted not in places:
        raise InputError(f"{path}: has no configuration {wanted!r} (there: {', '.join(places)}).")
    if len(places) > 1 and not hints.configuration:
        log.warning(
            "%s: has %s; %s is used. Choose with gliomask import --configuration.", path, ", ".join(places), wanted
        )
    return Files(path, "" if places[wanted] == "." else places[wanted]), ""


def _first_version(path: Path) -> InputError:
    return InputError(
        f"{path}: is a model of nnU-Net v1. gliomask reads those of nnU-Net v2: train it again there, or use nnU-Net "
        "v1 itself and score its masks with gliomask evaluate."
    )


def _configuration_of(folder: str) -> str:
    return PurePosixPath(folder).name.rpartition("__")[2]


def _named(files: Files) -> str:
    return _configuration_of(files.inside or files.path.name)


def _checkpoints(files: Files, fold: str) -> list[str]:
    """Return the names of the checkpoints that make up the model, those of `fold_all` only if there are no others."""
    names = files.names()
    folds = [name for name in files.folders() if _FOLD.fullmatch(name)]
    if fold:
        folds = [fold]
    elif folds != ["fold_all"]:
        folds = [name for name in folds if name != "fold_all"]
    for checkpoint in _CHECKPOINTS:
        found = [f"{name}/{checkpoint}" for name in folds if f"{name}/{checkpoint}" in names]
        if found:
            missing = [name for name in folds if f"{name}/{checkpoint}" not in names]
            if missing:
                log.warning("%s: %s without %s; the others are used.", files.path, ", ".join(missing), checkpoint)
            return found
    raise InputError(
        f"{files.describe(fold)}: has no {' or '.join(_CHECKPOINTS)} "
        f"({'in ' + ', '.join(folds) if folds else 'no fold_* at all'}). Is the training finished?"
    )


@dataclass(frozen=True)
class _Checkpoint:
    """What a checkpoint says beside its weights."""

    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]
    norm: str | None
    """`batch` if the weights have running statistics; None leaves what the plans say."""
    channels: tuple[int, int] | None
    """The number of channels of its input and output, if the weights have the expected names."""

    @classmethod
    def read(cls, files: Files, name: str) -> _Checkpoint:
        where = files.describe(name)
        content = read_checkpoint(files.open(name), where)
        weights = content.get("network_weights")
        if not isinstance(weights, Mapping):
            raise InputError(f"{where}: contains no network_weights. Is it a checkpoint of nnU-Net v2?")
        arguments = content.get("init_args")
        configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
        axes = content.get("inference_allowed_mirroring_axes")
        valid = isinstance(axes, list | tuple) and all(type(axis) is int and 0 <= axis <= 2 for axis in axes)
        return cls(
            configuration if isinstance(configuration, str) else "",
            str(content.get("trainer_name", ""))[:100],
            tuple(axes) if valid and axes else (),
            "batch" if any(str(key).endswith("running_var") for key in weights) else None,
            _counted(weights),
        )


def _counted(weights: Mapping[Any, Any]) -> tuple[int, int] | None:
    shapes = {_name(key): tuple(getattr(value, "shape", ())) for key, value in weights.items()}
    inputs = next((shapes[name] for name in _FIRST if len(shapes.get(name, ())) > 1), None)
    outputs = shapes.get("decoder.seg_layers.0.weight")
    return (inputs[1], outputs[0]) if inputs and outputs else None


def _check_counts(first: _Checkpoint, channels: int, labels: Labels, where: str) -> None:
    outputs = len(labels.classes or labels.regions)
    if first.channels is not None and first.channels != (channels, outputs):
        raise InputError(
            f"{where}: describes {channels} channels and {outputs} outputs, but the network in the checkpoint has "
            f"{first.channels[0]} and {first.channels[1]}. {_OTHER_DATASET}"
        )


def _channels(
    dataset: Mapping[str, Any], configuration: Configuration, hints: Hints, where: str, model: Path
) -> tuple[str, ...]:
    named = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(named, Mapping) or not named:
        raise InputError(f"{where}: has no channel_names. {_OTHER_DATASET}")
    try:
        names = [str(named[key]) for key in sorted(named, key=int)]
    except ValueError as error:
        raise InputError(f'{where}: channel_names must be numbered, as in {{"0": "T1", "1": "T2"}}.') from error
    if len(names) != len(configuration.normalization):
        raise InputError(
            f"{where}: names {len(names)} channels, but the plans normalize {len(configuration.normalization)}. "
            f"{_OTHER_DATASET}"
        )
    return given_channels(hints.channels, len(names)) if hints.channels else read_channels(names, where, model)


def _labels(dataset: Mapping[str, Any], where: str) -> Labels:
    labels = dataset.get("labels")
    if not isinstance(labels, Mapping) or labels.get("background", 0) != 0:
        raise InputError(f"{where}: must have labels, with 0 for the background. {_OTHER_DATASET}")
    wanted = {str(name): value for name, value in labels.items() if name not in ("background", "ignore")}
    if any(isinstance(value, list) and len(value) > 1 for value in wanted.values()):
        regions = {name: value if isinstance(value, list) else [value] for name, value in wanted.items()}
        if not all(type(value) is int for values in regions.values() for value in values):
            raise _no_numbers(where)
        return read_regions(regions, where)
    single = {name: value[0] if isinstance(value, list) and value else value for name, value in wanted.items()}
    if not all(type(value) is int for value in single.values()):
        raise _no_numbers(where)
    return read_classes({"background": 0, **single}, where)


def _no_numbers(where: str) -> InputError:
    return InputError(
        f'{where}: labels must be whole numbers or lists of them by name, as in {{"background": 0, "edema": 1}}; '
        f"nnU-Net v1 wrote the names by number. {_OTHER_DATASET}"
    )


def _made_with(plans: Mapping[str, Any], first: _Checkpoint, configuration: str, folds: Sequence[str]) -> str:
    names = [first.trainer or "nnUNetTrainer", str(plans.get("plans_name", "nnUNetPlans")), configuration]
    dataset = plans.get("dataset_name")
    of = f" on {dataset}" if dataset else ""
    return f"nnU-Net v2 ({', '.join(names)}), fold {', '.join(folds)}{of}"


def _read_weights(files: Files, checkpoints: Sequence[str], flat: int) -> Arrays:
    found: Arrays = {}
    first: Shapes = {}
    for number, name in enumerate(checkpoints):
        where = files.describe(name)
        weights = read_checkpoint(files.open(name), where).get("network_weights")
        if not isinstance(weights, Mapping):
            raise InputError(f"{where}: contains no network_weights. Is it a checkpoint of nnU-Net v2?")
        prefix = f"members.{number}." if len(checkpoints) > 1 else ""
        arrays = to_arrays({_name(key): value for key, value in weights.items() if _is_wanted(str(key))}, where)
        shapes = {key: value.shape for key, value in arrays.items()}
        if number and shapes != first:
            raise _other_weights(where, checkpoints[0], first, shapes)
        first = shapes
        for key, value in arrays.items():
            found[prefix + key] = value[:, :, None] if flat and value.ndim == 4 else value
    return found


def _other_weights(where: str, other: str, expected: Shapes, found: Shapes) -> InputError:
    """Return the error for a fold whose network is not that of the first one, with a weight that differs."""
    name = min(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    there, here = (" x ".join(map(str, part[name])) if name in part else "missing" for part in (expected, found))
    return InputError(
        f"{where}: its network is not that of {other}: {name} is {here} here and {there} there. Copy the folds of one "
        "training again."
    )


def _is_wanted(name: str) -> bool:
    """Return whether a weight is not there twice: nnU-Net also registers layers as `all_modules` and in the decoder."""
    return ".all_modules." not in name and "decoder.encoder." not in name


def _name(key: object) -> str:
    """Return the name of a weight without what parallel training and compilation put before it."""
    return str(key).removeprefix("module.").removeprefix("_orig_mod.")
