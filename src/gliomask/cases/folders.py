"""The NIfTI files below a folder: links are followed, cycles and hidden folders are not entered."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gliomask.cases.case import Problem
from gliomask.cases.naming import nifti_ending, read_name, stem_of

LABELS_FILE = "labels.txt"
"""A file in a folder of cases with the name of the convention of all masks in it and below; the nearest file counts."""
LABELS_TABLE = "dseg.tsv"
"""The end of the name of a BIDS table of label numbers."""

# Images in formats that are not read, which would otherwise be missing without a word.
_OTHER_IMAGES = (".mha", ".mhd", ".nrrd", ".mgz", ".mgh", ".hdr", ".img", ".img.gz", ".dcm", ".ima", ".mnc", ".nii.zip")

PREPARATION_RECORD = "preprocess.json"
"""What `gliomask preprocess` writes beside the images of a case."""
BESIDE_A_MASK = ("_edited", "_probabilities")
"""What stands between the id and the ending of files that belong to a mask of `predict`."""
NATIVE_MASKS = "native"
"""The folder beside them with brain masks on the grids of the raw images (`--native-masks`)."""

# Folders of Windows, macOS and storage servers (Synology, QNAP), some of them with deleted files. Those of Linux begin
# with a dot.
_SYSTEM_FOLDERS = frozenset(
    {"$recycle.bin", "recycler", "__macosx", "system volume information", "lost+found", "@eadir", "#recycle"}
    | {"@recycle", "#snapshot", "@recently-snapshot"}
)


@dataclass
class Listing:
    """What lies below a folder."""

    by_folder: dict[Path, list[Path]] = field(default_factory=dict)
    """NIfTI files by folder, sorted. A link whose target is missing is among them: reading it says so."""
    broken_links: list[Path] = field(default_factory=list)
    """Those of the files that are links whose targets are missing."""
    described: set[Path] = field(default_factory=set)
    """Folders with a file that may tell the label convention of masks (see `cases.conventions`)."""
    datasets: list[Path] = field(default_factory=list)
    """Folders with `imagesTr` or `imagesTs`, which are not entered."""
    passed_over: list[Problem] = field(default_factory=list)
    """Images and folders that are not used, and why."""
    problems: list[Problem] = field(default_factory=list)
    """Folders that cannot be read."""

    @property
    def files(self) -> list[Path]:
        """The NIfTI files, sorted by folder and name."""
        return [path for files in self.by_folder.values() for path in files]


def list_folder(root: Path) -> Listing:
    """Return the NIfTI files below a folder, at any depth.

    Each folder is read once, and no file is looked at by itself: on a network file system every look takes as long as
    reading a small folder.

    A link to a folder is entered unless it leads to a folder that is listed anyway or to one that contains the root, so
    no folder is listed twice and no cycle is followed.
    """
    found = Listing()
    for link in _walk(root, lambda folder: _list_one(folder, found)):
        found.passed_over.append(Problem(str(link), "a link to a folder that is searched already"))
    found.by_folder = dict(sorted(found.by_folder.items(), key=lambda item: str(item[0])))
    return found


def files_below(root: Path) -> list[Path]:
    """Return all files below a folder, of whatever kind, sorted.

    Links are followed as `list_folder` follows them. Hidden files, hidden and system folders, links whose targets are
    missing and folders that cannot be read are left out.
    """
    found: list[Path] = []

    def list_one(folder: Path) -> tuple[list[str], list[Path]]:
        try:
            with os.scandir(folder) as entries:
                content = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            return [], []
        folders = [entry for entry in content if _is_folder(entry) and not is_system_folder(entry.name)]
        found.extend(folder / entry.name for entry in content if _is_file(entry))
        linked = sorted(folder / entry.name for entry in folders if entry.is_symlink())
        return [entry.name for entry in folders if not entry.is_symlink()], linked

    _walk(root, list_one)
    return sorted(found)


def _walk(root: Path, list_one: Callable[[Path], tuple[list[str], list[Path]]]) -> list[Path]:
    """Enter a folder and those below it, each once; return the links to folders that are entered anyway.

    Args:
        root: The folder.
        list_one: Returns the names of the folders to enter in a folder, and the links to folders in it.
    """
    top = root.resolve()
    seen = {top}
    repeated = []
    folders, links = [(root, top)], deque[Path]()
    while folders or links:
        if not folders:
            link = links.popleft()
            target = link.resolve()
            if target in seen or top.is_relative_to(target):
                repeated.append(link)
                continue
            seen.add(target)
            folders.append((link, target))
        folder, real = folders.pop()
        entered, linked = list_one(folder)
        links.extend(linked)
        for name in reversed(entered):
            below = real / name
            if below not in seen:
                seen.add(below)
                folders.append((folder / name, below))
    return repeated


def place_within(root: Path, place: Path) -> Path | None:
    """Return the path by which `list_folder` of a root names a folder in it; None where it does not lie in the root."""
    top, real = root.resolve(), place.resolve()
    return root / real.relative_to(top) if real.is_relative_to(top) else None


def without_results(listing: Listing, root: Path, output: Path) -> Listing:
    """Return the listing of a root without the masks that `predict` wrote to a folder in it.

    These are files with a JSON of their name beside them, in the folder and, if it is not the root, below it. They are
    known by their names, but where a name is that of an image or a true mask the JSON is read, as converters write one
    beside images too.
    """
    inside = place_within(root, output)
    if inside is None:
        return listing
    by_folder = {}
    for folder, paths in listing.by_folder.items():
        if folder == inside or (inside != root and folder.is_relative_to(inside)):
            described = {path.name for path in folder.glob("*.json")}
            paths = [path for path in paths if not is_result(path, described)]
        if paths:
            by_folder[folder] = paths
    return replace(listing, by_folder=by_folder)


def is_result(path: Path, described: Container[str]) -> bool:
    """Tell whether a NIfTI file is a mask that `predict` wrote, or what belongs to one.

    Args:
        path: The file, in a folder that results are written to.
        described: The names of the JSON files beside it.
    """
    stem = stem_of(path)
    names = [f"{stem.removesuffix(ending)}.json" for ending in ("", *BESIDE_A_MASK)]
    record = next((name for name in names if name in described), None)
    if record is None or read_name(path) is None:
        return record is not None
    try:
        facts = json.loads(path.with_name(record).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and {"case", "model", "volumes_ml"} <= facts.keys()


def is_system_folder(name: str) -> bool:
    """Return whether a folder of this name is hidden or the system's own, and holds no case."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _list_one(folder: Path, found: Listing) -> tuple[list[str], list[Path]]:
    """Sort the content of one folder into the listing; return the names of its folders and its links to folders."""
    try:
        with os.scandir(folder) as entries:
            content = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        what = f"the folder cannot be read: {error.strerror or error}."
        found.problems.append(Problem(str(folder), what, (folder,)))
        return [], []
    if any(entry.name in ("imagesTr", "imagesTs") and _is_folder(entry) for entry in content):
        found.datasets.append(folder)
        found.passed_over += _beside_dataset(folder, content)
        return [], []
    entered, linked, files = [], [], list[Path]()
    prepared = any(entry.name == PREPARATION_RECORD for entry in content)
    for entry in content:
        path = folder / entry.name
        if _is_folder(entry):
            if prepared and entry.name == NATIVE_MASKS:
                found.passed_over.append(Problem(str(path), "masks of the brain on the grids of the raw images"))
            elif is_system_folder(entry.name):
                found.passed_over.append(Problem(str(path), "a hidden or system folder"))
            elif entry.is_symlink():
                linked.append(path)
            else:
                entered.append(entry.name)
        elif _is_wanted(entry, path, found):
            files.append(path)
    if files:
        found.by_folder[folder] = files
    return entered, linked


def _beside_dataset(folder: Path, content: Sequence[os.DirEntry[str]]) -> list[Problem]:
    """Return what lies in the folder of a data set and is not read with it."""
    read = ("imagesTr", "imagesTs", "labelsTr")
    what = f"beside a data set, of which {', '.join(read)} are read"
    return [
        Problem(str(folder / entry.name), "a hidden or system folder" if is_system_folder(entry.name) else what)
        for entry in content
        if (_is_folder(entry) and entry.name not in read)
        or (nifti_ending(folder / entry.name) and not entry.name.startswith("."))
    ]


def _is_wanted(entry: os.DirEntry[str], path: Path, found: Listing) -> bool:
    """Tell whether a file is a NIfTI file; note in the listing what else it is."""
    name = entry.name
    if not nifti_ending(path):
        if name.lower().endswith(_OTHER_IMAGES) and not name.startswith("."):
            found.passed_over.append(Problem(str(path), "an image in another format; NIfTI is needed (.nii, .nii.gz)"))
        elif name == LABELS_FILE or name.endswith(LABELS_TABLE):
            found.described.add(path.parent)
    elif name.startswith("."):
        found.passed_over.append(Problem(str(path), "a hidden file"))
    elif _is_file(entry):
        return True
    elif entry.is_symlink() and not path.exists():
        found.broken_links.append(path)
        return True
    else:
        found.passed_over.append(Problem(str(path), "not a regular file"))
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
