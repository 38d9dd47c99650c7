"""The examinations of raw volumes (NIfTI, MHA, MHD, NRRD) in a folder: which files belong together, by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gliomask.acquisition.classify import alias_of
from gliomask.acquisition.study import ITK_ENDINGS, Series, Study, make_study, read_raw_grid, read_raw_volume
from gliomask.cases import MODALITIES
from gliomask.cases.naming import FileName, folded, is_registered, names_beside, read_name
from gliomask.cases.sequence_folders import find_sequence_folders

# Words of an id that tell the images of one examination apart, not patients. Numbers may be patients.
_OF_ONE_IMAGE = re.compile(
    r"(?:(?<=[ _.-])|^)(?:ax|axial|tra|sag|sagittal|cor|coronal|[23]d|t?se|fse|mprage|spgr|bravo|space|cube"
    r"|run-[a-z0-9]+)(?=[ _.-]|$)",
    re.IGNORECASE,
)
# Numbers of series, as converters put before the description (3_AX_T1). Those of patients often begin with zeros.
_OF_SERIES = re.compile(r"[1-9]\d{0,3}")
_SEPARATORS = " _.-"
_SHOWN = 3
_SEVERAL = 2


@dataclass(frozen=True)
class _File:
    """A volume, and what its name and its folder say."""

    path: Path
    place: Path
    """The folder of its examination."""
    told: FileName | None
    reason: str

    @property
    def modality(self) -> str | None:
        return self.told.role if self.told and self.told.role in MODALITIES else None

    @property
    def case_id(self) -> str:
        """The id before the sequence, without words that tell images of one examination apart."""
        kept = _OF_ONE_IMAGE.sub("", self.told.case_id) if self.told else ""
        return re.sub(r"([ _.-])[ _.-]+", r"\1", kept).strip(_SEPARATORS)

    def series(self) -> Series:
        """Return it as a series, by its header."""
        grid, problem = read_raw_grid(self.path)
        return Series(
            self.path.relative_to(self.place).as_posix(),
            (self.path,),
            self.modality,
            self.reason,
            grid,
            problem,
            aliases=(alias_of(self.path.name),),
            read=partial(read_raw_volume, self.path),
        )


def find_volume_studies(path: Path, files: Sequence[Path]) -> list[Study]:
    """Return the examinations of raw volumes: one for each folder that holds some, and for each id in their names.

    Folders that are named like sequences belong to the examination around them (`sequence_folders`). A file's sequence
    follows from its name; of several files of one sequence the best is used (see `make_study`). Files whose names begin
    with different ids, as several patients' do, are taken apart with a note. Where no sequence is there twice they may
    be of one examination or of several, and the study has a `problem`. Short numbers are then
    taken for those of series, with a note.

    Args:
        path: The folder that is looked into.
        files: The volumes below it.
    """
    places: dict[Path, list[_File]] = defaultdict(list)
    for file in _read_names(path, files):
        places[file.place].append(file)
    return [study for place, those in sorted(places.items()) for study in _studies(path, place, those)]


def _read_names(root: Path, files: Sequence[Path]) -> Iterator[_File]:
    # Names are read as those of NIfTI files are, whatever the format.
    named = {file: file.with_suffix(".nii") if file.name.lower().endswith(ITK_ENDINGS) else file for file in files}
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(named[file])
    by_sequence = find_sequence_folders(root, by_folder)
    places = {folder: _place(root, folder, names) for folder, names in by_folder.items()}
    beside = {
        place: names_beside(name for folder, names in by_folder.items() if places[folder] == place for name in names)
        for place in set(places.values())
    }
    for file, name in named.items():
        place = places[file.parent]
        if name in by_sequence:
            place, told = by_sequence[name]
            yield _File(file, place, told, f"its folder says {told.role}")
            continue
        found = read_name(name, beside[place])
        if found:
            reason = "its name says that it is a mask" if found.role == "mask" else f"its name says {found.role}"
        elif is_registered(name, beside[place]):
            reason = "its name says that one sequence was registered to another"
        else:
            reason = "its name is that of no sequence"
        yield _File(file, place, found, reason)


def _place(root: Path, folder: Path, names: Sequence[Path]) -> Path:
    """Return the folder around one that is named like the only sequence in it; T1 may also be a time point."""
    named = read_name(folder) if folder != root else None
    if named is None or named.case_id:
        return folder
    spelled = {role for roles in names_beside(names).values() for role in roles}
    told = {found.role for name in names if (found := read_name(name))}
    return folder.parent if spelled <= {named.role} or told <= {named.role} else folder


def _studies(root: Path, place: Path, files: Sequence[_File]) -> list[Study]:
    """Return the studies of the files of one place."""
    parts = place.relative_to(root).parts
    name = "_".join(parts) if parts else place.resolve().name
    by_id: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        if file.modality:
            by_id[folded(file.case_id)].append(file)
    ids = {key: those[0].case_id for key, those in by_id.items()}
    sequences = [modality for those in by_id.values() for modality in {file.modality for file in those}]
    twice = len(sequences) > len(set(sequences))
    if len(ids) < _SEVERAL or (len(ids) == _SEVERAL and "" in ids and not twice):
        return [make_study(name, (file.series() for file in files))]
    shown = ", ".join(one or "(no id)" for one in list(ids.values())[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    if not twice and all(_OF_SERIES.fullmatch(one) for one in ids.values() if one):
        note = f"the numbers with which the names of its images begin ({shown}) are taken for those of series"
        return [make_study(name, (file.series() for file in files), (note,))]
    if not twice:
        problem = (
            f"the names of its images begin with {len(ids)} ids ({shown}). If they are of one examination, let the "
            "names begin with the same id; otherwise put each into a folder of its own."
        )
        return [replace(make_study(name, (file.series() for file in files)), problem=problem)]
    for file in files:
        if not file.modality:
            by_id[_owner(file, ids)].append(file)
    note = (
        f"taken apart from other images in its folder by the {len(ids)} ids in the names ({shown}); if they are of one "
        "examination, let the names begin with the same id"
    )
    return [
        make_study("_".join((*parts, ids[key])) if ids[key] else name, (file.series() for file in those), (note,))
        for key, those in by_id.items()
    ]


def _owner(file: _File, ids: Mapping[str, str]) -> str:
    """Return which id a file that is no image of a sequence is shown with: the longest that its name begins with."""
    fitting = [key for key in ids if folded(file.path.name).startswith(key)]
    return max(fitting, key=len) if fitting else min(ids)
