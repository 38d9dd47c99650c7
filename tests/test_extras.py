"""Where a part of gliomask is not installed, the message names a command that installs it from the same source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gliomask import extras


class Installed:
    """An installed distribution, as far as `extras` reads it."""

    def __init__(self, record: str | None) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        return self.record if name == "direct_url.json" else None


@pytest.mark.parametrize(("editable", "option"), [(False, ""), (True, "-e ")])
def test_the_command_names_where_gliomask_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, editable: bool, option: str
) -> None:
    """A folder with the source, or a wheel; quoted, as the folder may have a blank in its name."""
    folder = tmp_path / "my copy"
    folder.mkdir()
    record = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": editable}})
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(record))
    assert extras.install_command("train") == f"pip install {option}'{folder}[train]'"
    message = str(extras.missing_extra("pictures need matplotlib", "pictures"))
    assert message.startswith("pictures need matplotlib, which is part of the extra pictures: pip install ")


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"url": 5}', '{"url": "file:///not/there/any/more"}'])
def test_without_a_usable_record_the_distribution_is_named(monkeypatch: pytest.MonkeyPatch, record: str | None) -> None:
    """As for an installation from a package index, or from a folder that was removed."""
    monkeypatch.setattr(extras, "distribution", lambda _: Installed(record))
    assert extras.install_command("train") == "pip install 'gliomask[train]'"


def test_no_message_names_an_extra_without_its_source() -> None:
    """`pip install 'gliomask[train]'` finds nothing for a copy that was installed from a folder or a wheel."""
    package = Path(extras.__file__).parent
    named = [path.name for path in package.rglob("*.py") if re.search(r"gliomask\[\w+\]", path.read_text("utf-8"))]
    assert named == []
