"""Reading PyTorch checkpoints without executing anything that is in them."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, is_lack_of_memory
from gliomask.extras import install_command
from gliomask.files import refuse_placeholder

# What PyTorch says when a checkpoint names something that is not allowed.
_UNWANTED = re.compile(r"(?:GLOBAL |allowlist this global.*?|Trying to (?:instantiate|call)[^\w]*)([\w.]+(?:\.[\w]+)+)")
# What it says of a pickle that it cannot follow, after the advice to load it all the same.
_UNREADABLE = re.compile(r"WeightsUnpickler error:\s*([^\n]{1,200})")
# What PyTorch raises for files that are cut short or damaged, and where memory is exhausted.
_FAILURES = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, MemoryError)
_SAVE = "Save the weights alone where you trust the file: torch.save({'network_weights': network.state_dict()}, FILE)."


def read_checkpoint(file: Path | io.BytesIO, where: str) -> dict[str, Any]:
    """Return the content of a `.pth` or `.pt` file, with tensors on the CPU.

    Only tensors, plain values and NumPy's numbers are read. Anything else that a pickle can name could execute code and
    is refused.

    Args:
        file: Its path or content.
        where: Its path for messages.

    Raises:
        InputError: PyTorch is not installed, or the file is cut short, is a git-lfs pointer, or contains anything but
            data or no mapping; or the memory is not sufficient.
    """
    torch = _torch()
    refuse_placeholder(file if isinstance(file, Path) else file.getvalue(), where)
    options = {"mmap": True} if isinstance(file, Path) and zipfile.is_zipfile(file) else {}
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numbers()):
            warnings.simplefilter("ignore")  # about the age of the format
            found = torch.load(file, map_location="cpu", weights_only=True, **options)
    except pickle.UnpicklingError as error:
        raise _refused(where, str(error)) from error
    except _FAILURES as error:
        if is_lack_of_memory(error):
            raise InputError(f"{where}: not enough memory to read it. Close other programs.") from error
        raise _damaged(where, error) from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: contains a {type(found).__name__}, not a mapping with weights.")
    return found


def to_arrays(weights: Mapping[str, Any], where: str) -> dict[str, NDArray[Any]]:
    """Return tensors as arrays: floating-point numbers as float32, others as they are.

    Raises:
        InputError: A value is no tensor, or has numbers that are NaN or infinite.
    """
    torch = _torch()
    arrays = {}
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{where}: {str(name)[:100]} is no tensor.")
        array = (value.float() if value.is_floating_point() else value).detach().contiguous().numpy().copy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{where}: weights of {name[:100]} are NaN or infinite.")
        arrays[name] = array
    return arrays


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"reading a PyTorch checkpoint needs PyTorch: {install_command('train')}. Or import the model where it is "
            "installed (gliomask import); the resulting file needs no PyTorch."
        ) from error
    return torch


def _numbers() -> list[Any]:
    """Return what a checkpoint may name beside PyTorch's own types: NumPy's numbers, in which scores are stored."""
    from numpy.dtypes import BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType

    core = np._core.multiarray  # type: ignore[attr-defined]
    scalar = core.scalar
    return [
        np.dtype,
        *(BoolDType, Float16DType, Float32DType, Float64DType, Int32DType, Int64DType),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]


def _refused(where: str, said: str) -> InputError:
    """Return the error for a pickle that PyTorch does not read as data."""
    unwanted = _UNWANTED.search(said)
    if unwanted is not None:
        return InputError(
            f"{where}: names {unwanted[1]}, which is no data and could execute code. Such a file is not loaded. {_SAVE}"
        )
    reason = _UNREADABLE.search(said)
    return InputError(
        f"{where}: cannot be read as data only{f' ({reason[1].strip()})' if reason else ''}: it is damaged, or holds "
        f"what could execute code. Such a file is not loaded. Copy it again. {_SAVE}"
    )


def _damaged(where: str, error: Exception) -> InputError:
    first = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return InputError(
        f"{where}: no whole checkpoint: it is cut short, damaged or of another kind ({first[:200]}). Copy it again."
    )
