"""The worker process, which computes one job: `python -m gliomask.service.worker`.

It reads a request as one line of JSON from its standard input and writes its progress as lines of JSON to its standard
output. It ends when its input ends, so that it does not outlive the server.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gliomask.errors import InputError

RESULTS = "results"
PARTIAL = "results-partial"
MASK = "mask.nii.gz"
FACTS = "mask.json"
PROBABILITIES = "mask_probabilities.nii.gz"
REPORT = "report.html"
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
    except InputError as error:
        emit(failed=str(error).replace(f"{request.folder}/images/", "").removeprefix(f"{request.case_id}: "))
    except MemoryError:
        emit(failed="This computer has too little memory for these images.")


def run(request: Request, emit: Emit) -> None:
    """Predict a job: write the mask, facts, probabilities and scene, emit `ready`, and then write the report.

    Raises:
        InputError: As for `predict`.
    """
    emit(stage="start")
    import logging

    from gliomask.cases import Case, Source
    from gliomask.inference.loading import load_model
    from gliomask.inference.prediction import predict
    from gliomask.report import write_prediction_report
    from gliomask.viewer import read_scene, scene_content

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    settings = request.settings
    models = [
        load_model(path, device=settings.device, engine=settings.engine, threads=settings.threads)  # type: ignore[arg-type]
        for path in settings.models or [None]
    ]
    case = Case(request.case_id, {modality: Source(Path(path)) for modality, path in request.images.items()})
    emit(stage="predict")
    found = predict(
        models, case, convention=settings.labels, on_part=lambda share: emit(stage="predict", share=round(share, 4))
    )
    emit(stage="write")
    results = Path(request.folder) / PARTIAL
    results.mkdir()
    found.save(results / MASK, probabilities=True)
    scene = scene_content(read_scene(case, [results / MASK], labels=found.convention), request.volumes)
    (results / SCENE).write_text(json.dumps(scene), "utf-8")
    warnings = [text.replace(".nii.gz", "") for text in found.warnings]
    volumes = found.volumes_ml()
    convention = found.convention
    del found  # frees the probabilities before the report is made
    folder = Path(request.folder)
    results.rename(folder / RESULTS)
    emit(ready={"volumes_ml": volumes, "warnings": warnings})
    emit(stage="report")
    write_prediction_report(case, folder / RESULTS / MASK, folder / REPORT, labels=convention)
    emit(done=True)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
