"""Cases whose files lie in object stores: listed there, and copied to this machine while they are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gliomask.cases.case import Case
from gliomask.cases.folders import LABELS_FILE, Listing, is_system_folder
from gliomask.cases.naming import classify, nifti_ending
from gliomask.errors import InputError
from gliomask.files.remote import fetch, list_url, shown, url_of


def list_remote(url: str) -> Listing:
    """Return the NIfTI files below a URL.

    Raises:
        InputError: As for `files.remote.list_url`.
    """
    found = Listing()
    for path in list_url(url):
        if nifti_ending(path) and not any(is_system_folder(part) for part in path.parts):
            found.by_folder.setdefault(path.parent, []).append(path)
    found.by_folder = dict(sorted(found.by_folder.items(), key=lambda item: str(item[0])))
    return found


@contextmanager
def staged_list(path: Path) -> Iterator[Path]:
    """Give a copy of a list of cases that lies in an object store; errors about the copy name the list.

    Raises:
        InputError: As for `files.remote.fetch`.
    """
    url = url_of(path) or ""
    with TemporaryDirectory(prefix="gliomask-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        fetch(url, copy)
        try:
            yield copy
        except InputError as error:
            raise InputError(str(error).replace(str(copy), shown(url))) from error


@contextmanager
def staged(case: Case) -> Iterator[Case]:
    """Give a case with files of this machine: those that lie elsewhere are copied, and the copies are removed after.

    The copies are in the folder for temporary files (`TMPDIR`), in one of their own. A case without remote files is
    given as it is.

    Raises:
        InputError: A file is not there, or may not be read; it is named.
    """
    paths = {source.path for source in case.images.values()} | ({case.mask} if case.mask else set())
    urls = {path: url for path in paths if (url := url_of(path))}
    if not urls:
        yield case
        return
    with TemporaryDirectory(prefix="gliomask-", ignore_cleanup_errors=True) as folder:
        copies = {}
        for number, (path, url) in enumerate(sorted(urls.items())):
            place = Path(folder) / str(number)  # files of one name from several folders
            place.mkdir()
            copies[path] = place / path.name
            fetch(url, copies[path])
        images = {
            modality: replace(source, path=copies.get(source.path, source.path))
            for modality, source in case.images.items()
        }
        yield replace(case, images=images, mask=copies.get(case.mask, case.mask) if case.mask else None)


@contextmanager
def staged_masks(place: Path) -> Iterator[Path]:
    """Give a place of this machine with the masks of a remote one, and what is beside them; local places as they are.

    Images of sequences and probabilities are not copied. The copies are removed after.

    Raises:
        InputError: As for `files.remote.list_url` and `files.remote.fetch`.
    """
    url = url_of(place)
    if url is None:
        yield place
        return
    with TemporaryDirectory(prefix="gliomask-", ignore_cleanup_errors=True) as folder:
        wanted = [path for path in list_url(url) if _is_of_a_mask(path)]
        copies = [Path(folder) / path.relative_to(place) for path in wanted]
        if wanted == [place]:  # a single mask
            copies = [Path(folder) / place.name]
        for path, copy in zip(wanted, copies, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            fetch(url_of(path) or "", copy)
        yield copies[0] if wanted == [place] else Path(folder)


def _is_of_a_mask(path: Path) -> bool:
    if not nifti_ending(path):
        return path.suffix.lower() == ".json" or path.name in (LABELS_FILE, "dataset.json")
    told = classify(path)
    return (told is None or told[1] == "mask") and "probabilities" not in path.name
