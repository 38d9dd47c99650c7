"""`predict` for one case, in a thread of this process or on a worker: read, compute, write, and return the facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from gliomask.errors import InputError
from gliomask.execution import asked_to_stop, stop_if_asked

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.inference.record import State, Wanted
    from gliomask.inference.result import Prediction
    from gliomask.inference.windows import Inference, Predictor
    from gliomask.model.plan import Plan

# Of the cases that a process works on, one is read, one is computed and one is written at a time.
_reading, _computing, _writing, _loading = Lock(), Lock(), Lock(), Lock()


@dataclass(frozen=True)
class Models:
    """The models, and how they are loaded; it travels, and a process loads them once."""

    paths: tuple[Path | None, ...]
    names: tuple[str, ...]
    """What each is called in the facts about a mask."""
    digests: tuple[str, ...]
    """The SHA-256 of each file; another file at a path is refused."""
    inference: Inference
    device: str
    engine: str
    threads: int | None

    def load(self) -> tuple[Predictor, ...]:
        """Return the models, loaded once in a process and kept.

        Raises:
            InputError: As for `load_model`, or a file was changed since the command began.
        """
        with _loading:
            return _load(self)

    def plans(self) -> list[Plan]:
        """Return the plans of the models, without their weights."""
        return list(_plans(self.paths, self.digests))


@lru_cache(maxsize=1)
def _load(models: Models) -> tuple[Predictor, ...]:
    from gliomask.execution import given_cores
    from gliomask.inference.loading import load_model

    threads = models.threads or given_cores()
    loaded = []
    for path, name, digest in zip(models.paths, models.names, models.digests, strict=True):
        model: Any = load_model(path, device=models.device, engine=models.engine, threads=threads)  # type: ignore[arg-type]
        if model.digest != digest:
            raise InputError(f"{name}: the file was changed while it was in use. Run the same command again.")
        loaded.append(replace(model, name=name))
        model.get_ready(models.inference)
    return tuple(loaded)


@lru_cache(maxsize=1)
def _plans(paths: tuple[Path | None, ...], digests: tuple[str, ...]) -> tuple[Plan, ...]:
    from gliomask.foreign import read_plan

    return tuple(read_plan(path) for path in paths)


@dataclass(frozen=True)
class Work:
    """A case, the file of its mask, and what is to be done for it."""

    case: Case
    path: Path
    state: State
    wait_seconds: float = 0.0
    """How long to wait for another process or host that is at work on the case."""


@dataclass(frozen=True)
class Predicted:
    """What became of a case, in plain values."""

    path: Path
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    """Of the model's regions."""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The content of `CASE.json`."""
    kept: bool = False
    """Nothing was computed, as the mask had been made by another process, or edited, since the command began."""


@dataclass(frozen=True)
class PredictCase:
    """Predicts a case and writes its files; the function that `predict` gives to `map_cases`."""

    models: Models
    wanted: Wanted
    sequences: tuple[str, ...]
    """The sequences in a picture."""
    overwrite: bool
    on_part: Callable[[str, float], None] | None = None
    """Called with the case's id and the completed fraction of the network's work; it does not travel."""

    def __call__(self, work: Work) -> Predicted:
        """Return what became of a case.

        Raises:
            InputError: It could not be predicted or written; it is named.
            HeldError: Another process or host is at work on it.
        """
        from gliomask.cases import staged
        from gliomask.files import HeldError, claimed
        from gliomask.inference.prediction import case_error, predict_in_turn
        from gliomask.inference.record import find_state

        name = work.path.name.partition(".nii")[0]
        try:
            claim = claimed(work.path.parent, name, wait_seconds=work.wait_seconds, give_up=asked_to_stop)
            with claim, staged(work.case) as case:
                if not self.overwrite and (state := find_state(work.path, case, self.wanted)).action != "predict":
                    return self._keep(work.path, case, state)
                found = predict_in_turn(
                    self.models.plans(),
                    self.models.load,
                    case,
                    inference=self.models.inference,
                    convention=self.wanted.settings["labels"],
                    on_part=lambda fraction: self._part(work.case.id, fraction),
                    turns=(_reading, _computing),
                )
                return self._write(found, work.path, _writing)
        except HeldError:
            raise
        except Exception as error:
            raise case_error(work.case, error) from error

    def _keep(self, path: Path, case: Case, state: State) -> Predicted:
        """Leave a mask as it is that somebody made or changed since the command began, and draw its missing picture.

        Raises:
            InputError: It is a mask of which nothing says that gliomask made it.
        """
        from gliomask.files import replacing
        from gliomask.inference.record import beside
        from gliomask.inference.result import read_prediction

        if state.action == "refuse":
            raise InputError(state.reason)
        if state.action == "draw":
            with _writing, replacing(beside(path, ".png")) as picture:
                self._draw(read_prediction(path, case, self.models.plans()[0]), picture)
        return Predicted(path, warnings=(state.reason,) if state.reason else (), kept=True)

    def _part(self, case_id: str, fraction: float) -> None:
        stop_if_asked()
        if self.on_part is not None:
            self.on_part(case_id, fraction)

    def _write(self, found: Prediction, path: Path, turn: AbstractContextManager[Any]) -> Predicted:
        with turn:
            draw = partial(self._draw, found) if self.wanted.picture else None
            facts = found.save(path, probabilities=self.wanted.probabilities, draw=draw)
        volumes = found.volumes_ml()
        regions = {region: volumes[region] for region in found.plan.regions}
        return Predicted(path, regions, found.seconds, found.warnings, facts)

    def _draw(self, found: Prediction, picture: Path) -> None:
        from gliomask.report.pictures import draw_prediction

        draw_prediction(found, picture, sequences=self.sequences)
