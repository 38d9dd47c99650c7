"""The report of a training run: curves, settings, split, and the best and worst validation case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gliomask.cases import SEQUENCE_NAMES, SHOWN_FIRST
from gliomask.errors import InputError
from gliomask.evaluation import describe
from gliomask.figures import CaseView, case_figure, curves_figure, require_matplotlib
from gliomask.files import write_text
from gliomask.labels import get_convention, to_regions
from gliomask.report.page import embed_figure, render
from gliomask.training.config import TrainConfig
from gliomask.training.record import best_row, read_config, read_log, read_run_split

if TYPE_CHECKING:
    from gliomask.inference.loading import Model
    from gliomask.training.cache import CachedCase
    from gliomask.training.validation import CaseScore

_SCORES = ("train_loss", "val_loss", "val_accuracy", "all_background_accuracy", "val_mean_iou")


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder, read without torch."""

    folder: Path
    config: TrainConfig
    rows: list[dict[str, float]]
    split: Mapping[str, list[str]]

    @property
    def best(self) -> dict[str, float]:
        """The row of the epoch with the highest mean Dice; without validation, of the last epoch."""
        return dict(best_row(self.rows))


def read_run_record(folder: Path) -> RunRecord:
    """Return the content of a run folder.

    Raises:
        InputError: The folder holds no run, no epoch is finished, or a file is damaged.
    """
    config = read_config(folder)
    rows = read_log(folder)
    split = read_run_split(folder, config.fold) if rows else {}
    if not rows:
        raise InputError(
            f"{folder}: has no finished epoch yet. Continue the training: gliomask train -o {folder} --resume"
        )
    return RunRecord(folder, config, rows, split)


def write_run_report(
    folder: Path,
    path: Path,
    *,
    pictures: bool = True,
    device: str = "auto",
    on_case: Callable[[int, int], None] = lambda done, of: None,
) -> list[str]:
    """Write the page of a run, and return notes about what it lacks.

    Args:
        folder: A run folder written by `gliomask train`.
        path: The page to write.
        pictures: Predict the validation cases and show the best and the worst; needs PyTorch and the prepared cases.
        device: The device on which they are predicted.
        on_case: Called with the numbers of predicted and of all cases.

    Raises:
        InputError: As for `read_run_record`; or matplotlib is not installed, or the page cannot be written.
    """
    require_matplotlib()
    record = read_run_record(folder)
    cases: list[dict[str, Any]] = []
    notes: list[str] = []
    if pictures and find_spec("torch") is None:
        notes = ["PyTorch is not installed, so no validation case is predicted and shown"]
    elif pictures:
        cases, notes = _held_out(record, device, on_case)
    regions = [key[9:] for key in record.best if key.startswith("val_dice_")]
    default = TrainConfig().model_dump(mode="json")
    page = render(
        "run.html",
        title=folder.resolve().name,
        record=record,
        config=record.config.model_dump(mode="json", exclude={"cases", "start_from"}),
        default=default,
        regions=regions,
        scores=[key for key in _SCORES if key in record.best],
        curves=embed_figure(curves_figure(record.rows)),
        shown=[case for case in cases if "picture" in case],
        cases=cases,
        statistics={region: describe([case["dice"][region] for case in cases]) for region in regions} if cases else {},
        notes=notes,
    )
    write_text(path, page)
    return notes


def _held_out(
    record: RunRecord, device: str, on_case: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the validation cases with their Dice, best first, with pictures of the first and the last; and notes."""
    from gliomask.inference.loading import load_torch_model
    from gliomask.training.losses import build_loss
    from gliomask.training.run import load_run
    from gliomask.training.run_comparison import common_cases
    from gliomask.training.validation import score_cached_case

    run = load_run(record.folder)
    if not record.split.get("val"):
        return [], ["the run has no validation case"]
    if not run.best.is_file():
        return [], [f"{run.best.name} does not exist any more, so no case is predicted"]
    cases, notes = common_cases({"run": run})
    if not cases:
        return [], notes
    model, loss_of = load_torch_model(run.best, device=device), build_loss(run.config.loss)
    scored: list[tuple[CachedCase, CaseScore]] = []
    for done, case in enumerate(cases, start=1):
        scored.append((case, score_cached_case(model, case, loss_of, run.config.precision)))
        on_case(done, len(cases))
    scored.sort(key=lambda pair: -float(np.mean(list(pair[1].dice.values()))))
    rows: list[dict[str, Any]] = [{"case": score.case, "dice": dict(score.dice)} for _, score in scored]
    ends = [(0, "best"), (-1, "worst")] if len(rows) > 1 else [(0, "only")]
    for place, name in ends:
        rows[place] |= {"name": name, "picture": _picture(model, scored[place][0], record.config)}
    return rows, notes


def _picture(model: Model, case: CachedCase, config: TrainConfig) -> str:
    from gliomask.training.run_comparison import plain_affine
    from gliomask.training.validation import predict_cached_case

    shown = [modality for modality in SHOWN_FIRST if modality in case.modalities][:2]
    regions = model.plan.regions
    truth = to_regions(case.labels(), get_convention(case.convention), regions)
    view = CaseView(
        title=case.id,
        affine=plain_affine(model.plan.axes, case.spacing_mm),
        images={
            SEQUENCE_NAMES[modality]: np.asarray(case.image()[case.modalities.index(modality)]) for modality in shown
        },
        truth=dict(zip(regions, truth, strict=True)),
        predictions={"prediction": predict_cached_case(model, case, config.precision)},
    )
    return embed_figure(case_figure(view))
