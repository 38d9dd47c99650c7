"""gliomask tune: fit a model's temperatures, thresholds and other rules of post-processing to one's own cases."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import (
    clear_stale,
    counted,
    end_batch,
    listed,
    note,
    out,
    progress,
    show_notes,
    tell,
    warn,
    with_masks,
)
from gliomask.cli.options import Device, Engine, Labels, Mirrors, Precision, Threads, Window, choose
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.cases import Case, Problem
    from gliomask.evaluation import PairedTest
    from gliomask.inference.windows import Inference, Predictor
    from gliomask.model.plan import Plan, Postprocessing
    from gliomask.tuning import Tuning

EXAMPLES = """
**Examples**

The built-in model:

`gliomask tune CASES -o tuned.safetensors`

A model that nnU-Net trained, on cases that it has not learned from:

`gliomask tune nnUNetTrainer__nnUNetPlans__3d_fullres CASES -o tuned.safetensors --report tuning.json`

`gliomask predict -m tuned.safetensors -i PATIENTS -o predictions`

The mean of the folds of a cross-validation, as one model:

`gliomask join cv/fold*/best.safetensors -o cv.safetensors`

`gliomask tune cv.safetensors OTHER_CASES -o tuned.safetensors`
"""

_FEW_PATIENTS = 10


def tune(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] CASES",
            help="The model (any that predict takes, but not ONNX; default: the built-in one), and a folder or list "
            "of cases with masks that it was not trained on.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file, ending in .safetensors.")],
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write the rules and their test as .json.")
    ] = None,
    labels: Labels = None,
    window: Window = "auto",
    tta: Mirrors = False,
    precision: Precision = "auto",
    device: Device = "auto",
    engine: Engine = "auto",
    threads: Threads = None,
) -> None:
    """Fit a model's rules of post-processing to your own cases: temperatures, thresholds, smallest pieces, smallest ET.

    The weights stay the same. Each patient is left out in turn, and the scores before and after are those of the
    patients left out. Rules that are not shown to be better there are not used, which the output states. Predict with
    the same --window and --tta as here. After an interruption, the same command continues.
    """
    file, folder = _model_and_cases(paths)
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: name the file with the ending .safetensors.")
    if report is not None and report.suffix.lower() != ".json":
        raise InputError(f"{report}: the report is written as .json; choose this ending.")
    from gliomask.execution import usable_cores
    from gliomask.files import check_writable, one_writer, refuse_inputs, write_text
    from gliomask.inference.loading import load_model
    from gliomask.inference.windows import Inference
    from gliomask.tuning import write_tuned

    inference = Inference(choose("--window", window), tta, choose("--precision", precision))  # type: ignore[arg-type]
    path, plan = _read_model(file)
    refuse_inputs([output], [path])
    usable, problems = _usable_cases(path, plan, folder, labels)
    clear_stale(output, report)
    check_writable(output.parent)
    kept = output.with_suffix(".logits")
    with one_writer(kept):
        loaded = load_model(file, device=device, engine=choose("--engine", engine), threads=threads)  # type: ignore[arg-type]
        done, failed = _store(loaded, usable, kept, inference)
        try:
            found = _fit(done, kept, plan, threads or usable_cores())
        except InputError as error:  # too few cases are left, and these may be the reason
            raise InputError("\n".join([str(error), *(f"  {problem}" for problem in (*problems, *failed))])) from error
        write_tuned(path, plan, found.rules, output)
        if report is not None:
            write_text(report, json.dumps(found.report(), indent=2) + "\n")
        for case in done:
            (kept / f"{case.id}.npz").unlink(missing_ok=True)
    with suppress(OSError):  # it is removed only if it is empty
        kept.rmdir()
    _print(found, plan.postprocessing)
    out.print(f"{output}: {path if file else 'the built-in model'} with {_what(found, plan.postprocessing)}")
    if report is not None:
        out.print(f"report: {report}")
    end_batch([*problems, *failed], len(done))


def _model_and_cases(paths: Sequence[Path]) -> tuple[Path | None, Path]:
    if len(paths) > 2:
        raise InputError(f"{len(paths)} arguments; write gliomask tune MODEL CASES, with one model and one folder.")
    from gliomask.foreign import is_foreign

    *model, folder = paths
    if folder.suffix.lower() in (".safetensors", ".onnx") or is_foreign(folder):
        raise InputError(f"{folder}: is no folder of cases. Write the model first: gliomask tune MODEL CASES -o FILE.")
    return (model[0] if model else None), folder


def _read_model(file: Path | None) -> tuple[Path, Plan]:
    """Return the path of the model and its plan; refuse models whose rules cannot be written."""
    from gliomask.foreign import find_model, read_plan
    from gliomask.model.file import is_onnx

    path = find_model(file)
    if is_onnx(path):
        raise InputError(
            f"{path}: the rules in an ONNX file cannot be changed. Tune the .safetensors file, and export it again."
        )
    return path, read_plan(path)


def _usable_cases(path: Path, plan: Plan, folder: Path, labels: str | None) -> tuple[list[Case], list[Problem]]:
    """Return the cases to fit to, and what is wrong with others; say which are left out and why."""
    from gliomask.cases import resolve_conventions, survey
    from gliomask.tuning import LEAST_PATIENTS, choose_cases

    found = survey(folder)
    show_notes(found)
    if not found.cases:
        end_batch(found.problems, 0)
    usable = choose_cases(path, plan, resolve_conventions(with_masks(found.cases, folder), labels))
    reasons: dict[str, list[str]] = defaultdict(list)
    for each in usable.left_out:
        reasons[each.what].append(each.where)
    for reason, ids in reasons.items():
        warn(f"left out: {listed(ids)} ({reason})")
    if usable.split is None:
        note(
            "rules that are fitted to cases that the model was trained on are useless; it does not say which these are"
        )
    patients = len({case.patient for case in usable.cases})
    if patients < LEAST_PATIENTS:
        raise InputError(
            f"{folder}: {counted(len(usable.cases), 'usable case')} of {counted(patients, 'patient')}; fitting rules "
            f"needs at least {LEAST_PATIENTS} patients, and better {_FEW_PATIENTS} or more."
        )
    if patients < _FEW_PATIENTS:
        warn(f"{patients} patients are few: with fewer than {_FEW_PATIENTS} little can be shown")
    return list(usable.cases), list(found.problems)


def _store(
    model: Predictor, cases: Sequence[Case], folder: Path, inference: Inference
) -> tuple[list[Case], list[Problem]]:
    """Predict the cases, and say how to go on after Ctrl-C."""
    from gliomask.tuning import store_logits

    with progress("predicting", len(cases)) as bar:
        finished = 0

        def advance(number: int, fraction: float) -> None:
            nonlocal finished
            finished = max(finished, number + int(fraction))
            bar.update(bar.tasks[0].id, completed=number + fraction)

        try:
            return store_logits(model, cases, folder, inference=inference, on_part=advance)
        except KeyboardInterrupt:
            tell(
                f"{counted(finished, 'case')} more predicted and kept in {folder}; run the same command again to go on"
            )
            raise


def _fit(cases: Sequence[Case], folder: Path, plan: Plan, jobs: int) -> Tuning:
    from gliomask.tuning import fit_tuning

    with progress("fitting", 1) as bar:
        return fit_tuning(
            [folder / f"{case.id}.npz" for case in cases],
            [case.patient for case in cases],
            plan.regions,
            plan.postprocessing,
            jobs=min(jobs, len(cases)),
            on_step=lambda done, total: bar.update(bar.tasks[0].id, completed=done, total=total),
        )


def _print(found: Tuning, present: Postprocessing) -> None:
    from rich.table import Table

    mean = found.tests["mean"]
    out.print(f"scores of {counted(mean.cases, 'patient')}, each left out while the rules were fitted to the others")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score", no_wrap=True)
    for heading in ("before", "after", "difference", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, test in found.tests.items():
        table.add_row(name, *_numbers(test))
    out.print(table)
    out.print(found.verdict)
    for region, one in found.calibration.items():
        low, high = one.left_out.low, one.left_out.high
        gain = f"log-likelihood {one.left_out.difference:+.2g} ({low:+.2g} to {high:+.2g}) nats a voxel"
        if one.fitted == one.present:
            out.print(f"{region}: the temperature stays {one.present:g}")
        elif found.rules.rule(region).temperature == one.present:
            out.print(f"{region}: the temperature stays {one.present:g}; {one.fitted:g} is not used ({gain}, left out)")
        else:
            out.print(f"{region}: temperature {one.present:g} to {one.fitted:g} ({gain}, left out)")
    for change in _changes(present, found.rules, tuple(found.calibration)):
        out.print(change)


def _numbers(test: PairedTest) -> tuple[str, str, str, str]:
    interval = f"{test.low:+.3f} to {test.high:+.3f}"
    return f"{test.second:.3f}", f"{test.first:.3f}", f"{test.difference:+.3f}", interval


def _changes(old: Postprocessing, new: Postprocessing, regions: Sequence[str]) -> list[str]:
    """Return a line for each rule that changed, but for temperatures."""
    names = {"threshold": "threshold", "least_mm3": "smallest piece (mm³)", "least_probability": "smallest probability"}
    lines = [
        f"{region}: {name} {getattr(old.rule(region), field):g} to {getattr(new.rule(region), field):.3g}"
        for region in regions
        for field, name in names.items()
        if getattr(old.rule(region), field) != getattr(new.rule(region), field)
    ]
    if old.least_et_mm3 != new.least_et_mm3:
        lines.append(f"ET: smallest in total (mm³) {old.least_et_mm3:g} to {new.least_et_mm3:g}")
    return lines


def _what(found: Tuning, present: Postprocessing) -> str:
    if found.rules == present:
        return "its rules unchanged"
    return "new rules" if found.is_better and not found.chosen_is_start else "new temperatures; masks as before"
