"""Cases prepared once, kept as arrays that are mapped into memory: what training reads."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomask.cases import Case, Problem, Source, read_case, read_mask, usable_cores
from gliomask.errors import InputError
from gliomask.files import replacing, write_text
from gliomask.inference.preprocessing import Framed, Moments, channel_moments, frame, onto_plan
from gliomask.labels import count_labels, get_convention, to_regions
from gliomask.model.plan import Plan, plan_from_dict, plan_to_dict

log = logging.getLogger(__name__)

# Of what is written; a cache of an older one is made again.
_FORMAT = 2
# Places kept of each region, to centre patches on: as many as a long training draws, for 12 kB a region.
_MOST_PLACES = 2048


@dataclass(frozen=True)
class CachedCase:
    """One prepared case on the disk. Arrays are mapped, not read: touching a patch reads the patch."""

    id: str
    patient: str
    folder: Path
    modalities: tuple[str, ...]
    present: tuple[bool, ...]
    moments: tuple[Moments, ...]
    convention: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels: Mapping[str, int]
    """Of each region in the whole mask."""
    outside: Mapping[str, int]
    """Of each region, those that the brain's box cuts off: every sequence is zero there."""
    files: Mapping[str, tuple[str, int | None]]
    """What it was made from: of each sequence, and of `mask`, the file and the channel in it."""

    @property
    def known(self) -> tuple[str, ...]:
        """The regions that the mask labels; `voxels`, `outside` and `places` hold no other."""
        return get_convention(self.convention).known

    def image(self) -> NDArray[Any]:
        """The sequences, `(C, x, y, z)`, intensities as they came: int16, or float32 where they do not fit that."""
        return np.load(self.folder / "image.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def labels(self) -> NDArray[np.uint8]:
        """The mask, `(x, y, z)`, in the numbers of `convention`."""
        return np.load(self.folder / "labels.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def places(self) -> dict[str, NDArray[np.int16]]:
        """Some voxels of each region, `(n, 3)`, to centre a patch on; regions without a voxel are left out."""
        with np.load(self.folder / "places.npz") as kept:
            return {region: kept[region] for region in kept.files}

    def case(self) -> Case:
        """The case as it was found; its files may have moved since."""
        images = {name: Source(Path(path), channel) for name, (path, channel) in self.files.items() if name != "mask"}
        return Case(self.id, images, Path(self.files["mask"][0]), self.convention)


def build_cache(
    cases: Sequence[Case],
    folder: Path,
    plan: Plan,
    *,
    threads: int | None = None,
    on_case: Callable[[str], None] = lambda _: None,
) -> tuple[list[CachedCase], list[Problem]]:
    """Prepare cases into a folder, one sub-folder each, and return them in their order with those that failed.

    A case that is there already, from the same files and for the same plan, is left as it is; so an interrupted
    preparation goes on where it was.

    Args:
        cases: With masks and conventions (see `resolve_conventions`).
        folder: Made if need be.
        plan: Says which sequences, which orientation and spacing; nothing else of it matters here.
        threads: Cases worked on at once; by default one a core.
        on_case: Called with the id after each case, for a progress bar.

    Raises:
        InputError: The folder holds a cache for other sequences, orientation or spacing, or cannot be written to.
    """
    _claim(folder, plan)
    make = partial(_make_or_error, folder=folder, plan=plan, on_case=on_case)
    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        made = list(pool.map(make, cases))
    done = [case for case in made if isinstance(case, CachedCase)]
    return done, [problem for problem in made if isinstance(problem, Problem)]


def is_cache(folder: Path) -> bool:
    """Tell whether `build_cache` made this folder."""
    return (folder / "cache.json").is_file()


def cache_plan(folder: Path) -> Plan:
    """Return the plan that a cache was made for; only its sequences, orientation and spacing mean anything.

    Raises:
        InputError: It is no cache, or damaged.
    """
    path = folder / "cache.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a cache (no cache.json). Make one with gliomask prepare.")
    try:
        return plan_from_dict(json.loads(path.read_text("utf-8")), str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}. Make the cache again with gliomask prepare.") from error


def open_cache(folder: Path, plan: Plan) -> list[CachedCase]:
    """Return the cases of a cache, sorted by id.

    Raises:
        InputError: It is no cache, a case in it is damaged, it lacks a sequence of the plan's, or it was made for
            another orientation or spacing. What it holds beyond the plan's sequences is left unread.
    """
    _check_settings(folder, plan, more=True)
    cases = [_read_cached(path.parent) for path in sorted(folder.glob("*/case.json"))]
    if not cases:
        raise InputError(f"{folder}: the cache is empty. Make it again with gliomask prepare.")
    return cases


def _claim(folder: Path, plan: Plan) -> None:
    """Make the folder a cache for this plan, or check that it is one."""
    path = folder / "cache.json"
    if not path.is_file():
        write_text(path, json.dumps(plan_to_dict(plan), indent=2) + "\n")
    _check_settings(folder, plan)


def _check_settings(folder: Path, plan: Plan, *, more: bool = False) -> None:
    """Refuse a cache of another kind; with `more` it may hold more sequences than the plan's, in any order."""
    made_for = cache_plan(folder)
    enough = more and set(plan.modalities) <= set(made_for.modalities)
    like = plan.model_copy(update={"modalities": made_for.modalities}) if enough else plan
    if _settings(made_for) != _settings(like):
        raise InputError(
            f"{folder}: holds a cache of {', '.join(made_for.modalities)} ({made_for.axes}, {made_for.spacing_mm} mm); "
            f"{', '.join(plan.modalities)} ({plan.axes}, {plan.spacing_mm} mm) is asked for. Use another folder."
        )


def _settings(plan: Plan) -> dict[str, Any]:
    return plan.model_dump(include={"modalities", "axes", "spacing_mm"})


def _make_or_error(case: Case, *, folder: Path, plan: Plan, on_case: Callable[[str], None]) -> CachedCase | Problem:
    try:
        return _make(case, folder / case.id, plan)
    except InputError as error:
        return Problem(case.id, str(error).removeprefix(f"{case.id}: "))
    finally:
        on_case(case.id)


def _make(case: Case, folder: Path, plan: Plan) -> CachedCase:
    stamp = _stamp(case, plan)
    if _kept_stamp(folder) == stamp:
        return _read_cached(folder)
    mask = read_mask(case)
    volume = read_case(case, plan.modalities)
    if difference := volume.grid.difference(mask.grid):
        raise InputError(f"{case.id}: the grid of {case.mask} differs from that of the images in {difference}.")
    framed = frame(volume, plan)
    for modality, count in zip(plan.modalities, framed.replaced, strict=True):
        if count:
            log.warning(
                "%s: %d voxels of %s far outside the range of all others were replaced", case.id, count, modality
            )
    labels = onto_plan(mask, plan, nearest=True).data[0]
    x, y, z = framed.box
    convention = get_convention(case.convention or plan.convention)
    regions = tuple(convention.regions)
    inside = to_regions(labels[x, y, z], convention, regions)
    counts = count_labels(labels)
    voxels = {name: int(counts[list(values)].sum()) for name, values in convention.regions.items()}
    found = {name: int(np.count_nonzero(mask)) for name, mask in zip(regions, inside, strict=True)}
    facts = CachedCase(
        id=case.id,
        patient=case.patient,
        folder=folder,
        modalities=plan.modalities,
        present=tuple(modality in case.images for modality in plan.modalities),
        moments=tuple(channel_moments(channel) for channel in framed.data),
        convention=convention.name,
        shape=framed.data.shape[1:],
        spacing_mm=framed.grid.spacing_mm,
        voxels=voxels,
        outside={name: voxels[name] - found[name] for name in regions},
        files=_files(case),
    )
    _write(facts, framed, labels[x, y, z], dict(zip(regions, inside, strict=True)), stamp)
    return facts


def _write(
    facts: CachedCase, framed: Framed, labels: NDArray[np.uint8], regions: Mapping[str, NDArray[np.bool_]], stamp: str
) -> None:
    folder = facts.folder
    (folder / "case.json").unlink(missing_ok=True)
    with replacing(folder / "image.npy") as path:
        np.save(path, np.ascontiguousarray(_compact(framed.data)))
    with replacing(folder / "labels.npy") as path:
        np.save(path, np.ascontiguousarray(labels))
    with replacing(folder / "places.npz") as path:
        places: dict[str, Any] = {name: _some_places(mask) for name, mask in regions.items() if mask.any()}
        np.savez(path, **places)
    fields = {key: value for key, value in asdict(facts).items() if key != "folder"}
    write_text(folder / "case.json", json.dumps(fields | {"stamp": stamp}))  # last: its being there says all is


def _files(case: Case) -> dict[str, tuple[str, int | None]]:
    files = {name: (str(source.path.resolve()), source.channel) for name, source in case.images.items()}
    return files | ({"mask": (str(case.mask.resolve()), None)} if case.mask else {})


def _compact(data: NDArray[Any]) -> NDArray[Any]:
    """int16 halves what is read; BraTS's intensities fit it."""
    limits = np.iinfo(np.int16)
    if np.issubdtype(data.dtype, np.integer) and data.min() >= limits.min and data.max() <= limits.max:
        return data.astype(np.int16)
    return data.astype(np.float32)


def _some_places(mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    flat = np.flatnonzero(mask)
    if len(flat) > _MOST_PLACES:  # evenly over the region, the same ones each time
        flat = flat[np.linspace(0, len(flat) - 1, _MOST_PLACES).astype(int)]
    return np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int16)


def _read_cached(folder: Path) -> CachedCase:
    path = folder / "case.json"
    try:
        fields = json.loads(path.read_text("utf-8"))
        moments = tuple(Moments(**moment) for moment in fields.pop("moments"))
        del fields["stamp"]
        lists: dict[str, Any] = {
            key: tuple(fields.pop(key)) for key in ("modalities", "present", "shape", "spacing_mm")
        }
        lists["files"] = {name: tuple(file) for name, file in fields.pop("files").items()}
        return CachedCase(folder=folder, moments=moments, **lists, **fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged or of another version. Delete {folder} and prepare again.") from error


def _kept_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / "case.json").read_text("utf-8"))["stamp"]
    except (OSError, ValueError, KeyError, TypeError):  # not there or damaged: the case is prepared anew
        return None


def _stamp(case: Case, plan: Plan) -> str:
    """A digest of which files, as they are now, for which plan."""
    paths = [*dict.fromkeys(source.path for source in case.images.values()), *([case.mask] if case.mask else [])]
    facts = [[str(path), *_size_and_time(path)] for path in paths]
    text = json.dumps([_FORMAT, facts, case.convention, plan.model_dump(mode="json", include=set(_settings(plan)))])
    return hashlib.sha256(text.encode()).hexdigest()


def _size_and_time(path: Path) -> Iterator[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    yield from (status.st_size, status.st_mtime_ns)
