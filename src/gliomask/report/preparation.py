"""The quality page of a raw study: how well its images were aligned and its brain was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gliomask.acquisition.atlas import read_atlas
from gliomask.acquisition.quality import LIGHTS, LIMITS, Finding, Light, worst
from gliomask.acquisition.review import StudyReview
from gliomask.cases import SEQUENCE_NAMES
from gliomask.labels import REGIONS
from gliomask.report.overlays import ATLAS_COLOUR, BRAIN_COLOUR, EDGE_COLOUR, Overlay, Slices, cut_slices
from gliomask.report.page import render

ADVICE: Mapping[Light, str] = {
    "good": "All measures are within the range of good values. Look at the pictures all the same.",
    "look": "At least one measure is outside the range of good values: look at the pictures before you use the mask.",
    "poor": "At least one measure is poor: do not use the mask unless the pictures show that the preparation is right.",
}

_ATLASES = {"sri24": "SRI24 (BraTS until 2023)", "mni": "MNI152 (BraTS 2024 and later)"}
_REGISTERING = {"True": "Greedy, rigid", "ants": "ANTs, rigid"}
_STRIPPING = {"networks": "found by deepbet's networks", "none": "what is not zero in the images"}


@dataclass(frozen=True)
class _Shown:
    """One sequence on the page."""

    name: str
    light: Light
    findings: list[Finding]
    nmi: float | None
    voxels: str
    overlays: list[tuple[str, list[Overlay]]]
    """Rows of pictures, each with its caption."""


def preparation_page(review: StudyReview, findings: Sequence[Finding], facts: Mapping[str, Any] | None = None) -> str:
    """Return the quality page of a raw study as HTML.

    Args:
        review: The study.
        findings: What `assess` found.
        facts: The content of the JSON file beside its mask, for the table of volumes; None if there is no mask.
    """
    atlas_name = review.record["request"].get("atlas")
    slices = cut_slices(review, read_atlas(atlas_name) if atlas_name in _ATLASES else None)
    return render(
        "preparation.html",
        title=review.id,
        facts=_describe(review),
        light=worst(findings),
        advice=ADVICE,
        findings=[(finding, _name(finding.of)) for finding in findings],
        limits=[limits for limits in LIMITS.values() if any(one.measure == limits.name for one in findings)],
        lights=LIGHTS,
        warnings=_texts(review.record, "warnings"),
        notes=_texts(review.record, "notes"),
        shown=[_shown(review, slices, name, findings) for name in _reference_first(review)],
        volumes=_volumes(facts or {}),
        line_colours={"brain": BRAIN_COLOUR, "atlas": ATLAS_COLOUR if slices.atlas else None, "edges": EDGE_COLOUR},
    )


def describe_light(findings: Sequence[Finding]) -> str:
    """Return the overall light with what is not good, in one sentence."""
    light = worst(findings)
    if light == "good":
        return ADVICE["good"]
    named = [
        " ".join(filter(None, (finding.measure, _name(finding.of), finding.text)))
        for finding in findings
        if finding.light != "good"
    ]
    return f"{ADVICE[light]} Not good: {'; '.join(named)}."


def _shown(review: StudyReview, slices: Slices, name: str, findings: Sequence[Finding]) -> _Shown:
    reference = review.alignment.reference
    ours = [finding for finding in findings if finding.of == name and finding.measure in ("shift", "overlap")]
    rows = [("outline of the brain mask", slices.outlines(name, atlas=name == reference))]
    if name != reference:
        both = f"{SEQUENCE_NAMES[name]} (blue squares) and {SEQUENCE_NAMES[reference]} (grey squares)"
        rows.insert(0, (both, slices.checkerboard(name, reference)))
        edges = f"edges of {SEQUENCE_NAMES[name]} on {SEQUENCE_NAMES[reference]}"
        rows.insert(1, (edges, slices.edges(name, reference)))
    grid = review.alignment.native[name]
    size = " × ".join(map(str, grid.shape))
    spacing = " × ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    return _Shown(
        name=SEQUENCE_NAMES[name] + (" (reference)" if name == reference else ""),
        light=worst(ours),
        findings=ours,
        nmi=review.alignment.quality.get(f"nmi_{name}"),
        voxels=f"{size} voxels of {spacing} mm, axes {grid.axes}",
        overlays=rows,
    )


def _reference_first(review: StudyReview) -> list[str]:
    return sorted(review.images, key=lambda name: name != review.alignment.reference)


def _describe(review: StudyReview) -> dict[str, str]:
    request = review.record["request"]
    strip = request.get("skull_strip")
    return {
        "case": review.id,
        "reference": SEQUENCE_NAMES[review.alignment.reference],
        "prepared space": _ATLASES.get(str(request.get("atlas")), "the patient's own, at 1 mm"),
        "brain mask": _STRIPPING.get(str(strip), "given as a file"),
        "registration": _REGISTERING.get(str(request.get("register")), "none: the images were taken as aligned"),
    }


def _texts(record: Mapping[str, Any], name: str) -> list[str]:
    found = record.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _name(of: str) -> str:
    return SEQUENCE_NAMES.get(of, of)


def _volumes(facts: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """The volume of each region in the space of the mask and in the prepared space."""
    own, prepared = facts.get("volumes_ml"), facts.get("volumes_ml_prepared")
    if not isinstance(own, dict) or not isinstance(prepared, dict):
        return []
    return [
        (name, float(volume), float(prepared[name]))
        for name, volume in own.items()
        if name in REGIONS and isinstance(volume, int | float) and isinstance(prepared.get(name), int | float)
    ]
