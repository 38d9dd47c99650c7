"""Model files, safetensors or ONNX: plan, training record and weights, read without torch and OpenVINO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from gliomask.errors import InputError, is_lack_of_memory
from gliomask.files import refuse_placeholder
from gliomask.model.plan import Plan, plan_from_dict, plan_to_dict
from gliomask.version import VERSION

Bits = Literal[8, 16, 32]

ENTRY = "gliomask"
"""The key of the only entry in a model file's metadata; its value is the record as JSON."""

SHIPPED = "gliomask/default"
"""The name of the model inside the package, in messages and in the JSON of a prediction."""

SCALE = ".scale"
"""The suffix of the tensor that holds the scales of a kernel stored in 8 bits, one for each output channel."""

_METADATA_FIELD = 14  # the number of `ModelProto.metadata_props` in onnx.proto

# More nesting than any record has; deeper JSON would exhaust the stack of the programs that read it.
_DEEPEST_NESTING = 50


def find_model(path: Path | str | None) -> Path:
    """Return the path, or for None that of the model inside the package.

    Raises:
        InputError: This copy of the package has no model inside.
    """
    if path is not None:
        return Path(path)
    shipped = Path(str(files("gliomask"))) / "weights" / "default.safetensors"
    if not shipped.is_file():
        raise InputError(
            "this copy of gliomask has no model inside. Name a model file with -m or gliomask.load_model(PATH); "
            "gliomask train makes one."
        )
    return shipped


def is_onnx(path: Path) -> bool:
    """Return whether a model file is ONNX, by its name; all other files are taken for safetensors."""
    return path.suffix.lower() == ".onnx"


def read_plan(path: Path | str | None = None) -> Plan:
    """Return the plan in a model file without reading weights; without a path that of the model inside the package.

    Raises:
        InputError: The file is missing, damaged, or not a gliomask model.
    """
    path = find_model(path)
    return plan_from_dict(read_record(path).get("plan"), str(path))


def read_training(path: Path | str | None = None) -> dict[str, object]:
    """Return the facts about its training that a model file holds; empty if it holds none.

    Raises:
        InputError: As for `read_plan`.
    """
    return dict(read_record(find_model(path))["training"])


def read_record(path: Path) -> dict[str, Any]:
    """Return the record that `make_record` made for a model file, with at least the mapping `training`.

    Raises:
        InputError: As for `read_plan`.
    """
    text = read_metadata(path).get(ENTRY)
    if text is None:
        raise InputError(f"{path}: not a gliomask model: its metadata holds no plan.")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(record, dict) or not isinstance(record.setdefault("training", {}), dict):
        raise damaged(path, ValueError("its record is not a mapping"))
    if _is_nested_deeper(record, _DEEPEST_NESTING):
        raise damaged(path, ValueError("its record is nested too deeply"))
    return record


def read_metadata(path: Path) -> dict[str, str]:
    """Return all entries of a model file's metadata.

    Raises:
        InputError: The file is missing, or damaged before or in its metadata.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a model file' if path.exists() else 'no such model file'}.")
    try:
        refuse_placeholder(path, str(path))
        return _onnx_metadata(path) if is_onnx(path) else _safetensors_metadata(path)
    except (SafetensorError, ValueError, IndexError, OSError) as error:
        raise damaged(path, error) from error


def make_record(plan: Plan, training: Mapping[str, object] | None, **more: object) -> dict[str, str]:
    """Return a model file's metadata: the version, the plan and the training record as one entry of JSON.

    It is one entry because safetensors writes several entries in varying order, and the same model should give the same
    bytes.
    """
    record = {"version": VERSION, "plan": plan_to_dict(plan), "training": dict(training or {}), **more}
    return {ENTRY: json.dumps(record)}


def model_digest(path: Path) -> str:
    """Return the SHA-256 of a model file in hexadecimal digits.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error


@lru_cache(maxsize=16)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """Return the SHA-256 of a file, computed once for a path, size and time of change."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Return the weights in a safetensors file by name, as float32 however they are stored; integers stay integers.

    Raises:
        InputError: The file is damaged, or holds weights that are NaN or infinite.
    """
    stored = read_tensors(path)
    packed = [name for name, value in stored.items() if value.dtype == np.int8 and f"{name}{SCALE}" in stored]
    scales = {f"{name}{SCALE}": stored.pop(f"{name}{SCALE}") for name in packed}
    try:
        weights = {name: _unpacked(value, scales.get(f"{name}{SCALE}")) for name, value in stored.items()}
    except ValueError as error:
        raise damaged(path, error) from error
    for name, value in weights.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise damaged(path, ValueError(f"weights of {name} are NaN or infinite"))
    return weights


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in a safetensors file as they are stored.

    Raises:
        InputError: The file is damaged, or has tensors of a type that NumPy does not know, such as bfloat16.
    """
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, OSError, MemoryError) as error:
        if is_lack_of_memory(error):
            raise InputError(f"{path}: not enough memory to read it. Close other programs.") from error
        raise damaged(path, error) from error


def pack(name: str, value: NDArray[Any], bits: Bits) -> dict[str, NDArray[Any]]:
    """Return the tensors by which a weight is stored, by name.

    With 16 or 8 bits only kernels are converted: weights with one number for each channel take little space, and
    variances may exceed the range of float16. With 8 bits each output channel has a scale of its own, so that its
    largest weight is stored as 127 and the rounding error is at most 1/254 of that weight.
    """
    if bits == 32 or value.ndim < 2 or value.dtype.kind != "f":
        return {name: value}
    if bits == 16:
        return {name: value.astype(np.float16)}
    largest = np.abs(value).reshape(len(value), -1).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {name: np.rint(value / _by_channel(scale, value.ndim)).astype(np.int8), f"{name}{SCALE}": scale}


def _unpacked(value: NDArray[Any], scale: NDArray[Any] | None) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # infinite weights are refused by the caller
        if scale is None:
            return value.astype(np.float32) if value.dtype.kind == "f" else value
        if value.ndim < 2 or scale.shape != value.shape[:1]:
            raise ValueError(f"{scale.shape} scales for a kernel of {value.shape}")
        value = value.astype(np.float32)
        value *= _by_channel(scale, value.ndim)
    return value


def _by_channel(scale: NDArray[Any], axes: int) -> NDArray[Any]:
    """Return one number for each output channel, shaped to be multiplied with a kernel."""
    return scale.reshape(-1, *[1] * (axes - 1))


def misfit(path: Path, plan: Plan) -> InputError:
    """Return the error for a file whose weights are not those of the network in its plan."""
    return InputError(
        f"{path}: its weights do not fit its plan ({plan.network}). Was it assembled from parts of "
        "several models? Copy it again."
    )


def damaged(path: Path, error: Exception) -> InputError:
    """Return the error for a file that is cut short, damaged, or no model file."""
    return InputError(
        f"{path}: not a whole model file: it is cut short, damaged or of another kind ({str(error)[:500]}). "
        "Copy it again."
    )


def _is_nested_deeper(value: object, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(parts) and (levels == 0 or any(_is_nested_deeper(part, levels - 1) for part in parts))


def _safetensors_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _onnx_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, a protobuf message: a sequence of numbered fields."""
    found = {}
    for number, value in _fields(memoryview(path.read_bytes())):
        if number == _METADATA_FIELD:
            entry = {part: bytes(text).decode() for part, text in _fields(value)}
            found[entry.get(1, "")] = entry.get(2, "")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a protobuf message that have a length: strings, bytes, messages.

    Raises:
        ValueError: The content is not a protobuf message, or is cut short.
        IndexError: The message ends within a number.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError(f"field {number} is cut short")
            yield number, message[position : position + length]
            position += length
        elif kind == 0:
            _, position = _varint(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} has an unknown type")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return an integer stored in groups of seven bits, the least significant first, and the position after it.

    Raises:
        ValueError: It has more than the 64 bits that protobuf allows.
    """
    value = shift = 0
    while shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise ValueError("an integer has more than 64 bits")
