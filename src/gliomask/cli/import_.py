"""gliomask import: write a model that another program made as a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import clear_stale, note, out, progress
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

`gliomask import nnUNetTrainer__nnUNetPlans__3d_fullres -o big.safetensors --license "CC BY 4.0"`

`gliomask import nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0 -o fold0.safetensors --bits 8`

`gliomask import exported.zip -o big.safetensors --channels t1,t1ce,t2,flair`

`gliomask predict -m big.safetensors -i PATIENTS -o predictions`
"""


def import_(
    model: Annotated[
        Path, typer.Argument(help="A model of nnU-Net v2: its folder, one of its folds, or an exported zip archive.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file, ending in .safetensors.")],
    bits: Annotated[int, typer.Option("--bits", help="Bits per stored weight: 32, 16 or 8.")] = 16,
    terms: Annotated[
        str, typer.Option("--license", help="The terms under which the network may be used; kept in the file.")
    ] = "",
    cite: Annotated[str, typer.Option("--cite", help="What to cite in a publication; kept in the file.")] = "",
    channels: Annotated[
        str,
        typer.Option("--channels", help="The sequences in the order of its channels, where its files do not say them."),
    ] = "",
    axes: Annotated[
        str,
        typer.Option("--axes", help="The orientation in which its training images were stored; BraTS stores LPS."),
    ] = "LPS",
    configuration: Annotated[
        str, typer.Option("--configuration", help="Of an archive with several: 3d_fullres, 3d_lowres or 2d.")
    ] = "",
) -> None:
    """Write a network that was trained with nnU-Net v2 as one file, which predicts without nnU-Net and PyTorch.

    All its folds become one ensemble. The file is compared with the original on a phantom before the command ends.
    """
    if bits not in (8, 16, 32):
        raise InputError(f"--bits {bits}: choose 8, 16 or 32.")
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: name the file with the ending .safetensors.")
    from gliomask.files import check_writable
    from gliomask.foreign import Hints
    from gliomask.inference.importing import import_model
    from gliomask.inference.loading import require_torch

    require_torch()
    clear_stale(output)
    check_writable(output.parent)
    names = tuple(name for name in channels.split(",") if name)
    hints = Hints(names, axes, configuration, terms, cite)
    with progress(f"comparing {output.name} with the original", 1) as bar:
        found, agreement = import_model(
            model,
            output,
            hints=hints,
            bits=bits,  # type: ignore[arg-type]
            on_part=lambda done: bar.update(bar.tasks[0].id, completed=done),
        )
    plan = found.plan
    assert plan.origin is not None
    out.print(f"{output}: {plan.origin.made_with}; {', '.join(plan.modalities)}; {output.stat().st_size / 1e6:.1f} MB")
    out.print(
        f"agreement with the original on a phantom: {agreement.labels:.2%} of the tumour's voxels have the same label, "
        f"probabilities differ by {agreement.mean:.5f} on average and {agreement.largest:.4f} at most "
        f"({agreement.engine} against {found.engine})"
    )
    if plan.mirror_axes:
        note(f"nnU-Net averages over {2 ** len(plan.mirror_axes)} mirror images by default; here --tta asks for them.")
    if not terms:
        note("no --license was given: the file does not say under which terms the network may be used.")
