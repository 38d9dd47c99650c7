"""Bad input: the one exception that a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Say what is wrong with the input, in which file or case, and what to do about it.

    Raised where input enters (files, folders, options); the command line prints its text and exits with status 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in the list, with the nearest known one as a hint."""
    choices = sorted(known)
    near = get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1)
    hint = next((f"; did you mean {choice!r}?" for choice in choices if near and choice.lower() == near[0]), "")
    return InputError(f"unknown {kind} {name!r}{hint} (known: {', '.join(choices)})")
