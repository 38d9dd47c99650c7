"""A page in a real browser, for the tests marked `browser`: Chromium without a head, a network or a graphics card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from gliomask.errors import InputError
from gliomask.viewer import require_niivue

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL by the processor
)

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


def niivue_is_there() -> bool:
    try:
        require_niivue()
    except InputError:
        return False
    return True


NEEDS_VIEWER = [
    *NEEDS_BROWSER,
    pytest.mark.skipif(not niivue_is_there(), reason="needs niivue: build gliomask where npm is"),
]


@contextmanager
def open_page(
    url: str, allowed: tuple[str, ...], *, offline: bool = False, width: int = 1280, expected: tuple[str, ...] = ()
) -> Iterator[Any]:
    """Open a page; whatever it asks of the network beside `allowed`, or complains of, fails the test at the end.

    What is said in a text of `expected` is no complaint.
    """
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=offline, reduced_motion="reduce", accept_downloads=True
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if not _is_harmless(message.text) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(allowed) else complaints.append(r.url))
        page.goto(url)
        yield page
        browser.close()
    complaints = [text for text in complaints if not any(part in text for part in expected)]
    if complaints:
        pytest.fail("the page complained or asked elsewhere: " + "; ".join(text[:300] for text in complaints))


def drawn(page: Any) -> None:
    """Wait until what was asked for is drawn: that is done with the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _is_harmless(text: str) -> bool:
    """Chromium tells of its own slowness when a test reads pixels back; niivue of the test grid's slant."""
    return "GPU stall due to ReadPixels" in text or "niivue-warn Warning" in text
