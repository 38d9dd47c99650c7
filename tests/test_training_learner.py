"""A training step: accumulation, values that are not finite, too little memory, averages."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from gliomask.errors import InputError
from gliomask.inference.loading import Model, new_model
from gliomask.model.plan import Plan
from gliomask.training.config import TrainConfig
from gliomask.training.confusion import Confusion
from gliomask.training.distributed import ProcessGroup
from gliomask.training.learner import Learner
from gliomask.training.patches import Batch


def learner(network: str = "fcn", **changes: Any) -> Learner:
    model = new_model(Plan(modalities=("t2f", "t1c"), network=network, patch_size=(16, 16, 16)))
    return Learner(model, TrainConfig(network=network, precision="fp32", **changes), ProcessGroup())


def batch(size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((size, 2, 16, 16, 16), generator=generator)
    targets = torch.rand((size, 3, 16, 16, 16), generator=generator) > 0.8
    return Batch(images, targets, torch.ones(size, 3, dtype=torch.bool), tuple(f"case{i}" for i in range(size)))


@pytest.mark.parametrize("network", ["fcn", "fast"])
@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_gives_the_same_step(network: str, parts: int) -> None:
    """Loss, counts and weights are the same up to rounding."""
    whole, parted = learner(network, batch_size=4), learner(network, batch_size=4, accumulate=parts)
    results = [one.learn(batch(), 0, 1e-3) for one in (whole, parted)]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert np.array_equal(results[0][1], results[1][1])
    gradients = [[p.grad for p in one.network.parameters()] for one in (whole, parted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_the_counts_are_those_of_a_confusion() -> None:
    """For background, oedema, core and enhancing tumour, true against predicted."""
    one = learner()
    one.network.eval()
    with torch.no_grad():
        predicted = one.network(batch().images) > 0
    confusion = Confusion()
    confusion.add(batch().targets.numpy(), predicted.numpy(), one.regions)
    assert np.array_equal(one.learn(batch(), 0, 1e-3)[1], confusion.counts)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_named_and_changes_nothing(where: str) -> None:
    """The message names the case if its loss is not finite; the weights do not change."""
    one = learner(batch_size=2, accumulate=2)
    bad = batch(2)
    if where == "loss":
        bad.images[1, 0, 3, 3, 3] = float("nan")
    else:
        next(one.network.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    before = [p.detach().clone() for p in one.network.parameters()]
    with pytest.raises(InputError, match=r"not finite at step 8, on (case0, )?case1\. .*--from"):
        one.learn(bad, 7, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, one.network.parameters(), strict=True))


def test_dropout_is_drawn_by_the_number_of_the_step() -> None:
    """It does not depend on earlier draws, and torch's global generator is not changed."""
    losses = []
    for drawn in (0, 5):
        torch.manual_seed(drawn)
        model = new_model(Plan(modalities=("t2f", "t1c"), network="unet", network_arguments={"norm": None}))
        state = torch.get_rng_state()
        losses.append(Learner(model, TrainConfig(precision="fp32"), ProcessGroup()).learn(batch(1), 3, 1e-3)[0])
        assert torch.equal(state, torch.get_rng_state())
    assert losses[0] == losses[1]


def test_low_memory_and_compiled_names_change_no_weight_names() -> None:
    """So a checkpoint can be used with other settings for speed and memory."""
    plain = learner()
    assert plain.parts.keys() == {"network", "optimizer", "scaler"}
    model = Model(plan=Plan(modalities=("t2f", "t1c"), network="fcn"), network=plain.network, name="x")
    compiled = Learner(model, TrainConfig(precision="fp32", compiled=True), ProcessGroup())
    assert compiled.parts["network"].state_dict().keys() == plain.parts["network"].state_dict().keys()


_STARVED = """
import resource, sys, torch
from tests.test_training_learner import batch, learner
one = learner("unet", batch_size=4)
one.learn(batch(4), 0, 1e-3)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, -1))
from gliomask.training.patches import Batch
size = 96
known = torch.ones(4, 3, dtype=torch.bool)
masks = torch.zeros(4, 3, size, size, size, dtype=torch.bool)
big = Batch(torch.zeros(4, 2, size, size, size), masks, known, tuple("abcd"))
try:
    one.learn(big, 1, 1e-3)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_too_little_memory_says_what_to_lower() -> None:
    """In a process with too little memory, the message has the sizes and three remedies."""
    said = subprocess.run([sys.executable, "-c", _STARVED], capture_output=True, text=True, check=True).stdout
    what = "InputError not enough memory to train unet on 4 patch(es) of 2 x 96 x 96 x 96 at a time."
    assert said.startswith(what), said
    assert re.search(r"Try --low-memory, or --accumulate 4, or a --patch-size below 96", said), said


def test_the_average_follows_the_weights() -> None:
    """It follows its definition and is what is saved; the weights are trained as without it."""
    plain, averaged = learner(), learner(ema=0.9)
    weight, mean = (next(iter(one.parameters())) for one in (averaged.network, averaged.model.network))
    expected = weight.detach().clone()
    for step in range(3):
        losses = [one.learn(batch(), step, 1e-2)[0] for one in (plain, averaged)]
        assert losses[0] == losses[1]
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weight.detach()
    torch.testing.assert_close(mean, expected)
    assert not torch.equal(mean, weight)
    assert "average" in averaged.parts
    assert plain.model.network is plain.network


def test_the_average_of_a_network_that_has_learned_is_the_mean_of_all() -> None:
    """The initial weights and those after each step have equal weight until the decay takes over."""
    averaged = learner(ema=0.75, start_from="model.safetensors")
    weight, mean = (next(iter(one.parameters())) for one in (averaged.network, averaged.model.network))
    met = [weight.detach().clone()]
    expected = met[0]
    for step in range(5):
        averaged.learn(batch(), step, 1e-2)
        met.append(weight.detach().clone())
        expected = torch.stack(met).mean(0) if step < 3 else 0.75 * expected + 0.25 * met[-1]
        torch.testing.assert_close(mean, expected)
