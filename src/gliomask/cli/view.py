"""gliomask view: show a case and its masks in the browser of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomask.cli.console import listed, out, warn
from gliomask.cli.options import Labels
from gliomask.errors import InputError

if TYPE_CHECKING:
    from gliomask.cases import Case
    from gliomask.viewer import Editing, Scene

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

Correct a prediction; the result is saved as BraTS2021_00008_edited.nii.gz:

`gliomask view BraTS2021_00008 predictions --edit`

Show two examinations of a patient, registered to each other:

`gliomask view BEFORE --beside AFTER`
"""

_File = Path | None


def view(
    things: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CASE [MASK]...",
            help="The folder of a case, or a folder or list of cases with --case; then masks: files, or folders of "
            "masks. The first mask is the prediction; the case's own mask, if it has one, is the truth.",
        ),
    ] = None,
    case: Annotated[str, typer.Option("--case", help="The case id, if CASE is a folder of several cases.")] = "",
    t1n: Annotated[_File, typer.Option("--t1", "--t1n", help="T1-weighted, native, in place of CASE.")] = None,
    t1c: Annotated[_File, typer.Option("--t1c", "--t1ce", "--t1gd", help="T1-weighted, after contrast.")] = None,
    t2w: Annotated[_File, typer.Option("--t2", "--t2w", help="T2-weighted.")] = None,
    t2f: Annotated[_File, typer.Option("--flair", "--t2f", help="T2-FLAIR.")] = None,
    beside: Annotated[
        _File,
        typer.Option(
            "--beside",
            help="The folder of a second examination on the same coordinates, shown beside the first one; its mask is "
            "its own, or the one that a folder of masks has for it.",
        ),
    ] = None,
    edit: Annotated[
        bool,
        typer.Option(
            "--edit", help="Correct the mask in the page; it is saved as CASE_edited.nii.gz, with CASE_edited.json."
        ),
    ] = False,
    output: Annotated[
        _File,
        typer.Option("--output", "-o", help="With --edit: the folder to save to.", show_default="that of the mask"),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="With --edit: who corrects the mask, for CASE_edited.json.")] = "",
    labels: Labels = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port on this machine; 0 takes a free one.")
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only print its address.")
    ] = True,
) -> None:
    """Show a case in the browser: its sequences, its masks and where they differ, in slices and in 3D.

    The page is served to this machine only, under an address that cannot be guessed, until Ctrl-C. Nothing is sent
    elsewhere, and nothing is written to disk without --edit. Research use only, not a medical device.
    """
    from gliomask.viewer import require_niivue, serve_scene

    require_niivue()
    files = {name: path for name, path in (("t1n", t1n), ("t1c", t1c), ("t2w", t2w), ("t2f", t2f)) if path}
    scene, original = _scene(things or [], files, case, labels)
    second = _second(beside, things or [], labels) if beside else None
    with ExitStack() as stack:
        stack.enter_context(suppress(KeyboardInterrupt))
        editing = stack.enter_context(_editing(scene, original, output, by)) if edit else None
        served = stack.enter_context(serve_scene(scene, beside=second, editing=editing, port=port))
        out.print(f"{scene.title}: {served.url}")
        if editing is not None and editing.saved is not None:
            out.print(f"continues the correction {editing.target}")
        out.print("Press Ctrl-C to stop.", style="dim")
        if browser and not open_browser(served.url):
            warn("no browser could be opened. Open the address above in a browser on this machine.")
        served.wait()
    out.print("stopped")


def _scene(
    things: Sequence[Path], files: Mapping[str, Path], wanted: str, labels: str | None
) -> tuple[Scene, Path | None]:
    """Return the scene, and the file of the mask that was named first, or else the case's own, if it can be edited."""
    from gliomask.report import find_mask
    from gliomask.viewer import read_scene

    raw = _raw_scene(things, files, wanted, labels)
    if raw is not None:
        return raw, None
    case, masks = _case(things, files, wanted)
    found = [find_mask(case, mask) for mask in masks]
    return read_scene(case, found, labels=labels), found[0] if found else case.mask


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
    from gliomask.cases import case_of_files, is_table, survey

    if files:
        return case_of_files(files), things
    if not things:
        raise InputError("no case given. Name the folder of a case, or images with --flair, --t1ce, --t2, --t1.")
    source, *masks = things
    if source.is_file() and not is_table(source):
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


def _editing(scene: Scene, original: Path | None, output: Path | None, by: str) -> AbstractContextManager[Editing]:
    """Return the correction of the mask that was read from a file."""
    from gliomask.viewer import edit_mask

    if original is None:
        raise InputError(
            f"{scene.title}: has no mask that can be edited. Name one after the case: gliomask view CASE MASK --edit; "
            "masks of raw studies cannot be edited."
        )
    return edit_mask(scene, original, output or original.parent, by=by)


def _second(folder: Path, things: Sequence[Path], labels: str | None) -> Scene:
    """Return the second examination, with the masks that folders of masks have for it."""
    from gliomask.report import find_mask
    from gliomask.viewer import read_scene

    case, _ = _case([folder], {}, "")
    found = []
    for mask in things[1:]:
        if mask.is_dir():
            with suppress(InputError):
                found.append(find_mask(case, mask))
    return read_scene(case, found, labels=labels)


def open_browser(url: str) -> bool:
    """Open the page in a browser if there is a screen; return whether that succeeded."""
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
