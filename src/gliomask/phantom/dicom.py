"""Synthetic images as DICOM series, as scanners of several manufacturers describe them; no patient's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.extras import missing_extra
from gliomask.volume import Volume

_MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SeriesHeader:
    """What a scanner says of a series."""

    description: str
    echo_ms: float
    repetition_ms: float
    inversion_ms: float | None = None
    contrast: str = ""
    manufacturer: str = "SIEMENS"
    three_d: bool = False
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")


# One way to describe each sequence for each of three manufacturers, as their product sequences are called.
DESCRIPTIONS: dict[str, dict[str, SeriesHeader]] = {
    "SIEMENS": {
        "t1n": SeriesHeader("t1_se_tra", 14, 500),
        "t1c": SeriesHeader("t1_mprage_sag_p2_iso_KM", 2.9, 1900, 900, "Gadovist", three_d=True),
        "t2w": SeriesHeader("t2_tse_tra_448", 96, 5800),
        "t2f": SeriesHeader("t2_tirm_tra_dark-fluid", 94, 9000, 2500),
    },
    "GE MEDICAL SYSTEMS": {
        "t1n": SeriesHeader("Ax T1 FSE PRE", 12, 600, manufacturer="GE MEDICAL SYSTEMS"),
        "t1c": SeriesHeader("SAG 3D BRAVO +C", 3.1, 8.2, 450, manufacturer="GE MEDICAL SYSTEMS", three_d=True),
        "t2w": SeriesHeader("Ax T2 PROPELLER", 102, 6000, manufacturer="GE MEDICAL SYSTEMS"),
        "t2f": SeriesHeader("Ax T2 FLAIR", 120, 8800, 2250, manufacturer="GE MEDICAL SYSTEMS"),
    },
    "Philips": {
        "t1n": SeriesHeader("T1W_SE", 15, 550, manufacturer="Philips"),
        "t1c": SeriesHeader("sT1W_3D_TFE", 3.5, 7.7, None, "Dotarem", manufacturer="Philips", three_d=True),
        "t2w": SeriesHeader("T2W_TSE", 80, 3000, manufacturer="Philips"),
        "t2f": SeriesHeader("FLAIR_longTR", 125, 11000, 2800, manufacturer="Philips"),
    },
}


def write_dicom_study(folder: Path, images: Mapping[str, Volume], *, number: int) -> None:
    """Write the sequences of one examination as DICOM, described as one of three manufacturers would, by the number.

    Philips stores T2 as one enhanced multi-frame image, and of Siemens' FLAIR one slice is missing.

    Raises:
        InputError: pydicom is not installed.
    """
    pydicom = _require()
    manufacturer, described = list(DESCRIPTIONS.items())[number % len(DESCRIPTIONS)]
    study, place = (pydicom.uid.generate_uid(entropy_srcs=[folder.name, what]) for what in ("study", "place"))
    for order, (name, image) in enumerate(images.items(), 1):
        into, header = folder / f"S{order:02d}", described[name]
        if (manufacturer, name) == ("Philips", "t2w"):
            write_enhanced_series(into, image, header, number=order, study_uid=study, frame_uid=place)
            continue
        lost = [image.data.shape[3] // 2] if (manufacturer, name) == ("SIEMENS", "t2f") else []
        write_dicom_series(into, image, header, number=order, study_uid=study, frame_uid=place, leave_out=lost)


def write_dicom_series(
    folder: Path,
    volume: Volume,
    header: SeriesHeader,
    *,
    number: int,
    study_uid: str,
    frame_uid: str,
    patient: str = "PHANTOM",
    leave_out: Sequence[int] = (),
) -> list[Path]:
    """Write one channel as a series of MR images, a file a slice along the grid's last axis, and return the files.

    Files have no endings, as on a CD; their order by name is not that of the slices.

    Args:
        folder: Made if it does not exist.
        volume: Intensities from 0 to 65535.
        header: How the series describes itself.
        number: The series' number; its time follows from it.
        study_uid, frame_uid: Shared by the series of one study, and of one position of the patient.
        patient: The id and name in the headers.
        leave_out: Slices that are not written, as if they had been lost.

    Raises:
        InputError: pydicom is not installed.
    """
    pydicom = _require()
    affine = _TO_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    row, column = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    series_uid = pydicom.uid.generate_uid(entropy_srcs=[study_uid, str(number), header.description])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(volume.data.shape[3]):
        if index in leave_out:
            continue
        data = _common(pydicom, header, number, patient)
        data.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[series_uid, str(index)])
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study_uid, series_uid, frame_uid
        data.InstanceNumber = index + 1
        data.ImagePositionPatient = [f"{x:.5f}" for x in (affine @ [0, 0, index, 1])[:3]]
        data.ImageOrientationPatient = [f"{x:.8f}" for x in (*row, *column)]
        data.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        data.SliceThickness = f"{spacing[2]:.5f}"
        plane = np.ascontiguousarray(volume.data[0, :, :, index].T.astype("<u2"))
        data.Rows, data.Columns = plane.shape
        data.PixelData = plane.tobytes()
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        # A name that sorts otherwise than the slices lie.
        path = folder / f"I{(index * 7919) % 100_003:06d}"
        data.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def write_enhanced_series(
    folder: Path, volume: Volume, header: SeriesHeader, *, number: int, study_uid: str, frame_uid: str
) -> Path:
    """Write one channel as a single enhanced MR image of many frames, whose order is not that of the slices.

    Args as for `write_dicom_series`.

    Raises:
        InputError: pydicom is not installed.
    """
    pydicom = _require()
    item = pydicom.dataset.Dataset
    affine = _TO_LPS @ volume.affine
    data = _common(pydicom, header, number, "PHANTOM")
    for name in ("EchoTime", "RepetitionTime", "InversionTime"):
        data.pop(name, None)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = _ENHANCED_MR
    data.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[study_uid, str(number), "enhanced"])
    data.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[study_uid, str(number), header.description])
    data.StudyInstanceUID, data.FrameOfReferenceUID, data.InstanceNumber = study_uid, frame_uid, 1
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SharedFunctionalGroupsSequence = [_shared_groups(item, affine, header)]
    slices = volume.data.shape[3]
    order = [*range(1, slices, 2), *range(0, slices, 2)]  # as interleaved slices are acquired
    frames = []
    for index in order:
        frame, position = item(), item()
        position.ImagePositionPatient = [f"{x:.5f}" for x in (affine @ [0, 0, index, 1])[:3]]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence, data.NumberOfFrames = frames, slices
    planes = np.ascontiguousarray(volume.data[0].transpose(2, 1, 0)[order].astype("<u2"))
    data.Rows, data.Columns = planes.shape[1:]
    data.PixelData = planes.tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    data.save_as(folder / "E0001", enforce_file_format=True)
    return folder / "E0001"


def _shared_groups(item: Any, affine: NDArray[np.float64], header: SeriesHeader) -> Any:
    """What all frames of an enhanced image share; the affine leads to LPS."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shared, measures, orientation, timing, echo = (item() for _ in range(5))
    measures.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
    measures.SliceThickness = f"{spacing[2]:.5f}"
    axes = (*(affine[:3, 0] / spacing[0]), *(affine[:3, 1] / spacing[1]))
    orientation.ImageOrientationPatient = [f"{x:.8f}" for x in axes]
    timing.RepetitionTime, echo.EffectiveEchoTime = str(header.repetition_ms), header.echo_ms
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    return shared


def _common(pydicom: Any, header: SeriesHeader, number: int, patient: str) -> Any:
    """What all slices of a series share."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = _MR
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.Dataset()
    data.file_meta = meta
    when = datetime(2026, 1, 1, 10, number % 60)
    data.SOPClassUID, data.Modality = _MR, "MR"
    data.PatientID = data.PatientName = patient
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyDate = data.SeriesDate = when.strftime("%Y%m%d")
    data.StudyTime, data.SeriesTime = "100000", when.strftime("%H%M%S")
    data.Manufacturer, data.SeriesDescription, data.SeriesNumber = header.manufacturer, header.description, number
    data.ImageType = list(header.image_type)
    data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "SE", "NONE", ""
    data.MRAcquisitionType = "3D" if header.three_d else "2D"
    data.EchoTime, data.RepetitionTime = str(header.echo_ms), str(header.repetition_ms)
    data.EchoTrainLength, data.PatientPosition, data.PositionReferenceIndicator = "1", "HFS", ""
    if header.inversion_ms is not None:
        data.InversionTime = str(header.inversion_ms)
    if header.contrast:
        data.ContrastBolusAgent = header.contrast
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    return data


def _require() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise missing_extra("DICOM needs pydicom", "raw") from error
    return pydicom
