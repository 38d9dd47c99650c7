"""gliomask join: write several models as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import out
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

`gliomask join cv/fold*/best.safetensors -o cv.safetensors`

Store the weights in 8 bits, a quarter of the bytes:

`gliomask join a.safetensors b.safetensors -o both.safetensors --bits 8`

`gliomask predict -m cv.safetensors -i PATIENTS -o predictions`
"""


def join(
    models: Annotated[list[Path], typer.Argument(help="Two or more models, .safetensors or of nnU-Net or MONAI.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file, ending in .safetensors.")],
    bits: Annotated[int, typer.Option("--bits", help="Bits per stored weight: 32, 16 or 8.")] = 32,
) -> None:
    """Write several models as one that predicts their mean, such as the folds of a cross-validation."""
    from gliomask.files import check_writable
    from gliomask.foreign import read_training
    from gliomask.inference.loading import require_torch, save_model

    if bits not in (8, 16, 32):
        raise InputError(f"--bits {bits}: choose 8, 16 or 32.")
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: name the file with the ending .safetensors.")
    require_torch()
    check_writable(output.parent)
    from gliomask.inference.ensembling import join_models

    model = join_models(models)
    training = {"joined": [read_training(path) for path in models]}
    save_model(model, output, training=training, bits=bits)  # type: ignore[arg-type]
    members = ", ".join(name for name, _ in model.plan.network_arguments["members"])
    out.print(f"{output}: {members}; {output.stat().st_size / 1e6:.1f} MB")
