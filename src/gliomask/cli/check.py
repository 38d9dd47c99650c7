"""gliomask check: what a folder holds, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomask.cli.console import FAILED, advance, counted, line, out, progress, show_notes
from gliomask.cli.options import Cluster, Labels, Workers, where_of
from gliomask.cli.raw_options import ByPatient
from gliomask.errors import InputError, describe

if TYPE_CHECKING:
    from rich.text import Text

    from gliomask.cases import Case, CaseReport, Survey

EXAMPLES = """
**Examples**

`gliomask check BraTS2021_Training_Data`

Also list the files that are passed over, and why:

`gliomask check PATIENTS -v`

Of raw scans, show which series is which sequence and what `predict --raw` would do:

`gliomask check STUDY`

`gliomask check PATIENTS --json > patients.json`

Thousands of cases, in eight processes:

`gliomask check COHORT --workers 8`
"""


def check(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder of cases in any layout, as downloaded, or a list; or a folder or zip file of raw scans."
        ),
    ],
    labels: Labels = None,
    by_patient: ByPatient = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Show what a folder contains: layout, cases, sequences, grids, label convention, and everything that is wrong.

    Of raw scans (DICOM, MHA, NRRD, images that are not registered) it shows which series is used for which sequence,
    and what `predict --raw` would do. All files are read (of raw scans, only the headers), and none is changed. With
    -v, the files that were passed over are listed with the reasons.
    Exit status 0: all cases can be used; 1: some cannot; 2: there are none.
    """
    from gliomask.cases import CaseReport, check_case
    from gliomask.cli.check_raw import check_raw_studies, show_unprepared
    from gliomask.execution import map_cases
    from gliomask.inspection import inspect_channels

    where = where_of(workers, cluster)
    found = _survey(folder)
    if found is None:
        if not where.is_here:
            raise InputError(f"{folder}: raw scans. Of these only headers are read: leave out --workers and --cluster.")
        check_raw_studies(folder, by_patient=by_patient, as_json=as_json)
        return
    cases, unsettled = _settle_conventions(found.cases, labels)
    inspect = partial(_check_or_fault, partial(check_case, inspect=inspect_channels))
    done: dict[str, CaseReport] = {}
    with progress("checking", len(cases)) as bar:
        for case, answer in map_cases(inspect, cases, where):
            if isinstance(answer, InputError):
                answer = CaseReport(case, None, problems=(str(answer),))
            done[case.id] = answer
            advance(bar)
    reports = [done[case.id] for case in cases]
    checked = _Checked(found, reports, unsettled)
    if as_json:
        out.print_json(data=_as_json(checked), ensure_ascii=True)
    else:
        _print(checked)
        show_unprepared([report.case for report in reports if report.unprepared])
    show_notes(found)
    if checked.unusable:
        raise typer.Exit(FAILED)


def _survey(folder: Path) -> Survey | None:
    """Return the cases of a folder; None where it, or a zip file, holds raw images instead."""
    from zipfile import is_zipfile

    from gliomask.acquisition.find import holds_images
    from gliomask.cases import NoCaseError, survey
    from gliomask.cases.tables import WORKBOOKS

    is_zip = is_zipfile(folder) and folder.suffix.lower() not in WORKBOOKS
    if folder.is_file() and (is_zip or folder.name.upper() == "DICOMDIR"):
        return None
    try:
        return survey(folder)
    except NoCaseError:
        if holds_images(folder):
            return None
        raise


@dataclass(frozen=True)
class _Checked:
    """A folder and what was found in each of its cases."""

    found: Survey
    reports: Sequence[CaseReport]
    unsettled: str | None
    """Why the label convention of some masks is not known."""

    def is_usable(self, report: CaseReport) -> bool:
        return not report.problems and not (self.unsettled and report.case.mask and not report.case.convention)

    @property
    def unusable(self) -> int:
        """How many cases cannot be used, those that the survey left out among them."""
        left_out = {problem.where for problem in self.found.problems}
        return len(left_out) + sum(not self.is_usable(report) for report in self.reports)


def _settle_conventions(cases: Sequence[Case], labels: str | None) -> tuple[list[Case], str | None]:
    """Return the cases with the label convention of each where it is known, and why it is not known of the others."""
    from gliomask.cases import resolve_conventions
    from gliomask.labels import get_convention

    if labels is not None:
        get_convention(labels)
    try:
        return resolve_conventions(cases, labels), None
    except Exception as error:  # masks that do not tell their convention; the cases are checked all the same
        return list(cases), describe(error)


def _check_or_fault(check_case: Callable[[Case], CaseReport], case: Case) -> CaseReport:
    """Return the report of a case; whatever its files make gliomask raise is a problem of this case alone."""
    from gliomask.cases import CaseReport, staged

    try:
        with staged(case) as local:
            return replace(check_case(local), case=case)
    except Exception as error:
        return CaseReport(case, None, problems=(describe(error),))


def _print(checked: _Checked) -> None:
    from rich.table import Table

    reports = checked.reports
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("case", "left"), ("sequences", "left"), ("grid", "left"), ("mL WT", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("")
    for report in reports:
        sequences = " ".join(report.case.images)
        verdict = _verdict(report, usable=checked.is_usable(report))
        table.add_row(report.case.id, sequences, _grid(report), _whole_tumour(report), verdict)
    out.print(table)
    out.print()
    for report in reports:  # below the table, as a column beside the others would be a word wide
        for text in report.problems:
            out.print(line(f"{report.case.id}: ", (text, "red")))
        for text in report.notes:
            out.print(f"{report.case.id}: {text}")
    if any(report.problems or report.notes for report in reports):
        out.print()
    out.print(f"layout {checked.found.layout}, {counted(len(reports), 'case')}, {_sequences(reports)}")
    out.print(f"grids: {_tallied(_grid(report) for report in reports if report.grid)}")
    out.print(f"labels: {_conventions(reports)}")
    for text in (*map(str, checked.found.problems), *([checked.unsettled] if checked.unsettled else [])):
        out.print(text, style="red")
    usable = [report for report in reports if checked.is_usable(report)]
    noted = sum(1 for report in usable if report.notes)
    out.print(
        f"{counted(len(usable), 'case')} can be used, {noted} of them with remarks; {checked.unusable} cannot be used.",
        style="bold",
    )


def _verdict(report: CaseReport, *, usable: bool) -> Text:
    if not usable:
        return line(("bad" if report.problems else "labels?", "red"))
    return line("see below") if report.notes else line(("fine", "green"))


def _grid(report: CaseReport) -> str:
    if report.grid is None:
        return "?"
    size = "x".join(map(str, report.grid.shape))
    spacing = "x".join(f"{mm:.3g}" for mm in dict.fromkeys(round(mm, 3) for mm in report.grid.spacing_mm))
    return f"{size} {spacing}mm {report.grid.axes}"


def _whole_tumour(report: CaseReport) -> str:
    if report.grid is None or not report.voxels or "WT" not in report.case.known:
        return ""
    x, y, z = report.grid.spacing_mm
    voxels = sum(count for tissue, count in report.voxels.items() if tissue != "RC")
    return f"{voxels * x * y * z / 1000:.1f}"


def _sequences(reports: Sequence[CaseReport]) -> str:
    kinds = Counter(" ".join(report.case.images) for report in reports)
    return "sequences " + "; ".join(f"{kind} ({count})" if len(kinds) > 1 else kind for kind, count in kinds.items())


def _tallied(values: Any) -> str:
    return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common()) or "none could be read"


def _conventions(reports: Sequence[CaseReport]) -> str:
    from gliomask.labels import CONVENTIONS, REGIONS

    masks = [report for report in reports if report.case.mask is not None]
    named = Counter(report.case.convention for report in masks if report.case.convention)
    without = len(reports) - len(masks)
    texts = [f"{CONVENTIONS[name]} in {counted(count, 'mask')}" for name, count in named.items()]
    partial = Counter(report.case.known for report in masks if len(report.case.known) < len(REGIONS))
    texts += [f"{count} masks label {', '.join(known)} only" for known, count in partial.items()]
    texts += [f"no mask in {without} of {counted(len(reports), 'case')} (train leaves these out)"] if without else []
    return "; ".join(texts) or "convention not known"


def _as_json(checked: _Checked) -> dict[str, Any]:
    found = checked.found
    return {
        "folder": str(found.folder),
        "layout": found.layout,
        "problems": [*map(str, found.problems), *([checked.unsettled] if checked.unsettled else [])],
        "notes": list(map(str, found.notes)),
        "passed_over": list(map(str, found.passed_over)),
        "cases": [
            {
                "id": report.case.id,
                "patient": report.case.patient,
                "sequences": {m: str(source.path) for m, source in report.case.images.items()},
                "mask": str(report.case.mask) if report.case.mask else None,
                "convention": report.case.convention,
                "known_regions": report.case.known if report.case.mask else (),
                "shape": report.grid.shape if report.grid else None,
                "spacing_mm": report.grid.spacing_mm if report.grid else None,
                "orientation": report.grid.axes if report.grid else None,
                "voxels": report.voxels,
                "problems": report.problems,
                "notes": report.notes,
                "unprepared": report.unprepared,
            }
            for report in checked.reports
        ],
    }
