"""Correct a mask: what a page of the viewer sends is saved beside the original, never over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.files import check_writable, one_writer, write_text
from gliomask.inference.record import digest_of
from gliomask.labels import check_labels, label_values
from gliomask.metrics import Mask, dice
from gliomask.version import VERSION
from gliomask.viewer.operations import Labels, Request, correct, small_pieces, tables
from gliomask.viewer.scene import Scene, ShownMask, packed
from gliomask.volume import Box, Volume, match_axes, read_volume, unreadable, voxel_volume_ml, write_volume

AUTOSAVE_S = 15.0
"""Seconds after the first unsaved change; with the time that saving takes, a crash loses less than 20 seconds."""


ACTS = ("open", "close", "save", "apply")
"""What a page can ask for; see `Editing.answer`."""


class WindowError(Exception):
    """Another window edits the mask, or has changed it since this one read it."""


@dataclass(eq=False)
class Editing:
    """One mask that is being corrected. Its methods may be called by several threads."""

    title: str
    mask: ShownMask
    box: Box
    """The part of the grid that the page has; nothing outside of it changes."""
    image_of: Callable[[str], NDArray[Any]]
    """Returns the voxels of a sequence in the box, or raises a KeyError."""
    original: Path
    target: Path
    by: str = ""
    autosave_s: float = AUTOSAVE_S
    start: Labels = field(init=False)
    """The labels with which the page starts: the original, or what was saved at `target` before."""
    state: str = field(init=False)
    """Identifies the labels that were saved last, so that a page knows whether it has the same."""
    seconds: float = field(init=False, default=0.0)
    saved: str | None = field(init=False, default=None)
    """When the file at `target` was saved, as ISO 8601; empty if it has no record, None if there is no file yet."""
    _digest: str = field(init=False)
    _window: str = field(init=False, default="")
    _since: str = field(init=False, default="")
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        self.start = self.mask.labels.data[0]
        try:
            self._digest = digest_of(self.original.read_bytes())
        except OSError as error:
            raise unreadable(self.original, error) from error
        if self.target.exists():
            self.start, self.seconds, self.saved = self._earlier()
        self.state = self._state()

    @property
    def record_path(self) -> Path:
        """The JSON file beside the mask."""
        return self.target.with_name(f"{self.target.name.removesuffix('.nii.gz')}.json")

    def content(self) -> dict[str, Any]:
        """Return what the page needs, ready for JSON."""
        return {
            "mask": self.mask.name,
            "target": self.target.name,
            "state": self.state,
            "saved": self.saved,
            "autosave_s": self.autosave_s,
            "seconds": round(self.seconds, 1),
            "tables": {
                region: {"add": table.add.tolist(), "remove": table.remove.tolist()}
                for region, table in tables(self.mask.convention).items()
            },
        }

    def as_saved(self) -> bytes:
        """Return the part of the mask that the page has, as it was saved last, as .nii.gz."""
        return packed(Volume(self.start[None], self.mask.labels.affine), self.box)

    def answer(self, name: str, wanted: Mapping[str, Any], content: bytes) -> dict[str, Any] | bytes:
        """Do what a page asks for and return the answer: facts for JSON, or voxels.

        Args:
            name: One of `ACTS`.
            wanted: `window`, and `state` except for open and close; `take` (open), `seconds` and `finish` (save), or
                the fields of `Request` with `operation` and `image` (apply).
            content: The voxels of the page, uncompressed (save and apply).

        Raises:
            WindowError: As for `admit`.
            InputError: As for `save` and `apply`.
        """
        window, state = str(wanted.get("window", ""))[:64], str(wanted.get("state", ""))
        if name == "open":
            return {"state": self.open(window, take=wanted.get("take") is True), "seconds": self.seconds}
        if name == "close":
            self.close(window)
            return {}
        self.admit(window, state)
        if name == "apply":
            return self.apply(content, {key: value for key, value in wanted.items() if key not in ("window", "state")})
        act = self.finish if wanted.get("finish") is True else self.save
        record = act(content, float(wanted.get("seconds", 0)))
        return {**record, "state": self.state}

    def open(self, window: str, *, take: bool = False) -> str:
        """Give a window the right to edit; return the state of the mask. If it has another, it reads the mask again.

        Raises:
            WindowError: Another window has it, unless `take` takes it away from that one.
        """
        with self._lock:
            if self._window and self._window != window and not take:
                raise WindowError(f"Another window edits this mask, since {self._since}.")
            self._give(window)
            return self.state

    def close(self, window: str) -> None:
        """Take the right back when a window is closed."""
        with self._lock:
            if self._window == window:
                self._window = ""

    def admit(self, window: str, state: str) -> None:
        """Check that a window may save. If no window edits, one that has the state that was saved last begins to.

        Raises:
            WindowError: It may not.
        """
        with self._lock:
            if not self._window and window and state == self.state:
                self._give(window)
            if not self._window:
                raise WindowError("The mask was changed by another window; this one saves nothing any more.")
            if window != self._window:
                raise WindowError(
                    f"Another window edits this mask, since {self._since}; this one saves nothing any more."
                )

    def apply(self, content: bytes, wanted: Mapping[str, Any]) -> bytes:
        """Return the voxels after an operation; `wanted` is a `Request` with `operation` and `image`."""
        labels = self._labels(content)
        request = dict(wanted)
        operation, name = str(request.pop("operation", "")), str(request.pop("image", ""))
        if "seed" in request:
            request["seed"] = tuple(int(value) for value in request["seed"])
        spacing = self.mask.labels.grid.spacing_mm
        try:
            parsed = Request(**request)
            # Only these two look at the image, and reading it may take a second.
            image = self.image_of(name) if operation in ("grow", "shrink") else labels
            done = correct(labels, self.mask.convention, operation, parsed, image=image, spacing_mm=spacing)
        except KeyError:
            raise InputError(f"{name!r} is not one of the sequences, so that it has no thresholds.") from None
        except (TypeError, IndexError) as error:
            raise InputError(f"the operation cannot be done: {error}.") from error
        return done.tobytes(order="F")

    def save(self, content: bytes, seconds: float, *, finished: bool = False) -> dict[str, Any]:
        """Write the mask and its record; return the record.

        Raises:
            InputError: The labels are invalid, or the files cannot be written; the last ones are left as they were.
        """
        part = self._labels(content)
        if not 0 <= seconds < float("inf"):
            raise InputError("the seconds spent are a number of at least 0.")
        with self._lock:
            whole = self.start.copy()
            whole[self.box] = part
            write_volume(self.target, Volume(whole[None], self.mask.labels.affine), like=self.original)
            self.start, self.seconds = whole, float(seconds)
            self.state = self._state()
            record = self._record(whole, finished)
            self.saved = record["saved"]
            write_text(self.record_path, json.dumps(record, indent=2) + "\n")
        return record

    def finish(self, content: bytes, seconds: float) -> dict[str, Any]:
        """Save, read the file again, and return the record with `findings`: what a reader should look at."""
        record = self.save(content, seconds, finished=True)
        saved = match_axes(read_volume(self.target, mask=True), self.mask.labels.grid)
        findings = []
        if difference := self.mask.labels.grid.difference(saved.grid):
            findings.append(f"The grid of {self.target.name} differs from the original's in {difference}.")
        check_labels(label_values(saved.data), self.mask.convention, self.target.name)
        regions = {name: self._region(saved.data[0], name) for name in self.mask.convention.regions}
        for outer, inner in (("WT", "TC"), ("TC", "ET")):
            if outer in regions and inner in regions and (regions[inner] & ~regions[outer]).any():
                findings.append(f"{inner} is not inside {outer}.")
        for name, inside in regions.items():
            for size, (x, y, z) in small_pieces(inside):
                findings.append(f"{name} has a piece of {size} voxel{'s' * (size > 1)} at {x} {y} {z}.")
        return {**record, "findings": findings}

    def _give(self, window: str) -> None:
        if self._window != window:
            self._window, self._since = window, datetime.now().astimezone().strftime("%H:%M:%S")

    def _state(self) -> str:
        return hashlib.sha256(self.start[self.box].tobytes()).hexdigest()[:16]

    def _labels(self, content: bytes) -> Labels:
        """Return the labels that a page sent, `(X, Y, Z)` of the box."""
        shape = tuple(span.stop - span.start for span in self.box)
        if len(content) != int(np.prod(shape)):
            raise InputError(f"{len(content)} voxels were sent for a grid of {shape}.")
        labels = np.frombuffer(content, np.uint8).reshape(shape, order="F")
        check_labels(label_values(labels), self.mask.convention, self.target.name)
        return labels

    def _region(self, labels: Labels, name: str) -> Mask:
        inside: Mask = np.isin(labels, sorted(self.mask.convention.regions[name]))
        return inside

    def _record(self, labels: Labels, finished: bool) -> dict[str, Any]:
        before, voxel_ml = self.mask.labels.data[0], voxel_volume_ml(self.mask.labels.affine)
        regions = {}
        for name in self.mask.convention.regions:
            old, new = self._region(before, name), self._region(labels, name)
            regions[name] = {
                "ml_before": round(float(np.count_nonzero(old)) * voxel_ml, 3),
                "ml_after": round(float(np.count_nonzero(new)) * voxel_ml, 3),
                "dice_with_original": round(dice(old, new), 4) if old.any() or new.any() else None,
            }
        return {
            "case": self.title,
            "original": self.original.name,
            "original_sha256": self._digest,
            "labels": {"convention": self.mask.convention.name},  # where `CASE.json` has it too
            **({"by": self.by} if self.by else {}),
            "regions": regions,
            "voxels_changed": int(np.count_nonzero(before != labels)),
            "seconds": round(self.seconds, 1),
            "finished": finished,
            "saved": datetime.now(timezone.utc).isoformat("T", "seconds"),
            "gliomask": VERSION,
        }

    def _earlier(self) -> tuple[Labels, float, str]:
        """Return what was saved before, the seconds spent on it, and when it was saved.

        Without a readable record it is taken for a correction of this mask, and so is one of an older version, which
        has no checksum, if the name of the original is the same.
        """
        saved = match_axes(read_volume(self.target, mask=True), self.mask.labels.grid)
        way_out = "Move it away, or choose another folder with --output."
        if difference := self.mask.labels.grid.difference(saved.grid):
            raise InputError(f"{self.target}: is on another grid than the mask, in {difference}. {way_out}")
        check_labels(label_values(saved.data), self.mask.convention, str(self.target))
        try:
            record = json.loads(self.record_path.read_text("utf-8"))
            if record["original"] != self.original.name:
                raise InputError(f"{self.target}: is a correction of {record['original']}. {way_out}")
            if record.get("original_sha256", self._digest) != self._digest:
                raise InputError(
                    f"{self.target}: is a correction of another mask than {self.original} as it is now: of another "
                    f"folder's mask of that name, or of one that was replaced since. {way_out}"
                )
            return saved.data[0], float(record["seconds"]), str(record.get("saved", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return saved.data[0], 0.0, ""


@contextmanager
def edit_mask(
    scene: Scene, original: Path, folder: Path, *, by: str = "", autosave_s: float = AUTOSAVE_S
) -> Iterator[Editing]:
    """Correct a mask of a scene, saved as `CASE_edited.nii.gz` and `CASE_edited.json` in a folder.

    A correction of the same file that is there already is continued. While the block runs, no other process can edit
    the same files.

    Args:
        scene: The scene.
        original: The file of the mask that is corrected, one of the scene's; it is never written to.
        folder: Where to save.
        by: Who corrects it, for the record; empty for nobody.
        autosave_s: Seconds after the first unsaved change until the page saves it.

    Raises:
        InputError: No mask of the scene was read from the file, the folder cannot be written to, another process edits
            the mask, or there is a correction of another mask: the name or the SHA-256 of its original, or its grid,
            differs.
    """
    mask = next((mask for mask in scene.masks if mask.file and mask.file.resolve() == original.resolve()), None)
    if mask is None:
        raise InputError(f"{original}: is not among the masks that are shown, so that it cannot be edited.")
    target = folder / f"{scene.title}_edited.nii.gz"
    if target.resolve() == original.resolve():
        raise InputError(
            f"{original}: would be overwritten by its own correction. Choose another folder with --output."
        )
    check_writable(folder)
    with one_writer(folder, f"{scene.title}_edited"):
        yield Editing(
            scene.title,
            mask,
            scene.box,
            lambda name: scene.images[name].data[0][scene.box],
            original,
            target,
            by,
            autosave_s,
        )
