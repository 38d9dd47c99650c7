"""OpenVINO, imported in such a way that it sends nothing.

Importing `openvino` imports its converter, which tells its makers' statistics service that it was imported, if the
package `openvino_telemetry` is to be found. No part of gliomask talks to the network, so here it is not to be found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _not_to_be_found(package: str) -> Iterator[None]:
    there = package in sys.modules
    if not there:
        sys.modules[package] = None  # type: ignore[assignment]  # importing it fails, as it does where it is missing
    try:
        yield
    finally:
        if not there:
            del sys.modules[package]


with _not_to_be_found("openvino_telemetry"):
    import openvino
    from openvino import opset13

__all__ = ["openvino", "opset13"]
