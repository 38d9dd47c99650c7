"""gliomask export: write a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import clear_stale, out

EXAMPLES = """
**Examples**

`gliomask export -m run/best.safetensors -o model.onnx`

Use the exported model, which needs no PyTorch:

`gliomask predict -m model.onnx -i PATIENTS -o predictions`
"""


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file, ending in .onnx.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "-m", "--model", help="RUN/best.safetensors, or a model of nnU-Net or MONAI; default: the built-in one."
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half/--full", help="Store weights in 16 bits or in 32; computing uses 32.")
    ] = True,
) -> None:
    """Write a model as ONNX, with its plan and training record, so that it predicts without PyTorch."""
    from gliomask.foreign import find_model, read_training
    from gliomask.inference.loading import load_torch_model, require_torch
    from gliomask.model.file import SHIPPED

    clear_stale(output)
    require_torch()
    from gliomask.inference.onnx_export import export_model

    path = find_model(model)
    loaded = load_torch_model(path, name=SHIPPED if model is None else None)
    fixed = export_model(loaded, output, training=read_training(path), half=half)
    sizes = "images of any size" if fixed is None else f"windows of {' x '.join(map(str, fixed))} voxels only"
    out.print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, for {sizes}")
