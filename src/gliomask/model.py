"""A model: a plan and its network, in one file that executes nothing when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.networks import build_network
from gliomask.plan import Plan, plan_from_dict, plan_to_dict
from gliomask.version import VERSION

if TYPE_CHECKING:
    from torch import nn

_ENTRY = "gliomask"


@dataclass(frozen=True)
class Model:
    """A plan and the network that was trained for it."""

    plan: Plan
    network: nn.Module
    name: str
    """The file it was loaded from, or what it is called until it is saved."""


def new_model(plan: Plan, *, seed: int = 0, name: str = "untrained") -> Model:
    """Return a model with freshly initialised weights, the same ones for the same seed.

    Raises:
        InputError: The plan's network or an argument of it is unknown, or torch is not installed.
    """
    torch = require_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(plan.network, len(plan.modalities), len(plan.regions), **plan.network_arguments)
    return Model(plan, network, name)


def load_weights(model: Model, path: Path | str) -> None:
    """Fill a model with the weights of another one of its kind, whose sequences may be others.

    What a network does with a sequence that both know goes over to it, wherever it stands in the order. A sequence
    that is new begins with weights of zero: the model starts as the one it comes from, and learns to use it.

    Raises:
        InputError: The file is missing, damaged, or its network is of another shape.
    """
    require_torch()
    from safetensors.torch import load_file

    path = Path(path)
    plan = read_plan(path)
    kinds = [
        f"{name} {getattr(plan, name)!r}, not {getattr(model.plan, name)!r}"
        for name in ("network", "network_arguments", "regions")
        if getattr(plan, name) != getattr(model.plan, name)
    ]
    if kinds:
        raise InputError(f"{path}: its weights are of another kind of network: {'; '.join(kinds)}.")
    before = plan.modalities
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error
    for name, axis in _sequence_axes(model.plan).items():
        old = weights[name].movedim(axis, 0)
        zero = old.new_zeros(old.shape[1:])
        columns = [old[before.index(m)] if m in before else zero for m in model.plan.modalities]
        weights[name] = require_torch().stack(columns, dim=axis)
    try:
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{path}: its weights do not fit its plan ({plan.network}). Was the file put together by hand?"
        ) from error


def save_model(model: Model, path: Path, *, training: Mapping[str, object] | None = None) -> None:
    """Write a model as one safetensors file, whole or not at all: weights as float32, the plan as JSON in the header.

    Args:
        model: The model.
        path: Where to; `.safetensors` by custom. An older file is replaced.
        training: Facts for the record (epoch, scores); kept in the header, never needed to predict.

    Raises:
        InputError: The place cannot be written to, or the disk is full.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.network.state_dict().items()}
    record = {"version": VERSION, "plan": plan_to_dict(model.plan), "training": dict(training or {})}
    # One entry: the library writes several in an order that changes, and the same model shall be the same bytes.
    write_bytes(path, save(tensors, metadata={_ENTRY: json.dumps(record)}))


def load_model(path: Path | str, *, device: str = "cpu") -> Model:
    """Return the model in a file, ready to predict.

    Raises:
        InputError: The file is missing, cut, no model of gliomask's, its weights do not fit its plan, or torch is not
            installed.
    """
    require_torch()
    from safetensors.torch import load_file

    path = Path(path)
    plan = read_plan(path)
    model = new_model(plan, name=str(path))
    try:
        model.network.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise _damaged(path, error) from error
    except RuntimeError as error:
        raise InputError(
            f"{path}: its weights do not fit its plan ({plan.network}). Was the file put together by hand?"
        ) from error
    model.network.eval().to(device)
    return model


def read_plan(path: Path | str) -> Plan:
    """Return the plan in a model file, reading no weight and needing no torch.

    Raises:
        InputError: The file is missing, cut, or no model of gliomask's.
    """
    path = Path(path)
    return plan_from_dict(_record(path).get("plan"), str(path))


def read_training(path: Path | str) -> dict[str, object]:
    """Return the facts about its training that a model file carries; empty where it carries none.

    Raises:
        InputError: As for `read_plan`.
    """
    return dict(_record(Path(path)).get("training", {}))


def require_torch() -> Any:
    """Return the torch module.

    Raises:
        InputError: It is not installed; the message says how to get it.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is not installed, and networks need it: pip install 'gliomask[train]' "
            "(on Linux that brings CUDA; see the README for the CPU build)."
        ) from error
    return torch


def _record(path: Path) -> dict[str, Any]:
    """What `save_model` put into the header."""
    if not path.is_file():
        what = "is a folder; name the model file in it" if path.exists() else "no such model file"
        raise InputError(f"{path}: {what}.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(path, error) from error
    if _ENTRY not in header:
        raise InputError(f"{path}: a safetensors file, but not a gliomask model (no plan in its header).")
    try:
        return dict(json.loads(header[_ENTRY]))
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _sequence_axes(plan: Plan) -> dict[str, int]:
    """Which axis of which weight counts the sequences: the one that grows with them."""
    torch = require_torch()
    with torch.device("meta"):
        one, more = (
            build_network(plan.network, len(plan.modalities) + extra, len(plan.regions), **plan.network_arguments)
            for extra in (0, 1)
        )
    shapes = {name: value.shape for name, value in one.state_dict().items()}
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(shapes[name], value.shape, strict=True)) if a != b)
        for name, value in more.state_dict().items()
        if value.shape != shapes[name]
    }


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a whole model file (cut, damaged or of another kind: {error}). Copy it again.")
