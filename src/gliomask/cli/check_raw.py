"""What `check` shows of raw studies: the table of their series, and what `predict --raw` would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gliomask.cli.console import FAILED, counted, out
from gliomask.cli.raw import reading_studies
from gliomask.cli.series_table import show_study
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.acquisition.study import Study
    from gliomask.cases import Case


def check_raw_studies(path: Path, *, by_patient: bool, as_json: bool) -> None:
    """Print the series of the raw studies in a folder or zip file, and what would be done with each.

    Raises:
        InputError: There is no image, or the only study cannot be prepared.
        typer.Exit: With status 1 where some of several studies cannot be prepared.
    """
    from gliomask.acquisition.table import study_record

    with reading_studies(path, by_patient=by_patient) as studies:
        if as_json:
            out.print_json(
                data={"folder": str(path), "studies": [study_record(study) for study in studies]}, ensure_ascii=True
            )
        usable = 0
        for study in studies:
            if not as_json:
                show_study(study, out)
            usable += _is_usable(study, said=not as_json)
    if not usable and len(studies) == 1:
        studies[0].check()
    if not as_json:
        out.print(
            f"{counted(len(studies), 'raw study').replace('studys', 'studies')}, {usable} can be prepared: "
            f"gliomask predict --raw -i {path} -o masks",
            style="bold",
        )
    if usable < len(studies):
        raise typer.Exit(FAILED)


def show_unprepared(cases: Sequence[Case]) -> None:
    """Print what `predict --raw` would do with cases whose images are not prepared."""
    from gliomask.acquisition.study import make_study, series_by_name

    for case in cases:
        out.print()
        files = {modality: source.path for modality, source in case.images.items()}
        study = make_study(case.id, series_by_name(files, reason="by its name"))
        show_study(study, out)
        _is_usable(study, said=True)


def _is_usable(study: Study, *, said: bool) -> bool:
    from gliomask.acquisition.table import describe_plan

    try:
        study.check()
    except InputError as error:
        if said and not study.problem:
            out.print(str(error), style="red")
        return False
    if said:
        out.print(f"{study.id}: {describe_plan(study)}")
        out.print()
    return True
