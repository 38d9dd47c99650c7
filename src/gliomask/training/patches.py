"""Random patches of cached cases; the same seed and number always give the same patch."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliomask.execution import ahead
from gliomask.inference.preprocessing import normalize, scale_of
from gliomask.labels import get_convention, to_regions
from gliomask.model.plan import Plan
from gliomask.training.augment import (
    Augmentation,
    apply_histogram_mix,
    apply_lesion_contrast,
    apply_transplant,
    augment,
    drop_modalities,
    keep_one_modality,
    sample_histogram_mix,
    sample_lesion_contrast,
    sample_transplant,
)
from gliomask.training.cache import CachedCase
from gliomask.training.config import TrainConfig
from gliomask.training.distributed import ProcessGroup

Size = tuple[int, int, int]

# Two of three patches are centred on tumour, as in nnU-Net and the winning entries of BraTS; the third can be anywhere,
# so that the network also learns the rest of the brain.
_ON_TUMOUR = 2 / 3
# One voxel in 64 of each sequence, which is enough for a histogram.
_COARSE = np.s_[:, ::4, ::4, ::4]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn from cases."""

    size: Size | None
    """None: the whole brain, its box rounded up to a multiple of `multiple`."""
    augmentation: Augmentation | None
    drop_modalities: float
    """The probability of removing each sequence from a patch; never all of them."""
    seed: int
    multiple: int = 1
    transplant: float = 0.0
    """The probability that a patch receives the tumour that another case has at the same place of its brain."""
    histograms: float = 0.0
    """The probability that a patch's intensities are moved towards those of another case."""
    lesion_contrast: float = 0.0
    """The probability that the contrast of a region to its surroundings is lowered or raised."""
    lone_modality: float = 0.0
    """The probability that a patch keeps only one sequence; otherwise `drop_modalities` applies to each."""
    partial_share: float | None = None
    """The fraction of an epoch's patches from partly labelled cases; None: each case is used once."""


def patch_settings(config: TrainConfig, plan: Plan, divisor: int) -> PatchSettings:
    """Return how patches are drawn for a config.

    Args:
        config: The config of the run.
        plan: Its patch size is used, unless whole brains are drawn.
        divisor: The edges of whole brains are rounded up to multiples of it, as the network needs.
    """
    changes = Augmentation().times(config.augment) if config.augment or config.thick_slices else None
    if changes is not None:
        changes = replace(changes, thick_scan_probability=config.thick_slices)
    return PatchSettings(
        None if config.whole_brain else plan.patch_size,
        changes,
        config.drop_modalities,
        config.seed,
        multiple=divisor,
        transplant=config.transplant,
        histograms=config.histograms,
        lesion_contrast=config.lesion_contrast,
        lone_modality=config.lone_modality,
        partial_share=config.partial_share,
    )


@dataclass(frozen=True)
class Batch:
    """The patches of one process in one step, on its GPU if it has one."""

    images: Tensor
    """`(B, C, X, Y, Z)` float32."""
    targets: Tensor
    """`(B, R, X, Y, Z)` bool."""
    known: Tensor
    """`(B, R)` bool, on the CPU: the regions that each patch's target labels."""
    cases: tuple[str, ...]
    """The id of the case that each patch is from."""


class Patches:
    """An endless sequence of batches: `patches[step]` depends only on the settings and the step.

    An epoch uses every case once, in random order. With a `partial_share` it uses every case whose mask labels all
    regions once, and as many of the others as that fraction requires (`Order`). The `batch_size` patches of a step are
    shared among the processes of `group`; they are the same patches for any number of processes.

    On a GPU, augmentation also runs on the GPU, because a CPU core needs a third of a second for each patch and would
    be too slow.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        plan: Plan,
        settings: PatchSettings,
        batch_size: int,
        group: ProcessGroup = ProcessGroup(),  # noqa: B008 (frozen)
    ) -> None:
        self.cases = list(cases)
        self.order = Order(
            [is_fully_labelled(case, plan) for case in self.cases], settings.partial_share, settings.seed
        )
        self.plan = plan
        self.settings = settings
        self.batch_size = batch_size
        self.group = group
        self.device = group.device if group.device.type == "cuda" else torch.device("cpu")
        self._own = threading.local()

    def __getitem__(self, step: int) -> Batch:
        """Return this process's part of a step."""
        numbers = self.group.share(range(step * self.batch_size, (step + 1) * self.batch_size))
        if self.device.type == "cpu":
            return self._draw_all(numbers)
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._own.stream):  # runs in parallel to the network
            batch = self._draw_all(numbers)
        self._own.stream.synchronize()
        return batch

    def ahead(self, start: int, workers: int = 1) -> Generator[Batch, None, None]:
        """Yield the batches from `start` on, drawn in threads while earlier ones are used. Close it at the end.

        Threads share memory, so nothing is copied between processes and no shared memory is needed.
        """
        with closing(ahead(self.__getitem__, count(start), workers, "patches")) as batches:
            for batch in batches:
                yield self._handed_over(batch)

    def _handed_over(self, batch: Batch) -> Batch:
        """Prevent a worker's stream from reusing the batch's memory while the network still reads it."""
        if self.device.type == "cuda":
            for tensor in (batch.images, batch.targets):
                tensor.record_stream(torch.cuda.current_stream(self.device))
        return batch

    def _draw_all(self, numbers: Sequence[int]) -> Batch:
        images, targets, cases = zip(*map(self._draw, numbers), strict=True)
        known = torch.tensor([[region in case.known for region in self.plan.regions] for case in cases])
        return Batch(torch.stack(images), torch.stack(targets), known, tuple(case.id for case in cases))

    def _draw(self, number: int) -> tuple[Tensor, Tensor, CachedCase]:
        seed = self.settings.seed
        case = self.cases[self.order[number]]
        drawn = np.random.default_rng([seed, 2, number])
        size = self.settings.size or _around(case.shape, self.settings.multiple)
        start = choose_place(case, self.plan, size, drawn)
        data, regions = cut_patch(case, self.plan, start, size, self.device)
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, 3, number]).integers(2**62)))
        transplant = sample_transplant(generator, self.settings.transplant) if self.settings.transplant else None
        if transplant is not None:
            donors = self._donors(case)
            donor = donors[int(drawn.integers(len(donors)))]
            there = start + (np.array(donor.shape) - np.array(case.shape)) // 2  # aligns the centres of the brains
            donated = cut_patch(donor, self.plan, there, size, self.device)
            data, regions = apply_transplant((data, regions), donated, transplant)
        if self.settings.lesion_contrast:
            data, regions = self._change_lesion(data, regions, generator)
        if self.settings.histograms:
            data = self._mix_histograms(data, generator, drawn)
        if self.settings.augmentation is not None:
            data, regions = augment(data, regions, generator, self.settings.augmentation)
        if self.settings.lone_modality:
            data = keep_one_modality(data, generator, self.settings.lone_modality)
        return drop_modalities(data, generator, self.settings.drop_modalities), regions, case

    def _donors(self, host: CachedCase) -> list[CachedCase]:
        """Return the cases that have every sequence of the host and every region that its mask labels.

        A tumour must appear in all sequences of the host, and a region that the donor's mask does not label would
        invalidate the labels of the host. The host itself is always included.
        """
        regions = set(self.plan.regions) & set(host.known)
        sequences = _present(host, self.plan)
        return [case for case in self.cases if regions <= set(case.known) and sequences <= _present(case, self.plan)]

    def _change_lesion(self, data: Tensor, regions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        enhancing = None
        if "ET" in self.plan.regions and "t1c" in self.plan.modalities:
            enhancing = self.plan.regions.index("ET"), self.plan.modalities.index("t1c")
        present = [index for index, region in enumerate(regions) if region.any()]
        change = sample_lesion_contrast(generator, self.settings.lesion_contrast, present, len(data), enhancing)
        return (data, regions) if change is None else apply_lesion_contrast(data, regions, change)

    def _mix_histograms(self, data: Tensor, generator: torch.Generator, drawn: np.random.Generator) -> Tensor:
        mix = sample_histogram_mix(generator, self.settings.histograms, len(data))
        if mix is None:
            return data
        donor = self.cases[int(drawn.integers(len(self.cases)))]
        coarse = np.ascontiguousarray(donor.image()[_COARSE])
        return apply_histogram_mix(data, _normalized(donor, self.plan, coarse, self.device), mix)


class Order:
    """The case of each patch: `order[number]` is the position in the list of cases for the patch of that number.

    Args:
        whole: For each case, whether its mask labels all regions.
        share: The fraction of an epoch's patches from the other cases; None: each case is used once. It has no effect
            if there are cases of one kind only.
        seed: The seed of the random orders.
    """

    def __init__(self, whole: Sequence[bool], share: float | None, seed: int) -> None:
        self._seed = seed
        self._always = np.flatnonzero(whole)
        self._in_turns = np.flatnonzero(~np.array(whole, bool))
        if share is None or not len(self._always) or not len(self._in_turns):
            self._always, self._in_turns = np.arange(len(whole)), np.arange(0)
        count = len(self._always) * (share or 0) / (1 - (share or 0))
        self._turns = max(1, round(count)) if len(self._in_turns) else 0

    def __len__(self) -> int:
        """Return the number of patches in an epoch that has one patch of each fully labelled case."""
        return len(self._always) + self._turns

    def __getitem__(self, number: int) -> int:
        epoch, place = divmod(number, len(self))
        cases = np.concatenate([self._always, [self._turn(epoch * self._turns + i) for i in range(self._turns)]])
        return int(cases[np.random.default_rng([self._seed, 1, epoch]).permutation(len(cases))[place]])

    def _turn(self, number: int) -> int:
        """Return the partly labelled case of this number; all are used in random order before any is repeated."""
        times, place = divmod(number, len(self._in_turns))
        return int(
            self._in_turns[np.random.default_rng([self._seed, 4, times]).permutation(len(self._in_turns))[place]]
        )


def repeated(cases: Sequence[CachedCase], times: int) -> list[CachedCase]:
    """Return the cases, with those repeated that have no ET or whose ET is smaller than a fiftieth of their TC.

    A case without TC has no ET either and is repeated. A case whose mask does not label both regions is not.
    """

    def is_faint(case: CachedCase) -> bool:
        enhancing, core = case.voxels.get("ET", 0), case.voxels.get("TC", 0)
        return {"TC", "ET"} <= set(case.known) and (not enhancing or 50 * enhancing < core)

    counts = (times if is_faint(case) else 1 for case in cases)
    return [case for case, count in zip(cases, counts, strict=True) for _ in range(count)]


def is_fully_labelled(case: CachedCase, plan: Plan) -> bool:
    """Tell whether the case's mask labels all regions of the plan."""
    return set(plan.regions) <= set(case.known)


def choose_place(case: CachedCase, plan: Plan, size: Size, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the first voxel of a patch in the brain's box; two of three patches contain tumour near their centre.

    For such a patch, one of the plan's regions that the case has is drawn with equal probability, and then one of its
    voxels, so that a small enhancing region is drawn as often as a large oedema. Along an axis where the box is larger
    than the patch, the patch lies inside the box; otherwise it is centred on the box.
    """
    shape = np.array(case.shape)
    room = shape - size
    places = case.places()
    on_tumour = generator.random() < _ON_TUMOUR
    uniform = generator.random(3)
    regions = [region for region in plan.regions if region in places]
    start = np.floor(uniform * (np.maximum(room, 0) + 1)).astype(np.int64)
    if on_tumour and regions:
        choices = places[regions[int(generator.integers(len(regions)))]]
        centre = choices[int(generator.integers(len(choices)))].astype(np.int64)
        shift = (uniform - 0.5) * np.array(size) / 2  # the tumour is anywhere in the inner half of the patch
        start = np.clip(np.round(centre + shift - np.array(size) / 2), 0, np.maximum(room, 0)).astype(np.int64)
    return np.where(room < 0, room // 2, start)


def cut_patch(
    case: CachedCase, plan: Plan, start: NDArray[np.int64], size: Size, device: torch.device = _CPU
) -> tuple[Tensor, Tensor]:
    """Return a normalized patch `(C, *size)` and its regions `(R, *size)`; both are 0 outside the brain's box."""
    data = _normalized(case, plan, _cut(case.image(), start, size), device)
    mask = _cut(case.labels()[None], start, size)[0]
    convention = get_convention(case.convention)
    if device.type == "cpu":
        return data, torch.from_numpy(to_regions(mask, convention, plan.regions))
    meanings = torch.from_numpy(to_regions(np.arange(256, dtype=np.uint8), convention, plan.regions)).to(device)
    return data, meanings[:, torch.from_numpy(mask).to(device).int()]


def _present(case: CachedCase, plan: Plan) -> set[str]:
    """Return the plan's sequences that the case has."""
    return {
        name for name, there in zip(case.modalities, case.present, strict=True) if there and name in plan.modalities
    }


def _normalized(case: CachedCase, plan: Plan, raw: NDArray[Any], device: torch.device) -> Tensor:
    """Return the plan's sequences of a part of a case, normalized by the moments of the whole case."""
    channels = [case.modalities.index(modality) for modality in plan.modalities]
    moments = [case.moments[channel] for channel in channels]
    if device.type == "cpu":
        return torch.from_numpy(normalize(raw[channels], moments, plan.normalization))
    stored = torch.from_numpy(raw).to(device)[channels].float()
    zeros, factors = torch.tensor([scale_of(each, plan.normalization) for each in moments], device=device).T
    return torch.where(stored == 0, 0.0, (stored - zeros[:, None, None, None]) * factors[:, None, None, None])


def _around(shape: Size, multiple: int) -> Size:
    """Return the smallest size that contains the shape and whose edges are multiples of `multiple`."""
    x, y, z = (-(-edge // multiple) * multiple for edge in shape)
    return x, y, z


def _cut(data: NDArray[Any], start: NDArray[np.int64], size: Size) -> NDArray[Any]:
    """Return `data[:, start:start + size]`, with zeros outside the data."""
    result = np.zeros((len(data), *size), dtype=data.dtype)
    low = np.maximum(start, 0)
    high = np.minimum(start + size, data.shape[1:])
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    to_x, to_y, to_z = (slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    result[:, to_x, to_y, to_z] = data[:, x, y, z]
    return result
