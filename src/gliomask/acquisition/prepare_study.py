"""One study prepared in a process of its own: a crash or a full memory there affects only that study."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliomask.acquisition.alignment import load_alignment
from gliomask.acquisition.places import RECORD
from gliomask.acquisition.preprocess import PreprocessSettings, image_path, preprocess, write_preprocessed
from gliomask.acquisition.study import Series, Study
from gliomask.cases import Case, Source
from gliomask.errors import InputError, describe
from gliomask.files import write_text
from gliomask.inference.record import digest_of, fingerprint


@dataclass(frozen=True)
class PreparedStudy:
    """A study's prepared case, and what is known about its preparation."""

    case: Case
    folder: Path
    warnings: tuple[str, ...]
    quality: dict[str, float]
    seconds: dict[str, float]


def describe_request(study: Study, settings: PreprocessSettings) -> dict[str, Any]:
    """Return what determines a preparation, ready for JSON: the settings, and fingerprints of the images that are used.

    Raises:
        InputError: A file cannot be read.
    """
    strip = settings.skull_strip
    return {
        "atlas": settings.atlas,
        "skull_strip": fingerprint(strip) if isinstance(strip, Path) else strip,
        "register": settings.register,
        "reference": settings.reference,
        "images": {name: describe_series(series) for name, series in study.chosen.items()},
    }


def describe_series(series: Series) -> str:
    """Return a digest of the fingerprints of a series' files.

    Raises:
        InputError: A file cannot be read.
    """
    return digest_of(" ".join(sorted(map(fingerprint, series.files))).encode())


def prepare_study(study: Study, folder: Path, settings: PreprocessSettings) -> PreparedStudy:
    """Prepare a study and write it as a case into a folder; see `preprocess` and `write_preprocessed`.

    The folder also gets `preprocess.json`: which images were used and why, the measures of quality, warnings, seconds.

    Raises:
        InputError: No image can be used, one is bad or cannot be registered, or the place cannot be written to.
    """
    found = preprocess(study.read(), settings)
    case = write_preprocessed(found, study.id, folder)
    record = {
        "case": study.id,
        "reference": found.alignment.reference,
        "images": {name: series.reason for name, series in study.chosen.items()},
        "request": describe_request(study, settings),
        "quality": {name: round(value, 4) for name, value in found.alignment.quality.items()},
        "warnings": [*study.notes, *found.warnings],
        "seconds": dict(found.steps),
        "note": "Research use only, not a medical device.",
    }
    # Written last: a folder that has it is whole.
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return PreparedStudy(
        case, folder, (*study.notes, *found.warnings), dict(found.alignment.quality), dict(found.steps)
    )


def prepared_before(study: Study, folder: Path, settings: PreprocessSettings) -> PreparedStudy | None:
    """Return what an earlier call prepared in a folder from the same images in the same way.

    None where it did not end, its files are gone, or the images or settings are others now.

    Raises:
        InputError: The record is there and damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        names, request = list(record["images"]), record.get("request")
        warnings, quality, seconds = tuple(record["warnings"]), dict(record["quality"]), dict(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {error}. Remove the folder and run again.") from error
    if request != describe_request(study, settings):
        return None
    load_alignment(folder / "transforms")
    sources = {name: Source(image_path(folder, study.id, name)) for name in names}
    if not all(source.path.is_file() for source in sources.values()):
        return None
    return PreparedStudy(Case(study.id, sources), folder, warnings, quality, seconds)


@contextmanager
def preparing(workers: int) -> Iterator[Callable[[Study, Path, PreprocessSettings], Future[PreparedStudy]]]:
    """Give a function that prepares studies in processes of their own, `workers` of them at a time.

    Greedy writes to the standard output of its process, which is closed there.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_silence) as pool:

        def submit(study: Study, folder: Path, settings: PreprocessSettings) -> Future[PreparedStudy]:
            return pool.submit(prepare_study, study, folder, settings)

        try:
            yield submit
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def outcome(study: Study, future: Future[PreparedStudy]) -> PreparedStudy | InputError:
    """Wait for a study and return what was prepared, or an error that names it, whatever went wrong."""
    try:
        return future.result()
    except InputError as error:
        return error
    except BrokenProcessPool:
        return InputError(f"{study.id}: its process has ended without an answer. Too little memory?")
    except Exception as error:
        return InputError(f"{study.id}: could not be prepared: {describe(error)}")


def workers_for(studies: Sequence[Study], cores: int) -> int:
    """Return how many studies are prepared at a time: one for every two cores, as each uses two."""
    return max(1, min(len(studies), cores // 2))


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
