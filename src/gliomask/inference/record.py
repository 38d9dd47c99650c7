"""What the JSON beside a mask records, and whether a mask is still the answer that would be computed today."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.inference.windows import Inference
from gliomask.volume import NIFTI_ENDINGS, read_volume, unreadable

_GZIP = b"\x1f\x8b"
_TRAILER = 8
"""The bytes at the end of a gzip stream: the checksum of its content and its length."""

# What each setting is called in a message.
_OPTIONS = {"window": "--window", "mirror": "--tta", "precision": "--precision", "labels": "--labels"}

FOREIGN = (
    "the mask exists already, and there is no JSON beside it to say that gliomask made it. It is left as it is; choose "
    "another folder with -o, or replace it with --overwrite."
)
"""Why a case is refused whose mask exists (see `is_foreign`)."""

Action = Literal["predict", "draw", "keep", "refuse"]


@dataclass(frozen=True)
class Wanted:
    """What a prediction is made with, and which files are wanted."""

    settings: Mapping[str, Any]
    """See `describe_settings`."""
    modalities: tuple[str, ...]
    """The sequences that the models use."""
    probabilities: bool = False
    picture: bool = False
    redraw: bool = False
    """Draw the picture again although there is one, because the sequences to show were named."""
    any_model: bool = False
    """Keep a mask although another model made it."""


@dataclass(frozen=True)
class State:
    """What remains to be done for a case, and why."""

    action: Action
    reason: str = ""
    """Why an existing mask is replaced or the case is refused, or what is special about a mask that is kept."""
    other_model: bool = False
    """Another model made the mask that is kept."""


def beside(mask: Path, ending: str) -> Path:
    """Return the path of a file that belongs to a mask, such as `CASE.json` for the ending `.json`."""
    return mask.with_name(mask.name.removesuffix(".gz").removesuffix(".nii") + ending)


def describe_settings(digests: Sequence[str], inference: Inference, convention: str) -> dict[str, Any]:
    """Return the settings that determine a mask, beside the images, ready for JSON.

    Engine and device are not among them: they change a few voxels at most.

    Args:
        digests: The SHA-256 of each model file.
        inference: How the networks are run.
        convention: The label convention of the mask.
    """
    return {
        "models": list(digests),
        "window": inference.window,
        "mirror": inference.mirror,
        "precision": inference.precision,
        "labels": convention,
        **({"cross_check": True} if inference.cross_check else {}),  # without it, as older versions wrote it
    }


def describe_images(case: Case, modalities: Sequence[str]) -> dict[str, str]:
    """Return a fingerprint of each sequence's file, from its size and its checksum; no name or header is in it.

    Raises:
        InputError: A file cannot be read.
    """
    return {
        modality: f"{fingerprint(source.path)}" + (f":{source.channel}" if source.channel is not None else "")
        for modality, source in case.images.items()
        if modality in modalities
    }


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def find_state(mask: Path, case: Case, wanted: Wanted) -> State:
    """Return what remains to be done for a case whose mask may exist already.

    A mask is kept if its JSON says that it was made by the same models with the same settings from the same images, and
    if all files that are wanted exist and are whole. A mask that was changed since, by hand for example, is kept too.
    A file without a JSON beside it may be anybody's, such as a true mask: the case is refused.
    """
    if not mask.exists():
        return State("predict")
    if is_foreign(mask):
        return State("refuse", FOREIGN)
    facts = read_facts(beside(mask, ".json"))
    if facts is None:
        return State("predict", "there is no readable JSON beside the mask")
    is_as_written = "mask" in facts and facts["mask"] == digest_of(mask.read_bytes())
    if not is_as_written:  # else it is whole, and need not be decompressed: thousands of masks are looked at
        if not is_readable(mask, mask=True):
            return State("predict", "the mask is damaged")
        if "mask" in facts:
            return _edited(mask, wanted)
    if difference := _difference(facts, case, wanted):
        return State("predict", difference)
    if wanted.probabilities and not is_readable(beside(mask, "_probabilities.nii.gz")):
        return State("predict", "its probabilities are missing or damaged")
    other = facts["settings"].get("models") != wanted.settings["models"]
    if wanted.picture and (wanted.redraw or not is_whole_png(beside(mask, ".png"))):
        return State("draw", other_model=other)
    return State("keep", other_model=other)


def _edited(mask: Path, wanted: Wanted) -> State:
    """Return what remains to be done for a mask that was changed after it was written: a picture, if it is wanted."""
    reason = "the mask was changed after it was written; it is kept (--overwrite replaces it)"
    if wanted.probabilities:
        reason += ", and its probabilities are not made"
    picture = beside(mask, ".png")
    is_old = not is_whole_png(picture) or picture.stat().st_mtime_ns < mask.stat().st_mtime_ns
    return State("draw" if wanted.picture and (wanted.redraw or is_old) else "keep", reason)


def is_foreign(mask: Path) -> bool:
    """Return whether a mask exists of which no JSON beside it says that gliomask made it."""
    return mask.is_file() and not os.path.lexists(beside(mask, ".json"))


def changes_since(mask: Path, facts: Mapping[str, Any], case: Case) -> list[str]:
    """Return what has changed since a mask was written, as its JSON tells, a sentence each; files are only read.

    Args:
        mask: The mask.
        facts: The content of the JSON beside it.
        case: The case with its images as they are now; those of a raw study are not compared.
    """
    changes = []
    if isinstance(facts.get("mask"), str) and facts["mask"] != digest_of(mask.read_bytes()):
        changes.append(
            "The mask was changed after it was predicted. The model, the probabilities and the warnings are those of "
            "the prediction."
        )
    before = facts.get("images")
    if isinstance(before, dict) and "request" not in facts:
        now: dict[str, str] = {}
        with suppress(InputError):  # an image that cannot be read is reported where it is needed
            now = describe_images(case, list(before))
        if changed := [modality for modality in now if before[modality] != now[modality]]:
            changes.append(f"{', '.join(changed)} changed after the mask was predicted. Predict the case again.")
    return changes


def is_whole_png(path: Path) -> bool:
    """Return whether a file begins and ends as a PNG does."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")


def is_mask_name(path: Path) -> bool:
    """Return whether an output path names a mask, not a folder."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def read_facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def is_readable(path: Path, *, mask: bool = False) -> bool:
    try:
        read_volume(path, mask=mask)
    except InputError:
        return False
    return True


def _difference(facts: Mapping[str, Any], case: Case, wanted: Wanted) -> str:
    """Return how a recorded prediction differs from one that would be made now; empty if it does not."""
    before, images = facts.get("settings"), facts.get("images")
    if not isinstance(before, dict) or not isinstance(images, dict):
        return "made by an older gliomask, which did not record model, settings and images"
    if before.get("models") != wanted.settings["models"] and not wanted.any_model:
        return f"made by another model ({str(facts.get('model'))[:200]})"
    options = [option for name, option in _OPTIONS.items() if before.get(name) != wanted.settings[name]]
    if options:
        return f"made with another value of {', '.join(options)}"
    if wanted.settings.get("cross_check") and not before.get("cross_check"):
        return "made without --cross-check"
    now = describe_images(case, wanted.modalities)
    if set(now) != set(images):
        return "made from other sequences"
    changed = [modality for modality in now if now[modality] != images[modality]]
    return f"made from other images ({', '.join(changed)} changed)" if changed else ""


def fingerprint(path: Path) -> str:
    """Return the size and a checksum of a file; a gzip file ends with that of its content."""
    try:
        with path.open("rb") as file:
            checksum = 0
            if file.read(2) == _GZIP and file.seek(0, os.SEEK_END) >= _TRAILER:
                file.seek(-_TRAILER, os.SEEK_END)
                return f"{file.tell() + _TRAILER}-{file.read().hex()}"
            file.seek(0)
            while block := file.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
            return f"{file.tell()}-{checksum:08x}"
    except OSError as error:
        raise unreadable(path, error) from error
