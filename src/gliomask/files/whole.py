"""Files that are written whole or not at all, and folders that one process at a time writes to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from glob import escape
from pathlib import Path
from socket import gethostname
from tempfile import TemporaryFile
from uuid import uuid4

from filelock import FileLock, SoftFileLease, Timeout

from gliomask.errors import InputError

_PARTIAL = ".partial-"
_CLAIM = ".claim-"
# How long to wait for another process that writes the same file.
_LONGEST_WRITE = 300.0
# A claim that its owner has not renewed for so long is taken over; it is renewed three times in that time.
LEASE_SECONDS = 120.0
# How long to wait for what another process or host has claimed: enough to take over the claim of one that fell silent.
CLAIM_WAIT_SECONDS = 1.5 * LEASE_SECONDS
# Writing the owner into a new claim takes milliseconds, also on a slow file system.
_LONGEST_CLAIM = 2.0


class HeldError(InputError):
    """Another thread, process or host writes what this one would write."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` when the block ends without an error.

    The temporary name has the ending of `path`, for writers that choose a format by it. If the block fails, the
    temporary file is removed and an older file at `path` is left as it was.

    Raises:
        InputError: The folder cannot be made or written to, or the disk is full.
    """
    partial = path.with_name(f"{_PARTIAL}{uuid4().hex[:12]}-{path.name}")
    with one_writer(path.parent, path.name, wait_seconds=_LONGEST_WRITE):
        # Left by processes that were killed.
        for left in path.parent.glob(f"{_PARTIAL}{'[0-9a-f]' * 12}-{escape(path.name)}"):
            with suppress(OSError):
                left.unlink()
        try:
            yield partial
            with partial.open("rb+") as written:  # on the disk before it replaces the old file
                os.fsync(written.fileno())
            partial.replace(path)
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror or error}. Nothing was left half-written; "
                "choose another place with -o, or free some space."
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def one_writer(
    folder: Path, name: str = "", *, wait_seconds: float = 0.0, give_up: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Lock a folder, or one name in it, against writing by any other thread, process or host.

    The operating system releases the lock when the process ends, so a crash leaves nothing locked. Two small files,
    `.writing*.lock` and `.writing*.json`, are removed at the end.

    Args:
        folder: Made if it does not exist.
        name: Part of the lock files' names; different names in one folder do not exclude each other.
        wait_seconds: How long to wait for another writer before giving up.
        give_up: Asked now and then during the wait, which ends if it returns True.

    Raises:
        InputError: Another writer holds the lock (the message names it and since when), or the folder cannot be written
            to.
    """
    stem = f".writing-{name}" if name else ".writing"
    lock = FileLock(folder / f"{stem}.lock", timeout=wait_seconds, thread_local=False)
    holder = folder / f"{stem}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(cancel_check=give_up)
        facts = {
            "process": os.getpid(),
            "host": gethostname(),
            "since": datetime.now(timezone.utc).isoformat("T", "seconds"),
        }
        holder.write_text(json.dumps(facts), "utf-8")
    except Timeout:
        raise HeldError(
            f"{folder / name}: {_describe(holder)} is writing it. Wait until that has ended, or choose another place."
        ) from None
    except OSError as error:
        if lock.is_locked:
            _give_back(lock, holder)
        raise InputError(
            f"cannot write {folder / name}: {error.strerror or error}. Nothing was left half-written; "
            "choose another place with -o, or free some space."
        ) from error
    try:
        yield
    finally:
        _give_back(lock, holder)


def _give_back(lock: FileLock, holder: Path) -> None:
    """Remove the two files of a lock and release it."""
    with suppress(OSError):
        holder.unlink(missing_ok=True)
        # Removed while the lock is held: a process that has opened it notices that it was removed, and tries again.
        # Windows does not remove an open file; there it remains, empty.
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


@contextmanager
def claimed(
    folder: Path, name: str, *, wait_seconds: float = 0.0, give_up: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Claim a name in a folder for this thread against all others, also those of hosts that share the folder.

    On one host the lock of `one_writer` decides, which ends with its process. Some shared file systems keep such locks
    for each host only; therefore a file `.claim-NAME.lock` with the owner is made too, and renewed while the claim is
    held. If its owner's host fell silent, whoever has waited `LEASE_SECONDS` takes it over.

    Args:
        folder: Made if it does not exist.
        name: What is claimed, such as the id of a case.
        wait_seconds: How long to wait for another owner; more than `LEASE_SECONDS` to take over a claim.
        give_up: Asked now and then during the wait, which ends if it returns True.

    Raises:
        HeldError: Another owner has the claim.
        InputError: The folder cannot be written to.
    """
    with one_writer(folder, name, wait_seconds=wait_seconds, give_up=give_up):
        path = folder / f"{_CLAIM}{name}.lock"
        lease = SoftFileLease(path, lease_duration=LEASE_SECONDS, timeout=wait_seconds, thread_local=False)
        try:
            _remove_empty(path)
            lease.acquire(cancel_check=give_up)
        except Timeout:
            raise HeldError(
                f"{folder / name}: {_owner(lease)} is writing it. Wait until that has ended, or choose another place."
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror or error}. Choose another place with -o."
            ) from error
        try:
            yield
        finally:
            lease.release()


def _remove_empty(claim: Path) -> None:
    """Remove a claim without an owner, which a process leaves that was killed in the moment of making it."""
    with suppress(FileNotFoundError):
        before = claim.stat()
        if before.st_size == 0:
            time.sleep(_LONGEST_CLAIM)
            now = claim.stat()
            if (now.st_ino, now.st_size) == (before.st_ino, 0):
                claim.unlink()


def _owner(lease: SoftFileLease) -> str:
    owner = lease.owner
    return "another host" if owner is None else f"process {owner.pid} on {owner.hostname}"


def clear_partials(folder: Path) -> int:
    """Remove the partial files and locks that killed processes left in a folder; return the number of files.

    Files that a running process is writing are left alone. The folder need not exist.
    """
    cleared = 0
    for partial in folder.glob(f"{_PARTIAL}*"):
        with suppress(InputError, OSError), one_writer(folder, partial.name.removeprefix(_PARTIAL).partition("-")[2]):
            partial.unlink(missing_ok=True)
            cleared += 1
    for lock in folder.glob(".writing*.lock"):
        name = lock.name.removeprefix(".writing").removeprefix("-").removesuffix(".lock")
        with suppress(InputError, OSError), one_writer(folder, name):
            pass  # a lock that can be taken belongs to no process, and its files are removed when it is given back
    for claim in folder.glob(f"{_CLAIM}*.lock"):
        with suppress(InputError, OSError), claimed(folder, claim.name.removeprefix(_CLAIM).removesuffix(".lock")):
            pass
    return cleared


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text("utf-8"))
        return f"process {facts['process']} on {facts['host']} (since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def place_of(path: Path) -> str:
    """Return a name for the place that a file has in its folder; a link is not followed, as writing replaces it."""
    return os.path.normcase(path.parent.resolve() / path.name)


def places_of(paths: Iterable[Path]) -> set[str]:
    """Return `place_of` for many files; each folder is looked at once, which takes long on a network file system."""
    folders: dict[Path, Path] = {}
    places = set()
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        places.add(os.path.normcase(folders[path.parent] / path.name))
    return places


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse output files that are among the files that are read, before any work is done.

    Raises:
        InputError: A file is both; it is named.
    """
    read = places_of(inputs)
    for path in outputs:
        if place_of(path) in read:
            raise InputError(f"{path}: is a file of the input, which would be replaced. Choose another place with -o.")


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before any work is done; nothing is left behind.

    Raises:
        InputError: The folder cannot be made or written to.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another place with -o."
        ) from error
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (see `replacing`)."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    r"""Write a UTF-8 text file whole or not at all (see `replacing`).

    A byte of a file name that is not UTF-8, which Python holds as a lone surrogate, is written as `\udcXX`; in a JSON
    string this is the escape that is read back as the same character.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))
