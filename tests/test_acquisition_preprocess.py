"""Raw studies prepared: images that were moved lie on each other again, and the mask goes back to where it belongs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from gliomask.acquisition.alignment import load_alignment
from gliomask.acquisition.brain import implausible_volume
from gliomask.acquisition.find import find_studies
from gliomask.acquisition.other_tools import StrippingTool, strip_with
from gliomask.acquisition.prepare_study import prepare_study, prepared_before
from gliomask.acquisition.preprocess import PreprocessSettings, is_stripped, preprocess
from gliomask.acquisition.shading import without_shading
from gliomask.errors import InputError
from gliomask.execution import Where, map_cases
from gliomask.files import one_writer
from gliomask.phantom import make_phantom
from gliomask.phantom.dicom import write_dicom_study
from gliomask.phantom.raw import RawImage, make_raw_phantom
from gliomask.volume import Volume, read_volume, write_volume

pytest.importorskip("picsl_greedy")
pytest.importorskip("SimpleITK")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def heads() -> dict[str, RawImage]:
    """A head of coarse voxels, in three sequences on grids of their own, turned and moved against each other."""
    found = make_raw_phantom(5, size=64, thickness_mm=(3, 4), edge_mm=2)
    return {name: found[name] for name in ("t1c", "t2w", "t2f")}


def stripped(heads: dict[str, RawImage]) -> dict[str, Volume]:
    return {
        name: Volume(np.where(raw.brain, raw.image.data, 0).astype(np.float32), raw.image.affine)
        for name, raw in heads.items()
    }


def errors_mm(found: object, heads: dict[str, RawImage], name: str) -> np.ndarray:
    """How far each place of the brain lies from where it should, in the images' own space."""
    alignment = found.alignment
    places = np.argwhere(found.brain.data[0])[::997]
    places = np.c_[places @ found.brain.affine[:3, :3].T + found.brain.affine[:3, 3], np.ones(len(places))]
    in_reference = places @ alignment.to_native[alignment.reference].T
    rest = in_reference @ np.linalg.inv(heads[alignment.reference].from_head).T
    truth = rest @ heads[name].from_head.T
    return np.linalg.norm((places @ alignment.to_native[name].T - truth)[:, :3], axis=1)


def test_moved_images_lie_on_each_other_again(heads: dict[str, RawImage]) -> None:
    """Stripped images, so that no network is needed: within 1 mm on average and 2.5 mm anywhere in the brain."""
    steps: list[str] = []
    settings = PreprocessSettings(atlas="none", threads=1)
    found = preprocess(stripped(heads), settings, on_step=lambda name, share: steps.append(name))
    for name in heads:
        errors = errors_mm(found, heads, name)
        assert errors.mean() < 1
        assert errors.max() < 2.5
        assert found.alignment.quality[f"overlap_{name}"] > 0.9
    assert found.alignment.reference == "t1c"
    assert {image.data.shape for image in found.images.values()} == {found.brain.data.shape}
    assert np.allclose(found.brain.spacing_mm, 1.0)
    assert all(not image.data[found.brain.data == 0].any() for image in found.images.values())
    assert list(found.steps) == steps


def test_a_search_that_went_astray_is_begun_again(heads: dict[str, RawImage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the map leads a brain's centre far away from the other's: up to three times, then it stays as it is."""
    calls: list[np.ndarray] = []

    def astray(fixed: Volume, moving: Volume, *, start: np.ndarray, program: str, threads: int | None) -> np.ndarray:
        calls.append(start)
        far = start.copy()
        far[0, 3] += 100 if len(calls) in (1, 3, 4, 5) else 1
        return far

    monkeypatch.setattr("gliomask.acquisition.preprocess.register", astray)
    pair = {name: image for name, image in stripped(heads).items() if name != "t2f"}
    settings = PreprocessSettings(atlas="none", skull_strip="none")
    assert preprocess(pair, settings).alignment.quality["overlap_t2w"] > 0.7
    assert len(calls) == 2
    assert preprocess(pair, settings).alignment.quality["overlap_t2w"] < 0.5
    assert len(calls) == 5


def test_images_without_skull_are_recognised() -> None:
    """By the exact zeros around them, and by the volume of a brain: scanners set air to zero too."""
    raw = make_raw_phantom(7, size=40, edge_mm=3)["t2f"]
    assert not is_stripped(raw.image)
    assert is_stripped(Volume(np.where(raw.brain, raw.image.data, 0), raw.image.affine))
    air = raw.image.data < 0.1 * raw.image.data[0][raw.brain].mean()
    assert not is_stripped(Volume(np.where(air, 0, raw.image.data), raw.image.affine))  # as scanners cut off noise


def test_brain_volumes_out_of_range_are_said() -> None:
    """Of 700 to 2200 mL; the way out is a mask of one's own."""
    assert implausible_volume(1400) is None
    assert "--skull-strip" in str(implausible_volume(300))
    assert "2500 mL" in str(implausible_volume(2500))


def test_what_cannot_be_prepared_is_said() -> None:
    """No image at all, and a reference that is not there."""
    with pytest.raises(InputError, match="no image"):
        preprocess({})
    image = Volume(np.ones((1, 4, 4, 4), np.float32), np.eye(4))
    with pytest.raises(InputError, match="reference t1c is not among the images"):
        preprocess({"t2f": image}, PreprocessSettings(reference="t1c"))


def test_from_dicom_to_a_mask_in_the_patients_own_space(
    gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """By the command; a second call goes on where the first was left."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    heads = make_raw_phantom(3, size=80, thickness_mm=(3, 4), edge_mm=2)
    images = {name: heads[name].image for name in ("t1c", "t2f")}
    write_dicom_study(tmp_path / "studies", images, number=1)
    truth = heads["t1c"].brain
    dicom = ("--output-type", "nifti,dicom-seg,rtstruct", "--segments", "regions")
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", "-o", tmp_path / "out", *dicom)
    assert status == 0, said
    assert "after contrast" in said
    assert "PHANTOM" not in said + (tmp_path / "out" / "studies.json").read_text()  # the patient's name
    mask = read_volume(tmp_path / "out" / "studies.nii.gz", mask=True)
    seg = pydicom.dcmread(tmp_path / "out" / "studies_seg.dcm")
    whole = seg.pixel_array[: mask.data.shape[3]]
    assert np.count_nonzero(whole) == np.count_nonzero(mask.data)
    structures = tmp_path / "out" / "studies_rtstruct.dcm"
    structures.unlink()
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", "-o", tmp_path / "out", *dicom)
    assert (status, "1 of 1 masks are in" in said, "wrote studies_rtstruct.dcm" in said) == (0, True, True)
    assert structures.is_file()
    assert pydicom.dcmread(tmp_path / "out" / "studies_seg.dcm").SOPInstanceUID == seg.SOPInstanceUID
    assert mask.data.shape[1:] == truth.shape
    facts = json.loads((tmp_path / "out" / "studies.json").read_text())
    assert facts["space"] == "t1c"
    for region in ("WT", "TC", "ET"):
        assert facts["volumes_ml"][region] == pytest.approx(facts["volumes_ml_prepared"][region], rel=0.02, abs=0.5)
    own = facts["volumes_ml"]
    assert own.keys() == facts["volumes_ml_prepared"].keys()
    assert own["NCR"] == pytest.approx(own["TC"] - own["ET"], abs=0.002)
    assert own["ED"] == pytest.approx(own["WT"] - own["TC"], abs=0.002)
    prepared = tmp_path / "out" / "prepared" / "studies"
    brain = read_volume(prepared / "studies_brain.nii.gz", mask=True)
    native = load_alignment(prepared / "transforms").onto_native("t1c", brain).data[0] > 0.5
    assert 2 * (native & truth).sum() / (native.sum() + truth.sum()) > 0.9
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", "-o", tmp_path / "out")
    assert (status, "1 of 1 masks are in" in said) == (0, True)
    changed = gliomask("predict", "--raw", "-i", tmp_path / "studies", "-o", tmp_path / "out", "--space", "prepared")
    assert (changed[0], "made with other settings: space" in changed[1]) == (0, True)
    assert not structures.exists()  # it showed another mask
    assert json.loads((tmp_path / "out" / "studies.json").read_text())["space"] == "prepared"
    (tmp_path / "out" / "studies.nii.gz").unlink()  # as if it had been killed before the last file was written
    options = ("-o", tmp_path / "out", "--space", "t2f")
    status, said = gliomask("predict", "--raw", "-i", tmp_path / "studies", *options)
    assert status == 0, said
    assert json.loads((tmp_path / "out" / "studies.json").read_text())["space"] == "t2f"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--atlas", "talairach"), "unknown value of --atlas"),
        (("--skull-strip", "nothing.nii"), "neither deepbet, none, synthstrip, hd-bet, nor a file"),
        (("--register", "elastix"), "unknown value of --register"),
        (("--skull-strip", "hd-bet"), "the program hd-bet was not found"),
    ],
)
def test_unknown_ways_to_prepare_are_refused(
    gliomask: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    what: str,
) -> None:
    """Before anything is read or written."""
    monkeypatch.setenv("PATH", str(tmp_path))
    status, said = gliomask("preprocess", tmp_path, "-o", tmp_path / "cases", *words)
    assert (status, what in said) == (2, True)
    assert not (tmp_path / "cases").exists()


def test_one_bad_study_does_not_stop_the_others(gliomask: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """It is named at the end, with exit status 1."""
    small_study(tmp_path / "studies" / "RAW_001")
    (tmp_path / "studies" / "bad").mkdir()
    (tmp_path / "studies" / "bad" / "t1c.nii.gz").write_bytes(b"no image")
    skull = ("--skull-strip", "none", "--atlas", "none", "--register", "none")
    status, said = gliomask("preprocess", tmp_path / "studies", "-o", tmp_path / "cases", *skull)
    assert status == 1
    assert "bad: " in said
    assert (tmp_path / "cases" / "RAW_001" / "RAW_001_t1ce.nii.gz").is_file()
    assert not (tmp_path / "cases" / "bad").exists()


def test_a_preparation_is_used_again_only_for_the_same_images_and_settings(tmp_path: Path) -> None:
    """Other settings, another file of the same name, or a missing record: it is prepared anew."""
    raw = make_raw_phantom(4, size=32, edge_mm=5, thickness_mm=(5, 6))["t1c"]
    stripped_head = Volume(np.where(raw.brain, raw.image.data, 0), raw.image.affine)
    write_volume(tmp_path / "study" / "t1c.nii.gz", stripped_head)
    (study,) = find_studies(tmp_path / "study")
    settings = PreprocessSettings(atlas="none", skull_strip="none", register="none")
    assert prepared_before(study, tmp_path / "out", settings) is None
    made = prepare_study(study, tmp_path / "out", settings)
    again = prepared_before(study, tmp_path / "out", settings)
    assert again is not None
    assert again.case == made.case
    assert prepared_before(study, tmp_path / "out", replace(settings, register="greedy")) is None
    write_volume(tmp_path / "study" / "t1c.nii.gz", Volume(stripped_head.data // 2, raw.image.affine))
    assert prepared_before(study, tmp_path / "out", settings) is None


@pytest.mark.parametrize(
    ("words", "what"), [(("-o", "mask.nii.gz"), "name a folder"), (("-o", "out", "--picture"), "do not go with --raw")]
)
def test_what_does_not_go_with_raw_is_refused(
    gliomask: Callable[..., tuple[int, str]], tmp_path: Path, words: tuple[str, ...], what: str
) -> None:
    """Instead of being passed over in silence."""
    output = tmp_path / words[1]
    status, said = gliomask("predict", "--raw", "-i", tmp_path, "-o", output, *words[2:])
    assert (status, what in said) == (2, True)
    assert not output.exists()


def small_study(folder: Path, name: str = "t1c", seed: int = 4) -> RawImage:
    """Write a stripped head of very coarse voxels, which takes no time to prepare."""
    raw = make_raw_phantom(seed, size=32, edge_mm=5, thickness_mm=(5, 6))[name]
    write_volume(folder / f"{name}.nii.gz", Volume(np.where(raw.brain, raw.image.data, 0), raw.image.affine))
    return raw


QUICK = ("--skull-strip", "none", "--atlas", "none", "--register", "none")


def test_brain_masks_on_the_images_own_grids(gliomask: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    """They are written when they are asked for, also beside a case that was prepared before without them."""
    truth = {name: small_study(tmp_path / "study", name) for name in ("t1c", "t2f")}
    for options in ((), ("--native-masks",)):
        status, said = gliomask("preprocess", tmp_path / "study", "-o", tmp_path / "cases", *QUICK, *options)
        assert status == 0, said
        assert (tmp_path / "cases" / "study" / "native").exists() == bool(options)
    for name, called in (("t2f", "flair"), ("t1c", "t1c")):
        mask = read_volume(tmp_path / "cases" / "study" / "native" / f"study_brain_{called}.nii.gz", mask=True)
        assert not truth[name].image.grid.difference(mask.grid)
    ours, brain = mask.data[0] > 0, truth["t1c"].brain  # the reference's: the other was moved and not registered
    assert 2 * (ours & brain).sum() / (ours.sum() + brain.sum()) > 0.9
    record = json.loads((tmp_path / "cases" / "study" / "study.json").read_text())
    assert [row["sequence"] for row in record["series"]] == ["t1c", "t2f"]


def test_images_that_are_stripped_and_aligned_are_left_so(tmp_path: Path) -> None:
    """Both steps are left out, and the user is told."""
    raw = make_raw_phantom(5, size=32, edge_mm=5)["t1c"]
    image = Volume(np.where(raw.brain, raw.image.data, 0), raw.image.affine)
    found = preprocess({"t1c": image, "t2f": Volume(image.data * 2, image.affine)}, PreprocessSettings(atlas="none"))
    assert np.array_equal(found.alignment.to_native["t1c"], found.alignment.to_native["t2f"])
    assert [note.split(":")[0] for note in found.notes] == [
        "t1c has no skull already",
        "t2f has no skull already",
        "t2f lies on t1c already",
    ]


def test_shading_is_taken_out() -> None:
    """N4 flattens a brain whose one side is brighter."""
    raw = make_raw_phantom(5, size=32, edge_mm=6)["t1c"]
    ramp = np.linspace(0.6, 1.4, raw.brain.shape[1])[:, None]
    shaded = Volume((np.where(raw.brain, 500, 0) * ramp).astype(np.float32)[None], raw.image.affine)
    flat = without_shading(shaded, raw.brain).data[0][raw.brain]
    before = shaded.data[0][raw.brain]
    assert flat.std() / flat.mean() < 0.5 * before.std() / before.mean()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("tool", "program", "mask"),
    [("synthstrip", "mri_synthstrip", '"$4"'), ("hd-bet", "hd-bet", '"${4%.nii.gz}_bet.nii.gz"')],
)
def test_another_programs_brain_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: StrippingTool, program: str, mask: str
) -> None:
    """It is called with its own options; one that fails is named with its last words."""
    raw = make_raw_phantom(5, size=32, edge_mm=6)["t1c"]
    write_volume(tmp_path / "answer.nii.gz", Volume(raw.brain[None].astype(np.uint8), raw.image.affine))
    script = tmp_path / program
    script.write_text(f'#!/bin/sh\ntest -f "$2" && cp {tmp_path}/answer.nii.gz {mask}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert np.array_equal(strip_with(tool, raw.image), raw.brain)
    script.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    with pytest.raises(InputError, match="failed with status 3: no licence"):
        strip_with(tool, raw.image)


def _strip_second(number: int) -> None:
    """Strip an image with HD-BET if it is the second one."""
    if number:
        raw = make_raw_phantom(5, size=32, edge_mm=6)["t1c"]
        strip_with("hd-bet", raw.image)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without a word to it")
def test_another_program_ends_with_the_process_that_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program goes on working, and no head remains in the folder for temporary files."""
    script = tmp_path / "hd-bet"
    script.write_text(f'#!/bin/sh\ntest -f "$2" && echo $$ > {tmp_path}/half && mv {tmp_path}/half {tmp_path}/pid\n')
    script.write_text(script.read_text() + "exec sleep 60\n")
    script.chmod(0o755)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    found = map_cases(_strip_second, [0, 1], Where(processes=True, at_once=1))
    assert next(found) == (0, None)
    end = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() and time.monotonic() < end:
        time.sleep(0.01)
    found.close()
    assert not list((tmp_path / "temporary").glob("gliomask-*"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_images_that_contradict_their_names_are_warned_of(tmp_path: Path) -> None:
    """T2 and T1 after contrast exchanged: by the room that tells sequences apart, on the prepared images."""
    phantom = make_phantom(3, size=80)
    for name, image in (("t1c", "t2w"), ("t2w", "t1c"), ("t2f", "t2f")):
        write_volume(tmp_path / "study" / f"{name}.nii.gz", Volume(phantom.images[image][None], phantom.affine))
    (study,) = find_studies(tmp_path / "study")
    settings = PreprocessSettings(atlas="none", skull_strip="none", register="none")
    found = prepare_study(study, tmp_path / "out", settings)
    assert any("looks like" in warning and "swapped" in warning for warning in found.warnings)


def test_a_damaged_record_does_not_stop_the_other_studies(
    gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """It is named at the end; with --strict a warning of an earlier preparation counts as one of this."""
    for number in (1, 2, 3):
        small_study(tmp_path / "studies" / f"P{number}", seed=number)
    cases = tmp_path / "cases"
    words = ("preprocess", tmp_path / "studies", "-o", cases, *QUICK)
    assert gliomask(*words)[0] == 0
    (cases / "P1" / "preprocess.json").write_text("{", "utf-8")
    record = cases / "P2" / "preprocess.json"
    record.write_text(json.dumps({**json.loads(record.read_text("utf-8")), "warnings": ["far apart"]}), "utf-8")
    (cases / "P3" / "preprocess.json").unlink()
    status, said = gliomask(*words)
    assert (status, "1 failed, 2 done" in said, "1 of 3 studies were prepared before" in said) == (1, True, True), said
    assert "preprocess.json: damaged" in said
    assert (cases / "P3" / "preprocess.json").is_file()
    status, said = gliomask(*words, "--strict")
    assert (status, "P2: looks poor: far apart" in said) == (1, True), said


def test_a_raw_study_that_another_process_is_at_work_on_is_waited_for(
    gliomask: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Whether it is preparing or predicting; --strict still tells of the preparation when the masks are kept."""
    for number in (1, 2, 3):
        small_study(tmp_path / "studies" / f"P{number}", seed=number)
    out = tmp_path / "out"
    words = ("predict", "--raw", "-i", tmp_path / "studies", "-o", out, *QUICK, "-d", "cpu", "--threads", "1")
    with ExitStack() as owner:
        owner.enter_context(one_writer(out / "prepared", "P1"))
        owner.enter_context(one_writer(out, "P2"))

        def end() -> None:
            while not (out / "P3.nii.gz").exists():
                time.sleep(0.01)
            owner.close()

        ending = Thread(target=end, daemon=True)
        ending.start()
        status, said = gliomask(*words)
        ending.join(60)
    assert (status, "waiting for another process, which is at work on P" in said) == (0, True), said
    assert all((out / f"P{number}.nii.gz").exists() for number in (1, 2, 3))
    record = out / "prepared" / "P2" / "preprocess.json"
    record.write_text(json.dumps({**json.loads(record.read_text("utf-8")), "warnings": ["far apart"]}), "utf-8")
    status, said = gliomask(*words, "--strict")
    assert (status, "P2: looks poor: far apart" in said) == (1, True), said


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_batch_goes_on_with_what_is_missing(tmp_path: Path, gliomask: Callable[..., tuple[int, str]]) -> None:
    """The processes that it started end too, and the second run keeps what the first one finished."""
    for number in range(1, 7):
        small_study(tmp_path / "studies" / f"P{number}", seed=number)
    words = [sys.executable, "-m", "gliomask", "preprocess", tmp_path / "studies", "-o", tmp_path / "cases", *QUICK]
    first = tmp_path / "cases" / "P1" / "preprocess.json"
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        end = time.monotonic() + 120
        while not first.is_file() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # the pipe closes when the last process that holds it has ended
    written = first.read_bytes()
    status, said = gliomask("preprocess", tmp_path / "studies", "-o", tmp_path / "cases", *QUICK)
    assert status == 0, said
    assert "studies were prepared before and are kept" in said
    assert first.read_bytes() == written
    assert len(list((tmp_path / "cases").rglob("study.json"))) == 6
