"""The id of each case of a folder, and whose examination it is: from the files' names, or from the folders' names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomask.cases.layouts import layout_of
from gliomask.cases.naming import folded, folder_name
from gliomask.cases.patients import BY_FOLDERS, FoundPatient, find_patient, names_examination

Key = tuple[Path, str]
"""A folder and the id that names in it begin with; files without an id share the empty one."""

# Folders that hold the images of one examination and say nothing about whose it is.
_UNTELLING = frozenset({"anat", "nifti", "nii", "niftis", "mr", "mri"})


# What lies in these folders below an examination's folder belongs to the examination: LUMIERE keeps there what
# DeepBraTumIA has aligned with its atlas.
_RESULTS = ("DeepBraTumIA-segmentation", "atlas")


@dataclass(frozen=True)
class Identity:
    """What a case is called and whose examination it is; see `cases.Case`."""

    case_id: str
    patient: str
    timepoint: str
    patient_rule: str


def identify(root: Path, keys: Iterable[Key]) -> dict[Key, Identity]:
    """Return the identity of every case of a folder.

    The id in the files' names is taken where it is that of a known layout or is used in one folder only. Otherwise the
    folder's name is, with as many of the folders above it as are needed to tell cases apart, and at least one where the
    folder is named like an examination (`P1/ses-1` becomes `P1_ses-1`).
    """
    keys = list(keys)
    uses = Counter(folded(name) for _, name in keys)
    named = {key for key in keys if key[1] and (uses[folded(key[1])] == 1 or _is_one_case(key[1]))}
    crowded = Counter(folder for folder, name in keys if (folder, name) not in named)
    parts = {
        key: (*_folder_parts(root, key[0]), *([key[1]] if key[1] and crowded[key[0]] > 1 else []))
        for key in keys
        if key not in named
    }
    lengths, clashed = _tell_apart(parts, {folded(name) for _, name in named})
    ids = {key: key[1] if key in named else "_".join(parts[key][-lengths[key] :]) for key in keys}
    by_folder = {key for key in parts if lengths[key] > 1 and names_examination(parts[key][-1])}
    parents = Counter(parts[key][-lengths[key] : -1] for key in clashed)
    # The folder above is a patient with few examinations (P1/a, P1/b, P2/a), not a site with many patients (A/1, B/1).
    if parents and len(clashed) / len(parents) <= len(parents):
        by_folder |= clashed
    found = {}
    for key, case_id in ids.items():
        told = find_patient(case_id)
        above = _folder_parts(root, key[0])
        if not told.rule and key in by_folder:
            *patient, timepoint = parts[key][-lengths[key] :]
            told = FoundPatient("_".join(patient), timepoint, BY_FOLDERS)
        elif not told.rule and key in named and len(above) > 1 and names_examination(above[-1]):
            told = FoundPatient(above[-2], above[-1], BY_FOLDERS)
        found[key] = Identity(case_id, told.patient, told.timepoint, told.rule)
    return found


def examination_folder(root: Path, folder: Path) -> Path:
    """Return the folder of the examination that a folder's files belong to: the folder itself, or the one around."""
    parts = folder.relative_to(root).parts
    starts = (place for place in range(len(parts)) if parts[place : place + len(_RESULTS)] == _RESULTS)
    place = next(starts, None)
    return folder if place is None else root.joinpath(*parts[:place])


def _is_one_case(case_id: str) -> bool:
    """Tell whether files with this id in several folders belong to the same case."""
    layout = layout_of(case_id)
    return layout is not None and layout.whole_id_in_names


def _tell_apart(parts: Mapping[Key, Sequence[str]], taken: Collection[str]) -> tuple[dict[Key, int], set[Key]]:
    """Return how many of its last parts each case needs for an id of its own, and which cases shared an id before.

    Where one case needs the folder above, the other cases of that folder get it too.
    """
    lengths = {key: 2 if len(path) > 1 and names_examination(path[-1]) else 1 for key, path in parts.items()}
    clashed: set[Key] = set()
    while True:
        by_id: dict[str, list[Key]] = defaultdict(list)
        for key, path in parts.items():
            by_id[folded("_".join(path[-lengths[key] :]))].append(key)
        shared = {key for case_id, same in by_id.items() if len(same) > 1 or case_id in taken for key in same}
        above = {tuple(parts[key][:-1]) for key in shared if lengths[key] < len(parts[key])}
        longer = {key for key, path in parts.items() if tuple(path[:-1]) in above and lengths[key] < len(path)}
        if not longer:
            return lengths, clashed
        clashed |= longer
        for key in longer:
            lengths[key] += 1


def _folder_parts(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the names of the folders from the root down, without those that say nothing; the root's own if none do."""
    below = tuple(part for part in folder.relative_to(root).parts if part.lower() not in _UNTELLING)
    return below or (folder_name(root),)
