"""Run the command line: `python -m gliomask`."""

from gliomask.cli import main

main()
