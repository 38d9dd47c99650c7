"""The structure of the package: a room imports only from lower floors, and large libraries only where they are needed.

A room is a folder of `src/gliomask` or a module beside these folders; docs/design.md says what each is for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gliomask

HOUSE = Path(gliomask.__file__).parent

FLOORS = {
    0: {"errors", "version"},
    1: {"extras"},
    2: {"files"},
    3: {"execution", "labels", "manual", "volume"},
    4: {"cases", "metrics", "networks"},
    5: {"figures", "inspection", "phantom"},
    6: {"model"},
    7: {"foreign"},
    8: {"inference"},
    9: {"acquisition", "evaluation"},
    10: {"cohort", "exchange", "training"},
    11: {"report", "tuning", "viewer"},
    12: {"service"},
    13: {"cli"},
    14: {"__main__"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# The rooms that may import each library, in functions too. `networks/__init__.py` lists names without importing torch.
LIBRARIES = {
    "SimpleITK": {"acquisition"},
    "ants": {"acquisition"},
    "cc3d": {"acquisition", "metrics"},
    "contourpy": {"exchange"},
    "dask": {"execution"},
    "distributed": {"execution"},
    "fastapi": {"service"},
    "filelock": {"files"},
    "fsspec": {"files"},
    "highdicom": {"exchange"},
    "jinja2": {"report"},
    "markdown_it": {"manual"},
    "matplotlib": {"figures", "report"},
    "nibabel": {"volume"},
    "onnx": {"inference"},
    "openvino": {"inference"},
    "pyarrow": {"files"},
    "pydicom": {"acquisition", "exchange", "phantom"},
    "pydantic": {"cli", "model", "service", "training"},
    "python_multipart": {"service"},
    "rich": {"cli"},
    "picsl_greedy": {"acquisition"},
    "safetensors": {"acquisition", "inference", "model"},
    "torch": {"foreign", "inference", "networks", "training"},
    "starlette": {"service"},
    "typer": {"cli"},
    "uvicorn": {"service"},
}

# Files that import torch when they are imported; all others can be imported where torch is not installed.
NEED_TORCH = {
    *("inference/onnx_export.py", "inference/torch_engine.py"),
    *(
        f"training/{name}.py"
        for name in ("average", "distributed", "learner", "loop", "patches", "run", "run_comparison", "validation")
    ),
    *(path.relative_to(HOUSE).as_posix() for path in (HOUSE / "networks").glob("[!_]*.py")),
    *(f"training/augment/{name}.py" for name in ("axes", "brain", "draws", "faults", "histogram", "intensity")),
    *(f"training/augment/{name}.py" for name in ("lesion", "masks", "patch", "resolution", "spatial", "transplant")),
}


@cache
def files() -> dict[str, ast.Module]:
    """Return the parsed modules by their path in the package, without the public `__init__.py`."""
    paths = {path.relative_to(HOUSE).as_posix(): path for path in sorted(HOUSE.rglob("*.py"))}
    return {name: ast.parse(path.read_text("utf-8")) for name, path in paths.items() if name != "__init__.py"}


def room_of(file: str) -> str:
    """Return the room that a module belongs to: its first folder, or the module itself at the top level."""
    return file.partition("/")[0].removesuffix(".py")


def imported(node: ast.AST, *, when_loaded: bool = False) -> Iterator[str]:
    """Yield the names of the imports in some code.

    By default all of them are yielded, also those in functions and for type checking. With `when_loaded`, only those
    that are executed when the module is imported.
    """
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not (when_loaded and (lazy or typing_only)):
            yield from imported(child, when_loaded=when_loaded)


def test_every_room_has_a_floor() -> None:
    """The table lists every room of the package once, and nothing else."""
    assert sorted(room for rooms in FLOORS.values() for room in rooms) == sorted({room_of(file) for file in files()})


@pytest.mark.parametrize("file", files())
def test_a_room_imports_only_from_floors_below(file: str) -> None:
    """This includes imports in functions and for type checking. No room imports the public `__init__.py`."""
    room = room_of(file)
    known = {name.split(".")[1] for name in imported(files()[file]) if name.startswith("gliomask.")}
    upwards = {other for other in known & FLOOR.keys() if other != room and FLOOR[other] >= FLOOR[room]}
    assert not upwards, f"{file} (floor {FLOOR[room]}) imports {upwards}"
    assert known <= FLOOR.keys() | {"__version__"}, "import from the rooms, not from gliomask itself"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_rooms(library: str) -> None:
    """Exactly the rooms in the table import it, so it is easy to replace and is not loaded where it is not needed."""
    users = {room_of(file) for file, tree in files().items() if library in {n.split(".")[0] for n in imported(tree)}}
    assert users == LIBRARIES[library]


def test_one_room_has_the_pools_of_threads_and_processes() -> None:
    """All others give their cases to `map_cases` or `ahead`, so that limits, Ctrl-C and failures are treated once."""
    pools = {"concurrent.futures", "multiprocessing", "joblib"}
    users = {file for file, tree in files().items() if any(n.startswith(tuple(pools)) for n in imported(tree))}
    # `tuning` searches rules in processes that work on one case for many rounds.
    assert users == {"execution/threads.py", "execution/processes.py", "tuning/fit.py"}


def test_only_the_cores_that_may_be_used_are_counted() -> None:
    """`os.cpu_count` is the machine's number of cores, not the process's; see `usable_cores`."""
    users = {
        file for file, tree in files().items() for node in ast.walk(tree) if getattr(node, "attr", "") == "cpu_count"
    }
    assert users == {"execution/cores.py", "inference/openvino_engine.py"}  # the latter compares the two


def test_only_these_files_need_torch_to_be_loaded() -> None:
    """Importing any other file works without torch; OpenVINO has one such file and matplotlib none."""
    loads = {
        name: {module.split(".")[0] for module in imported(tree, when_loaded=True)} for name, tree in files().items()
    }
    assert {name for name, modules in loads.items() if "torch" in modules} == NEED_TORCH
    assert {n for n, m in loads.items() if "openvino" in m} == {"inference/openvino_import.py"}
    assert not [name for name, modules in loads.items() if "matplotlib" in modules]
