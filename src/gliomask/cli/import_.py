"""gliomask import: write a model that another program made as a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gliomask.cli.console import clear_stale, note, out, progress
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

`gliomask import nnUNetTrainer__nnUNetPlans__3d_fullres -o big.safetensors --license "CC BY 4.0"`

`gliomask import nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0 -o fold0.safetensors --bits 8`

`gliomask import exported.zip -o big.safetensors --channels t1,t1ce,t2,flair`

`gliomask import brats_mri_segmentation -o monai.safetensors --license "see docs/license.txt of the bundle"`

`gliomask import model.pt -o own.safetensors --network unet --channels t1ce,t1,t2,flair --regions TC,WT,ET`

`gliomask predict -m big.safetensors -i PATIENTS -o predictions`
"""


def import_(
    model: Annotated[
        Path,
        typer.Argument(
            help="A model of nnU-Net v2 (its folder, one of its folds, or an exported zip archive), a MONAI bundle "
            "(its folder or a zip archive), or weights of one of MONAI's networks (model.pt)."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file, ending in .safetensors.")],
    bits: Annotated[int, typer.Option("--bits", help="Bits per stored weight: 32, 16 or 8.")] = 16,
    terms: Annotated[
        str, typer.Option("--license", help="The terms under which the network may be used; kept in the file.")
    ] = "",
    cite: Annotated[str, typer.Option("--cite", help="What to cite in a publication; kept in the file.")] = "",
    channels: Annotated[
        str,
        typer.Option(
            "--channels", help="The sequences in the order of the channels, if the model's files do not name them."
        ),
    ] = "",
    axes: Annotated[
        str,
        typer.Option("--axes", help="The orientation in which its training images were stored; BraTS stores LPS."),
    ] = "LPS",
    configuration: Annotated[
        str,
        typer.Option(
            "--configuration", help="Which one to import from an archive with several: 3d_fullres, 3d_lowres or 2d."
        ),
    ] = "",
    network: Annotated[
        str,
        typer.Option(
            "--network",
            help="For weights alone, the network: segresnet, segresnetds, dynunet, unet, swinunetr, unetr or mednext.",
        ),
    ] = "",
    arguments: Annotated[
        str, typer.Option("--arguments", help="For weights alone, the network's arguments in MONAI, as JSON.")
    ] = "{}",
    regions: Annotated[
        str, typer.Option("--regions", help="The regions in the order of the output channels, such as TC,WT,ET.")
    ] = "",
    patch_size: Annotated[
        int | None,
        typer.Option("--patch-size", min=8, help="For weights alone, the edge of the windows in voxels; default 128."),
    ] = None,
) -> None:
    """Write a network of nnU-Net v2 or MONAI into one file, which predicts without nnU-Net.

    All folds become one ensemble. The file is compared with the original on a phantom before the command ends.
    Networks of nnU-Net need no PyTorch then; those of MONAI need it and MONAI, or gliomask export.
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
    hints = Hints(
        channels=_names(channels),
        axes=axes,
        configuration=configuration,
        license=terms,
        cite=cite,
        network=network,
        arguments=_mapping(arguments),
        regions=_names(regions),
        patch_size=None if patch_size is None else (patch_size,) * 3,
    )
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
    if plan.mirror_axes and plan.windows.mirror_windows:
        note(f"nnU-Net averages over {2 ** len(plan.mirror_axes)} mirror images by default; here --tta asks for them.")
    if not terms:
        note("no --license was given: the file does not say under which terms the network may be used.")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--arguments {text[:80]}: is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InputError(f'--arguments {text[:80]}: must be an object, such as {{"init_filters": 16}}.')
    return found
