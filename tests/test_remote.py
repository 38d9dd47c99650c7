"""Cases in an object store: predicted, checked and scored like those of a folder, and nothing of them stays here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gliomask.cases import Case, find_cases, staged
from gliomask.errors import InputError
from gliomask.files.remote import shown, url_of
from gliomask.volume import read_volume

Run = Callable[..., tuple[int, str]]
SECRET = "very-secret-value"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server with the interface of S3 on this machine."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    thread = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    thread.start()
    host, port = thread.get_host_and_port()
    yield f"http://{host}:{port}"
    thread.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, model_file: Path, tmp_path: Path) -> str:
    """The two small cases of `model_file`, and damaged ones, in a bucket."""
    import s3fs

    for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    name = f"bucket-{abs(hash(str(tmp_path)))}"
    store.mkdir(name)
    store.put(str(tmp_path / "data"), f"{name}/cohort", recursive=True)
    return name


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files that is empty at the end of every test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))  # of workers
    yield folder
    assert not [path for path in folder.iterdir() if path.name.startswith("gliomask-")]


def test_remote_cases_are_predicted_as_local_ones(gliomask: Run, bucket: str, model_file: Path, tmp_path: Path) -> None:
    """The masks are the same, a second run keeps them, and `check` and `evaluate` read the bucket too."""
    url = f"s3://{bucket}/cohort"
    assert gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "here")[0] == 0
    status, said = gliomask("predict", "-m", model_file, "-i", url, "-o", tmp_path / "there")
    assert status == 0, said
    for case in find_cases(tmp_path / "data"):
        one, other = (read_volume(tmp_path / place / f"{case.id}.nii.gz", mask=True) for place in ("here", "there"))
        assert np.array_equal(one.data, other.data)
        local, remote = (json.loads((tmp_path / place / f"{case.id}.json").read_text()) for place in ("here", "there"))
        assert local["images"] == remote["images"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").glob("*.nii.gz")}
    assert gliomask("predict", "-m", model_file, "-i", url, "-o", tmp_path / "there")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "there").glob("*.nii.gz")} == before
    status, said = gliomask("check", url)
    assert (status, "layout brats2021" in said) == (0, True), said
    for name, truth in (("local", tmp_path / "data"), ("remote", url)):
        status, said = gliomask("evaluate", tmp_path / "there", truth, "-o", tmp_path / f"{name}.csv")
        assert status == 0, said
    assert (tmp_path / "local.csv").read_text() == (tmp_path / "remote.csv").read_text()


@pytest.mark.slow
def test_workers_fetch_remote_cases_themselves(gliomask: Run, bucket: str, model_file: Path, tmp_path: Path) -> None:
    """With `--workers 2` the masks are those of local cases, and an object that is gone is one failed case."""
    import s3fs

    pytest.importorskip("distributed")
    first, second = find_cases(tmp_path / "data")
    gone = first.images["t2f"].path.relative_to(tmp_path / "data")
    words = ("predict", "-m", model_file, "-d", "cpu", "-i", f"s3://{bucket}/cohort", "-o", tmp_path / "there")
    store = s3fs.S3FileSystem()
    status, said = gliomask(*words, "--workers", "2")
    assert status == 0, said
    assert gliomask("predict", "-m", model_file, "-d", "cpu", "-i", tmp_path / "data", "-o", tmp_path / "here")[0] == 0
    for case in (first, second):
        name = f"{case.id}.nii.gz"
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    named = ["id,t1,t1ce,t2,flair"]
    for case in (first, second):
        paths = [source.path.relative_to(tmp_path / "data") for source in case.images.values()]
        named.append(",".join([case.id, *(f"s3://{bucket}/cohort/{path}" for path in paths)]))
    (tmp_path / "list.csv").write_text("\n".join(named))
    store.rm(f"{bucket}/cohort/{gone}")
    again = [*words[:6], tmp_path / "list.csv", "-o", tmp_path / "again", "--workers", "2"]
    status, said = gliomask(*again)
    assert (status, f"s3://{bucket}/cohort/{gone}" in said, SECRET in said) == (1, True, False), said
    assert [path.name for path in (tmp_path / "again").glob("*.nii.gz")] == [f"{second.id}.nii.gz"]


def test_an_object_that_is_gone_is_one_failed_case(
    gliomask: Run, bucket: str, model_file: Path, tmp_path: Path
) -> None:
    """Its URL is named, the others are done, and no credential is printed."""
    first, second = find_cases(tmp_path / "data")
    lines = ["id,t1,t1ce,t2,flair"]
    for case, broken in ((first, "gone/"), (second, "")):
        paths = [source.path.relative_to(tmp_path / "data") for source in case.images.values()]
        lines.append(",".join([case.id, *(f"s3://{bucket}/cohort/{broken}{path}" for path in paths)]))
    (tmp_path / "list.csv").write_text("\n".join(lines))
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "list.csv", "-o", tmp_path / "out")
    assert status == 1
    assert f"s3://{bucket}/cohort/gone/" in said
    assert "is not there" in said
    assert SECRET not in said
    assert (tmp_path / "out" / f"{second.id}.nii.gz").is_file()
    assert first.id in (tmp_path / "out" / "failed.csv").read_text()


def test_a_place_that_cannot_be_read_is_refused(gliomask: Run, bucket: str, model_file: Path, tmp_path: Path) -> None:
    """No such bucket, a kind of address that nothing reads, and no file: status 2 and the address."""
    for url in (f"s3://{bucket}-not-there/cohort", "nosuch://place/x", f"s3://{bucket}/nothing"):
        status, said = gliomask("predict", "-m", model_file, "-i", url, "-o", tmp_path / "out")
        assert (status, url in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_a_path_gives_its_url_back() -> None:
    """Also where it was made absolute, as everything that travels to a worker is."""
    for url in ("s3://bucket/a b/c.nii.gz", "gs://x/y", "https://host/z"):
        assert url_of(Path(url)) == url
        assert url_of(Path(url).absolute()) == url
    for path in (Path("/data/x"), Path("x/y:z"), Path("C:/data")):
        assert url_of(path) is None


def test_credentials_in_addresses_are_not_shown() -> None:
    """Users, passwords and signed queries."""
    for text in ("ftp://me:secret@host/x", "https://host/x?X-Amz-Signature=secret&y=1", "token=secret"):
        assert "secret" not in shown(text)


def test_local_cases_are_not_copied(write_case: Callable[..., Case]) -> None:
    """They are given as they are."""
    case = write_case("brats2021")
    with staged(case) as same:
        assert same is case


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is in the message."""
    monkeypatch.setattr("gliomask.files.remote.find_spec", lambda _: None)
    with pytest.raises(InputError, match="extra remote"):
        find_cases("s3://bucket/x")
