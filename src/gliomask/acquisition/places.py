"""The files that `predict --raw` and `preprocess` leave, and where prepared studies are found again."""

from __future__ import annotations

from pathlib import Path

from gliomask.cases.folders import PREPARATION_RECORD

RECORD = PREPARATION_RECORD
"""The file that says how a study was prepared; a folder that has it is whole."""

PREPARED_FOLDER = "prepared"
"""The folder of prepared studies in the output of `predict --raw`."""

PREPARED = "prepared"
"""The space of the prepared images, as an alternative to a sequence's own."""

PAGE_ENDINGS = (".html", "_quality.html")
"""What follows the id in the names of a study's report and of its quality page."""


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
