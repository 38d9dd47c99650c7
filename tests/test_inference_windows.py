"""Laws of windows: padding, windows and mirroring do not change the result of an identity network."""

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
from gliomask.model.sampling import Windows


class Identity(nn.Module):
    """Return the three input channels; accept only multiples of eight, as a network with three levels would."""

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
    """The effects of padding, windows, Gaussian weights and mirroring cancel out for any size."""
    data = images(*shape)
    logits, taken = model().run(data, Inference(window, mirror, "fp32"))
    assert taken == window
    assert logits.shape == (3, *shape)
    np.testing.assert_allclose(logits, data, atol=1e-5)


def test_the_number_of_passes_is_one_or_eight_with_mirroring() -> None:
    """A whole volume is one pass; mirroring makes eight passes."""
    one, eight = model(), model()
    one.run(images(20, 20, 20), Inference("whole", False, "fp32"))
    eight.run(images(20, 20, 20), Inference("whole", True, "fp32"))
    assert (len(one.network.seen), len(eight.network.seen)) == (1, 8)


def test_mirroring_removes_a_networks_asymmetry() -> None:
    """The shift of a network that moves images to one side cancels out in the average over mirror images."""

    class Shift(Identity):
        def forward(self, images: Tensor) -> Tensor:
            return images.roll(1, dims=2) * self.scale

    shifted = Model(model().plan, Shift(), "shift")
    data = images(16, 16, 16)
    symmetric = (data + data[:, ::-1]) / 2
    logits, _ = shifted.run(np.ascontiguousarray(symmetric), Inference("whole", True, "fp32"))
    np.testing.assert_allclose(logits, logits[:, ::-1], atol=1e-5)


def test_memory_decides_between_whole_and_sliding(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a pass over the whole volume does not fit in memory, sliding windows are used."""
    data = images(40, 40, 40)
    assert model().run(data, Inference())[1] == "whole"
    monkeypatch.setattr(torch_engine, "WHOLE_PASS_BYTES", 1_000_000)
    assert model().run(data, Inference())[1] == "sliding"


def test_windows_cover_every_voxel_and_overlap_by_half() -> None:
    """Windows start at the first voxel, end at the last one, and overlap by at least half."""
    for length in range(16, 120):
        starts = windows._starts(length, 16, Windows())
        assert starts[0] == 0
        assert starts[-1] == length - 16
        assert all(0 <= b - a <= 8 for a, b in pairwise(starts))


def test_running_leaves_the_network_in_the_mode_it_was_in() -> None:
    """Validation during training must not leave the network in evaluation mode."""
    training = model()
    training.network.train()
    training.run(images(16, 16, 16), Inference())
    assert training.network.training


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "tpu"])
def test_unknown_devices_are_refused(name: str) -> None:
    """The message lists the known devices or says that the machine has no such device."""
    with pytest.raises(InputError, match="device"):
        get_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_refused() -> None:
    """The message suggests -d auto."""
    with pytest.raises(InputError, match="-d auto"):
        get_device("cuda")
    assert get_device("auto").type == "cpu"


def test_networks_with_instance_norm_get_sliding_windows() -> None:
    """Its statistics depend on the window, so `auto` uses the patch size; other networks get the whole volume."""
    data = images(40, 40, 40)
    plan = model().plan
    for norm, window in (("instance", "sliding"), ("batch", "whole"), (None, "whole")):
        arguments = {"channels": [4, 6, 8, 8, 8], "norm": norm}
        built = new_model(plan.model_copy(update={"network_arguments": arguments}))
        assert built.run(data, Inference())[1] == window


def test_progress_rises_to_one() -> None:
    """It is reported after each window of each mirror image."""
    shares: list[float] = []
    model().run(images(24, 16, 16), Inference("sliding", True, "fp32"), on_part=shares.append)
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (16, 1.0)
