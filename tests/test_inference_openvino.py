"""Laws of OpenVINO: it computes what torch does from the same file, and works where torch is not installed."""

from __future__ import annotations

import builtins
import json
import math
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy

from gliomask.cases import Case, find_cases
from gliomask.errors import InputError
from gliomask.inference import loading, openvino_engine
from gliomask.inference.loading import Model, load_model, load_torch_model, load_weights, new_model, save_model
from gliomask.inference.openvino_engine import OpenVINOModel, OpenVINONetwork
from gliomask.inference.prediction import predict
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.windows import Inference
from gliomask.model import file
from gliomask.model.file import make_record, read_plan, read_training
from gliomask.model.plan import Plan, Postprocessing

FP32 = Inference("sliding", precision="fp32")


def lively(model: Model, seed: int = 0) -> Model:
    """Give a model scales, shifts and running statistics as after training, instead of the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.network.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                drawn = torch.rand(value.shape, generator=generator)
                value.copy_(drawn + 0.5 if name.endswith(("running_var", "weight")) else drawn - 0.5)
    return model


def fast(patch: int = 32, **arguments: object) -> Model:
    plan = Plan(modalities=("t2f", "t1c", "t2w"), patch_size=(patch,) * 3, network="fast", network_arguments=arguments)
    return lively(new_model(plan, seed=1))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def both(model: Model, path: Path) -> tuple[Model, OpenVINOModel]:
    """Save a model and load it in both engines."""
    save_model(model, path)
    compiled = load_model(path, device="cpu", engine="openvino", threads=1)
    assert isinstance(compiled, OpenVINOModel)
    return load_torch_model(path), compiled


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": [8, 12, 16]},
        {"channels": [8, 12, 16], "norm": "batch", "blocks": 2},
        {"channels": [8, 12], "norm": None, "blocks": [0, 1]},
        {"channels": [4, 6, 8, 10, 12], "blocks": [1, 0, 2, 1, 1]},
    ],
    ids=str,
)
@pytest.mark.parametrize("window", ["whole", "sliding"])
def test_both_engines_give_the_same_logits(tmp_path: Path, arguments: dict[str, object], window: str) -> None:
    """For all kinds of levels, blocks and norms, on sizes that need padding."""
    reference, compiled = both(fast(**arguments), tmp_path / "m.safetensors")
    data = images(70, 90, 66)
    inference = Inference(window, precision="fp32")
    (expected, one), (found, other) = reference.run(data, inference), compiled.run(data, inference)
    assert one == other == window
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    middle = np.median(expected)
    assert ((found > middle) == (expected > middle)).mean() >= 0.9999


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_single_voxel_at_the_bottom_is_normalized_alike(tmp_path: Path, norm: str) -> None:
    """With an instance norm the result is its learned shift."""
    reference, compiled = both(fast(channels=[4, 6, 8], norm=norm), tmp_path / "m.safetensors")
    data = images(8, 8, 8)
    expected, found = (model.run(data, Inference("whole", precision="fp32"))[0] for model in (reference, compiled))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("norm", "window"), [("instance", "sliding"), ("batch", "whole"), (None, "whole")])
def test_both_engines_choose_the_same_window(tmp_path: Path, norm: str | None, window: str) -> None:
    """A network with instance norm gets sliding windows in both engines."""
    for model in both(fast(channels=[4, 6], norm=norm), tmp_path / "m.safetensors"):
        model.get_ready(Inference(precision="fp32"))
        assert model.run(images(40, 40, 40), Inference(precision="fp32"))[1] == window


def test_bfloat16_is_close_to_float32(tmp_path: Path) -> None:
    """Within the rounding error of 8 bits of precision in about twenty layers."""
    _, compiled = both(fast(channels=[8, 12, 16]), tmp_path / "m.safetensors")
    data = images(32, 32, 32)
    exact, rounded = (compiled.run(data, Inference("whole", precision=p))[0] for p in ("fp32", "bf16"))
    assert np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


def case_and_plan(folder: Path, **changes: object) -> tuple[Case, Plan]:
    """Return an oblique case with anisotropic voxels, and a plan for it."""
    case = find_cases(folder)[0]
    plan = Plan(
        modalities=("t2f", "t1c", "t2w"),
        spacing_mm=common_spacing([case], "LPS"),
        patch_size=(16, 16, 16),
        network="fast",
        network_arguments={"channels": [8, 12]},
    )
    return case, plan.model_copy(update=changes)


@pytest.mark.parametrize("spacing_mm", [None, (2.0, 2.0, 2.0), (1.0, 1.5, 2.5)])
def test_both_engines_predict_the_same_mask(folder_of: Callable[..., Path], tmp_path: Path, spacing_mm) -> None:
    """On the input's oblique, anisotropic grid; probabilities are resampled and not labels."""
    case, plan = case_and_plan(folder_of(1), **({"spacing_mm": spacing_mm} if spacing_mm else {}))
    one, other = (predict(m, case, inference=FP32) for m in both(lively(new_model(plan)), tmp_path / "m.safetensors"))
    assert other.labels.grid.difference(one.labels.grid) is None
    assert 0.02 < (one.labels.data > 0).mean() < 0.98
    assert (other.labels.data == one.labels.data).mean() >= 0.9999
    np.testing.assert_allclose(other.probabilities.data, one.probabilities.data, atol=1e-3)
    assert other.facts()["versions"].keys() == {"gliomask", "openvino", "numpy"}


def test_half_precision_storage_halves_the_file_and_training_can_go_on(tmp_path: Path) -> None:
    """Kernels are float16 in the file and float32 when loaded, in both engines and by `--from`."""
    model = fast(channels=[16, 24, 32])
    save_model(model, tmp_path / "full.safetensors")
    save_model(model, tmp_path / "half.safetensors", bits=16)
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert half.stat().st_size < 0.55 * full.stat().st_size
    loaded = load_torch_model(half)
    for name, value in model.network.state_dict().items():
        kept = loaded.network.state_dict()[name]
        assert kept.dtype == value.dtype
        torch.testing.assert_close(kept, value, rtol=1e-3, atol=1e-6)
    tuned = fast(channels=[16, 24, 32])
    load_weights(tuned, half)
    assert all(torch.equal(a, b) for a, b in zip(tuned.network.parameters(), loaded.network.parameters(), strict=True))
    compiled = load_model(half, device="cpu", engine="openvino", threads=1)
    data = images(32, 32, 32)
    expected = loaded.run(data, FP32)[0]
    np.testing.assert_allclose(compiled.run(data, FP32)[0], expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("network", "arguments", "half"),
    [("fast", {"channels": [8, 12]}, False), ("fast", {"channels": [8, 12], "norm": "batch"}, True), ("fcn", {}, True)],
)
def test_onnx_carries_the_network_and_its_plan(
    tmp_path: Path, network: str, arguments: dict[str, object], half: bool
) -> None:
    """The logits are torch's, without torch, at other sizes than that of the export."""
    from gliomask.inference.onnx_export import export_model

    plan = Plan(modalities=("t2f", "t1c"), patch_size=(32, 32, 32), network=network, network_arguments=arguments)
    model = lively(new_model(plan, seed=2))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    assert export_model(model, tmp_path / "m.onnx", training={"epoch": 3}, half=half) is None
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert read_plan(tmp_path / "m.onnx") == plan
    assert read_training(tmp_path / "m.onnx") == {"epoch": 3}
    save_model(model, tmp_path / "m.safetensors", bits=16 if half else 32)
    assert (tmp_path / "m.onnx").stat().st_size < 1.3 * (tmp_path / "m.safetensors").stat().st_size
    reference, compiled = load_torch_model(tmp_path / "m.safetensors"), load_model(tmp_path / "m.onnx", threads=1)
    assert compiled.engine.startswith("openvino")
    for window, shape in (("sliding", (40, 30, 32)), ("whole", (48, 32, 64))):
        inference = Inference(window, precision="fp32")
        data = images(*shape)[:2]
        expected = reference.run(data, inference)[0]
        # batch norms are merged into the kernels before rounding in the ONNX file only
        near = (5e-3 if half else 1e-3) * np.abs(expected).max()
        np.testing.assert_allclose(compiled.run(data, inference)[0], expected, atol=near)
    with pytest.raises(InputError, match="OpenVINO only"):
        load_model(tmp_path / "m.onnx", engine="torch")


def _length(field: int, content: bytes) -> bytes:
    """Return a field of a protobuf message whose length takes two groups of seven bits."""
    return bytes([field << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content


def test_the_plan_is_read_among_other_fields_of_onnx(tmp_path: Path) -> None:
    """Other fields and metadata are skipped; a file that is cut, foreign or not ONNX is refused by name."""
    plan = Plan(modalities=("t1c",))
    [(key, value)] = make_record(plan, {"epoch": 1}).items()
    other = _length(14, _length(1, b"author") + _length(2, b"x" * 300))
    ours = _length(14, _length(1, key.encode()) + _length(2, value.encode()))
    whole = b"\x08\x0a" + _length(2, b"torch") + b"\x1d" + bytes(4) + b"\x19" + bytes(8) + other + ours
    file = tmp_path / "m.onnx"
    file.write_bytes(whole)
    assert read_plan(file) == plan
    assert read_training(file) == {"epoch": 1}
    for content in (whole[:-7], whole[: -len(ours)], np.random.default_rng(0).bytes(5000), b"", whole + b"\x0a\xff"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"m\.onnx"):
            read_plan(file)
    file.write_bytes(whole)  # it has a plan, but no network
    with pytest.raises(InputError, match=r"m\.onnx"):
        load_model(file)


def test_weights_of_another_plan_are_refused(tmp_path: Path) -> None:
    """Other features, levels, sequences or regions in the plan than in the weights."""
    from safetensors.torch import save_file

    model = fast(channels=[8, 12])
    wrong = (
        {"network_arguments": {"channels": [8, 16]}},
        {"network_arguments": {"channels": [8, 12, 16]}},
        {"modalities": ("t2f", "t1c")},
        {"regions": ("WT",)},
    )
    for changes in wrong:
        plan = model.plan.model_copy(update=changes)
        save_file(model.network.state_dict(), tmp_path / "m.safetensors", metadata=make_record(plan, None))
        for engine in ("openvino", "torch"):
            with pytest.raises(InputError, match="do not fit its plan"):
                load_model(tmp_path / "m.safetensors", engine=engine)


def test_the_engine_follows_the_device_and_the_network(tmp_path: Path) -> None:
    """`auto` uses OpenVINO if it supports the network, else torch; an engine asked for is used or refused."""
    save_model(fast(channels=[4, 6]), tmp_path / "fast.safetensors")
    save_model(new_model(Plan(modalities=("t1c",), network="fcn")), tmp_path / "fcn.safetensors")
    assert load_model(tmp_path / "fast.safetensors", device="cpu").engine.startswith("openvino")
    assert load_model(tmp_path / "fast.safetensors", device="cpu", engine="torch").engine.startswith("torch")
    assert load_model(tmp_path / "fcn.safetensors", device="cpu").engine.startswith("torch")
    with pytest.raises(InputError, match=r"cannot build fcn.*gliomask export"):
        load_model(tmp_path / "fcn.safetensors", engine="openvino")
    with pytest.raises(InputError, match="-d cpu"):
        load_model(tmp_path / "fast.safetensors", device="cuda", engine="openvino")
    with pytest.raises(InputError, match=r"did you mean 'openvino'"):
        load_model(tmp_path / "fast.safetensors", engine="openvin")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        load_model(tmp_path / "fast.safetensors", device="cpu").get_ready(Inference(precision="fp16"))


def test_without_openvino_torch_is_used_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where OpenVINO is not installed or does not start."""
    save_model(fast(channels=[4, 6]), tmp_path / "m.safetensors")
    for name in (
        "gliomask.inference.openvino_engine",
        "gliomask.inference.openvino_graph",
        "gliomask.inference.openvino_import",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    imported = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] == "openvino":
            raise ImportError("no such package")
        return imported(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    loading._warn_once.cache_clear()
    for _ in range(2):
        assert load_model(tmp_path / "m.safetensors", device="cpu").engine.startswith("torch")
    assert [record.message for record in caplog.records].count(
        "OpenVINO does not work here (no such package); PyTorch is used instead."
    ) == 1
    with pytest.raises(InputError, match="pip install openvino"):
        load_model(tmp_path / "m.safetensors", device="cpu", engine="openvino")


def test_without_a_path_it_is_the_model_inside(
    gliomask, folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python, `info` and `predict`; the error for a package without a model inside says what to do."""
    monkeypatch.setattr(file, "files", lambda _: tmp_path)
    with pytest.raises(InputError, match=r"no model inside.*-m"):
        load_model()
    case, plan = case_and_plan(folder_of(1))
    (tmp_path / "weights").mkdir()
    save_model(new_model(plan), tmp_path / "weights" / "default.safetensors", training={"epoch": 9}, bits=16)
    assert load_model(device="cpu").name == "gliomask/default"
    assert read_training() == {"epoch": 9}
    status, said = gliomask("info", "--json")
    assert (status, '"epoch": 9' in said) == (0, True)
    status, said = gliomask("info")
    assert (status, said.split()[:2]) == (0, ["model", "gliomask/default"])
    assert gliomask("predict", "-i", tmp_path / "data", "-o", tmp_path / "out", "-d", "cpu")[0] == 0
    assert json.loads((tmp_path / "out" / f"{case.id}.json").read_text())["model"] == "gliomask/default"


def test_a_loaded_model_can_be_pickled(tmp_path: Path) -> None:
    """The path and the settings are stored, not the weights; the copy predicts the same, and keeps a changed plan."""
    _, model = both(fast(channels=[8, 12]), tmp_path / "m.safetensors")
    rules = Postprocessing(least_et_mm3=50)
    model = replace(model, plan=model.plan.model_copy(update={"postprocessing": rules}))
    stored = pickle.dumps(model)
    assert len(stored) < 10_000
    copy = pickle.loads(stored)
    assert (copy.plan, copy.name, copy.digest) == (model.plan, model.name, model.digest)
    data = images(32, 32, 32)
    np.testing.assert_array_equal(copy.run(data, FP32)[0], model.run(data, FP32)[0])


def test_threads_can_share_a_model(tmp_path: Path) -> None:
    """Calls of several threads with several sizes at once give the logits of calls one after the other."""
    _, model = both(fast(channels=[4, 6]), tmp_path / "m.safetensors")
    works = [
        (images(8 * n, 32, 24), Inference(window, precision="fp32")) for n in (1, 2, 3) for window in ("whole",) * 3
    ]
    works += [(images(40, 40, 40), FP32)] * 2
    expected = [model.run(*work)[0] for work in works]
    with ThreadPoolExecutor(len(works)) as pool:
        found = list(pool.map(lambda work: model.run(*work)[0], works))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_more_threads_are_used_than_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's quota is a limit unless `threads` is given; on a whole machine OpenVINO decides."""
    save_model(fast(channels=[4, 6]), tmp_path / "m.safetensors")
    monkeypatch.setattr(openvino_engine.os, "cpu_count", lambda: 16)
    for cores, asked, expected in ((3, None, 3), (16, None, None), (3, 5, 5)):
        monkeypatch.setattr(openvino_engine, "usable_cores", lambda cores=cores: cores)
        assert OpenVINONetwork(tmp_path / "m.safetensors", asked)._threads == expected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (RuntimeError("Exception from src/inference\nInfer Request is busy"), r"failed \(Infer Request is busy\)"),
    ],
)
def test_only_a_lack_of_memory_is_reported_as_one(error: Exception, words: str) -> None:
    """Other failures are reported with OpenVINO's own last line."""
    message = str(openvino_engine._failure(error))
    assert re.search(words, message)
    assert ("memory" in message) == ("memory" in words)


def _save(path: Path, model: Model, **changes: Any) -> Path:
    """Save a model with some weights replaced by other arrays."""
    weights = {name: value.numpy() for name, value in model.network.state_dict().items()}
    save_numpy({**weights, **changes}, path, metadata=make_record(model.plan, None))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder.0.0.0.weight": np.full((8, 3, 2, 2, 2), np.nan, np.float32)},
        {"encoder.0.0.1.weight": np.full(8, np.inf, np.float32)},
        {"encoder.0.0.1.running_var": np.full(8, -1, np.float32)},
        {"encoder.0.0.0.weight": np.zeros(3, np.float32)},
        {"head.weight": np.zeros((24, 8), np.float32)},
        {"head.weight": np.zeros((24, 8, 1, 1, 1), np.int8), "head.weight.scale": np.ones(1, np.float32)},
    ],
    ids=str,
)
def test_weights_that_cannot_be_right_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """NaN, infinity, negative variances and wrong shapes would give wrong masks without an error."""
    path = _save(tmp_path / "m.safetensors", fast(channels=[8, 12], norm="batch"), **changes)
    with pytest.raises(InputError, match=r"m\.safetensors"):
        load_model(path, device="cpu", engine="openvino", threads=1)


@pytest.mark.parametrize(
    "facts",
    [
        None,
        3,
        {},
        {"divisor": 0, "norm_sees_window": True, "bytes_per_voxel": 8},
        {"divisor": "8", "norm_sees_window": True, "bytes_per_voxel": 8},
        {"divisor": 8, "norm_sees_window": True, "bytes_per_voxel": math.nan},
        {"divisor": 8, "norm_sees_window": True, "bytes_per_voxel": 8, "size": [32, 32]},
        {"divisor": 8, "norm_sees_window": True, "bytes_per_voxel": 8, "size": [32, 32, 10**9]},
    ],
    ids=str,
)
def test_invalid_facts_in_onnx_are_refused(tmp_path: Path, facts: object) -> None:
    """They decide how much memory is used and which sizes are computed."""
    [(key, value)] = make_record(Plan(modalities=("t1c",)), {}, network=facts).items()
    (tmp_path / "m.onnx").write_bytes(_length(14, _length(1, key.encode()) + _length(2, value.encode())))
    with pytest.raises(InputError, match=r"m\.onnx"):
        load_model(tmp_path / "m.onnx")


def test_an_onnx_file_with_other_regions_or_nan_weights_is_refused(tmp_path: Path) -> None:
    """Its output has as many channels as its plan has regions, and its weights are finite."""
    from gliomask.inference.onnx_export import export_model

    model = fast(channels=[4, 6])
    other = replace(model, plan=model.plan.model_copy(update={"regions": ("WT",)}))
    export_model(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="do not fit its plan"):
        load_model(tmp_path / "other.onnx")
    model.network.head.weight.data[0] = np.nan
    export_model(model, tmp_path / "nan.onnx")
    with pytest.raises(InputError, match="NaN"):
        load_model(tmp_path / "nan.onnx")


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "matplotlib") else found(name, *rest)
import gliomask.cli
sys.argv = ["gliomask", *sys.argv[1:]]
gliomask.cli.main()
"""


def without_torch(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which torch, onnx and matplotlib cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_nothing_is_sent() -> None:
    """OpenVINO's telemetry is not imported."""
    code = (
        "import sys, gliomask.inference.openvino_import; "
        "print([m for m in sys.modules if 'telemetry' in m and 'stub' not in m])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "openvino_telemetry" not in ran.stdout


def test_the_base_install_predicts(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Without torch: a folder with one bad case, from safetensors and ONNX; commands that need torch say so."""
    from gliomask.inference.onnx_export import export_model

    folder = folder_of(3)
    case, plan = case_and_plan(folder)
    model = new_model(plan, seed=1)
    save_model(model, tmp_path / "m.safetensors")
    export_model(model, tmp_path / "m.onnx", half=False)
    find_cases(folder)[1].images["t1c"].path.write_bytes(b"no NIfTI")
    for name in ("m.safetensors", "m.onnx"):
        out = tmp_path / name.replace(".", "_")
        ran = without_torch("predict", "-m", tmp_path / name, "-i", folder, "-o", out, "--precision", "fp32")
        assert (ran.returncode, "1 failed, 2 done" in ran.stderr.replace("\n", " ")) == (1, True), ran.stderr
        facts = json.loads((out / f"{case.id}.json").read_text())
        assert "openvino" in facts["versions"]
    assert without_torch("info", tmp_path / "m.onnx").returncode == 0
    words = ("predict", "-m", tmp_path / "m.safetensors", "-i", folder, "-o", tmp_path / "x")
    for command, said in (
        (
            ("predict", "-m", tmp_path / "m.safetensors", "-i", folder, "-o", tmp_path / "x", "--engine", "torch"),
            "train",
        ),
        ((*words, "--picture"), "pictures"),
    ):
        ran = without_torch(*command)
        assert ran.returncode == 2
        assert f"[{said}]'" in ran.stderr
    assert not (tmp_path / "x").exists()


def test_the_threads_of_a_process_are_not_bound_to_cores(tmp_path: Path) -> None:
    """Two processes with one thread each would otherwise compute on the same core, one after the other."""
    _, model = both(fast(), tmp_path / "m.safetensors")
    request = model.network.compiled((32, 32, 32), "fp32")
    compiled = request.get_compiled_model()
    assert (compiled.get_property("INFERENCE_NUM_THREADS"), compiled.get_property("ENABLE_CPU_PINNING")) == (1, False)
