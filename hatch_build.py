"""Add niivue, the viewer's library, to the package when it is built. npm fetches the version of package-lock.json.

If npm is missing or fails, the package is built without it, with a warning; `gliomask view` then says what to do.
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
