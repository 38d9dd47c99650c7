"""Brain extraction by other programs that the user has installed: SynthStrip of FreeSurfer, and HD-BET."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.execution import ended_in_order
from gliomask.volume import Volume, read_volume, write_volume

Mask = NDArray[np.bool_]
StrippingTool = Literal["synthstrip", "hd-bet"]
STRIPPING_TOOLS: tuple[StrippingTool, ...] = ("synthstrip", "hd-bet")

_PROGRAMS = {"synthstrip": "mri_synthstrip", "hd-bet": "hd-bet"}
# HD-BET takes minutes on a CPU; one that takes an hour hangs.
_LONGEST_SECONDS = 3600.0


def find_program(tool: StrippingTool) -> str:
    """Return the path of a tool's program.

    Raises:
        InputError: It is not installed.
    """
    found = shutil.which(_PROGRAMS[tool])
    if found is None:
        raise InputError(
            f"--skull-strip {tool}: the program {_PROGRAMS[tool]} was not found. Install it, or use --skull-strip "
            "deepbet, which is part of gliomask."
        )
    return found


def strip_with(tool: StrippingTool, image: Volume) -> Mask:
    """Return the brain mask `(X, Y, Z)` that a tool finds in the first channel of an image.

    Raises:
        InputError: The tool is not installed, fails, or takes longer than an hour.
    """
    program = find_program(tool)
    with ended_in_order(), TemporaryDirectory(prefix="gliomask-") as folder:
        head = Path(folder) / "head.nii.gz"
        write_volume(head, Volume(image.data[:1].astype(np.float32), image.affine))
        words, mask = _command(tool, program, head)
        try:
            done = subprocess.run(words, capture_output=True, timeout=_LONGEST_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{program} could not be run: {error}") from error
        if done.returncode or not mask.is_file():
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise InputError(f"{program} failed with status {done.returncode}: {' '.join(last)[:200]}")
        found: Mask = read_volume(mask, mask=True).data[0] > 0
        return found


def _command(tool: StrippingTool, program: str, head: Path) -> tuple[list[str], Path]:
    """The command line, and where it writes the mask."""
    if tool == "synthstrip":
        mask = head.with_name("mask.nii.gz")
        return [program, "-i", str(head), "-m", str(mask)], mask
    stripped = head.with_name("brain.nii.gz")
    options = ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
    return [program, "-i", str(head), "-o", str(stripped), *options], head.with_name("brain_bet.nii.gz")
