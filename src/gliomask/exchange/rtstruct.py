"""A mask as a DICOM RT Structure Set, for planning systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.frames import Frame
from gliomask.acquisition.headers import require_pydicom
from gliomask.exchange.contours import Ring, outline
from gliomask.exchange.segments import ABNORMAL_STRUCTURE, Origin, Segment, find_segments
from gliomask.exchange.source import (
    SourceSeries,
    complete,
    labels_on,
    make_uids,
    read_source,
    save_dataset,
    silent,
)
from gliomask.version import VERSION
from gliomask.volume import Volume

_RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY = "1.2.840.10008.3.1.2.3.1"  # the class by which structure sets refer to a study
_SERIES_NUMBER = 9500  # added to the number of the series that the mask lies on


def write_rtstruct(path: Path, mask: Volume, files: Sequence[Path], origin: Origin) -> None:
    """Write the regions of a mask as a DICOM RT Structure Set on the series on whose grid it lies.

    Each region is a structure (`gliomask_WT`, `gliomask_TC`, `gliomask_ET`) of closed planar contours in the planes of
    the images, in the patient's coordinates. The contours run along the border of the voxels (see `outline`), holes are
    joined to the contour around them. A region without a voxel is a structure without contours.

    The object is filed with the study of the images, so it holds the patient's and the study's identifiers as their
    headers do. A slice that is missing in the series has no contours.

    Args:
        path: The file to write.
        mask: One channel of labels, on the grid of the series; its axes may be stored in another order.
        files: The DICOM files of the series, single-frame or multi-frame.
        origin: What the mask shows, and how it was made.

    Raises:
        InputError: contourpy or pydicom is not installed, or see `write_dicom_seg`.
    """
    source = read_source(files)
    labels = labels_on(source, mask)
    uids = make_uids(source, labels, *describe_rtstruct(origin))
    save_dataset(path, build_rtstruct(source, labels, origin, uids))


def describe_rtstruct(origin: Origin) -> tuple[str, ...]:
    """Return what determines a structure set beside the mask and the images."""
    return ("RTSTRUCT", repr(origin))


def build_rtstruct(source: SourceSeries, labels: NDArray[np.uint8], origin: Origin, uids: tuple[str, str]) -> Any:
    """Return the data set that `write_rtstruct` writes.

    Args:
        source: The series.
        labels: On its grid.
        origin: See `write_rtstruct`.
        uids: Of the series and of the object that are made.
    """
    pydicom = require_pydicom()
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = _RT_STRUCTURE_SET
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uids[1]
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SeriesInstanceUID, dataset.Modality, dataset.OperatorsName = uids[0], "RTSTRUCT", ""
    dataset.SeriesNumber = _SERIES_NUMBER + int(source.first.get("SeriesNumber") or 0)
    dataset.InstanceNumber = 1
    dataset.Manufacturer = dataset.ManufacturerModelName = "gliomask"
    dataset.SoftwareVersions = VERSION
    with silent():
        complete(dataset, source)
    dataset.StructureSetLabel, dataset.StructureSetName = "gliomask", "gliomask tumour segmentation"
    dataset.StructureSetDescription = "Research use only, not a medical device. Made by " + _made_by(origin)
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime  # which structure sets do not have
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    dataset.ApprovalStatus = "UNAPPROVED"
    segments = find_segments(labels, origin, "regions")
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, segment in enumerate(segments, 1):
        dataset.StructureSetROISequence.append(_structure(number, segment, origin, source))
        dataset.ROIContourSequence.append(_contours(number, segment, source))
        dataset.RTROIObservationsSequence.append(_observation(number, segment))
    return dataset


def _made_by(origin: Origin) -> str:
    models = ", ".join(digest[:16] for digest in origin.models)
    return f"gliomask {VERSION}" + (f" with the model {models}" if models else "")


def _item(**values: Any) -> Any:
    item = require_pydicom().Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _reference(header: Any, frame: Frame | None) -> Any:
    item = _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    if frame is not None and "NumberOfFrames" in header:
        item.ReferencedFrameNumber = frame.index + 1
    return item


def _frame_of_reference(source: SourceSeries) -> Any:
    images = [_reference(header, None) for header in source.headers.values()]
    series = _item(SeriesInstanceUID=source.first.SeriesInstanceUID, ContourImageSequence=images)
    study = _item(
        ReferencedSOPClassUID=_STUDY,
        ReferencedSOPInstanceUID=source.first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _structure(number: int, segment: Segment, origin: Origin, source: SourceSeries) -> Any:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.first.FrameOfReferenceUID,
        ROIName=f"gliomask_{segment.name}",  # at most 16 characters, the limit of some planning systems
        ROIDescription=f"{segment.meaning}, research use only",
        ROIGenerationAlgorithm=origin.algorithm_type,
    )


def _observation(number: int, segment: Segment) -> Any:
    code, scheme, meaning = segment.code
    kind = _item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
    code, scheme, meaning = ABNORMAL_STRUCTURE
    category = _item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        SegmentedPropertyCategoryCodeSequence=[category],
        RTROIIdentificationCodeSequence=[kind],
        RTROIInterpretedType="",
        ROIInterpreter="",
    )


def _contours(number: int, segment: Segment, source: SourceSeries) -> Any:
    item = _item(ROIDisplayColor=list(segment.colour), ReferencedROINumber=number)
    contours = [
        _item(
            ContourImageSequence=[_reference(header, frame)],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(ring),
            ContourData=_coordinates(ring, frame),
        )
        for index, frame, header in source.places()
        for ring in outline(segment.mask[:, :, index])
    ]
    if contours:
        item.ContourSequence = contours
    return item


def _coordinates(ring: Ring, frame: Frame) -> list[str]:
    """The corners in DICOM's millimetres (LPS), as text, to a thousandth."""
    row, column = np.array(frame.orientation[:3]), np.array(frame.orientation[3:])
    between_rows, between_columns = frame.spacing
    places = np.array(frame.position) + ring[:, :1] * between_columns * row + ring[:, 1:] * between_rows * column
    return [f"{value:.3f}" for value in places.ravel()]
