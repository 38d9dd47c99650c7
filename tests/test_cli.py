"""The command line: what a user types, what is printed, and the exit status."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.main import get_command

from gliomask.cases import LAYOUTS, Case, find_cases
from gliomask.cli import app
from gliomask.volume import Volume, read_volume, write_volume

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_there_and_needs_no_torch(command: list[str]) -> None:
    """Every command has help with an example, and printing it imports no library that is slow to load."""
    code = (
        "import sys; sys.argv = ['gliomask', *sys.argv[1:], '-h']\n"
        "import gliomask.cli\n"
        "try: gliomask.cli.main()\n"
        "except SystemExit as e: status = e.code\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'nibabel', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gliomask" in done.stdout
    assert not command or "Examples" in done.stdout


def test_the_whole_way(gliomask: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """The output of each command is accepted by the next: phantom, check, prepare, train, resume, predict, evaluate."""
    data, run, found = tmp_path / "data", tmp_path / "run", tmp_path / "found"
    assert gliomask("phantom", data, "--cases", 4, "--size", 48)[0] == 0
    status, said = gliomask("check", data)
    assert status == 0
    assert "layout brats2021, 4 cases" in said
    assert gliomask("prepare", data, "-o", tmp_path / "cache")[0] == 0
    options = ("--patch-size", 32, "--epochs", 2, "--patches-per-case", 2, "--lr", "2e-3", "--network", "fcn")
    assert gliomask("train", tmp_path / "cache", "-o", run, *options)[0] == 0
    status, said = gliomask("train", tmp_path / "cache", "-o", run, *options, "--resume")
    assert status == 0
    status, said = gliomask(
        "predict", "-m", run / "best.safetensors", "-i", data, "-o", found, "--picture", "--show", "t2,t1"
    )
    assert status == 0
    suffixes = sorted(path.suffix for path in found.iterdir() if path.name not in ("volumes.csv", "volumes.parquet"))
    assert suffixes == [".gz"] * 4 + [".json"] * 4 + [".png"] * 4
    table, picture = tmp_path / "scores.csv", tmp_path / "scores.png"
    status, said = gliomask("evaluate", found, data, "-o", table, "--picture", picture)
    assert status == 0
    assert "brats2021, 4 cases" in said
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 12
    assert {"protocol", "case", "region", "dice", "hd95_pooled_mm", "hd95_surface_mm", "specificity"} <= set(rows[0])
    assert picture.stat().st_size > 5000
    assert gliomask("info", run / "best.safetensors")[0] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_phantoms_of_every_layout_pass_the_check(gliomask, tmp_path: Path, layout: str) -> None:
    """Every layout that can be written is also recognised by name."""
    assert gliomask("phantom", tmp_path / "data", "--cases", 2, "--size", 32, "--layout", layout)[0] == 0
    status, said = gliomask(
        "check", tmp_path / "data", *(["--labels", "brats2024-ped"] if layout == "brats-ped" else [])
    )
    assert status == 0, said
    assert f"layout {layout}, 2 cases" in said


def test_a_phantom_can_lack_sequences(gliomask, tmp_path: Path) -> None:
    """Sequences can be left out, except in a layout with all of them in one file."""
    assert gliomask("phantom", tmp_path / "a", "--cases", 1, "--size", 32, "--missing", "t1ce,t1")[0] == 0
    assert list(find_cases(tmp_path / "a")[0].images) == ["t2w", "t2f"]
    status, said = gliomask(
        "phantom", tmp_path / "b", "--cases", 1, "--size", 32, "--missing", "t1ce", "--layout", "msd"
    )
    assert status == 2
    assert "one file" in said


def test_prepare_crops_say_what_they_cut(gliomask, folder_of, tmp_path: Path) -> None:
    """Each case becomes an array with three channels in the last axis, and its mask."""
    status, said = gliomask("prepare", folder_of(2), "-o", tmp_path / "crops", "--crop", 16)
    assert status == 0
    assert "of the tumour cut off" in said
    image = np.load(tmp_path / "crops" / "BraTS2021_00001_image.npy")
    assert (image.shape, image.dtype) == ((16, 16, 16, 3), np.float32)
    assert np.load(tmp_path / "crops" / "BraTS2021_00001_mask.npy").shape == (16, 16, 16)


def test_predict_takes_files_by_name(gliomask, model_file: Path, tmp_path: Path) -> None:
    """Every alias of a sequence is accepted, and the mask is written to the file that was named."""
    case = find_cases(tmp_path / "data")[0]
    out = tmp_path / "mask.nii.gz"
    for names in (("--t1ce", "--t2", "--flair"), ("--t1c", "--t2w", "--t2f"), ("--t1gd", "--t2", "--flair")):
        files = [
            word for name, m in zip(names, ("t1c", "t2w", "t2f"), strict=True) for word in (name, case.images[m].path)
        ]
        status, said = gliomask("predict", "-m", model_file, *files, "-o", out, "--overwrite", "--labels", "brats2023")
        assert status == 0, said
    assert read_volume(out, mask=True).data.max() <= 3
    assert json.loads((tmp_path / "mask.json").read_text())["labels"]["convention"] == "brats2023"
    status, said = gliomask("predict", "-m", model_file, *files, "-o", out)
    assert status == 2
    assert "--overwrite" in said


def test_predicting_again_does_only_what_is_missing(gliomask, model_file: Path, tmp_path: Path) -> None:
    """An interrupted batch continues; masks that exist are neither computed again nor overwritten."""
    assert gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")[0] == 0
    kept = tmp_path / "out" / "BraTS2021_00001.nii.gz"
    before = kept.stat().st_mtime_ns
    (tmp_path / "out" / "BraTS2021_00002.nii.gz").unlink()
    assert gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")[0] == 0
    assert kept.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "BraTS2021_00002.nii.gz").exists()
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")
    assert status == 0
    assert "up to date" in said


def _image(case: Case, modality: str = "t2f") -> Path:
    return case.images[modality].path


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    volume = read_volume(path)
    write_volume(path, Volume(change(volume.data.astype(np.float32)), volume.affine))


def test_predict_and_check_say_what_is_odd(gliomask, model_file: Path, tmp_path: Path) -> None:
    """Each warning appears once, with the case and the file, and the mask is still written."""
    case = find_cases(tmp_path / "data")[0]
    _rewrite(_image(case), lambda data: data + 7)
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")
    assert status == 0
    assert said.count(f"warning: {case.id}: t2f ({_image(case).name}): the background is 7, not 0") == 1
    assert len(json.loads((tmp_path / "out" / f"{case.id}.json").read_text())["warnings"]) == 1
    status, said = gliomask("check", tmp_path / "data", "--json")
    assert status == 0
    notes = [text for text in json.loads(said)["cases"][0]["notes"] if "background" in text]
    assert notes == [f"t2f ({_image(case).name}): the background is 7, not 0, and is taken for brain. Set it to 0."]


def _spoil_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(data: np.ndarray) -> np.ndarray:
        data[0, 3, 4, 5] = value
        return data

    return change


def _move(path: Path, row: int, column: int, by: float) -> None:
    volume = read_volume(path)
    affine = volume.affine.copy()
    affine[row, column] += by
    write_volume(path, Volume(volume.data, affine))


def _write_2d(path: Path) -> None:
    nib.Nifti1Image(np.ones((24, 28), np.int16), np.eye(4)).to_filename(path)


SPOILT_IMAGES: dict[str, tuple[Callable[[Case], object], str]] = {
    "missing sequence": (lambda case: _image(case).unlink(), "missing: t2f"),
    "cut gzip": (lambda case: _cut(_image(case)), "cut or damaged"),
    "not a NIfTI": (lambda case: _image(case).write_bytes(gzip.compress(b"hello" * 200)), "not a NIfTI"),
    "NaN": (lambda case: _rewrite(_image(case), _spoil_voxel(np.nan)), "NaN"),
    "infinite": (lambda case: _rewrite(_image(case), _spoil_voxel(np.inf)), "infinite"),
    "all zero": (lambda case: _rewrite(_image(case), np.zeros_like), "every voxel is zero"),
    "2-D": (lambda case: _write_2d(_image(case)), "3-D volume is needed"),
    "4-D": (lambda case: _rewrite(_image(case), lambda data: np.concatenate([data, data])), "4-D file"),
    "other shape": (lambda case: _rewrite(_image(case), lambda data: data[:, 1:]), "differ in shape"),
    "other origin": (lambda case: _move(_image(case), 0, 3, 5.0), "differ in origin"),
    "other spacing": (lambda case: _move(_image(case), 0, 0, -0.4), "differ in spacing"),
    "other orientation": (lambda case: _move(_image(case), 0, 0, 4.0), "differ in orientation"),
}


@pytest.mark.parametrize("name", SPOILT_IMAGES)
def test_a_bad_case_is_reported_and_the_others_are_done(gliomask, model_file: Path, tmp_path: Path, name: str) -> None:
    """The exit status is 1, the case and its fault are named, the other mask is written, no partial file is left."""
    spoil, message = SPOILT_IMAGES[name]
    case = find_cases(tmp_path / "data")[0]
    spoil(case)
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")
    assert status == 1, said
    assert case.id in said
    assert message in said
    assert "Traceback" not in said
    written = {path.name for path in (tmp_path / "out").iterdir()} - {"volumes.parquet"}
    assert written == {"BraTS2021_00002.nii.gz", "BraTS2021_00002.json", "volumes.csv", "failed.csv"}


@pytest.mark.parametrize("name", SPOILT_IMAGES)
def test_a_bad_case_alone_is_status_2(gliomask, model_file: Path, tmp_path: Path, name: str) -> None:
    """Nothing could be done, so no output folder is created."""
    spoil, message = SPOILT_IMAGES[name]
    case = find_cases(tmp_path / "data")[0]
    spoil(case)
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "data" / case.id, "-o", tmp_path / "out")
    assert status == 2, said
    assert message in said
    assert not (tmp_path / "out").exists()


def test_check_says_everything_at_once(gliomask, folder_of, tmp_path: Path) -> None:
    """Two bad cases, an empty mask and a remark are all reported; as JSON the result is the same."""
    folder = folder_of(4)
    cases = find_cases(folder)
    _cut(_image(cases[0]))
    mask = read_volume(cases[1].mask, mask=True)
    wrong = mask.data.copy()
    wrong[0, 0, 0, 0] = 7
    write_volume(cases[1].mask, Volume(wrong, mask.affine))
    write_volume(cases[2].mask, Volume(np.zeros_like(mask.data), mask.affine))
    status, said = gliomask("check", folder)
    assert status == 1
    said = " ".join(said.split())  # the table breaks lines
    for text in (
        "cut or damaged",
        "labels {7} are not in brats2021",
        "the mask is empty",
        "2 cases can be used",
        "2 cannot be used",
    ):
        assert text in said
    status, said = gliomask("check", folder, "--json")
    assert status == 1
    assert [bool(case["problems"]) for case in json.loads(said)["cases"]] == [True, True, False, False]


def test_in_80_columns_each_case_and_each_remark_is_one_line(gliomask, folder_of) -> None:
    """The table fits into 80 columns, and each remark is one unbroken line below it, with its case."""
    folder = folder_of(3)
    first, second, third = find_cases(folder)
    _rewrite(_image(first), lambda data: data + 7)
    _cut(_image(second))
    _, said = gliomask("check", folder, columns=80)
    lines = said.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    assert [(line.split()[0], line.split()[-1]) for line in table[1:]] == [
        (first.id, "below"), (second.id, "bad"), (third.id, "below"),
    ]  # fmt: skip
    assert (
        f"{first.id}: t2f ({_image(first).name}): the background is 7, not 0, and is taken for brain. Set it to 0."
        in lines
    )
    assert [line for line in lines if line.startswith(f"{second.id}: ") and "cut or damaged" in line]


def test_two_files_for_a_sequence_are_reported(gliomask, model_file: Path, folder_of, tmp_path: Path) -> None:
    """A case with two files for one sequence is reported, and the other cases are predicted."""
    data = tmp_path / "data"
    double = data / "BraTS2021_00001"
    (double / "BraTS2021_00001-T2.nii.gz").write_bytes((double / "BraTS2021_00001_t2.nii.gz").read_bytes())
    status, said = gliomask("predict", "-m", model_file, "-i", data, "-o", tmp_path / "out")
    assert status == 1
    assert "2 files for t2w" in said
    assert (tmp_path / "out" / "BraTS2021_00002.nii.gz").exists()


BAD_CALLS = {
    "no such folder": (("check", "{tmp}/none"), "no such folder"),
    "no cases": (("check", "{tmp}/empty"), "no case found"),
    "no such model": (("predict", "-m", "{tmp}/none.safetensors", "-i", "{data}", "-o", "{tmp}/o"), "no such model"),
    "nothing to predict": (("predict", "-m", "{model}", "-o", "{tmp}/o"), "name the images"),
    "one file for two": (("predict", "-m", "{model}", "-i", "{data}", "-o", "{tmp}/m.nii.gz"), "one file for 2 cases"),
    "output not writable": (("predict", "-m", "{model}", "-i", "{data}", "-o", "/proc/no"), "cannot write to /proc/no"),
    "run not writable": (("train", "{data}", "-o", "/proc/no"), "cannot write to /proc/no"),
    "cache not writable": (("prepare", "{data}", "-o", "/proc/no"), "cannot write to /proc/no"),
    "a file that is not there": (
        (
            "predict",
            "-m",
            "{model}",
            "--t1c",
            "{tmp}/a.nii",
            "--t2",
            "{tmp}/b.nii",
            "--flair",
            "{tmp}/c.nii",
            "-o",
            "{o}",
        ),
        "no such file",
    ),
    "an image for a mask": (("evaluate", "{case}_t2.nii.gz", "{case}_seg.nii.gz"), "Is this a tumour mask?"),
    "output is a file": (("predict", "-m", "{model}", "-i", "{data}", "-o", "{model}"), "is a file"),
    "unknown window": (("predict", "-m", "{model}", "-i", "{data}", "-o", "{tmp}/o", "--window", "hole"), "whole"),
    "unknown labels": (("predict", "-m", "{model}", "-i", "{data}", "-o", "{tmp}/o", "--labels", "brats21"), "did you"),
    "unknown sequence": (("predict", "-m", "{model}", "-i", "{data}", "-o", "{tmp}/o", "--show", "flare"), "did you"),
    "--show without a picture": (("predict", "{data}", "-o", "{tmp}/o", "--show", "flair"), "add --picture"),
    "a table as output": (("predict", "{data}", "-o", "{tmp}/masks.csv"), "masks are written as NIfTI"),
    "another format": (("predict", "{data}", "-o", "{tmp}/mask.mha"), "masks are written as NIfTI"),
    "gpu": (("predict", "{data}", "-o", "{tmp}/o", "-d", "gpu"), "did you mean 'cuda'?"),
    "unknown network": (("train", "{data}", "-o", "{tmp}/r", "--network", "unte"), "did you mean 'unet'"),
    "unknown loss": (("train", "{data}", "-o", "{tmp}/r", "--loss", "dice+focla"), "did you mean 'dice+focal'"),
    "unknown modality": (("train", "{data}", "-o", "{tmp}/r", "--modalities", "flare,t2"), "did you mean 'flair'"),
    "modality twice": (("train", "{data}", "-o", "{tmp}/r", "--modalities", "flair,t2f"), "the same sequence twice"),
    "unknown schedule": (("train", "{data}", "-o", "{tmp}/r", "--schedule", "cosin"), "--schedule"),
    "bad rate": (("train", "{data}", "-o", "{tmp}/r", "--lr", "-1"), "--lr"),
    "unknown device": (("train", "{data}", "-o", "{tmp}/r", "-d", "gpu"), "device"),
    "cuda": (("train", "{data}", "-o", "{tmp}/r", "-d", "cuda"), "-d auto"),
    "unknown layout": (("phantom", "{tmp}/p", "--layout", "brats2012"), "did you mean 'brats20"),
    "phantoms over data": (("phantom", "{data}"), "not empty"),
    "train into data": (("train", "{data}", "-o", "{data}"), "not empty"),
    "unknown protocol": (("evaluate", "{data}", "{data}", "--protocol", "brats2012"), "did you mean 'brats2021'"),
    "scores as text": (("evaluate", "{data}", "{data}", "-o", "{tmp}/scores.txt"), "are written as .csv, .json"),
    "nothing in common": (("evaluate", "{tmp}/empty", "{data}"), "no mask found"),
    "not a model": (("info", "{data}/BraTS2021_00001/BraTS2021_00001_t2.nii.gz"), "not a whole model file"),
    "resume nothing": (("train", "{data}", "-o", "{tmp}/r", "--resume"), "nothing to resume"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_one_line_and_status_2(gliomask, model_file: Path, tmp_path: Path, name: str) -> None:
    """The message says what is wrong and what to do; there is no traceback and no file is left behind."""
    if name == "cuda":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
    (tmp_path / "empty").mkdir()
    words, message = BAD_CALLS[name]
    before = sorted(tmp_path.rglob("*"))
    data = tmp_path / "data"
    places = {"tmp": tmp_path, "data": data, "model": model_file, "o": tmp_path / "o.nii"}
    places["case"] = data / "BraTS2021_00001" / "BraTS2021_00001"
    status, said = gliomask(*(word.format(**places) for word in words))
    assert status == 2, said
    assert message in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing_half_written(
    gliomask, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message gives the reason, and no partial file remains."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gliomask.files.whole.os.fsync", full)
    status, said = gliomask("predict", "-m", model_file, "-i", tmp_path / "data", "-o", tmp_path / "out")
    assert status == 1
    assert "No space left" in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "phantom {o} --cases 1 --size 32",
        "evaluate {data} {data} -o {o}.csv",
        "prepare {data} -o {o}",
        "export -m {model} -o {o}.onnx",
        "convert {data} -o {o} --layout brats2023",
    ],
)
def test_a_full_disk_is_no_bad_input(
    gliomask, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Every command that writes ends with status 1 and gives the reason, and leaves no file."""
    places = {"o": tmp_path / "o", "data": tmp_path / "data", "model": model_file}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("gliomask.files.whole.os.fsync", full)
    status, said = gliomask(*(word.format(**places) for word in words.split()))
    assert (status, "No space left" in said) == (1, True), said
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_case_without_a_mask_or_with_an_empty_one(gliomask, folder_of, tmp_path: Path) -> None:
    """Training leaves out a case without a mask, with a warning; a case with an empty mask is used."""
    folder = folder_of(4)
    cases = find_cases(folder)
    mask = read_volume(cases[0].mask, mask=True)
    write_volume(cases[0].mask, Volume(np.zeros_like(mask.data), mask.affine))
    cases[1].mask.unlink()
    status, said = gliomask(
        "train", folder, "--patch-size", 16, "--epochs", 1, "--network", "fcn", "-o", tmp_path / "run"
    )
    assert status == 0, said
    assert "1 of 4 cases left out, as they have no mask: BraTS2021_00002" in said
    for case in cases:
        case.mask.unlink(missing_ok=True)
    status, said = gliomask("train", folder, "-o", tmp_path / "other")
    assert status == 2
    assert "no mask in any of 4 cases" in said


def test_ctrl_c_keeps_everything_and_resume_goes_on(folder_of, tmp_path: Path) -> None:
    """A training process that receives the signal ends with status 130, says how to resume, and resumes."""
    import signal
    import time

    folder = folder_of(4)
    words = ["train", str(folder), "-o", str(tmp_path / "run"), "--patch-size", "32", "--epochs", "300", "--lr", "1e-3"]
    command = [sys.executable, "-m", "gliomask", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "run" / "log.jsonl"
    for _ in range(600):
        time.sleep(0.1)
        if log.exists():
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    epochs = len(log.read_text().splitlines())
    again = subprocess.run(
        [*command[:4], "-o", str(tmp_path / "run"), "--epochs", str(epochs + 2), "--resume"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len(log.read_text().splitlines()) == epochs + 2
