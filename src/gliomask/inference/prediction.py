"""Prediction: from a model and an examination to the mask of the tumour."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gliomask.cases import MODALITIES, Case, find_cases, read_case
from gliomask.errors import InputError, describe
from gliomask.execution import ahead
from gliomask.files import replacing
from gliomask.inference.averaging import common_plan, mean_probabilities
from gliomask.inference.cross_check import can_cross_check, compare_with_flair
from gliomask.inference.memory import is_lack_of_memory
from gliomask.inference.plausibility import find_unusual
from gliomask.inference.postprocessing import clean
from gliomask.inference.preprocessing import Prepared, prepare
from gliomask.inference.quality import EstimatedDice, estimate_dice
from gliomask.inference.record import beside, describe_images, describe_settings, digest_of
from gliomask.inference.windows import Inference, OnPart, Predictor, Window
from gliomask.inspection import inspect
from gliomask.labels import REGIONS, count_labels, get_convention, to_labels
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

log = logging.getLogger(__name__)


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
        convention = get_convention(self.convention)
        counts = count_labels(self.labels.data)
        voxel_ml = voxel_volume_ml(self.labels.affine)
        parts = {tissue: [value] for value, tissue in convention.tissues.items() if tissue not in REGIONS}
        parts |= {region: list(values) for region, values in convention.regions.items()}
        return {name: round(float(counts[values].sum()) * voxel_ml, 3) for name, values in parts.items()}

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


_DEFAULT = Inference()
_NO_CONTRAST = (
    "no t1c: only that sequence shows contrast enhancement, so {regions} cannot be predicted reliably. "
    "Rely on the other regions only, or give t1c."
)


def predict(
    model: Predictor | Sequence[Predictor],
    case: Case | Path | str,
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: OnPart = lambda _: None,
) -> Prediction:
    """Return the predicted mask of a case.

    Args:
        model: The value that `load_model` returned, or several such values (the folds of a cross-validation, for
            example). Of several models, which must have the same regions, the probabilities are averaged, each
            calibrated by its own plan; all other rules are those of the first model's plan.
        case: A case with the sequences in the model's plan, or the path of a folder with one case; sequences may be
            missing only if the plan says `can_miss`.
        inference: How the network is run.
        convention: The label convention of the mask; by default that of the plan.
        on_part: Called with the completed fraction of the network's work, for a progress bar.

    Raises:
        InputError: A needed sequence is missing, a file is bad (see `read_case`), the convention is unknown, the
            models have different regions, there is no model, or the folder holds no case or several.
    """
    if not isinstance(case, Case):
        case = _only_case(Path(case))
    [found] = predict_cases(
        model, [case], inference=inference, convention=convention, on_part=lambda _, fraction: on_part(fraction)
    )
    if isinstance(found, InputError):
        raise found
    return found


def _only_case(folder: Path) -> Case:
    cases = find_cases(folder)
    if len(cases) > 1:
        raise InputError(
            f"{folder}: holds {len(cases)} cases. Name the folder of one of them, or predict each case that "
            "gliomask.find_cases returns."
        )
    return cases[0]


def predict_cases(
    model: Predictor | Sequence[Predictor],
    cases: Iterable[Case],
    *,
    inference: Inference = _DEFAULT,
    convention: str | None = None,
    on_part: Callable[[int, float], None] = lambda _, __: None,
) -> Iterator[Prediction | InputError]:
    """Yield the result of `predict` for each case, in order, or an error for a case that cannot be predicted.

    Whatever goes wrong with one case, lack of memory included, the others are still predicted. While one case is
    computed the next one is read, and while the first is read the models are prepared.

    Args:
        model, inference, convention: As for `predict`.
        cases: The cases; each is taken from the iterable just before it is read.
        on_part: Called with the case's number, from 0, and the completed fraction of the network's work on it.

    Raises:
        InputError: The convention, the precision or the models are not valid, which concerns all cases.
    """
    models = list(model) if isinstance(model, Sequence) else [model]
    plan = common_plan(models)
    name = get_convention(convention or plan.convention).name
    plans = [member.plan for member in models]
    with closing(ahead(partial(_ready_or_error, plans), cases, threads=1)) as coming:
        for member in models:
            member.get_ready(inference)
        for number, ready in enumerate(coming):
            if isinstance(ready, InputError):
                yield ready
            else:
                yield _answer_or_error(models, plan, ready, inference, name, partial(on_part, number))
            del ready


def predict_in_turn(
    plans: Sequence[Plan],
    load: Callable[[], Sequence[Predictor]],
    case: Case,
    *,
    inference: Inference,
    convention: str | None,
    on_part: OnPart = lambda _: None,
    turns: tuple[AbstractContextManager[Any], AbstractContextManager[Any]] = (nullcontext(), nullcontext()),
) -> Prediction:
    """Return the result of `predict`, in one of several threads that each have a case.

    Args:
        plans: The plans of the models.
        load: Returns the models; called when the case has been read.
        case: The case.
        inference, convention, on_part: As for `predict`.
        turns: Two locks that are held while the case is read, and while it is computed.

    Raises:
        InputError: As for `predict`, and whatever else goes wrong, with the name of the case.
    """
    reading, computing = turns
    try:
        with reading:
            ready = _read(plans, case)
        with computing:
            models = load()
            plan = common_plan(models)
            return _answer(models, plan, ready, inference, get_convention(convention or plan.convention).name, on_part)
    except Exception as error:
        raise case_error(case, error) from error


@dataclass(frozen=True)
class _Ready:
    """A case that is prepared for each of the models."""

    case: Case
    prepared: list[Prepared]
    images: dict[str, str]
    """Their fingerprints; see `describe_images`."""
    warnings: tuple[str, ...]
    seconds: float


def _ready_or_error(plans: Sequence[Plan], case: Case) -> _Ready | InputError:
    try:
        return _read(plans, case)
    except Exception as error:
        return case_error(case, error)


def _read(plans: Sequence[Plan], case: Case) -> _Ready:
    """Read and prepare a case, only once for models whose plans prepare it in the same way."""
    started = time.perf_counter()
    by_view: dict[tuple[object, ...], Prepared] = {}
    prepared = []
    warnings: dict[str, None] = {}
    images = describe_images(case, [name for plan in plans for name in plan.modalities])
    for plan in plans:
        check_sequences(plan, case)
        view = (plan.modalities, plan.axes, plan.spacing_mm, plan.normalizations, plan.crop, plan.resampling)
        if view not in by_view:
            volume = read_case(case, plan.modalities)
            warnings |= dict.fromkeys(_inspect(case, volume, plan))
            by_view[view] = prepare(volume, plan)
        prepared.append(by_view[view])
    return _Ready(case, prepared, images, tuple(warnings), time.perf_counter() - started)


def _answer_or_error(
    models: Sequence[Predictor], plan: Plan, ready: _Ready, inference: Inference, convention: str, on_part: OnPart
) -> Prediction | InputError:
    try:
        return _answer(models, plan, ready, inference, convention, on_part)
    except Exception as error:
        return case_error(ready.case, error)


def _answer(
    models: Sequence[Predictor], plan: Plan, ready: _Ready, inference: Inference, convention: str, on_part: OnPart
) -> Prediction:
    started = time.perf_counter()
    rules = plan.postprocessing.given(ready.case.images)
    probabilities, decided, window = mean_probabilities(models, plan, ready.prepared, inference, on_part)
    masks = clean(probabilities.data, plan.regions, rules, probabilities.spacing_mm, decided)
    labels = to_labels(masks, plan.regions, get_convention(convention))
    unusual = find_unusual(masks, plan, probabilities.spacing_mm)
    if inference.cross_check and can_cross_check(models, ready.case):
        whole_tumour = masks[plan.regions.index("WT")]
        different = compare_with_flair(models, plan, ready.prepared, whole_tumour, inference)
        unusual += [different] if different else []
    estimates = {}
    if len(models) == 1 and not inference.mirror:  # as when the estimates were checked
        estimates = estimate_dice(probabilities.data, masks, plan, ready.case.images)
    return Prediction(
        case=ready.case,
        labels=Volume(labels[None], probabilities.affine),
        probabilities=probabilities,
        plan=plan.model_copy(update={"postprocessing": rules}),
        convention=convention,
        model=", ".join(member.name for member in models),
        engine=models[0].engine,
        window=window,
        seconds=ready.seconds + time.perf_counter() - started,
        warnings=(*ready.warnings, *unusual),
        settings=describe_settings([member.digest for member in models], inference, convention),
        images=ready.images,
        estimates=estimates,
    )


def case_error(case: Case, error: Exception) -> InputError:
    """Return any exception as an error that names the case."""
    if isinstance(error, InputError):
        text = str(error)
        found = error if text.startswith(case.id) else InputError(f"{case.id}: {text}")
    elif is_lack_of_memory(error):
        found = InputError(f"{case.id}: not enough memory for images of this size. Close other programs.")
    else:
        log.info("%s", case.id, exc_info=error)
        found = InputError(f"{case.id}: {describe(error)}")
    if found is not error:
        found.__cause__ = error
    return found


def _inspect(case: Case, images: Volume, plan: Plan) -> tuple[str, ...]:
    files = {modality: source.path for modality, source in case.images.items()}
    found = inspect(images, plan.modalities, files, spacing_mm=plan.spacing_mm, axes=plan.axes)
    unreliable = plan.needs_contrast(case.images)
    return (*found, _NO_CONTRAST.format(regions=" and ".join(unreliable))) if unreliable else found


def check_sequences(plan: Plan, case: Case) -> None:
    """Refuse a case without a sequence that the model needs.

    Raises:
        InputError: The case has none of the plan's sequences, or lacks one and the model was not trained for that.
    """
    missing = [modality for modality in plan.modalities if modality not in case.images]
    if not missing or (plan.can_miss and len(missing) < len(plan.modalities)):
        return
    raise InputError(
        f"{case.id}: the model needs {', '.join(plan.modalities)}; missing: {', '.join(missing)} "
        f"(there: {', '.join(m for m in MODALITIES if m in case.images) or 'none'}). "
        "Give the missing files, or use a model that was trained with missing sequences (train --drop-modalities 0.3)."
    )
