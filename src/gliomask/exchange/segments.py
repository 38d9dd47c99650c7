"""What is marked in a mask for other systems: names, DICOM's codes and colours of tissues and regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import unknown_name
from gliomask.labels import LONG_NAMES, LabelConvention, check_labels, get_convention, label_values, to_regions

SEGMENT_CHOICES = ("tissues", "regions")
"""Tissues (NCR, ED, ET) do not overlap; regions (WT, TC, ET) lie within each other."""

_NESTED = {"WT", "TC", "ET"}

# Code, scheme and meaning. Those of the tissues are in DICOM's list for brain lesions (PS3.16, CID 7168), the others in
# that for lesions (CID 7159). It has none for a resection cavity, which takes a code of our own.
_CODES = {
    "NCR": ("6574001", "SCT", "Necrosis"),
    "ED": ("79654002", "SCT", "Edema"),
    "ET": ("C113842", "NCIt", "Enhancing Lesion"),
    "CC": ("367643001", "SCT", "Cyst"),
    "WT": ("52988006", "SCT", "Lesion"),
    "TC": ("108369006", "SCT", "Neoplasm"),
    "RC": ("RC", "99GLIOMASK", "Resection cavity"),
}
ABNORMAL_STRUCTURE = ("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN = ("12738006", "SCT", "Brain")

# Okabe and Ito's palette, as in the reports.
_COLOURS = {
    "NCR": (213, 94, 0),
    "ED": (86, 180, 233),
    "ET": (240, 228, 66),
    "CC": (0, 158, 115),
    "WT": (86, 180, 233),
    "TC": (213, 94, 0),
    "RC": (123, 47, 242),
}


@dataclass(frozen=True)
class Segment:
    """One tissue or region of a mask."""

    name: str
    """A short name, such as `ET`."""
    mask: NDArray[np.bool_]
    """Its voxels, `(X, Y, Z)`; may be empty."""

    @property
    def meaning(self) -> str:
        """The name in a few words."""
        return LONG_NAMES[self.name]

    @property
    def code(self) -> tuple[str, str, str]:
        """Code, coding scheme and meaning of the property that is segmented."""
        return _CODES[self.name]

    @property
    def colour(self) -> tuple[int, int, int]:
        """Red, green and blue from 0 to 255."""
        return _COLOURS[self.name]


@dataclass(frozen=True)
class Origin:
    """What a mask shows, and how it was made."""

    convention: str
    """The name of its label convention."""
    regions: tuple[str, ...] | None = None
    """The regions that were predicted; None for all that the convention can express."""
    models: tuple[str, ...] = ()
    """The SHA-256 of each model file."""
    edited: bool = False
    """Whether the mask was changed by hand after it was predicted."""

    @property
    def algorithm_type(self) -> str:
        """DICOM's word for the part that a program had in it."""
        return "SEMIAUTOMATIC" if self.edited else "AUTOMATIC"


def find_segments(labels: NDArray[np.integer], origin: Origin, choice: str) -> list[Segment]:
    """Return the segments of a mask, also those that are empty.

    If WT, TC and ET were not all predicted, the numbers in the mask do not tell the tissues apart, and the regions are
    returned whatever the choice is.

    Args:
        labels: A label map, `(X, Y, Z)`.
        origin: What the mask shows.
        choice: `tissues` or `regions`.

    Raises:
        InputError: The choice or the convention is unknown, or there are numbers that the convention does not define.
    """
    if choice not in SEGMENT_CHOICES:
        raise unknown_name("choice of segments", choice, SEGMENT_CHOICES)
    known = get_convention(origin.convention)
    check_labels(label_values(labels), known, "the mask")
    given = [name for name in known.regions if origin.regions is None or name in origin.regions]
    if choice == "tissues" and given and set(given) >= _NESTED:
        return _tissues(labels, known)
    masks = to_regions(labels, known, given)
    return [Segment(name, mask) for name, mask in zip(given, masks, strict=True)]


def _tissues(labels: NDArray[np.integer], convention: LabelConvention) -> list[Segment]:
    return [Segment(tissue, labels == value) for value, tissue in sorted(convention.tissues.items())]
