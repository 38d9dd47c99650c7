"""Conversion: a case is the same in every layout, and what would be lost is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import AFFINE, SHAPE, nested_ellipsoids
from gliomask.cases import LAYOUTS, MODALITIES, Case, find_cases, read_case, read_mask, resolve_conventions
from gliomask.errors import InputError
from gliomask.exchange import TARGETS, Settings, choose_convention, convert_dataset, get_target, restore_ids
from gliomask.exchange.description import regions_of
from gliomask.labels import CONVENTIONS, REGIONS, get_convention, label_values, to_regions
from gliomask.volume import Volume, read_volume, write_volume

WriteCase = Callable[..., Case]
FolderOf = Callable[..., Path]


def convert(source: Path, output: Path, layout: str, labels: str | None = None) -> list[Case]:
    """Convert a folder and return the new cases."""
    cases = restore_ids(source, resolve_conventions(find_cases(source), labels))
    target = get_target(layout)
    modalities = tuple(m for m in target.layout.modalities if m in cases[0].images)
    outcome = convert_dataset(cases, output, Settings(target, modalities, choose_convention(target, cases)))
    assert outcome.problems == ()
    return resolve_conventions(find_cases(output))


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same(first: Case, second: Case) -> None:
    """Two cases have the same sequences, voxels, places and tissues."""
    assert set(first.images) == set(second.images)
    names = tuple(sorted(first.images))
    one, other = read_case(first, names), read_case(second, names)
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    regions = [
        to_regions(read_mask(case).data[0], get_convention(case.convention or ""), tuple(REGIONS))
        for case in (first, second)
    ]
    np.testing.assert_array_equal(*regions)


@pytest.mark.parametrize("layout", TARGETS)
def test_there_and_back_is_the_same_case(folder_of: FolderOf, tmp_path: Path, layout: str) -> None:
    """Voxels, places, tissues and ids are the same, and the new folder is read as what it is, without any option."""
    source = folder_of(2)
    there = convert(source, tmp_path / "there", layout)
    back = convert(tmp_path / "there", tmp_path / "back", "brats2021")
    assert {case.convention for case in there} == {get_target(layout).conventions[0]}
    assert [case.id for case in back] == ["BraTS2021_00001", "BraTS2021_00002"]
    for before, between, after in zip(find_cases(source), there, back, strict=True):
        assert_same(before, between)
        assert_same(before, after)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "brats2021"])
def test_every_layout_that_is_read_can_be_converted(write_case: WriteCase, tmp_path: Path, layout: str) -> None:
    """Each becomes a data set for nnU-Net with the sequences and tissues that it has."""
    source = write_case(layout)
    labels = source.convention or "brats2024-ped"
    (converted,) = convert(tmp_path / "data", tmp_path / "nnunet", "nnunet", labels)
    assert converted.id == source.id
    assert_same(resolve_conventions([source], labels)[0], converted)


@pytest.mark.parametrize("name", [name for name, convention in CONVENTIONS.items() if len(convention.tissues) > 1])
def test_the_regions_of_nnunet_give_the_labels_back(name: str) -> None:
    """nnU-Net writes each region's number over the regions before, in the order of `regions_class_order`."""
    convention = get_convention(name)
    labels = np.arange(256, dtype=np.uint8)
    labels[~np.isin(labels, sorted(convention.values))] = 0
    regions, order = regions_of(convention)
    painted = np.zeros_like(labels)
    for numbers, number in zip(regions.values(), order, strict=True):
        painted[np.isin(labels, numbers)] = number
    np.testing.assert_array_equal(painted, labels)


def test_the_description_is_what_nnunet_wants(folder_of: FolderOf, tmp_path: Path) -> None:
    """It names channels, regions from the outside in, the number of training cases and the ending."""
    source = folder_of(3)
    (source / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz").unlink()
    convert(source, tmp_path / "Dataset137_BraTS", "nnunet")
    described = json.loads((tmp_path / "Dataset137_BraTS" / "dataset.json").read_text())
    assert described == {
        "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
        "regions_class_order": [1, 2, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "name": "Dataset137_BraTS",
    }
    names = {part: file_names(tmp_path / "Dataset137_BraTS" / part) for part in ("labelsTr", "imagesTs")}
    assert names["labelsTr"] == ["BraTS2021_00001.nii.gz", "BraTS2021_00002.nii.gz"]
    assert names["imagesTs"] == [f"BraTS2021_00003_000{channel}.nii.gz" for channel in range(4)]


def test_the_description_of_msd_lists_its_cases(folder_of: FolderOf, tmp_path: Path) -> None:
    """Channels are in the order of Task01, and images without a mask are test cases."""
    source = folder_of(2)
    (source / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz").unlink()
    convert(source, tmp_path / "task", "msd")
    described = json.loads((tmp_path / "task" / "dataset.json").read_text())
    assert described["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert described["training"] == [
        {"image": "./imagesTr/BraTS2021_00001.nii.gz", "label": "./labelsTr/BraTS2021_00001.nii.gz"}
    ]
    assert (described["test"], described["numTraining"]) == (["./imagesTs/BraTS2021_00002.nii.gz"], 1)
    first, second = find_cases(tmp_path / "task" / "dataset.json")
    assert (first.mask is None, second.mask is None) == (False, True)


def test_bids_names_have_sessions_and_a_table_of_labels(write_case: WriteCase, tmp_path: Path) -> None:
    """Patient and time point become `sub-` and `ses-`; what is not a letter or digit is dropped."""
    write_case("brats2023")
    (case,) = convert(tmp_path / "data", tmp_path / "bids", "bids")
    assert (case.id, case.patient, case.timepoint) == ("sub-GLI00001_ses-000", "sub-GLI00001", "000")
    place = tmp_path / "bids" / "sub-GLI00001" / "ses-000" / "anat"
    assert case.images["t1c"].path == place / "sub-GLI00001_ses-000_ce-gadolinium_T1w.nii.gz"
    table = (tmp_path / "bids" / "derivatives" / "gliomask" / "desc-tumor_dseg.tsv").read_text().splitlines()
    assert table[0] == "index\tname\tabbreviation"
    assert table[3] == "3\tenhancing tumour\tET"


def with_cavity(case: Case) -> None:
    """Write a resection cavity into a mask, as BraTS 2024 labels it."""
    assert case.mask is not None
    volume = read_volume(case.mask, mask=True)
    labels = volume.data.copy()
    labels[0, 3:6, 3:6, 3:6] = 4
    write_volume(case.mask, Volume(labels, volume.affine))


def test_a_cavity_is_kept_or_refused(gliomask, write_case: WriteCase, tmp_path: Path) -> None:
    """BraTS 2021 has no number for it; 2023 then takes the numbers of 2024; nothing is dropped silently."""
    with_cavity(write_case("brats2024", number=1))
    write_case("brats2024", number=2)
    status, said = gliomask("convert", tmp_path / "data", "-o", tmp_path / "old", "--layout", "brats2021")
    assert status == 1
    assert "BraTS-GLI-00001-100: its mask has 27 voxels of RC (resection cavity), which has no number" in said
    assert [case.id for case in find_cases(tmp_path / "old")] == ["BraTS-GLI-00002-100"]
    first, _ = convert(tmp_path / "data", tmp_path / "new", "brats2023")
    assert first.convention == "brats2024"
    assert 4 in label_values(read_mask(first).data)
    convert(tmp_path / "data", tmp_path / "nnunet", "nnunet")
    labels = json.loads((tmp_path / "nnunet" / "dataset.json").read_text())["labels"]
    assert (labels["whole tumor"], labels["resection cavity"]) == ([1, 2, 3], 4)


def test_masks_of_one_region_stay_masks_of_one_region(gliomask, folder_of: FolderOf, tmp_path: Path) -> None:
    """`wt-only` is described as the whole tumour, and not as its first part."""
    source = folder_of(1)
    (case,) = find_cases(source)
    write_volume(case.mask, Volume((nested_ellipsoids(1)[1] > 0)[None].astype(np.uint8), AFFINE))
    (source / "labels.txt").write_text("wt-only")
    for layout in TARGETS:
        (converted,) = convert(source, tmp_path / layout, layout)
        assert (converted.convention, converted.convention_given) == ("wt-only", True)
    status, said = gliomask(
        *("convert", source, "-o", tmp_path / "x", "--layout", "nnunet", "--write-labels", "brats2021")
    )
    assert status == 2
    assert "--write-labels brats2021: not in layout nnunet" in said


def test_a_missing_sequence_is_refused_or_named(gliomask, write_case: WriteCase, tmp_path: Path) -> None:
    """nnU-Net needs the same channels in every case; BraTS folders may lack some."""
    write_case(number=1)
    write_case(number=2, missing=["t1n"])
    words = ("convert", tmp_path / "data", "--layout")
    status, said = gliomask(*words, "nnunet", "-o", tmp_path / "a")
    assert status == 1
    assert "BraTS2021_00002: has no t1n; in layout nnunet every case has the same sequences" in said
    assert "1 case in" in said
    status, said = gliomask(*words, "nnunet", "-o", tmp_path / "b", "--modalities", "flair,t1ce")
    assert status == 0
    described = json.loads((tmp_path / "b" / "dataset.json").read_text())
    assert (described["channel_names"], described["numTraining"]) == ({"0": "Flair", "1": "T1ce"}, 2)
    status, said = gliomask(*words, "brats2023", "-o", tmp_path / "c")
    assert status == 0
    assert "without t1n, which they do not have: BraTS2021_00002" in said


def test_links_are_made_where_nothing_changes(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """Images are linked, masks with other numbers are written, and converting anew leaves the originals as they are."""
    source = folder_of(1)
    (before,) = find_cases(source)
    words = ("convert", source, "-o", tmp_path / "n", "--layout", "nnunet", "--write-labels", "brats2023")
    status, said = gliomask(*words, "--link")
    assert (status, "4 linked, 1 rewritten" in said) == (0, True)
    (linked,) = find_cases(tmp_path / "n")
    assert all(linked.images[m].path.samefile(before.images[m].path) for m in MODALITIES)
    content = {m: before.images[m].path.read_bytes() for m in MODALITIES}
    status, said = gliomask(*words, "--overwrite")
    assert (status, "4 copied, 1 rewritten" in said) == (0, True)
    assert not any(linked.images[m].path.samefile(before.images[m].path) for m in MODALITIES)
    assert content == {m: before.images[m].path.read_bytes() for m in MODALITIES}
    status, said = gliomask("convert", source, "-o", tmp_path / "b", "--layout", "brats2021", "--link")
    assert (status, "5 linked" in said) == (0, True)


def test_axes_in_another_order_are_written_alike(write_case: WriteCase, tmp_path: Path) -> None:
    """nnU-Net wants all files of a case on one grid; a reoriented sequence is written as the others are stored."""
    case = write_case()
    path = case.images["t2f"].path
    volume = read_volume(path)
    flipped = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write_volume(path, Volume(volume.data[:, ::-1], flipped))
    (converted,) = convert(tmp_path / "data", tmp_path / "n", "nnunet")
    assert read_case(converted, ("t1n", "t2f")).notes == ()
    assert_same(case, converted)


def test_an_interrupted_conversion_continues(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """Finished cases are kept; a case whose files have changed, or that lacks a file, is written again."""
    source = folder_of(3)
    words = ("convert", source, "-o", tmp_path / "n", "--layout", "nnunet")
    assert gliomask(*words)[0] == 0
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "n").rglob("*.nii.gz")}
    (tmp_path / "n" / "imagesTr" / "BraTS2021_00002_0001.nii.gz").unlink()
    mask = source / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz"
    mask.unlink()
    status, said = gliomask(*words)
    assert (status, "1 case kept" in said, "3 cases in" in said) == (0, True, True)
    changed = {path.name[:15] for path, time in times.items() if not path.exists() or path.stat().st_mtime_ns != time}
    assert changed == {"BraTS2021_00002", "BraTS2021_00003"}
    assert not (tmp_path / "n" / "labelsTr" / "BraTS2021_00003.nii.gz").exists()
    assert not (tmp_path / "n" / "imagesTr" / "BraTS2021_00003_0000.nii.gz").exists()
    assert json.loads((tmp_path / "n" / "dataset.json").read_text())["numTraining"] == 2
    status, said = gliomask(*words[:-1], "brats2021")
    assert status == 2
    assert "was converted with other settings (layout nnunet" in said


def test_a_bad_case_does_not_stop_the_others(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """It is listed, nothing of it is written, and a split is written without it."""
    source = folder_of(3)
    damaged = source / "BraTS2021_00002" / "BraTS2021_00002_t1ce.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    ids = [f"BraTS2021_0000{number}" for number in (1, 2, 3)]
    (source / "splits_final.json").write_text(json.dumps([{"train": ids[:2], "val": ids[2:]}]))
    status, said = gliomask("convert", source, "-o", tmp_path / "n", "--layout", "nnunet")
    assert status == 1
    assert "1 failed, 2 done" in said
    assert "the gzip stream is cut or damaged" in said
    assert file_names(tmp_path / "n" / "labelsTr") == ["BraTS2021_00001.nii.gz", "BraTS2021_00003.nii.gz"]
    assert len(file_names(tmp_path / "n" / "imagesTr")) == 8
    assert json.loads((tmp_path / "n" / "splits_final.json").read_text()) == [{"train": ids[:1], "val": ids[2:]}]


def test_splits_go_both_ways(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """The ids in a split change as those of the cases do, and change back."""
    source = folder_of(4)
    ids = [f"BraTS2021_0000{number}" for number in (1, 2, 3, 4)]
    splits = [{"train": ids[1:], "val": ids[:1]}, {"train": ids[:3], "val": ids[3:]}]
    (tmp_path / "s.json").write_text(json.dumps(splits))
    words = ("convert", source, "-o", tmp_path / "bids", "--layout", "bids", "--split", tmp_path / "s.json")
    assert gliomask(*words)[0] == 0
    there = json.loads((tmp_path / "bids" / "splits_final.json").read_text())
    assert there[0]["val"] == ["sub-BraTS202100001"]
    assert gliomask("convert", tmp_path / "bids", "-o", tmp_path / "n", "--layout", "nnunet")[0] == 0
    assert json.loads((tmp_path / "n" / "splits_final.json").read_text()) == splits
    (tmp_path / "s.json").write_text(json.dumps([{"train": ["nobody"], "val": []}]))
    status, said = gliomask(*words[:-1], tmp_path / "s.json")
    assert (status, "such as nobody" in said) == (2, True)


def test_folds_of_a_datalist_become_a_split(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """Each fold is validated on once."""
    cases = find_cases(folder_of(3))
    entries = [
        {"image": [str(c.images[m].path) for m in MODALITIES], "label": str(c.mask), "fold": n % 2}
        for n, c in enumerate(cases)
    ]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": entries}))
    assert gliomask("convert", tmp_path / "datalist.json", "-o", tmp_path / "n", "--layout", "msd")[0] == 0
    one, two, three = (case.id for case in cases)
    assert json.loads((tmp_path / "n" / "splits_final.json").read_text()) == [
        {"train": [two], "val": [one, three]},
        {"train": [one, three], "val": [two]},
    ]


@pytest.mark.parametrize("place", [".", "inside", ".."])
def test_the_input_is_never_written_to(folder_of: FolderOf, gliomask, place: str) -> None:
    """The output may be neither the input's folder, nor in it, nor around it."""
    source = folder_of(1)
    before = sorted(source.rglob("*"))
    status, said = gliomask("convert", source, "-o", source / place, "--layout", "brats2023")
    assert (status, "lies in the folder that is converted, or around it" in said) == (2, True)
    assert sorted(source.rglob("*")) == before


def test_files_of_a_table_may_not_lie_in_the_output(write_case: WriteCase, tmp_path: Path, gliomask) -> None:
    """A table may name files anywhere."""
    path = write_case().images["t1n"].path
    (tmp_path / "cases.csv").write_text(f"id,t1\na,{path}\n")
    status, said = gliomask("convert", tmp_path / "cases.csv", "-o", tmp_path / "data", "--layout", "brats2021")
    assert (status, "holds" in said) == (2, True)


def test_a_folder_of_something_else_is_not_written_to(folder_of: FolderOf, tmp_path: Path, gliomask) -> None:
    """Nothing is mixed with or overwritten."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    status, said = gliomask("convert", folder_of(1), "-o", tmp_path / "other", "--layout", "msd")
    assert (status, "is not empty" in said) == (2, True)
    assert file_names(tmp_path / "other") == ["thesis.txt"]


def test_ids_that_become_one_are_refused(tmp_path: Path) -> None:
    """BIDS drops what is not a letter or digit; neither of the two cases is chosen."""
    for name in ("a-b", "a_b", "c"):
        write_volume(tmp_path / "data" / name / "t1.nii.gz", Volume(np.ones((1, *SHAPE), np.int16), AFFINE))
    target = get_target("bids")
    outcome = convert_dataset(find_cases(tmp_path / "data"), tmp_path / "b", Settings(target, ("t1n",), "brats2023"))
    assert [str(problem) for problem in outcome.problems] == [
        "a-b: would be called sub-ab, as would a_b. Rename it.",
        "a_b: would be called sub-ab, as would a-b. Rename it.",
    ]
    assert dict(outcome.new_ids) == {"c": "sub-c"}


@pytest.mark.parametrize("content", ["{", "[]", '{"cases": {"a": {}}, "settings": {}}'])
def test_a_damaged_record_is_named(folder_of: FolderOf, tmp_path: Path, content: str) -> None:
    """Both where it is continued and where it is read for ids."""
    source = folder_of(1)
    (source / "convert.json").write_text(content)
    with pytest.raises(InputError, match=r"convert\.json: is damaged"):
        convert(source, tmp_path / "n", "nnunet")
