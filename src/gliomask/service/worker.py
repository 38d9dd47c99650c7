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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError
from gliomask.service.limits import storage_error
from gliomask.service.raw_job import run_raw
from gliomask.service.request import (
    FACTS,
    MASK,
    PARTIAL,
    REPORT,
    RESULTS,
    SCENE,
    Emit,
    Request,
    convention_of,
    for_client,
    load_models,
)

if TYPE_CHECKING:
    from gliomask.cases import Case


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
    from gliomask.inference.prediction import predict
    from gliomask.inference.windows import Inference
    from gliomask.viewer import read_scene, scene_content

    models = load_models(request.settings)
    emit(stage="predict")
    found = predict(
        models,
        case,
        inference=Inference(cross_check=True),
        convention=request.settings.labels,
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
    scene["first_voxel"] = [0, 0, 0]  # the page gets the files as they are, not cropped
    (results / SCENE).write_text(json.dumps(scene), "utf-8")
    results.rename(Path(request.folder) / RESULTS)
    emit(ready=ready)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
