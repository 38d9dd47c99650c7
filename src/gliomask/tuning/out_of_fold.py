"""Logits of cases that a model was not trained on, with the true masks: the data that rules are fitted to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.inference.postprocessing import clean, to_probabilities
from gliomask.metrics import METRICS, Spacing, get_protocol, joint_box, score_case
from gliomask.model.plan import Postprocessing

_PROTOCOL = "brats2023-gli"
_FIELDS = ("logits", "truth", "spacing_mm")
_DECIDED, _CONTRAST, _MADE_FROM = "decided", "contrast", "made_from"


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One case, cropped to the bounding box of the brain."""

    id: str
    logits: NDArray[np.float16]
    """The regions' logits, `(R, x, y, z)`."""
    truth: NDArray[np.bool_]
    """The true masks, `(R, x, y, z)`."""
    spacing_mm: Spacing
    decided: NDArray[np.bool_] | None = None
    """The masks `(R, x, y, z)` of the most probable classes, of a network with classes; see `clean`."""
    contrast: bool = True
    """Whether the case has T1 after contrast; see `Postprocessing.given`."""


def save_out_of_fold(path: Path, case: OutOfFold, *, made_from: str = "", compressed: bool = True) -> None:
    """Write a case as an `.npz` file, whole or not at all.

    It holds `logits` (float16), `truth` (uint8) and `spacing_mm`, and where the case has them `decided` and `contrast`.

    Args:
        path: The file.
        case: The case.
        made_from: A text that says what the logits were made from; see `read_made_from`.
        compressed: Compress the arrays, which takes a second or two.
    """
    arrays: dict[str, Any] = {
        "logits": case.logits.astype(np.float16),
        "truth": case.truth.astype(np.uint8),
        "spacing_mm": case.spacing_mm,
        _CONTRAST: case.contrast,
        **({} if case.decided is None else {_DECIDED: case.decided.astype(np.uint8)}),
        **({_MADE_FROM: made_from} if made_from else {}),
    }
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_out_of_fold(path: Path, regions: Sequence[str]) -> OutOfFold:
    """Return the case in an `.npz` file; its id is the file's name without the ending.

    Raises:
        InputError: The file is missing or damaged, an array is missing, or the shapes do not match.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            missing = [name for name in _FIELDS if name not in stored]
            if missing:
                raise InputError(f"{path}: has no {', '.join(missing)}; {', '.join(_FIELDS)} are needed.")
            logits, truth, spacing = (stored[name] for name in _FIELDS)
            decided = stored[_DECIDED].astype(bool) if _DECIDED in stored else None
            contrast = bool(stored[_CONTRAST]) if _CONTRAST in stored else True
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npz ({error}). Write it again.") from error
    alike = logits.shape == truth.shape and (decided is None or decided.shape == truth.shape)
    if logits.ndim != 4 or not alike or len(logits) != len(regions) or spacing.shape != (3,):
        raise InputError(
            f"{path}: logits {logits.shape}, truth {truth.shape} and spacing_mm {spacing.shape} do not match; logits "
            f"and truth must be (R, x, y, z) with R = {len(regions)} ({', '.join(regions)}), and spacing_mm (3,)."
        )
    x, y, z = map(float, spacing)
    return OutOfFold(path.stem, logits.astype(np.float16), truth.astype(bool), (x, y, z), decided, contrast)


def read_made_from(path: Path) -> str:
    """Return what the logits in an `.npz` file were made from; empty if there is no such file or it does not say."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return str(stored[_MADE_FROM]) if _MADE_FROM in stored else ""
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return ""


def trim(case: OutOfFold, regions: Sequence[str], rules: Sequence[Postprocessing], least_threshold: float) -> OutOfFold:
    """Return a case cropped to the voxels that are true or may be predicted, so that rules are scored faster.

    The scores of all rules that are tried later are the same as on the whole case.

    Args:
        case: The case.
        regions: The names of its channels.
        rules: Have the temperatures of the rules that are tried, and their thresholds where these are lower.
        least_threshold: The lowest threshold of the rules that are tried.
    """
    found = [
        (logits > min(_least_logit(region, rule, least_threshold) for rule in rules)) | truth
        for region, logits, truth in zip(regions, case.logits, case.truth, strict=True)
    ]
    if case.decided is not None:
        found += list(case.decided)
    x, y, z = joint_box(*found)
    if not x.stop:  # nothing is true, and nothing will be found
        x = y = z = slice(0, 1)
    decided = None if case.decided is None else case.decided[:, x, y, z]
    return replace(case, logits=case.logits[:, x, y, z], truth=case.truth[:, x, y, z], decided=decided)


def _least_logit(region: str, rules: Postprocessing, least_threshold: float) -> float:
    """Return the logit above which a voxel may belong to a region."""
    rule = rules.rule(region)
    without_et = rules.tc_threshold_without_et if region == "TC" else None
    least = min(least_threshold, rule.threshold, without_et or 1.0)
    return float(np.log(least / (1 - least))) * rule.temperature


def scored_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """Return those of some regions whose rules can be scored, and so fitted.

    Raises:
        InputError: There is none.
    """
    known = get_protocol(_PROTOCOL).regions
    found = tuple(region for region in regions if region in known)
    if not found:
        raise InputError(f"rules can be fitted for {', '.join(known)}, not for {', '.join(regions)}.")
    return found


def masks_by_rule(case: OutOfFold, regions: Sequence[str], rule: Postprocessing) -> NDArray[np.bool_]:
    """Return the mask of each region that `predict` would write with some rules, `(R, x, y, z)`."""
    rule = rule if case.contrast else rule.given(())
    probabilities = to_probabilities(case.logits.astype(np.float32), regions, rule)
    return clean(probabilities, regions, rule, case.spacing_mm, case.decided)


def score_masks(case: OutOfFold, regions: Sequence[str], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice and the lesion-wise Dice of BraTS 2023 (glioma) of each of the `scored_regions`, `(R, 2)`.

    Raises:
        InputError: As for `scored_regions`.
    """
    scored = scored_regions(regions)
    truth, prediction = (
        {region: mask for region, mask in zip(regions, both, strict=True) if region in scored}
        for both in (case.truth, masks)
    )
    dice = {"dice": METRICS["dice"]}
    lean = replace(get_protocol(_PROTOCOL), regions=scored, metrics=dice, lesion_metrics=(METRICS["dice"],))
    scores = score_case(truth, prediction, case.spacing_mm, lean)
    return np.array([[scores[region]["dice"], scores[region]["lesion_dice"]] for region in scored])


def score_rule(case: OutOfFold, regions: Sequence[str], rule: Postprocessing) -> NDArray[np.float64]:
    """Return the scores of `score_masks` under some rules.

    Raises:
        InputError: As for `scored_regions`.
    """
    return score_masks(case, regions, masks_by_rule(case, regions, rule))
