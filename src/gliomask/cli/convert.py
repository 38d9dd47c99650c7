"""gliomask convert: cases of any layout that is read, in another one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import (
    advance,
    counted,
    end_batch,
    err,
    line,
    listed,
    note,
    out,
    progress,
    show_notes,
    tell,
    warn,
)
from gliomask.cli.options import Cluster, Labels, Output, Threads, Workers, where_of

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.exchange import Outcome, Settings

EXAMPLES = """
**Examples**

`gliomask convert BraTS2021_Training_Data -o nnUNet_raw/Dataset137_BraTS2021 --layout nnunet --link`

`gliomask convert Task01_BrainTumour -o cases --layout brats2021`

`gliomask convert datalist.json -o bids --layout bids`
"""

_Data = Annotated[Path, typer.Argument(help="A folder of cases as downloaded, or a list of them (CSV, Parquet, JSON).")]
_Layout = Annotated[
    str,
    typer.Option(
        "--layout",
        help="Names of the files to write: brats2021, brats2023, msd, nnunet or bids.",
        autocompletion=lambda: _layouts(),
    ),
]
_WriteLabels = Annotated[
    str | None,
    typer.Option(
        "--write-labels",
        help="Label convention of the masks to write; default: the layout's, if it can hold all tissues.",
    ),
]
_Modalities = Annotated[
    str | None,
    typer.Option(
        "--modalities",
        help="Sequences to write, in channel order; default: all that any case has, in the layout's order.",
    ),
]
_Split = Annotated[
    Path | None,
    typer.Option("--split", help="A splits_final.json of nnU-Net or gliomask to write as well; default: that in DATA."),
]
_Link = Annotated[bool, typer.Option("--link", help="Make links instead of copies where a file needs no change.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Convert again what is already in the output folder.")]


def convert(
    data: _Data,
    output: Output,
    layout: _Layout,
    link: _Link = False,
    labels: Labels = None,
    write_labels: _WriteLabels = None,
    modalities: _Modalities = None,
    split: _Split = None,
    overwrite: _Overwrite = False,
    threads: Threads = None,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Write cases in the layout of other tools: other names, channels and label numbers, the same voxels.

    Numbers of masks are converted; a tissue without a number in the new convention is refused. Cases that are already
    there are kept, so an interrupted conversion continues where it stopped.
    """
    from gliomask.cases import resolve_conventions, survey
    from gliomask.exchange import convert_dataset, get_target, refuse_own_input, restore_ids
    from gliomask.files import check_writable

    get_target(layout)
    where = where_of(workers, cluster)
    found = survey(data)
    show_notes(found)
    if not found.cases:
        end_batch(found.problems, 0)
    refuse_own_input(data, output, found.cases)
    check_writable(output)
    as_found = resolve_conventions(found.cases, labels)
    cases = restore_ids(data, as_found)
    settings = _settings(layout, cases, write_labels, modalities, link=link)
    splits = _read_splits(data, split, {old.id: new.id for old, new in zip(as_found, cases, strict=True)}, cases)
    with progress("converting", len(cases)) as bar:
        outcome = convert_dataset(
            cases, output, settings, overwrite=overwrite, threads=threads, on_case=lambda _: advance(bar), where=where
        )
    if splits:
        _write_splits(output, splits, outcome)
    _print_outcome(output, layout, outcome)
    end_batch([*found.problems, *outcome.problems], len(outcome.new_ids))


def _settings(
    layout: str, cases: Sequence[Case], write_labels: str | None, modalities: str | None, *, link: bool
) -> Settings:
    from gliomask.cases import get_modality
    from gliomask.errors import InputError
    from gliomask.exchange import Settings, choose_convention, get_target

    target = get_target(layout)
    there = {modality for case in cases for modality in case.images}
    if modalities is None:
        chosen = tuple(modality for modality in target.layout.modalities if modality in there)
    else:
        chosen = tuple(get_modality(name) for name in modalities.split(","))
        if len(set(chosen)) < len(chosen):
            raise InputError(f"--modalities {modalities}: names a sequence twice.")
    absent = [modality for modality in target.layout.modalities if modality not in there]
    if absent and modalities is None:
        note(f"no case has {', '.join(absent)}; the data set is written without")
    return Settings(target, chosen, choose_convention(target, cases, write_labels), link=link)


def _read_splits(
    data: Path, given: Path | None, restored: dict[str, str], cases: Sequence[Case]
) -> list[dict[str, list[str]]]:
    """Return the splits to write, with the ids that the cases had at first; none if there are none."""
    from gliomask.cases import is_table, table_folds
    from gliomask.errors import InputError
    from gliomask.exchange import SPLITS, patients_on_both_sides, read_splits, rename_splits, splits_of_folds

    if given is not None:
        splits, where = read_splits(given), str(given)
    elif is_table(data):
        splits, where = splits_of_folds(table_folds(data)), str(data)
    elif (data / SPLITS).is_file():
        splits, where = read_splits(data / SPLITS), str(data / SPLITS)
    else:
        return []
    with_mask = {case.id for case in cases if case.mask is not None}
    known = {**{name: name for name in with_mask}, **{old: new for old, new in restored.items() if new in with_mask}}
    renamed, absent = rename_splits(splits, known)
    if absent and given is not None:
        raise InputError(f"{where}: names {len(absent)} case(s) that are not there with a mask, such as {absent[0]}.")
    if absent:
        warn(f"{where}: {counted(len(absent), 'case')} not there with a mask left out: {listed(absent, 3)}")
    if both := patients_on_both_sides(renamed, cases):
        warn(f"{where}: patients both to train on and to validate on: {listed(both, 3)}")
    return renamed


def _write_splits(output: Path, splits: Sequence[dict[str, list[str]]], outcome: Outcome) -> None:
    from gliomask.exchange import SPLITS, rename_splits
    from gliomask.files import write_text

    renamed, failed = rename_splits(splits, outcome.new_ids)
    if failed:
        warn(f"{SPLITS}: without {counted(len(failed), 'case')} that failed: {listed(failed, 3)}")
    write_text(output / SPLITS, json.dumps(renamed, indent=4) + "\n")


def _print_outcome(output: Path, layout: str, outcome: Outcome) -> None:
    missing: dict[str, list[str]] = {}
    for each in outcome.done:
        for modality in each.missing:
            missing.setdefault(modality, []).append(each.case.id)
    for modality, ids in missing.items():
        note(f"without {modality}, which they do not have: {listed(ids, 5)}")
    if outcome.kept:
        tell(f"{counted(len(outcome.kept), 'case')} kept, unchanged since an earlier run; --overwrite converts anew")
    files = {way: sum(getattr(each, way) for each in outcome.done) for way in ("linked", "copied", "rewritten")}
    ways = ", ".join(f"{count} {way}" for way, count in files.items() if count)
    out.print(
        f"{counted(len(outcome.new_ids), 'case')} in {output}, layout {layout}" + (f"; files: {ways}" if ways else "")
    )
    if layout == "nnunet" and outcome.new_ids:
        numbered = re.match(r"Dataset(\d{3})_", output.resolve().name)
        if numbered:
            command = f"nnUNetv2_plan_and_preprocess -d {int(numbered.group(1))} --verify_dataset_integrity"
            err.print(line(f"Next: {command}; then copy splits_final.json, if there is one, to nnUNet_preprocessed"))
        else:
            warn(f"nnU-Net finds a data set by its folder's name, such as Dataset137_BraTS; this is {output.name}")


def _layouts() -> list[str]:
    from gliomask.exchange import TARGETS

    return list(TARGETS)
