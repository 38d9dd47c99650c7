"""Masks that label some regions only, and cases with some sequences only: nothing is learned from what is not known."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from gliomask.cases import Case, find_cases, resolve_conventions
from gliomask.errors import InputError
from gliomask.inference.loading import load_torch_model, new_model
from gliomask.model.plan import Plan
from gliomask.training.cache import CachedCase, build_cache
from gliomask.training.config import TrainConfig, make_config
from gliomask.training.confusion import Confusion
from gliomask.training.loop import train
from gliomask.training.losses import LOSSES, build_loss, supervised
from gliomask.training.patches import Order, Patches, PatchSettings, repeated
from gliomask.training.run import make_plan
from gliomask.training.split import hold_out, read_splits
from gliomask.training.validation import score_cached_case, validate
from gliomask.training.watcher import Watcher
from gliomask.volume import Volume, read_volume, write_volume

FULL, PARTIAL = 4, 3
every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def cases(folder_of: Callable[..., Path], tmp_path: Path) -> list[Case]:
    """Four cases with all labels and three with FLAIR and the whole tumour only, in a folder with a `labels.txt`."""
    folder = folder_of(FULL + PARTIAL)
    for number in range(FULL + 1, FULL + PARTIAL + 1):
        only_whole_tumour(folder / f"BraTS2021_{number:05d}", folder / "flair" / f"FLAIR_{number}", "t2f")
    (folder / "flair" / "labels.txt").write_text("wt-only\n")
    return resolve_conventions(find_cases(folder))


def only_whole_tumour(source: Path, folder: Path, *modalities: str) -> None:
    """Move a case's mask, reduced to 1 for tumour, and some of its sequences to another folder."""
    folder.mkdir(parents=True)
    names = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
    for modality in modalities:
        name = names[modality]
        shutil.move(source / f"{source.name}_{name}.nii.gz", folder / f"{folder.name}_{name}.nii.gz")
    mask = read_volume(source / f"{source.name}_seg.nii.gz", mask=True)
    write_volume(folder / f"{folder.name}_seg.nii.gz", Volume((mask.data > 0).astype(np.uint8), mask.affine))
    shutil.rmtree(source)


def cached(cases: Sequence[Case], folder: Path, modalities: tuple[str, ...] = ("t2f", "t1c")) -> list[CachedCase]:
    done, problems = build_cache(cases, folder, make_plan(config(modalities=modalities), cases))
    assert not problems
    return done


def config(**changes: object) -> TrainConfig:
    values = {
        "network": "fcn",
        "patch_size": 16,
        "modalities": ("t2f", "t1c"),
        "precision": "fp32",
        "val_fraction": 0.3,
    }
    return make_config(**values | {"drop_modalities": 0.3, "steps": 8, "threads": 1} | changes)


@every_loss
def test_the_gradient_of_an_unknown_region_is_exactly_zero(name: str) -> None:
    """On the full grid and on the coarser ones of deep supervision; known regions have a gradient."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand((2, 3, 8, 8, 8), generator=generator) > 0.7
    known = torch.tensor([[True, False, False], [True, True, True]])
    outputs = [torch.randn((2, 3, n, n, n), generator=generator, requires_grad=True) for n in (8, 4)]
    supervised(build_loss(name), outputs, target, known).backward()
    for logits in outputs:
        assert logits.grad is not None
        moved = (logits.grad != 0).flatten(2).any(dim=2)
        assert torch.equal(moved, known)


@every_loss
def test_the_loss_is_the_mean_of_each_samples_known_regions(name: str) -> None:
    """Whatever the logits and the target hold where nothing is known."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((2, 3, 4, 4, 4), generator=generator)
    target = torch.rand((2, 3, 4, 4, 4), generator=generator) > 0.5
    known = torch.tensor([[True, False, False], [True, False, True]])
    loss = build_loss(name)
    alone = [loss(logits[:1, :1], target[:1, :1]), loss(logits[1:, [0, 2]], target[1:, [0, 2]])]
    torch.testing.assert_close(loss(logits, target, known), torch.stack(alone).mean())
    changed = torch.where(known[..., None, None, None], logits, -9.0)
    assert loss(changed, ~target ^ known[..., None, None, None], known) == loss(logits, target, known)


@every_loss
def test_if_all_is_known_the_loss_has_the_same_bits_as_without_saying_so(name: str) -> None:
    """Value and gradients."""
    generator = torch.Generator().manual_seed(2)
    target = torch.rand((3, 3, 8, 8, 8), generator=generator) > 0.6
    sides = []
    for known in (None, torch.ones(3, 3, dtype=torch.bool)):
        outputs = [torch.randn((3, 3, n, n, n), generator=torch.Generator().manual_seed(3)) for n in (8, 4)]
        outputs = [logits.requires_grad_() for logits in outputs]
        loss = supervised(build_loss(name), outputs, target, known)
        loss.backward()
        sides.append([loss.detach(), *(logits.grad for logits in outputs)])
    assert all(torch.equal(one, other) for one, other in zip(*sides, strict=True))


def test_a_sample_of_which_nothing_is_known_is_refused() -> None:
    """It has no loss."""
    logits = torch.zeros(1, 2, 4, 4, 4)
    with pytest.raises(InputError, match="known"):
        build_loss("dice+ce")(logits, logits > 0, torch.tensor([[False, False]]))


def test_masks_of_one_alone_are_never_taken_for_necrosis(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Neither by the ids' layout nor by the numbers; a word settles it, and one other number in the folder does too."""
    folder = folder_of(3)
    for number in (1, 2):
        path = folder / f"BraTS2021_{number:05d}" / f"BraTS2021_{number:05d}_seg.nii.gz"
        mask = read_volume(path, mask=True)
        write_volume(path, Volume((mask.data > 0).astype(np.uint8), mask.affine))
    found = find_cases(folder)
    assert {case.convention for case in resolve_conventions(found)} == {"brats2021"}
    with pytest.raises(InputError, match=r"BraTS2021_00001 and 1 more.*NCR alone.*labels\.txt.*wt-only"):
        resolve_conventions(found[:2])
    assert {case.known for case in resolve_conventions(found[:2], "wt-only")} == {("WT",)}
    assert {case.convention for case in resolve_conventions(found[:2], "brats2021")} == {"brats2021"}
    (folder / "labels.txt").write_text("brats2021")
    assert {case.convention for case in resolve_conventions(find_cases(folder)[:2])} == {"brats2021"}


def test_the_nearest_labels_file_counts(cases: list[Case], tmp_path: Path) -> None:
    """That of the folder itself or of one above it, up to the folder that was asked for."""
    folder = tmp_path / "data"
    assert {case.id: case.convention for case in cases} == {
        **{f"BraTS2021_{n:05d}": "brats2021" for n in range(1, FULL + 1)},
        **{f"FLAIR_{n}": "wt-only" for n in range(FULL + 1, FULL + PARTIAL + 1)},
    }
    (folder / "labels.txt").write_text("msd")
    (folder / "flair" / "FLAIR_5" / "labels.txt").write_text("tc-only")
    conventions = {case.id: case.convention for case in find_cases(folder)}
    assert conventions["BraTS2021_00001"] == "msd"
    assert (conventions["FLAIR_5"], conventions["FLAIR_6"]) == ("tc-only", "wt-only")
    assert {case.convention for case in find_cases(folder / "flair" / "FLAIR_6")} == {None}
    (folder / "labels.txt").write_text("whole")
    with pytest.raises(InputError, match=r"labels\.txt"):
        find_cases(folder)


def test_a_dataset_json_of_one_region_is_understood(folder_of: Callable[..., Path]) -> None:
    """nnU-Net's for a whole tumour without parts."""
    folder = folder_of(1, "nnunet")
    described = json.loads((folder / "dataset.json").read_text())
    for label, name in (("whole tumor", "wt-only"), ("tumor core", "tc-only")):
        (folder / "dataset.json").write_text(json.dumps(described | {"labels": {"background": 0, label: 1}}))
        assert find_cases(folder)[0].convention == name


def test_the_plan_has_the_regions_that_some_mask_labels(cases: list[Case]) -> None:
    """And a convention that can write them, however few masks use it."""
    plan = make_plan(config(), cases)
    assert (plan.regions, plan.convention) == (("WT", "TC", "ET"), "brats2021")
    alone = make_plan(config(), cases[FULL:])
    assert (alone.regions, alone.convention) == (("WT",), "wt-only")
    cores = resolve_conventions(cases[:1], "tc-only")
    assert make_plan(config(), [*cores, *cases[FULL:]]).regions == ("WT", "TC")
    assert make_plan(config(), [*cores, *cases[FULL:]]).convention == "brats2021"


def test_an_epoch_holds_the_share_that_was_asked_for() -> None:
    """The whole cases once each, the others in turns: in the long run each as often."""
    whole = [True] * 6 + [False] * 5
    order = Order(whole, 0.4, seed=3)
    assert len(order) == 10
    epochs = [[order[number] for number in range(10 * epoch, 10 * epoch + 10)] for epoch in range(5)]
    assert all(sorted(place for place in epoch if whole[place]) == list(range(6)) for epoch in epochs)
    counts = np.bincount(np.concatenate(epochs), minlength=11)
    assert counts.tolist() == [5] * 6 + [4] * 5
    assert epochs[0] != epochs[1]


def test_without_a_share_or_another_kind_an_epoch_is_each_case_once() -> None:
    """In the same order as if there were no partial labels."""
    plain = Order([True] * 5, None, seed=1)
    numbers = range(15)
    for other in (
        Order([True] * 5, 0.4, 1),
        Order([False] * 5, 0.4, 1),
        Order([True, False, True, True, False], None, 1),
    ):
        assert [other[n] for n in numbers] == [plain[n] for n in numbers]
    assert sorted(plain[n] for n in range(5)) == list(range(5))


def test_a_donor_has_all_that_the_host_has(cases: list[Case], tmp_path: Path) -> None:
    """A case with all labels never receives the tumour of one without; the other way round is possible."""
    prepared = cached(cases, tmp_path / "cache")
    plan = make_plan(config(), cases)
    patches = Patches(prepared, plan, PatchSettings((16, 16, 16), None, 0.0, 0, transplant=1.0), 1)
    full, partial = set(range(FULL)), set(range(FULL + PARTIAL))
    for place, case in enumerate(prepared):
        donors = {prepared.index(donor) for donor in patches._donors(case)}
        assert donors == (full if place in full else partial)
    for step in range(20):
        batch = patches[step]
        assert batch.known.tolist() == [
            [True, place < FULL, place < FULL] for place in map(prepared_place, batch.cases)
        ]


def prepared_place(case_id: str) -> int:
    """The place of a case of the fixture in its list."""
    return int(case_id[-1]) - 1


def test_a_patch_keeps_one_sequence_as_often_as_asked(cases: list[Case], tmp_path: Path) -> None:
    """One that the case has, each as likely."""
    prepared = cached(cases[:2], tmp_path / "cache")
    plan = make_plan(config(), cases)
    patches = Patches(prepared, plan, PatchSettings((16, 16, 16), None, 0.0, 0, lone_modality=0.5), 1)
    kept = [tuple((patches[step].images[0] != 0).flatten(1).any(dim=1).tolist()) for step in range(60)]
    assert set(kept) == {(True, True), (True, False), (False, True)}
    assert 15 < kept.count((True, True)) < 45


def test_split_and_repetition_know_what_is_not_known(cases: list[Case], tmp_path: Path) -> None:
    """Both kinds are held out in their proportion; a missing label of ET is no missing ET."""
    prepared = cached(cases, tmp_path / "cache")
    held_out = hold_out(prepared[1:], 0.3, seed=0)["val"]  # of three and three
    assert sorted(name.startswith("FLAIR") for name in held_out) == [False, True]
    cores = cached(resolve_conventions(cases[FULL:], "tc-only"), tmp_path / "cores")
    assert repeated(cores, 3) == cores
    assert hold_out(cores, 0.3, seed=0)["val"]


def test_a_split_file_is_followed_or_refused(cases: list[Case], tmp_path: Path) -> None:
    """Its ids must be there, and a patient stays on one side."""
    path = tmp_path / "split.json"
    prepared = cached(cases, tmp_path / "cache")
    ids = [case.id for case in prepared]
    path.write_text(json.dumps([{"train": ids[:3], "val": ids[5:]}]))
    assert read_splits(path, prepared) == [{"train": ids[:3], "val": ids[5:]}]
    run = train(cases, tmp_path / "run", config(split=str(path), steps=1))
    assert run.split() == {"train": ids[:3], "val": ids[5:]}
    for wrong, word in (
        ([{"train": ["nobody"], "val": []}], "nobody"),
        ([{"train": [], "val": ids}], "no case to train on"),
        ([{"train": ids, "val": ids[:1]}], "both"),
        ([], r"has 0 split\(s\)"),
        ({"train": ids}, "cannot be read"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=word):
            read_splits(path, prepared)


def test_validation_scores_what_is_known(cases: list[Case], tmp_path: Path) -> None:
    """A region's mean is over the cases that label it; one that no case labels is left out."""
    prepared = cached(cases, tmp_path / "cache")
    model = new_model(make_plan(config(), cases), seed=0)
    loss = build_loss("dice+ce")
    score = score_cached_case(model, prepared[-1], loss, "fp32")
    assert not math.isnan(score.dice["WT"])
    assert math.isnan(score.dice["TC"])
    assert not score.confusion.counts.any()
    row = validate(model, prepared, loss, "fp32")
    full = validate(model, prepared[:FULL], loss, "fp32")
    assert all(row[f"val_dice_{region}"] == full[f"val_dice_{region}"] for region in ("TC", "ET"))
    assert row["val_accuracy"] == full["val_accuracy"]
    alone = validate(model, prepared[FULL:], loss, "fp32")
    assert "val_dice_TC" not in alone
    assert alone["val_dice"] == alone["val_dice_WT"]
    assert math.isnan(alone["val_accuracy"])


def test_a_table_without_counts_has_no_scores() -> None:
    """NaN, and no warning."""
    empty = Confusion()
    assert all(map(math.isnan, (empty.accuracy(), empty.background_accuracy(), empty.mean_iou())))


def test_a_mixed_training_resumes_to_the_same_bits(cases: list[Case], tmp_path: Path) -> None:
    """Stopped in the middle of an epoch, with everything on that draws anything."""

    class Stop(Watcher):
        def should_stop(self) -> bool:
            return True

    options = config(
        partial_share=0.4,
        lone_modality=0.2,
        transplant=0.5,
        histograms=0.5,
        lesion_contrast=0.5,
        thick_slices=0.5,
        ema=0.9,
    )
    whole = train(cases, tmp_path / "whole", options)
    broken = train(cases, tmp_path / "broken", options, watcher=Stop())
    assert not broken.rows()
    again = train(cases, tmp_path / "broken", options, resume=True)
    one, other = (load_torch_model(run.last).network.state_dict() for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {"val_dice_WT", "val_dice_TC", "val_dice_ET"} <= whole.rows()[-1].keys()


def test_a_region_that_no_case_labels_keeps_its_last_layer(cases: list[Case], tmp_path: Path) -> None:
    """Training on masks of WT alone, from a model of three regions, leaves the weights of TC and ET as they were."""
    begun = train(cases[:FULL], tmp_path / "begun", config(steps=1))
    prepared = cached(cases[FULL:], tmp_path / "cache")
    model = load_torch_model(begun.last)
    plan: Plan = model.plan
    batch = Patches(prepared, plan, PatchSettings((16, 16, 16), None, 0.0, 0), 1)[0]
    loss = supervised(build_loss("dice+ce"), model.network(batch.images), batch.targets, batch.known)
    loss.backward()
    last = list(model.network.parameters())[-1]
    assert last.shape[0] == 3
    assert torch.equal((last.grad != 0), torch.tensor([True, False, False]))


def test_check_and_train_say_what_is_known(
    cases: list[Case], gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """How many cases label which regions, and have which sequences."""
    _, text = gliomask("check", tmp_path / "data")
    assert "3 masks label WT only" in text
    values = ("--network", "fcn", "--patch-size", 16, "--steps", 1, "--val-fraction", 0, "--drop-modalities", 0.3)
    status, text = gliomask("train", tmp_path / "data", "-o", tmp_path / "run", *values, "--partial-share", 0.3)
    assert status == 0
    assert "3 cases with masks of WT only" in text
    assert "3 cases with t2f only" in text
    assert "30% of the patches" in text
