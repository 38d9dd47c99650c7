"""gliomask report: a prediction, a run or scores as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import advance, end_batch, out, progress, warn
from gliomask.cli.options import Device, Labels
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.cases import Case, Problem

EXAMPLES = """
**Examples**

`gliomask report PATIENTS predictions`  and then open predictions/CASE.html

`gliomask report --t1ce a.nii.gz --flair c.nii.gz mask.nii.gz`

`gliomask report run`

`gliomask report unet.csv fast.csv -o scores.html`

`gliomask report scores.csv --predictions predictions --truth BraTS2021_Training_Data`
"""

_File = Path | None
_SCORES = (".csv", ".json")


def report(
    things: Annotated[
        list[Path],
        typer.Argument(
            help="CASE OUT: a case, or a folder of cases, and what predict made of it; or RUN; or SCORES.csv"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A folder, or for one page a .html file. [beside its source]")
    ] = None,
    t1n: Annotated[_File, typer.Option("--t1", "--t1n", help="T1-weighted, native, in place of CASE.")] = None,
    t1c: Annotated[_File, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast.")] = None,
    t2w: Annotated[_File, typer.Option("--t2", "--t2w", help="T2-weighted.")] = None,
    t2f: Annotated[_File, typer.Option("--flair", "--t2f", help="T2-FLAIR.")] = None,
    show: Annotated[str, typer.Option("--show", help="Sequences in the page: flair,t1ce.")] = "",
    labels: Labels = None,
    predictions: Annotated[_File, typer.Option("--predictions", help="Of scores: the masks, for a gallery.")] = None,
    truth: Annotated[_File, typer.Option("--truth", help="Of scores: the true masks or cases, for a gallery.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Of scores: whose rules, where the files hold those of several.")
    ] = None,
    cases: Annotated[
        bool, typer.Option("--cases/--no-cases", help="Of a run: predict the cases held out, show the best and worst.")
    ] = True,
    device: Device = "auto",
) -> None:
    """Make one page of a prediction, a training run or scores: a single HTML file that opens from the disk.

    It loads nothing and sends nothing. Research use only, not a medical device.
    """
    files = {name: path for name, path in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if path}
    if not files and all(thing.suffix.lower() in _SCORES for thing in things):
        _report_scores(things, _page(output, things[0].with_suffix(".html")), protocol, predictions, truth)
    elif not files and len(things) == 1 and (things[0] / "config.json").is_file():
        _report_run(things[0], _page(output, things[0] / "report.html"), cases=cases, device=device)
    elif len(things) == (1 if files else 2):
        found, problems = _cases(things[0], files)
        _report_predictions(found, problems, things[-1], output, labels, [name for name in show.split(",") if name])
    else:
        raise InputError(
            f"{', '.join(map(str, things))}: neither a prediction (CASE OUT, or --flair ... OUT), nor a run's folder, "
            "nor files of scores (.csv, .json). See gliomask report -h."
        )


def _report_scores(files: Sequence[Path], path: Path, protocol: str | None, predictions: _File, truth: _File) -> None:
    from gliomask.report import write_scores_report

    write_scores_report(files, path, protocol=protocol, prediction=predictions, truth=truth)
    out.print(f"report: {path}")


def _report_run(folder: Path, path: Path, *, cases: bool, device: str) -> None:
    from gliomask.report import write_run_report

    with progress("predicting", 1) as bar:
        task = bar.tasks[0].id
        notes = write_run_report(
            folder,
            path,
            pictures=cases,
            device=device,
            on_case=lambda done, of: bar.update(task, total=of, completed=done),
        )
    for note in notes:
        warn(note)
    out.print(f"report: {path}")


def _report_predictions(
    cases: Sequence[Case],
    problems: list[Problem],
    masks: Path,
    output: Path | None,
    labels: str | None,
    sequences: Sequence[str],
) -> None:
    from gliomask.cases import Problem, get_modality
    from gliomask.report import find_mask, write_prediction_report

    for name in sequences:
        get_modality(name)
    if output is not None and output.suffix.lower() == ".html" and len(cases) != 1:
        raise InputError(f"{output}: one file for {len(cases)} cases. Name a folder with -o.")
    if masks.is_file() and len(cases) > 1:
        raise InputError(f"{masks}: one mask for {len(cases)} cases. Name the one case, or the folder of masks.")
    failed: list[Problem] = []
    with progress("reporting", len(cases)) as bar:
        for case in cases:
            try:
                mask = find_mask(case, masks)
                path = _page(output, mask.parent / f"{case.id}.html", f"{case.id}.html")
                write_prediction_report(case, mask, path, labels=labels, sequences=sequences)
                out.print(f"report: {path}")
            except InputError as error:
                if len(cases) == 1 and not problems:
                    raise
                failed.append(Problem(case.id, str(error).removeprefix(f"{case.id}: ")))
            advance(bar)
    end_batch([*problems, *failed], len(cases) - len(failed))


def _cases(source: Path, files: Mapping[str, Path]) -> tuple[list[Case], list[Problem]]:
    from gliomask.cases import case_of_files, survey

    if not files:
        found = survey(source)
        return list(found.cases), list(found.problems)
    return [case_of_files(files)], []


def _page(output: Path | None, beside: Path, name: str = "") -> Path:
    """Where a page goes: the file asked for, into the folder asked for, or beside its source."""
    if output is None:
        return beside
    return output if output.suffix.lower() == ".html" else output / (name or beside.name)
