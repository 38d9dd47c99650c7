"""The images of an examination as they come: which there are, which sequence each is, and which of them are used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from gliomask.acquisition.classify import alias_of
from gliomask.acquisition.itk import from_itk, read_itk_grid, require_itk
from gliomask.cases import MODALITIES
from gliomask.cases.folders import files_below
from gliomask.errors import InputError
from gliomask.volume import NIFTI_ENDINGS, Grid, Volume, read_grid, read_volume

ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
"""Endings of volumes that SimpleITK reads."""

REFERENCES = ("t1c", "t1n", "t2f", "t2w")
"""To which sequence the others are registered, the first that is there: it is where masks are wanted most."""

GUESS = "the later of two like T1 series"
"""Part of the reason, and of the note, for a series that is taken for T1 after contrast though nothing says so."""

_THREE_D_MM = 2.0  # slices no thicker than this count as a 3-D acquisition


@dataclass(frozen=True)
class Series:
    """One image of an examination, before it is read."""

    name: str
    """A file's name, or a DICOM series' number."""
    files: tuple[Path, ...]
    modality: str | None
    """`t1n t1c t2w t2f`, or None for any other or unknown sequence."""
    reason: str
    """Why it counts as that, in words that name no patient."""
    grid: Grid | None = None
    problem: str = ""
    """Why it cannot be used, whatever its sequence: slices missing, too few, damaged."""
    original: bool = True
    """Whether the scanner made it, rather than a computation on other images."""
    named: bool = False
    """Whether the user said which sequence it is."""
    began: float | None = field(default=None, repr=False)
    """When its acquisition began, in seconds, for comparisons within the examination only; None where not known."""
    similar: tuple[float | bool, ...] = ()
    """What it shares with a series acquired in the same way."""
    description: str = ""
    """Words of its description that name no patient."""
    aliases: tuple[str, ...] = field(default=(), repr=False)
    """Digests of other texts by which the user may name it (`classify.alias_of`)."""
    uid: str = field(default="", repr=False)
    """The DICOM series' UID, else empty."""
    read: Callable[[], Volume] = field(default_factory=lambda: _unread, repr=False, compare=False)
    """Reads the voxels; it pickles, as studies are prepared in other processes."""

    @property
    def slice_mm(self) -> float:
        """The thickest voxel edge."""
        return max(self.grid.spacing_mm) if self.grid else float("inf")

    def is_called(self, name: str) -> bool:
        """Tell whether the user means this series: by its name or number, description, UID, or file name."""
        alias = alias_of(name)
        known = {self.name, self.name.removeprefix("series "), self.description, self.uid} - {""}
        return alias in self.aliases or alias in map(alias_of, known)


@dataclass(frozen=True)
class Choice:
    """What is done with one series, and why."""

    series: Series
    used: bool
    reason: str


@dataclass(frozen=True)
class Study:
    """One examination: every series that was found, and the one that is used for each sequence."""

    id: str
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()
    problem: str = ""
    """Why it cannot be prepared as a whole, with what to do."""
    uid: str = field(default="", repr=False)
    """The DICOM study's UID, else empty."""

    @property
    def chosen(self) -> dict[str, Series]:
        """The series of each sequence, in the order of `MODALITIES`."""
        found = {choice.series.modality: choice.series for choice in self.choices if choice.used}
        return {name: found[name] for name in MODALITIES if name in found}

    def check(self) -> None:
        """Refuse a study that cannot be prepared.

        Raises:
            InputError: It has a problem, or no series is a sequence that is known.
        """
        if self.problem:
            raise InputError(f"{self.id}: {self.problem}")
        if not self.chosen:
            listed = "; ".join(f"{choice.series.name}: {choice.reason}" for choice in self.choices)
            raise InputError(
                f"{self.id}: none of its {len(self.choices)} images is a usable T1, T1c, T2 or FLAIR ({listed}). If "
                "one is, name it with --t1 --t1c --t2 --flair."
            )

    def read(self) -> dict[str, Volume]:
        """Return the voxels of the chosen series by sequence, one channel each.

        Raises:
            InputError: The study cannot be prepared (see `check`), or a file is bad.
        """
        self.check()
        return {name: series.read() for name, series in self.chosen.items()}


def name_series(study: Study, wishes: Mapping[str, str]) -> Study:
    """Return the study with the series that the user names for some sequences; it has a `problem` where none fits.

    Args:
        study: All series of which were found.
        wishes: By sequence, a series' number, description, UID or file name.
    """
    every = [choice.series for choice in study.choices]
    for modality, name in wishes.items():
        fitting = [number for number, one in enumerate(every) if one.is_called(name)]
        if len(fitting) != 1:
            there = "; ".join(f"{one.name} {one.description}".strip() for one in every)
            what = "no series is" if not fitting else f"{len(fitting)} series are"
            return replace(study, problem=f"{what} called {name!r}, named for {modality}. It has {there}.")
        (number,) = fitting
        if every[number].problem:
            text = f"{every[number].name}, named for {modality}, cannot be used: {every[number].problem}."
            return replace(study, problem=text)
        every[number] = replace(every[number], modality=modality, named=True, reason="named by you")
    # What was guessed of T1 is settled by the user.
    settled = not {"t1n", "t1c"}.isdisjoint(wishes)
    notes = tuple(note for note in study.notes if not (settled and GUESS in note))
    return replace(study, choices=make_study(study.id, every).choices, notes=notes) if wishes else study


def volume_files(path: Path) -> list[Path]:
    """Return the files below a folder that are volumes by their names: NIfTI, MHA, MHD, NRRD; hidden ones are not."""
    return volumes_of(visible_files(path))


def volumes_of(files: Iterable[Path]) -> list[Path]:
    """Return those of some files that are volumes by their names."""
    return [file for file in files if file.name.lower().endswith((*NIFTI_ENDINGS, *ITK_ENDINGS))]


def visible_files(path: Path) -> list[Path]:
    """Return all files below a folder that are not hidden, sorted; links are followed (see `files_below`)."""
    return files_below(path)


def subfolder_of(path: Path, file: Path) -> str:
    """Return the name of the folder directly below `path` that holds a file, or an empty string for none."""
    parts = file.relative_to(path).parts[:-1]
    return parts[0] if parts else ""


def make_study(study_id: str, series: Iterable[Series], notes: Sequence[str] = (), *, uid: str = "") -> Study:
    """Return a study in which the best series of each sequence is chosen, and a reason given for every one.

    The series that the user named, else 3-D before thick slices, original before derived, then the thinnest slices,
    axial before others at equal thickness, and the finest voxels.
    """
    by_modality: dict[str, list[Series]] = defaultdict(list)
    choices, others = [], []
    for one in series:
        if one.modality is None or one.problem:
            others.append(Choice(one, False, one.reason if one.modality is None else one.problem))
        else:
            by_modality[one.modality].append(one)
    for name in MODALITIES:
        ranked = sorted(by_modality.get(name, []), key=_rank)
        for place, one in enumerate(ranked):
            better = f"{ranked[0].name} is better: {_advantage(ranked[0], one)}" if place else one.reason
            choices.append(Choice(one, place == 0, better))
    return Study(study_id, (*choices, *others), tuple(notes), uid=uid)


def _rank(series: Series) -> tuple[bool, bool, bool, float, bool, float]:
    axial = series.grid is None or _slice_axis(series.grid) == 2
    thick = round(series.slice_mm, 1)
    volume = float(np.prod(series.grid.spacing_mm)) if series.grid else float("inf")
    return not series.named, not series.original, thick > _THREE_D_MM, thick, not axial, volume


def _advantage(best: Series, other: Series) -> str:
    if best.named:
        return "you named it"
    if best.original and not other.original:
        return "it is original, this one is derived"
    if best.slice_mm <= _THREE_D_MM < other.slice_mm:
        return "it is a 3-D acquisition"
    if round(best.slice_mm, 1) < round(other.slice_mm, 1):
        return f"slices of {best.slice_mm:.1f} mm, here {other.slice_mm:.1f} mm"
    if _rank(best)[4] < _rank(other)[4]:
        return "it is axial"
    return "its voxels are finer, or it comes first"


def _slice_axis(grid: Grid) -> int:
    """The anatomical axis (0 left-right, 1 front-back, 2 up-down) along which the slices are stacked."""
    # Of equal edges the last axis, along which slices are stacked in files.
    thickest = max(range(3), key=lambda axis: (round(grid.spacing_mm[axis], 2), axis))
    return int(np.argmax(np.abs(grid.affine[:3, thickest])))


def read_raw_grid(path: Path) -> tuple[Grid | None, str]:
    """Return the grid of a raw volume by its header, and what is wrong with it; ITK's formats may give neither."""
    try:
        if not path.name.lower().endswith(NIFTI_ENDINGS):
            return read_itk_grid(path), ""
        grid, channels = read_grid(path)
    except InputError as error:
        return None, str(error).removeprefix(f"{path}: ").rstrip(".")
    several = f"it holds {channels} volumes (a time series or a diffusion scan?)" if channels > 1 else ""
    return grid, several


def read_raw_volume(path: Path) -> Volume:
    """Return a raw image of one channel from NIfTI, MHA, MHD or NRRD, with NaN as 0.

    Raises:
        InputError: The file cannot be read, is not 3-D, has several channels, or is all zero.
    """
    if path.name.lower().endswith(NIFTI_ENDINGS):
        volume = read_volume(path)
    else:
        try:
            volume = from_itk(require_itk().ReadImage(str(path)))
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read: is it damaged, or not a volume?") from error
    if len(volume.data) > 1:
        raise InputError(
            f"{path}: holds {len(volume.data)} volumes (a time series or a diffusion scan?); one is needed."
        )
    data = np.nan_to_num(volume.data.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if not data.any():
        raise InputError(f"{path}: every voxel is zero. Was the export cut short?")
    return Volume(data, volume.affine)


def series_by_name(names: Mapping[str, Path], *, reason: str = "named by you") -> list[Series]:
    """Return the series of files that are given by sequence."""
    return [
        Series(path.name, (path,), name, reason, *read_raw_grid(path), read=partial(read_raw_volume, path))
        for name, path in names.items()
    ]


def _unread() -> Volume:
    raise InputError("this series cannot be read.")
