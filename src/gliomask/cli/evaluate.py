"""gliomask evaluate: score predictions against the truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import advance, clear_stale, end_batch, listed, out, progress, show_passed_over, warn
from gliomask.cli.options import Cluster, Dpi, FigureFormat, Theme, Workers, figure_style, label_conventions, where_of
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.evaluation import Evaluation, ProtocolComparison, WorstCase
    from gliomask.figures import FigureStyle

EXAMPLES = """
**Examples**

`gliomask evaluate predictions BraTS2021_Training_Data -o scores.csv`

`gliomask evaluate predictions truth --protocol brats2023-gli -o scores.csv -o scores.json`

For DuckDB, polars or R:

`gliomask evaluate predictions BraTS2021_Training_Data -o scores.parquet`

Also draw the scores and the worst cases (pictures/worst.png):

`gliomask evaluate predictions BraTS2021_Training_Data --pictures pictures`

`gliomask evaluate mask.nii.gz truth_seg.nii.gz --compare-protocols`
"""

_SHOWN = 5  # notes that are printed one by one


def evaluate(
    ctx: typer.Context,
    prediction: Annotated[Path, typer.Argument(help="A predicted mask, or a folder or list of them.")],
    truth: Annotated[Path, typer.Argument(help="The true mask, or a folder or list of masks or cases.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the scores as .csv or .parquet, with their summary as .json, or a table for a paper as .md or "
            ".tex; may be repeated.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            help="The scoring protocol: brats2021 (2017 to 2022), or brats2023-, brats2024- or brats2026- followed by "
            "gli, met, ped, ... for a kind of tumour; gliomask docs scores lists all.",
            autocompletion=lambda: _known(),
        ),
    ] = "brats2021",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare-protocols", help="Score by the protocols of all years, and explain where they disagree."
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Label convention of the predictions, where file names and values leave it open: brats2021, "
            "brats2023, msd, ...",
            autocompletion=label_conventions,
        ),
    ] = None,
    truth_labels: Annotated[
        str | None,
        typer.Option(
            "--truth-labels", help="Label convention of the truth, likewise.", autocompletion=label_conventions
        ),
    ] = None,
    ignore_extra: Annotated[bool, typer.Option("--ignore-extra", help="Skip predictions that have no truth.")] = False,
    edited: Annotated[
        bool,
        typer.Option(
            "--edited", help="Score corrected masks (ID_edited.nii.gz) in place of the predictions beside them."
        ),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw all scores into this file (.png, .svg, .pdf).")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures",
            help="Draw scores.png, volumes.png (Bland-Altman) and worst.png (the worst cases) into this folder.",
        ),
    ] = None,
    worst: Annotated[int, typer.Option("--worst", min=1, help="The number of cases in worst.png.")] = 6,
    image_format: FigureFormat = "png",
    dpi: Dpi = 110,
    theme: Theme = "light",
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Score predictions as the BraTS challenge of any year does: by case and region, with a summary.

    Masks are matched by case id, and each is read in its own label convention. A case without a prediction gets the
    worst possible scores. `gliomask docs scores` explains the scores of each year.
    """
    from gliomask.cases import staged_masks
    from gliomask.evaluation import compare_protocols, find_pairs
    from gliomask.evaluation import evaluate as score
    from gliomask.evaluation.records import refuse_records
    from gliomask.files import check_writable, refuse_inputs
    from gliomask.files.parquet import require_parquet

    where = where_of(workers, cluster)
    known = (".csv", ".json") if compare else (".csv", ".json", ".md", ".tex", ".parquet")
    endings = [path for path in output or () if path.suffix.lower() not in known]
    if endings:  # reported before the work rather than after it
        raise InputError(f"{endings[0]}: scores are written as {', '.join(known)}; choose one of these endings.")
    if any(path.suffix.lower() == ".parquet" for path in output or ()):
        require_parquet()
    if pictures is not None:
        check_writable(pictures)
    if picture is not None or pictures is not None:
        from gliomask.figures import require_matplotlib

        require_matplotlib()
    style = figure_style(image_format, dpi, theme, picture)
    refuse_records(output or ())
    refuse_inputs([*(output or ()), *filter(None, [picture])], [prediction, truth])
    clear_stale(*(output or ()), picture, pictures and pictures / "scores.png")
    # Copies of remote masks are removed when the command ends.
    prediction, truth = (ctx.with_resource(staged_masks(place)) for place in (prediction, truth))
    matched = find_pairs(prediction, truth, edited=edited)
    show_passed_over(matched.passed_over, "gliomask evaluate -v")
    total = len(matched.pairs) + len(matched.missing)
    with progress("scoring", total) as bar:
        found: Evaluation | ProtocolComparison = (compare_protocols if compare else score)(
            prediction,
            truth,
            protocol=protocol,
            labels=labels,
            truth_labels=truth_labels,
            ignore_extra=ignore_extra,
            edited=edited,
            on_case=lambda _: advance(bar),
            where=where,
        )
    if total == 1 and found.problems and not matched.problems:
        raise InputError(str(found.problems[0]))
    _show(found)
    for problem in matched.notes if compare else ():
        warn(str(problem))
    for path in output or ():
        found.save(path)
        out.print(f"scores: {path}")
    shown = _evaluation_by(found, protocol)
    if picture is not None:
        from gliomask.figures import save_figure, scores_figure

        with style.colours():
            save_figure(scores_figure(shown.rows(), shown.protocol.headline[:2]), picture, style)
        out.print(f"picture: {picture}")
    if pictures is not None and shown.scores:
        from gliomask.evaluation import find_worst

        gallery = find_worst(
            shown, prediction, truth, labels=labels, truth_labels=truth_labels, edited=edited, count=worst
        )
        with style.colours():
            _draw_all(shown, gallery, pictures, style)
    end_batch(found.problems, len(shown.scores))


def _draw_all(found: Evaluation, worst: list[WorstCase], folder: Path, style: FigureStyle) -> None:
    from gliomask.figures import bland_altman_figure, gallery_figure, save_figure, scores_figure
    from gliomask.report.pictures import gallery_cases

    title = f"the worst of {_cases(len(found.scores))} by {found.protocol.headline[0]} of {found.protocol.name}"
    title += f"; {len(found.missing)} without a prediction not shown" if found.missing else ""
    rows = found.rows()
    figures = {
        "scores": scores_figure(rows, found.protocol.headline[:2]),
        "volumes": bland_altman_figure(rows),
        "worst": gallery_figure(gallery_cases(worst), title),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.{style.format}", style)
    out.print(f"pictures: {folder}")
    for finding in worst:
        out.print(f"  {finding.case}: {finding.mistakes[0].text}")


def _known() -> list[str]:
    from gliomask.metrics import PROTOCOLS  # imported here, so that --help need not load scipy

    return list(PROTOCOLS)


def _evaluation_by(found: Evaluation | ProtocolComparison, protocol: str) -> Evaluation:
    from gliomask.evaluation import Evaluation

    if isinstance(found, Evaluation):
        return found
    return next(evaluation for evaluation in found.evaluations if evaluation.protocol.name == protocol)


def _show(found: Evaluation | ProtocolComparison) -> None:
    from gliomask.evaluation import Evaluation

    first = found if isinstance(found, Evaluation) else found.evaluations[0]
    if first.missing:
        warn(f"without a prediction, scored as worst: {len(first.missing)} ({listed(first.missing)})")
    for note in first.notes[:_SHOWN]:
        warn(str(note))
    if len(first.notes) > _SHOWN:
        warn(f"and {len(first.notes) - _SHOWN} more of these remarks")
    if not first.scores:
        return
    if isinstance(found, Evaluation):
        _print_summary(found)
    else:
        _print_protocol_comparison(found)


def _print_summary(found: Evaluation) -> None:
    from rich.table import Table

    out.print(f"{found.protocol.name}, {_cases(len(found.scores))}{found.remark()}")
    _print_makers(found)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("region", no_wrap=True)
    table.add_column("score", no_wrap=True)
    for heading in ("mean ± std", "95 % interval", "median"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.summary():
        for place, metric in enumerate(found.protocol.headline):
            mean, std, low, high, median = (
                _number(row[f"{metric}_{part}"]) for part in ("mean", "std", "low", "high", "median")
            )
            one = row[f"{metric}_cases"] == 1  # of which there is neither a deviation nor an interval
            spread, interval = (mean, "") if one else (f"{mean} ± {std}", f"{low} – {high}")
            table.add_row("" if place else str(row["region"]), metric, spread, interval, median)
    out.print(table)
    empty = [f"{row['region']} {row['empty_truth']}" for row in found.summary() if row["empty_truth"]]
    if empty:
        out.print(f"cases with an empty truth: {', '.join(empty)}; -o also writes the means without them")


def _print_makers(found: Evaluation) -> None:
    """Print whose models made the masks, as far as files beside them say so."""
    for maker, made in found.made_by.items():
        out.print(f"masks by {maker}" + (f" ({_cases(made)})" if made < len(found.scores) else ""))


def _print_protocol_comparison(found: ProtocolComparison) -> None:
    from rich.table import Table

    first = found.evaluations[0]
    out.print(f"the same predictions by the protocol of each year, {_cases(len(first.scores))}{first.remark()}")
    _print_makers(first)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("region", no_wrap=True)
    table.add_column("protocol", no_wrap=True)
    for heading in ("Dice", "HD95 (mm)", "found", "false", "missed"):
        table.add_column(heading, justify="right", no_wrap=True)
    summaries = [{str(row["region"]): row for row in evaluation.summary()} for evaluation in found.evaluations]
    for region in dict.fromkeys(region for rows in summaries for region in rows):
        name = region
        for evaluation, rows in zip(found.evaluations, summaries, strict=True):
            if region in rows:
                dice, hd95 = (_number(rows[region][f"{metric}_mean"]) for metric in evaluation.protocol.headline[:2])
                lesions = [
                    str(sum(int(regions[region][count]) for regions in evaluation.scores.values() if region in regions))
                    for count in ("lesion_tp", "lesion_fp", "lesion_fn")
                ]
                table.add_row(name, evaluation.protocol.name, dice, hd95, *lesions)
                name = ""
    out.print(table)
    out.print("Dice, HD95: means as the protocol reports them; found, false, missed: lesions")
    _print_reasons(found)


def _print_reasons(found: ProtocolComparison) -> None:
    if not found.disagreements:
        out.print("the protocols agree in every case")
        return
    out.print()
    out.print("where they disagree, and why", style="bold")
    for kind, met in found.reasons().items():
        where, reason = met[0]
        count = len({disagreement.case for disagreement, _ in met})
        out.print(f"{kind}, {_cases(count)}, such as {where.region} of {where.case}:")
        values = ", ".join(f"{name} {_number(value)}" for name, value in where.dice.items())
        out.print(f"  {reason.text}")
        out.print(f"  Dice: {values}")


def _cases(count: int) -> str:
    return f"{count} case{'s' if count != 1 else ''}"


def _number(value: str | float) -> str:
    number = float(value)
    return "none" if math.isnan(number) else f"{number:.3f}"
