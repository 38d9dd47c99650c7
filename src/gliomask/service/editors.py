"""The corrections of masks that are open in browsers, one for each job."""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from gliomask.labels import get_convention
from gliomask.service.ingest import image_path
from gliomask.service.jobs import Job
from gliomask.service.limits import RefusedError
from gliomask.service.request import EDITED, EDITED_FACTS, FACTS, MASK, RESULTS, SCENE, VOLUMES, convention_of
from gliomask.service.store import Store
from gliomask.viewer import Editing, ShownMask, packed
from gliomask.volume import Box, Grid, match_axes, read_grid, read_volume

_MOST_OPEN = 8
"""Masks that are kept in memory. One that is closed is read again with the next request of its page."""


class Editors:
    """The masks that are being corrected. Corrections are saved beside the results of a job, never over them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, Editing] = OrderedDict()
        self._guard = Lock()

    def of(self, job_id: str) -> Editing:
        """Return the correction of a job's mask; it is opened if it is not open.

        Raises:
            RefusedError: 404, there is no such job, or it has no results (yet).
        """
        job = self._store.get(job_id)
        results = self._store.folder_of(job_id) / RESULTS
        if job.volumes_ml is None or not (results / MASK).is_file():
            raise RefusedError(404, "The job has no results (yet).")
        with self._guard:
            if job_id not in self._open:
                self._open[job_id] = _open(job, results)
            self._open.move_to_end(job_id)
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
            return self._open[job_id]

    def forget(self, job_id: str) -> None:
        """Remove a job that was deleted from the memory."""
        with self._guard:
            self._open.pop(job_id, None)

    def content(self, job_id: str, address: str) -> dict[str, Any]:
        """Return the scene for a page that corrects the mask; `address` is the URL of the routes of the correction."""
        editing = self.of(job_id)
        scene: dict[str, Any] = json.loads(_read(editing.original.with_name(SCENE)))
        scene["first_voxel"] = [span.start for span in editing.box]
        mask = scene["masks"][0]
        volumes = saved_volumes(editing.original.parent) or mask["volumes_ml"]
        scene["masks"] = [{**mask, "url": f"{address}/volumes/prediction.nii.gz", "volumes_ml": volumes}]
        for image in scene["images"]:
            if not self._is_drawn_as_it_is(job_id, image["name"]):
                image["url"] = f"{address}/volumes/{image['name']}.nii.gz"
        scene["edit"] = {**editing.content(), "url": f"{address}/"}
        return scene

    def volume(self, job_id: str, name: str) -> bytes:
        """Return the mask as it was saved last, or a sequence with its axes in the order of the mask's.

        Raises:
            RefusedError: 404, the page has no such volume.
        """
        editing = self.of(job_id)
        name = name.removesuffix(".nii.gz")
        if name == editing.mask.name:
            return editing.as_saved()
        try:
            image = read_volume(image_file(self._store.get(job_id), editing.original.parent, name))
        except KeyError:
            raise RefusedError(404, "The job has no such volume.") from None
        return packed(match_axes(image, editing.mask.labels.grid), editing.box)

    def _is_drawn_as_it_is(self, job_id: str, name: str) -> bool:
        """Return whether a sequence's file has its axes in the order of the mask's: only then strokes lie on it."""
        editing, job = self.of(job_id), self._store.get(job_id)
        if job.raw:
            return True  # its volumes were written on the grid of the mask
        grid, _ = read_grid(image_file(job, editing.original.parent, name))
        return editing.mask.labels.grid.difference(grid) is None


def image_file(job: Job, results: Path, name: str) -> Path:
    """Return the file of a sequence as the viewer shows it.

    Raises:
        KeyError: The job has no such sequence.
    """
    for image in job.images:
        if image.sequence is not None and image.sequence == name:
            return results / VOLUMES / f"{name}.nii.gz" if job.raw else image_path(results.parent, image.name)
    raise KeyError(name)


def saved_volumes(results: Path) -> dict[str, float] | None:
    """Return the volumes of the corrected mask in mL by region, or None if there is no correction."""
    if not (results / EDITED).is_file():
        return None
    try:
        regions = json.loads(_read(results / EDITED_FACTS))["regions"]
        return {name: float(one["ml_after"]) for name, one in regions.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _open(job: Job, results: Path) -> Editing:
    convention = get_convention(convention_of(results / FACTS) or "brats2021")
    labels = read_volume(results / MASK, mask=True)
    mask = ShownMask("prediction", "prediction", "prediction", labels, convention)
    box = _box(results) if job.raw else tuple(slice(0, size) for size in labels.grid.shape)
    assert len(box) == 3
    image_of = partial(_voxels, job, results, None if job.raw else labels.grid)
    return Editing(job.title, mask, box, image_of, results / MASK, results / EDITED)


def _box(results: Path) -> Box:
    """Return the part of the grid that the volumes of a raw job show."""
    first = json.loads(_read(results / SCENE))["first_voxel"]
    grid, _ = read_grid(results / VOLUMES / "prediction.nii.gz")
    x, y, z = (slice(start, start + size) for start, size in zip(first, grid.shape, strict=True))
    return (x, y, z)


def _voxels(job: Job, results: Path, grid: Grid | None, name: str) -> NDArray[Any]:
    """Return a sequence in the order of the mask's axes, which `grid` has unless the file has that order already."""
    image = read_volume(image_file(job, results, name))
    voxels: NDArray[Any] = (match_axes(image, grid) if grid else image).data[0]
    return voxels


def _read(path: Path) -> str:
    return path.read_text("utf-8")
