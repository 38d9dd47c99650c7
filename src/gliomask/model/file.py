"""What is in a model file, safetensors or ONNX: plan, training record, weights; read without torch and OpenVINO."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from gliomask.errors import InputError
from gliomask.model.plan import Plan, plan_from_dict, plan_to_dict
from gliomask.version import VERSION

Bits = Literal[8, 16, 32]

ENTRY = "gliomask"
"""The one entry in a model file's metadata; its value is the record as JSON."""

SHIPPED = "gliomask/default"
"""What the model inside the package is called in facts and messages."""

SCALE = ".scale"
"""What is added to the name of a kernel stored in 8 bits to name its scales, one for each channel that comes out."""

_METADATA_FIELD = 14  # ModelProto.metadata_props, in onnx.proto


def find_model(path: Path | str | None) -> Path:
    """Return the path, or for None that of the model inside the package.

    Raises:
        InputError: There is none inside this copy.
    """
    if path is not None:
        return Path(path)
    shipped = Path(str(files("gliomask"))) / "weights" / "default.safetensors"
    if not shipped.is_file():
        raise InputError(
            "this copy of gliomask has no model inside. Name one with -m, or gliomask.load_model(PATH); "
            "gliomask train makes one."
        )
    return shipped


def is_onnx(path: Path) -> bool:
    """Tell by its name whether a model file is ONNX; all others are safetensors."""
    return path.suffix.lower() == ".onnx"


def read_plan(path: Path | str | None = None) -> Plan:
    """Return the plan in a model file, reading no weight; without a path, that of the model inside the package.

    Raises:
        InputError: The file is missing, cut, or no model of gliomask's.
    """
    path = find_model(path)
    return plan_from_dict(read_record(path).get("plan"), str(path))


def read_training(path: Path | str | None = None) -> dict[str, object]:
    """Return the facts about its training that a model file carries; empty where it carries none.

    Raises:
        InputError: As for `read_plan`.
    """
    return dict(read_record(find_model(path)).get("training", {}))


def read_record(path: Path) -> dict[str, Any]:
    """Return what `make_record` described, as the file has it.

    Raises:
        InputError: As for `read_plan`.
    """
    if not path.is_file():
        what = "is a folder; name the model file in it" if path.exists() else "no such model file"
        raise InputError(f"{path}: {what}.")
    try:
        metadata = _onnx_metadata(path) if is_onnx(path) else _safetensors_metadata(path)
    except (SafetensorError, ValueError, IndexError) as error:
        raise damaged(path, error) from error
    if ENTRY not in metadata:
        raise InputError(f"{path}: no gliomask model (no plan in its metadata).")
    try:
        return dict(json.loads(metadata[ENTRY]))
    except (TypeError, ValueError) as error:
        raise damaged(path, error) from error


def make_record(plan: Plan, training: Mapping[str, object] | None, **more: object) -> dict[str, str]:
    """Return a model file's metadata: the version, the plan and the training record as one entry of JSON.

    One entry: safetensors writes several in an order that changes, and the same model shall be the same bytes.
    """
    record = {"version": VERSION, "plan": plan_to_dict(plan), "training": dict(training or {}), **more}
    return {ENTRY: json.dumps(record)}


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the weights in a safetensors file by name, as float32 however they are stored; counters as they are.

    Raises:
        InputError: The file is cut or damaged.
    """
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise damaged(path, error) from error
    packed = [name for name, value in stored.items() if value.dtype == np.int8 and f"{name}{SCALE}" in stored]
    scales = {f"{name}{SCALE}": stored.pop(f"{name}{SCALE}") for name in packed}
    try:
        return {name: _unpacked(value, scales.get(f"{name}{SCALE}")) for name, value in stored.items()}
    except ValueError as error:
        raise damaged(path, error) from error


def pack(name: str, value: NDArray[Any], bits: Bits) -> dict[str, NDArray[Any]]:
    """Return what is stored of a weight, by name.

    In 16 or 8 bits kernels alone are: what is one number a channel weighs little, and variances may be out of
    float16's range. In 8 bits each channel that comes out has a scale of its own, so that the largest of its weights is
    127: what is lost is at most a 254th of that one.
    """
    if bits == 32 or value.ndim < 2 or value.dtype.kind != "f":
        return {name: value}
    if bits == 16:
        return {name: value.astype(np.float16)}
    largest = np.abs(value).reshape(len(value), -1).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {name: np.rint(value / _broad(scale, value.ndim)).astype(np.int8), f"{name}{SCALE}": scale}


def _unpacked(value: NDArray[Any], scale: NDArray[Any] | None) -> NDArray[Any]:
    if scale is not None:
        value = value.astype(np.float32)
        value *= _broad(scale, value.ndim)
        return value
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _broad(scale: NDArray[Any], axes: int) -> NDArray[Any]:
    """One number for each channel that comes out, ready to be multiplied with a kernel."""
    return scale.reshape(-1, *[1] * (axes - 1))


def misfit(path: Path, plan: Plan) -> InputError:
    """Return the error of a file whose weights are not those of the network in its plan."""
    return InputError(f"{path}: its weights do not fit its plan ({plan.network}). Was the file put together by hand?")


def damaged(path: Path, error: Exception) -> InputError:
    """Return the error of a file that is cut, damaged or something else."""
    return InputError(f"{path}: not a whole model file (cut, damaged or of another kind: {error}). Copy it again.")


def _safetensors_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _onnx_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, which is a protobuf message: numbered fields one after the other."""
    found = {}
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == _METADATA_FIELD:
            entry = {part: bytes(text).decode() for part, text in _fields(value)}
            found[entry.get(1, "")] = entry.get(2, "")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message that have a length: strings, bytes, messages within it; others are passed over.

    Raises:
        ValueError: It is none, or cut.
        IndexError: It ends within a number.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError(f"field {number} is cut short")
            yield number, message[place : place + length]
            place += length
        elif kind == 0:
            _, place = _varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} is of no known kind")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, the least first, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return value, place
