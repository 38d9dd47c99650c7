"""What a file's name says: which case, which sequence, or that it is a mask."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gliomask.cases.case import MODALITIES
from gliomask.volume import NIFTI_ENDINGS

_MASK_SPELLINGS = (
    *("seg", "segm", "segmentation", "segmentations", "dseg", "label", "labels", "mask", "seg_mask", "gtv"),
    *(
        f"{tumour}{separator}{word}"
        for tumour in ("tumor", "tumour", "lesion", "brats_tumor", "glioma")
        for separator in ("", "_", "-")
        for word in ("seg", "segmentation", "mask")
    ),
    *("glistrboost", "glistrboost_manuallycorrected", "automated_approx_segm"),
)

# Above or below the other masks of a case.
_RANKS = {"glistrboost_manuallycorrected": 1, "automated_approx_segm": -1}

_EXTRACTED = 1
"""The rank of an image without skull."""

_ROLES = {spelling: modality for modality, spellings in MODALITIES.items() for spelling in spellings}
_ROLES |= dict.fromkeys(_MASK_SPELLINGS, "mask")
_LONGEST = max(map(len, _ROLES))

_LONGEST_FIRST = sorted(NIFTI_ENDINGS, key=len, reverse=True)

_SEPARATORS = " _.-"
# The letters that are `i` and `s` where upper and lower case are not told apart.
_LETTERS = str.maketrans("\u0130\u0131\u017f", "iis")

# UCSF-PDGM has `brain_segmentation` and `brain_parenchyma_segmentation` beside `tumor_segmentation`.
_BRAIN_MASK = re.compile(
    r"brain[ _-]?(?!\w*(?:tumou?r|lesion|glioma))(\w*_)?(mask|seg)|bet[ _-]?mask|skull(?![ _-]?strip)"
)

# What tools append to the name of an image from which they have removed all but the brain.
_BRAIN_EXTRACTED = re.compile(r"(.*?[^ _.-])[ _.-]+(?:bet|brain|ss|stripped|skull[ _-]?strip(?:ped)?)", re.IGNORECASE)

# BIDS entities that tell sequences or masks of one examination apart, and so are no part of its id.
_OF_ONE_IMAGE = frozenset({"acq", "ce", "rec", "echo", "part", "inv", "mt", "flip", "dir"})
_OF_ONE_MASK = _OF_ONE_IMAGE | {"desc", "label", "seg", "atlas"}
_CONTRAST = re.compile(
    r"(?:(?<=_)ce-(?!no|pre|without)[a-z0-9]+|(?<![a-z0-9])acq-(?:ce|gd|(?:gad|post(?!op)|contrast)[a-z0-9]*)(?![a-z0-9]))",
    re.IGNORECASE,
)


# What stands before the T1 in names such as `CE_T1` and `post-gd_T1w`; after `no`, `pre` and the like it means none.
_CONTRAST_BEFORE = re.compile(
    r"(?:(?P<id>.*?)[ _.-]+)??(?P<without>(?:no|non|pre|without|wo)[ _.-]*)?(?:post[ _.-]*|ce-)?"
    r"(?:ce|cm|km|gd|gad|gado|gadolinium|contrast|enhanced)",
    re.IGNORECASE | re.DOTALL,
)

# What stands before the second sequence in names such as `T1_to_FLAIR`: the first one was registered to it. `T1_2` can
# also be the id of an examination.
_REGISTERED = re.compile(
    r"(?P<first>.+?)[ _.-]+(?:(?P<number>2)|(?:reg(?:istered)?[ _.-]*)?(?:to|in|on)|reg(?:istered)?)",
    re.IGNORECASE | re.DOTALL,
)

Beside = Mapping[str, Collection[str]]
"""The sequences that names of files in one place end in, by what stands before it, folded (see `names_beside`)."""


_SHOWN = 40
"""Characters of an unusable id that are shown."""
_LONGEST_ID = 200
"""Bytes: names of files have 255 at most, and 43 of them are needed for `.partial-...-ID_probabilities.nii.gz`."""
# What Windows, and programs that exchange files with it, do not take in the name of a file.
_NOT_IN_NAMES = re.compile(r'[/\\:*?"<>|]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class FileName:
    """What a NIfTI file's name says."""

    case_id: str
    """What stands before the sequence; empty where nothing does."""
    role: str
    """The sequence, or `mask`."""
    rank: int = 0
    """Of two files for one role in one case, the one with the higher rank is used."""


def nifti_ending(path: Path) -> str:
    """Return the ending by which a file is NIfTI, as it is spelled, or an empty string."""
    name = path.name.lower()
    return next((ending for ending in _LONGEST_FIRST if name.endswith(ending)), "")


def folded(name: str) -> str:
    """Return what names have in common that differ in upper and lower case or in how Unicode composes letters.

    File systems of Windows and macOS do not tell such names apart.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def fault_of_id(case_id: str) -> str | None:
    """Return why an id cannot be the name of a case's files, on this system or another; None where it can.

    An id that reads like the name of an image or of a true mask cannot, as the mask `ID.nii.gz` would be taken for one.
    """
    found = sorted({*_NOT_IN_NAMES.findall(case_id), *(sign for sign in case_id if not sign.isprintable())})
    if found or case_id.startswith(".") or _DEVICES.fullmatch(case_id):
        shown = case_id if len(case_id) <= _SHOWN else f"{case_id[:_SHOWN]}..."
        why = "it begins with a dot" if case_id.startswith(".") else "Windows keeps it for a device"
        why = f"it has {' '.join(map(repr, found))}" if found else why
        return f"its id {shown!r} cannot be the name of a file: {why}. Use letters, digits, '-', '_' and '.'."
    if case_id and (told := read_name(Path(f"{case_id}.nii"))):
        what = "a true mask" if told.role == "mask" else f"an image ({told.role})"
        return (
            f"its id {case_id[:_SHOWN]!r} ends like the name of {what}, for which its mask would be taken. Rename it."
        )
    return fault_of_length(case_id)


def fault_of_length(case_id: str) -> str | None:
    """Return what is wrong with an id that is too long for the names of a case's files; None if it is not."""
    length = len(case_id.encode("utf-8", "surrogateescape"))
    if length <= _LONGEST_ID:
        return None
    return f"its id {case_id[:_SHOWN]!r}... has {length} bytes; the names of its files leave room for {_LONGEST_ID}."


def id_of_mask(path: Path) -> str:
    """Return the id in a mask's name, which is the whole name where it is not that of a mask."""
    told = classify(path)
    return told[0] if told and told[1] == "mask" else stem_of(path)


def stem_of(path: Path) -> str:
    """Return a NIfTI file's name without its ending."""
    return path.name[: len(path.name) - len(nifti_ending(path))]


def folder_name(folder: Path) -> str:
    """Return a folder's own name, also for `.` and `..`; links are not followed."""
    name = folder.absolute().name
    return name if name not in ("", "..") else folder.resolve().name


def shows_brain_mask(path: Path) -> bool:
    """Tell whether a NIfTI file's name is that of a brain mask."""
    return _BRAIN_MASK.search(stem_of(path).lower()) is not None


def names_beside(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Return the sequences of the files of one place by what stands before them in the names, folded."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        if (told := _spelled(path)) and told.role != "mask":
            found[folded(told.case_id)].add(told.role)
    return dict(found)


def is_registered(path: Path, beside: Beside | None = None) -> bool:
    """Tell whether a NIfTI file's name says that an image of one sequence was registered to another (`T1_to_FLAIR`).

    Args:
        path: The file.
        beside: What `names_beside` says of the files of its place.
    """
    told = _spelled(path)
    found = _REGISTERED.fullmatch(told.case_id) if told and told.role != "mask" else None
    first = _spelled(Path(f"{found['first']}.nii")) if found else None
    if told is None or found is None or first is None or first.role == "mask":
        return False
    # Before several sequences, `T1_2` is an id.
    return not found["number"] or not set((beside or {}).get(folded(told.case_id), ())) - {told.role}


def read_name(path: Path, beside: Beside | None = None) -> FileName | None:
    """Return what a NIfTI file's name says, or None where it is that of no sequence and no tumour mask.

    Images without skull (`T1_bet`, `t1_brain`) rank above others, manually corrected masks above automatic ones. In
    BIDS names a contrast agent (`ce-gd_T1w`) makes a T1 `t1c`, and entities that belong to a single image are left out
    of the id. An image that was registered to one of another sequence (`T1_to_FLAIR`) is none of the two.

    Args:
        path: The file.
        beside: What `names_beside` says of the files of its place. The end of `P1_KM` is no contrast agent but part of
            the id where `P1_KM_t1ce` lies there too.
    """
    told = _spelled(path)
    if told is None or is_registered(path, beside):
        return None
    found = _clean(told.case_id, told.role, told.rank, beside or {})
    return replace(found, rank=_EXTRACTED) if told.rank == _EXTRACTED else found


def classify(path: Path, beside: Beside | None = None) -> tuple[str, str] | None:
    """Return (id, sequence or `mask`) as a NIfTI file's name tells them, or None where it tells nothing.

    The id is what stands before the sequence, or the folder's name where nothing does. See `read_name`.
    """
    found = read_name(path, beside)
    return (found.case_id or folder_name(path.parent), found.role) if found else None


def _spelled(path: Path) -> FileName | None:
    """Return what stands before the sequence or `mask` in a name, whole, and the spelling's role and rank."""
    if shows_brain_mask(path):
        return None
    stem = stem_of(path)
    if found := _match(stem):
        return found
    extracted = _BRAIN_EXTRACTED.fullmatch(stem)
    found = _match(extracted.group(1)) if extracted else None
    return FileName(found.case_id, found.role, _EXTRACTED) if found and found.role != "mask" else None


def _match(stem: str) -> FileName | None:
    """Read the longest spelling at the end of a stem: `sub-01_ce-gad_T1w` ends in `ce-gad_t1w`, not in `t1w`."""
    lower = (stem if stem.isascii() else stem.translate(_LETTERS)).lower()
    for start in range(max(0, len(lower) - _LONGEST), len(lower)):
        if (start == 0 or lower[start - 1] in _SEPARATORS) and (role := _ROLES.get(lower[start:])):
            return FileName(stem[:start].rstrip(_SEPARATORS), role, _RANKS.get(lower[start:], 0))
    return None


def _clean(case_id: str, role: str, rank: int, beside: Beside) -> FileName:
    """Take out of the id what belongs to the single file."""
    bids = case_id.lower().startswith("sub-")
    if not bids and "t1c" in beside.get(folded(case_id), ()):
        return _without_brain(case_id, role, rank)
    before = None if bids or role == "mask" else _CONTRAST_BEFORE.fullmatch(case_id)
    if before:
        case_id = before["id"] or ""
    if (before and not before["without"]) or _CONTRAST.search(case_id):
        # With contrast a T1 is another sequence; a T2 or FLAIR is the same one, and the second choice.
        role, rank = ("t1c", rank) if role in ("t1n", "t1c") else (role, rank - 1)
    dropped = (_OF_ONE_MASK if role == "mask" else _OF_ONE_IMAGE) if bids else frozenset({"ce"})
    first, *others = case_id.split("_")
    kept = [part for part in others[:-1] if "-" not in part or part.partition("-")[0].lower() not in dropped]
    # Of `label-tumor_mask` the spelling `tumor_mask` leaves `label`.
    kept += [part for part in others[-1:] if part.partition("-")[0].lower() not in dropped]
    return _without_brain("_".join([first, *kept]), role, rank)


def _without_brain(case_id: str, role: str, rank: int) -> FileName:
    """Take the word for an image without skull from the end of the id."""
    extracted = re.fullmatch(r"(?:(.*?)[ _.-]+)?(?<!desc-)(?:brain|bet)", case_id, re.IGNORECASE)
    return FileName(case_id if extracted is None else extracted.group(1) or "", role, rank)
