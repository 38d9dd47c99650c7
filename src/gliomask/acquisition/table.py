"""The series of a study and what is done with each, for people and as JSON; no patient is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gliomask.acquisition.study import REFERENCES, Series, Study
from gliomask.cases import MODALITIES
from gliomask.files import write_text
from gliomask.volume import Grid

_PLANES = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


def study_record(study: Study, *, keep_uids: bool = False) -> dict[str, Any]:
    """Return every series of a study and what is done with it, ready for JSON.

    Args:
        study: The study.
        keep_uids: Also the DICOM UIDs of the study and its series, which can identify the patient.
    """
    record: dict[str, Any] = {"case": study.id}
    if keep_uids:
        record["study_uid"] = study.uid
    if study.problem:
        record["problem"] = study.problem
    rows = []
    for choice in study.choices:
        series = choice.series
        row = {
            "series": series.name,
            "description": series.description,
            "sequence": series.modality or "other",
            "used": choice.used,
            "reason": choice.reason,
            "files": len(series.files),
            "shape": list(series.grid.shape) if series.grid else None,
            "spacing_mm": [round(edge, 4) for edge in series.grid.spacing_mm] if series.grid else None,
            "plane": plane_of(series.grid) if series.grid else None,
        }
        rows.append({**row, "uid": series.uid} if keep_uids else row)
    return {**record, "series": rows, "missing": missing_sequences(study), "notes": list(study.notes)}


def write_study_record(study: Study, folder: Path, *, keep_uids: bool) -> None:
    """Write `study.json` into a folder; see `study_record`.

    Raises:
        InputError: The place cannot be written to.
    """
    write_text(folder / "study.json", json.dumps(study_record(study, keep_uids=keep_uids), indent=2) + "\n")


def missing_sequences(study: Study) -> list[str]:
    """Return the sequences for which a study has no series."""
    return [name for name in MODALITIES if name not in study.chosen]


def geometry_text(series: Series) -> str:
    """Return a series' voxels and plane in a few words, empty where they are not known."""
    if series.grid is None:
        return ""
    shape = " x ".join(map(str, series.grid.shape))
    return f"{shape}, {' x '.join(f'{edge:.2f}' for edge in series.grid.spacing_mm)} mm, {plane_of(series.grid)}"


def plane_of(grid: Grid) -> str:
    """Return the plane of the slices: axial, coronal or sagittal, after the axis of the largest spacing."""
    along = max(range(3), key=lambda axis: (round(grid.spacing_mm[axis], 2), axis))
    return _PLANES[grid.axes[along]]


def describe_plan(study: Study) -> str:
    """Return a sentence about what `predict --raw` does with a study that can be prepared."""
    chosen = study.chosen
    reference = next(name for name in REFERENCES if name in chosen)
    others = [name for name in chosen if name != reference]
    registered = f"register {', '.join(others)} to {reference}, " if others else ""
    without = f" There is no {', '.join(missing_sequences(study))}." if missing_sequences(study) else ""
    return (
        f"predict --raw would find the brain in {', '.join(chosen)}, {registered}align it with the atlas, and write "
        f"the mask on the grid of {reference} ({chosen[reference].name}).{without}"
    )
