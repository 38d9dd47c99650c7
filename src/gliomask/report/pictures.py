"""A case and what was found in it -> a picture: where data and figures meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import SEQUENCE_NAMES, SHOWN_FIRST, Case, get_modality, read_case, read_mask
from gliomask.errors import InputError
from gliomask.evaluation import Finding
from gliomask.figures import CaseView, Exhibit, Picture, case_figure, require_matplotlib, save_figure
from gliomask.inference.prediction import Prediction
from gliomask.labels import get_convention, to_regions
from gliomask.volume import Volume

_REASONS = 3  # of a case that went wrong, in its caption


def draw_case(
    case: Case,
    path: Path | str | None = None,
    *,
    sequences: Sequence[str] = (),
    prediction: Prediction | None = None,
    title: str = "",
) -> Picture:
    """Draw a case: sequences, its mask if it has one with a known convention, and a prediction.

    Args:
        case: Its files are read now.
        path: A PNG to write as well.
        sequences: Which to show, in any accepted spelling; by default two, T2-FLAIR and T1 with contrast if there.
        prediction: Drawn in a column of its own.
        title: By default the id.

    Raises:
        InputError: A file is bad, a sequence is not there, the mask lies on another grid than the images, matplotlib
            is not installed, or the place cannot be written to.
    """
    require_matplotlib()
    there = [modality for modality in SHOWN_FIRST if modality in case.images]
    shown = [get_modality(name) for name in sequences] or there[:2]
    if missing := [modality for modality in shown if modality not in case.images]:
        raise InputError(f"{case.id}: has no {', '.join(missing)} to show; it has {', '.join(there) or 'no sequence'}.")
    volume = read_case(case, shown)
    truth = None
    if case.mask is not None and case.convention is not None:
        mask = read_mask(case)
        if difference := volume.grid.difference(mask.grid):
            raise InputError(f"{case.mask}: its grid differs from that of the images in {difference}.")
        truth = _regions(mask, case.convention)
    view = CaseView(
        title=title or case.id,
        affine=volume.affine,
        images={SEQUENCE_NAMES[modality]: channel for modality, channel in zip(shown, volume.data, strict=True)},
        truth=truth,
        predictions={"prediction": _regions(prediction.labels, prediction.convention)} if prediction else {},
    )
    picture = Picture(case_figure(view))
    if path is not None:
        save_figure(picture.figure, Path(path))
    return picture


def draw_prediction(
    prediction: Prediction, path: Path | str | None = None, *, sequences: Sequence[str] = ()
) -> Picture:
    """Draw what was found in a case beside its mask, if it has one; see `draw_case`."""
    title = f"{prediction.case.id}    {Path(prediction.model).name}"
    return draw_case(prediction.case, path, sequences=sequences, prediction=prediction, title=title)


def exhibit(findings: Sequence[Finding]) -> list[Exhibit]:
    """Return cases that went wrong as `gallery_figure` shows them, each with its gravest mistakes in words."""
    exhibits = []
    for finding in findings:
        values = "  ".join(f"{region} {_number(value)}" for region, value in finding.dice.items())
        first = finding.mistakes[0]
        shown = f"{first.region} on {finding.sequence}" if finding.sequence else first.region
        grave = [mistake.text for mistake in finding.mistakes if mistake.cost >= first.cost / 4]
        exhibits.append(
            Exhibit(
                title=f"{finding.case}   {values}   (shown: {shown})",
                caption="; ".join(grave[:_REASONS]),
                truth=finding.truth,
                prediction=finding.prediction,
                place=first.place,
                affine=finding.affine,
                image=finding.image,
            )
        )
    return exhibits


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"


def _regions(mask: Volume, convention: str) -> dict[str, NDArray[np.bool_]]:
    numbers = get_convention(convention)
    regions = tuple(numbers.regions)
    return dict(zip(regions, to_regions(mask.data[0], numbers, regions), strict=True))
