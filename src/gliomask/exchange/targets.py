"""The layouts that `convert` writes, a row each: where each file goes, and which label conventions it can hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from gliomask.cases import Case, Layout, get_layout
from gliomask.errors import InputError, unknown_name
from gliomask.labels import CONVENTIONS, get_convention

# nnU-Net wants consecutive numbers.
_CONSECUTIVE = ("msd", "brats2023", "brats2024", "brats2024-ped", "hd-glio", "wt-only", "tc-only")


@dataclass(frozen=True)
class Target:
    """A layout that can be written."""

    layout: Layout
    """Its names, as they are read."""
    conventions: tuple[str, ...]
    """The label conventions that its masks may have; the first that has a number for every tissue is used."""
    all_sequences: bool = False
    """Whether every case must have all sequences of the data set."""
    image_without_mask: str = ""
    """Where images of cases without a mask go, if elsewhere; as `Layout.image`."""
    own_ids: bool = False
    """Whether a case gets a new id, made of its patient and time point."""


@dataclass(frozen=True)
class Names:
    """What the files of one case are called, relative to the output folder."""

    id: str
    images: Mapping[str, PurePosixPath]
    """By sequence; the same path for all of them if one file holds all."""
    mask: PurePosixPath | None


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.layout.name: target
        for target in (
            Target(get_layout("brats2021"), ("brats2021", "wt-only", "tc-only")),
            Target(get_layout("brats2023"), ("brats2023", "brats2024", "brats2024-ped", "wt-only", "tc-only")),
            Target(
                get_layout("msd"),
                _CONSECUTIVE,
                all_sequences=True,
                image_without_mask="imagesTs/{id}.nii.gz",
            ),
            Target(
                get_layout("nnunet"),
                _CONSECUTIVE,
                all_sequences=True,
                image_without_mask="imagesTs/{id}_{modality}.nii.gz",
            ),
            Target(get_layout("bids"), ("brats2023", *CONVENTIONS), own_ids=True),
        )
    }
)


def get_target(name: str) -> Target:
    """Return a layout that can be written, by name.

    Raises:
        InputError: The name is not in `TARGETS`.
    """
    if name not in TARGETS:
        raise unknown_name("layout to write", name, TARGETS)
    return TARGETS[name]


def choose_convention(target: Target, cases: Sequence[Case], asked: str | None = None) -> str:
    """Return the label convention to write: the one asked for, or the layout's first that can express all masks.

    If none can express all of them, the layout's first is returned; the cases that it cannot express are refused
    where their masks are converted.

    Raises:
        InputError: The convention asked for is unknown, or masks of the layout cannot have it.
    """
    if asked is not None:
        name = get_convention(asked).name
        if name not in target.conventions:
            raise InputError(
                f"--write-labels {asked}: not in layout {target.layout.name}, whose masks can have "
                f"{', '.join(dict.fromkeys(target.conventions))}."
            )
        return name
    used = {case.convention for case in cases if case.mask is not None and case.convention is not None}
    tissues = {tissue for name in used for tissue in get_convention(name).tissues.values()}
    fitting = (name for name in target.conventions if tissues <= set(get_convention(name).tissues.values()))
    return next(fitting, target.conventions[0])


def name_files(target: Target, case: Case, modalities: Sequence[str]) -> Names:
    """Return what the files of a case are called in a layout, for those of the sequences that the case has.

    Args:
        target: The layout.
        case: The case. If it has no mask, its images may go elsewhere (`imagesTs`).
        modalities: The sequences of the data set, in the order of its channels.

    Raises:
        InputError: The case's id cannot be used in this layout.
    """
    layout = target.layout
    groups = _bids_groups(case) if target.own_ids else {"id": case.id}
    if layout.one_file and re.search(r"_\d{4}$", case.id):
        raise InputError(f"{case.id}: an id that ends like this is read as one channel of a case. Rename the case.")
    pattern = layout.image if case.mask is not None else target.image_without_mask or layout.image
    names = _channel_names(layout, modalities)
    return Names(
        groups["id"],
        {m: _path(pattern, modality=names[m], **groups) for m in modalities if m in case.images},
        _path(layout.mask, **groups) if case.mask is not None else None,
    )


def _channel_names(layout: Layout, modalities: Sequence[str]) -> dict[str, str]:
    """Return each sequence's name in a file's name; channels are numbered in their order."""
    if layout.name == "nnunet":
        return {modality: f"{channel:04d}" for channel, modality in enumerate(modalities)}
    return {modality: layout.modalities[modality] for modality in modalities}


def _path(pattern: str, **names: str) -> PurePosixPath:
    path = PurePosixPath(pattern.format(**names))
    return PurePosixPath(*(part for part in path.parts if part != "ses-"))  # an examination without a time point


def _bids_groups(case: Case) -> dict[str, str]:
    """Return a case's names in BIDS, where labels are letters and digits only."""
    label, session = (re.sub(r"[^A-Za-z0-9]", "", text) for text in (_without_prefix(case.patient), case.timepoint))
    if not label:
        raise InputError(f"{case.id}: BIDS names are made of letters and digits; {case.patient!r} has none.")
    patient = f"sub-{label}"
    return {"id": f"{patient}_ses-{session}" if session else patient, "patient": patient, "timepoint": session}


def _without_prefix(patient: str) -> str:
    return patient[4:] if patient.lower().startswith("sub-") else patient


def files_of(names: Names, root: Path) -> list[Path]:
    """Return the paths of a case's files, each once."""
    paths = dict.fromkeys([*names.images.values(), *([names.mask] if names.mask else [])])
    return [root / path for path in paths]
