"""Named choices that a plan, an engine and the options of training have in common."""

from __future__ import annotations

from typing import Literal

Normalization = Literal["zscore", "minmax"]
"""How the intensities of each sequence are normalized; see `inference.preprocessing`."""
Precision = Literal["auto", "bf16", "fp16", "fp32"]
"""The floating-point type a network computes in. `auto`: bf16 where the processor computes in it, else fp32."""
