"""From an upload to the images of a job: recognised sequences, malicious zips, and refused files."""

from __future__ import annotations

import asyncio
import random
import stat
import struct
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import AFFINE, nested_ellipsoids
from serving import HERE, as_files, build, four, nifti, zipped

pytest.importorskip("fastapi", reason="needs the extra serve")

from fastapi.testclient import TestClient

from gliomask.inspection import recognise
from gliomask.phantom import write_phantoms
from gliomask.service.limits import Limits, RefusedError
from gliomask.service.receive import receive_form
from gliomask.volume import Volume, read_volume

SMALL = (8, 9, 10)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build(tmp_path / "store", waiting=1000), base_url=HERE) as client:
        yield client


def post(client: TestClient, files: Any, **fields: str) -> dict[str, Any]:
    """Upload files that must be accepted, and return the job."""
    answer = client.post("/api/jobs", files=files if isinstance(files, list) else as_files(files), data=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def refused(client: TestClient, files: Any, status: int = 422, **fields: str) -> str:
    """Upload files that must be refused and leave nothing behind; return the whole message."""
    answer = client.post("/api/jobs", files=files if isinstance(files, list) else as_files(files), data=fields)
    assert answer.status_code == status, answer.text
    assert client.get("/api/jobs").json() == {"jobs": []}
    assert [*client.app.state.service.store.folder.glob("partial/*")] == []  # type: ignore[attr-defined]
    return " ".join([answer.json()["detail"], *answer.json()["problems"]])


def sequences(job: dict[str, Any]) -> list[tuple[str, str]]:
    return [(image["sequence"], image["told_by"]) for image in job["images"]]


def test_sequences_are_recognised_from_the_form_or_the_name(client: TestClient) -> None:
    """The form field takes precedence; file names are only in the response to the upload."""
    job = post(client, four())
    assert sequences(job) == [("t1n", "name"), ("t1c", "name"), ("t2w", "name"), ("t2f", "name")]
    assert list(job["file_names"].values()) == list(four())
    assert job["state"] == "checked"
    by_field = post(client, [("flair", ("x_t1.nii", nifti("t2f"))), ("t1ce", ("y.nii", nifti("t1c")))])
    assert sequences(by_field) == [("t2f", "you"), ("t1c", "you")]
    assert "file_names" not in client.get(f"/api/jobs/{by_field['id']}").json()


def test_initials_in_an_uploads_name_are_no_contrast_agent(client: TestClient) -> None:
    """As in a folder: with a T1ce of the same id, `KM` is part of the id."""
    job = post(client, {"x_KM_t1.nii": nifti("t1n"), "x_KM_t1ce.nii": nifti("t1c"), "x_KM_flair.nii": nifti("t2f")})
    assert sequences(job) == [("t1n", "name"), ("t1c", "name"), ("t2f", "name")]


def test_two_images_of_one_sequence_must_be_corrected(client: TestClient) -> None:
    """The job can be started only after one of them is corrected or left out."""
    job = post(client, {"a_t1.nii": nifti("t1n"), "b_t1.nii": nifti("t2f")})
    assert job["state"] == "uploaded"
    assert "image-1 and image-2 are both T1" in job["problems"][0]
    assert client.post(f"/api/jobs/{job['id']}/start").status_code == 409
    better = client.patch(f"/api/jobs/{job['id']}", json={"sequences": {"image-2": "t2f"}}).json()
    assert (better["state"], better["problems"]) == ("checked", [])
    assert sequences(better) == [("t1n", "name"), ("t2f", "you")]
    nothing = client.patch(f"/api/jobs/{job['id']}", json={"sequences": {"image-1": None, "image-2": None}}).json()
    assert nothing["state"] == "uploaded"
    assert client.patch(f"/api/jobs/{job['id']}", json={"sequences": {"image-9": "t1c"}}).status_code == 422


def test_only_a_public_id_becomes_the_title(client: TestClient) -> None:
    """Other file names may contain a person's name; a title can be given."""
    assert post(client, {"BraTS2021_00007_t1.nii": nifti("t1n")})["title"] == "BraTS2021_00007"
    assert post(client, {"doe_jane_t1.nii": nifti("t1n")})["title"].startswith("job-")
    assert post(client, {"x_t1.nii": nifti("t1n")}, title="trial 7")["title"] == "trial 7"
    answer = client.post("/api/jobs", files=as_files({"x_t1.nii": nifti()}), data={"title": "../../x"})
    assert answer.status_code == 422


def test_images_without_a_sequence_in_the_name_are_recognised(tmp_path: Path) -> None:
    """In two phantoms: if any one of the four is unknown, and if all are."""
    for case in write_phantoms(tmp_path, 2, size=64):
        names = tuple(case.images)
        volumes = [read_volume(source.path) for source in case.images.values()]
        volume = Volume(np.concatenate([one.data for one in volumes]), volumes[0].affine)
        assert recognise(volume, [None] * 4) == names
        for number in range(4):
            assert recognise(volume, [None if n == number else name for n, name in enumerate(names)]) == names
        assert recognise(volume, names) == names


def test_images_that_cannot_be_recognised_stay_unknown() -> None:
    """With too few voxels, or more images than remaining sequences."""
    images, _ = nested_ellipsoids(1)
    volume = Volume(np.stack([images["t1n"]] * 2), AFFINE)
    assert recognise(Volume(volume.data[:, :6, :6, :6], AFFINE), [None, None]) == (None, None)
    five = Volume(np.stack([images["t1n"]] * 5), AFFINE)
    assert recognise(five, ["t1n", "t1c", "t2w", "t2f", None]) == ("t1n", "t1c", "t2w", "t2f", None)


def test_a_zip_of_a_case_folder_is_a_case(client: TestClient) -> None:
    """Masks and other files are listed as not used, each with the reason; hidden files are ignored."""
    entries = {f"BraTS2021_00003/BraTS2021_00003_{name[2:]}": content for name, content in four().items()}
    entries |= {
        "BraTS2021_00003/BraTS2021_00003_seg.nii.gz": b"not read",
        "BraTS2021_00003/notes.txt": b"x",
        "__MACOSX/BraTS2021_00003/._BraTS2021_00003_t1.nii.gz": b"x",
        "#recycle/BraTS2021_00003_t1.nii.gz": b"x",
    }
    job = post(client, {"case.zip": zipped(entries)})
    assert [image["sequence"] for image in job["images"]] == ["t1n", "t1c", "t2w", "t2f"]
    assert job["title"] == "BraTS2021_00003"
    assert len(job["passed_over"]) == 2
    assert "its name is that of a mask" in job["passed_over"][0]


def a_link() -> bytes:
    """Return a zip with a symbolic link."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("x_t1.nii")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return content.getvalue()


def declared_small() -> bytes:
    """Return a zip with an entry that is larger than the zip declares."""
    content = bytearray(zipped({"x_t1.nii": bytes(5_000_000)}))
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        struct.pack_into("<I", content, place, 1000)
    return bytes(content)


TRICKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "upwards": (lambda: zipped({"../../x_t1.nii": nifti()}), "leads out of the zip"),
    "backwards": (lambda: zipped({"..\\..\\x_t1.nii": nifti()}), "leads out of the zip"),
    "absolute": (lambda: zipped({"/tmp/x_t1.nii": nifti()}), "leads out of the zip"),
    "drive": (lambda: zipped({"C:\\x_t1.nii": nifti()}), "leads out of the zip"),
    "link": (a_link, "is a link, not a file"),
    "nested": (lambda: zipped({"inner.zip": zipped({"x_t1.nii": nifti()})}), "is an archive within the zip"),
    "bomb": (lambda: zipped({"x_t1.nii": bytes(50_000_000)}), "times its compressed size"),
    "liar": (declared_small, "the zip is truncated, damaged"),
    "many": (lambda: zipped({f"{n}.txt": b"" for n in range(12_001)}), "the zip has 12001 entries"),
    "images": (lambda: zipped({f"{n}_t1.nii": b"" for n in range(20)}), "the zip has 20 images"),
    "nothing": (lambda: zipped({"readme.txt": b"x"}), "contains no image"),
    "empty": (lambda: zipped({}), "contains no image"),
    "cut": (lambda: zipped({"x_t1.nii": nifti()})[:-30], "truncated, damaged"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_malicious_zips_are_refused(client: TestClient, trick: str, tmp_path: Path) -> None:
    """The message names the file and the reason; nothing is written outside the store."""
    make, says = TRICKS[trick]
    said = refused(client, {"case.zip": make()})
    assert "case.zip" in said
    assert says in said
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_an_encrypted_zip_is_refused(client: TestClient) -> None:
    """Recognised by the flag of the entry."""
    content = bytearray(zipped({"x_t1.nii": nifti()}))
    for place in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[place] |= 1
    assert "encrypted" in refused(client, {"case.zip": bytes(content)})


def test_size_and_number_of_files_are_limited(tmp_path: Path) -> None:
    """Bytes are counted while they are received, whatever length is declared."""
    content = nifti()
    with TestClient(build(tmp_path / "store", upload_bytes=len(content) + 500, files=2), base_url=HERE) as client:
        assert "the most that this server accepts" in refused(client, {"a_t1.nii": content + bytes(500)}, 413)

        three = {f"{n}_t1.nii": b"x" for n in range(3)}
        assert "more than 2 files" in refused(client, three, 413)


def test_reading_an_endless_body_stops_at_the_limit(tmp_path: Path) -> None:
    """Bytes are counted as they arrive, and nothing beyond the limit is written."""

    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a_t1.nii"\r\n\r\n'
        while True:
            yield bytes(4096)

    limits = Limits(upload_bytes=100_000)
    with pytest.raises(RefusedError, match="the most that this server accepts"):
        asyncio.run(receive_form(endless(), "multipart/form-data; boundary=x", tmp_path, limits))
    assert (tmp_path / "upload-1").stat().st_size <= limits.upload_bytes


def test_all_problems_are_reported_at_once(client: TestClient) -> None:
    """With the uploaded file names and without paths of the server."""
    files = {"good_t1.nii": nifti(), "bad_t2.nii": nifti()[:-9], "worse/../flair.nii": b"hello" * 100}
    said = refused(client, files)
    assert "bad_t2.nii: is truncated" in said
    assert "flair.nii: " in said
    assert "not a NIfTI" in said
    assert "good" not in said
    assert str(client.app.state.service.store.folder) not in said  # type: ignore[attr-defined]
    assert "The upload contains no image" in refused(client, {"x_seg.nii": nifti()})
    assert "multipart" in client.post("/api/jobs", json={}).json()["detail"]
    assert "The upload contains no image" in client.post("/api/jobs", files={"title": (None, "x")}).json()["detail"]


def test_images_that_the_model_cannot_use_are_reported(client: TestClient) -> None:
    """Differing grids are a problem of the check, unless the images are prepared first; the server's names are used."""
    job = post(client, {"a_t1.nii": nifti("t1n"), "a_t2.nii": nifti("t2w", shape=(20, 20, 20))})
    job = client.patch(f"/api/jobs/{job['id']}", json={"raw": False}).json()
    assert job["state"] == "uploaded"
    assert "must share one grid" in job["problems"][0]


def test_200_damaged_uploads_cause_no_server_error(client: TestClient, tmp_path: Path) -> None:
    """Each is accepted or refused with a message, and nothing is written outside the store."""
    draw = random.Random(7)
    whole = four(shape=SMALL)
    here = {path.name for path in tmp_path.iterdir()}
    taken = 0
    for number in range(200):
        name = draw.choice([*whole, "x.nii", "case.zip", "", "../../etc/passwd", "t1.nii\x00.gz", "é" * 300 + ".nii"])
        content = damaged(draw, number)
        answer = client.post("/api/jobs", files=[("files", (name, content))])
        assert answer.status_code in (201, 400, 413, 422), (number, answer.text)
        body = answer.json()
        if answer.status_code == 201:
            taken += 1
            assert client.app.state.service.store.folder_of(body["id"]).is_dir()  # type: ignore[attr-defined]
        else:
            assert len(" ".join([body["detail"], *body["problems"]])) > 20, number
            assert "Traceback" not in answer.text
        assert str(tmp_path) not in answer.text
    assert {path.name for path in tmp_path.iterdir()} == here
    assert not [*(tmp_path / "store" / "partial").iterdir()]
    assert taken < 150
    assert client.get("/api/jobs").status_code == 200


def damaged(draw: random.Random, number: int) -> bytes:
    """Return an upload damaged in one of ten ways."""
    raw, packed = nifti(shape=SMALL), four(shape=SMALL)["x_t1ce.nii.gz"]
    case = zipped({"x_t1.nii.gz": packed, "y.txt": b"?"})
    odd = [float("nan"), float("inf"), 0.0, -1e30, 1e30]
    ways: list[Callable[[], bytes]] = [
        lambda: raw[: draw.randrange(len(raw))],
        lambda: packed[: draw.randrange(len(packed))],
        lambda: flipped(draw, raw, 352, 12),  # in the header
        lambda: flipped(draw, raw, 120, 3),
        lambda: flipped(draw, packed, len(packed), 1),
        lambda: draw.randbytes(draw.randrange(2000)),
        lambda: raw[:40] + struct.pack("<8h", *draw.choices([-1, 0, 1, 3, 300, 32767], k=8)) + raw[56:],
        lambda: replaced(raw, draw.choice([76, 108, 112, 256, 280, 296]), struct.pack("<f", draw.choice(odd))),
        lambda: case[: draw.randrange(len(case))],
        lambda: flipped(draw, case[::-1], 150, 3)[::-1],  # in the zip's directory, which is at its end
    ]
    return ways[number % len(ways)]()


def flipped(draw: random.Random, content: bytes, within: int, most: int) -> bytes:
    """Return a copy with some bits flipped among the first bytes."""
    changed = bytearray(content)
    for _ in range(draw.randrange(most) + 1):
        changed[draw.randrange(within)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def replaced(content: bytes, place: int, part: bytes) -> bytes:
    return content[:place] + part + content[place + len(part) :]
