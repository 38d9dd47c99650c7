"""Shared by the tests of the service: small images, a substitute for the worker process, and an application."""

from __future__ import annotations

import gzip
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from conftest import AFFINE, nested_ellipsoids

SECRET = "a-token-that-is-long-enough"
HERE = "http://127.0.0.1:8000"

# Follows the protocol of gliomask.service.worker; the title of the job chooses what it does.
_STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
request = json.loads(sys.stdin.readline())
title, folder = request["case_id"], Path(request["folder"])
def emit(**message): print(json.dumps(message), flush=True)
emit(stage="start")
if title == "cut": print('{"sta', flush=True); os.kill(os.getpid(), signal.SIGKILL)
if title == "crash": os.kill(os.getpid(), signal.SIGKILL)
if title == "fail": emit(failed="image-1: is not good."); sys.exit()
if title.startswith("odd"): os.write(1, bytes.fromhex(title.split()[1]) + b"\\n")
emit(stage="predict", share=0.5)
if title.startswith("slow"): sys.stdin.read(); sys.exit()
if title == "closed": os.close(1); time.sleep(600)
if not request["only_report"]:
    results = folder / "results-partial"
    results.mkdir()
    for name in ("mask.nii.gz", "mask.json", "mask_probabilities.nii.gz", "scene.json"):
        (results / name).write_text("{}")
    results.rename(folder / "results")
    emit(ready={"volumes_ml": {"WT": 1.5}, "warnings": []})
emit(stage="report")
if title.startswith("late") and not request["only_report"]: sys.stdin.read(); sys.exit()
if title == "no report" and not request["only_report"]: emit(failed="no room for it."); sys.exit()
(folder / "report.html").write_text("<!doctype html>")
emit(done=True)
"""
STAND_IN = (sys.executable, "-c", _STAND_IN)


def nifti(
    modality: str = "t1c", *, names: str = "", shape: tuple[int, int, int] = (24, 28, 20), kind: Any = None
) -> bytes:
    """Return a small image as the content of a `.nii` file; `names` is written to all fields for free text."""
    images, _ = nested_ellipsoids(1, shape)
    image = (kind or nib.Nifti1Image)(images[modality], AFFINE)
    if names:
        image.header["descrip"] = names
        image.header["aux_file"] = names[:23]
        image.header["intent_name"] = names[:15]
        if kind is None:
            image.header["db_name"] = names[:17]
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", names.encode() * 3))
    return bytes(image.to_bytes())


def four(**options: Any) -> dict[str, bytes]:
    """Return the four images of one examination by file name, gzipped."""
    spelled = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
    return {f"x_{word}.nii.gz": gzip.compress(nifti(name, **options), 1) for name, word in spelled.items()}


def as_files(files: Mapping[str, bytes], field: str = "files") -> list[tuple[str, tuple[str, bytes]]]:
    """Return files in the form that httpx expects."""
    return [(field, (name, content)) for name, content in files.items()]


def zipped(entries: Mapping[str, bytes], **options: Any) -> bytes:
    """Return a zip of these entries."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return content.getvalue()


def build(folder: Path, *, token: str | None = None, command: tuple[str, ...] = STAND_IN, **limits: Any) -> Any:
    """Return an application with a store in a folder and the substitute for the worker process."""
    from gliomask.model.file import read_plan
    from gliomask.service.app import create_app
    from gliomask.service.limits import Limits
    from gliomask.service.queue import Queue
    from gliomask.service.routing import Service
    from gliomask.service.security import AccessPolicy, Token
    from gliomask.service.store import Store

    store = Store(folder, Limits(**limits))
    access = AccessPolicy(Token.of(token) if token else None, port=8000)
    return create_app(Service(store, Queue(store, command=command), (read_plan(),)), access)


def wait_for(found: Callable[[], Any], what: str = "", seconds: float = 60) -> Any:
    """Wait until a function returns a true value, and return that value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what or found}")


def state_of(client: Any, job_id: str) -> str:
    return str(client.get(f"/api/jobs/{job_id}").json()["state"])


def wait_for_state(client: Any, job_id: str, *states: str, seconds: float = 60) -> dict[str, Any]:
    wait_for(lambda: state_of(client, job_id) in states, f"{states}", seconds)
    return dict(client.get(f"/api/jobs/{job_id}").json())


def finished_job(client: Any, folder: Path, files: Mapping[str, bytes] | None = None) -> str:
    """Return a job of the store in a folder that is done, whose mask is that of the phantom."""
    from gliomask.cases import Case, Source
    from gliomask.viewer import read_scene, scene_content

    answer = client.post("/api/jobs", files=as_files(files or four()), data={"title": "one two", "start": "true"})
    job_id = str(answer.json()["id"])
    found = wait_for_state(client, job_id, "done")
    job = folder / "jobs" / job_id
    tissues = nested_ellipsoids(1, (24, 28, 20))[1]
    labels = np.where(tissues == 3, 4, tissues).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, AFFINE), job / "results" / "mask.nii.gz")
    (job / "results" / "mask.json").write_text(json.dumps({"labels": {"convention": "brats2021"}}))
    images = {
        image["sequence"]: Source(next((job / "images").glob(f"{image['name']}.nii*"))) for image in found["images"]
    }
    scene = read_scene(Case("one two", images), [job / "results" / "mask.nii.gz"])
    content = scene_content(scene, f"/api/jobs/{job_id}/volumes/")
    (job / "results" / "scene.json").write_text(json.dumps(content))
    return job_id


def arrays_equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and np.array_equal(first, second)
