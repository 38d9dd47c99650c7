"""The error for bad input, which users can correct, and how errors and names are shown in messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

# What torch, OpenVINO and oneDNN say where memory is exhausted, in lower case.
_LACKS_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "failed to allocate"),
    *("bad allocation", "bad_alloc", "out of memory", "insufficient memory", "could not allocate"),
)


class InputError(Exception):
    """Bad input: the message says what is wrong, in which file or case, and what to do.

    Raised where input enters (files, folders, options). The command line prints the message and exits with status 2.
    It can be pickled, also as a subclass with another constructor, so that worker processes can raise it.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(kind: type[InputError], args: tuple[Any, ...]) -> InputError:
    """Return an error of a kind without calling its constructor, whose parameters may differ from `args`."""
    return kind.__new__(kind, *args)


_LONGEST_NAME = 60  # characters of an unknown name that are shown; from a damaged file it may be long


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown name, with the most similar known name as a hint and a list of all known names.

    Args:
        kind: What is named, such as `network`.
        name: The name that was given.
        known: The names that exist.
    """
    choices = sorted(known)
    near = get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1)
    hint = next((f"; did you mean {choice!r}?" for choice in choices if near and choice.lower() == near[0]), "")
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return InputError(f"unknown {kind} {shown!r}{hint} (known: {', '.join(choices)})")


def describe(error: BaseException) -> str:
    """Return one line that tells the user why something failed.

    The line is the text of an `InputError`, what the operating system refused, or else that the fault is in gliomask
    and how to report it.
    """
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    if isinstance(error, MemoryError):
        return f"not enough memory{f' ({text})' if text else ''}. Close other programs, or use a smaller image."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename is not None else f"{error.strerror}."
    return (
        f"{type(error).__name__}{f': {text}' if text else ''}. This is a fault of gliomask, not of your input: please "
        "report it with the output of the same command with -v."
    )


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error means that CPU or GPU memory is exhausted; libraries report this in several ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    text = str(error).lower()
    return any(message in text for message in _LACKS_MEMORY)


def visible(text: str) -> str:
    r"""Return the text with everything that could act on a terminal written as an escape, such as `\x1b` or `\u202e`.

    Written so are control characters including line breaks, characters that change the direction of text or have no
    width, and bytes of a file name that are not UTF-8.
    """
    return text if text.isprintable() else "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    if "\udc80" <= character <= "\udcff":  # how Python represents a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
