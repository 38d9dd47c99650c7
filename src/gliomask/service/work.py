"""The prediction of one job, in a process of its own: `python -m gliomask.service.work`.

It reads one line of JSON from its input, says how far it is in lines of JSON on its output, and ends when its input
ends, so that it never outlives the server.
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

Say = Callable[..., None]


@dataclass(frozen=True)
class Settings:
    """How a server predicts; the same for each job."""

    models: tuple[str, ...] = ()
    """Files; none: the model inside the package. Of several, the mean."""
    device: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    labels: str | None = None


@dataclass(frozen=True)
class Request:
    """What the process is asked to do."""

    folder: str
    """The job's."""
    case_id: str
    volumes: str
    """What stands before a volume's name in its address."""
    images: dict[str, str]
    """By sequence, in the order of `MODALITIES`, the image's file."""
    settings: Settings

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Request:
        """Return what `to_json` wrote."""
        read = json.loads(line)
        settings = read.pop("settings")
        return cls(settings=Settings(**{**settings, "models": tuple(settings["models"])}), **read)


def main() -> None:
    """Do what the input asks for; what goes wrong is said in the last line."""
    speaking = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no message of ours

    def say(**message: Any) -> None:
        speaking.write(json.dumps(message) + "\n")

    request = Request.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        run(request, say)
    except InputError as error:
        say(failed=str(error).replace(f"{request.folder}/images/", "").removeprefix(f"{request.case_id}: "))
    except MemoryError:
        say(failed="The memory of this computer is not enough for these images.")


def run(request: Request, say: Say) -> None:
    """Predict a job; write mask, facts, probabilities and scene, say that they are ready, and write the report.

    Raises:
        InputError: As for `predict`.
    """
    say(stage="start")
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
    say(stage="predict")
    found = predict(
        models, case, convention=settings.labels, on_part=lambda share: say(stage="predict", share=round(share, 4))
    )
    say(stage="write")
    results = Path(request.folder) / PARTIAL
    results.mkdir()
    found.save(results / MASK, probabilities=True)
    scene = scene_content(read_scene(case, [results / MASK], labels=found.convention), request.volumes)
    (results / SCENE).write_text(json.dumps(scene), "utf-8")
    warnings = [text.replace(".nii.gz", "") for text in found.warnings]
    volumes = found.volumes_ml()
    convention = found.convention
    del found  # its probabilities, so that the report has the memory
    folder = Path(request.folder)
    results.rename(folder / RESULTS)
    say(ready={"volumes_ml": volumes, "warnings": warnings})
    say(stage="report")
    write_prediction_report(case, folder / RESULTS / MASK, folder / REPORT, labels=convention)
    say(done=True)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    main()
