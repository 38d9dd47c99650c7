"""gliomask predict: images -> masks, facts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import end_batch, out, progress, show_notes, warn
from gliomask.cli.options import Device, Threads
from gliomask.cli.raw import (
    PANEL,
    Atlas,
    Register,
    SkullStrip,
    Strict,
    Wishes,
    find_raw,
    make_settings,
    predict_studies,
)
from gliomask.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from gliomask.cases import Case, Problem
    from gliomask.inference.prediction import Prediction
    from gliomask.inference.windows import Inference, Predictor

EXAMPLES = """
**Examples**

`gliomask predict -i patients -o predictions --picture`  (the model that comes with gliomask)

`gliomask predict -m run/best.safetensors -i patients -o predictions`

`gliomask predict -m run/best.safetensors --t1ce a.nii.gz --t2 b.nii.gz --flair c.nii.gz -o mask.nii.gz`

`gliomask predict -i patients -o predictions -m run/fold*/best.safetensors`  (the mean of several models)
"""

_Output = Annotated[Path, typer.Option("-o", "--output", help="A folder, or for one case a .nii.gz file.")]
_Models = Annotated[
    list[Path] | None,
    typer.Option(
        "-m", "--model", help="RUN/best.safetensors or .onnx; by default the one inside. Of several, the mean."
    ),
]
_More = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[MODEL]...", help="More models: what a shell makes of -m RUN/*/best.*"),
]
_Source = Annotated[Path | None, typer.Option("-i", "--input", help="A case, or a folder of cases in any layout.")]
_T1n = Annotated[Path | None, typer.Option("--t1", "--t1n", help="T1-weighted, native.")]
_T1c = Annotated[Path | None, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast.")]
_T2w = Annotated[Path | None, typer.Option("--t2", "--t2w", help="T2-weighted.")]
_T2f = Annotated[Path | None, typer.Option("--flair", "--t2f", help="T2-FLAIR.")]
_Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Numbers to write: brats2021 (0,1,2,4), brats2023 (0,1,2,3), ...; the model's."),
]
_Picture = Annotated[bool, typer.Option("--picture", help="Also draw CASE.png: three planes.")]
_Show = Annotated[str, typer.Option("--show", help="Sequences in the picture: flair,t1ce.")]
_Probabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Also write CASE_probabilities.nii.gz, a channel a region.")
]
_Window = Annotated[
    str, typer.Option("--window", help="whole: one pass; sliding: overlapping windows; auto: what suits the model.")
]
_Mirrors = Annotated[bool, typer.Option("--tta/--no-tta", help="Average over 8 mirror images.")]
_Precision = Annotated[str, typer.Option("--precision", help="auto, bf16, fp16 (GPU), fp32.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace masks that are there already.")]
_Engine = Annotated[
    str,
    typer.Option("--engine", help="auto: PyTorch on a GPU, else OpenVINO where it knows the network; openvino; torch."),
]
_Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="The images are as the scanner made them: with skull, each on its own grid. They are aligned and stripped "
        "first, and the mask goes back to the patient's own space.",
        rich_help_panel=PANEL,
    ),
]
_Space = Annotated[
    str,
    typer.Option(
        "--space",
        help="Where the mask lies: reference (the grid of T1c, or of the next best sequence), t1n, t1c, t2w, t2f, or "
        "prepared (1 mm).",
        rich_help_panel=PANEL,
    ),
]


def predict(
    output: _Output,
    model: _Models = None,
    more: _More = None,
    source: _Source = None,
    t1n: _T1n = None,
    t1c: _T1c = None,
    t2w: _T2w = None,
    t2f: _T2f = None,
    labels: _Labels = None,
    picture: _Picture = False,
    show: _Show = "",
    save_probabilities: _Probabilities = False,
    window: _Window = "auto",
    tta: _Mirrors = False,
    precision: _Precision = "auto",
    overwrite: _Overwrite = False,
    device: Device = "auto",
    engine: _Engine = "auto",
    threads: Threads = None,
    raw: _Raw = False,
    space: _Space = "reference",
    atlas: Atlas = "sri24",
    skull_strip: SkullStrip = "deepbet",
    register: Register = "greedy",
    strict: Strict = False,
) -> None:
    """Find the tumour: one mask a case on the input's own grid, with CASE.json (volumes in mL, model, versions).

    Research use only, not a medical device.
    """
    files = {name: path for name, path in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if path}
    sequences = _check_wishes(labels, show, picture=picture)
    if raw:
        settings = make_settings(atlas, skull_strip, register, threads)
        wishes = Wishes(space, probabilities=save_probabilities, overwrite=overwrite, strict=strict, labels=labels)
        studies = find_raw(source, files, output)

        def load() -> tuple[list[Predictor], Inference]:
            from gliomask.inference.loading import load_model
            from gliomask.inference.windows import Inference

            how = Inference(_choice("--window", window), tta, _choice("--precision", precision))  # type: ignore[arg-type]
            paths: list[Path | None] = [*(model or []), *(more or [])]
            kind = _choice("--engine", engine)
            return [load_model(path, device=device, engine=kind, threads=threads) for path in paths or [None]], how  # type: ignore[arg-type]

        predict_studies(studies, output, settings, load, wishes)
        return
    cases, problems = _cases(source, files)
    to_do = _targets(cases, output, overwrite=overwrite)
    if not to_do and cases:
        out.print(f"all {len(cases)} masks are in {output} already (--overwrite makes them again)")
        end_batch(problems, 0)
        return
    from gliomask.cases import Problem
    from gliomask.files import check_writable
    from gliomask.inference.loading import load_model
    from gliomask.inference.windows import Inference

    check_writable(to_do[0][1].parent)
    inference = Inference(_choice("--window", window), tta, _choice("--precision", precision))  # type: ignore[arg-type]
    kind = _choice("--engine", engine)
    paths: list[Path | None] = [*(model or []), *(more or [])]
    models = [load_model(path, device=device, engine=kind, threads=threads) for path in paths or [None]]  # type: ignore[arg-type]
    finish = partial(_finish, picture=picture, sequences=sequences, probabilities=save_probabilities)
    failed = _predict_all(models, to_do, inference, labels, finish)
    if failed and len(cases) == 1 and not problems:
        raise failed[0][1]
    problems += [Problem(case.id, str(error).removeprefix(f"{case.id}: ")) for case, error in failed]
    end_batch(problems, len(to_do) - len(failed))


def _check_wishes(labels: str | None, show: str, *, picture: bool) -> tuple[str, ...]:
    """The sequences to show; a name that is not known, or what is missing for pictures, is said before any work."""
    from gliomask.cases import get_modality
    from gliomask.labels import get_convention

    if labels is not None:
        get_convention(labels)
    if picture:
        from gliomask.figures import require_matplotlib

        require_matplotlib()
    return tuple(get_modality(name) for name in show.split(",") if name)


def _predict_all(
    models: Sequence[Predictor],
    to_do: Sequence[tuple[Case, Path]],
    inference: Inference,
    labels: str | None,
    finish: Callable[[Prediction, Path], None],
) -> list[tuple[Case, InputError]]:
    """Predict and write every case, and return what failed; one is written and one read while another computes."""
    from gliomask.inference.prediction import predict_cases

    failed: list[tuple[Case, InputError]] = []
    written: list[tuple[Case, Future[None]]] = []

    def wait() -> None:
        for case, result in written:
            if isinstance(error := result.exception(), InputError):
                failed.append((case, error))
            elif error is not None:
                raise error
        written.clear()

    with progress("predicting", len(to_do)) as bar, ThreadPoolExecutor(1) as writer:
        cases = [case for case, _ in to_do]
        on_part = partial(_advance_to, bar)
        answers = predict_cases(models, cases, inference=inference, convention=labels, on_part=on_part)
        for number, ((case, path), found) in enumerate(zip(to_do, answers, strict=True)):
            wait()  # so that at most one finished case is held in memory beside the one that is computed
            if isinstance(found, InputError):
                failed.append((case, found))
            else:
                written.append((case, writer.submit(finish, found, path)))
            del found
            _advance_to(bar, number, 1.0)
        wait()
    return failed


def _finish(found: Prediction, path: Path, *, picture: bool, sequences: tuple[str, ...], probabilities: bool) -> None:
    """Write what was asked for, and say so."""
    for warning in found.warnings:
        warn(f"{found.case.id}: {warning}")
    found.save(path, probabilities=probabilities)
    if picture:
        _draw(found, path, sequences)
    volumes = found.volumes_ml()
    text = ", ".join(f"{region} {volumes[region]:.1f} mL" for region in found.plan.regions)
    out.print(f"{path}: {text} ({found.seconds:.1f} s)")


_CHOICES = {
    "--window": ("auto", "whole", "sliding"),
    "--precision": ("auto", "bf16", "fp16", "fp32"),
    "--engine": ("auto", "openvino", "torch"),
}


def _choice(option: str, value: str) -> str:
    from gliomask.errors import unknown_name

    if value not in _CHOICES[option]:
        raise unknown_name(f"value of {option}", value, _CHOICES[option])
    return value


def _cases(source: Path | None, files: Mapping[str, Path]) -> tuple[list[Case], list[Problem]]:
    from gliomask.cases import case_of_files, survey

    if (source is None) == (not files):
        raise InputError("name the images with -i CASE_OR_FOLDER, or each with --t1 --t1c --t2 --flair; not both.")
    if source is None:
        return [case_of_files(files)], []
    found = survey(source)
    show_notes(found)
    if not found.cases:
        end_batch(found.problems, 0)
    return list(found.cases), list(found.problems)


def _targets(cases: Sequence[Case], output: Path, *, overwrite: bool) -> list[tuple[Case, Path]]:
    """The cases still to do, each with the file of its mask."""
    from gliomask.volume import NIFTI_ENDINGS

    if output.name.lower().endswith(NIFTI_ENDINGS):
        if len(cases) != 1:
            raise InputError(f"{output}: one file for {len(cases)} cases. Name a folder with -o.")
        if output.exists() and not overwrite:
            raise InputError(f"{output}: is there already. Replace it with --overwrite, or choose another name.")
        return [(cases[0], output)]
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder, or a mask ending in .nii.gz.")
    targets = [(case, output / f"{case.id}.nii.gz") for case in cases]
    return [(case, path) for case, path in targets if overwrite or not path.exists()]


def _advance_to(bar: Progress, number: int, share: float) -> None:
    bar.update(bar.tasks[0].id, completed=number + share)


def _draw(found: Prediction, path: Path, sequences: tuple[str, ...]) -> None:
    from gliomask.report.pictures import draw_prediction

    draw_prediction(
        found, path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".png"), sequences=sequences
    )
