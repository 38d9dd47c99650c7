"""The images of an examination as they come: which there are, which sequence each is, and which of them are used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from gliomask.acquisition.itk import from_itk, require_itk
from gliomask.cases import MODALITIES, classify
from gliomask.errors import InputError
from gliomask.volume import NIFTI_ENDINGS, Grid, Volume, read_grid, read_volume

ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
"""Endings of volumes that SimpleITK reads."""

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
    original: bool = True
    """Whether the scanner made it, rather than a computation on other images."""
    order: tuple[str, int] = ("", 0)
    """When it was acquired within the examination, and its number, for comparisons only."""
    similar: tuple[float | bool, ...] = ()
    """What it shares with a series acquired in the same way."""
    read: Callable[[], Volume] = field(default_factory=lambda: _unread, repr=False, compare=False)
    """Reads the voxels; it pickles, as studies are prepared in other processes."""

    @property
    def slice_mm(self) -> float:
        """The thickest voxel edge."""
        return max(self.grid.spacing_mm) if self.grid else float("inf")


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

    @property
    def chosen(self) -> dict[str, Series]:
        """The series of each sequence, in the order of `MODALITIES`."""
        found = {choice.series.modality: choice.series for choice in self.choices if choice.used}
        return {name: found[name] for name in MODALITIES if name in found}

    def read(self) -> dict[str, Volume]:
        """Return the voxels of the chosen series by sequence, one channel each.

        Raises:
            InputError: No series is a sequence that is known, or a file is bad.
        """
        if not self.chosen:
            listed = "; ".join(f"{choice.series.name}: {choice.reason}" for choice in self.choices)
            raise InputError(f"{self.id}: none of its {len(self.choices)} images is T1, T1c, T2 or FLAIR. {listed}")
        return {name: series.read() for name, series in self.chosen.items()}


def volume_files(path: Path) -> list[Path]:
    """Return the files below a folder that are volumes by their names: NIfTI, MHA, MHD, NRRD; hidden ones are not."""
    return [file for file in visible_files(path) if file.name.lower().endswith((*NIFTI_ENDINGS, *ITK_ENDINGS))]


def visible_files(path: Path) -> list[Path]:
    """Return all files below a folder that are not hidden and in no hidden folder, sorted."""
    return [
        file
        for file in sorted(path.rglob("*"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts) and file.is_file()
    ]


def find_volume_studies(path: Path, files: Sequence[Path]) -> list[Study]:
    """Return the examinations of raw volumes, one for each folder that holds some.

    A file's sequence follows from its name. Of several files of one sequence the best is used: 3-D before thick
    slices, then the finest.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        folders[file.parent].append(file)
    return [
        make_study(_study_id(folder, path), map(_volume_series, files)) for folder, files in sorted(folders.items())
    ]


def make_study(study_id: str, series: Sequence[Series] | map[Series], notes: Sequence[str] = ()) -> Study:
    """Return a study in which the best series of each sequence is chosen, and a reason given for every one."""
    by_modality: dict[str, list[Series]] = defaultdict(list)
    choices = []
    for one in series:
        if one.modality is None:
            choices.append(Choice(one, False, one.reason))
        else:
            by_modality[one.modality].append(one)
    for name in MODALITIES:
        ranked = sorted(by_modality.get(name, []), key=_rank)
        for place, one in enumerate(ranked):
            better = f"{ranked[0].name} is better: {_advantage(ranked[0], one)}" if place else one.reason
            choices.append(Choice(one, place == 0, better))
    return Study(study_id, tuple(choices), tuple(notes))


def _rank(series: Series) -> tuple[bool, bool, bool, float]:
    axial = series.grid is None or _slice_axis(series.grid) == 2
    return not series.original, series.slice_mm > _THREE_D_MM, not axial, series.slice_mm


def _advantage(best: Series, other: Series) -> str:
    if best.original and not other.original:
        return "it is original, this one is derived"
    if best.slice_mm <= _THREE_D_MM < other.slice_mm:
        return "it is a 3-D acquisition"
    if best.slice_mm < other.slice_mm - 0.01:
        return f"slices of {best.slice_mm:.1f} mm, here {other.slice_mm:.1f} mm"
    return "it is axial, or comes first"


def _slice_axis(grid: Grid) -> int:
    """The anatomical axis (0 left-right, 1 front-back, 2 up-down) along which the slices are stacked."""
    thickest = int(np.argmax(grid.spacing_mm))
    return int(np.argmax(np.abs(grid.affine[:3, thickest])))


def _study_id(folder: Path, root: Path) -> str:
    parts = folder.relative_to(root).parts
    return "_".join(parts) if parts else folder.resolve().name


def _volume_series(path: Path) -> Series:
    found = classify(path.with_suffix(".nii") if path.name.lower().endswith(ITK_ENDINGS) else path)
    modality = found[1] if found and found[1] in MODALITIES else None
    reason = f"its name says {modality}" if modality else "its name is that of no sequence"
    if found and found[1] == "mask":
        reason = "its name says that it is a mask"
    return Series(path.name, (path,), modality, reason, _grid_of(path), read=partial(read_raw_volume, path))


def _grid_of(path: Path) -> Grid | None:
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        return None
    try:
        return read_grid(path)[0]
    except InputError:
        return None  # said when the file is read


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


def series_by_name(names: Mapping[str, Path]) -> list[Series]:
    """Return the series of files that the user named for each sequence."""
    return [
        Series(path.name, (path,), name, "named by you", _grid_of(path), read=partial(read_raw_volume, path))
        for name, path in names.items()
    ]


def _unread() -> Volume:
    raise InputError("this series cannot be read.")
