"""The scoring protocols of each generation of BraTS, one row of the table per protocol."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from gliomask.errors import unknown_name
from gliomask.metrics.lesions import LesionRule
from gliomask.metrics.lesionwise import Matcher, match_by_dilation, match_one_to_one
from gliomask.metrics.measures import METRICS, Metric

_FACTS = (
    *("sensitivity", "specificity", "voxel_accuracy", "voxel_accuracy_of_nothing", "iou"),
    *("truth_ml", "prediction_ml", "volume_difference_ml", "truth_pieces", "prediction_pieces"),
)
COUNTS = ("lesion_tp", "lesion_fp", "lesion_fn", "detection_f1")

# The diagonal of the challenge's grid at 1 mm, used for every grid because published scores use it.
_DIAGONAL_2021_MM = math.hypot(240, 240, 155)


@dataclass(frozen=True)
class Protocol:
    """How a case is scored: the regions, the metrics, the definition of a lesion, and the penalty for an empty mask."""

    name: str
    description: str
    regions: tuple[str, ...]
    metrics: Mapping[str, Metric]
    """The metrics of each region as a whole, by the names in the result of `score_case`, in this order."""
    empty_mm: float | None
    """The distance in mm if one mask is empty and the other is not; None for the diagonal of the case's grid."""
    headline: tuple[str, ...]
    """The metrics that the challenge ranks by or reports first: a Dice, an HD95, then others."""
    source: str
    match: Matcher = match_one_to_one
    """The function that decides which lesions are compared."""
    lesions: Mapping[str, LesionRule] = field(default_factory=dict)
    """The definition of a lesion by region, including regions that only merge the lesions of others."""
    lesion_metrics: tuple[Metric, ...] = ()
    """The metrics of single lesions, in addition to their counts."""
    lesion_empty_mm: float | None = None
    """Like `empty_mm`, for a single lesion; None for the same value."""
    both_empty_is_perfect: bool = True
    """Whether two empty masks score perfectly; otherwise their scores are undefined (NaN)."""
    disjoint_as_empty: bool = False
    """Whether two masks without a common voxel, however close, are scored as if one of them were empty in the distances
    and the surface Dice."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a row of the table by its name, as the functions in it cannot be pickled."""
        if PROTOCOLS.get(self.name) is self:
            return get_protocol, (self.name,)
        return copyreg.__newobj__, (type(self),), self.__dict__  # type: ignore[attr-defined]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all numbers that `score_case` returns for a region, in this order."""
        return (*self.metrics, *(f"lesion_{metric.name}" for metric in self.lesion_metrics), *COUNTS)

    @property
    def required_regions(self) -> tuple[str, ...]:
        """The regions whose masks a case must have: those that are scored, and those that merge their lesions."""
        joining = [other for region in self.regions for other in self.rule(region).joined_by]
        return tuple(dict.fromkeys((*self.regions, *joining)))

    def rule(self, region: str) -> LesionRule:
        """Return the definition of a lesion of a region."""
        return self.lesions.get(region, LesionRule())

    def penalty_mm(self, diagonal_mm: float) -> float:
        """Return the distance if one mask is empty, for a grid with this diagonal."""
        return diagonal_mm if self.empty_mm is None else self.empty_mm

    def lesion_penalty_mm(self, diagonal_mm: float) -> float:
        """Return the distance of a lesion without a match."""
        return self.penalty_mm(diagonal_mm) if self.lesion_empty_mm is None else self.lesion_empty_mm


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        InputError: The name is not in `PROTOCOLS`.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def family_of(protocol: Protocol) -> tuple[Protocol, ...]:
    """Return the protocols of all years for the same kind of tumour, oldest first; each family begins with 2021.

    The kinds are the endings of the names: `gli`, `ssa`, `men`, `met`, `ped`. The family of `brats2021` is that of
    `gli`. `brats2026-goat` is compared with the family of `gli` and comes last.
    """
    kind = protocol.name.partition("-")[2]
    kind = "gli" if kind in ("", "goat") else kind
    found = [row for row in PROTOCOLS.values() if row.name == "brats2021" or row.name.endswith(f"-{kind}")]
    return tuple(found if protocol in found else [*found, protocol])


def _metrics(*names: str) -> Mapping[str, Metric]:
    return MappingProxyType({name: METRICS[name] for name in dict.fromkeys((*names, *_FACTS))})


_WHOLE = _metrics("dice", "hd95_pooled_mm", "hd95_surface_mm", "nsd_0.5mm", "nsd_1mm")


def _alike(rule: LesionRule, *regions: str) -> Mapping[str, LesionRule]:
    return MappingProxyType(dict.fromkeys(regions, rule))


def _rows_2023() -> Iterator[Protocol]:
    settings = {"gli": (3, 50), "ssa": (3, 50), "men": (1, 50), "ped": (3, 50), "met": (1, 2)}
    for kind, (dilation, ignored) in settings.items():
        yield Protocol(
            name=f"brats2023-{kind}",
            description=f"BraTS 2023 {kind.upper()}: lesion-wise, false and missed lesions penalized",
            regions=("WT", "TC", "ET"),
            metrics=_WHOLE,
            empty_mm=374,
            headline=("lesion_dice", "lesion_hd95_surface_mm", "dice", "hd95_surface_mm"),
            match=match_by_dilation,
            lesions=_alike(LesionRule(dilation, ignored), "WT", "TC", "ET"),
            lesion_metrics=(METRICS["dice"], METRICS["hd95_surface_mm"]),
            source="BraTS-2023-Metrics, 43c9052",
        )


def _rows_2024() -> Iterator[Protocol]:
    """Yield the protocols of 2024 and 2025; MET with the labels of 2025."""
    joined = LesionRule(dilation=3, ignored_mm3=20, merge_predictions=True, dropped_voxels=20)
    wide = replace(joined, dilation=5)
    small = replace(joined, ignored_mm3=10, dropped_voxels=10)
    african = LesionRule(dilation=3, ignored_mm3=50, merge_predictions=True, dropped_voxels=50)
    metastases = LesionRule(dilation=1, ignored_mm3=2, merge_predictions=True, dropped_voxels=2)
    children = LesionRule(dilation=5, ignored_mm3=10, merge_predictions=True, dropped_voxels=10)
    by_kind: Mapping[str, tuple[tuple[str, ...], Mapping[str, LesionRule], float | None]] = {
        "gli": (
            ("WT", "TC", "ET", "NCR", "ED", "RC"),
            {
                "WT": joined,
                "TC": joined,
                "ET": replace(small, joined_by=("NCR", "RC")),
                "NCR": replace(wide, joined_by=("ET", "RC")),
                "ED": replace(joined, joined_by=("ET", "RC", "NCR")),  # 3 steps: the challenge intended 5 and ran 3
                "RC": replace(wide, joined_by=("ET", "NCR")),
            },
            337,
        ),
        "ssa": (
            ("WT", "TC", "ET"),
            {**_alike(african, "WT", "TC", "NCR"), "ET": replace(african, joined_by=("NCR",))},
            374,
        ),
        "men": (("WT", "TC", "ET"), _alike(LesionRule(dilation=1, ignored_mm3=50), "WT", "TC", "ET"), 374),
        "met": (
            ("WT", "TC", "ET", "RC"),
            {**_alike(metastases, "WT", "TC", "NCR", "RC"), "ET": replace(metastases, joined_by=("NCR",))},
            None,
        ),
        "ped": (
            ("WT", "TC", "ET", "NCR", "CC", "ED"),
            _alike(children, "WT", "TC", "ET", "NCR", "CC", "ED"),
            374,
        ),
    }
    for kind, (regions, rules, empty_mm) in by_kind.items():
        yield Protocol(
            name=f"brats2024-{kind}",
            description=f"BraTS 2024-25 {kind.upper()}: as 2023, with surface Dice",
            regions=regions,
            metrics=_WHOLE,
            empty_mm=empty_mm,
            headline=("lesion_dice", "lesion_hd95_surface_mm", "lesion_nsd_0.5mm", "lesion_nsd_1mm"),
            match=match_by_dilation,
            lesions=MappingProxyType(dict(rules)),
            lesion_metrics=tuple(METRICS[name] for name in ("dice", "hd95_surface_mm", "nsd_0.5mm", "nsd_1mm")),
            source="BraTS-2024-Metrics, f1131e3",
        )


def _rows_2026() -> Iterator[Protocol]:
    by_kind = {
        "gli": ("WT", "TC", "ET", "NCR", "ED", "RC"),
        "goat": ("WT", "TC", "ET"),
        "met": ("WT", "TC", "ET", "RC"),
        "ped": ("WT", "TC", "ET", "NCR", "CC", "ED"),
    }
    for kind, regions in by_kind.items():
        yield Protocol(
            name=f"brats2026-{kind}",
            description=f"BraTS 2026 {kind.upper()}: lesions matched one to one, means over matched lesions only",
            regions=regions,
            metrics=_WHOLE,
            empty_mm=373,
            headline=("lesion_dice", "lesion_hd95_pooled_mm", "lesion_nsd_one_voxel", "detection_f1"),
            lesion_metrics=tuple(METRICS[name] for name in ("dice", "hd95_pooled_mm", "nsd_one_voxel")),
            lesion_empty_mm=math.inf,
            both_empty_is_perfect=False,
            disjoint_as_empty=True,
            source="the definitions of brats-evaluation 0.0.10 and panoptica 2.1.7",
        )


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                name="brats2021",
                description="BraTS 2017-2022: each region as a whole; HD95 pooled over both directions",
                regions=("WT", "TC", "ET"),
                metrics=_WHOLE,
                empty_mm=_DIAGONAL_2021_MM,
                headline=("dice", "hd95_pooled_mm", "sensitivity", "specificity"),
                source="Bakas et al. 2018, arXiv:1811.02629; Baid et al. 2021, arXiv:2107.02314",
            ),
            *_rows_2023(),
            *_rows_2024(),
            *_rows_2026(),
        )
    }
)
