"""Files: written whole or not at all, by one writer at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import gethostname

import pytest
from filelock import SoftFileLease

from gliomask.errors import InputError
from gliomask.files import (
    HeldError,
    check_writable,
    claimed,
    clear_partials,
    one_writer,
    place_of,
    places_of,
    replacing,
    whole,
    write_bytes,
    write_text,
)


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_file_is_written_whole(tmp_path: Path, old: bytes | None) -> None:
    """Its folders are made, an older file is replaced, and nothing else is left beside it."""
    path = tmp_path / "deep" / "er" / "mask.nii.gz"
    if old is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(old)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_utf_8_whatever_the_machine_speaks(tmp_path: Path) -> None:
    """Line ends stay as they are."""
    write_text(tmp_path / "table.csv", "a,µm\nb,é\r\n")
    assert (tmp_path / "table.csv").read_bytes() == b"a,\xc2\xb5m\nb,\xc3\xa9\r\n"


def test_names_that_are_not_utf_8_do_not_end_a_table(tmp_path: Path) -> None:
    """Their bytes are written so that they can be seen, and the file stays UTF-8."""
    write_text(tmp_path / "table.csv", f"{os.fsdecode(bytes([112, 255]))},1\n")
    assert (tmp_path / "table.csv").read_text("utf-8") in ("p\\udcff,1\n", "p\xff,1\n")


def test_the_name_to_write_to_keeps_the_ending_and_the_folder(tmp_path: Path) -> None:
    """Writers choose a format by the ending; a rename is atomic within one disk only."""
    with replacing(tmp_path / "image.npz") as partial:
        assert partial.suffix == ".npz"
        assert partial.parent == tmp_path
        assert partial.name.startswith(".")  # whoever lists the folder passes over it
        partial.write_bytes(b"x")


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("broken", ["fsync", "write_bytes", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Whether it is noticed while writing, while flushing or while renaming."""
    path = tmp_path / "mask.nii"
    path.write_bytes(b"old")
    monkeypatch.setattr(os if broken == "fsync" else Path, broken, no_space)
    with pytest.raises(InputError, match=r"cannot write .*mask\.nii: No space left on device"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writes", [lambda path: write_bytes(path, b"new"), lambda path: _hold(path.parent, path.name)])
def test_a_disk_that_is_full_before_a_write_begins_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Callable[[Path], None]
) -> None:
    """An empty file can be made on a full disk, as that of a lock, but nothing can be written into it."""
    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(InputError, match="No space left"):
        writes(tmp_path / "mask.nii")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
    writes(tmp_path / "mask.nii")  # no lock is held any more


def _hold(folder: Path, name: str) -> None:
    with claimed(folder, name):
        pass


def test_a_full_disk_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """Half of a first file is no file."""

    def write_half() -> None:
        with replacing(tmp_path / "new.nii") as partial:
            partial.write_bytes(b"half of ")
            no_space()

    with pytest.raises(InputError, match="No space left"):
        write_half()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, stop: type[BaseException]) -> None:
    """Whatever ended the block is passed on as it is."""
    path = tmp_path / "mask.nii"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_bytes(b"half")
            raise stop

    with pytest.raises(stop):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "mask.nii"


def over_a_folder(folder: Path) -> Path:
    (folder / "mask.nii").mkdir()
    return folder / "mask.nii"


@pytest.mark.parametrize("place", [below_a_file, over_a_folder, lambda folder: folder / f"{'long' * 80}.nii"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """With the reason and the way out."""
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="choose another place") as caught:
        write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: the tests may be run by root, whom no permission stops."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(InputError, match=r"cannot write .*report\.json: Permission denied"):
        write_text(tmp_path / "report.json", "{}")
    assert not list(tmp_path.iterdir())


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    """Folders that were not there are not there afterwards; one that cannot be made is said."""
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to"):
        check_writable(tmp_path / "file" / "below")


def test_many_threads_may_write_one_file(tmp_path: Path) -> None:
    """One after the other: the file is one of theirs, whole, and nothing is left beside it."""
    contents = [bytes([number]) * 5000 for number in range(60)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda content: write_bytes(tmp_path / "mask.nii", content), contents))
    assert (tmp_path / "mask.nii").read_bytes() in contents
    assert list(tmp_path.iterdir()) == [tmp_path / "mask.nii"]


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    """In this process as in another one; another name in the folder is free, and so is the folder afterwards."""
    code = f"import pathlib, gliomask.files as f\nwith f.one_writer(pathlib.Path({str(tmp_path)!r})): pass"
    with one_writer(tmp_path), one_writer(tmp_path, "other"):
        told = rf"process {os.getpid()} on .* \(since 20.* is writing it"
        with pytest.raises(InputError, match=told), one_writer(tmp_path):
            pass
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "is writing it" in other.stderr
    assert not list(tmp_path.iterdir())
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_crash_left_behind_is_taken_over(tmp_path: Path) -> None:
    """The lock went with the process; its files and its half-written file go with the next writer."""
    code = (
        "import os; from pathlib import Path; from gliomask.files import one_writer, replacing\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with one_writer(folder), replacing(folder / 'mask.nii') as partial:\n"
        "    partial.write_bytes(b'half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(list(tmp_path.glob(".partial-*"))) == 1
    assert json.loads((tmp_path / ".writing.json").read_text())["process"] != os.getpid()
    with one_writer(tmp_path):
        write_bytes(tmp_path / "mask.nii", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii"]


def test_partial_files_of_killed_processes_are_cleared_and_living_ones_are_not(tmp_path: Path) -> None:
    """Whether or not their file is ever written again."""
    (tmp_path / ".partial-0123456789ab-old-mask.nii").write_bytes(b"half")
    with replacing(tmp_path / "mask.nii") as partial:
        partial.write_bytes(b"whole")
        assert clear_partials(tmp_path) == 1
        assert partial.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii"]
    assert clear_partials(tmp_path / "not there") == 0


def test_a_claim_is_held_by_one_and_names_its_owner(tmp_path: Path) -> None:
    """It leaves no file, and does not exclude other names."""
    held = pytest.raises(HeldError, match=rf"process {os.getpid()} on ")
    with claimed(tmp_path, "a"), claimed(tmp_path, "b"), held, claimed(tmp_path, "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_claim_is_given_up_when_asked(tmp_path: Path) -> None:
    """Long before the time to wait has passed, whether the lock of this host or another host's claim is waited for."""
    asked: list[float] = []
    held = pytest.raises(HeldError)
    with claimed(tmp_path, "a"), held, claimed(tmp_path, "a", wait_seconds=600, give_up=lambda: not asked.append(0)):
        pass
    other = SoftFileLease(tmp_path / ".claim-a.lock", lease_duration=whole.LEASE_SECONDS, thread_local=False)
    other.acquire()
    held = pytest.raises(HeldError)
    with held, claimed(tmp_path, "a", wait_seconds=600, give_up=lambda: not asked.append(0)):
        pass
    other.release()
    assert len(asked) >= 2


def test_the_claim_of_another_host_is_taken_over_when_it_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is renewed, it is respected, although no lock of this host is held."""
    monkeypatch.setattr(whole, "LEASE_SECONDS", 1.5)
    other = SoftFileLease(tmp_path / ".claim-a.lock", lease_duration=1.5, thread_local=False)
    other.acquire()
    with pytest.raises(HeldError, match="is writing it"), claimed(tmp_path, "a", wait_seconds=2.5):
        pass
    other._stop_heartbeat()
    record = (tmp_path / ".claim-a.lock").read_text()
    (tmp_path / ".claim-a.lock").write_text(record.replace(gethostname(), "elsewhere"))
    with claimed(tmp_path, "a", wait_seconds=10):
        pass
    assert not [path for path in tmp_path.iterdir() if path.name == ".claim-a.lock"]


def test_a_claim_without_an_owner_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed in the moment of making it leaves an empty file."""
    monkeypatch.setattr(whole, "_LONGEST_CLAIM", 0.1)
    (tmp_path / ".claim-a.lock").touch()
    with claimed(tmp_path, "a"):
        pass
    (tmp_path / ".claim-b.lock").touch()
    clear_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_places_of_many_files_are_those_of_each(tmp_path: Path) -> None:
    """Through links to folders too, and each folder is resolved once."""
    (tmp_path / "a").mkdir()
    paths = [tmp_path / "a" / "1", tmp_path / "a" / "2", tmp_path / "a" / ".." / "a" / "1", tmp_path / "gone" / "x"]
    assert places_of(paths) == {place_of(path) for path in paths}
