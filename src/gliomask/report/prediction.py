"""The report of a prediction: the position and size of the tumour, and the model's probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import SEQUENCE_NAMES, SHOWN_FIRST, Case, get_modality, read_case
from gliomask.errors import InputError
from gliomask.evaluation.conventions import find_conventions
from gliomask.evaluation.pairs import mask_stem
from gliomask.files import write_text
from gliomask.inference.record import changes_since
from gliomask.labels import REGIONS, LabelConvention, check_labels, count_labels, label_values, to_regions
from gliomask.metrics import Mask
from gliomask.report.case_content import resample_case, stills, strip, surfaces, viewer_content
from gliomask.report.chart import threshold_chart
from gliomask.report.measure import Measures, MidPlane, measure, mid_plane, volumes_above
from gliomask.report.mesh import write_meshes
from gliomask.report.page import MOST_BYTES, render
from gliomask.report.surface import find_surface
from gliomask.volume import NIFTI_ENDINGS, Volume, match_axes, read_volume, voxel_volume_ml

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(4, 17))
"""Thresholds of the chart; volumes below .2 include every voxel with a small probability and have no clear border."""
RANGE = (0.3, 0.4, 0.5, 0.6, 0.7)

_COARSER = (1.0, 1.5, 2.0, 3.0)

# A smooth surface of a large tumour at 1 mm has some 100,000 triangles.
_MESH_TRIANGLES = 400_000


@dataclass(frozen=True)
class Preparation:
    """What the report of a raw study says about the preparation of its images."""

    light: str
    """`good`, `look` or `poor`."""
    text: str
    link: str | None
    """The address of the quality page, relative to the report; None: it is not linked."""
    space: str
    """The name of the space in which the mask lies."""


@dataclass(frozen=True, eq=False)
class MeasuredCase:
    """A case with its mask: the images and regions that were read, and their measures."""

    case: Case
    images: Mapping[str, Volume]
    """The images by the name of the sequence, one channel each, on the grid of the mask."""
    regions: Mapping[str, Mask]
    tissues_ml: Mapping[str, float]
    measures: Mapping[str, Measures]
    plane: MidPlane
    brain: Mask
    """The voxels of the brain, on the same grid."""
    probabilities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The content of `CASE.json`, or of `CASE_edited.json` of a corrected mask; empty if there is no such file."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine of the mask."""
        return next(iter(self.images.values())).affine

    def volumes_above(self) -> dict[str, tuple[float, ...]]:
        """Return, for each region, the volume in mL above each of `THRESHOLDS`."""
        voxel = voxel_volume_ml(self.affine)
        return {name: volumes_above(values, THRESHOLDS, voxel) for name, values in self.probabilities.items()}


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written."""

    measured: MeasuredCase
    meshes: tuple[Path, ...]
    """The files of the surfaces; empty if none were asked for."""


def find_mask(case: Case, output: Path) -> Path:
    """Return the mask of a case in the output of `predict`: the file itself, or `CASE.nii.gz` in a folder.

    Raises:
        InputError: There is no mask.
    """
    if output.is_file():
        return output
    if not output.is_dir():
        raise InputError(f"{output}: no such file or folder. Name the mask, or the folder that predict wrote to.")
    names = [f"{case.id}{middle}{ending}" for middle in ("", "_seg", "-seg") for ending in NIFTI_ENDINGS[::-1]]
    for name in names:
        if (output / name).is_file():
            return output / name
    raise InputError(f"{case.id}: no mask in {output} (looked for {', '.join(names[:4])}). Predict it first.")


def measure_case(case: Case, mask: Path, *, labels: str | None = None, sequences: Sequence[str] = ()) -> MeasuredCase:
    """Read a case and its mask, and measure the regions.

    Args:
        case: The case; its images are read.
        mask: A mask on the grid of the images, whose axes may be stored in another order. `CASE.json` (of a mask that
            was corrected by hand, `CASE_edited.json`) and `CASE_probabilities.nii.gz` beside it are read if they exist.
        labels: The label convention of the mask; see `find_conventions` for the default.
        sequences: The sequences to show, in any accepted spelling; by default T2-FLAIR and T1 with contrast if the case
            has them.

    Raises:
        InputError: A file is bad or lies on another grid, or a sequence to show is missing.
    """
    shown = choose_sequences(case, sequences)
    volume = read_case(case, shown)
    images = {
        modality: Volume(channel[None], volume.affine) for modality, channel in zip(shown, volume.data, strict=True)
    }
    return measure_images(case, images, (volume.data != 0).any(axis=0), mask, labels=labels)


def choose_sequences(case: Case, wanted: Sequence[str]) -> list[str]:
    """Return the sequences to show by their internal names; see `measure_case`.

    Raises:
        InputError: A sequence is unknown, or the case does not have it.
    """
    there = [modality for modality in SHOWN_FIRST if modality in case.images]
    shown = list(dict.fromkeys(get_modality(name) for name in wanted)) or there[:2]
    if missing := [modality for modality in shown if modality not in case.images]:
        raise InputError(f"{case.id}: has no {', '.join(missing)} to show; it has {', '.join(there) or 'no sequence'}.")
    return shown


def measure_images(
    case: Case, images: Mapping[str, Volume], brain: Mask, mask: Path, *, labels: str | None = None
) -> MeasuredCase:
    """Measure the regions of a mask on images that were read before; see `measure_case`.

    Args:
        case: The case.
        images: The images to show, by internal sequence name, one channel each, on one grid.
        brain: The voxels of the brain on that grid.
        mask: The mask's file.
        labels: The label convention of the mask.

    Raises:
        InputError: The mask or a file beside it is bad, or lies on another grid.
    """
    grid = next(iter(images.values())).grid
    facts = _read_facts(mask.with_name(f"{mask_stem(mask)}.json"))
    found = read_volume(mask, mask=True)
    if changes := changes_since(mask, facts, case):
        facts = {**facts, "warnings": [*changes, *facts.get("warnings", [])]}
    convention = find_conventions({case.id: mask}, labels)[case.id]
    check_labels(label_values(found.data), convention, str(mask))
    found = match_axes(found, grid)
    if difference := grid.difference(found.grid):
        raise InputError(f"{mask}: its grid differs from that of {case.id}'s images in {difference}.")
    names = tuple(convention.regions)
    regions = dict(zip(names, to_regions(found.data[0], convention, names), strict=True))
    plane = mid_plane(brain, grid.affine)
    return MeasuredCase(
        case=case,
        images={SEQUENCE_NAMES[modality]: image for modality, image in images.items()},
        regions=regions,
        tissues_ml=_tissues_ml(found, convention),
        measures={name: measure(region, found.affine, plane) for name, region in regions.items()},
        plane=plane,
        brain=brain,
        probabilities=_read_probabilities(mask, found, facts),
        facts=facts,
    )


def prediction_page(measured: MeasuredCase, preparation: Preparation | None = None) -> str:
    """Return the page of a case; the viewer's voxels are made larger if the page would exceed `MOST_BYTES`.

    Args:
        measured: The case.
        preparation: What is shown about the preparation of a raw study.
    """
    above = measured.volumes_above()
    page = ""
    for finest_mm in _COARSER:
        resampled = resample_case(
            measured.images, measured.regions, measured.probabilities, brain=measured.brain, finest_mm=finest_mm
        )
        page = render(
            "prediction.html",
            ("viewer.js", "surface.js", "strip.js"),
            title=measured.case.id,
            measured=measured,
            facts=describe_case(measured),
            warnings=measured.facts.get("warnings"),
            preparation=preparation,
            strip=strip(resampled),
            stills=stills(resampled),
            viewer=viewer_content(resampled),
            surfaces=surfaces(measured.brain, measured.regions, measured.affine),
            thresholds=THRESHOLDS,
            shown_thresholds=RANGE,
            above={name: dict(zip(THRESHOLDS, volumes, strict=True)) for name, volumes in above.items()},
            chart=threshold_chart(THRESHOLDS, above) if above else None,
        )
        if len(page.encode("utf-8", "backslashreplace")) <= MOST_BYTES:
            break
    return page


def write_prediction_report(
    case: Case,
    output: Path,
    path: Path,
    *,
    labels: str | None = None,
    sequences: Sequence[str] = (),
    mesh: str | None = None,
) -> WrittenReport:
    """Write the page of one case, and on request a mesh of each region.

    Args:
        case, labels, sequences: As for `measure_case`.
        output: As for `find_mask`.
        path: The page.
        mesh: A format of `MESH_FORMATS`; the meshes are called `PAGE_WT.stl` and so on, beside the page.

    Raises:
        InputError: As for these functions; or the format is unknown, or a file cannot be written.
    """
    measured = measure_case(case, find_mask(case, output), labels=labels, sequences=sequences)
    write_text(path, prediction_page(measured))
    if mesh is None:
        return WrittenReport(measured, ())
    finest_mm = min(next(iter(measured.images.values())).spacing_mm)
    nets = {
        name: find_surface(region, measured.affine, finest_mm, _MESH_TRIANGLES)
        for name, region in measured.regions.items()
    }
    return WrittenReport(measured, tuple(write_meshes(nets, path.parent, path.stem, mesh)))


def _read_facts(path: Path) -> Mapping[str, Any]:
    """Return the JSON beside a mask; the record of a correction by hand has no `regions` and no `warnings`."""
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged: {error}. Predict the case again, or move it away.") from error
    if _is_correction(facts):
        return {key: value for key, value in facts.items() if key not in ("warnings", "regions")}
    if not isinstance(facts, dict) or not all(_is_text_list(facts.get(key, [])) for key in ("warnings", "regions")):
        raise InputError(f"{path}: is not what predict writes beside a mask. Move it away.")
    return facts


def _is_correction(facts: object) -> bool:
    """Return whether a JSON is `CASE_edited.json`, which the editor of the viewer writes beside a corrected mask."""
    if not isinstance(facts, dict) or not isinstance(facts.get("original"), str):
        return False
    return type(facts.get("voxels_changed")) is int


def _is_text_list(content: object) -> bool:
    return isinstance(content, list) and all(isinstance(item, str) for item in content)


def _read_probabilities(mask: Path, labels: Volume, facts: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    for ending in NIFTI_ENDINGS[::-1]:
        path = mask.with_name(f"{mask_stem(mask)}_probabilities{ending}")
        if path.is_file():
            break
    else:
        return {}
    volume = match_axes(read_volume(path), labels.grid)
    names = facts.get("regions") or ["WT", "TC", "ET"]
    if len(names) != len(volume.data) or not set(names) <= REGIONS.keys():
        raise InputError(f"{path}: has {len(volume.data)} channels for the regions {', '.join(map(str, names))}.")
    if difference := labels.grid.difference(volume.grid):
        raise InputError(f"{path}: its grid differs from the mask's in {difference}. Predict the case again.")
    return dict(zip(names, volume.data, strict=True))


def _estimates(facts: Mapping[str, Any]) -> str:
    """Return the estimated Dice of each region with its interval, as `predict` wrote it; empty if it is not there."""
    found = facts.get("estimated_dice")
    try:
        return ", ".join(
            f"{region} {values['dice']:.2f} ({values['low']:.2f} to {values['high']:.2f})"
            for region, values in (found or {}).items()
        )
    except (AttributeError, TypeError, KeyError, ValueError):
        return ""


def _tissues_ml(mask: Volume, convention: LabelConvention) -> dict[str, float]:
    counts = count_labels(mask.data)
    voxel = voxel_volume_ml(mask.affine)
    return {
        tissue: float(counts[value]) * voxel
        for value, tissue in sorted(convention.tissues.items())
        if tissue not in REGIONS
    }


def _origin(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return who trained the model and under which terms it may be used, if gliomask did not train it."""
    origin = facts.get("origin")
    if not isinstance(origin, dict):
        return {}
    named = {"made with": "made_with", "license of the model": "license", "cite": "cite"}
    return {name: origin[key] for name, key in named.items() if isinstance(origin.get(key), str) and origin[key]}


def describe_case(measured: MeasuredCase) -> dict[str, str]:
    """Return the facts at the head of the page; model paths are cut to two parts, as folder names may name people."""
    facts = measured.facts
    rows = {"case": measured.case.id}
    if _is_correction(facts):
        rows["mask"] = f"corrected by hand: {facts['voxels_changed']:,} voxels differ from {facts['original']}"
    if isinstance(model := facts.get("model"), str):
        rows["model"] = ", ".join("/".join(PurePath(name).parts[-2:]) for name in model.split(", "))
    rows |= _origin(facts)
    for key in ("network", "window"):
        if isinstance(facts.get(key), str):
            rows[key] = facts[key]
    if isinstance(versions := facts.get("versions"), dict):
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    if estimates := _estimates(facts):
        rows["estimated Dice"] = estimates
    rows["sequences"] = ", ".join(
        SEQUENCE_NAMES[modality] for modality in SHOWN_FIRST if modality in measured.case.images
    )
    shape = " × ".join(map(str, next(iter(measured.images.values())).data.shape[1:]))
    spacing = " × ".join(f"{mm:.3g}" for mm in next(iter(measured.images.values())).spacing_mm)
    rows["voxels"] = f"{shape} of {spacing} mm"
    return rows
