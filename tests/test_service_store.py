"""The store: jobs are folders that survive a restart, completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from gliomask.errors import InputError
from gliomask.service.jobs import Job, now
from gliomask.service.limits import Limits, RefusedError
from gliomask.service.store import Store


def add(store: Store, number: int = 1, **changes: object) -> Job:
    """Add a job with one small file."""
    job = Job.model_validate(
        {"id": f"{number:032x}", "title": f"job {number}", "state": "checked", "created": now(), "images": ()}
        | {"volumes_ml": {"WT": 1.0}}
        | changes
    )
    with store.upload() as folder:
        (folder / "images").mkdir()
        (folder / "images" / "image-1.nii.gz").write_bytes(b"voxels")
        return store.add(job, folder)


def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    """With all fields and files, newest first; deleted jobs do not return."""
    store = Store(tmp_path / "store")
    first = add(store, 1, created=now() - timedelta(hours=1))
    add(store, 2)
    add(store, 3)
    store.remove(f"{3:032x}")
    changed = store.change(first.id, state="done", volumes_ml={"WT": 1.25}, warnings=["odd"], finished=now())
    jobs = store.jobs()
    store.close()
    again = Store(tmp_path / "store")
    assert again.jobs() == jobs
    assert [job.title for job in jobs] == ["job 2", "job 1"]
    assert again.get(first.id) == changed
    assert (again.folder_of(first.id) / "images" / "image-1.nii.gz").read_bytes() == b"voxels"
    again.close()


def test_a_store_belongs_to_one_server(tmp_path: Path) -> None:
    """A second server is refused until the first has released the folder."""
    store = Store(tmp_path / "store")
    with pytest.raises(InputError, match=rf"process {os.getpid()} on .* is writing it"):
        Store(tmp_path / "store")
    store.close()
    Store(tmp_path / "store").close()


def test_incomplete_uploads_and_deletions_are_removed(tmp_path: Path) -> None:
    """Immediately after a failed upload; at the next start after a crash."""
    store = Store(tmp_path / "store")
    with store.upload() as folder:
        (folder / "upload-1").write_bytes(b"half")
    assert not folder.exists()
    left = tmp_path / "store" / "partial" / "crashed"
    left.mkdir()
    (left / "upload-1").write_bytes(b"half")
    store.close()
    Store(tmp_path / "store").close()
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_other_users_cannot_read_the_store(tmp_path: Path) -> None:
    """The folder is accessible to its owner only."""
    Store(tmp_path / "store").close()
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_a_change_that_is_not_allowed_changes_nothing(tmp_path: Path) -> None:
    """A wrong state is 409, no job 404, and a field that makes no sense an error; disk and memory stay as they were."""
    store = Store(tmp_path / "store")
    job = add(store)
    with pytest.raises(RefusedError) as wrong:
        store.change(job.id, only=["queued"], state="running")
    assert wrong.value.status == 409
    with pytest.raises(RefusedError) as none:
        store.change("f" * 32, state="running")
    assert none.value.status == 404
    with pytest.raises(ValueError, match="state"):
        store.change(job.id, state="asleep")
    assert store.get(job.id) == job
    store.close()
    again = Store(tmp_path / "store")
    assert again.get(job.id) == job
    again.close()


def test_a_damaged_job_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said and not deleted, and the others are there."""
    store = Store(tmp_path / "store")
    good, bad = add(store, 1), add(store, 2)
    folder = store.folder_of(bad.id)
    store.close()
    (folder / "job.json").write_text("{")
    again = Store(tmp_path / "store")
    assert again.jobs() == [good]
    assert folder.is_dir()
    assert "damaged" in caplog.text
    again.close()


def test_expired_jobs_are_deleted(tmp_path: Path) -> None:
    """Finished jobs after `keep_days`, unstarted ones after one day; queued and running jobs never."""
    store = Store(tmp_path / "store", Limits(keep_days=10))
    old = now() - timedelta(days=11)
    add(store, 1, state="done", created=old, finished=old)
    add(store, 2, state="queued", created=old)
    add(store, 3, state="running", created=old)
    add(store, 4, state="checked", created=now() - timedelta(days=2))
    add(store, 5, state="done", created=old, finished=now() - timedelta(days=9))
    add(store, 6)
    assert store.sweep(now()) == 2
    assert {job.title for job in store.jobs()} == {"job 2", "job 3", "job 5", "job 6"}
    assert len(list((tmp_path / "store" / "jobs").iterdir())) == 4
    store.close()


def test_a_job_that_cannot_be_deleted_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the others are deleted, and the next call tries again."""
    store = Store(tmp_path / "store", Limits(keep_days=10))
    old = now() - timedelta(days=11)
    stuck, _ = (add(store, number, state="done", created=old, finished=old) for number in (1, 2))
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == stuck.id:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert store.sweep(now()) == 1
    assert f"{stuck.id} cannot be deleted" in caplog.text
    monkeypatch.undo()
    assert [job.title for job in store.jobs()] == ["job 1"]
    assert store.sweep(now()) == 1
    store.close()


def test_unfinished_jobs_are_limited(tmp_path: Path) -> None:
    """Finished jobs do not count. Uploads that began before the limit was reached are refused at their end."""
    store = Store(tmp_path / "store", Limits(waiting=2))
    add(store, 1, state="done", finished=now())
    add(store, 2)
    with store.upload() as folder:
        third = add(store, 3)
        with pytest.raises(RefusedError, match="2 jobs are already waiting"):
            store.add(third.model_copy(update={"id": f"{4:032x}"}), folder)
    with pytest.raises(RefusedError, match="2 jobs are already waiting") as full, store.upload():
        pass
    assert full.value.status == 429
    store.close()


ODD_FIELDS: list[dict[str, object]] = [
    {"created": "2026-01-01T00:00:00"},
    {"created": 1e300},
    {"created": None},
    {"finished": "2026-01-01"},
    {"queued": []},
    {"id": "f" * 32},
    {"title": "a\nb"},
    {"title": 7},
    {"state": "lost"},
    {"state": "done", "volumes_ml": None},
    {"state": "done", "finished": None},
    {"attempts": -1},
    {"images": 3},
    {"images": [{"name": "../../x", "sequence": None, "told_by": None, "shape": [1, 1, 1], "spacing_mm": [1, 1, 1]}]},
    {"volumes_ml": {"WT": "much"}},
    {"volumes_ml": {"WT": float("nan")}},
    {"warnings": None},
    {"unknown": 1},
]


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=str)
def test_a_job_with_an_odd_field_does_not_keep_a_store_from_opening(tmp_path: Path, fields: dict[str, object]) -> None:
    """It is ignored and left as it is; the other jobs are there."""
    store = Store(tmp_path / "store")
    good, bad = add(store, 1), add(store, 2)
    path = store.folder_of(bad.id) / "job.json"
    store.close()
    content = json.dumps({**json.loads(path.read_text()), **fields})
    path.write_text(content)
    again = Store(tmp_path / "store")
    assert again.jobs() == [good]
    assert again.sweep(now()) == 0
    again.close()
    assert path.read_text() == content


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}" + b" " * 2_000_000], ids=len)
def test_a_file_that_is_not_a_job_does_not_keep_a_store_from_opening(tmp_path: Path, content: bytes) -> None:
    """Neither does a folder or another file in its place."""
    store = Store(tmp_path / "store")
    good, bad, missing = add(store, 1), add(store, 2), add(store, 3)
    folder = store.folder_of(missing.id)
    (store.folder_of(bad.id) / "job.json").write_bytes(content)
    store.close()
    (folder / "job.json").unlink()
    (folder / "job.json").mkdir()
    (tmp_path / "store" / "jobs" / ("e" * 32)).write_text("a file")
    again = Store(tmp_path / "store")
    assert again.jobs() == [good]
    again.close()


@pytest.mark.parametrize("year", [1, 9999])
def test_dates_at_the_ends_of_the_calendar_are_possible(tmp_path: Path, year: int) -> None:
    """The date of deletion does not overflow."""
    store = Store(tmp_path / "store", Limits(keep_days=1e6))
    moment = datetime(year, 12, 31, tzinfo=timezone(timedelta(hours=14)))
    job = add(store, 1, created=moment, finished=moment, state="done")
    add(store, 2)
    assert store.deleted_on(job) > moment
    assert len(store.jobs()) == 2
    store.close()


def test_a_full_disk_is_a_507_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that must be made in spite of that is kept in memory."""
    store = Store(tmp_path / "store")
    job = add(store)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RefusedError, match="No space left") as full:
        store.change(job.id, title="other")
    assert full.value.status == 507
    assert str(tmp_path) not in str(full.value)
    assert store.get(job.id).title == job.title
    assert store.change(job.id, must_store=False, title="other").title == "other"
    with store.upload() as folder, pytest.raises(RefusedError) as full:
        store.add(job.model_copy(update={"id": "f" * 32}), folder)
    assert full.value.status == 507
    monkeypatch.undo()
    store.close()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_limits_are_numbers_of_at_least_zero(value: float) -> None:
    """So that no comparison or date fails later."""
    with pytest.raises(InputError, match="keep_days"):
        Limits(keep_days=value)
