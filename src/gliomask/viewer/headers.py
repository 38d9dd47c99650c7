"""The security headers that every response of `gliomask view` and `gliomask serve` carries."""

from __future__ import annotations

from collections.abc import Mapping

# data: and blob: are niivue's own fonts and the pictures that a user saves; nothing is loaded from elsewhere.
_CONTENT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def security_headers(content: Mapping[str, str], *, referrer: str) -> dict[str, str]:
    """Return headers with which a page can run scripts of and send requests to its own server only.

    Args:
        content: The directives of the content security policy beside those that both servers share, such as
            `connect-src`, with their values.
        referrer: The value of `Referrer-Policy`.
    """
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in {**_CONTENT, **content}.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": referrer,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=()",
        "Cache-Control": "no-store",
    }
