"""A case: which file holds which sequence of which examination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gliomask.errors import unknown_name

# Each sequence by its BraTS 2023 name, with every spelling that is accepted, in lower case. In file names they follow
# the case's id after `_`, `-` or `.`; the longest spelling that fits wins, as `t1` ends in nothing but starts `t1ce`.
MODALITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "t1n": ("t1n", "t1", "t1w", "t1pre", "t1_pre", "t1native", "t1_native"),
        "t1c": (
            *(
                "t1c",
                "t1ce",
                "t1_ce",
                "t1-ce",
                "t1gd",
                "t1_gd",
                "t1-gd",
                "t1wce",
                "t1cew",
                "t1post",
                "t1_post",
                "t1-post",
            ),
            *("t1km", "t1contrast", "t1_contrast", "ct1", "ce-gad_t1w", "ce-gadolinium_t1w"),
        ),
        "t2w": ("t2w", "t2"),
        "t2f": ("t2f", "flair", "fla", "t2flair", "t2_flair", "t2-flair"),
    }
)

SEQUENCE_NAMES: Mapping[str, str] = MappingProxyType(
    {"t1n": "T1", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "T2-FLAIR"}
)
"""What a reader calls each sequence."""

SHOWN_FIRST = ("t2f", "t1c", "t2w", "t1n")
"""The order in which sequences are shown: first the one that shows the whole tumour best, then enhancement."""

_BY_SPELLING = {spelling: modality for modality, spellings in MODALITIES.items() for spelling in spellings}

# What follows the patient in an id: the time point.
_TIME_POINT = re.compile(r"(?<=^BraTS-)([a-z]+-\d{5})-\d{3}$|^(brats1[789]_.+)_\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A file, and the channel of it where it holds several."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True)
class Case:
    """One examination: an id, its sequences, and its mask if it has one. It knows no voxel."""

    id: str
    images: Mapping[str, Source]
    mask: Path | None = None
    convention: str | None = None

    @property
    def patient(self) -> str:
        """The id without its time point, so that a patient's examinations stay on one side of a split."""
        found = _TIME_POINT.search(self.id)
        return found.group(1) or found.group(2) if found else self.id


def get_modality(name: str) -> str:
    """Return a sequence's name as it is used inside (`t1n`, `t1c`, `t2w`, `t2f`) for any accepted spelling of it.

    Raises:
        InputError: The spelling is not known.
    """
    if name.lower() not in _BY_SPELLING:
        raise unknown_name("modality", name, ("t1", "t1ce", "t2", "flair", *MODALITIES))
    return _BY_SPELLING[name.lower()]
