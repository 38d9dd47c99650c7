"""Masks corrected through the service: saved in the job's folder, downloaded, and deleted with the job."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from conftest import nested_ellipsoids
from serving import HERE, SECRET, build, finished_job

pytest.importorskip("fastapi", reason="needs the extra serve")
from fastapi.testclient import TestClient

from gliomask.volume import read_volume

GZIP = {"Content-Encoding": "gzip"}
SHAPE = (24, 28, 20)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(build(tmp_path, token=SECRET), base_url=HERE) as client:
        client.headers["Authorization"] = f"Bearer {SECRET}"
        yield client


@pytest.fixture
def job(client: TestClient, tmp_path: Path) -> str:
    """A job that is done, whose mask is that of the phantom."""
    return finished_job(client, tmp_path)


def ask(client: TestClient, job_id: str, act: str, wanted: dict[str, Any], voxels: Any = None) -> Any:
    content = None if voxels is None else gzip.compress(np.asarray(voxels, np.uint8).tobytes(order="F"))
    address = f"/api/jobs/{job_id}/edit/{act}"
    return client.post(address, params={"request": json.dumps(wanted)}, content=content, headers=GZIP)


def shown(client: TestClient, job_id: str, tmp_path: Path) -> np.ndarray:
    """The mask as a page that corrects it gets it."""
    scene = client.get(f"/api/jobs/{job_id}/edit/scene").json()
    path = tmp_path / "shown.nii.gz"
    path.write_bytes(client.get(scene["masks"][0]["url"]).content)
    labels: np.ndarray = read_volume(path, mask=True).data[0]
    return labels


def test_a_correction_is_saved_beside_the_mask_and_can_be_downloaded(
    client: TestClient, job: str, tmp_path: Path
) -> None:
    """The model's mask stays; names of the downloads, the record and the viewer's masks follow; a restart keeps it."""
    original = client.get(f"/api/jobs/{job}/mask").content
    assert client.get(f"/api/jobs/{job}/edited").status_code == 404
    assert client.get(f"/api/jobs/{job}").json()["edited"] is False
    labels = shown(client, job, tmp_path).copy()
    state = ask(client, job, "open", {"window": "a"}).json()["state"]
    labels[:3, :3, :3] = 2
    answer = ask(client, job, "save", {"window": "a", "state": state, "seconds": 4}, labels)
    assert answer.status_code == 200
    assert answer.json()["voxels_changed"] == 27
    edited = client.get(f"/api/jobs/{job}/edited")
    assert 'filename="one_two_edited.nii.gz"' in edited.headers["content-disposition"]
    (tmp_path / "got.nii.gz").write_bytes(edited.content)
    assert np.array_equal(read_volume(tmp_path / "got.nii.gz", mask=True).data[0], labels)
    facts = client.get(f"/api/jobs/{job}/edited/facts")
    assert 'filename="one_two_edited.json"' in facts.headers["content-disposition"]
    assert facts.json()["regions"]["WT"]["ml_after"] > facts.json()["regions"]["WT"]["ml_before"]
    assert client.get(f"/api/jobs/{job}/mask").content == original
    assert client.get(f"/api/jobs/{job}").json()["edited"] is True
    masks = client.get(f"/api/jobs/{job}/scene").json()["masks"]
    assert [mask["label"] for mask in masks] == ["corrected", "prediction"]
    assert client.get(masks[0]["url"]).status_code == 200
    client.app.state.service.editors.forget(job)  # type: ignore[attr-defined]  # as after a restart
    assert np.array_equal(shown(client, job, tmp_path), labels)
    [mask] = client.get(f"/api/jobs/{job}/edit/scene").json()["masks"]
    assert mask["volumes_ml"] == {name: one["ml_after"] for name, one in facts.json()["regions"].items()}
    assert ask(client, job, "save", {"window": "a", "state": answer.json()["state"]}, labels).status_code == 200


def test_a_second_window_is_told(client: TestClient, job: str, tmp_path: Path) -> None:
    """It can neither save nor apply an operation before it takes the mask over; then the first one cannot."""
    labels = shown(client, job, tmp_path)
    state = ask(client, job, "open", {"window": "a"}).json()["state"]
    assert ask(client, job, "open", {"window": "b"}).status_code == 409
    for act in ("save", "apply"):
        refused = ask(client, job, act, {"window": "b", "state": state}, labels)
        assert (refused.status_code, "Another window" in refused.json()["detail"]) == (409, True)
    assert ask(client, job, "open", {"window": "b", "take": True}).status_code == 200
    assert ask(client, job, "save", {"window": "a", "state": state}, labels).status_code == 409
    assert ask(client, job, "save", {"window": "b", "state": state}, labels).status_code == 200


def test_operations_use_the_images_of_the_job(client: TestClient, job: str, tmp_path: Path) -> None:
    """Shrinking to a threshold leaves the voxels of the region whose value in that sequence is within it."""
    labels = shown(client, job, tmp_path)
    ask(client, job, "open", {"window": "a"})
    image = nested_ellipsoids(1, SHAPE)[0]["t2f"]
    low = float(np.median(image[labels > 0]))
    wanted = {"window": "a", "operation": "shrink", "region": "WT", "image": "t2f", "low": low, "high": 1e9}
    answer = ask(client, job, "apply", wanted, labels)
    assert answer.status_code == 200
    got = np.frombuffer(answer.content, np.uint8).reshape(labels.shape, order="F")
    assert np.array_equal(got, np.where((labels > 0) & (image < low), 0, labels))
    refused = ask(client, job, "apply", {**wanted, "image": "../mask"}, labels)
    assert (refused.status_code, "not one of the sequences" in refused.json()["detail"]) == (422, True)


def test_the_correction_is_deleted_with_its_job(client: TestClient, job: str, tmp_path: Path) -> None:
    """Nothing of it is left, and what a page sends afterwards is neither stored nor brings the job back."""
    labels = shown(client, job, tmp_path)
    state = ask(client, job, "open", {"window": "a"}).json()["state"]
    assert ask(client, job, "save", {"window": "a", "state": state}, labels).status_code == 200
    editing = client.app.state.service.editors.of(job)  # type: ignore[attr-defined]
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert ask(client, job, "save", {"window": "a", "state": state}, labels).status_code == 404
    assert client.get(f"/api/jobs/{job}/edited").status_code == 404
    editing.target.parent.mkdir(parents=True)  # as a save does that was running meanwhile
    with pytest.raises(Exception, match="no such job"):
        client.app.state.service.store.check_there(job)  # type: ignore[attr-defined]
    assert not any((tmp_path / "jobs").iterdir())


def test_bad_requests_are_refused_and_change_nothing(client: TestClient, job: str, tmp_path: Path) -> None:
    """Wrong sizes, labels, encodings and requests; other sites; no token; too large bodies."""
    labels = shown(client, job, tmp_path)
    address = f"/api/jobs/{job}/edit/save"
    ask(client, job, "open", {"window": "a"})
    good = {"window": "a", "seconds": 1}
    for wanted, voxels in ((good, labels[1:]), (good, labels * 0 + 3), ({**good, "seconds": -1}, labels)):
        assert ask(client, job, "save", wanted, voxels).status_code == 422, wanted
    for text in ("[]", "{", "{" * 1990, json.dumps({**good, "seconds": "many"})):
        answer = client.post(address, params={"request": text}, content=gzip.compress(labels.tobytes()), headers=GZIP)
        assert answer.status_code in (409, 422), text
    params = {"request": json.dumps(good)}
    assert client.post(address, params=params, content=b"not gzip", headers=GZIP).status_code == 422
    assert client.post(address, params=params, content=labels.tobytes()).status_code == 422
    bomb = gzip.compress(bytes(50_000_000), 9)
    assert client.post(address, params=params, content=bomb, headers=GZIP).status_code == 422
    noise = np.random.default_rng(0).bytes(9_000_000)
    assert client.post(address, params=params, content=noise, headers=GZIP).status_code == 413
    other = {**GZIP, "Origin": "http://elsewhere.example"}
    assert client.post(address, params=params, content=b"", headers=other).status_code == 403
    assert client.post(address, params=params, headers={"Authorization": "Bearer no"}).status_code == 401
    assert client.post(f"/api/jobs/{job}/edit/delete", params=params).status_code == 422
    assert client.get(f"/api/jobs/{job}/edit/volumes/..%2Fmask.json").status_code == 404
    assert client.get(f"/api/jobs/{job}/edit/volumes/t9.nii.gz").status_code == 404
    assert client.get(f"/api/jobs/{job}/edited").status_code == 404


def test_a_full_disk_is_said_and_the_last_state_stays(
    client: TestClient, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 507 with the reason; the mask that was saved before can still be downloaded."""
    labels = shown(client, job, tmp_path).copy()
    state = ask(client, job, "open", {"window": "a"}).json()["state"]
    assert ask(client, job, "save", {"window": "a", "state": state}, labels).status_code == 200
    before = client.get(f"/api/jobs/{job}/edited").content

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    labels[:2] = 2
    answer = ask(client, job, "save", {"window": "a", "state": state}, labels)
    assert (answer.status_code, "No space left" in answer.json()["detail"]) == (507, True)
    assert client.get(f"/api/jobs/{job}/edited").content == before


def test_images_with_axes_in_another_order_are_turned_for_the_page(
    client: TestClient, job: str, tmp_path: Path
) -> None:
    """Strokes are drawn on the images, so each of them is sent with its axes as those of the mask."""
    service = client.app.state.service  # type: ignore[attr-defined]
    [name] = [one.name for one in service.store.get(job).images if one.sequence == "t2f"]
    path = next((tmp_path / "jobs" / job / "images").glob(f"{name}.nii*"))
    image = nib.load(path)
    voxels = image.get_fdata()
    nib.save(nib.as_closest_canonical(image), path)
    mask = read_volume(tmp_path / "jobs" / job / "results" / "mask.nii.gz", mask=True)
    images = {one["name"]: one["url"] for one in client.get(f"/api/jobs/{job}/edit/scene").json()["images"]}
    assert {name: "/edit/" in url for name, url in images.items()} == {
        name: name == "t2f" for name in ("t1n", "t1c", "t2w", "t2f")
    }
    (tmp_path / "turned.nii.gz").write_bytes(client.get(images["t2f"]).content)
    turned = read_volume(tmp_path / "turned.nii.gz")
    assert mask.grid.difference(turned.grid) is None
    assert np.array_equal(turned.data[0], voxels)
