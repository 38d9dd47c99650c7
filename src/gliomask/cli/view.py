"""gliomask view: show a case and its masks in the browser of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import listed, out, warn
from gliomask.cli.options import Labels
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.viewer import Scene

EXAMPLES = """
**Examples**

Show a case and its own mask:

`gliomask view BraTS2021_00008`

Show where prediction and truth differ:

`gliomask view BraTS2021_00008 predictions/BraTS2021_00008.nii.gz`

`gliomask view PATIENTS predictions --case BraTS2021_00008`

Show a raw study in the patient's own space, after predict --raw:

`gliomask view STUDY masks`

`gliomask view --t1ce a.nii.gz --flair c.nii.gz mask.nii.gz`
"""

_File = Path | None


def view(
    things: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CASE [MASK]...",
            help="The folder of a case, or a folder of cases with --case; then masks: files, or folders of masks. "
            "The first mask is the prediction; the case's own mask, if it has one, is the truth.",
        ),
    ] = None,
    case: Annotated[str, typer.Option("--case", help="The case id, if CASE is a folder of several cases.")] = "",
    t1n: Annotated[_File, typer.Option("--t1", "--t1n", help="T1-weighted, native, in place of CASE.")] = None,
    t1c: Annotated[_File, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast.")] = None,
    t2w: Annotated[_File, typer.Option("--t2", "--t2w", help="T2-weighted.")] = None,
    t2f: Annotated[_File, typer.Option("--flair", "--t2f", help="T2-FLAIR.")] = None,
    labels: Labels = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port on this machine; 0 takes a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only print its address.")
    ] = True,
) -> None:
    """Show a case in the browser: its sequences, its masks and where they differ, in slices and in 3D.

    The page is served to this machine only, under an address that cannot be guessed, until Ctrl-C. Nothing is written
    to disk or sent elsewhere. Research use only, not a medical device.
    """
    from gliomask.report import find_mask
    from gliomask.viewer import read_scene, require_niivue, serve_scene

    require_niivue()
    files = {name: path for name, path in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if path}
    scene = _raw_scene(things or [], files, case, labels)
    if scene is None:
        shown, masks = _case(things or [], files, case)
        scene = read_scene(shown, [find_mask(shown, mask) for mask in masks], labels=labels)
    with suppress(KeyboardInterrupt), serve_scene(scene, port=port) as served:
        out.print(f"{scene.title}: {served.url}")
        out.print("Press Ctrl-C to stop.", style="dim")
        if browser and not open_browser(served.url):
            warn("no browser could be opened. Open the address above in a browser on this machine.")
        served.wait()
    out.print("stopped")


def _raw_scene(things: Sequence[Path], files: Mapping[str, Path], wanted: str, labels: str | None) -> Scene | None:
    """Return the scene of a raw study, if the first mask is in the output of `predict --raw`; else None."""
    from gliomask.acquisition.places import holds_prepared

    masks = things if files else things[1:]
    if not masks or not holds_prepared(masks[0]):
        return None
    from gliomask.cli.raw_pages import read_study_scene

    return read_study_scene(None if files else things[0], files, masks, wanted, labels)


def _case(things: Sequence[Path], files: Mapping[str, Path], wanted: str) -> tuple[Case, Sequence[Path]]:
    """Return the case to show, and the masks."""
    from gliomask.cases import case_of_files, survey

    if files:
        return case_of_files(files), things
    if not things:
        raise InputError("no case given. Name the folder of a case, or images with --flair, --t1ce, --t2, --t1.")
    source, *masks = things
    if source.is_file():
        raise InputError(
            f"{source}: is a file, but a mask is shown on the images of its case. Name the folder of the case first: "
            f"gliomask view CASE {source}; or images with --flair, --t1ce, --t2, --t1."
        )
    found = survey(source)
    cases = [case for case in found.cases if case.id == wanted] if wanted else list(found.cases)
    if len(cases) == 1:
        return cases[0], masks
    ids = [case.id for case in found.cases]
    if not ids:
        raise InputError("; ".join(str(problem) for problem in found.problems))
    if wanted:
        raise InputError(f"{source}: has no case {wanted!r}; it has {listed(ids)}.")
    raise InputError(f"{source}: has {len(ids)} cases. Choose one with --case: {listed(ids)}.")


def open_browser(url: str) -> bool:
    """Open the page in a browser if there is a screen; return whether that succeeded."""
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
