"""Predicting many cases into a folder: what is still to do, one writer for each case, and what failed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.cli.console import listed, note, out, progress, tell, warn
from gliomask.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from gliomask.cases import Case
    from gliomask.inference.prediction import Prediction
    from gliomask.inference.record import State, Wanted
    from gliomask.inference.windows import Inference, Predictor
    from gliomask.model.plan import Plan


# Endings of files that somebody may ask for, but that are not written. A folder of such a name is nobody's wish.
_OTHER_FILES = frozenset(
    {".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".gz", ".dcm", ".npy", ".npz", ".png"}
    | {".h5", ".tif", ".tiff", ".json", ".zip", ".stl", ".safetensors", ".onnx"}
)


_IS_INPUT = "is a file of the input, which a mask would replace. Choose another place with -o."


@dataclass(frozen=True)
class Work:
    """A case, the file of its mask, and what is to be done for it."""

    case: Case
    path: Path
    state: State


Failure = tuple["Case", InputError]


def find_work(cases: Sequence[Case], output: Path, wanted: Wanted, *, overwrite: bool) -> list[Work]:
    """Return what is to be done for each case; a case whose mask would replace a file of any case is refused.

    Raises:
        InputError: The output is one file for several cases, a file that exists and may not be replaced, or a file that
            is no mask.
    """
    from gliomask.cases import usable_cores
    from gliomask.files import place_of, refuse_inputs
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
    places = set(map(place_of, inputs))

    def look(case: Case, path: Path) -> Work:
        if place_of(path) in places:
            return Work(case, path, State("refuse", f"{path}: {_IS_INPUT}"))
        return Work(case, path, State("predict") if overwrite else _state(path, case, wanted))

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(look, cases, paths))


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
    for each in kept:
        if each.state.reason:
            warn(f"{each.case.id}: {each.state.reason}")
    again: dict[str, list[str]] = defaultdict(list)
    for each in work:
        if _is(each, "predict") and each.state.reason:
            again[each.state.reason].append(each.case.id)
    for reason, ids in again.items():
        note(f"computed again: {listed(ids)} ({reason})")


def draw_missing(work: Sequence[Work], plan: Plan, draw: Callable[[Prediction, Path], object]) -> list[Failure]:
    """Draw the pictures of masks that are kept, and return the cases that failed."""
    from gliomask.files import one_writer, replacing
    from gliomask.inference.prediction import case_error, read_prediction
    from gliomask.inference.record import beside

    failed: list[Failure] = []
    for each in work:
        if each.state.action != "draw":
            continue
        try:
            with one_writer(each.path.parent, each.case.id), replacing(beside(each.path, ".png")) as partial_file:
                draw(read_prediction(each.path, each.case, plan), partial_file)
            out.print(f"{beside(each.path, '.png')}: drawn from the mask")
        except Exception as error:
            failed.append((each.case, case_error(each.case, error)))
    return failed


def predict_all(
    models: Sequence[Predictor],
    work: Sequence[Work],
    inference: Inference,
    wanted: Wanted,
    finish: Callable[[Prediction, Path], None],
    *,
    overwrite: bool,
) -> list[Failure]:
    """Predict and write the cases that are to be predicted, and return those that failed.

    One case is read and one is written while another is computed. Each is locked from before it is read until it is
    written, so that no other process works on it.
    """
    from gliomask.inference.prediction import case_error, predict_cases

    to_do = [each for each in work if each.state.action == "predict"]
    failed: list[Failure] = []
    claimed: deque[tuple[Work, ExitStack]] = deque()
    written: deque[tuple[Work, Future[None]]] = deque()
    finished: list[Work] = []

    def wait() -> None:
        while written:
            each, result = written.popleft()
            if isinstance(error := result.exception(), Exception):
                failed.append((each.case, case_error(each.case, error)))
            else:
                finished.append(each)

    cases = _claim(to_do, claimed, failed, None if overwrite else wanted)
    with progress("predicting", len(to_do)) as bar, ThreadPoolExecutor(1) as writer:
        try:
            answers = predict_cases(
                models,
                cases,
                inference=inference,
                convention=wanted.settings["labels"],
                on_part=partial(_advance_to, bar),
            )
            for number, found in enumerate(answers):
                each, lock = claimed.popleft()
                wait()  # so that at most one finished case is in memory beside the one that is computed
                if isinstance(found, InputError):
                    failed.append((each.case, found))
                    lock.close()
                else:
                    written.append((each, writer.submit(_finish_and_release, finish, found, each.path, lock)))
                del found
                _advance_to(bar, number, 1.0)
            wait()
        except KeyboardInterrupt:
            wait()
            tell(f"{len(finished)} of {len(to_do)} done; run the same command again to go on")
            raise
        finally:
            for _, lock in claimed:
                lock.close()
    return failed


def _claim(
    work: Sequence[Work],
    claimed: deque[tuple[Work, ExitStack]],
    failed: list[Failure],
    wanted: Wanted | None,
) -> Iterator[Case]:
    """Lock and yield one case after the other; leave out those that another process holds or has finished meanwhile.

    Args:
        work: The cases to be predicted.
        claimed: Gets each case that is yielded, with its lock.
        failed: Gets the cases that another process holds.
        wanted: What makes a mask that another process wrote the right one; None to replace it in any case.
    """
    from gliomask.files import one_writer
    from gliomask.inference.record import find_state

    for each in work:
        lock = ExitStack()
        try:
            lock.enter_context(one_writer(each.path.parent, each.path.name.partition(".nii")[0]))
            if wanted is not None and find_state(each.path, each.case, wanted).action == "keep":
                lock.close()
                continue
        except (InputError, OSError) as error:
            lock.close()
            failed.append((each.case, error if isinstance(error, InputError) else InputError(str(error))))
            continue
        claimed.append((each, lock))
        yield each.case


def _finish_and_release(
    finish: Callable[[Prediction, Path], None], found: Prediction, path: Path, lock: ExitStack
) -> None:
    with lock:
        finish(found, path)


def _advance_to(bar: Progress, number: int, fraction: float) -> None:
    bar.update(bar.tasks[0].id, completed=number + fraction)
