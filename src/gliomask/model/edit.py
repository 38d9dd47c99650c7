"""Another plan in a model file: its weights stay as they are, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.model.file import is_onnx, read_plan
from gliomask.model.plan import Plan, plan_to_dict

# What the weights were made for.
_OF_THE_WEIGHTS = ("modalities", "regions", "network", "network_arguments")


def replace_plan(path: Path | str, plan: Plan, target: Path | str) -> None:
    """Write a model file with another plan, whole or not at all; no weight is read and torch is not needed.

    Args:
        path: A model file.
        plan: With the same network, regions and sequences; of its post-processing, say, nothing need be the same.
        target: Where to; may be `path` itself.

    Raises:
        InputError: The file is missing or no model of gliomask's, the plan is for other weights, or the target cannot
            be written to.
    """
    path = Path(path)
    if is_onnx(path):
        raise InputError(
            f"{path}: of ONNX the plan stays as it is; give the .safetensors another one, and export again."
        )
    old = read_plan(path)
    other = [name for name in _OF_THE_WEIGHTS if getattr(old, name) != getattr(plan, name)]
    if other:
        raise InputError(f"{path}: its weights are for another plan ({', '.join(other)} differ). Train a model for it.")
    content = path.read_bytes()
    # A safetensors file: the header's length (8 bytes, little endian), the header as JSON, then the weights.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entries: dict[str, Any] = header["__metadata__"]
    record = json.loads(entries["gliomask"])
    entries["gliomask"] = json.dumps({**record, "plan": plan_to_dict(plan)})
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # weights begin at a multiple of 8, as the format asks
    write_bytes(Path(target), len(text).to_bytes(8, "little") + text + content[8 + length :])
