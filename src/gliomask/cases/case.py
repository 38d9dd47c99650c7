"""A case: which file holds which sequence of which examination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from gliomask.errors import unknown_name
from gliomask.labels import REGIONS, get_convention

# The accepted spellings of each sequence in lower case, under its BraTS 2023 name. In file names they follow the case's
# id after `_`, `-`, `.` or a space; the longest spelling that fits is taken, so that `t1ce` is never read as `t1`.
MODALITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "t1n": (
            *("t1n", "t1", "t1w", "t1pre", "t1_pre", "t1-pre", "t1w_pre", "t1w-pre", "t1native", "t1_native"),
            "t1-native",
        ),
        "t1c": (
            *("t1c", "t1ce", "t1_ce", "t1-ce", "t1gd", "t1_gd", "t1-gd", "t1wce", "t1cew", "t1post", "t1_post"),
            *("t1-post", "t1km", "t1contrast", "t1_contrast", "ct1", "ce-gad_t1w", "ce-gadolinium_t1w"),
            *("t1w_ce", "t1w-ce", "t1w_gd", "t1w-gd", "t1gad", "t1_gad", "t1-gad", "t1+c", "t1c+", "t1w_post"),
            *("t1w-post", "t1_postcontrast", "t1-postcontrast", "t1_post_contrast", "t1-post-contrast"),
        ),
        "t2w": ("t2w", "t2"),
        "t2f": (
            *("t2f", "flair", "fla", "t2flair", "t2_flair", "t2-flair", "t2wflair", "t2w_flair", "t2w-flair"),
            *("flair_t2", "flair-t2"),
        ),
    }
)

SEQUENCE_NAMES: Mapping[str, str] = MappingProxyType(
    {"t1n": "T1", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "T2-FLAIR"}
)
"""The name of each sequence in pages and pictures."""

SHOWN_FIRST = ("t2f", "t1c", "t2w", "t1n")
"""The order in which sequences are shown: FLAIR first, which shows the whole tumour best, then enhancement."""

_BY_SPELLING = {spelling: modality for modality, spellings in MODALITIES.items() for spelling in spellings}


@dataclass(frozen=True)
class Problem:
    """What is wrong or was decided, and in which file or case."""

    where: str
    what: str
    paths: tuple[Path, ...] = field(default=(), compare=False)
    """The files and folders that the text names. Tables leave out the folders around them, which may name people."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    def texts(self) -> dict[str, str]:
        """Return what files hold of it: `where` and `what`."""
        return {"where": self.where, "what": self.what}

    @property
    def name(self) -> str:
        """What it is about without folders around it: an id, or the last part of a path."""
        place = Path(self.where)
        return place.name if place in self.paths else self.where


@dataclass(frozen=True)
class Source:
    """A file that holds a sequence, and the channel where the file holds several."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True)
class Case:
    """One examination: its id, the files of its sequences and of its mask, and whose examination it is.

    It holds no voxels; `read_case` and `read_mask` read them.
    """

    id: str
    images: Mapping[str, Source]
    mask: Path | None = None
    convention: str | None = None
    """The label convention of the mask, a name from `labels.CONVENTIONS`; None where it is not known yet."""
    patient: str = ""
    """Shared by all examinations of one patient, so that a split can keep them together; the id if not given."""
    timepoint: str = ""
    """Which of the patient's examinations this is, as its name says; empty where it does not."""
    patient_rule: str = ""
    """The rule by which the patient was found, in words; empty where every id counts as a patient."""
    convention_given: bool = field(default=False, compare=False)
    """Whether the convention was given (`--labels`, `labels.txt`, `dataset.json`) rather than assumed from the id."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)

    @property
    def known(self) -> tuple[str, ...]:
        """The regions that the mask labels: all of them, unless its convention is for fewer (`wt-only`, say)."""
        return tuple(REGIONS) if self.convention is None else get_convention(self.convention).known


def get_modality(name: str) -> str:
    """Return the internal name of a sequence (`t1n`, `t1c`, `t2w` or `t2f`) for any accepted spelling of it.

    Raises:
        InputError: The spelling is not known.
    """
    if name.lower() not in _BY_SPELLING:
        raise unknown_name("modality", name, ("t1", "t1ce", "t2", "flair", *MODALITIES))
    return _BY_SPELLING[name.lower()]
