"""Cached cases -> random patches; the same seed and number give the same patch, whoever asks and when."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from gliomask.training.distributed import ProcessGroup

Size = tuple[int, int, int]

# Of three patches two are centred on tumour, as nnU-Net and the BraTS winners have it; the third keeps the network
# honest about the rest of the brain.
_ON_TUMOUR = 2 / 3
# One voxel in 64 of each sequence: enough for a histogram.
_COARSE = np.s_[:, ::4, ::4, ::4]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class PatchSettings:
    """How patches are drawn from cases."""

    size: Size | None
    """None: the whole brain, its box rounded up to a `multiple`."""
    augmentation: Augmentation | None
    drop_modalities: float
    """The probability with which each sequence is left out of a patch; never all of them."""
    seed: int
    multiple: int = 1
    transplant: float = 0.0
    """The probability with which a patch gets the tumour that another case has at the same place of its brain."""
    histograms: float = 0.0
    """The probability with which a patch's intensities are moved towards those of another case."""
    lesion_contrast: float = 0.0
    """The probability with which one of a patch's regions stands out less or more from its surroundings."""
    lone_modality: float = 0.0
    """The probability with which a patch keeps one of its sequences only; otherwise each goes by `drop_modalities`."""
    partial_share: float | None = None
    """The share of an epoch's patches from cases whose masks label some regions only; None: each case comes once."""


@dataclass(frozen=True)
class Batch:
    """What one process computes on in one step; on its GPU, if it has one."""

    images: Tensor
    """`(B, C, X, Y, Z)` float32."""
    targets: Tensor
    """`(B, R, X, Y, Z)` bool."""
    known: Tensor
    """`(B, R)` bool, on the CPU: the regions that each patch's target labels."""
    cases: tuple[str, ...]
    """The id of the case that each patch is from."""


class Patches:
    """An endless sequence of batches: `patches[step]` depends on the settings and the step, on nothing drawn before.

    An epoch goes once through all cases, in an order of its own; with a `partial_share` once through those whose masks
    label all regions, and through as many of the others as make that share (`Order`). A step's `batch_size` patches are
    shared out over `group`; together they are the same ones, however many processes there are.

    A GPU that trains also changes the patches: a core takes a third of a second for each, and would fall behind.
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
        with torch.cuda.stream(self._own.stream):  # beside the network's work, not behind it
            batch = self._draw_all(numbers)
        self._own.stream.synchronize()
        return batch

    def ahead(self, start: int, workers: int = 1) -> Generator[Batch, None, None]:
        """Yield the batches from `start` on, drawn in threads while earlier ones are worked on; close it when done.

        Threads share the memory: nothing is copied between processes, and none can die of too little shared memory.
        """
        pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
        try:
            pending = deque(pool.submit(self.__getitem__, start + i) for i in range(workers + 1))
            for step in count(start + workers + 1):
                yield self._handed_over(pending.popleft().result())
                pending.append(pool.submit(self.__getitem__, step))
        finally:
            pool.shutdown(cancel_futures=True)

    def _handed_over(self, batch: Batch) -> Batch:
        """Keep the batch's memory from being used again on a worker's stream while the network still reads it."""
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
            there = (
                start + (np.array(donor.shape) - np.array(case.shape)) // 2
            )  # their brains' middles lie on each other
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
        """The cases that have every sequence of the host and every region that its mask labels.

        A tumour in one of the host's sequences and not in the others would be none, and where the donor's mask does not
        label a region, the host's labels would be lost. The host itself is always one of them.
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
    """Which case each patch is from, by the patch's number: `order[number]` is a place in the list of cases.

    Args:
        whole: Of each case, whether its mask labels all regions.
        share: The share of an epoch's patches that the other cases have; None: each case comes once. Where one of the
            two kinds is missing it means nothing.
        seed: Of the orders.
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
        """How many patches make an epoch in which each whole case gives one."""
        return len(self._always) + self._turns

    def __getitem__(self, number: int) -> int:
        epoch, place = divmod(number, len(self))
        cases = np.concatenate([self._always, [self._turn(epoch * self._turns + i) for i in range(self._turns)]])
        return int(cases[np.random.default_rng([self._seed, 1, epoch]).permutation(len(cases))[place]])

    def _turn(self, number: int) -> int:
        """The case of this number, where all of them come in one random order, then all in another."""
        times, place = divmod(number, len(self._in_turns))
        return int(
            self._in_turns[np.random.default_rng([self._seed, 4, times]).permutation(len(self._in_turns))[place]]
        )


def is_fully_labelled(case: CachedCase, plan: Plan) -> bool:
    """Return whether the case's mask labels all regions of the plan."""
    return set(plan.regions) <= set(case.known)


def choose_place(case: CachedCase, plan: Plan, size: Size, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the first voxel of a patch, in the brain's box; two patches in three hold tumour near their middle.

    Such a patch takes one of the plan's regions that the case has, each as likely, and one of its voxels: so small
    enhancement is met as often as wide oedema. A patch lies inside the box along an axis where the box is the larger,
    and around it in the middle where it is not.
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
        shift = (uniform - 0.5) * np.array(size) / 2  # the tumour anywhere in the patch's inner half
        start = np.clip(np.round(centre + shift - np.array(size) / 2), 0, np.maximum(room, 0)).astype(np.int64)
    return np.where(room < 0, room // 2, start)


def cut_patch(
    case: CachedCase, plan: Plan, start: NDArray[np.int64], size: Size, device: torch.device = _CPU
) -> tuple[Tensor, Tensor]:
    """Return a patch `(C, *size)`, normalized, and its regions `(R, *size)`; what lies beyond the brain's box is 0."""
    data = _normalized(case, plan, _cut(case.image(), start, size), device)
    mask = _cut(case.labels()[None], start, size)[0]
    convention = get_convention(case.convention)
    if device.type == "cpu":
        return data, torch.from_numpy(to_regions(mask, convention, plan.regions))
    meanings = torch.from_numpy(to_regions(np.arange(256, dtype=np.uint8), convention, plan.regions)).to(device)
    return data, meanings[:, torch.from_numpy(mask).to(device).int()]


def _present(case: CachedCase, plan: Plan) -> set[str]:
    """Those of the plan's sequences that the case has."""
    return {
        name for name, there in zip(case.modalities, case.present, strict=True) if there and name in plan.modalities
    }


def _normalized(case: CachedCase, plan: Plan, raw: NDArray[Any], device: torch.device) -> Tensor:
    """The plan's sequences of a part of the case, normalized by the moments of the whole."""
    channels = [case.modalities.index(modality) for modality in plan.modalities]
    moments = [case.moments[channel] for channel in channels]
    if device.type == "cpu":
        return torch.from_numpy(normalize(raw[channels], moments, plan.normalization))
    stored = torch.from_numpy(raw).to(device)[channels].float()
    zeros, factors = torch.tensor([scale_of(each, plan.normalization) for each in moments], device=device).T
    return torch.where(stored == 0, 0.0, (stored - zeros[:, None, None, None]) * factors[:, None, None, None])


def _around(shape: Size, multiple: int) -> Size:
    """The smallest size whose edges are multiples and that holds the shape."""
    x, y, z = (-(-edge // multiple) * multiple for edge in shape)
    return x, y, z


def _cut(data: NDArray[Any], start: NDArray[np.int64], size: Size) -> NDArray[Any]:
    """`data[:, start:start + size]`, zero where that lies outside."""
    result = np.zeros((len(data), *size), dtype=data.dtype)
    low = np.maximum(start, 0)
    high = np.minimum(start + size, data.shape[1:])
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    to_x, to_y, to_z = (slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    result[:, to_x, to_y, to_z] = data[:, x, y, z]
    return result
