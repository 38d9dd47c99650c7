"""Running a network over a volume: windows, padding and mirrors change nothing that they should not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gliomask.errors import InputError
from gliomask.inference import torch_engine, windows
from gliomask.inference.loading import Model, new_model
from gliomask.inference.torch_engine import get_device
from gliomask.inference.windows import Inference
from gliomask.model.plan import Plan


class Identity(nn.Module):
    """Gives back its three channels; takes multiples of eight only, as a network with three levels would."""

    divisor = 8

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        assert all(n % self.divisor == 0 for n in images.shape[2:])
        self.seen.append(tuple(images.shape[2:]))
        return images * self.scale


def model(patch: int = 16) -> Model:
    plan = Plan(modalities=("t2f", "t1c", "t2w"), patch_size=(patch, patch, patch))
    return Model(plan, Identity(), "identity")


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


@pytest.mark.parametrize("window", ["whole", "sliding"])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 40, 23), (5, 9, 33)])
def test_an_identity_network_gives_back_its_input(window, mirror, shape) -> None:
    """Padding, windows, Gaussian weights and mirrors cancel out, for any size."""
    data = images(*shape)
    logits, taken = model().run(data, Inference(window, mirror, "fp32"))
    assert taken == window
    assert logits.shape == (3, *shape)
    np.testing.assert_allclose(logits, data, atol=1e-5)


def test_the_whole_pass_is_one_and_mirrors_are_eight() -> None:
    """What is asked for is what is computed."""
    one, eight = model(), model()
    one.run(images(20, 20, 20), Inference("whole", False, "fp32"))
    eight.run(images(20, 20, 20), Inference("whole", True, "fp32"))
    assert (len(one.network.seen), len(eight.network.seen)) == (1, 8)


def test_mirrors_remove_a_networks_handedness() -> None:
    """Averaged over mirrors, a network that shifts to one side no longer does."""

    class Shift(Identity):
        def forward(self, images: Tensor) -> Tensor:
            return images.roll(1, dims=2) * self.scale

    shifted = Model(model().plan, Shift(), "shift")
    data = images(16, 16, 16)
    symmetric = (data + data[:, ::-1]) / 2
    logits, _ = shifted.run(np.ascontiguousarray(symmetric), Inference("whole", True, "fp32"))
    np.testing.assert_allclose(logits, logits[:, ::-1], atol=1e-5)


def test_memory_decides_between_whole_and_sliding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pass over the volume would not fit, windows are taken."""
    data = images(40, 40, 40)
    assert model().run(data, Inference())[1] == "whole"
    monkeypatch.setattr(torch_engine, "WHOLE_PASS_BYTES", 1_000_000)
    assert model().run(data, Inference())[1] == "sliding"


def test_windows_cover_every_voxel_and_overlap_by_half() -> None:
    """No voxel is left out, none beyond the volume is asked for."""
    for length in range(16, 120):
        starts = windows._starts(length, 16)
        assert starts[0] == 0
        assert starts[-1] == length - 16
        assert all(0 <= b - a <= 8 for a, b in pairwise(starts))


def test_running_leaves_the_network_in_the_mode_it_was_in() -> None:
    """Validation in the middle of training does not switch dropout off for good."""
    training = model()
    training.network.train()
    training.run(images(16, 16, 16), Inference())
    assert training.network.training


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu"])
def test_unknown_devices_are_refused(name: str) -> None:
    """The message lists the known ones or says that the machine lacks it."""
    with pytest.raises(InputError, match="device"):
        get_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_asked_for_and_not_there_is_said() -> None:
    """And the way out is named."""
    with pytest.raises(InputError, match="-d auto"):
        get_device("cuda")
    assert get_device("auto").type == "cpu"


def test_instance_norm_is_given_the_patches_it_knows() -> None:
    """Its statistics depend on the window, so `auto` is the window of training; without it the whole volume."""
    data = images(40, 40, 40)
    plan = model().plan
    for norm, window in (("instance", "sliding"), ("batch", "whole"), (None, "whole")):
        arguments = {"channels": [4, 6, 8, 8, 8], "norm": norm}
        built = new_model(plan.model_copy(update={"network_arguments": arguments}))
        assert built.run(data, Inference())[1] == window


def test_progress_goes_up_to_the_whole() -> None:
    """A part a window, through all mirrors."""
    shares: list[float] = []
    model().run(images(24, 16, 16), Inference("sliding", True, "fp32"), on_part=shares.append)
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (16, 1.0)
