"""gliomask report: one page for a prediction, a training run, or score tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import advance, clear_stale, end_batch, out, progress, show_notes, warn
from gliomask.cli.options import Cluster, Device, Labels, Workers, where_of
from gliomask.errors import InputError, describe
from gliomask.execution import Where, map_cases

if TYPE_CHECKING:
    from gliomask.cases import Case, Problem
    from gliomask.report import IndexEntry

log = logging.getLogger(__name__)

EXAMPLES = """
**Examples**

Write predictions/CASE.html for each case, and predictions/index.html with all of them:

`gliomask report PATIENTS predictions`

Write masks/STUDY.html and masks/STUDY_quality.html for each raw study, after predict --raw:

`gliomask report STUDIES masks`

`gliomask report --t1ce a.nii.gz --flair c.nii.gz mask.nii.gz`

Also write the surface of each region, for a 3-D program or printer:

`gliomask report PATIENTS predictions --mesh stl`

`gliomask report run`

`gliomask report unet.csv fast.csv -o scores.html`

`gliomask report scores.csv --predictions predictions --truth BraTS2021_Training_Data`
"""

_File = Path | None
_SCORES = (".csv", ".parquet", ".json")
INDEX = "index.html"
"""The page that lists the reports of several cases."""


def report(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="CASE OUT: a case, a folder or a list of cases, and the output of predict; STUDY OUT: raw images and "
            "the output of predict --raw; or RUN; or SCORES.csv"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A folder, or an .html file for a single page. [beside its source]"),
    ] = None,
    t1n: Annotated[_File, typer.Option("--t1", "--t1n", help="T1-weighted, native, in place of CASE.")] = None,
    t1c: Annotated[_File, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast.")] = None,
    t2w: Annotated[_File, typer.Option("--t2", "--t2w", help="T2-weighted.")] = None,
    t2f: Annotated[_File, typer.Option("--flair", "--t2f", help="T2-FLAIR.")] = None,
    show: Annotated[str, typer.Option("--show", help="The sequences to show, such as flair,t1ce.")] = "",
    mesh: Annotated[
        str | None,
        typer.Option("--mesh", help="Also write the surface of each region beside the page: stl, obj or glb."),
    ] = None,
    labels: Labels = None,
    predictions: Annotated[
        _File, typer.Option("--predictions", help="For scores: the predicted masks, for a gallery.")
    ] = None,
    truth: Annotated[_File, typer.Option("--truth", help="For scores: the true masks or cases, for a gallery.")] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="For scores: the protocol, if the files hold several.")
    ] = None,
    cases: Annotated[
        bool,
        typer.Option(
            "--cases/--no-cases", help="For a run: predict the validation cases and show the best and the worst."
        ),
    ] = True,
    device: Device = "auto",
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Write a report of a prediction, a training run or scores as a single HTML file.

    The file loads nothing and sends nothing. For a raw study a second file, STUDY_quality.html, shows how well its
    images were aligned and its brain was found. Research use only, not a medical device.
    """
    where = replace(where_of(workers, cluster), at_once=1)
    files = {name: path for name, path in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if path}
    if not files and all(path.suffix.lower() in _SCORES for path in inputs):
        _report_scores(inputs, _page(output, inputs[0].with_suffix(".html")), protocol, predictions, truth)
    elif not files and len(inputs) == 1 and (inputs[0] / "config.json").is_file():
        _report_run(inputs[0], _page(output, inputs[0] / "report.html"), cases=cases, device=device)
    elif len(inputs) == (1 if files else 2):
        shown = [name for name in show.split(",") if name]
        if _is_raw(inputs[-1]):
            if mesh:
                raise InputError("--mesh takes prepared cases, not raw studies.")
            from gliomask.cli.raw_pages import report_studies

            report_studies(None if files else inputs[0], files, inputs[-1], output, labels, shown, where)
            return
        found, problems = _cases(inputs[0], files, inputs[-1])
        pages = _Pages(inputs[-1], output, labels, tuple(shown), mesh)
        _report_predictions(found, problems, pages, where)
    else:
        raise InputError(
            f"{', '.join(map(str, inputs))}: neither a prediction (CASE OUT, or --flair ... OUT), nor a run folder, "
            "nor score tables (.csv, .parquet, .json). See gliomask report -h."
        )


def _report_scores(files: Sequence[Path], path: Path, protocol: str | None, predictions: _File, truth: _File) -> None:
    from gliomask.cases import names_cases
    from gliomask.report import write_scores_report

    for file in files:
        if names_cases(file):
            raise InputError(f"{file}: is a list of cases. Name the masks too: gliomask report LIST MASKS.")
    clear_stale(path)
    write_scores_report(files, path, protocol=protocol, prediction=predictions, truth=truth)
    out.print(f"report: {path}")


def _report_run(folder: Path, path: Path, *, cases: bool, device: str) -> None:
    from gliomask.report import write_run_report

    clear_stale(path)
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


@dataclass(frozen=True)
class _Pages:
    """The reports that are wanted; the function that `report` gives to `map_cases`."""

    masks: Path
    output: Path | None
    labels: str | None
    sequences: tuple[str, ...]
    mesh: str | None

    def __call__(self, case: Case) -> tuple[IndexEntry, dict[str, list[Path]]]:
        """Write the report of a case; return its entry in the list of all, and the files by what they are."""
        from gliomask.report import find_mask, index_entry, write_prediction_report

        mask = find_mask(case, self.masks)
        path = _page(self.output, mask.parent / f"{case.id}.html", f"{case.id}.html")
        try:
            written = write_prediction_report(
                case, mask, path, labels=self.labels, sequences=self.sequences, mesh=self.mesh
            )
        except MemoryError as error:
            raise InputError("no report could be made: there is not enough memory") from error
        except InputError:
            raise
        except Exception as error:  # a defect in one case does not end the others
            log.info("%s", case.id, exc_info=True)
            raise InputError(f"no report could be made: {describe(error)}") from error
        return index_entry(written.measured, path), {"report": [path], "mesh": list(written.meshes)}


def _report_predictions(cases: Sequence[Case], problems: list[Problem], pages: _Pages, where: Where) -> None:
    from gliomask.cases import Problem
    from gliomask.report import write_index

    masks, output = pages.masks, pages.output
    _check_wishes(cases, masks, output, pages.sequences, pages.mesh)
    clear_stale(_page(output, masks / "page.html" if masks.is_dir() else masks, "page.html"))
    failed: list[Problem] = []
    entries: dict[str, IndexEntry] = {}
    with progress("reporting", len(cases)) as bar:
        for case, found in map_cases(pages, cases, where):
            if isinstance(found, InputError):
                if len(cases) == 1 and not problems:
                    raise found
                failed.append(Problem(case.id, str(found).removeprefix(f"{case.id}: ")))
            else:
                entries[case.id], written = found
                _print_files(written)
            advance(bar)
    if len(entries) > 1 and INDEX not in {f"{case.id}.html" for case in cases}:
        index = _page(output, masks / INDEX, INDEX)
        write_index([entries[case.id] for case in cases if case.id in entries], index)
        out.print(f"all reports: {index}")
    end_batch([*problems, *failed], len(entries))


def _check_wishes(
    cases: Sequence[Case], masks: Path, output: Path | None, sequences: Sequence[str], mesh: str | None
) -> None:
    from gliomask.cases import get_modality
    from gliomask.errors import unknown_name
    from gliomask.report import MESH_FORMATS

    if mesh is not None and mesh not in MESH_FORMATS:
        raise unknown_name("format of meshes", mesh, MESH_FORMATS)
    for name in sequences:
        get_modality(name)
    if output is not None and output.suffix.lower() == ".html" and len(cases) != 1:
        raise InputError(
            f"{output}: a single file cannot hold the reports of {len(cases)} cases. Name a folder with -o."
        )
    if not masks.exists():
        raise InputError(f"{masks}: no such file or folder. Name the mask, or the folder that predict wrote to.")
    if masks.is_file() and len(cases) > 1:
        raise InputError(
            f"{masks}: a single mask cannot belong to {len(cases)} cases. Name one case, or the folder of masks."
        )


def _print_files(written: Mapping[str, Sequence[Path]]) -> None:
    for what, paths in written.items():
        for path in paths:
            out.print(f"{what}: {path}")


def _is_raw(output: Path) -> bool:
    from gliomask.acquisition.places import holds_prepared

    return holds_prepared(output)


def _cases(source: Path, files: Mapping[str, Path], masks: Path) -> tuple[list[Case], list[Problem]]:
    from gliomask.cases import case_of_files, survey

    if not files:
        found = survey(source, masks)
        show_notes(found)
        return list(found.cases), list(found.problems)
    return [case_of_files(files)], []


def _page(output: Path | None, beside: Path, name: str = "") -> Path:
    """Return the path of a page: the requested file, a file in the requested folder, or beside its source."""
    if output is None:
        return beside
    return output if output.suffix.lower() == ".html" else output / (name or beside.name)
