"""Laws of `map_cases`: wherever items are worked on, each has one result, and a failure is a value."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import pytest

from gliomask.errors import InputError
from gliomask.execution import HERE, Where, ahead, map_cases
from gliomask.execution.task import VersionError, packed, unpacked

PLACES = {"threads": Where(at_once=2), "processes": Where(at_once=2, processes=True), "workers": Where(workers=2)}


@dataclass(frozen=True)
class Squares:
    """Work that travels: fails for 3, and its process ends for 5."""

    fatal: bool

    def __call__(self, item: int) -> int:
        if item == 3:
            raise InputError("three: is not allowed.")
        if item == 4:
            raise ValueError("not four either")
        if item == 5 and self.fatal:
            os._exit(1)
        return item * item


def resolved(path: Path) -> tuple[Path, int]:
    return path, os.getpid()


def slow(item: int) -> int:
    time.sleep(0.05)
    return item


@pytest.mark.parametrize("place", PLACES)
def test_each_item_has_one_result_and_a_failure_is_a_value(place: str) -> None:
    """Bad input, a fault, and, outside this process, the end of a process: the others are done all the same."""
    if place == "workers":
        pytest.importorskip("distributed")
    fatal = place != "threads"
    found = dict(map_cases(Squares(fatal), range(8), PLACES[place]))
    failed = {item: str(found.pop(item)) for item in ((3, 4, 5) if fatal else (3, 4))}
    assert found == {item: item * item for item in ((0, 1, 2, 6, 7) if fatal else (0, 1, 2, 5, 6, 7))}
    assert failed[3] == "three: is not allowed."
    assert "ValueError: not four either. This is a fault of gliomask" in failed[4]
    if fatal:
        assert "memory" in failed[5]


def test_a_crash_while_items_are_still_handed_out_is_a_value() -> None:
    """The process of the first item has crashed before the second comes; the others have their results."""

    def items() -> Iterator[int]:
        yield 5
        time.sleep(3)
        yield from (1, 2)

    found = dict(map_cases(Squares(fatal=True), items(), Where(processes=True, at_once=2)))
    assert "memory" in str(found.pop(5))
    assert found == {1: 1, 2: 4}


def test_paths_are_absolute_where_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may have another current folder; the item that is yielded is the caller's own."""
    monkeypatch.chdir(tmp_path)
    [(item, (path, process))] = map_cases(resolved, [Path("here")], PLACES["processes"])
    assert (item, path) == (Path("here"), tmp_path / "here")
    assert process != os.getpid()


def test_items_are_taken_as_they_are_needed() -> None:
    """There may be no end of them; closing the iterator ends the work."""
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    found = map_cases(slow, endless(), Where(at_once=2))
    assert len(list(islice(found, 5))) == 5
    found.close()
    assert len(taken) <= 8


def test_results_ahead_are_in_order_and_errors_are_raised_in_their_place() -> None:
    """Only one more than the threads is computed ahead."""
    taken: list[int] = []
    found = ahead(slow, (taken.append(n) or n for n in count()), 2)
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    found.close()
    assert len(taken) <= 7
    answers = ahead(Squares(fatal=False), [1, 2, 3], 2)
    assert (next(answers), next(answers)) == (1, 4)
    with pytest.raises(InputError, match="three"):
        next(answers)


def test_what_cannot_be_pickled_is_refused_before_anything_is_started() -> None:
    """With the name of its type, as it is a fault of gliomask."""
    with pytest.raises(InputError, match="function cannot be sent to another process"):
        list(map_cases(lambda item: item, [1], PLACES["processes"]))


def test_work_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers must have the version of the program."""
    sent = packed(5)
    monkeypatch.setattr("gliomask.execution.task.VERSION", "0.0.1")
    with pytest.raises(VersionError, match=r"a worker has gliomask 0\.0\.1"):
        unpacked(sent)


@pytest.mark.parametrize(
    ("cluster", "said"),
    [("slurm", "expected the address of a Dask scheduler"), ("not-there.yaml", "no such file"), ("", "expected")],
)
def test_a_cluster_is_an_address_or_a_settings_file(cluster: str, said: str) -> None:
    """Everything else is refused at once."""
    with pytest.raises(InputError, match=said):
        Where(cluster=cluster)
    assert HERE.is_here
    assert Where(cluster="tcp://somewhere:8786").is_address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "jobqueue: 5",
        "jobqueue: {condor: {}}",
        "jobqueue: {slurm: 5}",
        "jobqueue: {slurm: {}, pbs: {}}",
        "a: [",
    ],
)
def test_settings_that_are_none_of_dask_jobqueue_are_refused(tmp_path: Path, text: str) -> None:
    """The file is named, before anything is started."""
    pytest.importorskip("distributed")
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"cluster\.yaml"):
        list(map_cases(slow, [1], Where(cluster=str(path))))


def test_a_scheduler_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the address."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("gliomask.execution.clusters._CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"--cluster tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        list(map_cases(slow, [1], Where(cluster="tcp://127.0.0.1:9")))
