"""Data sets in the layouts of MSD and nnU-Net, whose channels and labels a `dataset.json` describes."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gliomask.cases.case import Case, Problem, Source, get_modality
from gliomask.cases.folders import list_folder
from gliomask.cases.naming import stem_of
from gliomask.cases.patients import find_patient
from gliomask.errors import InputError
from gliomask.labels import CONVENTIONS
from gliomask.volume import NIFTI_ENDINGS


@dataclass(frozen=True)
class DatasetSurvey:
    """What a data set holds."""

    layout: str
    """`nnunet` where each channel is a file of its own, `msd` where one file holds all."""
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    passed_over: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()


def survey_dataset(folder: Path) -> DatasetSurvey:
    """Return the cases of a folder with `imagesTr` or `imagesTs`, and `labelsTr`.

    Raises:
        InputError: `dataset.json` is missing or does not say which channel is which sequence.
    """
    described = _read_description(folder / "dataset.json")
    channels = described_channels(folder / "dataset.json", described)
    convention = described_convention(described)
    listings = [list_folder(folder / part) for part in ("imagesTr", "imagesTs") if (folder / part).is_dir()]
    problems = [problem for listing in listings for problem in listing.problems]
    masks = _names_in(folder / "labelsTr")
    cases: dict[str, Case] = {}
    layout = "msd"
    for path in [path for listing in listings for path in listing.files]:
        stem = stem_of(path)
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        layout = "nnunet" if numbered else layout
        case_id = numbered.group(1) if numbered else stem
        sources = _sources(path, int(numbered.group(2)) if numbered else None, channels)
        if not sources:
            problems.append(Problem(str(path), "its channel number is not in dataset.json", (path,)))
        known = cases.get(case_id) or _new_case(folder, case_id, convention, masks)
        if twice := sources.keys() & known.images.keys():
            problems.append(
                Problem(
                    case_id, f"two files for {', '.join(sorted(twice))}, one of them {path}. Keep one of them.", (path,)
                )
            )
        cases[case_id] = replace(known, images={**known.images, **sources})
    refused = {problem.where for problem in problems}
    passed_over = [one for listing in listings for one in listing.passed_over]
    passed_over += _masks_of_nobody(folder, cases)
    good = tuple(case for case in cases.values() if case.id not in refused)
    return DatasetSurvey(layout, good, tuple(problems), tuple(passed_over))


def _sources(path: Path, number: int | None, channels: Mapping[int, str]) -> dict[str, Source]:
    if number is None:
        return {modality: Source(path, channel) for channel, modality in channels.items()}
    return {channels[number]: Source(path)} if number in channels else {}


def _names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder, those of broken links too: such a mask is not there, which reading it says."""
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()


def _new_case(folder: Path, case_id: str, convention: str | None, masks: Container[str]) -> Case:
    possible = (f"{case_id}{ending}" for ending in NIFTI_ENDINGS)
    mask = next((folder / "labelsTr" / name for name in possible if name in masks), None)
    found = find_patient(case_id)
    return Case(
        case_id,
        {},
        mask,
        convention,
        patient=found.patient,
        timepoint=found.timepoint,
        patient_rule=found.rule,
        convention_given=convention is not None,
    )


def _masks_of_nobody(folder: Path, cases: Mapping[str, Case]) -> list[Problem]:
    used = {case.mask for case in cases.values()}
    if not (folder / "labelsTr").is_dir():
        return []
    listing = list_folder(folder / "labelsTr")
    unused = [Problem(str(path), "a mask without images") for path in listing.files if path not in used]
    return [*listing.passed_over, *unused]


def dataset_convention(folder: Path) -> str | None:
    """Return the label convention that a folder's `dataset.json` (MSD, nnU-Net) describes, or None if it tells none."""
    if not (folder / "dataset.json").is_file():
        return None
    return described_convention(_read_description(folder / "dataset.json"))


def _read_description(path: Path) -> Mapping[str, object]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: missing. Only it says which channel is which sequence (MSD: FLAIR first; others: T1 first)."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}.") from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: an object with channel_names (or modality) is needed.")
    return described


def described_channels(path: Path, described: Mapping[str, object]) -> dict[int, str]:
    """Return the sequence of each channel, as `channel_names` or `modality` of a description names it.

    Raises:
        InputError: Neither is there, or one has an unknown sequence or a key that is no number.
    """
    named = described.get("channel_names", described.get("modality"))
    if not isinstance(named, dict):
        raise InputError(f"{path}: an object with channel_names (or modality) is needed, such as {{'0': 'T1', ...}}.")
    try:
        return {int(number): get_modality(str(name)) for number, name in named.items()}
    except (InputError, ValueError) as error:  # an unknown sequence, or a key that is no number
        raise InputError(f"{path}: {error}") from error


def described_convention(described: Mapping[str, object]) -> str | None:
    """Return the convention that a description's `labels` describe, or None if they describe none that is known."""
    named = described.get("labels")
    if not isinstance(named, dict):
        return None
    pairs = [(name, number) if not str(name).isdigit() else (number, int(name)) for name, number in named.items()]
    regions: dict[str, set[int]] = {}
    try:
        for name, number in pairs:
            regions[_tissue(str(name))] = set(map(int, number)) if isinstance(number, list) else {int(number)}
    except (TypeError, ValueError):  # a label that is no number: nothing to be learnt here
        return None
    named_regions = regions.keys() - {"background"}
    if named_regions in ({"WT"}, {"TC"}):  # one region without its parts
        (region,) = named_regions
        return convention_of_tissues(dict.fromkeys(regions[region], region))
    enhancing, core, whole = (regions.get(key, set()) for key in ("ET", "TC", "WT"))
    meaning = dict.fromkeys(enhancing, "ET")
    meaning |= dict.fromkeys(regions.get("NCR", core - enhancing), "NCR")
    meaning |= dict.fromkeys(regions.get("ED", whole - core - enhancing - regions.get("NCR", set())), "ED")
    for tissue in ("RC", "CC"):
        meaning |= dict.fromkeys(regions.get(tissue, ()), tissue)
    return convention_of_tissues(meaning)


def convention_of_tissues(meaning: Mapping[int, str]) -> str | None:
    """Return the convention in which numbers have exactly these meanings, or None."""
    return next((name for name, convention in CONVENTIONS.items() if dict(convention.tissues) == meaning), None)


def _tissue(name: str) -> str:
    patterns = (
        ("WT", r"whole|^wt$"),
        ("TC", r"tumou?r[ _-]?core|^tc$"),
        ("NCR", r"non.?enh|necro|^ncr|^net|^netc$"),
        ("ET", r"enhanc|^et$"),
        ("ED", r"o?edema|^ed$|snfh"),
        ("RC", r"cavity|^rc$"),
        ("CC", r"cyst|^cc$"),
    )
    return next((tissue for tissue, pattern in patterns if re.search(pattern, name.lower())), name)
