"""A mask as a DICOM Segmentation, for archives, Slicer and OHIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.frames import Frame
from gliomask.acquisition.headers import require_pydicom
from gliomask.exchange.segments import ABNORMAL_STRUCTURE, BRAIN, Origin, Segment, find_segments
from gliomask.exchange.source import (
    SourceSeries,
    complete,
    labels_on,
    make_uids,
    read_source,
    save_dataset,
    silent,
)
from gliomask.extras import missing_extra
from gliomask.version import VERSION
from gliomask.volume import Volume

_SERIES_NUMBER = 9000  # added to the number of the series that the mask lies on


def write_dicom_seg(
    path: Path, mask: Volume, files: Sequence[Path], origin: Origin, *, segments: str = "tissues"
) -> None:
    """Write a mask as a DICOM Segmentation on the grid of the series on which it lies.

    The object is filed with the study of the images, so it holds the patient's and the study's identifiers as their
    headers do. It names the series, and for each of its frames the image that it lies on. Frames without any voxel are
    kept, so that every slice of the series has one for each segment, in the order of their places. A slice that is
    missing in the series is missing here too.

    Args:
        path: The file to write.
        mask: One channel of labels, on the grid of the series; its axes may be stored in another order.
        files: The DICOM files of the series, single-frame or multi-frame.
        origin: What the mask shows, and how it was made.
        segments: `tissues` (NCR, ED, ET), which every viewer shows, or `regions` (WT, TC, ET), which overlap. Segments
            without a voxel are described too.

    Raises:
        InputError: highdicom or pydicom is not installed, the files are not one series of images with a frame of
            reference, the mask lies on another grid, its numbers are not in the convention, or `path` cannot be written
            to.
    """
    source = read_source(files)
    labels = labels_on(source, mask)
    uids = make_uids(source, labels, *describe_seg(origin, segments))
    save_dataset(path, build_seg(source, labels, origin, segments, uids))


def describe_seg(origin: Origin, segments: str) -> tuple[str, ...]:
    """Return what determines a Segmentation beside the mask and the images."""
    return ("SEG", repr(origin), segments)


def build_seg(
    source: SourceSeries, labels: NDArray[np.uint8], origin: Origin, segments: str, uids: tuple[str, str]
) -> Any:
    """Return the data set that `write_dicom_seg` writes.

    Args:
        source: The series.
        labels: On its grid.
        origin, segments: See `write_dicom_seg`.
        uids: Of the series and of the object that are made.
    """
    highdicom = require_highdicom()
    shown = find_segments(labels, origin, segments)
    slices = [index for index, _, _ in source.places()]
    masks = np.stack([segment.mask for segment in shown], axis=-1)  # (X, Y, Z, segments)
    with silent():
        dataset = highdicom.seg.Segmentation(
            source_images=_stand_ins(source),
            pixel_array=np.ascontiguousarray(masks[:, :, slices].transpose(2, 1, 0, 3).astype(np.uint8)),
            plane_positions=[
                highdicom.PlanePositionSequence("PATIENT", image_position=frame.position)
                for _, frame, _ in source.places()
            ],
            segmentation_type="BINARY",
            segment_descriptions=[
                _description(highdicom, number, segment, origin) for number, segment in enumerate(shown, 1)
            ],
            series_instance_uid=uids[0],
            sop_instance_uid=uids[1],
            series_number=_SERIES_NUMBER + int(source.first.get("SeriesNumber") or 0),
            instance_number=1,
            manufacturer="gliomask",
            manufacturer_model_name="gliomask",
            software_versions=VERSION,
            device_serial_number="-".join(digest[:16] for digest in origin.models)[:64] or VERSION,
            content_label="GLIOMASK",
            content_description="Research use only, not a medical device",
            omit_empty_frames=False,
        )
        complete(dataset, source)
    dataset.ContentCreatorName = ""  # which must be there; it means a person
    return dataset


def require_highdicom() -> Any:
    """Return highdicom.

    Raises:
        InputError: It is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise missing_extra("DICOM Segmentations need highdicom", "dicom") from error
    return highdicom


def _description(highdicom: Any, number: int, segment: Segment, origin: Origin) -> Any:
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{segment.name} {segment.meaning}",
        segmented_property_category=highdicom.sr.CodedConcept(*ABNORMAL_STRUCTURE),
        segmented_property_type=highdicom.sr.CodedConcept(*segment.code),
        algorithm_type=origin.algorithm_type,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="gliomask",
            family=codes.DCM.ArtificialIntelligence,
            version=VERSION,
            parameters={f"model{place}": digest for place, digest in enumerate(origin.models, 1)},
        ),
        anatomic_regions=[highdicom.sr.CodedConcept(*BRAIN)],
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
    )


def _stand_ins(source: SourceSeries) -> list[Any]:
    """Headers that hold what highdicom needs of the images and nothing else.

    The orientation and the spacing are those of the first frame, which may differ from those of the others in the last
    digits and may be given once or for every frame.
    """
    frames = [frame for frame in source.frames if frame is not None]
    if len(source.headers) == 1 and "NumberOfFrames" in source.first:
        return [_multi_frame(source, frames)]
    return [_single_frame(source, frame, frames[0]) for frame in frames]


def _single_frame(source: SourceSeries, frame: Frame, first: Frame) -> Any:
    image = _without_place(source, source.headers[frame.path])
    image.ImagePositionPatient = list(frame.position)
    image.ImageOrientationPatient = list(first.orientation)
    image.PixelSpacing = list(first.spacing)
    image.SliceThickness = source.thickness_mm
    return image


def _multi_frame(source: SourceSeries, frames: Sequence[Frame]) -> Any:
    pydicom = require_pydicom()
    image = _without_place(source, source.first)
    image.NumberOfFrames = int(source.first.NumberOfFrames)
    orientation, measures, shared = (pydicom.Dataset() for _ in range(3))
    orientation.ImageOrientationPatient = list(frames[0].orientation)
    measures.PixelSpacing, measures.SliceThickness = list(frames[0].spacing), source.thickness_mm
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    own = []
    for frame in source.all_frames:
        position, group = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = list(frame.position)
        group.PlanePositionSequence = [position]
        own.append(group)
    image.PerFrameFunctionalGroupsSequence = own
    return image


def _without_place(source: SourceSeries, header: Any) -> Any:
    pydicom = require_pydicom()
    image = pydicom.Dataset()
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, name, str(header[name].value))
    image.Modality, image.ImageType = "MR", ["ORIGINAL", "PRIMARY"]
    image.Rows, image.Columns = source.grid.shape[1], source.grid.shape[0]
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, name, "")
    image.StudyDate, image.StudyTime = None, None
    for name in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if name in header:
            image[name] = header[name]
    return image
