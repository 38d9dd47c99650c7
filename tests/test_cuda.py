"""A GPU gives the results of a CPU, up to rounding: patches, networks, training, prediction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from gliomask.cases import find_cases, resolve_conventions
from gliomask.inference.loading import Model, load_torch_model, new_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.windows import Inference
from gliomask.model.plan import Plan
from gliomask.training.augment import Augmentation, augment
from gliomask.training.augment.brain import find_brain
from gliomask.training.augment.histogram import HistogramMix, apply_histogram_mix
from gliomask.training.augment.intensity import Noise, apply_noise
from gliomask.training.augment.lesion import LesionContrast, apply_lesion_contrast
from gliomask.training.augment.transplant import Transplant, apply_transplant
from gliomask.training.cache import build_cache, open_cache
from gliomask.training.config import make_config
from gliomask.training.distributed import ProcessGroup
from gliomask.training.loop import train
from gliomask.training.patches import Patches, PatchSettings
from round_brain import ALWAYS, seeded, some

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")

GPU = torch.device("cuda")
QUIET = replace(ALWAYS, noise_probability=0)  # noise on a GPU comes from a generator of its own


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("elastic", [0.0, 1.0])
@pytest.mark.parametrize("rotation", [0.0, 1.0])
def test_the_same_draw_changes_a_patch_alike(seed: int, elastic: float, rotation: float) -> None:
    """This holds for all changes except noise, and for all but a few voxels at the edges of brain and regions."""
    settings = replace(QUIET, elastic_probability=elastic, rotation_probability=rotation)
    image, target = some((40, 36, 32), seed)
    here = augment(image, target, seeded(seed), settings)
    there = augment(image.to(GPU), target.to(GPU), seeded(seed), settings)
    assert there[0].device.type == there[1].device.type == "cuda"
    assert (there[1].cpu() != here[1]).float().mean() < 1e-4
    off = (there[0].cpu() - here[0]).abs() > 1e-3
    assert off.float().mean() < 1e-4


def test_tumours_and_scanners_change_alike() -> None:
    """Transplants, lesion contrast and histogram changes give the same patch on both."""
    host, donor = some((40, 36, 32), 1), some((40, 36, 32), 2)
    on_gpu = [tuple(tensor.to(GPU) for tensor in pair) for pair in (host, donor)]
    results = []
    for one, other in ((host, donor), on_gpu):
        image, target = apply_transplant(one, other, Transplant(4))
        image, target = apply_lesion_contrast(image, target, LesionContrast(1, (0.3, 1.2, 0.5)))
        results.append((apply_histogram_mix(image, other[0][:, ::2, ::2, ::2], HistogramMix((0.5, 1.0, 0.0))), target))
    (image, target), (image_there, target_there) = results
    assert torch.equal(target_there.cpu(), target)
    torch.testing.assert_close(image_there.cpu(), image, rtol=1e-3, atol=1e-3)


def test_noise_has_its_strength_and_its_seed() -> None:
    """Noise differs from that of a CPU, but the same seed gives the same noise, with the right standard deviation."""
    image = some((40, 36, 32))[0].to(GPU)
    brain = find_brain(image)
    noisy = [apply_noise(image[0], brain, Noise(0.1, seed)) for seed in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert (noisy[0] - image[0])[brain].std().item() == pytest.approx(0.1 * image[0][brain].std().item(), rel=0.05)
    assert (noisy[0][~brain] == 0).all()


def test_patches_are_those_of_a_cpu(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Patches drawn in advance by several threads are on the GPU and equal those of a CPU."""
    cases = resolve_conventions(find_cases(folder_of(3)))
    plan = Plan(modalities=("t2f", "t1c", "t2w"), spacing_mm=common_spacing(cases, "LPS"), patch_size=(16, 16, 16))
    prepared, problems = build_cache(cases, tmp_path / "cache", plan)
    assert not problems
    changes = Augmentation.none()
    settings = PatchSettings((16, 16, 16), changes, 0.3, seed=1, transplant=0.5, histograms=0.5, lesion_contrast=0.5)
    here = Patches(prepared, plan, settings, 2)
    with closing(Patches(prepared, plan, settings, 2, ProcessGroup(device=GPU)).ahead(0, 3)) as batches:
        for step, batch in enumerate(islice(batches, 12)):
            assert batch.images.device.type == batch.targets.device.type == "cuda"
            assert torch.equal(batch.targets.cpu(), here[step].targets)
            torch.testing.assert_close(batch.images.cpu(), here[step].images, rtol=1e-3, atol=1e-3)
            assert batch.cases == here[step].cases


@pytest.mark.parametrize("network", ["fast", "fast_sides", "unet", "attention_unet", "vnet", "fcn", "segnet"])
def test_networks_answer_alike(network: str) -> None:
    """The logits in float32 are the same up to rounding."""
    model = new_model(Plan(modalities=("t2f", "t1c", "t2w"), network=network, patch_size=(32, 32, 32)))
    data = np.random.default_rng(0).normal(size=(3, 48, 32, 32)).astype(np.float32)
    here, _ = model.run(data, Inference("whole", False, "fp32"))
    on_gpu = Model(model.plan, model.network.to(GPU), model.name)
    there, _ = on_gpu.run(data, Inference("whole", False, "fp32"))
    np.testing.assert_allclose(there, here, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_training_learns_and_goes_on(folder_of: Callable[..., Path], tmp_path: Path, precision: str) -> None:
    """In each precision the loss falls, a resumed run continues, and the model predicts the same on both devices."""
    cases = resolve_conventions(find_cases(folder_of(4)))
    common = {
        "network": "fast",
        "network_arguments": {"channels": [8, 16]},
        "patch_size": 16,
        "val_fraction": 0.25,
        "lr": 3e-3,
        "precision": precision,
        "device": "cuda",
        "ema": 0.9,
        "transplant": 0.3,
        "histograms": 0.3,
        "lesion_contrast": 0.3,
    }
    run = train(cases, tmp_path / "run", make_config(epochs=10, **common))
    assert run.rows()[-1]["train_loss"] < run.rows()[0]["train_loss"]
    run = train(cases, tmp_path / "run", make_config(epochs=12, **common), resume=True)
    assert [row["epoch"] for row in run.rows()] == list(range(1, 13))
    model = load_torch_model(run.last, device="cpu")
    on_gpu = load_torch_model(run.last, device="cuda")
    data = np.array(open_cache(run.folder / "cache", model.plan)[0].image(), np.float32)
    data /= data.std()
    labels = [one.run(data, Inference("whole", False, "fp32"))[0] > 0 for one in (model, on_gpu)]
    assert (labels[0] == labels[1]).mean() > 0.999


def test_brains_of_several_sizes_are_trained_on_whole(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """With `whole_brain`, each step takes one whole brain of any size."""
    cases = resolve_conventions(find_cases(folder_of(4)))
    arguments = {"channels": [8, 16]}
    config = make_config(
        network="fast_sides", network_arguments=arguments, whole_brain=True, epochs=2, device="cuda", val_fraction=0.25
    )
    assert len(train(cases, tmp_path / "run", config).rows()) == 2
