"""Tables of cases, and masks that lie apart from their images: each case gets its own files and no others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gliomask.cases import MODALITIES, Case, find_cases, read_case, survey
from gliomask.errors import InputError
from gliomask.files.parquet import write_parquet

WriteCase = Callable[..., Case]


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def relative(case: Case, folder: Path) -> dict[str, str]:
    """Return the paths of a case's files from a folder, with `/`, by sequence."""
    files = {name: source.path for name, source in case.images.items()} | ({"mask": case.mask} if case.mask else {})
    return {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in files.items()}


def test_a_csv_file_gives_the_cases_that_its_folder_gives(write_case: WriteCase, tmp_path: Path) -> None:
    """Headings may be in any accepted spelling and order; an empty cell is a sequence that the case lacks."""
    first, second = write_case(number=1), write_case(number=2, missing=["t1n"])
    rows = [relative(case, tmp_path) for case in (first, second)]
    lines = [",".join(row.get(name, "") for name in ("t2f", "mask", "t1c", "t1n", "t2w")) for row in rows]
    path = write_csv(tmp_path / "cases.csv", "FLAIR,Seg,t1gd,T1,T2w", *lines)
    found = survey(path)
    assert [replace(case, images=dict(case.images)) for case in found.cases] == [
        replace(case, images={name: case.images[name] for name in case.images}) for case in (first, second)
    ]
    assert (found.layout, found.problems, found.passed_over) == ("table", (), ())


def test_a_csv_file_names_ids_patients_and_time_points(tmp_path: Path) -> None:
    """What it names goes before what file names tell; other columns are ignored."""
    path = write_csv(
        tmp_path / "cases.csv", "case_id,subject,session,age,t1", "a,P1,2,60,x/1.nii", "b,P1,3,61,x/2.nii", "c,,,,3.nii"
    )
    found = [(case.id, case.patient, case.timepoint) for case in find_cases(path)]
    assert found == [("a", "P1", "2"), ("b", "P1", "3"), ("c", "c", "")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,age", "a,3"], "has no column of a sequence"),
        (["t1,T1w", "a.nii,b.nii"], "two columns for t1n"),
        (["t1"], "names no case"),
        ([""], "is empty"),
        (["id,mask,t1", "a,m.nii,"], "a: cases.csv, line 2: has no image"),
        (["id,t1", "a,1.nii", "a,2.nii"], "a: cases.csv: the same id twice: line 2, line 3"),
        (["id,t1", "../a,1.nii"], "its id '../a' cannot be the name of a file: it has '/'"),
        (["id,t1", "a,1\0.nii"], "a path has a null character"),
    ],
)
def test_a_csv_file_that_cannot_be_used_says_why(tmp_path: Path, lines: list[str], message: str) -> None:
    """The message says what the first line must look like, or which row is wrong."""
    with pytest.raises(InputError, match=message):
        find_cases(write_csv(tmp_path / "cases.csv", *lines))


def test_a_datalist_of_four_files_gives_the_cases_that_its_folder_gives(write_case: WriteCase, tmp_path: Path) -> None:
    """The files' names tell the sequences, in whatever order they are; cases of `testing` have no masks."""
    first, second = write_case(number=1), write_case(number=2)
    entries = []
    for case in (first, second):
        files = relative(case, tmp_path)
        entries.append({"image": [files[name] for name in ("t2f", "t1c", "t1n", "t2w")], "label": files["mask"]})
    del entries[1]["label"]
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": [entries[0] | {"fold": 0}], "testing": [entries[1]]}), "utf-8")
    found = find_cases(path)
    assert found == [first, replace(second, mask=None)]


def test_a_datalist_of_4d_files_names_its_channels(write_case: WriteCase, tmp_path: Path) -> None:
    """MSD's own `dataset.json` is such a datalist; its labels give the convention."""
    case = write_case("msd")
    folder = tmp_path / "data"
    described = json.loads((folder / "dataset.json").read_text())
    described["training"] = [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}]
    described["test"] = ["./imagesTs/BRATS_002.nii.gz"]
    (folder / "dataset.json").write_text(json.dumps(described))
    first, second = find_cases(folder / "dataset.json")
    assert (first.id, first.convention, first.mask) == ("BRATS_001", "msd", case.mask)
    assert (read_case(first, tuple(MODALITIES)).data == read_case(case, tuple(MODALITIES)).data).all()
    assert (second.id, second.mask) == ("BRATS_002", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "one of the lists training"),
        ('{"training": [3]}', "neither a file nor an object"),
        ('{"training": [{"image": "scan.nii.gz"}]}', "nothing tells which sequence scan.nii.gz is"),
        ('{"training": [{"image": ["a_t1.nii", "a_T1w.nii"]}]}', "two files for t1n"),
        ('{"training": [{"label": "a_seg.nii"}]}', "has no image"),
    ],
)
def test_a_datalist_that_cannot_be_used_says_why(tmp_path: Path, content: str, message: str) -> None:
    """Nothing is guessed: an image whose sequence nothing tells is refused."""
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(InputError, match=message):
        find_cases(tmp_path / "datalist.json")


def test_commands_take_a_table(gliomask, model_file: Path, tmp_path: Path) -> None:
    """They are given a file instead of a folder."""
    cases = find_cases(tmp_path / "data")
    rows = [relative(case, tmp_path) for case in cases]
    path = write_csv(tmp_path / "cases.csv", ",".join(rows[0]), *(",".join(row.values()) for row in rows))
    status, said = gliomask("check", path)
    assert (status, "layout table, 2 cases" in said) == (0, True)
    assert gliomask("prepare", path, "-o", tmp_path / "cache")[0] == 0
    assert sorted(place.name for place in (tmp_path / "cache").iterdir() if place.is_dir()) == [c.id for c in cases]
    assert gliomask("predict", "-m", model_file, "-i", path, "-o", tmp_path / "masks", "-d", "cpu")[0] == 0
    assert sorted(file.name for file in (tmp_path / "masks").glob("*.nii.gz")) == [f"{c.id}.nii.gz" for c in cases]


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_masks_in_another_folder_are_told_by_the_id(tmp_path: Path) -> None:
    """The corrected mask is preferred to the automatic one, and a mask of no case is passed over."""
    for case_id in ("UPENN-GBM-00001_11", "UPENN-GBM-00002_11"):
        touch(tmp_path, *(f"images_structural/{case_id}/{case_id}_{name}.nii.gz" for name in ("T1", "T1GD")))
        touch(tmp_path, f"automated_segm/{case_id}_automated_approx_segm.nii.gz")
    touch(tmp_path, "images_segm/UPENN-GBM-00001_11_segm.nii.gz", "images_segm/UPENN-GBM-00009_11_segm.nii.gz")
    found = survey(tmp_path)
    assert [case.mask.parent.name for case in found.cases if case.mask] == ["images_segm", "automated_segm"]
    assert {Path(each.where).name: each.what for each in found.passed_over} == {
        "UPENN-GBM-00001_11_automated_approx_segm.nii.gz": "UPENN-GBM-00001_11_segm.nii.gz beside it is used as mask",
        "UPENN-GBM-00009_11_segm.nii.gz": "a mask without images beside it",
    }
    assert [note.what[:54] for note in found.notes] == ["the masks of 2 cases lie in another folder than the im"]


def test_a_mask_beside_the_images_goes_before_one_in_another_folder(tmp_path: Path) -> None:
    """A folder of predictions within the data does not replace the masks."""
    touch(tmp_path, "P1/P1_t1.nii.gz", "P1/P1_seg.nii.gz", "predicted/P1_seg.nii.gz")
    (case,) = find_cases(tmp_path)
    assert case.mask == tmp_path / "P1" / "P1_seg.nii.gz"


def test_masks_of_bids_derivatives_belong_to_the_images_of_their_space(tmp_path: Path) -> None:
    """A mask in the space of the images is used; one in the space of a template is not."""
    touch(tmp_path, *(f"sub-0{n}/ses-1/anat/sub-0{n}_ses-1_T1w.nii.gz" for n in (1, 2)))
    place = "derivatives/manual/sub-0{0}/ses-1/anat/sub-0{0}_ses-1_space-{1}_desc-tumor_dseg.nii.gz"
    touch(tmp_path, place.format(1, "orig"), place.format(2, "MNI152"))
    found = {case.id: case.mask for case in find_cases(tmp_path)}
    assert found == {"sub-01_ses-1": tmp_path / place.format(1, "orig"), "sub-02_ses-1": None}


def test_a_table_of_labels_tells_the_convention_of_bids_masks(write_case: WriteCase, tmp_path: Path) -> None:
    """The nearest `dseg.tsv` counts; without one, and with one whose names are unknown, the convention is open."""
    write_case("bids")
    assert find_cases(tmp_path / "data")[0].convention is None
    table = tmp_path / "data" / "derivatives" / "desc-tumor_dseg.tsv"
    table.write_text("index\tname\n1\tlesion\n")
    assert find_cases(tmp_path / "data")[0].convention is None
    table.write_text("index\tname\n1\tenhancing tumour\n2\tnecrotic core\n3\tcyst\n4\toedema\n")
    assert find_cases(tmp_path / "data")[0].convention == "brats2024-ped"
    table.write_text("index\tname\tabbreviation\n1\tx\tED\n2\tx\tNCR\n3\tx\tET\n")
    assert find_cases(tmp_path / "data")[0].convention == "msd"


def test_what_was_aligned_with_the_atlas_is_used_of_lumiere(tmp_path: Path) -> None:
    """The images of the examination have skulls and a grid each."""
    week = "Imaging/Patient-007/week-012-2"
    touch(tmp_path, *(f"{week}/{name}.nii.gz" for name in ("T1", "CT1", "T2", "FLAIR")))
    atlas = f"{week}/DeepBraTumIA-segmentation/atlas"
    touch(tmp_path, *(f"{atlas}/skull_strip/{name}_skull_strip.nii.gz" for name in ("t1", "ct1", "t2", "flair")))
    touch(tmp_path, f"{atlas}/skull_strip/brain_mask.nii.gz", f"{atlas}/segmentation/seg_mask.nii.gz")
    touch(tmp_path, f"{week}/HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz")
    (case,) = find_cases(tmp_path)
    assert (case.id, case.patient, case.timepoint) == ("Patient-007_week-012-2", "Patient-007", "week-012-2")
    assert {source.path.parent.name for source in case.images.values()} == {"skull_strip"}
    assert case.mask == tmp_path / atlas / "segmentation" / "seg_mask.nii.gz"


def test_a_parquet_table_is_read_like_a_csv_file(tmp_path: Path) -> None:
    """The same columns and paths give the same cases."""
    pytest.importorskip("pyarrow")
    rows = [
        {"id": f"C{n}", "patient": f"P{n // 2}", "t1ce": f"c{n}/a.nii.gz", "flair": f"c{n}/b.nii.gz"} for n in range(4)
    ]
    write_parquet(tmp_path / "list.parquet", dict.fromkeys(rows[0], str), rows, "")
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    found, expected = (survey(tmp_path / f"list.{ending}").cases for ending in ("parquet", "csv"))
    assert [(case.id, case.patient, case.images) for case in found] == [
        (case.id, case.patient, case.images) for case in expected
    ]
    assert len(found) == 4
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"bad.parquet: cannot be read as Parquet"):
        survey(tmp_path / "bad.parquet")


def test_a_list_of_folders_names_cases_anywhere(tmp_path: Path) -> None:
    """Only the listed folders are read; a folder that is missing, empty or ambiguous is a problem of its own line."""
    for folder, names in (("a/x", ("x_t1ce", "x_flair", "x_seg")), ("b/x", ("t1", "flair")), ("b/y", ("q_t1", "r_t1"))):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / f"{name}.nii.gz").touch()
    (tmp_path / "c").mkdir()
    (tmp_path / "list.csv").write_text("id,folder\nA,a/x\n,b/x\nB,b/y\nC,c\nD,nowhere\n")
    found = survey(tmp_path / "list.csv")
    assert [(case.id, set(case.images), case.mask is not None) for case in found.cases] == [
        ("A", {"t1c", "t2f"}, True),
        ("x", {"t1n", "t2f"}, False),
    ]
    assert [problem.where for problem in found.problems] == ["B", "C", "D"]
