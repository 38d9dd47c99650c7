"""The predicted mask of one case, and how it is written and read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.files import replacing
from gliomask.inference.quality import EstimatedDice
from gliomask.inference.record import beside, digest_of
from gliomask.inference.windows import Window
from gliomask.labels import REGIONS, count_labels, get_convention
from gliomask.metrics import components
from gliomask.model.plan import Plan
from gliomask.version import VERSION
from gliomask.volume import (
    NIFTI_ENDINGS,
    Volume,
    bounding_box,
    gzip_nifti,
    nifti_bytes,
    read_volume,
    voxel_volume_ml,
)


@dataclass(frozen=True)
class Prediction:
    """The predicted mask of one case, on the grid of its images."""

    case: Case
    labels: Volume
    """One uint8 channel in the numbers of `convention`."""
    probabilities: Volume
    """One float32 channel for each of the plan's regions; zero outside the brain's bounding box."""
    plan: Plan
    convention: str
    model: str
    engine: str
    """The library that ran the network, and its version."""
    window: Window
    seconds: float
    warnings: tuple[str, ...] = ()
    """Differences between the images and those that models are trained on; see `inspect`."""
    settings: dict[str, Any] | None = None
    """What determined the mask beside the images; see `describe_settings`."""
    images: dict[str, str] | None = None
    """Fingerprints of the images; see `describe_images`."""
    estimates: Mapping[str, EstimatedDice] = field(default_factory=dict)
    """The estimated Dice of the regions for which the plan says how good such an estimate is."""

    @property
    def missing(self) -> list[str]:
        """The plan's sequences that the case does not have."""
        return [modality for modality in self.plan.modalities if modality not in self.case.images]

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume in mL of each tissue and region that the convention can express."""
        return volumes_of(self.labels, self.convention)

    def lesions(self) -> dict[str, int]:
        """Return the number of separate pieces of each of the plan's regions: 26-connected components of the mask."""
        convention = get_convention(self.convention)
        labels = self.labels.data[0]
        box = bounding_box(labels != 0)
        if box is None:
            return dict.fromkeys(self.plan.regions, 0)
        inside = labels[box]
        names = [region for region in self.plan.regions if region in convention.regions]
        return {name: components(np.isin(inside, list(convention.regions[name]))).count for name in names}

    def save(
        self, path: Path | str, *, probabilities: bool = False, draw: Callable[[Path], object] | None = None
    ) -> dict[str, Any]:
        """Write the mask as NIfTI with the input's grid and header, and the facts about it as JSON beside it.

        The mask is written last, so that its presence means that all other files are complete. Probabilities and a
        picture of an older prediction that are not written again are removed.

        Args:
            path: `CASE.nii.gz` or `.nii`; the facts go to `CASE.json`.
            probabilities: Also write `CASE_probabilities.nii.gz`, 4-D, with a channel for each region.
            draw: Writes a picture to the path it is given, which becomes `CASE.png`.

        Returns:
            The content of the JSON.

        Raises:
            InputError: A file cannot be written; then older files stay as they were.
        """
        path = Path(path)
        if not path.name.lower().endswith(NIFTI_ENDINGS):
            raise InputError(f"{path}: a mask is written as .nii or .nii.gz.")
        like = next(self.case.images[name].path for name in self.plan.modalities if name in self.case.images)
        content = nifti_bytes(self.labels, like=like)
        content = gzip_nifti(content) if path.name.lower().endswith(".gz") else content
        facts = {**self.facts(), "mask": digest_of(content)}
        replaced = beside(path, ".json").exists()
        with ExitStack() as files:
            # Each file gets its name when the stack is left, in reverse order: the mask last.
            files.enter_context(replacing(path)).write_bytes(content)
            _enter(files, path, ".json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
            if probabilities:
                # The rounded copy is not kept in a variable, so that its memory is free while the file is compressed.
                stored = nifti_bytes(Volume(self.probabilities.data.round(4), self.probabilities.affine), like=like)
                _enter(files, path, "_probabilities.nii.gz").write_bytes(gzip_nifti(stored))
                del stored
            if draw is not None:
                draw(_enter(files, path, ".png"))
            # From here on the files of an older prediction are replaced. Without a mask they do not count as complete.
            path.unlink(missing_ok=True)
            if replaced and not probabilities:
                beside(path, "_probabilities.nii.gz").unlink(missing_ok=True)
            if replaced and draw is None:
                beside(path, ".png").unlink(missing_ok=True)
        return facts

    def facts(self) -> dict[str, Any]:
        """Return the facts that a reader of the mask needs, ready for JSON."""
        convention = get_convention(self.convention)
        return {
            "case": self.case.id,
            "patient": self.case.patient,
            "timepoint": self.case.timepoint,
            "volumes_ml": self.volumes_ml(),
            "lesions": self.lesions(),
            "labels": {"convention": convention.name, **{str(v): t for v, t in sorted(convention.tissues.items())}},
            "sequences": {m: m in self.case.images for m in self.plan.modalities},
            "model": self.model,
            "network": self.plan.network,
            **({"origin": self.plan.origin.model_dump(mode="json")} if self.plan.origin else {}),
            "window": self.window,
            "settings": self.settings,
            "images": self.images,
            "regions": list(self.plan.regions),
            "postprocessing": self.plan.postprocessing.model_dump(mode="json"),
            "estimated_dice": {region: asdict(found) for region, found in self.estimates.items()},
            "warnings": list(self.warnings),
            "versions": {"gliomask": VERSION, **dict([self.engine.split(" ")]), "numpy": np.__version__},
            "seconds": round(self.seconds, 2),
            "note": "Research use only, not a medical device.",
        }


def volumes_of(labels: Volume, convention: str) -> dict[str, float]:
    """Return the volume in mL of each tissue and region that a convention can express, in a mask of its labels."""
    numbers = get_convention(convention)
    counts = count_labels(labels.data)
    voxel_ml = voxel_volume_ml(labels.affine)
    parts = {tissue: [value] for value, tissue in numbers.tissues.items() if tissue not in REGIONS}
    parts |= {region: list(values) for region, values in numbers.regions.items()}
    return {name: round(float(counts[values].sum()) * voxel_ml, 3) for name, values in parts.items()}


def read_prediction(path: Path, case: Case, plan: Plan) -> Prediction:
    """Return a saved prediction, without its probabilities.

    Raises:
        InputError: The mask or its JSON is missing or damaged.
    """
    facts_path = beside(path, ".json")
    labels = read_volume(path, mask=True)
    try:
        facts = json.loads(facts_path.read_text("utf-8"))
        convention = get_convention(facts["labels"]["convention"]).name
        settings, model, window, seconds = (facts.get(name) for name in ("settings", "model", "window", "seconds"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{facts_path}: missing or damaged. Predict the case again with --overwrite.") from error
    nothing = Volume(np.zeros((0, *labels.grid.shape), np.float32), labels.affine)
    return Prediction(case, labels, nothing, plan, convention, str(model), "", window, seconds, settings=settings)


def _enter(files: ExitStack, mask: Path, ending: str) -> Path:
    """Return the partial file of one that belongs to a mask; it gets its name when the stack is left."""
    return files.enter_context(replacing(beside(mask, ending)))
