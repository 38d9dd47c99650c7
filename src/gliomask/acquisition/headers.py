"""What is read of a DICOM file's header. No free text, name, id or date of a header leaves this module as it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gliomask.acquisition.classify import Header, alias_of, known_words
from gliomask.acquisition.frames import Frame
from gliomask.extras import missing_extra

_PROTOCOL = "ProtocolName"
_DESCRIPTIONS = ("SeriesDescription", _PROTOCOL, "SequenceName", "PulseSequenceName")
# MR images, enhanced MR images, and those converted from older ones.
_MR = {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DIRECTORY = "1.2.840.10008.1.3.10"
_KINDS = {
    "SR": "structured reports",
    "SEG": "segmentations",
    "RTSTRUCT": "structure sets",
    "PR": "presentation states",
    "KO": "key objects",
    "DOC": "documents",
}
# What may differ between the acquisitions within one series, in the order in which it is looked at.
_PASSES = (
    *("EchoNumbers", "EffectiveEchoTime", "AcquisitionNumber", "TemporalPositionIdentifier"),
    *("TemporalPositionIndex", "FrameAcquisitionNumber", "TriggerTime"),
)
# How a file begins that lacks the preamble: its first element is of group 2 or 8, little endian.
_GROUPS = (b"\x02\x00\x00\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")
# Hours, minutes and seconds, with colons in old files.
_CLOCK = re.compile(r"(\d\d):?(\d\d):?(\d\d(?:\.\d+)?)?")
# What stands in the place of an agent where none was given.
_NO_AGENT = re.compile(
    r"n|n ?a|nil|null|nein|false|unknown|not (?:given|used)|0+(?: 0+)?(?: ?ml)?|"
    r"(?:none?|no|keine?s?|without|w ?o|ohne|sans|sin|senza)(?: i ?v)?(?: (?:contrast|kontrast|km|gad|agent)\w*)*"
)
_UNCOMPRESSED = {"", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}


@dataclass(frozen=True)
class PassedOver:
    """A DICOM file that is no usable MR image."""

    kind: str
    """What it is instead, in the plural, for a count."""
    study: str = ""
    patient_id: str = ""
    """As that of a `Header`; empty where it is not known."""


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its preamble, or by its first element where it has none, whatever its name."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (len(start) == 132 and start[:4] in _GROUPS)


def read_header(path: Path) -> Header | PassedOver:
    """Return what is needed of a file's header, or what kind of file it is where it is no usable MR image.

    Raises:
        InputError: pydicom is not installed.
    """
    pydicom = require_pydicom()
    try:
        with path.open("rb") as file:
            found = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            pixels_at = file.tell()
        return _header(path, found, pixels_at)
    except Exception:  # pydicom raises many kinds; a damaged header is one file less
        return PassedOver("damaged or encrypted")


def frames_of(path: Path, found: Any) -> list[Frame]:
    """Return every slice of a file, from its header; none where a slice has no spacing, position or orientation."""
    shared = found.get("SharedFunctionalGroupsSequence")
    per_frame = found.get("PerFrameFunctionalGroupsSequence") or [None]
    size = (int(found.Rows), int(found.Columns))
    image, taken = str(found.get("SOPInstanceUID", "")), int(found.get("InstanceNumber") or 0)
    frames = []
    for index, own in enumerate(per_frame):
        places = [found, *_groups(shared[0] if shared else None), *_groups(own)]
        spacing, position, orientation = (
            _last(places, name) for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
        )
        if spacing is None or position is None or orientation is None:
            return []
        x, y, z = (float(value) for value in position)
        rows, columns = (float(value) for value in spacing)
        if rows <= 0 or columns <= 0:
            return []
        frames.append(
            Frame(
                path=path,
                index=index,
                position=(x, y, z),
                orientation=tuple(float(value) for value in orientation),
                spacing=(rows, columns),
                size=size,
                pass_=tuple(str(_last(places, name) or "") for name in _PASSES),
                taken=(taken, index),
                image=image,
            )
        )
    return frames


def require_pydicom() -> Any:
    """Return pydicom.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise missing_extra("DICOM needs pydicom", "raw") from error
    return pydicom


def _header(path: Path, found: Any, pixels_at: int) -> Header | PassedOver:
    kind, study = str(found.get("SOPClassUID", "")), str(found.get("StudyInstanceUID", ""))
    person, name = _person(found)
    patient_id = str(hash(person or name)) if person or name else ""
    if kind not in _MR:
        return PassedOver(_kind_of(found, kind), study, patient_id)
    image_type = tuple(str(word).upper() for word in found.get("ImageType", ()))
    if "MOSAIC" in image_type:
        return PassedOver("Siemens mosaic images, which are not supported", study, patient_id)
    if _is_cut_short(path, found, pixels_at):
        return PassedOver("cut short", study, patient_id)
    shared = found.get("SharedFunctionalGroupsSequence")
    frames = frames_of(path, found)
    if not frames:
        return PassedOver("without pixel spacing, position or orientation", study, patient_id)
    echo, repetition, inversion, b_value = _timings(found, shared[0] if shared else None)
    description = str(found.get("SeriesDescription", ""))
    return Header(
        patient=str(hash((person, name))),
        patient_id=patient_id,
        study=study,
        series=(str(found.get("SeriesInstanceUID", "")), _direction(frames[0])),
        number=int(found.get("SeriesNumber") or 0),
        began=_began(found),
        when=" ".join(str(found.get(name) or "") for name in ("StudyDate", "SeriesTime", "AcquisitionTime")),
        words=" ".join(str(found.get(name, "")).lower() for name in _DESCRIPTIONS),
        own=" ".join(str(found.get(name, "")).lower() for name in _DESCRIPTIONS if name != _PROTOCOL),
        title=description.lower(),
        description=known_words(description),
        alias=alias_of(description),
        image_type=image_type,
        contrast=_names_agent(str(found.get("ContrastBolusAgent") or ""))
        or bool(found.get("ContrastBolusAgentSequence")),
        three_d=str(found.get("MRAcquisitionType", "")).upper() == "3D",
        burnt_in=str(found.get("BurnedInAnnotation", "")).upper() == "YES" or int(found.get("SamplesPerPixel", 1)) > 1,
        echo_ms=echo,
        repetition_ms=repetition,
        inversion_ms=inversion,
        b_value=b_value,
        frames=tuple(frames),
    )


def _person(found: Any) -> tuple[str, str]:
    """Return the patient's id, and the name, of which the letters count and not how they are written.

    Meier^Eva and MEIER^EVA^^^ are one name.
    """
    person = str(found.get("PatientID") or "").strip()
    return person, " ".join(re.findall(r"\w+", str(found.get("PatientName") or "").casefold().replace("_", " ")))


def _direction(frame: Frame) -> str:
    # 0 is added as -0.0 would be another text than 0.0.
    return str(tuple(round(x, 1) + 0.0 for x in frame.orientation))


def _began(found: Any) -> float | None:
    """When a file's acquisition began by its header, else its series, in seconds; None where neither is said."""
    for name in ("Acquisition", "Series"):
        whole = str(found.get(f"{name}DateTime") or "")
        day = str(found.get(f"{name}Date") or found.get("StudyDate") or "") if not whole else whole[:8]
        time = whole[8:] or str(found.get(f"{name}Time") or "")
        if clock := _CLOCK.match(time):
            hours, minutes, seconds = clock.groups()
            return ((_days(day) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds or 0)
    return None


def _days(day: str) -> int:
    try:
        return datetime.strptime(day, "%Y%m%d").toordinal()
    except ValueError:  # none, or removed with the patient's name
        return 0


def _names_agent(text: str) -> bool:
    """Whether the field for the contrast agent holds one, rather than nothing or a word for nothing."""
    words = re.sub(r"[\W_]+", " ", text.lower()).strip()
    return bool(words) and not _NO_AGENT.fullmatch(words)


def _kind_of(found: Any, sop_class: str) -> str:
    """What a file is that is no MR image, in words."""
    modality = str(found.get("Modality", ""))
    if sop_class == _DIRECTORY or found.get("DirectoryRecordSequence") is not None:
        return "directories (DICOMDIR)"
    if _SECONDARY_CAPTURE in sop_class:
        return "secondary captures"
    return _KINDS.get(modality, f"images of modality {modality[:8]}" if modality.isalnum() else "not images")


def _is_cut_short(path: Path, found: Any, pixels_at: int) -> bool:
    """Whether a file is too small for the pixels that its header promises; only told where they are not compressed."""
    if str(found.file_meta.get("TransferSyntaxUID", "")) not in _UNCOMPRESSED:
        return False
    voxels = int(found.Rows) * int(found.Columns) * int(found.get("NumberOfFrames") or 1)
    needed = voxels * int(found.get("SamplesPerPixel", 1)) * int(found.BitsAllocated) // 8
    return path.stat().st_size < pixels_at + needed


def _groups(item: Any) -> list[Any]:
    """The data sets inside the functional groups of an enhanced image."""
    if item is None:
        return []
    return [element.value[0] for element in item if element.VR == "SQ" and element.value]


def _last(places: Sequence[Any], name: str) -> Any:
    """The innermost value of a name."""
    values = [place.get(name) for place in places if place.get(name) is not None]
    return values[-1] if values else None


def _timings(found: Any, shared: Any) -> tuple[float | None, float | None, float | None, float | None]:
    """Echo, repetition and inversion time in ms, and the b-value."""
    own = found.get("PerFrameFunctionalGroupsSequence") or [None]
    places = [found, *_groups(shared), *_groups(own[0])]
    echo = _number(_last(places, "EchoTime"))
    repetition, inversion = _number(_last(places, "RepetitionTime")), _number(_last(places, "InversionTime"))
    return (
        echo if echo is not None else _number(_last(places, "EffectiveEchoTime")),
        repetition,
        inversion if inversion is not None else _number(_last(places, "InversionTimes")),
        _number(_last(places, "DiffusionBValue")),
    )


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):  # none, text, or several values
        return _number(value[0]) if value and not isinstance(value, str) else None
