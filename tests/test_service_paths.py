"""Messages to clients name files without the folders of the server, on each operating system."""

from __future__ import annotations

from pathlib import PurePath, PurePosixPath, PureWindowsPath

import pytest

from gliomask.service.paths import without_paths

JOB = "f" * 32


@pytest.mark.parametrize(
    "folder",
    [
        PureWindowsPath(rf"C:\Users\Jane Doe\gliomask-jobs\jobs\{JOB}"),
        PureWindowsPath(rf"gliomask-jobs\jobs\{JOB}"),
        PureWindowsPath(rf"\\server\share of all\jobs\{JOB}"),
        PurePosixPath(f"/home/jane doe/gliomask-jobs/jobs/{JOB}"),
        PurePosixPath(f"gliomask-jobs/jobs/{JOB}"),
        PurePosixPath(f"/{JOB}"),
    ],
    ids=str,
)
def test_a_known_folder_is_removed(folder: PurePath) -> None:
    """With spaces in its name, relative or absolute, and with either kind of separator."""
    for shown in (str(folder), folder.as_posix()):
        text = f"images: {shown}/images/image-1.nii.gz: is cut; {folder / 'results' / 'mask.nii.gz'} in {shown}."
        said = without_paths(text, folder / "images", folder / "results", folder)
        assert said == "images: image-1.nii.gz: is cut; mask.nii.gz in ."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"C:\Users\jane\run\best.safetensors: is damaged", "best.safetensors: is damaged"),
        (r"cannot read '\\server\share\a.nii'", "cannot read 'a.nii'"),
        ("no such file: /srv/gliomask/jobs/a.nii", "no such file: a.nii"),
        ("(see /a/b.json)", "(see b.json)"),
        ("24 x 28 mm, T1/T2, and/or 1 / 2; see docs/data.md", "24 x 28 mm, T1/T2, and/or 1 / 2; see docs/data.md"),
        ("http://127.0.0.1:8000/api/jobs", "http://127.0.0.1:8000/api/jobs"),
    ],
)
def test_other_absolute_paths_lose_their_folders(text: str, expected: str) -> None:
    """What only looks similar is left alone."""
    assert without_paths(text) == expected
