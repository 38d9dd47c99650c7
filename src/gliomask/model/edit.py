"""Changing the plan in a model file; the weights stay the same, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.model.file import ENTRY, is_onnx, read_metadata, read_plan, read_record, read_tensors
from gliomask.model.plan import Plan, plan_to_dict

# The fields of the plan that the weights depend on.
_FIXED_BY_WEIGHTS = ("modalities", "regions", "network", "network_arguments")


def replace_plan(path: Path | str, plan: Plan, target: Path | str) -> None:
    """Write a safetensors model file with another plan, whole or not at all; torch is not needed.

    Args:
        path: A model file.
        plan: The new plan, for the same network, regions and sequences; its other fields may differ, such as
            `postprocessing`.
        target: The file to write; may be `path` itself.

    Raises:
        InputError: The file is missing, damaged, ONNX or not a gliomask model, the plan is for other weights, or the
            target cannot be written.
    """
    path = Path(path)
    if is_onnx(path):
        raise InputError(
            f"{path}: the plan in an ONNX file cannot be changed. Change it in the .safetensors file and export again."
        )
    old = read_plan(path)
    other = [name for name in _FIXED_BY_WEIGHTS if getattr(old, name) != getattr(plan, name)]
    if other:
        raise InputError(f"{path}: its weights are for another plan ({', '.join(other)} differ). Train a model for it.")
    record = json.dumps({**read_record(path), "plan": plan_to_dict(plan)})
    write_bytes(Path(target), save(read_tensors(path), metadata={**read_metadata(path), ENTRY: record}))
