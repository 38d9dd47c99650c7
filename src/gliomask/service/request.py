"""The request to the worker process, the names of the files that it writes, and how its messages reach the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.service.paths import without_paths

if TYPE_CHECKING:
    from gliomask.inference.windows import Predictor

RESULTS = "results"
PARTIAL = "results-partial"
MASK = "mask.nii.gz"
FACTS = "mask.json"
EDITED = "edited.nii.gz"
EDITED_FACTS = "edited.json"
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


def load_models(settings: Settings) -> list[Predictor]:
    """Return the models of a server's settings.

    Raises:
        InputError: As for `load_model`.
    """
    from gliomask.inference.loading import load_model

    return [
        load_model(path, device=settings.device, engine=settings.engine, threads=settings.threads)  # type: ignore[arg-type]
        for path in settings.models or [None]
    ]


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
