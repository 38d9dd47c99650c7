"""The list of a folder of predictions, made of the masks alone: small pictures, and where tumours lie in an atlas."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliomask.cohort import FAILED, PARQUET, VOLUMES, FolderTable, Row
from gliomask.cohort.table import read_failed
from gliomask.errors import InputError
from gliomask.execution import ahead
from gliomask.figures import PLANES, REGION_COLOURS
from gliomask.inference.record import read_facts
from gliomask.labels import LabelConvention, get_convention, to_regions
from gliomask.report.index import AtlasPicture, IndexEntry, old_pictures, write_index
from gliomask.report.pixels import embed, to_png
from gliomask.volume import NIFTI_ENDINGS, Box, Grid, Volume, bounding_box, read_volume, reorient

if TYPE_CHECKING:
    from gliomask.acquisition.atlas import AtlasName

INDEX = "index.html"
"""The page that lists the cases of a folder."""

_PIXELS = 64
_LEAST_CASES = 3
_SLICES = 8
_GREYS, _HEATS = 96, 128


@dataclass
class _Places:
    """How many tumours cover each voxel of an atlas's grid."""

    atlas: AtlasName
    grid: Grid
    counts: NDArray[np.uint16]
    cases: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, labels: NDArray[np.generic], box: Box | None) -> None:
        with self.lock:
            self.cases += 1
            if box is not None:
                self.counts[box] += labels[box] != 0


def write_cohort_page(table: FolderTable, on_case: Callable[[], object] = lambda: None) -> Path:
    """Write `index.html` into a folder of predictions, and return its path.

    Every mask is read, several at a time, for its small picture and for the picture of where tumours lie, which is
    drawn if at least three masks are on the grid of an atlas (those of BraTS are). Pictures of masks that have not
    changed since `gliomask report` drew them on the images are kept.

    Args:
        table: The folder's table, refreshed.
        on_case: Called after each mask.

    Raises:
        InputError: The page cannot be written.
    """
    folder = table.folder
    pictures = old_pictures(folder / INDEX)
    places = _atlas_places()
    there = {path.name for path in folder.iterdir()}

    def look(stem: str) -> IndexEntry:
        return _entry(folder, there, stem, table.rows[stem], pictures, places)

    entries = []
    for entry in ahead(look, sorted(table.rows, key=lambda stem: str(table.rows[stem]["case"]))):
        entries.append(entry)
        on_case()
    most = max(places, key=lambda each: each.cases)
    write_index(
        entries,
        folder / INDEX,
        atlas=_draw_places(most) if most.cases >= _LEAST_CASES else None,
        failed=[(case, reason) for case, reason, _ in read_failed(folder / FAILED)],
        tables=[name for name in (VOLUMES, PARQUET, FAILED) if name in there],
    )
    return folder / INDEX


def _entry(
    folder: Path, there: set[str], stem: str, row: Row, pictures: dict[str, str], places: list[_Places]
) -> IndexEntry:
    files = (("report", ".html"), ("picture", ".png"), ("quality", "_quality.html"))
    links = tuple((what, stem + ending) for what, ending in files if stem + ending in there and stem + ending != INDEX)
    facts = read_facts(folder / f"{stem}.json") or {}
    warnings = facts.get("warnings")
    texts = tuple(text for text in warnings if isinstance(text, str)) if isinstance(warnings, list) else ()
    picture = ""
    try:
        mask = next(folder / f"{stem}{ending}" for ending in NIFTI_ENDINGS if f"{stem}{ending}" in there)
        volume = reorient(read_volume(mask, mask=True), "LPS")
        convention = get_convention(str(row.get("labels", "brats2021")))
        box = bounding_box(volume.data[0] != 0)
        for place in places:
            if not place.grid.difference(volume.grid):
                place.add(volume.data[0], box)
        picture = pictures.get(str(row.get("mask_sha256"))) or _picture(volume, convention, box)
    except (InputError, StopIteration, MemoryError):  # a damaged mask is told by the commands that use it
        texts = (*texts, "the mask cannot be read")
    return IndexEntry(row, picture, links, texts)


def _picture(volume: Volume, convention: LabelConvention, box: Box | None) -> str:
    """Return the axial slice with most of the tumour, from the mask alone, in the colours of the regions.

    Args:
        volume: The mask in LPS order.
        convention: What its numbers mean.
        box: The box around the tumour; None without one.
    """
    labels = volume.data[0]
    place = labels.shape[2] // 2
    if box is not None:
        place = box[2].start + int(np.count_nonzero(labels[box], axis=(0, 1)).argmax())
    step = max(1, -(-max(labels.shape[:2]) // _PIXELS))
    # Only the voxels of the picture are touched: a slice of the whole would be copied with it.
    cut = PLANES[0].cut(labels[step // 2 :: step, step // 2 :: step, place : place + 1], 0)
    names = tuple(name for name in REGION_COLOURS if name in convention.regions)
    picture = np.zeros(cut.shape, np.uint8)
    for number, region in enumerate(to_regions(cut[None], convention, names), start=1):
        picture[region[0]] = number
    palette = [b"\x10\x10\x10", *(bytes.fromhex(REGION_COLOURS[name][1:]) for name in names)]
    return embed(to_png(picture, palette), "image/png")


def _atlas_places() -> list[_Places]:
    from gliomask.acquisition.atlas import atlas_grid

    names: tuple[AtlasName, ...] = ("sri24", "mni")
    return [_Places(name, atlas_grid(name), np.zeros(atlas_grid(name).shape, np.uint16)) for name in names]


def _draw_places(places: _Places) -> AtlasPicture:
    """Return axial slices of the atlas, every voxel coloured by the share of tumours that cover it."""
    shares = reorient(Volume((places.counts / np.float32(places.cases))[None], places.grid.affine), "LPS").data[0]
    brain = _atlas_brain(places)
    # The slices are spread over what tumours cover.
    covered = np.flatnonzero(shares.any(axis=(0, 1)))
    first, last = (int(covered[0]), int(covered[-1])) if len(covered) else (0, shares.shape[2] - 1)
    heights = np.unique(np.rint(np.linspace(first, last, _SLICES + 2)[1:-1]).astype(int)).tolist()
    most = float(shares.max())
    inside = (brain > 0) | (shares > 0)
    x, y = (np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    box = slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1)
    palette = [bytes([round(150 * level / (_GREYS - 1))] * 3) for level in range(_GREYS)]
    palette += [_heat(level / (_HEATS - 1)) for level in range(_HEATS)]
    slices = []
    for height in heights:
        grey, share = (PLANES[0].cut(each[box], height)[::2, ::2] for each in (brain, shares))
        level = np.rint(share / max(most, 1e-6) * (_HEATS - 1)).astype(int)
        picture = np.where(share > 0, _GREYS + level, np.rint(grey * (_GREYS - 1)).astype(int)).astype(np.uint8)
        at = float((reorient(Volume(places.counts[None], places.grid.affine), "LPS").affine @ [0, 0, height, 1])[2])
        slices.append((embed(to_png(picture, palette), "image/png"), f"z = {at:.0f} mm"))
    names = {"sri24": "SRI24, the space of BraTS until 2023", "mni": "MNI152"}
    return AtlasPicture(names[places.atlas], places.cases, most, tuple(slices))


def _atlas_brain(places: _Places) -> NDArray[np.float32]:
    """Return the atlas's brain in LPS order, scaled to 0..1; all 0 where the atlas is not part of the installation."""
    from gliomask.acquisition.atlas import read_atlas

    try:
        brain = reorient(read_atlas(places.atlas), "LPS").data[0].astype(np.float32)
    except InputError:
        return np.zeros(reorient(Volume(places.counts[None], places.grid.affine), "LPS").data[0].shape, np.float32)
    scaled: NDArray[np.float32] = np.clip(brain / max(float(np.percentile(brain[brain > 0], 99)), 1e-6), 0, 1)
    return scaled


def _heat(share: float) -> bytes:
    """Return the colour of a share: dark red, red, orange, yellow, white."""
    stops = ((70, 0, 20), (190, 20, 20), (245, 130, 10), (255, 220, 60), (255, 255, 225))
    place = share * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    return bytes(round(a + (b - a) * (place - low)) for a, b in zip(stops[low], stops[low + 1], strict=True))
