"""The computation of a job whose images are raw: they are prepared first, and the mask goes back to their own space."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.errors import InputError
from gliomask.files import write_bytes
from gliomask.service.request import (
    FACTS,
    MASK,
    PARTIAL,
    QUALITY,
    REPORT,
    RESULTS,
    SCENE,
    VOLUMES,
    Emit,
    Request,
    convention_of,
    for_client,
    load_models,
)

if TYPE_CHECKING:
    from gliomask.acquisition.review import StudyReview
    from gliomask.acquisition.study import Study

_ID = "study"
"""The id in the names of the prepared files; the title of the job is shown to users only."""

_NEEDED = ("SimpleITK", "picsl_greedy", "pydicom")


def can_prepare() -> bool:
    """Return whether the libraries of the extra `raw` are installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


def run_raw(request: Request, emit: Emit) -> None:
    """Prepare and predict a raw job: write its results, emit `ready`, and then write the report and the quality page.

    Raises:
        InputError: As for `prepare_study` and `predict`.
    """
    from gliomask.report.raw import RawPages, write_pages

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    folder = Path(request.folder)
    study = _study(request.images)
    if not request.only_report:
        _predict(request, study, emit)
    emit(stage="report")
    pages = RawPages(folder / REPORT, folder / QUALITY, link=None)
    labels = convention_of(folder / RESULTS / FACTS)
    write_pages(_review(request, study, folder / RESULTS), folder / RESULTS / MASK, pages, labels=labels)
    emit(done=True)


def _study(images: Mapping[str, str]) -> Study:
    from gliomask.acquisition.study import make_study, series_by_name

    return make_study(_ID, series_by_name({modality: Path(path) for modality, path in images.items()}))


def _predict(request: Request, study: Study, emit: Emit) -> None:
    from gliomask.acquisition.answer import answer_request, write_answer
    from gliomask.acquisition.places import PREPARED_FOLDER
    from gliomask.acquisition.prepare_study import prepare_study
    from gliomask.acquisition.preprocess import PreprocessSettings
    from gliomask.inference.prediction import predict
    from gliomask.inference.windows import Inference

    settings = request.settings
    emit(stage="prepare")
    results = Path(request.folder) / PARTIAL
    preparation = PreprocessSettings(threads=settings.threads)
    prepared = prepare_study(
        study,
        results / PREPARED_FOLDER / _ID,
        preparation,
        on_step=lambda _, share: emit(stage="prepare", share=round(share, 4)),
    )
    models = load_models(settings)
    emit(stage="predict")
    found = predict(
        models,
        replace(prepared.case, id=request.case_id),
        inference=Inference(cross_check=True),
        convention=settings.labels,
        on_part=lambda share: emit(stage="predict", share=round(share, 4)),
    )
    emit(stage="write")
    wanted = answer_request(study, preparation, {}, "reference")
    volumes = write_answer(study, prepared, found, results / MASK, request=wanted, probabilities=True)
    _write_scene(request, study, results, found.convention)
    results.rename(Path(request.folder) / RESULTS)
    texts = [text.removeprefix(f"{_ID}: ") for text in (*prepared.warnings, *found.warnings)]
    warnings = [for_client(text, request).replace(".nii.gz", "") for text in texts]
    emit(ready={"volumes_ml": volumes, "warnings": warnings})


def _write_scene(request: Request, study: Study, results: Path, convention: str) -> None:
    """Write the scene and its volumes, all on the grid of the mask."""
    from gliomask.viewer import read_raw_scene, scene_content, volume_bytes, volume_names

    scene = read_raw_scene(_review(request, study, results), [results / MASK], labels=convention)
    (results / VOLUMES).mkdir()
    for name in volume_names(scene):
        write_bytes(results / VOLUMES / name, volume_bytes(scene, name))
    (results / SCENE).write_text(json.dumps(scene_content(scene, request.volumes)), "utf-8")


def _review(request: Request, study: Study, results: Path) -> StudyReview:
    from gliomask.acquisition.places import find_prepared
    from gliomask.acquisition.review import read_review

    prepared = find_prepared(results, _ID)
    if prepared is None:
        raise InputError("the prepared images are missing: start the examination again.")
    return replace(read_review(study, prepared), id=request.case_id)
