"""Logits of cases that a model was not trained on, with the true masks: the data that rules are fitted to."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.inference.postprocessing.clean import clean, to_probabilities
from gliomask.metrics import METRICS, Spacing, get_protocol, joint_box, score_case
from gliomask.model.plan import Postprocessing

_PROTOCOL = "brats2023-gli"
_FIELDS = ("logits", "truth", "spacing_mm")


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One case, cropped to the bounding box of the brain."""

    id: str
    logits: NDArray[np.float16]
    """The network's logits, `(R, x, y, z)`."""
    truth: NDArray[np.bool_]
    """The true masks, `(R, x, y, z)`."""
    spacing_mm: Spacing


def save_out_of_fold(path: Path, case: OutOfFold) -> None:
    """Write a case as an `.npz` file with `logits` (float16), `truth` (uint8) and `spacing_mm`; whole or not at all."""
    buffer = io.BytesIO()
    truth = case.truth.astype(np.uint8)
    np.savez_compressed(buffer, logits=case.logits.astype(np.float16), truth=truth, spacing_mm=case.spacing_mm)
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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npz ({error}). Write it again.") from error
    if logits.ndim != 4 or logits.shape != truth.shape or len(logits) != len(regions) or spacing.shape != (3,):
        raise InputError(
            f"{path}: logits {logits.shape}, truth {truth.shape} and spacing_mm {spacing.shape} do not match; logits "
            f"and truth must be (R, x, y, z) with R = {len(regions)} ({', '.join(regions)}), and spacing_mm (3,)."
        )
    x, y, z = map(float, spacing)
    return OutOfFold(path.stem, logits.astype(np.float16), truth.astype(bool), (x, y, z))


def trim(case: OutOfFold, regions: Sequence[str], rule: Postprocessing, least_threshold: float) -> OutOfFold:
    """Return a case cropped to the voxels that are true or may be predicted, so that rules are scored faster.

    The scores of all rules that are tried later are the same as on the whole case.

    Args:
        case: The case.
        regions: The names of its channels.
        rule: Has the temperatures of the rules that are tried.
        least_threshold: The lowest threshold of the rules that are tried.
    """
    odds = float(np.log(least_threshold / (1 - least_threshold)))
    found = [
        (logits > odds * rule.rule(region).temperature) | truth
        for region, logits, truth in zip(regions, case.logits, case.truth, strict=True)
    ]
    x, y, z = joint_box(*found)
    if not x.stop:  # nothing is true, and nothing will be found
        x = y = z = slice(0, 1)
    return replace(case, logits=case.logits[:, x, y, z], truth=case.truth[:, x, y, z])


def score_rule(case: OutOfFold, regions: Sequence[str], rule: Postprocessing) -> NDArray[np.float64]:
    """Return the Dice and the lesion-wise Dice of BraTS 2023 (glioma) of each region under some rules, `(R, 2)`.

    Raises:
        InputError: The protocol of BraTS 2023 has no such region.
    """
    probabilities = to_probabilities(case.logits.astype(np.float32), regions, rule)
    found = clean(probabilities, regions, rule, case.spacing_mm)
    truth, prediction = (dict(zip(regions, masks, strict=True)) for masks in (case.truth, found))
    protocol = get_protocol(_PROTOCOL)
    unknown = [region for region in regions if region not in protocol.regions]
    if unknown:
        raise InputError(f"rules can be fitted for {', '.join(protocol.regions)}, not for {', '.join(unknown)}.")
    dice = {"dice": METRICS["dice"]}
    lean = replace(protocol, regions=tuple(regions), metrics=dice, lesion_metrics=(METRICS["dice"],))
    scores = score_case(truth, prediction, case.spacing_mm, lean)
    return np.array([[scores[region]["dice"], scores[region]["lesion_dice"]] for region in regions])
