"""The files that describe a data set as a whole: `dataset.json`, `dseg.tsv`, `labels.txt` and BIDS's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gliomask.cases import layout_of
from gliomask.exchange.targets import Target
from gliomask.labels import LONG_NAMES, TISSUES, LabelConvention

# nnU-Net chooses the normalization by these names; all but "CT" and a few others mean z-scores.
_NNUNET_CHANNELS = {"t1n": "T1", "t1c": "T1ce", "t2w": "T2", "t2f": "Flair"}

_REGION_NAMES = {"WT": "whole tumor", "TC": "tumor core", "ET": "enhancing tumor"}
_TISSUE_NAMES = {
    "NCR": "non-enhancing tumor",
    "ED": "edema",
    "ET": "enhancing tumor",
    "RC": "resection cavity",
    "CC": "cystic component",
    "WT": "whole tumor",
    "TC": "tumor core",
}


@dataclass(frozen=True)
class Contents:
    """What a converted data set holds."""

    name: str
    modalities: tuple[str, ...]
    """In the order of the channels."""
    convention: LabelConvention
    with_mask: tuple[str, ...]
    """The ids of the cases with a mask, sorted."""
    without_mask: tuple[str, ...]


def describe_dataset(target: Target, contents: Contents) -> dict[str, str]:
    """Return the text of each file that describes a data set, by its path below the data set's folder."""
    return _WRITERS[target.layout.name](contents)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def regions_of(convention: LabelConvention) -> tuple[dict[str, int | list[int]], list[int]]:
    """Return the `labels` of nnU-Net's `dataset.json` as regions, and its `regions_class_order`.

    Regions are listed from the outside in, and the order names the number that each region writes over the ones
    before: what a region has in addition to the next one inside. Tissues outside the regions follow.
    """
    labels: dict[str, list[int]] = {}
    order: list[int] = []
    members = {region: sorted(convention.regions.get(region, ())) for region in _REGION_NAMES}
    for region, inner in (("WT", "TC"), ("TC", "ET"), ("ET", None)):
        own = set(members[region]) - set(members[inner] if inner else [])
        if own:
            labels[_REGION_NAMES[region]] = members[region]
            tissue = {"WT": "ED", "TC": "NCR", "ET": "ET"}[region]
            order.append(convention.value_of(tissue) or min(own))
    for tissue in ("CC", "RC"):
        number = convention.value_of(tissue)
        if number is not None:
            labels[_TISSUE_NAMES[tissue]] = [number]
            order.append(number)
    return {name: numbers if len(numbers) > 1 else numbers[0] for name, numbers in labels.items()}, order


def _describe_nnunet(contents: Contents) -> dict[str, str]:
    convention = contents.convention
    described: dict[str, Any] = {
        "channel_names": {str(n): _NNUNET_CHANNELS[modality] for n, modality in enumerate(contents.modalities)}
    }
    if len(convention.tissues) > 1:
        regions, order = regions_of(convention)
        described |= {"labels": {"background": 0, **regions}, "regions_class_order": order}
    else:
        described["labels"] = {"background": 0} | {_TISSUE_NAMES[t]: n for n, t in convention.tissues.items()}
    described |= {"numTraining": len(contents.with_mask), "file_ending": ".nii.gz", "name": contents.name}
    return {"dataset.json": _as_json(described)}


def _describe_msd(contents: Contents) -> dict[str, str]:
    names = {"t2f": "FLAIR", "t1n": "T1w", "t1c": "t1gd", "t2w": "T2w"}
    tissues = sorted(contents.convention.tissues.items())
    return {
        "dataset.json": _as_json(
            {
                "name": contents.name,
                "tensorImageSize": "4D",
                "modality": {str(n): names[modality] for n, modality in enumerate(contents.modalities)},
                "labels": {"0": "background", **{str(n): _TISSUE_NAMES[tissue] for n, tissue in tissues}},
                "numTraining": len(contents.with_mask),
                "numTest": len(contents.without_mask),
                "training": [
                    {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
                    for case in contents.with_mask
                ],
                "test": [f"./imagesTs/{case}.nii.gz" for case in contents.without_mask],
            }
        )
    }


def _describe_brats(contents: Contents) -> dict[str, str]:
    """A `labels.txt`, where the ids do not tell the convention or tell another one."""
    layouts = [layout_of(case) for case in contents.with_mask]
    told = all(layout is not None and layout.convention == contents.convention.name for layout in layouts)
    return {} if told else {"labels.txt": f"{contents.convention.name}\n"}


def _describe_bids(contents: Contents) -> dict[str, str]:
    general = {"Name": contents.name, "BIDSVersion": "1.9.0", "GeneratedBy": [{"Name": "gliomask"}]}
    patients = sorted({case.partition("_")[0] for case in (*contents.with_mask, *contents.without_mask)})
    tissues = sorted(contents.convention.tissues.items())
    described = {
        "dataset_description.json": _as_json({**general, "DatasetType": "raw"}),
        "participants.tsv": _as_table(["participant_id"], [[patient] for patient in patients]),
        ".bidsignore": "convert.json\nsplits_final.json\n",
    }
    if contents.with_mask:
        rows = [[str(n), LONG_NAMES.get(tissue, TISSUES[tissue]), tissue] for n, tissue in tissues]
        described |= {
            "derivatives/gliomask/dataset_description.json": _as_json({**general, "DatasetType": "derivative"}),
            "derivatives/gliomask/desc-tumor_dseg.tsv": _as_table(["index", "name", "abbreviation"], rows),
        }
    return described


def _as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in (headings, *rows))


_WRITERS = {
    "brats2021": _describe_brats,
    "brats2023": _describe_brats,
    "msd": _describe_msd,
    "nnunet": _describe_nnunet,
    "bids": _describe_bids,
}
