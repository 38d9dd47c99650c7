"""The documentation that is part of the package: its pages, and HTML of them that a browser opens from the disk."""

from gliomask.manual.pages import GROUPS, NOT_RUN, find_pages, page_source, shows_commands
from gliomask.manual.render import default_folder, write_manual

__all__ = ["GROUPS", "NOT_RUN", "default_folder", "find_pages", "page_source", "shows_commands", "write_manual"]
