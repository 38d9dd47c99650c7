"""Cases prepared once, kept as arrays that are mapped into memory: what training reads."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from gliomask.cases import Case, Problem, Source, find_patient, read_case, read_mask
from gliomask.errors import InputError
from gliomask.execution import HERE, Where, map_cases
from gliomask.files import clear_partials, one_writer, replacing, write_text
from gliomask.inference.preprocessing import Framed, Moments, channel_moments, frame, onto_plan
from gliomask.labels import count_labels, get_convention, to_regions
from gliomask.model.plan import Plan, plan_from_dict, plan_to_dict
from gliomask.training.own_files import describe_error, read_json, reading

log = logging.getLogger(__name__)

# The version of the stored format; cases in a cache of another version are prepared again.
_FORMAT = 3
# The number of voxels stored for each region, to centre patches on: as many as a long training draws, in 12 kB.
_MOST_PLACES = 2048
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CachedCase:
    """One prepared case on the disk. Arrays are memory-mapped: using a patch reads only that patch."""

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
    """The voxels of each region in the whole mask."""
    outside: Mapping[str, int]
    """The voxels of each region outside the brain's bounding box, where every sequence is zero."""
    files: Mapping[str, tuple[str, int | None]]
    """The files it was made from: for each sequence, and for `mask`, the path and the channel in the file."""
    patient_rule: str = ""
    """The rule by which the patient was found; see `Case`."""

    @property
    def known(self) -> tuple[str, ...]:
        """The regions that the mask labels; `voxels`, `outside` and `places` hold no other."""
        return get_convention(self.convention).known

    def image(self) -> NDArray[Any]:
        """Return the sequences, `(C, x, y, z)`, with their original intensities: int16 if they fit, else float32.

        Raises:
            InputError: The file is damaged; likewise for `labels` and `places`.
        """
        return _mapped(self.folder / "image.npy", (len(self.modalities), *self.shape), (np.int16, np.float32))

    def labels(self) -> NDArray[np.uint8]:
        """Return the mask, `(x, y, z)`, in the numbers of `convention`."""
        return _mapped(self.folder / "labels.npy", self.shape, (np.uint8,))

    def places(self) -> dict[str, NDArray[np.int16]]:
        """Return some voxels of each region, `(n, 3)`, to centre a patch on; regions without voxels are left out."""
        path = self.folder / "places.npz"
        with reading(path, _remedy(self.folder)), path.open("rb") as file, np.load(file) as stored:
            places: dict[str, NDArray[np.int16]] = {region: stored[region] for region in stored.files}
            for region, voxels in places.items():
                if voxels.dtype != np.int16 or voxels.ndim != 2 or voxels.shape[1] != 3 or not len(voxels):
                    raise ValueError(f"{region}: expected int16 voxels (n, 3); got {voxels.dtype} {voxels.shape}")
                if voxels.min() < 0 or np.any(voxels.max(axis=0) >= self.shape):
                    raise ValueError(f"{region}: a voxel lies outside the grid {self.shape}")
        return places

    def case(self) -> Case:
        """Return the case as it was found; its files may have moved since."""
        images = {name: Source(Path(path), channel) for name, (path, channel) in self.files.items() if name != "mask"}
        return Case(self.id, images, Path(self.files["mask"][0]), self.convention, self.patient)


def build_cache(
    cases: Sequence[Case],
    folder: Path,
    plan: Plan,
    *,
    threads: int | None = None,
    on_case: Callable[[str], None] = lambda _: None,
    where: Where = HERE,
) -> tuple[list[CachedCase], list[Problem]]:
    """Prepare cases into a folder, one sub-folder each, and return them in their order with those that failed.

    A case that has already been prepared from the same files for the same plan is kept, so an interrupted preparation
    continues where it stopped. Whatever error one case causes, the others are prepared. A case that has changed and
    cannot be prepared any more is no longer in the cache; cases that are not given stay in it (`further_cases`).

    Args:
        cases: With masks and conventions (see `resolve_conventions`).
        folder: Made if it does not exist.
        plan: Its sequences, orientation and spacing are used; nothing else of it matters here.
        threads: Number of cases processed at the same time; by default one per core.
        on_case: Called with the id after each case, for a progress bar.
        where: Where the cases are prepared.

    Raises:
        InputError: The folder holds a cache for other sequences, orientation or spacing, cannot be written to, or
            another process is preparing cases into it.
    """
    with one_writer(folder):
        for place in {left.parent for left in folder.rglob(".partial-*")}:  # of processes that were killed
            clear_partials(place)
        _claim(folder, plan)
        made: dict[str, CachedCase | Problem] = {}
        make = partial(_make_or_error, folder=folder, plan=plan)
        for case, found in map_cases(make, cases, replace(where, at_once=threads)):
            made[case.id] = Problem(case.id, str(found)) if isinstance(found, InputError) else found
            on_case(case.id)
    done = [each for case in cases if isinstance(each := made[case.id], CachedCase)]
    return done, [problem for case in cases if isinstance(problem := made[case.id], Problem)]


def is_cache(folder: Path) -> bool:
    """Tell whether the folder was made by `build_cache`."""
    return (folder / "cache.json").is_file()


def cache_plan(folder: Path) -> Plan:
    """Return the plan that a cache was made for; only its sequences, orientation and spacing are meaningful.

    Raises:
        InputError: The folder is not a cache, or it is damaged.
    """
    path = folder / "cache.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a cache (no cache.json). Make one with gliomask prepare.")
    remedy = "Make the cache again with gliomask prepare."
    stored = read_json(path, remedy)
    with reading(path, remedy):
        return plan_from_dict(stored, str(path))


def open_cache(folder: Path, plan: Plan) -> list[CachedCase]:
    """Return the cases of a cache, sorted by id.

    The cache may have more sequences than the plan; these are not read.

    Raises:
        InputError: The folder is not a cache, a case in it is damaged, or the cache lacks a sequence of the plan or was
            made for another orientation or spacing.
    """
    _check_settings(folder, plan, more=True)
    modalities = cache_plan(folder).modalities
    cases = [_read_cached(path.parent, modalities) for path in sorted(folder.glob("*/case.json"))]
    if not cases:
        raise InputError(f"{folder}: the cache is empty. Make it again with gliomask prepare.")
    return cases


def further_cases(folder: Path, ids: Collection[str]) -> list[str]:
    """Return the ids of the cases in a cache that are not among those given, sorted."""
    return sorted({path.parent.name for path in folder.glob("*/case.json")} - set(ids))


def forget_cases(folder: Path, ids: Collection[str]) -> None:
    """Take cases out of a cache, so that `open_cache` does not return them; their arrays stay until it is removed."""
    with one_writer(folder):
        for case in ids:
            (folder / case / "case.json").unlink(missing_ok=True)


def _claim(folder: Path, plan: Plan) -> None:
    """Make the folder a cache for this plan, or check that it already is one."""
    path = folder / "cache.json"
    if not path.is_file():
        write_text(path, json.dumps(plan_to_dict(plan), indent=2) + "\n")
    _check_settings(folder, plan)


def _check_settings(folder: Path, plan: Plan, *, more: bool = False) -> None:
    """Refuse a cache of another kind; with `more` it may have more sequences than the plan, in any order."""
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


def _make_or_error(case: Case, *, folder: Path, plan: Plan) -> CachedCase | Problem:
    try:
        return _make(case, folder / case.id, plan)
    except InputError as error:
        return Problem(case.id, str(error).removeprefix(f"{case.id}: "))
    except Exception as error:  # whatever is wrong with one case, the others are prepared
        log.debug("%s", case.id, exc_info=True)
        return Problem(case.id, f"cannot be prepared: {describe_error(error)}")


def _make(case: Case, folder: Path, plan: Plan) -> CachedCase:
    try:
        stamp = _stamp(case, plan)
        if _stored_stamp(folder) == stamp:
            with suppress(InputError):  # a damaged case is prepared again
                return _of_patient(_read_cached(folder, plan.modalities), case, stamp)
    except InputError:  # a file of the case is gone
        (folder / "case.json").unlink(missing_ok=True)
        raise
    (folder / "case.json").unlink(missing_ok=True)  # what was prepared from other files is not used any more
    volume = read_case(case, plan.modalities)
    mask = read_mask(case, volume.grid)
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
        patient_rule=case.patient_rule,
    )
    _write(facts, framed, labels[x, y, z], dict(zip(regions, inside, strict=True)), stamp)
    return facts


def _write(
    facts: CachedCase, framed: Framed, labels: NDArray[np.uint8], regions: Mapping[str, NDArray[np.bool_]], stamp: str
) -> None:
    folder = facts.folder
    with replacing(folder / "image.npy") as path:
        np.save(path, np.ascontiguousarray(_compact(framed.data)))
    with replacing(folder / "labels.npy") as path:
        np.save(path, np.ascontiguousarray(labels))
    with replacing(folder / "places.npz") as path:
        places: dict[str, Any] = {name: _some_places(mask) for name, mask in regions.items() if mask.any()}
        np.savez(path, **places)
    _write_facts(facts, stamp)  # last, as it marks the case as complete


def _write_facts(facts: CachedCase, stamp: str) -> None:
    fields = {key: value for key, value in asdict(facts).items() if key != "folder"}
    write_text(facts.folder / "case.json", json.dumps(fields | {"stamp": stamp}))


def _of_patient(stored: CachedCase, case: Case, stamp: str) -> CachedCase:
    """Return a stored case as one of the patient that is known now, and store that if it has changed."""
    current = replace(stored, patient=case.patient, patient_rule=case.patient_rule)
    if current != stored:
        _write_facts(current, stamp)
    return current


def _files(case: Case) -> dict[str, tuple[str, int | None]]:
    files = {name: (str(source.path.resolve()), source.channel) for name, source in case.images.items()}
    return files | ({"mask": (str(case.mask.resolve()), None)} if case.mask else {})


def _compact(data: NDArray[Any]) -> NDArray[Any]:
    """Return the data as int16 if the values fit, as those of BraTS do, to halve what is read; else as float32."""
    limits = np.iinfo(np.int16)
    if np.issubdtype(data.dtype, np.integer) and data.min() >= limits.min and data.max() <= limits.max:
        return data.astype(np.int16)
    return data.astype(np.float32)


def _some_places(mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    flat = np.flatnonzero(mask)
    if len(flat) > _MOST_PLACES:  # spread evenly over the region, and the same ones each time
        flat = flat[np.linspace(0, len(flat) - 1, _MOST_PLACES).astype(int)]
    return np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int16)


def _read_cached(folder: Path, modalities: Sequence[str]) -> CachedCase:
    """Return a prepared case whose facts and arrays fit together; those of version 0.1 have no rule of the patient."""
    path = folder / "case.json"
    fields = read_json(path, _remedy(folder))
    with reading(path, _remedy(folder)):
        case: CachedCase = TypeAdapter(CachedCase).validate_python(fields | {"folder": folder})
        _check(case, modalities)
    for read in (case.image, case.labels, case.places):
        read()
    if "patient_rule" in fields:
        return case
    found = find_patient(case.id)
    return replace(case, patient=found.patient, patient_rule=found.rule)


def _check(case: CachedCase, modalities: Sequence[str]) -> None:
    """Raise a ValueError if the facts about a case do not fit together."""
    regions = get_convention(case.convention).regions
    numbers = [number for moments in case.moments for number in asdict(moments).values()]
    faults = {
        f"the case is named {case.id}, but its folder {case.folder.name}": case.id != case.folder.name,
        f"the sequences are {case.modalities}, not {tuple(modalities)}": case.modalities != tuple(modalities),
        "each sequence needs one entry in `present` and in `moments`": not (
            len(case.modalities) == len(case.present) == len(case.moments)
        ),
        "a standard deviation in `moments` is not positive": not all(
            moments.std > 1 / _LARGEST for moments in case.moments
        ),
        "an intensity in `moments` does not fit float32": not all(abs(number) < _LARGEST for number in numbers),
        f"the shape is {case.shape}": min(case.shape) < 1,
        f"the spacing is {case.spacing_mm}": not all(math.isfinite(mm) and mm > 0 for mm in case.spacing_mm),
        "`voxels` or `outside` lacks a region": not regions.keys() <= case.voxels.keys() & case.outside.keys(),
        "a number of voxels is negative": min([0, *case.voxels.values(), *case.outside.values()]) < 0,
        "`files` lacks the mask": "mask" not in case.files,
    }
    if found := [text for text, wrong in faults.items() if wrong]:
        raise ValueError("; ".join(found))


def _mapped(path: Path, shape: tuple[int, ...], kinds: Sequence[type[np.generic]]) -> NDArray[Any]:
    """Return a stored array without reading its values, which are read when they are used."""
    with reading(path, _remedy(path.parent)):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"expected {expected} {shape}; got {array.dtype} {array.shape}")
        return array


def _remedy(folder: Path) -> str:
    return f"Delete {folder} and prepare the case again."


def _stored_stamp(folder: Path) -> object:
    """Return the stamp of a prepared case, or None if the case is not there or is damaged."""
    with suppress(InputError, LookupError, TypeError):
        return read_json(folder / "case.json", "")["stamp"]
    return None


def _stamp(case: Case, plan: Plan) -> str:
    """Return a digest of the files in their present state, of what each of them is, and of the plan's settings."""
    sources = {name: (source.path, source.channel) for name, source in case.images.items()}
    sources |= {"mask": (case.mask, None)} if case.mask else {}
    facts = sorted([name, str(path), channel, *_size_and_time(path)] for name, (path, channel) in sources.items())
    text = json.dumps([_FORMAT, facts, case.convention, plan.model_dump(mode="json", include=set(_settings(plan)))])
    return hashlib.sha256(text.encode()).hexdigest()


def _size_and_time(path: Path) -> Iterator[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    yield from (status.st_size, status.st_mtime_ns)
