"""Models of MONAI: a bundle, as a folder or a zip archive, or the weights of a network alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gliomask.errors import InputError, unknown_name
from gliomask.files import refuse_placeholder
from gliomask.foreign.checkpoint import read_checkpoint, to_arrays
from gliomask.foreign.found import Arrays, Found, Hints
from gliomask.foreign.meaning import Labels, given_channels, read_channels, read_classes, read_region_names
from gliomask.foreign.monai_config import CONFIGS, class_of, read_config
from gliomask.foreign.monai_steps import Cutting, Decision, Preparation, read_cutting, read_decision, read_preparation
from gliomask.foreign.source import Files
from gliomask.labels import REGIONS
from gliomask.model.plan import Plan, Postprocessing, RegionRule
from gliomask.model.sampling import Origin, Windows

_METADATA = "configs/metadata.json"
_WEIGHTS = "models/model.pt"
# The keys under which a checkpoint may hold the weights beside other things.
_NESTED = ("state_dict", "model_state_dict", "model", "network", "net", "network_weights")

# The names of MONAI's classes in lower case, without underscores.
_KINDS = {
    name.lower(): name for name in ("SegResNet", "SegResNetDS", "DynUNet", "UNet", "SwinUNETR", "UNETR", "MedNeXt")
}
_DEFAULT_PATCH = (128, 128, 128)


def is_monai(path: Path) -> bool:
    """Return whether a path is a bundle, or a file of weights such as `model.pt`."""
    if path.is_dir():
        return (path / _METADATA).is_file() and any((path / name).is_file() for name in CONFIGS)
    if path.suffix.lower() in (".pt", ".pth"):
        return path.is_file()
    return path.suffix.lower() == ".zip" and path.is_file() and _inside(path) is not None


@dataclass(frozen=True)
class _Parts:
    """What a plan is made of."""

    kind: str
    """The class of the network, as `networks.monai_made` knows it."""
    arguments: dict[str, Any]
    channels: tuple[str, ...]
    labels: Labels
    preparation: Preparation
    decision: Decision
    cutting: Cutting
    made_with: str


def read_monai(path: Path, hints: Hints) -> Found:
    """Return the plan and the weights of a bundle, or of a file of weights with what `hints` say about it.

    Raises:
        InputError: A file is missing, cut short or no data; or the bundle uses something that is not supported, which
            the message names.
    """
    if path.suffix.lower() in (".pt", ".pth"):
        return _read_weights_alone(path, hints)
    files = Files(path, _inside(path) or "") if path.is_file() else Files(path)
    metadata, config = files.json(_METADATA), read_config(files)
    where = files.describe(_METADATA)
    network = f"{config.where}: network_def"
    defined = config.get("network_def", "network")
    if defined is None:
        raise InputError(f"{network} is missing, which describes the network. Is this the file of the bundle?")
    kind, arguments = class_of(defined, network, "monai.networks.nets")
    decision = read_decision(config)
    described = metadata.get("network_data_format")
    channels = _channels(described, hints, where, path)
    labels = _labels(described, hints, decision, where)
    _check_count(arguments, "in_channels", len(channels), network)
    _check_count(arguments, "out_channels", len(labels.classes or labels.regions), network)
    name = f"{metadata.get('name') or path.stem} {metadata.get('version', '')}".strip()
    parts = _Parts(
        _kind(kind, network),
        {key: value for key, value in arguments.items() if key not in ("in_channels", "out_channels")},
        channels,
        labels,
        read_preparation(config),
        decision,
        read_cutting(config),
        f"MONAI bundle {name}",
    )
    plan = _plan(parts, hints, config.where)
    if not files.has(_WEIGHTS):
        raise InputError(f"{files.describe(_WEIGHTS)}: no such file. Is the bundle downloaded completely?")
    used = (_METADATA, next(name for name in CONFIGS if files.has(name)), _WEIGHTS)
    return Found(
        plan,
        partial(_read_weights, files, _WEIGHTS),
        (path,) if files.is_archive else tuple(path / part for part in used),
        {"bundle": name, "metrics": _numbers(metadata.get("eval_metrics"))},
    )


def _read_weights_alone(path: Path, hints: Hints) -> Found:
    """Return a network whose weights are all that there is; everything else is said by the user."""
    if not (hints.network and hints.channels and hints.regions):
        raise _undescribed(path, hints)
    parts = _Parts(
        _kind(hints.network, "--network"),
        {key: value for key, value in hints.arguments.items() if key not in ("in_channels", "out_channels")},
        given_channels(hints.channels, len(hints.channels)),
        _given_regions(hints.regions),
        Preparation(normalization="zscore"),
        Decision(),
        Cutting(Windows(placement="fixed", sigma=None, least_weight=1e-3), hints.patch_size or _DEFAULT_PATCH),
        f"MONAI {hints.network}, weights of {path.name}",
    )
    files = Files(path.parent)
    return Found(_plan(parts, hints, str(path)), partial(_read_weights, files, path.name), (path,), {})


def _undescribed(path: Path, hints: Hints) -> InputError:
    """Return the error for weights of which too little is known, with the whole command to type."""
    refuse_placeholder(path, str(path))
    bundle = path.parent.parent
    if is_monai(bundle):
        return InputError(f"{path}: is the weights of a MONAI bundle. Name the bundle: {bundle}")
    channels, regions = hints.channels or ("t1ce", "t1", "t2", "flair"), hints.regions or ("TC", "WT", "ET")
    return InputError(
        f"{path}: contains weights only. Say what they belong to, such as: gliomask import {path} -o "
        f"imported.safetensors --network {hints.network or 'segresnet'} --channels {','.join(channels)} --regions "
        f"{','.join(regions)} (and the network's arguments with --arguments, if they are not MONAI's own). Then use "
        "imported.safetensors as the model."
    )


def _inside(archive: Path) -> str | None:
    """Return the folder of an archive that holds a bundle, empty for its top; None if there is no bundle in it."""
    names = Files(archive).names()
    for name in names:
        if name == _METADATA or name.endswith(f"/{_METADATA}"):
            return name.removesuffix(_METADATA).rstrip("/")
    return None


def _kind(name: str, where: str) -> str:
    kind = _KINDS.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if kind is None:
        raise InputError(f"{where}: {unknown_name('network of MONAI', name, _KINDS.values())}.")
    return kind


def _definitions(described: Any, side: str, where: str) -> list[str]:
    """Return the name of each channel of the only input or output, in their order."""
    try:
        (part,) = described[side].values()
        named = part["channel_def"]
        return [str(named[key]) for key in sorted(named, key=int)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: has no channel_def of one of the {side} in network_data_format.") from error


def _channels(described: Any, hints: Hints, where: str, model: Path) -> tuple[str, ...]:
    names = _definitions(described, "inputs", where)
    return given_channels(hints.channels, len(names)) if hints.channels else read_channels(names, where, model)


def _labels(described: Any, hints: Hints, decision: Decision, where: str) -> Labels:
    if hints.regions:
        return _given_regions(hints.regions)
    names = _definitions(described, "outputs", where)
    if decision.softmax:
        return read_classes({name: number for number, name in enumerate(names)}, where)
    return Labels(read_region_names(names, where), (), "brats2021")


def _given_regions(names: Sequence[str]) -> Labels:
    regions = tuple(name.strip().upper() for name in names)
    for name in regions:
        if name not in REGIONS:
            raise unknown_name("region", name, REGIONS)
    return Labels(regions, (), "brats2021")


def _check_count(arguments: Mapping[str, Any], name: str, count: int, where: str) -> None:
    if arguments.get(name, count) != count:
        raise InputError(f"{where}: {name} is {arguments[name]}, but the metadata name {count} channels.")


def _plan(parts: _Parts, hints: Hints, where: str) -> Plan:
    rule = RegionRule(threshold=parts.decision.threshold)
    rules = {} if rule == RegionRule() or parts.labels.classes else dict.fromkeys(parts.labels.regions, rule)
    size = parts.cutting.patch_size
    if parts.kind == "UNETR":
        edge = parts.arguments.get("img_size")
        only = (edge,) * 3 if isinstance(edge, int) else tuple(edge) if isinstance(edge, list | tuple) else None
        if only != size:
            raise InputError(f"{where}: UNETR takes images of {only} voxels only, but its windows are of {size}.")
    try:
        return Plan(
            modalities=parts.channels,
            regions=parts.labels.regions,
            classes=parts.labels.classes,
            convention=parts.labels.convention,
            axes=parts.preparation.axes or hints.axes,
            spacing_mm=parts.preparation.spacing_mm,
            channel_normalization=(parts.preparation.normalization,) * len(parts.channels),
            crop=parts.preparation.crop,
            patch_size=size or _DEFAULT_PATCH,
            windows=parts.cutting.windows,
            whole_brain=size is None,
            network="monai",
            network_arguments={"kind": parts.kind, "arguments": parts.arguments},
            postprocessing=Postprocessing(regions=rules),
            origin=Origin(made_with=parts.made_with[:500], license=hints.license, cite=hints.cite),
        )
    except ValueError as error:  # also pydantic's
        raise InputError(f"{where}: cannot be used: {' '.join(str(error).split())[:300]}.") from error


def _read_weights(files: Files, name: str) -> Arrays:
    where = files.describe(name)
    content: Any = read_checkpoint(files.open(name), where)
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    # DynUNet registers its layers a second time, as `skip_layers`.
    weights = {_name(key): value for key, value in content.items() if not _name(key).startswith("skip_layers.")}
    return {f"body.{key}": array for key, array in to_arrays(weights, where).items()}


def _name(key: object) -> str:
    """Return the name of a weight without what parallel training and compilation put before it."""
    return str(key).removeprefix("module.").removeprefix("_orig_mod.")


def _numbers(metrics: Any) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in (metrics.items() if isinstance(metrics, Mapping) else ())
        if isinstance(value, int | float)
    }
