"""Folders: links, hidden folders, data sets at any depth, and a reason for everything that is not used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import AFFINE, SHAPE
from gliomask.cases import LAYOUTS, Case, Survey, find_cases, read_case, survey
from gliomask.errors import InputError
from gliomask.inference.record import fingerprint
from gliomask.volume import Volume, write_volume

WriteCase = Callable[..., Case]


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.nii.gz").touch()


def link(path: Path, target: Path | str) -> None:
    """Make a link, or skip the test where the system does not allow it (Windows without developer mode)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("links cannot be made here")


def reasons(found: Survey) -> dict[str, str]:
    return {Path(one.where).name: one.what for one in found.passed_over}


def test_linked_case_folders_are_cases(tmp_path: Path) -> None:
    """git-annex and DataLad use links for everything; the id comes from the link's name, not from its target's."""
    touch(tmp_path / "store" / "abc123", "T1", "FLAIR")
    link(tmp_path / "data" / "anna", tmp_path / "store" / "abc123")
    touch(tmp_path / "data" / "bert", "T1", "FLAIR")
    found = survey(tmp_path / "data")
    assert [case.id for case in found.cases] == ["anna", "bert"]
    assert found.cases[0].images["t1n"].path == tmp_path / "data" / "anna" / "T1.nii.gz"
    assert (found.notes, found.passed_over) == ((), ())


def test_links_in_circles_end(tmp_path: Path) -> None:
    """A folder is listed once, under its own name; links back to it or above are passed over."""
    touch(tmp_path / "data" / "anna", "T1", "FLAIR")
    link(tmp_path / "data" / "anna" / "up", tmp_path / "data")
    link(tmp_path / "data" / "anna" / "here", ".")
    link(tmp_path / "data" / "above", tmp_path)
    link(tmp_path / "data" / "again", "anna")
    link(tmp_path / "data" / "circle", "circle")
    found = survey(tmp_path / "data")
    assert [case.id for case in found.cases] == ["anna"]
    assert set(reasons(found)) == {"up", "here", "above", "again"}
    assert set(reasons(found).values()) == {"a link to a folder that is searched already"}


def test_two_links_to_one_folder_are_one_case(tmp_path: Path) -> None:
    """The first link by name is used."""
    touch(tmp_path / "store", "T1", "FLAIR")
    for name in ("a", "b"):
        link(tmp_path / "data" / name, tmp_path / "store")
    found = survey(tmp_path / "data")
    assert [case.id for case in found.cases] == ["a"]
    assert set(reasons(found)) == {"b"}


def test_a_broken_link_is_a_file_that_is_not_there(write_case: WriteCase, tmp_path: Path) -> None:
    """The case keeps the sequence, so that reading it names the file; other sequences can be read."""
    case = write_case()
    path = case.images["t1c"].path
    path.unlink()
    link(path, "absent.nii.gz")
    found = survey(tmp_path / "data")
    assert found.cases == (case,)
    assert [(note.where, note.what) for note in found.notes] == [
        (str(path), "a link to absent.nii.gz, which is not there")
    ]
    with pytest.raises(InputError, match=r"_t1ce\.nii\.gz: a link to absent\.nii\.gz, which is not there"):
        read_case(case, ("t1n", "t1c"))
    assert read_case(case, ("t1n", "t2f")).data.any()


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_a_broken_link_to_a_mask_of_a_dataset_is_no_case_without_a_mask(
    folder_of: Callable[..., Path], layout: str
) -> None:
    """The same rule applies as in plain folders."""
    folder = folder_of(1, layout)
    mask = folder / "labelsTr" / "BRATS_001.nii.gz"
    mask.unlink()
    link(mask, "absent")
    assert find_cases(folder)[0].mask == mask


def test_hidden_and_system_folders_are_not_entered(tmp_path: Path) -> None:
    """They contain what was deleted, or other programs' files."""
    touch(tmp_path / "anna", "T1", "FLAIR", "._T1")
    for hidden in (".Trash-1000", "$RECYCLE.BIN", "__MACOSX", ".git"):
        touch(tmp_path / hidden / "bert", "T1", "FLAIR")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["anna"]
    assert reasons(found) == {
        **dict.fromkeys((".Trash-1000", "$RECYCLE.BIN", "__MACOSX", ".git"), "a hidden or system folder"),
        "._T1.nii.gz": "a hidden file",
    }


def test_a_root_may_be_hidden(tmp_path: Path) -> None:
    """A hidden folder that is named explicitly is searched."""
    touch(tmp_path / ".cache" / "anna", "T1")
    assert [case.id for case in find_cases(tmp_path / ".cache")] == ["anna"]


def test_images_of_other_formats_are_passed_over_with_a_reason(tmp_path: Path) -> None:
    """A sequence that was not converted to NIfTI is listed."""
    touch(tmp_path / "anna", "T1")
    (tmp_path / "anna" / "T1c.mha").touch()
    (tmp_path / "anna" / "notes.txt").touch()
    found = survey(tmp_path)
    assert set(reasons(found)) == {"T1c.mha"}
    assert "NIfTI is needed" in reasons(found)["T1c.mha"]


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: the tests may be run by root, whom no permission stops."""
    touch(tmp_path / "anna", "T1")
    touch(tmp_path / "bert", "T1")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "bert":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["anna"]
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path / 'bert'}: the folder cannot be read: Permission denied."
    ]


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
@pytest.mark.parametrize("depth", ["Task01", "deep/er/Task01"])
def test_datasets_are_found_at_any_depth(
    folder_of: Callable[..., Path], tmp_path: Path, layout: str, depth: str
) -> None:
    """They may lie beside plain cases, and an error in one does not hide the others."""
    folder = folder_of(1, layout)
    place = tmp_path / "all" / depth
    place.parent.mkdir(parents=True)
    folder.rename(place)
    touch(tmp_path / "all" / "anna", "T1", "FLAIR")
    touch(tmp_path / "all" / "bad" / "imagesTr", "x_0000")
    found = survey(tmp_path / "all")
    assert [case.id for case in found.cases] == ["BRATS_001", "anna"]
    assert found.layout == " + ".join(sorted(["folders", layout]))
    assert [(problem.where, problem.what[:7]) for problem in found.problems] == [
        (str(tmp_path / "all" / "bad" / "dataset.json"), "missing")
    ]


def test_masks_without_images_in_a_dataset_are_passed_over(folder_of: Callable[..., Path]) -> None:
    """They are listed with their names."""
    folder = folder_of(1, "msd")
    touch(folder / "labelsTr", "BRATS_777")
    assert reasons(survey(folder)) == {"BRATS_777.nii.gz": "a mask without images"}


def test_what_lies_beside_a_dataset_is_named(folder_of: Callable[..., Path]) -> None:
    """Folders and images that are not read with it are passed over with a reason."""
    root = folder_of(layout="nnunet")
    assert not survey(root).passed_over
    touch(root / "imagesVal", "A_0000")
    touch(root / "P9", "P9_flair")
    touch(root, "P8_flair")
    found = survey(root)
    assert set(reasons(found)) == {"imagesVal", "P9", "P8_flair.nii.gz"}
    assert "imagesTr, imagesTs, labelsTr are read" in reasons(found)["P9"]
    assert {case.id for case in found.cases}.isdisjoint({"P9", "P8"})


def test_skull_stripped_images_and_corrected_masks_are_preferred(tmp_path: Path) -> None:
    """Files that are not used are listed with the one that is used instead."""
    touch(tmp_path / "P1", "T1", "T1_bet", "FLAIR", "FLAIR_bet", "T1_bet_mask")
    name = "TCGA-02-0006_1996.08.23"
    touch(tmp_path / name, *(f"{name}_{end}" for end in ("t1", "GlistrBoost", "GlistrBoost_ManuallyCorrected")))
    found = survey(tmp_path)
    first, second = found.cases
    assert {modality: source.path.name for modality, source in first.images.items()} == {
        "t1n": "T1_bet.nii.gz",
        "t2f": "FLAIR_bet.nii.gz",
    }
    assert second.mask is not None
    assert second.mask.name == f"{name}_GlistrBoost_ManuallyCorrected.nii.gz"
    assert reasons(found) == {
        "T1.nii.gz": "T1_bet.nii.gz beside it is used as t1n",
        "FLAIR.nii.gz": "FLAIR_bet.nii.gz beside it is used as t2f",
        "T1_bet_mask.nii.gz": "its name is that of no sequence and no tumour mask",
        f"{name}_GlistrBoost.nii.gz": f"{name}_GlistrBoost_ManuallyCorrected.nii.gz beside it is used as mask",
    }


def test_a_contrast_agent_makes_no_second_case(tmp_path: Path) -> None:
    """This is true for any name of the agent."""
    names = ("T1w", "ce-gd_T1w", "T2w", "FLAIR", "dseg")
    touch(tmp_path / "sub-01" / "anat", *(f"sub-01_{name}" for name in names))
    (case,) = find_cases(tmp_path)
    assert case.id == "sub-01"
    assert set(case.images) == {"t1n", "t1c", "t2w", "t2f"}
    assert case.images["t1c"].path.name == "sub-01_ce-gd_T1w.nii.gz"
    assert case.mask is not None


@pytest.mark.parametrize("word", ["KM", "CM", "CE", "GD"])
@pytest.mark.parametrize("place", ["{}", "P012/{}", "P012/{0}/P012_XX_{0}"])
def test_initials_are_no_contrast_agent_where_a_t1_with_contrast_is_there(
    tmp_path: Path, word: str, place: str
) -> None:
    """The T1 without contrast is never used as the one with contrast."""
    for name in ("t1", "t1ce", "t2", "flair"):
        file = f"P012_{word}_{name}"
        path = tmp_path / (place.replace("{0}/P012_XX_{0}", f"{name}/{file}").format(file) + ".nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = survey(tmp_path)
    (case,) = found.cases
    assert case.id == f"P012_{word}"
    assert {name: source.path.name for name, source in case.images.items()} == {
        "t1n": f"P012_{word}_t1.nii.gz",
        "t1c": f"P012_{word}_t1ce.nii.gz",
        "t2w": f"P012_{word}_t2.nii.gz",
        "t2f": f"P012_{word}_flair.nii.gz",
    }
    assert not found.passed_over


def test_two_images_with_contrast_are_refused(tmp_path: Path) -> None:
    """Neither spelling goes before the other."""
    for name in ("P1_ce_t1", "P1_t1ce", "P1_flair"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = survey(tmp_path)
    assert not found.cases
    assert "2 files for t1c" in found.problems[0].what


def test_an_image_that_was_registered_to_another_sequence_is_none_of_the_two(tmp_path: Path) -> None:
    """It makes no case and takes no other image's place, and that is said."""
    for name in ("T1_to_FLAIR", "T2_to_FLAIR", "FLAIR"):
        (tmp_path / f"P1_{name}.nii.gz").touch()
    found = survey(tmp_path)
    assert [(case.id, list(case.images)) for case in found.cases] == [("P1", ["t2f"])]
    assert "not used (2: P1_T1_to_FLAIR.nii.gz, ...)" in found.notes[0].what
    assert len(found.passed_over) == 2
    # Before several sequences it is an id.
    for name in ("T1", "FLAIR"):
        (tmp_path / f"P2_T1_2_{name}.nii.gz").touch()
    assert {case.id for case in survey(tmp_path).cases} == {"P1", "P2_T1_2"}


def test_runs_are_one_case_unless_they_are_whole_examinations(tmp_path: Path) -> None:
    """A second run of one sequence is refused by name; runs with the same sequences each stay apart."""
    touch(tmp_path / "a" / "sub-01", "sub-01_T1w", "sub-01_run-1_ce-gd_T1w", "sub-01_FLAIR")
    touch(tmp_path / "a" / "sub-02", "sub-02_run-1_T1w", "sub-02_run-2_T1w", "sub-02_FLAIR")
    touch(tmp_path / "a" / "sub-03", *(f"sub-03_run-{run}_{name}" for run in (1, 2) for name in ("T1w", "FLAIR")))
    found = survey(tmp_path / "a")
    assert [(case.id, sorted(case.images)) for case in found.cases] == [
        ("sub-01", ["t1c", "t1n", "t2f"]),
        ("sub-03_run-1", ["t1n", "t2f"]),
        ("sub-03_run-2", ["t1n", "t2f"]),
    ]
    (problem,) = found.problems
    assert problem.where == "sub-02"
    assert problem.what.startswith("2 files for t1n")


@pytest.mark.parametrize(("first", "second"), [("M\u00fcller", "Mu\u0308ller"), ("anna", "ANNA")])
def test_names_that_some_file_systems_do_not_tell_apart(tmp_path: Path, first: str, second: str) -> None:
    """In one folder they are one case; in two folders each gets an id of its own, as their masks would be one file."""
    touch(tmp_path / "one" / first, f"{first}_t1", f"{first}_seg", f"{second}_flair")
    if len(list((tmp_path / "one" / first).iterdir())) == 3:
        (case,) = find_cases(tmp_path / "one")
        assert (set(case.images), case.mask is not None) == ({"t1n", "t2f"}, True)
    touch(tmp_path / "two" / "a", f"{first}_t1", f"{first}_flair")
    touch(tmp_path / "two" / "b", f"{second}_t1", f"{second}_flair")
    assert [case.id for case in find_cases(tmp_path / "two")] == ["a", "b"]
    touch(tmp_path / "three", f"sub-{first}_ses-1_T1w", f"sub-{second.upper()}_ses-2_T1w")
    assert len({case.patient for case in find_cases(tmp_path / "three")}) == 1


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "@Recycle", ".snapshot", "$RECYCLE.BIN"])
def test_folders_of_the_system_are_not_looked_into(tmp_path: Path, name: str) -> None:
    """Those of storage servers hold deleted files and previews of the images beside them."""
    touch(tmp_path / "P1", "P1_t1")
    touch(tmp_path / name / "P2", "P2_t1")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["P1"]
    assert [problem.where for problem in found.passed_over] == [str(tmp_path / name)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"/annex/objects/MD5E-s123--abc.nii.gz\n", "a pointer to one.*datalad get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\x1f\x8b", "gzip stream is cut"),
        (b"1234" * 200, "not a NIfTI file"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(write_case: WriteCase, content: bytes, said: str) -> None:
    """By `check` and `predict` alike."""
    case = write_case()
    path = case.images["t2f"].path
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}: .*{said}"):
        read_case(case, ["t2f"])
    assert len(fingerprint(path)) > 3


def test_a_folder_for_each_sequence_is_one_case(tmp_path: Path) -> None:
    """Some archives export such folders, with the id in the files' names or without it."""
    for name in ("T1", "T1c", "FLAIR", "seg"):
        touch(tmp_path / "anna" / name, name)
        touch(tmp_path / "bert" / name, f"scan7_{name}")
    anna, bert = find_cases(tmp_path)
    assert (anna.id, bert.id) == ("anna", "scan7")
    for case in (anna, bert):
        assert set(case.images) == {"t1n", "t1c", "t2f"}
        assert case.mask is not None


def test_one_examination_under_several_names_is_noted(tmp_path: Path) -> None:
    """Cases in one folder with different sequences are probably one examination."""
    touch(tmp_path / "anna", "scan1_T1", "scan2_FLAIR")
    found = survey(tmp_path)
    assert len(found.cases) == 2
    assert "is it one examination" in found.notes[0].what
    touch(tmp_path / "anna", "scan2_T1")
    assert survey(tmp_path).notes == ()


def test_names_that_are_not_utf_8_are_names(tmp_path: Path) -> None:
    """Older systems made such folder names."""
    folder = tmp_path / os.fsdecode(b"patient_\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    volume = Volume(np.ones((1, *SHAPE), np.int16), AFFINE)
    write_volume(folder / "t1.nii.gz", volume)
    (case,) = find_cases(tmp_path)
    assert case.id == folder.name
    np.testing.assert_array_equal(read_case(case, ("t1n",)).data, volume.data)


def test_the_dataset_of_every_layout_names_itself() -> None:
    """Layouts that a description tells have no pattern for ids, and the others have no description."""
    for layout in LAYOUTS.values():
        assert bool(layout.dataset_json) != bool(layout.id_pattern)
        assert json.loads(json.dumps(dict(layout.dataset_json))) == dict(layout.dataset_json)


def test_finding_cases_looks_at_no_file_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is read once, whatever it holds: more cases cost no more looks at files (`stat`)."""
    looks: list[str] = []
    for name in ("stat", "lstat"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, **how: looks.append(str(args[0])) or real(*args, **how))
    counts = []
    for count in (5, 25):
        folder = tmp_path / str(count)
        for number in range(count):
            case = f"BraTS-GLI-{number:05d}-000"
            touch(folder / case, *(f"{case}-{sequence}" for sequence in ("t1n", "t1c", "t2w", "t2f", "seg")))
        (folder / "BraTS-GLI-00001-000" / "labels.txt").write_text("brats2023")
        looks.clear()
        assert len(find_cases(folder)) == count
        counts.append(len([look for look in looks if str(tmp_path) in look]))
    assert counts[0] == counts[1]


def test_a_folder_called_like_an_image_is_searched(tmp_path: Path) -> None:
    """Also where it is the folder that was asked for."""
    touch(tmp_path / "P1.nii", "P1_t1", "P1_flair")
    assert [case.id for case in find_cases(tmp_path / "P1.nii")] == ["P1"]


def test_brain_masks_beside_a_prepared_case_are_no_case(tmp_path: Path) -> None:
    """`preprocess --native-masks` writes them into `native`; without its record, such a folder is read as any other."""
    for name in ("t1", "t1ce", "t2", "flair"):
        for path in (tmp_path / "P1" / f"P1_{name}.nii.gz", tmp_path / "P1" / "native" / f"P1_brain_{name}.nii.gz"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert len(survey(tmp_path).cases) == 2
    (tmp_path / "P1" / "preprocess.json").write_text("{}")
    found = survey(tmp_path)
    assert [case.id for case in found.cases] == ["P1"]
    assert [problem.where for problem in found.passed_over] == [str(tmp_path / "P1" / "native")]


@pytest.mark.parametrize("output", ["", "masks", "a/masks"])
def test_what_predict_wrote_into_the_input_is_no_part_of_it(tmp_path: Path, output: str) -> None:
    """It is neither read nor passed over, also where an id reads like that of an image; other files are as before."""
    touch(tmp_path / "P1", "P1_t1", "P1_adc")
    before = survey(tmp_path, tmp_path / output)
    record = json.dumps({"case": "", "model": "", "volumes_ml": {}, "versions": {}})
    for name in ("P1", "P2_t1"):
        touch(tmp_path / output, *(f"{name}{end}" for end in ("", "_edited", "_probabilities")))
        (tmp_path / output / f"{name}.json").write_text(record)
    found = survey(tmp_path, tmp_path / output)
    assert found == before
    assert [(case.id, set(case.images)) for case in found.cases] == [("P1", {"t1n"})]
    assert [Path(each.where).name for each in found.passed_over] == ["P1_adc.nii.gz"]
    touch(tmp_path / output, "other")
    found = survey(tmp_path, tmp_path / output)
    assert sorted(Path(each.where).name for each in found.passed_over) == ["P1_adc.nii.gz", "other.nii.gz"]
    assert len(survey(tmp_path).cases) == 2  # without the output, the names alone count


def test_images_are_read_where_results_are_written(tmp_path: Path) -> None:
    """Converters write a JSON beside each image, which is none of predict."""
    touch(tmp_path, "sub-1_T1w", "sub-1_FLAIR")
    for name in ("T1w", "FLAIR"):
        (tmp_path / f"sub-1_{name}.json").write_text('{"RepetitionTime": 2}')
    (case,) = survey(tmp_path, tmp_path).cases
    assert set(case.images) == {"t1n", "t2f"}
