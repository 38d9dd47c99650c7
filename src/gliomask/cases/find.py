"""A folder as it was downloaded -> its cases, and everything about it that does not fit."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliomask.cases.case import MODALITIES, Case, Source, get_modality
from gliomask.cases.layouts import layout_of
from gliomask.errors import InputError
from gliomask.labels import CONVENTIONS
from gliomask.volume import NIFTI_ENDINGS, read_volume

_MASK_SPELLINGS = (
    "seg",
    "segm",
    "segmentation",
    "tumor_seg",
    "tumour_seg",
    "tumor_segmentation",
    "label",
    "labels",
    "mask",
    "gtv",
)

# Longest first: of `t1` and `ce-gad_t1w` the file named `sub-01_ce-gad_t1w` means the second.
_ENDINGS = sorted(
    [(spelling, modality) for modality, spellings in MODALITIES.items() for spelling in spellings]
    + [(spelling, "mask") for spelling in _MASK_SPELLINGS],
    key=lambda pair: -len(pair[0]),
)

# Of the grid: a BraTS brain fills 14-20 %, the largest tumours 4 %.
_LARGEST_TUMOUR = 0.06

# UCSF-PDGM has `brain_segmentation` and `brain_parenchyma_segmentation` beside `tumor_segmentation`.
_BRAIN_MASK = re.compile(r"brain[ _-]?(\w*_)?(mask|seg)|brain$|skull(?![ _-]?strip)|(^|[ _.-])bet([ _.-]|$)")


@dataclass(frozen=True)
class Problem:
    """What does not fit, and in which file or case."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Survey:
    """What a folder holds, by its names alone; only of a file called `mask` are the voxels read."""

    folder: Path
    layout: str
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    """Cases that cannot be used, each left out of `cases`."""
    notes: tuple[Problem, ...]
    """What was passed over or decided, and does no harm."""


def find_cases(folder: Path | str) -> list[Case]:
    """Return the cases of a folder in any layout of `LAYOUTS`, or with any names that tell the sequence, sorted by id.

    Nothing is renamed or copied; only a `dataset.json` and files called `mask` are opened. A case may lack sequences
    or its mask.

    Raises:
        InputError: There is no such folder, no case in it, or a case that cannot be told (all of them are named).
            `survey` gives the good cases beside the bad.
    """
    found = survey(folder)
    if found.problems:
        raise InputError("; ".join(map(str, found.problems)))
    return list(found.cases)


def survey(folder: Path | str) -> Survey:
    """Return the cases of a folder and all that is wrong with it, by the files' names.

    Raises:
        InputError: There is no such folder, or nothing in it that looks like a case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder." if not folder.exists() else f"{folder}: is a file, not a folder.")
    found = (
        _survey_dataset(folder)
        if (folder / "imagesTr").is_dir() or (folder / "imagesTs").is_dir()
        else _survey_names(folder)
    )
    if not found.cases and not found.problems:
        raise InputError(
            f"{folder}: no case found. Looked in it and below for NIfTI files whose names end in a sequence, such as "
            "ID_t1ce.nii.gz or ID-t2f.nii (t1, t1ce, t2, flair and their synonyms), and for imagesTr/ with a "
            "dataset.json (MSD, nnU-Net)."
        )
    return found


def classify(path: Path) -> tuple[str, str] | None:
    """Return (id, sequence or `mask`) as a NIfTI file's name tells them, or None where it tells nothing.

    The id is what stands before the sequence; the folder's name where nothing does. Brain masks are nothing.
    """
    stem = path.name[: -len(_ending(path))]
    if _BRAIN_MASK.search(stem.lower()):
        return None
    for spelling, role in _ENDINGS:
        found = re.fullmatch(rf"(?:(.*?)[ _.-]+)?{re.escape(spelling)}", stem, re.IGNORECASE)
        if found:
            return found.group(1) or path.parent.resolve().name, role
    return None


def case_of_files(files: Mapping[str, Path]) -> Case:
    """Return a case of these files, by inside name; its id is what the first one's name tells, or that name."""
    first = next(iter(files.values()))
    told = classify(first)
    case_id = told[0] if told else first.name.removesuffix(".gz").removesuffix(".nii")
    return Case(case_id, {modality: Source(path) for modality, path in files.items()})


def _ending(path: Path) -> str:
    return next(
        (ending for ending in sorted(NIFTI_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending)), ""
    )


def _nifti_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if _ending(p) and not p.name.startswith(".") and p.is_file())


def _survey_names(folder: Path) -> Survey:
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    notes: list[Problem] = []
    for path in _nifti_files(folder):
        named = path.parent if _ending(path.parent) else path  # Kaggle's copies: ID_flair.nii/00000057_brain_flair.nii
        told = classify(named)
        if told is None:
            notes.append(Problem(str(path), "passed over: its name is that of no sequence and no tumour mask"))
        elif told[1] == "mask" and _holds_brain(path):
            notes.append(Problem(str(path), "passed over: one value over a whole brain, a brain mask"))
        else:
            groups[named.parent, told[0]][told[1]].append(path)
    notes += _adopt_lone_masks(groups)
    ids = _ids(groups)
    cases: list[Case] = []
    problems: list[Problem] = []
    for key, files in groups.items():
        if set(files) == {"mask"}:
            notes.append(Problem(str(files["mask"][0]), "passed over: a mask without images beside it"))
            continue
        doubles = [role for role, paths in files.items() if len(paths) > 1]
        problems += [
            Problem(
                ids[key], f"{len(files[role])} files for {role}: {', '.join(map(str, files[role]))}. Keep one of them."
            )
            for role in doubles
        ]
        if not doubles:
            cases.append(_case(ids[key], {role: paths[0] for role, paths in files.items()}))
    return _told_apart(folder, _layout_name(case.id for case in cases), cases, problems, notes)


def _holds_brain(path: Path) -> bool:
    """Tell whether a file called just `mask` is a brain's: binary, over more of the grid than any tumour fills."""
    if not path.name[: -len(_ending(path))].lower().endswith("mask"):
        return False
    try:
        data = read_volume(path, mask=True).data
    except InputError:
        return False  # whoever reads the case says what is wrong with it
    return data.max() == 1 and float(data.mean()) > _LARGEST_TUMOUR


def _case(case_id: str, files: Mapping[str, Path]) -> Case:
    layout = layout_of(case_id)
    images = {modality: Source(files[modality]) for modality in MODALITIES if modality in files}
    return Case(case_id, images, files.get("mask"), layout.convention if layout else None)


def _adopt_lone_masks(groups: dict[tuple[Path, str], dict[str, list[Path]]]) -> list[Problem]:
    """Give a mask of another name to the one case of its folder that lacks one, as BraTS 2020's case 355 needs."""
    notes = []
    for folder, name in [key for key, files in groups.items() if set(files) == {"mask"}]:
        others = [files for (place, other), files in groups.items() if place == folder and other != name]
        if len(others) == 1 and "mask" not in others[0]:
            others[0]["mask"] = groups.pop((folder, name))["mask"]
            notes.append(Problem(str(others[0]["mask"][0]), "taken as the mask of the only case beside it"))
    return notes


def _ids(groups: Iterable[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """The names in the files, or where several folders use one name that is no BraTS id, the folders' names."""
    keys = list(groups)
    uses = Counter(name for _, name in keys)
    return {
        (folder, name): folder.resolve().name if uses[name] > 1 and layout_of(name) is None else name
        for folder, name in keys
    }


def _told_apart(
    folder: Path, layout: str, cases: Sequence[Case], problems: Sequence[Problem], notes: Sequence[Problem]
) -> Survey:
    uses = Counter(case.id for case in cases)
    twice = [
        Problem(
            name,
            "the same id twice: "
            + ", ".join(
                sorted(
                    {str(source.path.parent) for case in cases if case.id == name for source in case.images.values()}
                )
            )
            + ". Remove or rename one.",
        )
        for name, count in uses.items()
        if count > 1
    ]
    unique = sorted((case for case in cases if uses[case.id] == 1), key=lambda case: case.id)
    return Survey(folder, layout, tuple(unique), (*problems, *twice), tuple(notes))


def _layout_name(ids: Iterable[str]) -> str:
    names = sorted({layout.name if layout else "folders" for layout in map(layout_of, ids)})
    return " + ".join(names) or "folders"


def _survey_dataset(folder: Path) -> Survey:
    """MSD and nnU-Net: imagesTr, imagesTs, labelsTr, and a dataset.json that alone says which channel is which."""
    described = _read_dataset_json(folder / "dataset.json")
    channels = _channels(folder / "dataset.json", described)
    convention = _convention_of(described)
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    split = False
    for path in [
        p for part in ("imagesTr", "imagesTs") if (folder / part).is_dir() for p in _nifti_files(folder / part)
    ]:
        stem = path.name[: -len(_ending(path))]
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        split = split or numbered is not None
        case_id = numbered.group(1) if numbered else stem
        sources = (
            {channels[int(numbered.group(2))]: Source(path)} if numbered and int(numbered.group(2)) in channels else {}
        )
        if not numbered:
            sources = {modality: Source(path, number) for number, modality in channels.items()}
        if not sources:
            problems.append(Problem(str(path), "its channel number is not in dataset.json"))
        mask = next(
            (p for ending in NIFTI_ENDINGS if (p := folder / "labelsTr" / f"{case_id}{ending}").is_file()), None
        )
        known = cases.get(case_id, Case(case_id, {}, mask, convention))
        if twice := sources.keys() & known.images.keys():
            problems.append(
                Problem(case_id, f"two files for {', '.join(sorted(twice))}, one of them {path}. Keep one.")
            )
        cases[case_id] = replace(known, images={**known.images, **sources})
    told = [case for case in cases.values() if case.id not in {problem.where for problem in problems}]
    return _told_apart(folder, "nnunet" if split else "msd", told, problems, ())


def dataset_convention(folder: Path) -> str | None:
    """Return the label convention that a folder's `dataset.json` (MSD, nnU-Net) describes, or None if it tells none."""
    if not (folder / "dataset.json").is_file():
        return None
    return _convention_of(_read_dataset_json(folder / "dataset.json"))


def _read_dataset_json(path: Path) -> Mapping[str, object]:
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


def _channels(path: Path, described: Mapping[str, object]) -> dict[int, str]:
    named = described.get("channel_names", described.get("modality"))
    if not isinstance(named, dict):
        raise InputError(f"{path}: an object with channel_names (or modality) is needed, such as {{'0': 'T1', ...}}.")
    try:
        return {int(number): get_modality(str(name)) for number, name in named.items()}
    except (InputError, ValueError) as error:  # an unknown sequence, or a key that is no number
        raise InputError(f"{path}: {error}") from error


def _convention_of(described: Mapping[str, object]) -> str | None:
    """The convention that dataset.json's label names describe, or None if they describe none that we know."""
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
    enhancing, core, whole = (regions.get(key, set()) for key in ("ET", "TC", "WT"))
    meaning = dict.fromkeys(enhancing, "ET")
    meaning |= dict.fromkeys(regions.get("NCR", core - enhancing), "NCR")
    meaning |= dict.fromkeys(regions.get("ED", whole - core), "ED")
    for tissue in ("RC", "CC"):
        meaning |= dict.fromkeys(regions.get(tissue, ()), tissue)
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
