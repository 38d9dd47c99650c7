"""A case and what was found in it -> a picture: where data and figures meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gliomask.cases import Case, read_case, read_mask
from gliomask.figures import CaseView, case_figure, save_figure
from gliomask.labels import get_convention, to_regions
from gliomask.prediction import Prediction
from gliomask.volume import Volume

# The sequence a radiologist would look at first for the whole tumour, and for its enhancing part.
_SHOWN = ("t2f", "t1c", "t2w", "t1n")


def draw_prediction(prediction: Prediction, path: Path) -> None:
    """Draw a case with the tumour that was found, beside the true one if the case has a mask with a convention.

    Raises:
        InputError: A file is bad, or the place cannot be written to.
    """
    case = prediction.case
    truth = None
    if case.mask is not None and case.convention is not None:
        truth = _regions(read_mask(case), case.convention)
    found = _regions(prediction.labels, prediction.convention)
    save_figure(case_figure(_view(case, truth, found, f"{case.id}   {Path(prediction.model).name}")), path)


def _view(case: Case, truth: dict[str, np.ndarray] | None, found: dict[str, np.ndarray] | None, title: str) -> CaseView:
    shown = [modality for modality in _SHOWN if modality in case.images][:2]
    volume = read_case(case, shown)
    raise NotImplementedError


def _regions(mask: Volume, convention: str) -> dict[str, np.ndarray]:
    numbers = get_convention(convention)
    regions = tuple(numbers.regions)
    return dict(zip(regions, to_regions(mask.data[0], numbers, regions), strict=True))
