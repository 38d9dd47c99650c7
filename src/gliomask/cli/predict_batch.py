"""Predicting many cases into a folder: what is still to do, one writer for each case, and what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from gliomask.cli.console import advance, listed, note, out, progress, tell, warn
from gliomask.cli.predict_case import PredictCase, Predicted, Work
from gliomask.errors import InputError
from gliomask.execution import ClusterLostError, Where, ahead, asked_to_stop, map_cases
from gliomask.files import HeldError

if TYPE_CHECKING:
    from rich.progress import Progress

    from gliomask.cases import Case
    from gliomask.inference.record import State, Wanted
    from gliomask.inference.result import Prediction
    from gliomask.model.plan import Plan


# Endings of files that somebody may ask for, but that are not written. A folder of such a name is nobody's wish.
_OTHER_FILES = frozenset(
    {".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".gz", ".dcm", ".npy", ".npz", ".png"}
    | {".h5", ".tif", ".tiff", ".json", ".zip", ".stl", ".safetensors", ".onnx"}
    | {".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".html", ".pdf"}
)


_IS_INPUT = "is a file of the input, which a mask would replace. Choose another place with -o."


Failure = tuple["Case", InputError]


def find_work(cases: Sequence[Case], output: Path, wanted: Wanted, *, overwrite: bool) -> list[Work]:
    """Return what is to be done for each case; a case whose mask would replace a file of any case is refused.

    Raises:
        InputError: The output is one file for several cases, a file that exists and may not be replaced, or a file that
            is no mask.
    """
    from gliomask.files import place_of, places_of, refuse_inputs
    from gliomask.inference.record import State, is_mask_name

    inputs = [path for case in cases for path in _files_of(case)]
    if is_mask_name(output):
        if len(cases) != 1:
            raise InputError(f"{output}: one file for {len(cases)} cases. Name a folder with -o.")
        if output.exists() and not overwrite:
            raise InputError(f"{output}: exists already. Replace it with --overwrite, or choose another name.")
        refuse_inputs([output], inputs)
        return [Work(cases[0], output, State("predict"))]
    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder, or a mask ending in .nii.gz.")
    if output.suffix.lower() in _OTHER_FILES and not output.is_dir():
        raise InputError(f"{output}: masks are written as NIfTI. Name a file ending in .nii.gz, or a folder.")
    paths = [output / f"{case.id}.nii.gz" for case in cases]
    places = places_of(inputs)

    def look(one: tuple[Case, Path]) -> Work:
        case, path = one
        if place_of(path) in places:
            return Work(case, path, State("refuse", f"{path}: {_IS_INPUT}"))
        return Work(case, path, State("predict") if overwrite else _state(path, case, wanted))

    return list(ahead(look, zip(cases, paths, strict=True)))


def _state(path: Path, case: Case, wanted: Wanted) -> State:
    from gliomask.inference.record import State, find_state

    try:
        return find_state(path, case, wanted)
    except (InputError, OSError):  # its images cannot be read, which predicting it will report
        return State("predict")


def _files_of(case: Case) -> list[Path]:
    return [*(source.path for source in case.images.values()), *([case.mask] if case.mask else [])]


def refused(work: Sequence[Work]) -> list[Failure]:
    """Return the cases that are refused, each with the reason."""
    return [(each.case, InputError(f"{each.case.id}: {each.state.reason}")) for each in work if _is(each, "refuse")]


def _is(work: Work, *actions: str) -> bool:
    return work.state.action in actions


def report_work(work: Sequence[Work], output: Path) -> None:
    """Print which masks are kept, and which are computed again and why."""
    kept = [each for each in work if _is(each, "keep", "draw")]
    if kept:
        which = f"all {len(work)} masks" if len(kept) == len(work) else f"{len(kept)} of {len(work)} masks"
        out.print(f"{which} in {output} are up to date and kept (--overwrite makes them again)")
    if others := sum(each.state.other_model for each in kept):
        note(f"{others} of them were made by another model and are kept as --model-changed keep asks")
    for each in kept:
        if each.state.reason:
            warn(f"{each.case.id}: {each.state.reason}")
    again: dict[str, list[str]] = defaultdict(list)
    for each in work:
        if _is(each, "predict") and each.state.reason:
            again[each.state.reason].append(each.case.id)
    for reason, ids in again.items():
        note(f"computed again: {listed(ids)} ({reason})")


@dataclass(frozen=True)
class _DrawMask:
    """Draws the picture of a mask that is there; a function for `map_cases`."""

    plan: Plan
    draw: Callable[[Prediction, Path], object]

    def __call__(self, work: Work) -> None:
        from gliomask.cases import staged
        from gliomask.files import CLAIM_WAIT_SECONDS, one_writer, replacing
        from gliomask.inference.prediction import case_error
        from gliomask.inference.record import beside
        from gliomask.inference.result import read_prediction

        try:
            # Another process may predict or draw the case.
            folder, name = work.path.parent, work.case.id
            turn = one_writer(folder, name, wait_seconds=CLAIM_WAIT_SECONDS, give_up=asked_to_stop)
            picture = replacing(beside(work.path, ".png"))
            with turn, staged(work.case) as case, picture as partial_file:
                self.draw(read_prediction(work.path, case, self.plan), partial_file)
        except Exception as error:
            raise case_error(work.case, error) from error


def draw_missing(
    work: Sequence[Work], plan: Plan, draw: Callable[[Prediction, Path], object], where: Where
) -> list[Failure]:
    """Draw the pictures of masks that are kept, and return the cases that failed.

    In this process one is drawn at a time, as matplotlib is not made for threads.
    """
    from gliomask.inference.record import beside

    to_do = [each for each in work if each.state.action == "draw"]
    if not to_do:
        return []
    failed: list[Failure] = []
    with progress("drawing", len(to_do)) as bar:
        for each, answer in map_cases(_DrawMask(plan, draw), to_do, replace(where, at_once=1)):
            if isinstance(answer, InputError):
                failed.append((each.case, answer))
            else:
                out.print(f"{beside(each.path, '.png')}: drawn from the mask")
            advance(bar)
    return failed


def predict_all(
    work: Sequence[Work], predict: PredictCase, where: Where, on_end: Callable[[], object] = lambda: None
) -> list[Failure]:
    """Predict and write the cases that are to be predicted, and return those that failed.

    In this process one case is read and one is written while another is computed. Each case is claimed from before it
    is read until it is written, so that no other process or host works on it. `on_end` is called after each case.

    Raises:
        InputError: The models cannot be loaded, or what `map_cases` raises.
    """
    to_do = [each for each in work if each.state.action == "predict"]
    failed: list[Failure] = []
    held: list[Work] = []
    finished = 0
    with progress("predicting", len(to_do)) as bar, Fractions(bar) as fractions:
        work_on = replace(predict, on_part=fractions.advance) if where.is_here else predict
        found = map_cases(work_on, to_do, where, meanwhile=predict.models.load)
        try:
            with closing(found):
                for each, answer in found:
                    fractions.end(each.case.id)
                    if isinstance(answer, HeldError):
                        held.append(each)
                    elif isinstance(answer, InputError):
                        failed.append((each.case, answer))
                    else:
                        finished += 1
                        _say(each, answer)
                    on_end()
            if held:
                failed += _predict_held(held, predict, where)
        except (KeyboardInterrupt, ClusterLostError):
            tell(f"{finished} of {len(to_do)} done; run the same command again to go on")
            raise
    return failed


def _predict_held(held: Sequence[Work], predict: PredictCase, where: Where) -> list[Failure]:
    """Wait for the cases that another process or host is at work on, and do those that it leaves.

    Raises:
        ClusterLostError: The cluster, which was there before, cannot be reached any more.
    """
    from gliomask.files import CLAIM_WAIT_SECONDS

    waiting = [replace(each, wait_seconds=CLAIM_WAIT_SECONDS) for each in held]
    note(f"waiting for another process, which is at work on {listed([each.case.id for each in held])}")
    failed: list[Failure] = []
    try:
        for each, answer in map_cases(predict, waiting, where):
            if isinstance(answer, InputError):
                failed.append((each.case, answer))
            else:
                _say(each, answer)
    except ClusterLostError:
        raise
    except InputError as error:
        raise ClusterLostError(str(error)) from error
    return failed


def _say(work: Work, found: Predicted) -> None:
    """Print a line about a mask that was written, and the warnings about its images."""
    for warning in found.warnings:
        warn(f"{work.case.id}: {warning}")
    if not found.kept:
        text = ", ".join(f"{region} {volume:.1f} mL" for region, volume in found.volumes_ml.items())
        out.print(f"{work.path}: {text} ({found.seconds:.1f} s)")


class Fractions:
    """Moves a bar by the cases that ended and by the completed fractions of those that are at work."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._ended = 0
        self._fractions: dict[str, float] = {}
        self._lock = Lock()

    def __enter__(self) -> Fractions:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.refresh()

    def advance(self, case_id: str, fraction: float) -> None:
        """Note the completed fraction of a case."""
        with self._lock:
            self._fractions[case_id] = fraction
            self._move()

    def end(self, case_id: str) -> None:
        """Note that a case has ended."""
        with self._lock:
            self._fractions.pop(case_id, None)
            self._ended += 1
            self._move()

    def _move(self) -> None:
        self._bar.update(self._bar.tasks[0].id, completed=self._ended + sum(self._fractions.values()))
