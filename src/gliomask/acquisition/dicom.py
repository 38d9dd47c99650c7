"""DICOM studies: files grouped into studies and series, each series told to be a sequence or not, and read as a volume.

Slices are ordered by their position along the normal, as a file's name or instance number may mislead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from gliomask.acquisition.classify import BEFORE, Header, classify_header
from gliomask.acquisition.frames import Frame, arrange, read_stack
from gliomask.acquisition.headers import PassedOver, is_dicom, read_header
from gliomask.acquisition.study import GUESS, Series, Study, make_study, subfolder_of
from gliomask.errors import InputError

__all__ = ["find_dicom_studies", "is_dicom"]

# What the files of one study have in common: the study's UID, the patient, and without a UID the subfolder.
_Key = tuple[str, str, str]

# More volumes than this in one series are a film: perfusion or functional images.
_MOST_PASSES = 4
# Contrast is injected between two series; images of one acquisition begin within seconds of each other.
_INJECTION_SECONDS = 60


def find_dicom_studies(
    path: Path,
    files: Sequence[Path],
    *,
    by_patient: bool = False,
    alone: bool = True,
    on_file: Callable[[], None] = lambda: None,
) -> list[Study]:
    """Return the studies that DICOM files below a folder belong to, each with its series chosen (see `make_study`).

    Files belong to one study that have the study's UID and the patient's id, or name without an id, in common; where
    there is no study UID, the subfolder too.

    One study anywhere below the folder has the folder's name, if it is alone. Of several, each has the name of the
    subfolder that holds it; those of one subfolder, or spread over several, are numbered in the order of their times. A
    study that cannot be used has a `problem`, as a subfolder has whose files are all unusable and of no other study.

    Args:
        path: The folder.
        files: DICOM files below it.
        by_patient: Take the studies of several patients in one subfolder apart, instead of refusing them. They are told
            apart by id, or by name without an id.
        alone: Whether no other study lies below the folder, such as one of volumes.
        on_file: Called after each file.

    Raises:
        InputError: pydicom is not installed, no file holds a magnetic resonance image, or the files of the only
            subfolder or study belong to several patients.
    """
    # By study, and by patient too: two patients under one study's UID are two examinations. Without a UID by folder.
    headers: dict[_Key, list[Header]] = defaultdict(list)
    passed_over: list[tuple[Path, PassedOver]] = []
    places: dict[_Key, set[str]] = defaultdict(set)
    for file in files:
        found = read_header(file)
        on_file()
        if isinstance(found, PassedOver):
            passed_over.append((file, found))
        else:
            folder = subfolder_of(path, file)
            examination = (found.study, found.patient_id, "" if found.study else folder)
            headers[examination].append(found)
            places[examination].add(folder)
    if not headers:
        listed = ", ".join(_counts(found for _, found in passed_over))
        raise InputError(f"{path}: of {len(files)} DICOM files none is a usable magnetic resonance image ({listed}).")
    if len(headers) == 1:
        ((examination, only),) = headers.items()
        (here,) = places.values()
        own = next(iter(here)) if len(here) == 1 else ""
        by_subfolder = _bysubfolder_of(path, passed_over)
        others = {name: those for name, those in by_subfolder.items() if _is_another(name, those, examination, here)}
        if others or (own and not alone):
            rest = [one for name, those in by_subfolder.items() if name not in others for one in those]
            return _studies_of_folders(path, {own: dict(headers)}, {**others, own: rest}, by_patient=by_patient)
        if problem := _several_patients(only, by_patient=by_patient):
            raise InputError(f"{path}: {problem}")
        return [_study(path.resolve().name, only, [found for _, found in passed_over])]
    by_folder: dict[str, dict[_Key, list[Header]]] = defaultdict(dict)
    for study, those in headers.items():
        by_folder[places[study].pop() if len(places[study]) == 1 else ""][study] = those
    return _studies_of_folders(path, by_folder, _bysubfolder_of(path, passed_over), by_patient=by_patient)


def _studies_of_folders(
    path: Path,
    by_folder: Mapping[str, Mapping[_Key, list[Header]]],
    passed_over: Mapping[str, list[PassedOver]],
    *,
    by_patient: bool,
) -> list[Study]:
    studies = []
    for folder, group in sorted(by_folder.items()):
        name = folder or path.resolve().name
        others = passed_over.get(folder, [])
        if problem := _several_patients(chain.from_iterable(group.values()), by_patient=by_patient):
            studies.append(Study(name, (), problem=problem))
            continue
        ordered = sorted(group.values(), key=lambda those: min(header.when for header in those))
        for number, those in enumerate(ordered, 1):
            study_id = name if len(ordered) == 1 else f"{name}_{number}"
            studies.append(_study(study_id, those, others if number == 1 else []))
    for folder in passed_over.keys() - by_folder.keys():
        listed = ", ".join(_counts(passed_over[folder]))
        text = f"none of its DICOM files is a usable magnetic resonance image ({listed})."
        studies.append(Study(folder or path.resolve().name, (), problem=text))
    if len(by_folder) == 1 and all(study.problem for study in studies):
        raise InputError(f"{path}: {studies[0].problem}")
    return sorted(studies, key=lambda study: study.id)


def _several_patients(headers: Iterable[Header], *, by_patient: bool) -> str:
    """The problem of images that belong to several patients; empty if they do not, or are taken apart."""
    patients = {header.patient for header in headers}
    if len(patients) < 2 or by_patient:
        return ""
    return (
        f"holds images of {len(patients)} patients. Put each into a folder of its own, or take them apart with "
        "--by-patient."
    )


def _is_another(name: str, passed_over: Sequence[PassedOver], only: _Key, places: set[str]) -> bool:
    """Tell whether a subfolder without a usable image is another study than the only one that has some.

    What is of the same patient, such as a CT, is not another study to be predicted. Where no UID tells, it is one if
    the study has a subfolder of its own; subfolders may also be those of its series.
    """
    uid, patient_id, _ = only
    uids, patients = ({getattr(one, field) for one in passed_over} - {""} for field in ("study", "patient_id"))
    if not name or name in places or uid in uids or patients == {patient_id}:
        return False
    return bool(uids) or (len(places) == 1 and "" not in places)


def _bysubfolder_of(path: Path, passed_over: Sequence[tuple[Path, PassedOver]]) -> dict[str, list[PassedOver]]:
    found: dict[str, list[PassedOver]] = defaultdict(list)
    for file, one in passed_over:
        found[subfolder_of(path, file)].append(one)
    return found


def _counts(passed_over: Any) -> list[str]:
    return [f"{count} {kind}" for kind, count in Counter(found.kind for found in passed_over).most_common()]


def _study(study_id: str, headers: Sequence[Header], passed_over: Sequence[PassedOver]) -> Study:
    by_series: dict[tuple[Any, ...], list[Header]] = defaultdict(list)
    images: set[str] = set()
    copies = 0
    for header in headers:
        image = header.frames[0].image
        if image and image in images:
            copies += 1
            continue
        images.add(image)
        by_series[header.series].append(header)
    series = []
    for group in sorted(by_series.values(), key=lambda those: (those[0].number, those[0].when)):
        series += _series(group)
    notes = [f"DICOM files passed over: {count}" for count in _counts(passed_over)]
    notes += [f"{copies} copies of the same images passed over"] if copies else []
    series = _with_contrast(series)
    return make_study(study_id, series, [*notes, *_guesses(series)], uid=headers[0].study)


@dataclass(frozen=True)
class _Pass:
    """One volume of a series, a header that describes it, and when its first image was acquired."""

    header: Header
    frames: list[Frame]
    began: float | None


def _series(headers: Sequence[Header]) -> list[Series]:
    """One series, or several where one holds several acquisitions."""
    passes = _passes(headers)
    found = []
    for number, each in enumerate(passes, 1):
        header = each.header
        modality, reason = classify_header(header)
        if len(passes) > _MOST_PASSES:
            modality, reason = None, f"it holds {len(passes)} volumes of the same place, as dynamic series do"
        geometry = arrange(each.frames)
        one = Series(
            name=f"series {header.number}" + (f".{number}" if len(passes) > 1 else ""),
            files=tuple(dict.fromkeys(frame.path for frame in each.frames)),
            modality=modality,
            reason=reason,
            original=header.original,
            began=each.began,
            similar=(round(header.echo_ms or 0), round((header.repetition_ms or 0) / 50), header.three_d),
            description=header.description,
            aliases=(header.alias,),
            uid=header.series[0],
        )
        if isinstance(geometry, str):
            found.append(replace(one, problem=geometry))
        else:
            missing = sum(frame is None for frame in geometry.frames)
            why = f"{reason}; one missing slice is interpolated" if missing else reason
            found.append(replace(one, reason=why, grid=geometry.grid, read=partial(read_stack, geometry)))
    return found[:1] if len(passes) > _MOST_PASSES else found


def _passes(headers: Sequence[Header]) -> list[_Pass]:
    """The volumes of a series: one, or several where places are taken more than once.

    They are told apart by what differs between them (echo, acquisition, time point), else by the order of the images.
    """
    pairs = [(header, frame) for header in headers for frame in header.frames]
    if not _repeats([frame for _, frame in pairs]):
        return [_pass(pairs)]
    for which in range(len(pairs[0][1].pass_)):
        groups: dict[Any, list[tuple[Header, Frame]]] = defaultdict(list)
        for header, frame in pairs:
            groups[_sortable(frame.pass_[which])].append((header, frame))
        if len(groups) > 1 and not any(_repeats([frame for _, frame in those]) for those in groups.values()):
            break
    else:
        groups = defaultdict(list)
        seen: Counter[tuple[float, ...]] = Counter()
        for header, frame in sorted(pairs, key=lambda pair: pair[1].taken):
            place = _place(frame)
            groups[seen[place]].append((header, frame))
            seen[place] += 1
    return [_pass(those) for _, those in sorted(groups.items())]


def _pass(pairs: Sequence[tuple[Header, Frame]]) -> _Pass:
    times = [header.began for header, _ in pairs if header.began is not None]
    return _Pass(pairs[0][0], [frame for _, frame in pairs], min(times, default=None))


def _sortable(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return 0.0, text


def _place(frame: Frame) -> tuple[float, ...]:
    return tuple(round(x, 2) for x in frame.position)


def _repeats(frames: Sequence[Frame]) -> bool:
    """Whether a place is taken more than once: two acquisitions, echoes or time points."""
    return max(Counter(map(_place, frames)).values()) > 1


def _with_contrast(series: Sequence[Series]) -> list[Series]:
    """Take the later of two like T1 series, neither of which names contrast, for the one after contrast.

    Not one that is said to be before contrast, nor images of one acquisition, which begin at the same time.
    """
    usable = [one for one in series if not one.problem]
    plain = [one for one in usable if one.modality == "t1n" and BEFORE not in one.reason]
    if any(one.modality == "t1c" for one in usable) or len(plain) < 2:
        return list(series)
    twins = [one for one in plain if one.similar == plain[0].similar and one.original]
    times = [one.began for one in twins if one.began is not None]
    if len(twins) < 2 or len(times) < len(twins):
        return list(series)
    *_, before, latest = sorted(times)
    if latest - before < _INJECTION_SECONDS:
        return list(series)
    why = f"{GUESS}: taken for the one after contrast"
    return [replace(one, modality="t1c", reason=why) if one in twins and one.began == latest else one for one in series]


def _guesses(series: Sequence[Series]) -> list[str]:
    """What is to be said of a T1 that was taken for the one after contrast."""
    return [
        f"{one.name} is taken for T1 after contrast as {GUESS}; nothing says that contrast was given. If it was not, "
        f"name it as what it is: --t1 {one.name.removeprefix('series ')}"
        for one in series
        if one.modality == "t1c" and GUESS in one.reason
    ]
