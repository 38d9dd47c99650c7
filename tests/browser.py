"""Pages in headless Chromium, without a network or a graphics card, for the tests marked `browser`."""

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
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL on the CPU
)
PATIENCE_MS = 120_000  # for what is drawn on a busy machine without a graphics card

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


def niivue_is_there() -> bool:
    """Return whether the viewer's library is in the package."""
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
    url: str,
    allowed: tuple[str, ...],
    *,
    offline: bool = False,
    width: int = 1280,
    expected: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> Iterator[Any]:
    """Open a page, and fail the test at the end if it printed an error or sent a request outside of `allowed`.

    Messages that contain a text of `expected` are not errors. `flags` are further options of Chromium.
    """
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        context = browser.new_context(
            viewport={"width": width, "height": 800}, offline=offline, reduced_motion="reduce", accept_downloads=True
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if not _is_harmless(message.text) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(allowed) else complaints.append(r.url))
        page.goto(url)
        yield page
        browser.close()
    complaints = [text for text in complaints if not any(part in text for part in expected)]
    if complaints:
        pytest.fail(
            "the page printed errors or sent requests elsewhere: " + "; ".join(text[:300] for text in complaints)
        )


def drawn(page: Any) -> None:
    """Wait until the page has drawn the next frame, and with it everything that was requested."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _is_harmless(text: str) -> bool:
    """Return whether a message is expected: Chromium warns when pixels are read back, niivue of an oblique grid."""
    return "GPU stall due to ReadPixels" in text or "niivue-warn Warning" in text
