"""Remove paths of the server from messages that clients see."""

from __future__ import annotations

import re
from pathlib import PurePath

# An absolute path of POSIX or Windows (drive or network share) up to its last separator.
_ABSOLUTE = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:[\\/]+|\\\\|/)(?:[^\\/:*?"<>|\s]+[\\/]+)+""")


def without_paths(text: str, *folders: PurePath) -> str:
    """Return a message in which files are called by their names only.

    Args:
        text: The message.
        folders: Folders that occur in it, relative or absolute, with either kind of separator. Their names may contain
            spaces; other absolute paths are recognised only if they contain none.
    """
    for folder in sorted(folders, key=lambda one: len(str(one)), reverse=True):
        names = [re.escape(name) for part in folder.parts for name in re.split(r"[\\/]+", part) if name]
        if names:
            start = r"[\\/]*" if folder.anchor else ""
            text = re.sub(start + r"[\\/]+".join(names) + r"(?:[\\/]+|(?![\w-]|\.\w))", "", text)
    return _ABSOLUTE.sub("", text)
