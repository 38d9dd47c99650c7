"""Fixtures for all tests: small synthetic cases in any layout, real cases if available, and the command line."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from gliomask.cases import MODALITIES, Case, find_cases, get_layout
from gliomask.cli import main
from gliomask.labels import REGIONS, get_convention, to_labels, to_regions
from gliomask.volume import Volume, write_volume

# The same examples in every run, so that a test does not fail or pass by chance.
settings.register_profile("repeatable", derandomize=True, deadline=None)  # a busy machine fails no test
settings.load_profile("repeatable")

SHAPE = (24, 28, 20)
# Oblique and anisotropic. What holds on this grid also holds on the axis-parallel 1 mm grid of BraTS.
AFFINE = np.array([[-1.96, 0.12, 0.3, 20.0], [0.2, -1.48, 0.22, 25.0], [-0.32, -0.15, 2.97, -30.0], [0, 0, 0, 1.0]])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-cases", type=Path, default=None, help="a folder of real BraTS 2021 cases, for the tests marked real"
    )
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_configure() -> None:
    """Let each test process use one thread, because several run in parallel and more threads would slow them down."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--real-cases") is None:
        skip = pytest.mark.skip(reason="needs real cases: pytest tests --real-cases=FOLDER")
        for item in items:
            if "real" in item.keywords:
                item.add_marker(skip)
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="takes many minutes: pytest tests --long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def real_cases(request: pytest.FixtureRequest) -> Path:
    """Return the folder of real BraTS cases that the option `--real-cases` names."""
    folder: Path = request.config.getoption("--real-cases")
    assert folder.is_dir(), f"--real-cases {folder}: no such folder"
    return folder


def nested_ellipsoids(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return four int16 images of a brain-like ellipsoid, and nested tissues in it: 1 NCR, 2 ED, 3 ET, 0 other."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = generator.uniform(-0.2, 0.2, 3)[:, None, None, None]
    radius = np.sqrt(((grid - centre) ** 2).sum(axis=0))
    brain = np.sqrt((grid**2).sum(axis=0)) < 0.92
    tissues = np.zeros(shape, np.uint8)
    for value, edge in ((2, 0.55), (3, 0.38), (1, 0.22)):
        tissues[radius < edge] = value
    bright = {
        "t1n": (600, 450, 420, 500),
        "t1c": (620, 430, 430, 900),
        "t2w": (400, 800, 700, 650),
        "t2f": (420, 500, 820, 700),
    }
    images = {}
    for modality, levels in bright.items():
        image = np.asarray(levels)[tissues] + generator.normal(0, 25, shape)
        images[modality] = np.where(brain, np.clip(image, 1, 2000), 0).astype(np.int16)
    return images, np.where(brain, tissues, 0).astype(np.uint8)


@pytest.fixture
def write_case(tmp_path: Path) -> Callable[..., Case]:
    """Return a function that writes a small case in a layout to `tmp_path / "data"` and returns it."""

    def write(
        layout: str = "brats2021", *, number: int = 1, missing: Sequence[str] = (), shape: tuple[int, int, int] = SHAPE
    ) -> Case:
        table = get_layout(layout)
        case = table.case(tmp_path / "data", number, [modality for modality in MODALITIES if modality not in missing])
        images, tissues = nested_ellipsoids(number, shape)
        by_file: dict[Path, list[str]] = defaultdict(list)
        for modality, source in sorted(case.images.items(), key=lambda item: item[1].channel or 0):
            by_file[source.path].append(modality)
        for path, modalities in by_file.items():
            write_volume(path, Volume(np.stack([images[modality] for modality in modalities]), AFFINE))
        numbers = get_convention(case.convention or "brats2024-ped")
        regions = to_regions(tissues, get_convention("brats2023"), tuple(REGIONS))
        labels = to_labels(regions, tuple(REGIONS), numbers)
        assert case.mask is not None
        write_volume(case.mask, Volume(labels[None], AFFINE))
        if table.dataset_json:
            import json

            (tmp_path / "data" / "dataset.json").write_text(json.dumps(dict(table.dataset_json)))
        return case

    return write


@pytest.fixture
def folder_of(write_case: Callable[..., Case], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes several small cases and returns their folder."""

    def write(count: int = 4, layout: str = "brats2021", **options: object) -> Path:
        for number in range(1, count + 1):
            write_case(layout, number=number, **options)
        return tmp_path / "data"

    return write


@pytest.fixture
def model_file(folder_of: Callable[..., Path], tmp_path: Path) -> Path:
    """Save a small untrained model that fits the cases of `folder_of`, and return its path."""
    from gliomask.inference.loading import new_model, save_model
    from gliomask.inference.preprocessing import common_spacing
    from gliomask.model.plan import Plan

    cases = find_cases(folder_of(2))
    plan = Plan(
        modalities=("t2f", "t1c", "t2w"),
        spacing_mm=common_spacing(cases, "LPS"),
        patch_size=(16, 16, 16),
        network_arguments={"channels": [4, 6, 8, 8, 8]},
    )
    save_model(new_model(plan, seed=1), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def gliomask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command in this process and returns its exit status and its output."""

    def run(*words: object, columns: int = 200) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["gliomask", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run
