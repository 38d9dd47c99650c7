"""gliomask demo: draw, train, predict and score synthetic cases, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import advance, out, progress
from gliomask.errors import InputError

EXAMPLES = """
**Examples**

Write everything into the folder demo:

`gliomask demo`

`gliomask demo FOLDER --epochs 20`
"""

_TRAINED_ON = 16
_HELD_OUT = 3
_SIZE = 96  # 96 x 96 x 62 voxels of 2.5 mm


def demo(
    folder: Annotated[Path, typer.Argument(help="Output folder; must be new or empty.")] = Path("demo"),
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs",
            min=1,
            help="How often training goes through all cases; more give better masks, 8 take two minutes.",
        ),
    ] = 8,
) -> None:
    """Draw synthetic cases, train a small network on them, predict and score others, and write pictures and tables.

    It takes a few minutes and needs the extra train. Nothing is downloaded, and no patient's data is used.
    """
    from gliomask.inference.loading import require_torch

    require_torch()
    from gliomask.cases import find_cases, resolve_conventions
    from gliomask.cli.bar import train_with_bar
    from gliomask.evaluation import evaluate
    from gliomask.figures import save_figure, scores_figure
    from gliomask.inference.loading import load_model
    from gliomask.inference.prediction import predict
    from gliomask.phantom import write_phantoms
    from gliomask.report.pictures import draw_prediction
    from gliomask.training.config import TrainConfig

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty. Choose another folder: gliomask demo FOLDER")
    with progress("drawing phantoms", _TRAINED_ON + _HELD_OUT) as bar:
        write_phantoms(folder / "cases", _TRAINED_ON, size=_SIZE, on_case=lambda _: advance(bar))
        write_phantoms(folder / "held_out", _HELD_OUT, size=_SIZE, seed=1, on_case=lambda _: advance(bar))
    # At 2.5 mm the enhancing rim is one or two voxels wide, which the half-resolution network `fast` cannot resolve.
    config = TrainConfig(network="unet", patch_size=64, epochs=epochs, patches_per_case=3, lr=2e-3, threads=None)
    run = train_with_bar(resolve_conventions(find_cases(folder / "cases")), folder / "run", config)
    model = load_model(run.best)
    with progress("predicting", _HELD_OUT) as bar:
        for case in find_cases(folder / "held_out"):
            found = predict(model, case)
            found.save(folder / "predictions" / f"{case.id}.nii.gz")
            draw_prediction(found, folder / "predictions" / f"{case.id}.png")
            advance(bar)
    scores = evaluate(folder / "predictions", folder / "held_out")
    scores.save(folder / "scores.csv")
    save_figure(scores_figure(scores.rows()), folder / "scores.png")
    out.print()
    for row in scores.summary():
        out.print(f"{row['region']}: mean Dice {row['dice_mean']:.3f} on {row['cases']} held-out phantoms")
    out.print()
    out.print(f"pictures  {folder / 'predictions'}/*.png   (sequences, truth, prediction)")
    out.print(f"curves    {run.folder / 'curves.png'}")
    out.print(f"scores    {folder / 'scores.csv'}, {folder / 'scores.png'}")
    out.print(f"masks     {folder / 'predictions'}/*.nii.gz (volumes in mL: *.json)")
    out.print()
    out.print("Next, with BraTS cases of your own (gliomask docs data says where to get them):")
    out.print("  gliomask check BRATS_FOLDER")
    out.print("  gliomask train BRATS_FOLDER -o run")
    out.print("  gliomask predict -m run/best.safetensors -i BRATS_FOLDER -o predictions --picture")
