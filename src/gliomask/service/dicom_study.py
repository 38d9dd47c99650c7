"""Read the DICOM files of an upload in a process of its own, and write their images without headers.

Reading damaged or hostile files can crash or hang the libraries that decode them; then only that process ends. What it
returns contains no text of a header: series are called by their numbers.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError
from gliomask.service.limits import Limits, storage_error
from gliomask.service.paths import without_paths

if TYPE_CHECKING:
    from gliomask.acquisition.study import Series, Study

log = logging.getLogger(__name__)

DICOM = "dicom"
"""The folder of the DICOM files within that of an upload; it is removed with them."""

# As `process.WORKER_COMMAND`.
READER_COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.path[:1] = filter(None, sys.path[:1]); from gliomask.service.dicom_study import main; main()",
)

_MOST_SERIES = 8
_reading: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class ReadSeries:
    """One series that was written as `images/image-N.nii.gz`."""

    label: str
    """Its number in the study, for display."""
    sequence: str | None
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str


@dataclass(frozen=True)
class ReadStudy:
    """What was read of the DICOM files of an upload."""

    series: tuple[ReadSeries, ...]
    passed_over: tuple[str, ...]


def read_dicom(folder: Path, limits: Limits, command: Sequence[str] = READER_COMMAND) -> ReadStudy:
    """Write the series of the DICOM files in `folder/dicom` to `folder/images`, each with a preview.

    The series that are used for a sequence come first, then others that are volumes, eight at most.

    Raises:
        InputError: The files are of several examinations, hold no image that can be used, exceed a limit, or cannot be
            read in `limits.study_seconds`.
    """
    environment = {name: value for name, value in os.environ.items() if name != "GLIOMASK_TOKEN"}
    request = json.dumps({"folder": str(folder), "limits": asdict(limits)})
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the libraries quote values of headers in their warnings
        env=environment,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        _reading.add(process)
        try:
            output, _ = process.communicate(request, timeout=limits.study_seconds)
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"The DICOM files could not be read within {limits.study_seconds:g} seconds. Send fewer series."
            ) from error
        finally:
            process.kill()
            _reading.discard(process)
    try:
        answer = json.loads(output.splitlines()[-1])
        if "problem" in answer:
            raise InputError(str(answer["problem"]))
        series = tuple(
            ReadSeries(**{**one, "shape": tuple(one["shape"]), "spacing_mm": tuple(one["spacing_mm"])})
            for one in answer["series"]
        )
        return ReadStudy(series, tuple(answer["passed_over"]))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        log.error("the process that reads DICOM ended with status %s", process.returncode)
        raise InputError("The DICOM files cannot be read: they are damaged, or there is too little memory.") from error


def end_reading() -> None:
    """Kill the processes of `read_dicom`, so that a server that is stopped does not wait for them."""
    for process in tuple(_reading):
        process.kill()


def main() -> None:
    """Read the study that is requested on the standard input; write the answer as one line of JSON."""
    output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # so that the output of libraries does not mix with the answer
    request = json.loads(sys.stdin.readline())
    folder = Path(request["folder"])
    try:
        answer: dict[str, Any] = asdict(convert_study(folder, Limits(**request["limits"])))
    except InputError as error:
        refused = storage_error(error)
        answer = {"problem": str(refused or without_paths(str(error), folder / DICOM, folder))}
    except MemoryError:
        answer = {"problem": "This computer has too little memory for these images."}
    except Exception as error:  # its text may quote a header
        answer = {"problem": f"The DICOM files cannot be read ({type(error).__name__}): they are damaged."}
    output.write(json.dumps(answer) + "\n")


def convert_study(folder: Path, limits: Limits) -> ReadStudy:
    """Write the series of a study as images; see `read_dicom`, which calls this in another process.

    Raises:
        InputError: As for `read_dicom`.
    """
    study = _only_study(folder)
    passed_over = [*study.notes]
    read: list[ReadSeries] = []
    budget = limits.upload_voxels
    for choice in sorted(study.choices, key=lambda one: (not one.used, one.series.modality is None)):
        series = choice.series
        name = choice.series.name
        reason = _refusal(series, limits, budget) if len(read) < _MOST_SERIES else "more series than are read"
        if reason is None:
            try:
                read.append(_write(folder, len(read) + 1, series, choice.used))
                budget -= math.prod(read[-1].shape)
                continue
            except InputError as error:
                if storage_error(error) is not None:
                    raise
                reason = without_paths(str(error), folder / DICOM, folder)
        passed_over.append(f"{name}: {reason if series.grid is not None and not series.problem else choice.reason}")
    if not read:
        raise InputError("The upload holds no series that can be used. " + "; ".join(passed_over[:20]))
    return ReadStudy(tuple(read), tuple(passed_over))


def _only_study(folder: Path) -> Study:
    from gliomask.acquisition.find import find_studies

    studies = find_studies(folder / DICOM, by_patient=True)
    if len(studies) > 1:
        raise InputError(
            f"The upload holds {len(studies)} examinations, perhaps of several patients. Send the files of one."
        )
    if studies[0].problem:
        raise InputError(f"The upload {studies[0].problem}")
    return studies[0]


def _refusal(series: Series, limits: Limits, budget: int) -> str | None:
    if series.problem or series.grid is None:
        return series.problem or "is no volume"
    voxels = math.prod(series.grid.shape)
    extent = math.prod(n * mm for n, mm in zip(series.grid.shape, series.grid.spacing_mm, strict=True))
    if voxels > min(limits.voxels, budget) or not extent <= limits.covered_mm3:
        shape = " x ".join(map(str, series.grid.shape))
        return f"{shape} voxels are more than this server accepts"
    return None


def _write(folder: Path, number: int, series: Series, used: bool) -> ReadSeries:
    import numpy as np

    from gliomask.service.preview import preview
    from gliomask.volume import Volume, write_volume

    volume = series.read()
    rounded = np.rint(volume.data)
    fits = np.abs(rounded).max() < np.iinfo(np.int16).max and np.array_equal(rounded, volume.data)
    kept = Volume(rounded.astype(np.int16) if fits else volume.data, volume.affine)
    target = folder / "images" / f"image-{number}.nii.gz"
    write_volume(target, kept)
    target.with_name(f"image-{number}.png").write_bytes(preview(kept))
    x, y, z = (round(mm, 4) for mm in kept.spacing_mm)
    return ReadSeries(series.name, series.modality if used else None, kept.grid.shape, (x, y, z), kept.grid.axes)
