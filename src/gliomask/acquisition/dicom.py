"""DICOM studies: files grouped into series, each series told to be a sequence or not, and read as a volume.

Slices are ordered by their position along the normal, as a file's name or instance number may mislead. No free text,
name, id or date of a header leaves this module.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gliomask.acquisition.classify import Header, classify_header
from gliomask.acquisition.frames import Frame, arrange, read_stack
from gliomask.acquisition.study import Series, Study, make_study
from gliomask.errors import InputError
from gliomask.extras import missing_extra

_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
# MR images, enhanced MR images, and those converted from older ones.
_MR = {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"}


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its preamble, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_dicom_studies(path: Path, files: Sequence[Path], *, by_patient: bool = False) -> list[Study]:
    """Return the studies that DICOM files below a folder belong to, each with its series chosen (see `make_study`).

    One study anywhere below the folder has the folder's name. Several have the names of the subfolders that hold them;
    those of one subfolder are numbered in the order of their times.

    Args:
        path: The folder.
        files: DICOM files below it.
        by_patient: Take the studies of several patients in one subfolder apart, instead of refusing them.

    Raises:
        InputError: pydicom is not installed, no file holds a magnetic resonance image, or the files of one subfolder
            belong to several patients.
    """
    headers: dict[str, list[Header]] = defaultdict(list)
    passed_over: Counter[str] = Counter()
    for file in files:
        found = _read_header(file)
        if isinstance(found, str):
            passed_over[found] += 1
        else:
            headers[_subfolder(path, file)].append(found)
    if not headers:
        listed = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common())
        raise InputError(f"{path}: of {len(files)} DICOM files none is a magnetic resonance image ({listed}).")
    notes = [f"{count} DICOM files passed over: {kind}" for kind, count in passed_over.most_common()]
    uids = {header.study for group in headers.values() for header in group}
    if len(uids) == 1:
        everything = [header for group in headers.values() for header in group]
        return [_study(path.resolve().name, everything, notes)]
    studies = []
    for folder, group in sorted(headers.items()):
        name = folder or path.resolve().name
        patients = {header.patient for header in group}
        if len(patients) > 1 and not by_patient:
            raise InputError(
                f"{path / folder}: holds images of {len(patients)} patients. Put each into a folder of its own, or "
                "take them apart with --by-patient."
            )
        by_study: dict[str, list[Header]] = defaultdict(list)
        for header in group:
            by_study[header.study].append(header)
        ordered = sorted(by_study.values(), key=lambda those: min(header.when for header in those))
        for number, those in enumerate(ordered, 1):
            studies.append(_study(name if len(ordered) == 1 else f"{name}_{number}", those, notes))
            notes = []
    return studies


def _subfolder(path: Path, file: Path) -> str:
    parts = file.relative_to(path).parts[:-1]
    return parts[0] if parts else ""


def _study(study_id: str, headers: Sequence[Header], notes: Sequence[str]) -> Study:
    by_series: dict[tuple[Any, ...], list[Header]] = defaultdict(list)
    for header in headers:
        by_series[header.series].append(header)
    series = []
    for group in sorted(by_series.values(), key=lambda those: (those[0].number, those[0].when)):
        series += _series(group)
    return make_study(study_id, _with_contrast(series), notes)


def _series(headers: Sequence[Header]) -> list[Series]:
    """One series, or several where one holds several acquisitions."""
    first = headers[0]
    modality, reason = classify_header(first)
    frames = [frame for header in headers for frame in header.frames]
    passes: dict[tuple[str, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        passes[frame.pass_ if _repeats(frames) else ()].append(frame)
    found = []
    for number, (_, those) in enumerate(sorted(passes.items()), 1):
        name = f"series {first.number}" + (f".{number}" if len(passes) > 1 else "")
        paths = tuple(dict.fromkeys(frame.path for frame in those))
        geometry = arrange(those)
        one = Series(name, paths, modality, reason, original=first.original)
        if isinstance(geometry, str):
            found.append(replace(one, modality=None, reason=geometry))
        else:
            missing = sum(frame is None for frame in geometry.frames)
            why = f"{reason}; one missing slice is interpolated" if missing else reason
            read = partial(read_stack, geometry)
            found.append(replace(one, reason=why, grid=geometry.grid, read=read))
    return [replace(one, order=(first.when, first.number), similar=_kind(first)) for one in found]


def _repeats(frames: Sequence[Frame]) -> bool:
    """Whether a place is taken more than once: two acquisitions, echoes or time points."""
    places = Counter(tuple(round(x, 2) for x in frame.position) for frame in frames)
    return max(places.values()) > 1


def _kind(header: Header) -> tuple[Any, ...]:
    """What two series have in common of which one was acquired before and one after contrast."""
    return (round(header.echo_ms or 0), round((header.repetition_ms or 0) / 50), header.three_d)


def _with_contrast(series: Sequence[Series]) -> list[Series]:
    """Take the later of two like T1 series, neither of which names contrast, for the one after contrast."""
    plain = [one for one in series if one.modality == "t1n"]
    if any(one.modality == "t1c" for one in series) or len(plain) < 2:
        return list(series)
    twins = [one for one in plain if one.similar == plain[0].similar and one.original]
    if len(twins) < 2:
        return list(series)
    last = max(twins, key=lambda one: one.order)
    why = "the later of two like T1 series: taken for the one after contrast"
    return [replace(one, modality="t1c", reason=why) if one is last else one for one in series]


def _read_header(path: Path) -> Header | str:
    """What is needed of a file's header, or the kind of file that it is where it is no MR image."""
    pydicom = require_pydicom()
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True)
        return _header(path, found)
    except Exception:  # pydicom raises many kinds; a damaged header is one file less
        return "damaged or encrypted"


def _header(path: Path, found: Any) -> Header | str:
    kind = str(found.get("SOPClassUID", ""))
    if kind not in _MR:
        return _kind_of(kind, str(found.get("Modality", "")))
    image_type = tuple(str(word).upper() for word in found.get("ImageType", ()))
    if "MOSAIC" in image_type:
        return "mosaic images"
    shared = found.get("SharedFunctionalGroupsSequence")
    frames = _frames_of(path, found, shared[0] if shared else None)
    if not frames:
        return "without pixel spacing, position or orientation"
    echo, repetition, inversion, b_value = _timings(found, shared[0] if shared else None)
    return Header(
        patient=str(hash((str(found.get("PatientID", "")), str(found.get("PatientName", ""))))),
        study=str(found.get("StudyInstanceUID", "")),
        series=(str(found.get("SeriesInstanceUID", "")), str(tuple(round(x, 1) for x in frames[0].orientation))),
        number=int(found.get("SeriesNumber") or 0),
        when=str(found.get("SeriesTime") or found.get("AcquisitionTime") or ""),
        words=" ".join(str(found.get(name, "")).lower() for name in _DESCRIPTIONS),
        image_type=image_type,
        contrast=bool(str(found.get("ContrastBolusAgent") or "").strip() or found.get("ContrastBolusAgentSequence")),
        three_d=str(found.get("MRAcquisitionType", "")).upper() == "3D",
        echo_ms=echo,
        repetition_ms=repetition,
        inversion_ms=inversion,
        b_value=b_value,
        frames=tuple(frames),
    )


def _kind_of(sop_class: str, modality: str) -> str:
    """What a file is that is no MR image, in words."""
    known = {"SR": "structured reports", "SEG": "segmentations", "PR": "presentation states", "KO": "key objects"}
    if "1.2.840.10008.5.1.4.1.1.7" in sop_class:
        return "secondary captures"
    return known.get(modality, f"images of modality {modality[:4]}" if modality.isalnum() else "not images")


def _frames_of(path: Path, found: Any, shared: Any) -> list[Frame]:
    """Every slice of a file; none where a slice has no spacing, position or orientation."""
    per_frame = found.get("PerFrameFunctionalGroupsSequence") or [None]
    size = (int(found.Rows), int(found.Columns))
    frames = []
    for index, own in enumerate(per_frame):
        places = [found, *_groups(shared), *_groups(own)]
        spacing, position, orientation = (
            _last(places, name) for name in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
        )
        if spacing is None or position is None or orientation is None:
            return []
        x, y, z = (float(value) for value in position)
        rows, columns = (float(value) for value in spacing)
        if rows <= 0 or columns <= 0:
            return []
        names = ("EchoNumbers", "AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex")
        frames.append(
            Frame(
                path=path,
                index=index,
                position=(x, y, z),
                orientation=tuple(float(value) for value in orientation),
                spacing=(rows, columns),
                size=size,
                pass_=tuple(str(_last(places, name) or "") for name in names),
            )
        )
    return frames


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
        return float(value[0]) if isinstance(value, list | tuple) else float(value)
    except (TypeError, ValueError, IndexError):
        return None


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
