"""Cases: every way in which BraTS has been handed out is found as it lies, and what does not fit is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import AFFINE, SHAPE, nested_ellipsoids
from gliomask.cases import (
    LAYOUTS,
    MODALITIES,
    Case,
    NoCaseError,
    Source,
    check_case,
    common_convention,
    find_cases,
    get_layout,
    layout_of,
    read_case,
    read_mask,
    resolve_conventions,
    survey,
)
from gliomask.errors import InputError
from gliomask.labels import convert_labels, get_convention, label_values
from gliomask.volume import Volume, read_volume, reorient, write_volume

WriteCase = Callable[..., Case]


def touch(*paths: Path) -> None:
    """Make empty files, for tests in which only names matter."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def roles(folder: Path, case: Case) -> dict[str, str]:
    """Return the case's files by role, relative to the folder."""
    files = {modality: source.path for modality, source in case.images.items()}
    files |= {"mask": case.mask} if case.mask else {}
    return {role: path.relative_to(folder).as_posix() for role, path in files.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_as_it_was_written(write_case: WriteCase, tmp_path: Path, layout: str) -> None:
    """Ids, sequences, channels, masks and conventions are found, and the cases are sorted by id."""
    written = [write_case(layout, number=number) for number in (2, 1)]
    found = survey(tmp_path / "data")
    assert list(found.cases) == written[::-1]
    assert found.layout == layout
    assert (found.problems, found.passed_over) == ((), ())
    apart = get_layout(layout).mask.startswith(("images_segm", "derivatives"))
    said = [note.what for note in found.notes]
    assert [text for text in said if "in another folder" not in text] == list(filter(None, [get_layout(layout).note]))
    assert len(said) == apart + bool(get_layout(layout).note)
    assert find_cases(str(tmp_path / "data")) == written[::-1]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("msd", "brats-men-rt")])
def test_a_sequence_may_lack(write_case: WriteCase, tmp_path: Path, layout: str) -> None:
    """The case has the sequences whose files exist."""
    write_case(layout, missing=["t1c", "t2w"])
    (found,) = find_cases(tmp_path / "data")
    assert set(found.images) == {"t1n", "t2f"}
    assert found.mask is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_may_lack(write_case: WriteCase, tmp_path: Path, layout: str) -> None:
    """Validation sets have no masks."""
    case = write_case(layout)
    case.mask.unlink()
    (found,) = find_cases(tmp_path / "data")
    assert found == replace(case, mask=None)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "brats-men-rt"])
def test_what_is_read_is_what_was_written(write_case: WriteCase, layout: str) -> None:
    """Each sequence is read from its own file or channel, and tissues have the layout's numbers."""
    images, tissues = nested_ellipsoids(1)
    case = write_case(layout)
    order = ("t2f", "t1c", "t1n", "t2w")
    np.testing.assert_array_equal(read_case(case, order).data, np.stack([images[modality] for modality in order]))
    convention = get_convention(case.convention or "brats2024-ped")
    mask = read_mask(replace(case, convention=convention.name)).data[0]
    np.testing.assert_array_equal(convert_labels(mask, convention, get_convention("brats2023"), "x"), tissues)


@pytest.mark.parametrize(
    ("case_id", "layout", "convention"),
    [
        ("Brats17_TCIA_151_1", "brats2017", "brats2021"),
        ("Brats18_TCIA09_141_1", "brats2018", "brats2021"),
        ("Brats18_2013_2_1", "brats2018", "brats2021"),
        ("BraTS19_CBICA_ASK_1", "brats2019", "brats2021"),
        ("BraTS20_Training_355", "brats2020", "brats2021"),
        ("BraTS20_Validation_001", "brats2020", "brats2021"),
        ("BraTS2021_01666", "brats2021", "brats2021"),
        ("BraTS-GLI-00005-000", "brats2023", "brats2023"),
        ("BraTS-GLI-00005-001", "brats2023", "brats2023"),
        ("BraTS-SSA-00002-000", "brats2023", "brats2023"),
        ("BraTS-MEN-00004-000", "brats2023", "brats2023"),
        ("brats-goat-00001-000", "brats2023", "brats2023"),
        ("BraTS-GLI-02060-100", "brats2024", "brats2024"),
        ("BraTS-GLI-02060-101", "brats2024", "brats2024"),
        ("BraTS-MET-00086-000", "brats2024", "brats2024"),
        ("BraTS-PED-00002-000", "brats-ped", None),
        ("patient_7", None, None),
        ("BraTS2021_01666_extra", None, None),
        ("UPENN-GBM-00055_11", "upenn-gbm", "brats2021"),
        ("UPENN-GBM-00055_21", "upenn-gbm", "brats2021"),
        ("UCSF-PDGM-0429_FU003d", "ucsf-pdgm", "brats2021"),
        ("UCSD-PTGBM-0002_01", "ucsd-ptgbm", "brats2024"),
        ("RHUH-0001_2", "rhuh-gbm", None),
        ("Patient-001_week-000-1", "lumiere", None),
        ("Patient-001_week-044", "lumiere", None),
        ("BraTS-MEN-RT-0001-1", "brats-men-rt", "tc-only"),
        ("sub-01", "bids", None),
        ("sub-01_ses-02_run-1", "bids", None),
        ("subject-01", None, None),
    ],
)
def test_an_id_tells_its_layout(case_id: str, layout: str | None, convention: str | None) -> None:
    """An id of another form belongs to no layout."""
    found = layout_of(case_id)
    assert (found.name if found else None) == layout
    assert (found.convention if found else None) == convention


def test_an_unknown_layout_is_met_with_the_known_ones() -> None:
    """The message contains the most similar name."""
    with pytest.raises(InputError, match="unknown layout 'brats2012'; did you mean 'brats20"):
        get_layout("brats2012")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_bare_names_in_patients_folders(tmp_path: Path, ending: str) -> None:
    """The folder's name is the id."""
    names = {"t1n": "T1", "t1c": "t1_post", "t2w": "t2", "t2f": "flair", "mask": "seg"}
    for patient in ("anna", "bert"):
        touch(*(tmp_path / patient / f"{name}{ending}" for name in names.values()))
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["anna", "bert"]
    assert found.layout == "folders"
    assert roles(tmp_path, found.cases[0]) == {role: f"anna/{name}{ending}" for role, name in names.items()}
    assert found.cases[0].convention is None


def test_one_name_in_several_folders_is_told_by_the_folder(tmp_path: Path) -> None:
    """Some exports give every patient's files the same names."""
    for patient in ("anna", "bert"):
        touch(tmp_path / patient / "scan_t1.nii.gz", tmp_path / patient / "scan_flair.nii.gz")
    assert [case.id for case in find_cases(tmp_path)] == ["anna", "bert"]


def test_cases_may_lie_side_by_side_in_one_folder(tmp_path: Path) -> None:
    """A prefix tells them apart, also if one id is the beginning of another."""
    touch(*(tmp_path / f"{case}_{name}.nii.gz" for case in ("p1", "p1_b", "p2") for name in ("t1", "t1ce", "seg")))
    found = find_cases(tmp_path)
    assert [case.id for case in found] == ["p1", "p1_b", "p2"]
    assert roles(tmp_path, found[1]) == {"t1n": "p1_b_t1.nii.gz", "t1c": "p1_b_t1ce.nii.gz", "mask": "p1_b_seg.nii.gz"}


def test_case_355_of_brats_2020_gets_its_misnamed_mask(tmp_path: Path) -> None:
    """The mask is used, and a note says so."""
    case_id = "BraTS20_Training_355"
    touch(*(tmp_path / case_id / f"{case_id}_{name}.nii" for name in ("flair", "t1", "t1ce", "t2")))
    touch(tmp_path / case_id / "W39_1998.09.19_Segm.nii", tmp_path / "name_mapping.csv")
    found = survey(tmp_path)
    (case,) = found.cases
    assert (case.id, case.convention, len(case.images)) == (case_id, "brats2021", 4)
    assert case.mask == tmp_path / case_id / "W39_1998.09.19_Segm.nii"
    assert [note.what for note in found.notes] == ["taken as the mask of the only case beside it"]


def test_a_mask_of_nobody_is_passed_over_and_said(tmp_path: Path) -> None:
    """This applies if two cases could own the mask, or if the case has a mask already."""
    touch(*(tmp_path / "two" / f"{case}_t1.nii" for case in ("a", "b")), tmp_path / "two" / "c_seg.nii")
    touch(tmp_path / "one" / "d_t1.nii", tmp_path / "one" / "d_seg.nii", tmp_path / "one" / "e_seg.nii")
    found = survey(tmp_path)
    assert {case.id: case.mask and case.mask.name for case in found.cases} == {"a": None, "b": None, "d": "d_seg.nii"}
    assert {Path(one.where).name for one in found.passed_over} == {"c_seg.nii", "e_seg.nii"}
    assert all("mask without images" in one.what for one in found.passed_over)


def test_folders_named_like_files_are_looked_into(tmp_path: Path) -> None:
    """Kaggle's copies of 2021 unpacked a few files into folders of their names, around a file of another name."""
    case_id = "BraTS2021_00495"
    inner = {"flair": "00000057_brain_flair", "t1": "00000057_brain_t1", "seg": "00000057_final_seg"}
    for name, file in inner.items():
        touch(tmp_path / case_id / f"{case_id}_{name}.nii" / f"{file}.nii")
    touch(tmp_path / case_id / f"{case_id}_t2.nii.gz")
    (case,) = find_cases(tmp_path)
    assert (case.id, case.convention) == (case_id, "brats2021")
    assert roles(tmp_path / case_id, case) == {
        "t1n": f"{case_id}_t1.nii/00000057_brain_t1.nii",
        "t2w": f"{case_id}_t2.nii.gz",
        "t2f": f"{case_id}_flair.nii/00000057_brain_flair.nii",
        "mask": f"{case_id}_seg.nii/00000057_final_seg.nii",
    }


def test_hidden_files_are_no_cases(tmp_path: Path) -> None:
    """macOS leaves `._` files beside each file that it copies to a foreign disk, Finder its `.DS_Store`."""
    touch(*(tmp_path / f"{hidden}p1_{name}.nii.gz" for hidden in ("", "._") for name in ("t1", "flair")))
    touch(tmp_path / ".DS_Store", tmp_path / "p1_t1.json", tmp_path / "README.txt")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["p1"]
    assert (found.problems, found.notes) == ((), ())


def test_brain_masks_are_passed_over(write_case: WriteCase, tmp_path: Path) -> None:
    """They are recognised by their names or, if the name is only `mask`, because they are 1 in a whole brain."""
    case = write_case()
    folder = case.mask.parent
    brain = read_case(case, ("t2f",)).data[0] != 0
    case.mask.unlink()
    touch(folder / "brainmask_flair.nii.gz")
    write_volume(folder / f"{case.id}_mask.nii.gz", Volume(brain[None].astype(np.uint8), AFFINE))
    found = survey(tmp_path / "data")
    assert found.cases == (replace(case, mask=None),)
    assert {Path(one.where).name: one.what for one in found.passed_over} == {
        "brainmask_flair.nii.gz": "its name is that of no sequence and no tumour mask",
        f"{case.id}_mask.nii.gz": "a brain mask: one value over a whole brain",
    }


@pytest.mark.parametrize("values", [(0, 1, 2, 4), (0, 0, 0, 1)])
def test_a_tumour_mask_may_be_called_mask(write_case: WriteCase, tmp_path: Path, values: tuple[int, ...]) -> None:
    """It is one if it holds several numbers, or one number in no more voxels than a tumour can fill."""
    case = write_case()
    mask = case.mask.with_name(f"{case.id}_mask.nii.gz")
    tissues = nested_ellipsoids(1)[1]
    labels = np.asarray(values, np.uint8)[tissues]
    assert ((labels > 0).mean() > 0.06) == (values[1] == 1)
    case.mask.unlink()
    write_volume(mask, Volume(labels[None], AFFINE))
    assert find_cases(tmp_path / "data") == [replace(case, mask=mask)]


def test_a_damaged_mask_is_still_the_cases(write_case: WriteCase, tmp_path: Path) -> None:
    """Finding the case works; reading its mask raises an error."""
    case = write_case()
    case.mask.unlink()
    mask = case.mask.with_name(f"{case.id}_mask.nii.gz")
    mask.write_bytes(b"\x1f\x8bnothing")
    (found,) = find_cases(tmp_path / "data")
    assert found.mask == mask
    with pytest.raises(InputError, match="cut or damaged"):
        read_mask(found)


def test_two_files_for_one_sequence_are_a_problem(write_case: WriteCase, tmp_path: Path) -> None:
    """Both files are named, and the other cases are found."""
    write_case(number=1)
    case = write_case(number=2)
    touch(case.images["t1c"].path.with_name(f"{case.id}_t1gd.nii.gz"))
    found = survey(tmp_path / "data")
    assert [good.id for good in found.cases] == ["BraTS2021_00001"]
    (problem,) = found.problems
    assert problem.where == case.id
    assert re.search(r"2 files for t1c: .*t1ce\.nii\.gz, .*t1gd\.nii\.gz\. Keep one", problem.what)
    with pytest.raises(InputError, match=f"{case.id}: 2 files for t1c"):
        find_cases(tmp_path / "data")


def test_one_id_in_two_places_is_a_problem(tmp_path: Path) -> None:
    """If the same case lies under HGG and LGG, neither is used."""
    case_id = "Brats18_TCIA09_141_1"
    for grade in ("HGG", "LGG"):
        touch(tmp_path / grade / case_id / f"{case_id}_t1.nii.gz")
    touch(tmp_path / "LGG" / "Brats18_2013_0_1" / "Brats18_2013_0_1_t1.nii.gz")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["Brats18_2013_0_1"]
    (problem,) = found.problems
    assert problem.where == case_id
    assert "same id twice" in problem.what
    assert all(str(tmp_path / grade / case_id) in problem.what for grade in ("HGG", "LGG"))


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """All problems are in one message."""
    touch(*(tmp_path / "a" / f"a_{name}.nii" for name in ("t1", "t1w", "t2", "t2w", "seg", "label")))
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    assert [role for role in ("t1n", "t2w", "mask") if f"2 files for {role}" in str(caught.value)] == [
        "t1n",
        "t2w",
        "mask",
    ]


def test_a_folder_without_cases_says_what_was_looked_for(tmp_path: Path) -> None:
    """Files whose names tell nothing are no cases."""
    touch(tmp_path / "adc.nii.gz", tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"no case found.*ID_t1ce\.nii\.gz.*imagesTr/ with a dataset\.json") as caught:
        find_cases(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_a_folder_of_masks_is_named_as_that(tmp_path: Path) -> None:
    """Masks without their examinations, as where the two folders of a command were exchanged, are no raw images."""
    mask = np.zeros((1, 8, 8, 8), np.uint8)
    mask[0, 2:5, 2:5, 2:5] = 4
    for name in ("a", "b"):
        write_volume(tmp_path / f"{name}.nii.gz", Volume(mask, np.eye(4)))
    with pytest.raises(InputError, match="its NIfTI files seem to be masks") as caught:
        find_cases(tmp_path)
    assert not isinstance(caught.value, NoCaseError)
    write_volume(tmp_path / "c.nii.gz", Volume(mask.astype(np.float32) * 100, np.eye(4)))
    with pytest.raises(NoCaseError):
        find_cases(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """The folder is missing, or it is a file."""
    touch(tmp_path / "file.nii")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"file\.nii: is a file, not a folder"):
        find_cases(tmp_path / "file.nii")


def describe(folder: Path, **changes: object) -> None:
    """Change a written `dataset.json`; None removes a key."""
    described = json.loads((folder / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(json.dumps({key: value for key, value in described.items() if value}))


def test_msd_and_nnunet_are_refused_without_their_description(folder_of: Callable[..., Path]) -> None:
    """Only the description says which channel is which sequence; a guess could swap them."""
    folder = folder_of(1, "nnunet")
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json: missing"):
        find_cases(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "channel_names"),
        ('{"labels": {}}', "channel_names"),
        ('{"channel_names": ["T1"]}', "channel_names"),
        ('{"channel_names": {"0": "CT"}}', "unknown modality 'CT'"),
        ('{"channel_names": {"T1": "0"}}', "'T1'"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(folder_of: Callable[..., Path], text: str, message: str) -> None:
    """The message names the file and what is wrong in it."""
    folder = folder_of(1, "nnunet")
    (folder / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        find_cases(folder)
    assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_the_description_alone_says_which_channel_is_which(folder_of: Callable[..., Path], layout: str) -> None:
    """The channels may be in any order and in any accepted spelling."""
    folder = folder_of(1, layout)
    before = find_cases(folder)[0].images
    key = "modality" if layout == "msd" else "channel_names"
    now = {"0": "T2-FLAIR", "1": "t2w", "2": "T1Gd", "3": "t1_native"}
    describe(folder, **{key: now})
    after = find_cases(folder)[0].images
    were = dict(
        zip(("t2f", "t1n", "t1c", "t2w") if layout == "msd" else ("t1n", "t1c", "t2w", "t2f"), "0123", strict=True)
    )
    for modality, number in zip(("t2f", "t2w", "t1c", "t1n"), "0123", strict=True):
        assert after[modality] == before[next(name for name, at in were.items() if at == number)]


def test_a_channel_that_is_not_described_is_a_problem(folder_of: Callable[..., Path]) -> None:
    """There is a fifth file, and dataset.json names four channels."""
    folder = folder_of(1, "nnunet")
    touch(folder / "imagesTr" / "BRATS_001_0004.nii.gz")
    with pytest.raises(InputError, match=r"BRATS_001_0004\.nii\.gz: its channel number is not in dataset\.json"):
        find_cases(folder)


@pytest.mark.parametrize(("layout", "stem"), [("nnunet", "BRATS_001_0000"), ("msd", "BRATS_001")])
def test_one_file_in_two_endings_is_a_problem(folder_of: Callable[..., Path], layout: str, stem: str) -> None:
    """Neither file is chosen; the other cases are found."""
    folder = folder_of(2, layout)
    touch(folder / "imagesTr" / f"{stem}.nii")
    found = survey(folder)
    assert [case.id for case in found.cases] == ["BRATS_002"]
    assert {problem.where for problem in found.problems} == {"BRATS_001"}
    assert "two files for" in found.problems[0].what


def test_test_images_are_cases_without_masks(folder_of: Callable[..., Path]) -> None:
    """The folder imagesTs is read beside imagesTr."""
    folder = folder_of(1, "nnunet")
    touch(*(folder / "imagesTs" / f"BRATS_900_000{channel}.nii.gz" for channel in range(4)))
    train, test = find_cases(folder)
    assert (train.id, test.id) == ("BRATS_001", "BRATS_900")
    assert train.mask is not None
    assert test.mask is None
    assert set(test.images) == set(MODALITIES)


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, "brats2023"),
        ({"0": "background", "1": "necrotic", "2": "oedema", "4": "enhancing"}, "brats2021"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumor": 3}, "msd"),
        ({"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}, "msd"),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, "msd"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, "brats2023"),
        ({"background": 0, "necrotic tumor core": 1, "peritumoral edema": 2, "GD-enhancing tumor": 3}, "brats2023"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, "brats2024"),
        ({"0": "background", "1": "NETC", "2": "SNFH", "3": "ET", "4": "resection cavity"}, "brats2024"),
        ({"background": 0, "ET": 1, "NET": 2, "CC": 3, "ED": 4}, "brats2024-ped"),
        ({"background": 0, "edema": 1, "enhancing": 2}, "hd-glio"),
        ({"background": 0, "tumour": 1}, None),
        ({"background": 0, "ED": 3, "NCR": 1, "ET": 2}, None),
        ({"background": 0, "ET": "three"}, None),
        ({"background": 0, "ET": None}, None),
        (["ET"], None),
        (None, None),
    ],
)
def test_label_names_tell_the_convention(
    folder_of: Callable[..., Path], labels: Mapping[str, object] | None, convention: str | None
) -> None:
    """MSD writes number: name, nnU-Net name: number or regions. Labels that match no convention leave it open."""
    folder = folder_of(1, "nnunet")
    describe(folder, labels=labels)
    assert find_cases(folder)[0].convention == convention


def test_an_absent_sequence_is_read_as_zeros(write_case: WriteCase) -> None:
    """The channels are in the order asked for and have a type that can hold all of them."""
    case = write_case(missing=["t1c"])
    images, _ = nested_ellipsoids(1)
    volume = read_case(case, ("t1c", "t2f"))
    assert volume.data.dtype == np.int16
    assert not volume.data[0].any()
    np.testing.assert_array_equal(volume.data[1], images["t2f"])
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


def test_types_meet_in_one_that_holds_both(write_case: WriteCase) -> None:
    """One sequence is stored as floats, the others as integers."""
    case = write_case()
    images, _ = nested_ellipsoids(1)
    write_volume(case.images["t2f"].path, Volume(images["t2f"][None].astype(np.float32) / 7, AFFINE))
    volume = read_case(case, ("t1n", "t2f"))
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data[0], images["t1n"])
    np.testing.assert_array_equal(volume.data[1], images["t2f"].astype(np.float32) / 7)


def test_a_case_without_any_of_the_sequences_is_refused(write_case: WriteCase) -> None:
    """The message lists the sequences that it has."""
    case = write_case(missing=["t1c", "t1n"])
    with pytest.raises(InputError, match=f"^{case.id}: has none of t1c, t1n; it has t2w, t2f"):
        read_case(case, ("t1c", "t1n"))


def test_sequences_are_asked_for_in_any_spelling(write_case: WriteCase) -> None:
    """All spellings are accepted, and an unknown name is refused with the most similar one."""
    case = write_case()
    asked, known = (read_case(case, names).data for names in (("flair", "t1ce", "T2"), ("t2f", "t1c", "t2w")))
    np.testing.assert_array_equal(asked, known)
    with pytest.raises(InputError, match="did you mean 'flair'"):
        read_case(case, ("flare",))


def test_every_bad_file_of_a_case_is_named_at_once(write_case: WriteCase) -> None:
    """Two damaged files are named in one message."""
    case = write_case()
    case.images["t1n"].path.write_bytes(b"")
    case.images["t2w"].path.unlink()
    with pytest.raises(InputError) as caught:
        read_case(case, tuple(MODALITIES))
    assert f"{case.images['t1n'].path}: not a NIfTI file" in str(caught.value)
    assert f"{case.images['t2w'].path}: no such file" in str(caught.value)


def moved(by: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "what"),
    [
        ((24, 28, 21), AFFINE, "shape 24 x 28 x 20 and 24 x 28 x 21"),
        (SHAPE, AFFINE @ np.diag([1, 1, 1.1, 1]), "spacing"),
        (SHAPE, AFFINE @ np.diag([-1, 1, 1, 1]), "orientation LPS and RPS"),
        (SHAPE, moved(4), "origin"),
    ],
)
def test_sequences_on_different_grids_are_refused(
    write_case: WriteCase, shape: tuple[int, int, int], affine: np.ndarray, what: str
) -> None:
    """The message names shape, spacing, orientation or origin for each sequence that differs."""
    case = write_case()
    for modality in ("t2w", "t2f"):
        write_volume(case.images[modality].path, Volume(np.ones((1, *shape), np.int16), affine))
    with pytest.raises(InputError) as caught:
        read_case(case, tuple(MODALITIES))
    message = str(caught.value)
    assert message.startswith(f"{case.id}: all sequences must share one grid; t1n and t2w differ in {what}")
    assert f"; t1n and t2f differ in {what}" in message
    assert "Register and resample" in message
    assert read_case(case, ("t1n", "t1c")).data.shape == (2, *SHAPE)


def test_a_sequence_stored_in_another_orientation_is_on_the_same_grid(write_case: WriteCase) -> None:
    """So is a mask. A note says that they were reoriented, and no voxel changes."""
    case = write_case()
    before, mask = read_case(case, tuple(MODALITIES)), read_mask(case)
    for path, is_mask in ((case.images["t2f"].path, False), (case.mask, True)):
        write_volume(path, reorient(read_volume(path, mask=is_mask), "SAR"))
    after = read_case(case, tuple(MODALITIES))
    np.testing.assert_array_equal(after.data, before.data)
    assert before.notes == ()
    assert after.notes == (
        f"t2f ({case.images['t2f'].path.name}): stored as SAR, t1n as LPS; it was reoriented, no voxel changed.",
    )
    np.testing.assert_array_equal(read_mask(case, after.grid).data, mask.data)
    report = check_case(case)
    assert report.problems == ()
    assert f"{case.mask.name}: stored as SAR, the images as LPS; it was reoriented." in report.notes
    assert after.notes[0] in report.notes


def test_a_file_of_another_number_of_channels_is_refused(write_case: WriteCase) -> None:
    """The file is 4-D where one sequence is expected, or has fewer channels than dataset.json says."""
    case = write_case("msd")
    path = case.images["t1n"].path
    with pytest.raises(InputError, match="a 4-D file of 4 volumes where one sequence is expected"):
        read_case(replace(case, images={"t1n": Source(path)}), ("t1n",))
    with pytest.raises(InputError, match="has 4 channels; channel 4 is asked for") as caught:
        read_case(replace(case, images={"t1n": Source(path, 4)}), ("t1n",))
    assert str(path) in str(caught.value)


def test_a_mask_is_read_in_its_convention_or_refused(write_case: WriteCase) -> None:
    """It is refused without a mask, without a convention, or with numbers of another convention."""
    case = write_case()
    with pytest.raises(InputError, match=rf"^{case.id}: has no mask \(a file such as {case.id}_seg"):
        read_mask(replace(case, mask=None))
    with pytest.raises(InputError, match=rf"^{case.id}: the label convention of .* is not known.*--labels"):
        read_mask(replace(case, convention=None))
    with pytest.raises(InputError, match=r"labels \{4\} are not in msd") as caught:
        read_mask(replace(case, convention="msd"))
    assert str(case.mask) in str(caught.value)


def relabelled(case: Case, change: Callable[[np.ndarray], np.ndarray]) -> Case:
    """Change the mask in the case's file, and return the case."""
    mask = read_volume(case.mask, mask=True)
    write_volume(case.mask, Volume(change(mask.data).astype(np.uint8), mask.affine))
    return case


def unlabelled(write_case: WriteCase, layout: str, count: int = 1) -> list[Case]:
    """Write cases of a layout and return them without their convention, as from plain folders."""
    return [replace(write_case(layout, number=number), convention=None) for number in range(1, count + 1)]


def test_conventions_come_from_the_layout(write_case: WriteCase) -> None:
    """The masks are empty files and cannot be read."""
    cases = [write_case("brats2021"), write_case("brats2023")]
    for case in cases:
        case.mask.write_bytes(b"")
    assert resolve_conventions(cases) == cases


def test_conventions_asked_for_win(write_case: WriteCase) -> None:
    """The given convention replaces that of the layout, and a misspelt one is refused with a hint."""
    cases = [write_case("brats2021"), *unlabelled(write_case, "brats2023")]
    assert [case.convention for case in resolve_conventions(cases, "msd")] == ["msd", "msd"]
    with pytest.raises(InputError, match="unknown label convention 'brats2012'; did you mean"):
        resolve_conventions(cases, "brats2012")


def test_conventions_are_proved_by_the_masks_together(write_case: WriteCase) -> None:
    """One mask without enhancing tumour proves nothing; together with one that holds a 4, both are settled."""
    cases = unlabelled(write_case, "brats2021", 2)
    mask = read_volume(cases[0].mask, mask=True)
    write_volume(cases[0].mask, Volume(np.where(mask.data == 4, 1, mask.data), mask.affine))
    with pytest.raises(InputError, match=r"labels \{0, 1, 2\} are ambiguous"):
        resolve_conventions(cases[:1])
    assert [case.convention for case in resolve_conventions(cases)] == ["brats2021", "brats2021"]


def with_all_four(labels: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    labels[0, 12, 14, :4] = (1, 2, 3, 4)
    return labels


@pytest.mark.parametrize("layout", ["brats2023", "nnunet"])
def test_conventions_that_masks_cannot_prove_are_asked_for(write_case: WriteCase, layout: str) -> None:
    """{1, 2, 3} is BraTS 2023 or MSD; {1, 2, 3, 4} is BraTS 2024 or PED."""
    cases = unlabelled(write_case, layout, 2)
    with pytest.raises(InputError, match=f"^{cases[0].id} and 1 more: .*ambiguous.*--labels"):
        resolve_conventions(cases)
    relabelled(cases[1], with_all_four)
    with pytest.raises(InputError, match=f"^{cases[0].id} and 1 more: .*ambiguous.*--labels"):
        resolve_conventions(cases)


def test_one_mask_does_not_speak_for_the_others(write_case: WriteCase) -> None:
    """BraTS 2024 with a cavity and without ET has the numbers of BraTS 2021; a 3 in another mask shows it."""
    cases = [replace(case, id=f"p{number}") for number, case in enumerate(unlabelled(write_case, "brats2021", 2))]
    assert {case.convention for case in resolve_conventions(cases)} == {"brats2021"}
    relabelled(cases[1], with_all_four)
    with pytest.raises(InputError, match=r"labels \{0, 1, 2, 3, 4\} are ambiguous"):
        resolve_conventions(cases)


def test_a_layout_leaves_fewer_conventions(write_case: WriteCase) -> None:
    """BraTS-PED has two conventions; a 4 proves the later one and is never ET of BraTS 2021."""
    case = write_case("brats-ped")
    assert label_values(read_volume(case.mask, mask=True).data) == [0, 1, 2, 4]
    assert resolve_conventions([case])[0].convention == "brats2024-ped"
    relabelled(case, lambda labels: np.asarray([0, 1, 2, 0, 3])[labels])
    with pytest.raises(InputError, match=f"^{case.id}: .*ambiguous: brats2023 .*; brats2024-ped [^;]*--labels"):
        resolve_conventions([case])


def test_empty_masks_and_no_masks_need_no_convention(write_case: WriteCase) -> None:
    """Their meaning is the same in every convention."""
    (case,) = unlabelled(write_case, "brats2023")
    assert resolve_conventions([replace(case, mask=None)]) == [replace(case, mask=None)]
    write_volume(case.mask, Volume(np.zeros((1, *SHAPE), np.uint8), AFFINE))
    (resolved,) = resolve_conventions([case])
    assert not read_mask(resolved).data.any()


def test_the_common_convention_is_that_of_most_masks(write_case: WriteCase) -> None:
    """Cases without a mask do not count."""
    cases = [write_case("brats2023", number=1), write_case("brats2023", number=2), write_case("brats2021")]
    assert common_convention(cases) == "brats2023"
    assert common_convention([replace(case, mask=None) for case in cases[:2]] + cases[2:]) == "brats2021"
    assert common_convention([]) == "brats2021"


def fewer(labels: np.ndarray, value: int, count: int) -> np.ndarray:
    """Keep the first voxels of a number, and turn its others into oedema."""
    beyond = (labels == value) & (np.cumsum(labels == value).reshape(labels.shape) > count)
    return np.where(beyond, 2, labels)


def test_a_good_case_has_its_facts_and_no_problem(write_case: WriteCase) -> None:
    """The report has grid, voxels of each tissue and numbers; only the voxel size of the small phantom is unusual."""
    report = check_case(write_case())
    tissues = nested_ellipsoids(1)[1]
    assert report.problems == ()
    assert report.grid.shape == SHAPE
    assert report.values == (0, 1, 2, 4)
    assert report.voxels == {"NCR": (tissues == 1).sum(), "ED": (tissues == 2).sum(), "ET": (tissues == 3).sum()}
    (note,) = (note for note in report.notes if "field of view" not in note)
    assert note.startswith("voxels of 2 x 1.49 x 2.99 mm")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda labels: np.where(labels == 4, 1, labels), "no ET"),
        (lambda labels: fewer(labels, 4, 49), "only 49 voxels of ET"),
        (lambda labels: fewer(labels, 1, 1), "only 1 voxel of NCR"),
        (np.zeros_like, "the mask is empty: no tumour"),
        (lambda labels: np.asarray([0, 2, 1, 0, 4])[labels], "ED lies inside NCR: is brats2021 the right convention?"),
    ],
)
def test_odd_masks_are_noted(write_case: WriteCase, change: Callable[[np.ndarray], np.ndarray], note: str) -> None:
    """Such masks can be used, and the report mentions what is unusual."""
    report = check_case(relabelled(write_case(), change))
    assert note in report.notes
    assert report.problems == ()


def test_tumour_outside_the_brain_is_noted(write_case: WriteCase) -> None:
    """The note states the number of voxels."""

    def corner(labels: np.ndarray) -> np.ndarray:
        labels = labels.copy()
        labels[0, :2, :2, :2] = 2
        return labels

    report = check_case(relabelled(write_case(), corner))
    assert "8 voxels of the mask where every image is zero" in report.notes


def test_a_head_with_its_skull_is_noted(write_case: WriteCase) -> None:
    """In an image of a whole head few voxels are zero."""
    case = write_case(missing=["t1n", "t1c", "t2w"])
    path = case.images["t2f"].path
    write_volume(path, Volume(np.maximum(read_volume(path).data, 3), AFFINE))
    assert "100% of the voxels are not zero: is the skull still there?" in check_case(case).notes


def test_a_spacing_that_cannot_be_is_noted(write_case: WriteCase) -> None:
    """A field of view of a metre is noted; the 1 mm of BraTS is not."""
    case = write_case(missing=["t1n", "t1c", "t2w"])
    data = np.zeros((1, 100, 100, 100), np.int16)
    data[:, 30:70, 30:70, 30:70] = 5
    write_volume(case.images["t2f"].path, Volume(data, np.diag([-1, -1, 1, 1.0])))
    assert check_case(replace(case, mask=None)).notes == ()
    write_volume(case.images["t2f"].path, Volume(data, np.diag([-10, -10, 10, 1.0])))
    assert any("field of view is 1000 x 1000 x 1000 mm" in note for note in check_case(replace(case, mask=None)).notes)


def test_what_keeps_a_case_from_being_used_is_a_problem(write_case: WriteCase) -> None:
    """Wrong labels, a mask on another grid and a damaged image are reported, and nothing is raised."""
    case = write_case()
    (problem,) = check_case(replace(case, convention="msd")).problems
    assert "labels {4} are not in msd" in problem
    write_volume(case.mask, Volume(read_volume(case.mask).data, moved(4)))
    (problem,) = check_case(case).problems
    assert problem.startswith(f"the grid of {case.mask} differs from that of the images in origin")
    case.images["t2f"].path.write_bytes(b"")
    write_volume(case.mask, some_image())
    problems = check_case(case).problems
    assert len(problems) == 2
    assert "not a NIfTI file" in problems[0]
    assert "whole numbers from 0 to 255" in problems[1]


def some_image() -> Volume:
    return Volume(nested_ellipsoids()[0]["t2f"][None], AFFINE)


def test_a_mask_of_no_known_convention_is_reported_by_its_numbers(write_case: WriteCase) -> None:
    """Tissues cannot be counted, but numbers can."""
    report = check_case(replace(write_case(), convention=None))
    assert report.voxels == {}
    assert report.values == (0, 1, 2, 4)
    assert report.problems == ()


def test_raw_images_are_named_with_the_command_that_takes_them(tmp_path: Path) -> None:
    """DICOM by its preamble, whatever the file is called; other volumes by their endings."""
    (tmp_path / "scan" / "deep").mkdir(parents=True)
    (tmp_path / "scan" / "deep" / "I0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "itk").mkdir()
    (tmp_path / "itk" / "t1.nrrd").write_bytes(b"NRRD0004")
    for name, kind in (("scan", "DICOM files"), ("itk", "MetaImage or NRRD volumes")):
        with pytest.raises(InputError, match=rf"holds {kind}, not prepared cases.*predict --raw"):
            survey(tmp_path / name)
