"""Run the command line: `gliomask` and `python -m gliomask`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line and status 130 also while its modules are being imported."""
    try:
        from gliomask.cli import main as run
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
