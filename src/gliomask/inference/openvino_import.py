"""OpenVINO, imported without its telemetry.

Importing `openvino` imports its model converter, which reports the import to a statistics service of its developers if
the package `openvino_telemetry` is installed. gliomask sends nothing over the network, so that package is hidden here
while `openvino` is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    loaded = package in sys.modules
    if not loaded:
        sys.modules[package] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        if not loaded:
            del sys.modules[package]


with _hidden("openvino_telemetry"):
    import openvino
    from openvino import opset13

__all__ = ["openvino", "opset13"]
