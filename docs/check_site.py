"""Check that the pages of a site load nothing from elsewhere, to which they may link: `check_site.py FOLDER`."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_LOADING = ("audio", "embed", "iframe", "img", "script", "source", "video")
_ELSEWHERE = re.compile(r"(https?:)?//")


class _Loads(HTMLParser):
    """Collect the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href", ""))
        elif tag in _LOADING:
            self.addresses.append(given.get("src", ""))


def loaded_from_elsewhere(folder: Path) -> list[str]:
    """Return the files of a site that load something from another place, each with the address."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text("utf-8"))
        found += [f"{page}: {address}" for address in loads.addresses if _ELSEWHERE.match(address)]
    for style in sorted(folder.rglob("*.css")):
        addresses = re.findall(r"(?:url\(|@import\s)\s*['\"]?([^'\")\s]+)", style.read_text("utf-8"))
        found += [f"{style}: {address}" for address in addresses if _ELSEWHERE.match(address)]
    return found


if __name__ == "__main__":
    elsewhere = loaded_from_elsewhere(Path(sys.argv[1]))
    if elsewhere:
        print("\n".join(elsewhere))
    sys.exit(1 if elsewhere else 0)
