"""The worker process, which computes one job; `process.WORKER_COMMAND` starts it.

It reads a request as one line of JSON from its standard input and writes its progress as lines of JSON to its standard
output. It ends when its input ends, so that it does not outlive the server.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError
from gliomask.service.limits import storage_error
from gliomask.service.paths import without_paths

if TYPE_CHECKING:
    from gliomask.cases import Case

RESULTS = "results"
PARTIAL = "results-partial"
MASK = "mask.nii.gz"
FACTS = "mask.json"
PROBABILITIES = "mask_probabilities.nii.gz"
REPORT = "report.html"
QUALITY = "quality.html"
VOLUMES = "volumes"
SCENE = "scene.json"

Emit = Callable[..., None]


@dataclass(frozen=True)
class Settings:
    """The prediction settings of a server, the same for all jobs."""

    models: tuple[str, ...] = ()
    """Model files; none: the built-in model. The probabilities of several models are averaged."""
    device: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Request:
    """The request to the worker process."""

    folder: str
    """The folder of the job."""
    case_id: str
    volumes: str
    """URL of the folder of volumes, for the viewer's scene."""
    images: dict[str, str]
    """The image file of each sequence, in the order of `MODALITIES`."""
    settings: Settings
    only_report: bool = False
    """The results exist already, and only the report is made."""
    raw: bool = False
    """The images are raw: they are prepared first, and the mask lies on the grid of the reference."""

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Request:
        """Return the request that `to_json` wrote."""
        read = json.loads(line)
        settings = read.pop("settings")
        return cls(settings=Settings(**{**settings, "models": tuple(settings["models"])}), **read)


def main() -> None:
    """Compute the job that is requested on the standard input; an error is reported in the last line of the output."""
    messages = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # so that the output of libraries does not mix with the messages

    def emit(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")

    request = Request.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        run(request, emit)
    except (InputError, OSError) as error:
        refused = storage_error(error)
        if refused is None and not isinstance(error, InputError):
            raise
        emit(failed=str(refused) if refused is not None else for_client(str(error), request))
    except MemoryError:
        emit(failed="This computer has too little memory for these images.")


def run(request: Request, emit: Emit) -> None:
    """Predict a job: write the mask, facts, probabilities and scene, emit `ready`, and then write the report.

    Raises:
        InputError: As for `predict`.
    """
    emit(stage="start")
    if request.raw:
        from gliomask.service.raw_job import run_raw

        run_raw(request, emit)
        return
    from gliomask.cases import Case, Source
    from gliomask.report import write_prediction_report

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    folder = Path(request.folder)
    case = Case(request.case_id, {modality: Source(Path(path)) for modality, path in request.images.items()})
    if not request.only_report:
        _predict(request, case, emit)
    emit(stage="report")
    write_prediction_report(
        case, folder / RESULTS / MASK, folder / REPORT, labels=convention_of(folder / RESULTS / FACTS)
    )
    emit(done=True)


def _predict(request: Request, case: Case, emit: Emit) -> None:
    from gliomask.inference.loading import load_model
    from gliomask.inference.prediction import predict
    from gliomask.inference.windows import Inference
    from gliomask.viewer import read_scene, scene_content

    settings = request.settings
    models = [
        load_model(path, device=settings.device, engine=settings.engine, threads=settings.threads)  # type: ignore[arg-type]
        for path in settings.models or [None]
    ]
    emit(stage="predict")
    found = predict(
        models,
        case,
        inference=Inference(cross_check=True),
        convention=settings.labels,
        on_part=lambda share: emit(stage="predict", share=round(share, 4)),
    )
    emit(stage="write")
    results = Path(request.folder) / PARTIAL
    results.mkdir()
    found.save(results / MASK, probabilities=True)
    warnings = [for_client(text, request).replace(".nii.gz", "") for text in found.warnings]
    ready = {"volumes_ml": found.volumes_ml(), "warnings": warnings}
    convention = found.convention
    del found, models  # their memory is needed for the images that the scene reads
    scene = scene_content(read_scene(case, [results / MASK], labels=convention), request.volumes)
    (results / SCENE).write_text(json.dumps(scene), "utf-8")
    results.rename(Path(request.folder) / RESULTS)
    emit(ready=ready)


def convention_of(facts: Path) -> str | None:
    """Return the label convention of a mask from the facts beside it, or None if they do not say."""
    try:
        return str(json.loads(facts.read_text("utf-8"))["labels"]["convention"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def for_client(text: str, request: Request) -> str:
    """Return a message without the server's paths and without the case's id, which the page shows already."""
    folder = Path(request.folder)
    models = [Path(path).parent for path in request.settings.models]
    return without_paths(text, folder / "images", folder / RESULTS, folder, *models).replace(
        f"{request.case_id}: ", "", 1
    )


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
