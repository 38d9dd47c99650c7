"""What the names of channels and labels in other programs' files mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gliomask.cases import MODALITIES, get_modality
from gliomask.errors import InputError
from gliomask.labels import CONVENTIONS, REGIONS

# Spellings are compared in lower case and without anything but letters and digits.
_CHANNELS: Mapping[str, str] = {
    **{re.sub(r"[^a-z0-9]", "", s.lower()): m for m, spellings in MODALITIES.items() for s in spellings},
    **dict.fromkeys(("t1", "t1w", "t1native", "t1pre", "t1weighted", "t1wnative", "pret1"), "t1n"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c", "t1post", "t1wce", "t1wgd", "cet1", "cet1w", "t1contrast", "t1wc"), "t1c"),
    **dict.fromkeys(("t2", "t2w", "t2weighted"), "t2w"),
    **dict.fromkeys(("flair", "t2flair", "t2f", "fla", "t2wflair"), "t2f"),
}

_TISSUES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("ncr", "net", "ncrnet", "netc", "necrosis", "necrotic", "necroticcore", "necrotictumorcore"),
            *("nonenhancingtumor", "nonenhancing", "nonenhancingtumorcore", "nonenhancingcore", "nec"),
            *("necroticandnonenhancingtumor", "necroticandnonenhancingtumorcore", "necroticnonenhancingtumorcore"),
            *("necroticnonenhancingtumor", "necrosisandnonenhancingtumor", "ncrnonenhancing"),
        ),
        "NCR",
    ),
    **dict.fromkeys(
        (
            *("ed", "edema", "oedema", "peritumoraledema", "peritumoraloedema", "snfh", "infiltration"),
            *("surroundingnonenhancingflairhyperintensity", "peritumoraledematoustissue", "invadedtissue"),
            "peritumoraledematousinvadedtissue",
        ),
        "ED",
    ),
    **dict.fromkeys(
        ("et", "enhancingtumor", "enhancing", "gdenhancingtumor", "enhancingtissue", "enhancingtumorcore", "at"), "ET"
    ),
    **dict.fromkeys(("rc", "resectioncavity", "cavity", "surgicalcavity"), "RC"),
    **dict.fromkeys(("cc", "cysticcomponent", "cyst"), "CC"),
    **dict.fromkeys(("wt", "wholetumor", "completetumor"), "WT"),
    **dict.fromkeys(("tc", "tumorcore"), "TC"),
}

_CHOICES = (
    "whole tumor, tumor core, enhancing tumor, edema, necrosis, non-enhancing tumor, resection cavity, cystic component"
)


@dataclass(frozen=True)
class Labels:
    """What the output channels of a network mean."""

    regions: tuple[str, ...]
    """The regions, in the order of the channels if there are no classes."""
    classes: tuple[str, ...]
    """The tissue of each channel of a softmax; empty for a network with a sigmoid for each region."""
    convention: str
    """The label convention whose numbers are the network's own, or the nearest one."""


def read_channels(names: Sequence[str], where: str, model: Path) -> tuple[str, ...]:
    """Return the sequence of each channel from its name.

    Args:
        names: The channels' names in their order.
        where: The file that has them, for messages.
        model: The model, for messages.

    Raises:
        InputError: A name says no sequence, or two channels have the same one.
    """
    found = [_CHANNELS.get(_plain(name).removesuffix("mri").removesuffix("image")) for name in names]
    unclear = [name for name, modality in zip(names, found, strict=True) if modality is None]
    if unclear or len(set(found)) < len(found):
        which = ", ".join(map(repr, unclear)) or "two channels name the same sequence"
        example = ",".join(("t1", "t1ce", "t2", "flair")[: len(names)])
        raise InputError(
            f"{where}: the channels are called {', '.join(map(repr, names))}, which does not say which sequences they "
            f"are ({which}). Write the model once as a file that says it, with the sequences in the order of the "
            f"channels, such as: gliomask import {model} -o imported.safetensors --channels {example}. Then use -m "
            "imported.safetensors."
        )
    return tuple(modality for modality in found if modality is not None)


def given_channels(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the sequences that the user named for the channels.

    Raises:
        InputError: A name is unknown or repeated, or there are not as many as channels.
    """
    found = tuple(get_modality(name.strip()) for name in names)
    if len(found) != count or len(set(found)) < count:
        raise InputError(f"--channels names {', '.join(names)}, but the network has {count} channels, each of its own.")
    return found


def read_classes(labels: Mapping[str, int], where: str) -> Labels:
    """Return the meaning of classes, whose labels are the numbers from 0 for the background.

    Raises:
        InputError: A name does not say which tissue it is, or the numbers are not 0, 1, 2, ...
    """
    by_value = {value: name for name, value in labels.items()}
    if sorted(by_value) != list(range(len(by_value))) or len(by_value) != len(labels) or len(by_value) < 2:
        raise InputError(f"{where}: the labels must be 0 for the background and then 1, 2, ...; got {dict(labels)}.")
    tissues = {value: _tissue(by_value[value], where) for value in range(1, len(by_value))}
    if len(set(tissues.values())) < len(tissues):
        raise InputError(f"{where}: two labels mean the same tissue ({tissues}).")
    regions = tuple(region for region, members in REGIONS.items() if members & set(tissues.values()))
    return Labels(regions, ("", *tissues.values()), _convention(tissues))


def read_regions(labels: Mapping[str, Sequence[int]], where: str) -> Labels:
    """Return the meaning of regions, each a set of numbers, in the order of the network's channels.

    Raises:
        InputError: A name is no region, or the numbers contradict the names.
    """
    by_region = {_region(name, where): frozenset(values) for name, values in labels.items()}
    if len(by_region) < len(labels):
        raise InputError(f"{where}: two labels mean the same region ({', '.join(labels)}).")
    nested = [by_region[region] for region in ("ET", "TC", "WT") if region in by_region]
    if any(not inner <= outer for inner, outer in pairwise(nested)):
        raise InputError(
            f"{where}: the enhancing tumor must be part of the core, and the core part of the whole tumor; got "
            f"{ {name: list(values) for name, values in labels.items()} }."
        )
    tissues = {}
    for region, tissue in (("RC", "RC"), ("WT", "ED"), ("TC", "NCR"), ("ET", "ET")):
        for value in by_region.get(region, ()):
            tissues[value] = tissue
    return Labels(tuple(by_region), (), _convention(tissues))


def read_region_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the region of each channel from its name.

    Raises:
        InputError: A name is no region, or two channels have the same one.
    """
    found = tuple(_region(name, where) for name in names)
    if len(set(found)) < len(found):
        raise InputError(f"{where}: two channels mean the same region ({', '.join(names)}).")
    return found


def _tissue(name: str, where: str) -> str:
    tissue = _TISSUES.get(_plain(name))
    if tissue is None:
        raise _unclear(name, where)
    return tissue


def _region(name: str, where: str) -> str:
    tissue = _TISSUES.get(_plain(name))
    if tissue is None or tissue not in REGIONS:
        raise _unclear(name, where)
    return tissue


def _unclear(name: str, where: str) -> InputError:
    return InputError(
        f"{where}: the label {name[:100]!r} does not say what it is. Rename it there to one of: {_CHOICES}; a network "
        "with regions has the first three and the resection cavity only."
    )


def _convention(tissues: Mapping[int, str]) -> str:
    """Return the convention with these numbers, or else one that can express the tissues."""
    same = [c.name for c in CONVENTIONS.values() if dict(c.tissues) == dict(tissues)]
    if same:
        return same[0]
    return "brats2024" if "RC" in tissues.values() else "brats2023"


def _plain(name: str) -> str:
    """Return a name in lower case, with letters and digits only, in American spelling."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).replace("tumour", "tumor")
