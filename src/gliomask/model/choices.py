"""Named choices that a plan, an engine and the options of training have in common."""

from __future__ import annotations

import re
from typing import Literal

from gliomask.errors import InputError

Normalization = Literal["zscore", "minmax"]
"""How the intensities of each sequence are normalized; see `inference.preprocessing`."""
ChannelNormalization = Literal["zscore", "minmax", "zscore_brain", "zscore_box", "rescale", "none"]
"""How the intensities of one sequence are normalized; see `Plan.channel_normalization`."""
Precision = Literal["auto", "bf16", "fp16", "fp32"]
"""The floating-point type a network computes in. `auto`: bf16 where the processor computes in it, else fp32."""


def check_device_name(device: str) -> None:
    """Refuse a device that PyTorch would not know either, also where PyTorch is not installed.

    Raises:
        InputError: The name is none of `auto`, `cpu`, `mps`, `cuda`, `cuda:0`, `cuda:1` and so on.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", device):
        hint = "; did you mean 'cuda'?" if device.lower().startswith(("gpu", "cud", "nvidia")) else ""
        raise InputError(f"unknown device {device!r}{hint} (known: auto, cpu, cuda, cuda:0, mps).")
