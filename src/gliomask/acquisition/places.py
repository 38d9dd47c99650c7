"""The files that `predict --raw` and `preprocess` leave, and where prepared studies are found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gliomask.cases.folders import PREPARATION_RECORD, is_result, place_within
from gliomask.cases.naming import nifti_ending

RECORD = PREPARATION_RECORD
"""The file that says how a study was prepared; a folder that has it is whole."""

PREPARED_FOLDER = "prepared"
"""The folder of prepared studies in the output of `predict --raw`."""

PREPARED = "prepared"
"""The space of the prepared images, as an alternative to a sequence's own."""

PAGE_ENDINGS = (".html", "_quality.html")
"""What follows the id in the names of a study's report and of its quality page."""


DICOM_ENDINGS = {"dicom-seg": "_seg.dcm", "rtstruct": "_rtstruct.dcm"}
"""What follows the id in the names of masks as DICOM objects, by their kind."""


def without_results(files: Sequence[Path], source: Path, output: Path) -> list[Path]:
    """Return the files below a folder of studies without what `predict --raw` or `preprocess` wrote to a folder in it.

    Args:
        files: All files below the source.
        source: The folder of studies.
        output: The folder of the results; if it does not lie in the source, all files are returned.
    """
    inside = place_within(source, output)
    if inside is None:
        return list(files)
    prepared = {file.parent for file in files if file.name == RECORD}
    if inside != source:
        prepared.add(inside / PREPARED_FOLDER)  # also what a killed process left there
    described: dict[Path, set[str]] = {}
    for file in files:
        if file.suffix == ".json":
            described.setdefault(file.parent, set()).add(file.name)

    def is_own(file: Path) -> bool:
        names = described.get(file.parent, set())
        return file.is_relative_to(inside) and (
            not prepared.isdisjoint(file.parents)
            or any(
                file.name.endswith(ending) and f"{file.name.removesuffix(ending)}.json" in names
                for ending in DICOM_ENDINGS.values()
            )
            or (bool(nifti_ending(file)) and is_result(file, names))
        )

    return [file for file in files if not is_own(file)]


def find_prepared(output: Path, study_id: str) -> Path | None:
    """Return the folder of a prepared study in the output of `predict --raw` or `preprocess`, or None.

    Args:
        output: The folder that was named with `-o`, or a mask in it.
        study_id: The id of the study.
    """
    folder = output.parent if output.is_file() else output
    places = (folder / PREPARED_FOLDER / study_id, folder / study_id)
    return next((place for place in places if (place / RECORD).is_file()), None)


def holds_prepared(output: Path) -> bool:
    """Tell whether a folder, or the folder of a mask, is the output of `predict --raw` or `preprocess`."""
    folder = output.parent if output.is_file() else output
    return any(True for pattern in (f"{PREPARED_FOLDER}/*/{RECORD}", f"*/{RECORD}") for _ in folder.glob(pattern))
