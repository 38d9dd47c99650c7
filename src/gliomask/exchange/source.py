"""The DICOM series on which a mask lies: its frames and headers, and what objects derived from it share with it."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.frames import Frame, arrange
from gliomask.acquisition.headers import frames_of, require_pydicom
from gliomask.errors import InputError
from gliomask.files import replacing
from gliomask.version import VERSION
from gliomask.volume import Grid, Volume, match_axes

DESCRIPTION = "gliomask tumour segmentation, research use only"
"""The series description of everything that is written."""

# What a PACS files an object by, from DICOM's patient and study modules.
_FILED_BY = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "StudyDescription"),
)
# Those that must be there, if only empty.
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)


@dataclass(frozen=True)
class SourceSeries:
    """A series of images, or one of several acquisitions in it, as a stack of frames."""

    headers: dict[Path, Any]
    """The header of each file, without pixels."""
    grid: Grid
    frames: tuple[Frame | None, ...]
    """In the order of the grid's last axis; None for a slice that is missing in the series."""
    all_frames: tuple[Frame, ...]
    """In the order of the files, and of the frames in each; more than `frames` if several lie at one place."""
    thickness_mm: float
    """Of a slice, as the header says; the distance between slices where it does not."""

    @property
    def first(self) -> Any:
        """The header of the first file."""
        return next(iter(self.headers.values()))

    def places(self) -> Iterator[tuple[int, Frame, Any]]:
        """Yield the number along the grid's last axis, the frame and its file's header, for each slice that exists."""
        for index, frame in enumerate(self.frames):
            if frame is not None:
                yield index, frame, self.headers[frame.path]


def read_source(files: Sequence[Path]) -> SourceSeries:
    """Return the series in DICOM files, which may be those of one acquisition of several in a series.

    If a file of several frames holds more than one frame at a place, the first of them counts.

    Raises:
        InputError: A file is no DICOM image or of another series, the frames form no volume, or they have no frame of
            reference, which tells other systems that a segmentation lies in their space.
    """
    pydicom = require_pydicom()
    headers: dict[Path, Any] = {}
    frames: list[Frame] = []
    with silent():
        for path in files:
            try:
                headers[path] = pydicom.dcmread(path, stop_before_pixels=True)
                frames += frames_of(path, headers[path])
            except Exception as error:  # pydicom raises many kinds
                raise InputError(f"{path.name}: is no DICOM image, or is damaged.") from error
        _check_belong_together(headers)
        thickness = _slice_thickness(next(iter(headers.values())))
    if not frames:
        raise InputError(f"{files[0].name}: its frames have no position in space.")
    at: dict[tuple[float, ...], Frame] = {}
    for frame in frames:
        at.setdefault(tuple(round(value, 2) for value in frame.position), frame)
    geometry = arrange(list(at.values()))
    if isinstance(geometry, str):
        raise InputError(f"{files[0].name} and the other files of its series form no volume: {geometry}.")
    between = round(geometry.grid.spacing_mm[2], 5)
    return SourceSeries(headers, geometry.grid, geometry.frames, tuple(frames), thickness or between)


def labels_on(source: SourceSeries, mask: Volume) -> NDArray[np.uint8]:
    """Return the labels of a mask on the grid of a series, `(X, Y, Z)`: along a row, along a column, slice by slice.

    Raises:
        InputError: The mask lies on another grid.
    """
    turned = match_axes(mask, source.grid)
    if difference := source.grid.difference(turned.grid):
        raise InputError(
            f"the mask does not lie on the grid of the DICOM series: {difference}. Name the files of the series on "
            "whose grid it was made."
        )
    labels: NDArray[np.uint8] = turned.data[0].astype(np.uint8)
    return labels


def make_uids(source: SourceSeries, labels: NDArray[np.uint8], *content: str) -> tuple[str, str]:
    """Return the UIDs of a series and of the object in it, which follow from the mask, the images and the content.

    The same answer for the same images has the same UIDs, so that an archive files it once.
    """
    pydicom = require_pydicom()
    images = sorted(str(header.SOPInstanceUID) for header in source.headers.values())
    drawn = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    entropy = ["gliomask", VERSION, drawn, *images, *content]
    series, instance = (str(pydicom.uid.generate_uid(entropy_srcs=[*entropy, what])) for what in ("series", "object"))
    return series, instance


def read_instance_uid(path: Path) -> str | None:
    """Return the UID of the object in a DICOM file that was written here, or None if there is none or it is damaged."""
    pydicom = require_pydicom()
    try:
        with silent():
            found = pydicom.dcmread(path)
            # The last element of each kind, which pydicom leaves out without an error where a file was cut short.
            return str(found.SOPInstanceUID) if "PixelData" in found or "ApprovalStatus" in found else None
    except Exception:  # pydicom raises many kinds
        return None


def complete(dataset: Any, source: SourceSeries) -> None:
    """Add what an object derived from a series has in common with it: patient, study, frame of reference; and the time.

    Patient and study must be those of the images, because archives and planning systems file an object by them.
    """
    header, now = source.first, datetime.now()
    for name in _REQUIRED:
        setattr(dataset, name, "")
    for name in _FILED_BY:
        with suppress(Exception):  # a value that cannot be read is left empty
            dataset[name] = header[name]
    dataset.StudyInstanceUID = header.StudyInstanceUID
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = str(header.get("PositionReferenceIndicator") or "")
    dataset.SeriesDescription = DESCRIPTION
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(dataset, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{name}Time", now.strftime("%H%M%S"))


def save_dataset(path: Path, dataset: Any) -> None:
    """Write a DICOM file whole or not at all.

    Raises:
        InputError: A value cannot be written, or the place cannot be written to.
    """
    with silent(), replacing(path) as partial:
        try:
            dataset.save_as(partial, enforce_file_format=True)
        except OSError:
            raise
        except Exception as error:  # pydicom's message may quote what the header says of the patient
            raise InputError(
                f"{path.name}: a value that was taken from the headers of the images cannot be written "
                f"({type(error).__name__})."
            ) from None


@contextmanager
def silent() -> Iterator[None]:
    """Let pydicom and highdicom say nothing: their warnings quote the values of headers, such as a patient's name."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _slice_thickness(header: Any) -> float | None:
    """The first one in a header or in its functional groups."""
    with suppress(Exception):  # a value that cannot be read is none
        found = (element.value for element in header.iterall() if element.keyword == "SliceThickness")
        return next((float(value) for value in found if value), None)
    return None


def _check_belong_together(headers: dict[Path, Any]) -> None:
    first = next(iter(headers.values()))
    for path, header in headers.items():
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID"):
            if not header.get(name):
                raise InputError(
                    f"{path.name}: its header has no {name}, which an object that refers to it must name. Export the "
                    "series again from the archive."
                )
        if header.SeriesInstanceUID != first.SeriesInstanceUID:
            raise InputError(f"{path.name}: belongs to another series than the first file. Name the files of one.")
