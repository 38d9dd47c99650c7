"""Pack niivue, the viewer's library, into the package: fetched by npm at build, at the version of package-lock.json.

Where there is no npm, or it fails, the build goes on without, and says so; `gliomask view` then says what to do.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASSET = Path("src/gliomask/viewer/assets/niivue.js.gz")
PACKAGE = "node_modules/@niivue/niivue"
SCRIPT = Path(PACKAGE, "dist/niivue.umd.js")


class NiivueHook(BuildHookInterface[Any]):
    """Run before each wheel, editable or not, and before the sdist, which carries the file for those without npm."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the file where it is missing or older than the lock file, and have it packed though git ignores it."""
        root = Path(self.root)
        asset, lock = root / ASSET, root / "package-lock.json"
        if not asset.is_file() or (lock.is_file() and asset.stat().st_mtime < lock.stat().st_mtime):
            problem = _install(root) or _pack(root / SCRIPT, asset)
            if problem and not asset.is_file():
                self.app.display_warning(
                    f"gliomask is built WITHOUT its viewer's library: {problem}. All else works; for `gliomask view` "
                    "install Node.js with npm and build again."
                )
        if asset.is_file():
            build_data["artifacts"].append(f"/{ASSET.as_posix()}")


def _install(root: Path) -> str | None:
    """Have npm fetch what the lock file names, unless it lies there; say what hinders."""
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
    """What a file of JSON has as a version, below these keys; None where there is no file."""
    if not file.is_file():
        return None
    content = json.loads(file.read_text("utf-8"))
    for key in keys:
        content = content[key]
    return str(content["version"])


def _pack(script: Path, asset: Path) -> str | None:
    """Gzip the script, whole or not at all; the same script gives the same bytes."""
    if not script.is_file():
        return f"{script} is missing"
    partial = asset.with_suffix(".partial")
    partial.write_bytes(gzip.compress(script.read_bytes(), 9, mtime=0))
    partial.replace(asset)
    return None
