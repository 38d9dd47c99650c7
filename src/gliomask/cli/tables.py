"""The tables that a command keeps in its output folder while it works through several cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gliomask.cli.console import out, progress, warn

if TYPE_CHECKING:
    from gliomask.cases import Problem
    from gliomask.cohort import FolderTable


class Tables:
    """`volumes.csv`, `volumes.parquet` and `failed.csv` of a run, and its page; nothing for a single case."""

    def __init__(
        self,
        output: Path,
        cases: Mapping[str, Sequence[Path]],
        problems: Sequence[Problem] = (),
        source: Path | None = None,
    ) -> None:
        """Begin a table.

        Args:
            output: The folder; for a single mask there is no table.
            cases: The files of each case, by its id.
            problems: What cannot be used of the input.
            source: The input. What was wrong with rows of a list of this name in an earlier run is forgotten, as the
                list is read again.
        """
        from gliomask.inference.record import is_mask_name

        self._table: FolderTable | None = None
        self._said: set[str] = set()
        self._files = cases
        if len(cases) + len(problems) > 1 and not is_mask_name(output):
            from gliomask.cohort import FAILED, FolderTable, read_failed

            self._table = FolderTable(output)
            self._table.ask(cases)
            if source is not None:
                of_list = (f"{source.name}, ", f"{source.name}: ")
                self._table.ask(
                    case
                    for case, reason, _ in read_failed(output / FAILED)
                    if case.startswith(of_list) or reason.startswith(of_list)
                )
            for problem in problems:
                self._table.fail(problem.name, problem.what, problem.paths)

    def update(self) -> None:
        """Write the tables if a few seconds have passed since the last time."""
        if self._table is not None:
            self._say(self._table.write_if_due())

    def end(self, failed: Iterable[Problem] = (), *, page: bool = False, begun: bool = True) -> None:
        """Write the tables for the last time with the cases that failed, and on request `index.html`.

        Args:
            failed: The cases that failed.
            page: Also write the page, if there is a mask.
            begun: Any case was worked on. If all were refused before, nothing is written to a folder without a table:
                it may be somebody's folder of other masks.
        """
        if self._table is None:
            return
        from gliomask.cohort import VOLUMES

        for problem in failed:
            self._table.fail(problem.where, problem.what, self._files.get(problem.where, ()))
        if not begun and self._table.is_nothing():
            return
        written = self._table.write()
        self._say(written.problems)
        if written.rows > 1 and VOLUMES not in {problem.where for problem in written.problems}:
            out.print(f"table of {written.rows} cases: {self._table.folder / VOLUMES}")
        if page and written.rows:
            from gliomask.errors import InputError
            from gliomask.report import write_cohort_page

            try:
                with progress("reading masks", written.rows) as bar:
                    out.print(f"page: {write_cohort_page(self._table, lambda: bar.advance(bar.tasks[0].id))}")
            except InputError as error:  # the masks are there; the page can be made later
                warn(str(error))

    def _say(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            if problem.where not in self._said:
                self._said.add(problem.where)
                warn(str(problem))
