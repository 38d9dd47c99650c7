"""Laws of `predict` on a folder: nothing that is out of date or damaged is kept, and one bad case ends no batch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from gliomask import files
from gliomask.cases import Case, find_cases
from gliomask.cli import predict_batch
from gliomask.errors import InputError
from gliomask.files import one_writer
from gliomask.inference import prediction, result
from gliomask.inference.loading import new_model, save_model
from gliomask.inference.preprocessing import common_spacing
from gliomask.inference.result import Prediction
from gliomask.model.plan import Plan
from gliomask.volume import Volume, read_volume, write_volume

FILES = (".nii.gz", ".json", "_probabilities.nii.gz", ".png")
Run = Callable[..., tuple[int, str]]


TABLES = {"volumes.csv", "volumes.parquet", "failed.csv"}


class Place:
    """A folder of three small cases, a model, and a command that predicts them with all files."""

    def __init__(self, gliomask: Run, data: Path, folder: Path) -> None:
        self.gliomask, self.data, self.out, self.model = gliomask, data, folder / "out", folder / "m.safetensors"
        self.cases = find_cases(data)
        self.make_model(seed=1)

    def make_model(self, seed: int) -> None:
        plan = Plan(
            modalities=("t2f", "t1c", "t2w"),
            spacing_mm=common_spacing(self.cases, "LPS"),
            patch_size=(16, 16, 16),
            network="fast",
            network_arguments={"channels": [4, 6]},
        )
        save_model(new_model(plan, seed=seed), self.model)

    def predict(self, *options: object) -> tuple[int, str]:
        words = ("-m", self.model, "-i", self.data, "-o", self.out, "-d", "cpu", "--threads", 1, *options)
        return self.gliomask("predict", *words)

    def everything(self, *options: object) -> tuple[int, str]:
        return self.predict("--save-probabilities", "--picture", *options)

    def file(self, number: int, ending: str = ".nii.gz") -> Path:
        return self.out / f"{self.cases[number].id}{ending}"

    def times(self) -> dict[str, int]:
        """Return when each file of a case was written; the tables of the folder are left out."""
        return {path.name: path.stat().st_mtime_ns for path in self.out.iterdir() if path.name not in TABLES}

    def changed_by(self, *options: object) -> set[int]:
        """Run with all files and return the numbers of the cases whose mask was written again."""
        before = self.times()
        status, said = self.everything(*options)
        assert status == 0, said
        after = self.times()
        assert sorted(after) == sorted(f"{case.id}{ending}" for case in self.cases for ending in FILES)
        return {n for n in range(len(self.cases)) if before.get(self.file(n).name) != after[self.file(n).name]}


def draw(found: Prediction, path: Path, *, sequences: tuple[str, ...]) -> None:
    """Write a PNG of no size, as drawing takes seconds."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + repr(sequences).encode() + b"IEND\xaeB`\x82")


@pytest.fixture
def place(gliomask: Run, folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("gliomask.report.pictures.draw_prediction", draw)
    made = Place(gliomask, folder_of(3), tmp_path)
    assert made.everything()[0] == 0
    return made


def test_what_is_complete_and_up_to_date_is_kept(place: Place) -> None:
    """Nothing is written again, and the number of masks that are kept is printed."""
    before = place.times()
    assert len(before) == 12
    status, said = place.everything()
    assert (status, "all 3 masks" in said, "up to date and kept" in said) == (0, True, True)
    assert place.times() == before


def test_finished_masks_are_not_decompressed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes tell that they are whole, as thousands are looked at; one that was edited is read, and is kept."""
    read: list[str] = []

    def note(path: Path, *, mask: bool = False) -> bool:
        read.append(path.name)
        return True

    monkeypatch.setattr("gliomask.inference.record.is_readable", note)
    assert place.predict()[0] == 0
    assert read == []
    write_volume(place.file(1), read_volume(place.file(2), mask=True))
    status, said = place.predict()
    assert (status, "the mask was changed after it was written" in said) == (0, True)
    assert read == [place.file(1).name]


def test_a_new_model_makes_every_mask_again(place: Place) -> None:
    """Also under the same name; the reason is printed."""
    place.make_model(seed=2)
    status, said = place.everything()
    assert status == 0
    assert "computed again: " in said
    assert "made by another model" in said
    assert place.changed_by() == set()


def test_masks_of_another_model_are_kept_on_request(place: Place) -> None:
    """With the number of them; other reasons to compute a mask again remain."""
    place.make_model(seed=2)
    before = place.times()
    status, said = place.predict("--model-changed", "keep")
    assert (status, "3 of them were made by another model" in said, place.times()) == (0, True, before)
    place.file(1).unlink()
    place.predict("--model-changed", "keep")
    assert {n for n in range(3) if place.times()[place.file(n).name] != before[place.file(n).name]} == {1}
    assert place.predict("--model-changed", "perhaps")[0] == 2


@pytest.mark.parametrize(
    "options", [("--window", "whole"), ("--tta",), ("--precision", "fp32"), ("--labels", "brats2023")]
)
def test_another_option_makes_every_mask_again(place: Place, options: tuple[str, ...]) -> None:
    """Window, mirroring, precision and label convention change a mask."""
    status, said = place.everything(*options)
    assert (status, f"another value of {options[0]}" in said) == (0, True)
    assert place.changed_by(*options) == set()
    assert place.changed_by() == {0, 1, 2}


def test_changed_images_make_their_mask_again(place: Place) -> None:
    """Another image of the same name, or a sequence more or less; a copy with another time does not count."""
    images = place.cases[0].images
    flair = read_volume(images["t2f"].path)
    write_volume(images["t2f"].path, Volume(flair.data + (flair.data > 0), flair.affine))
    os.utime(place.cases[1].images["t2f"].path)
    os.utime(place.cases[2].images["t1n"].path)
    assert place.changed_by() == {0}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        (ending, damage)
        for ending in FILES
        for damage in (_cut, _empty, _remove)
        if (ending, damage) != (".json", _remove)
    ],
)
def test_missing_and_damaged_files_are_made_again(place: Place, ending: str, damage: Callable[[Path], None]) -> None:
    """Each of the four files of a case, if it is wanted; for a picture alone the network is not run."""
    damage(place.file(1, ending))
    assert place.changed_by() == (set() if ending == ".png" else {1})
    assert place.changed_by() == set()
    assert len(read_volume(place.file(1, "_probabilities.nii.gz")).data) == 3


def test_an_edited_mask_gets_its_picture(place: Place) -> None:
    """Where there is none, and where it shows the mask as it was; that there are no probabilities is said."""
    mask, picture = place.file(1), place.file(1, ".png")
    drawn = read_volume(mask, mask=True)
    write_volume(mask, Volume(np.zeros_like(drawn.data), drawn.affine))
    os.utime(picture, ns=(1, 1))
    edited = mask.read_bytes()
    status, said = place.everything()
    assert (status, "its probabilities are not made" in said) == (0, True)
    assert picture.stat().st_mtime_ns > 1
    picture.unlink()
    assert place.everything()[0] == 0
    assert (picture.exists(), mask.read_bytes()) == (True, edited)


def test_a_mask_of_unknown_origin_is_not_replaced(place: Place) -> None:
    """Without a JSON beside it, it may be a true mask: its case fails, others are done; `--overwrite` replaces it."""
    mask, json_file = place.file(1), place.file(1, ".json")
    json_file.unlink()
    mask.write_bytes(b"drawn by hand")
    place.file(2).unlink()
    status, said = place.everything()
    assert (status, "1 failed, 2 done" in said, "no JSON beside it" in said) == (1, True, True)
    assert (mask.read_bytes(), json_file.exists(), place.file(2).exists()) == (b"drawn by hand", False, True)
    assert place.everything("--overwrite")[0] == 0
    assert json_file.exists()


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_no_mask_replaces_an_image_or_a_true_mask(
    gliomask: Run, write_case: Callable[..., Case], place: Place, options: tuple[str, ...]
) -> None:
    """An output folder in which the cases themselves have the names of the masks, as in `imagesTs` and `labelsTr`."""
    case = write_case("msd", number=7)
    assert case.mask is not None
    path = case.images["t2f"].path
    before = path.read_bytes(), case.mask.read_bytes()
    data = path.parent.parent
    for folder in (path.parent, case.mask.parent):
        status, said = gliomask("predict", "-m", place.model, "-i", data, "-o", folder, "-d", "cpu", *options)
        assert (status, f"{case.id}.nii.gz: is a file of the input" in said) == (2, True), said
    assert (path.read_bytes(), case.mask.read_bytes()) == before


def test_a_named_output_cannot_be_one_of_the_images(gliomask: Run, place: Place) -> None:
    """Not even with `--overwrite`."""
    flair, t1c, t2w = (place.cases[0].images[name].path for name in ("t2f", "t1c", "t2w"))
    before = t1c.read_bytes()
    words = ("-m", place.model, "--flair", flair, "--t1ce", t1c, "--t2", t2w, "-o", t1c, "--overwrite")
    status, said = gliomask("predict", *words)
    assert (status, "is a file of the input" in said) == (2, True)
    assert t1c.read_bytes() == before


def test_files_that_are_not_wanted_are_not_missed(place: Place) -> None:
    """Without their options probabilities and pictures are not made again."""
    for ending in ("_probabilities.nii.gz", ".png"):
        place.file(0, ending).unlink()
    before = place.times()
    assert place.predict()[0] == 0
    assert place.times() == before


def test_probabilities_and_pictures_of_an_older_mask_do_not_stay(place: Place) -> None:
    """A mask that is made again without them would lie beside those of another answer."""
    place.make_model(seed=2)
    assert place.predict()[0] == 0
    assert sorted(place.times()) == sorted(
        f"{case.id}{ending}" for case in place.cases for ending in (".nii.gz", ".json")
    )


def test_a_picture_with_named_sequences_is_drawn_again(place: Place) -> None:
    """From the mask, which stays the same."""
    before = place.times()
    assert place.everything("--show", "t2")[0] == 0
    assert {name for name, time in place.times().items() if before[name] != time} == {
        f"{case.id}.png" for case in place.cases
    }


def test_a_mask_that_was_edited_is_kept_and_reported(place: Place) -> None:
    """Corrections by hand are not lost unless --overwrite asks for it, whatever model is used."""
    mask = read_volume(place.file(1), mask=True)
    write_volume(place.file(1), Volume(np.where(mask.data > 0, 1, 0).astype(np.uint8), mask.affine))
    edited = place.file(1).read_bytes()
    place.make_model(seed=2)
    status, said = place.everything()
    assert (status, f"{place.cases[1].id}: the mask was changed after it was written" in said) == (0, True)
    assert place.file(1).read_bytes() == edited
    assert place.changed_by("--overwrite") == {0, 1, 2}
    assert place.file(1).read_bytes() != edited


def test_a_mask_of_an_older_version_is_made_again(place: Place) -> None:
    """Its JSON does not tell by which model it was made."""
    facts = json.loads(place.file(0, ".json").read_text())
    for name in ("settings", "images", "mask"):
        del facts[name]
    place.file(0, ".json").write_text(json.dumps(facts))
    place.file(1, ".json").write_text("[1, 2]")
    place.file(2, ".json").write_text("[" * 100_000)
    assert place.changed_by() == {0, 1, 2}


def test_whatever_a_case_raises_the_others_are_done(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read, computed or written: it is named with the error, and the exit status is 1."""
    read, clean, save = prediction.read_case, prediction.clean, Prediction.save
    errors = iter([MemoryError(), OverflowError("too large"), RuntimeError("broken")])
    first = place.cases[0].id

    def failing(original: Callable[..., Any], is_first: Callable[..., bool]) -> Callable[..., Any]:
        error = next(errors)

        def call(*words: Any, **named: Any) -> Any:
            if is_first(*words):
                raise error
            return original(*words, **named)

        return call

    monkeypatch.setattr(prediction, "read_case", failing(read, lambda case, _: case.id == first))
    status, said = place.predict("--overwrite")
    assert (status, "1 failed, 2 done" in said, f"{first}: not enough memory" in said) == (1, True, True)
    monkeypatch.setattr(prediction, "read_case", read)
    calls: list[int] = []
    monkeypatch.setattr(prediction, "clean", failing(clean, lambda *_: calls.append(0) or len(calls) == 1))
    status, said = place.predict("--overwrite")
    named = [case.id for case in place.cases if f"{case.id}: OverflowError: too large. This is a fault of" in said]
    assert (status, len(named)) == (1, 1)  # whichever was computed first
    monkeypatch.setattr(prediction, "clean", clean)
    monkeypatch.setattr(Prediction, "save", failing(save, lambda found, _: found.case.id == first))
    status, said = place.predict("--overwrite")
    assert (status, f"{first}: RuntimeError: broken. This is a fault of gliomask" in said) == (1, True)
    assert not [path for path in place.out.iterdir() if path.name.startswith(".")]


def test_a_case_that_another_process_writes_is_waited_for(place: Place) -> None:
    """The others are done first. Once it is given up by its owner, whose mask is not there, it is done too."""
    place.file(1).unlink()
    place.file(2).unlink()
    with ExitStack() as owner:
        owner.enter_context(one_writer(place.out, place.cases[1].id))

        def end() -> None:
            while not place.file(2).exists():
                time.sleep(0.01)
            owner.close()

        ending = Thread(target=end, daemon=True)
        ending.start()
        status, said = place.everything()
        ending.join(60)
    assert status == 0
    assert f"waiting for another process, which is at work on {place.cases[1].id}" in said
    assert place.changed_by() == set()


def test_a_case_that_another_process_holds_for_minutes_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as failed with who holds it; the others are done, and it is the next run's to complete."""
    monkeypatch.setattr(files, "CLAIM_WAIT_SECONDS", 0.75)
    place.file(1).unlink()
    place.file(2).unlink()
    with one_writer(place.out, place.cases[1].id):
        status, said = place.everything()
    assert (status, "1 failed, 2 done" in said, "is writing it" in said) == (1, True, True)
    assert place.file(2).exists()
    assert not place.file(1).exists()
    assert place.changed_by() == {1}


def test_a_picture_that_another_process_draws_is_waited_for(place: Place) -> None:
    """Two programs that draw the missing pictures of one folder do not count each other's as failed."""
    place.file(1, ".png").unlink()
    with ExitStack() as owner:
        owner.enter_context(one_writer(place.out, place.cases[1].id))
        ending = Thread(target=lambda: (time.sleep(1), owner.close()), daemon=True)
        ending.start()
        status, said = place.everything()
        ending.join(60)
    assert (status, place.file(1, ".png").exists()) == (0, True), said


@pytest.mark.parametrize("options", [("--picture",), ()])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_mask_that_appears_before_its_turn_is_not_replaced(
    place: Place, options: tuple[str, ...], *, foreign: bool
) -> None:
    """One that was changed by hand is kept and said, and gets its picture; another without a JSON is refused."""
    mask, facts = place.file(1), place.file(1, ".json")
    content, written = read_volume(mask, mask=True), facts.read_bytes()
    for path in (mask, facts, place.file(2)):
        path.unlink()
    os.utime(place.file(1, ".png"), ns=(1, 1))
    with ExitStack() as owner:
        owner.enter_context(one_writer(place.out, place.cases[1].id))

        def edit() -> None:
            while not place.file(2).exists():
                time.sleep(0.01)
            write_volume(mask, Volume(np.zeros_like(content.data), content.affine))
            if not foreign:
                facts.write_bytes(written)
            owner.close()

        editing = Thread(target=edit, daemon=True)
        editing.start()
        status, said = place.predict(*options)
        editing.join(60)
    assert not read_volume(mask, mask=True).data.any()
    assert (status, ("there is no JSON beside it" if foreign else "changed after it was written") in said) == (
        (1, True) if foreign else (0, True)
    ), said
    assert (place.file(1, ".png").stat().st_mtime_ns > 1) == (bool(options) and not foreign)


def test_what_killed_runs_left_is_cleared(place: Place) -> None:
    """Partial files, and locks of processes that have ended."""
    (place.out / ".partial-0123456789ab-X.nii.gz").write_bytes(b"half")
    (place.out / f".writing-{place.cases[0].id}.lock").touch()
    (place.out / f".writing-{place.cases[0].id}.json").write_text("{}")
    assert place.changed_by() == set()


def test_a_failed_write_keeps_the_older_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full before the last file is written loses nothing that was there."""
    before = {path.name: path.read_bytes() for path in place.out.iterdir()}
    place.make_model(seed=2)

    def full(*_: object, **__: object) -> bytes:
        raise InputError("no space left")

    monkeypatch.setattr("gliomask.report.pictures.draw_prediction", full)
    status, said = place.everything()
    assert (status, "3 failed, 0 done" in said) == (1, True)
    after = {path.name: path.read_bytes() for path in place.out.iterdir()}
    assert after.pop("failed.csv").count(b"no space left") == 3
    assert after == before


def test_the_mask_is_written_last(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it appears, all other files have their final names; the older mask is gone before they change."""
    seen: list[set[str]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        if Path(target).name not in TABLES:
            there = {path.name for path in Path(target).parent.iterdir() if not path.name.startswith(".")}
            seen.append(there - TABLES)
        return replace(self, target)

    for case in place.cases[1:]:
        for ending in FILES:
            (place.out / f"{case.id}{ending}").unlink()
    monkeypatch.setattr(Path, "replace", watched)
    place.everything("--overwrite", "-i", place.cases[0].images["t2f"].path.parent)
    mask = place.file(0).name
    assert [mask in names for names in seen] == [False] * 4
    assert len(seen[-1]) == 3


def test_a_folder_of_refused_cases_ends_with_their_list(place: Place, tmp_path: Path) -> None:
    """Exit status 1 and every case by name, without a traceback."""
    for case in place.cases:
        for source in case.images.values():
            source.path.write_bytes(b"no NIfTI")
    status, said = place.predict("--overwrite")
    assert (status, "3 failed, 0 done" in said) == (1, True)
    assert all(case.id in said for case in place.cases)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_returns_nan_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """A mask of NaN would look like one without tumour."""
    from gliomask.inference.openvino_engine import OpenVINOModel

    run = OpenVINOModel.run

    def spoilt(self: OpenVINOModel, *words: Any) -> Any:
        logits, window = run(self, *words)
        logits[0, 0, 0, 0] = value
        return logits, window

    monkeypatch.setattr(OpenVINOModel, "run", spoilt)
    status, said = place.predict("--overwrite")
    assert (status, "NaN or infinite" in said) == (1, True)


def test_a_saved_prediction_can_be_read(place: Place) -> None:
    """Its mask, convention and model; a missing JSON is an error."""
    case: Case = place.cases[0]
    plan = Plan(modalities=("t1c",))
    found = result.read_prediction(place.file(0), case, plan)
    np.testing.assert_array_equal(found.labels.data, read_volume(place.file(0), mask=True).data)
    assert (found.convention, found.model) == ("brats2021", str(place.model))
    place.file(0, ".json").unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        result.read_prediction(place.file(0), case, plan)


def test_a_case_folder_that_cannot_be_read_is_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are done, and the exit status is 1."""
    scandir, locked = os.scandir, place.cases[1].images["t2f"].path.parent

    def refusing(folder: Path) -> Any:
        if Path(folder) == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("gliomask.cases.folders.os.scandir", refusing)
    status, said = place.predict("--overwrite")
    assert (status, "1 failed, 2 done" in said, "cannot be read: Permission denied" in said) == (1, True, True)


def test_the_input_may_be_an_argument(place: Place) -> None:
    """`predict CASE -o OUT` is `predict -i CASE -o OUT`; further arguments beside `-i` are models."""
    place.out = place.out.with_name("argument")
    words = ("-o", place.out, "-d", "cpu", "--threads", 1)
    assert place.gliomask("predict", place.data, "-m", place.model, *words)[0] == 0
    assert len(list(place.out.glob("*.nii.gz"))) == 3
    status, said = place.gliomask("predict", place.data, "-m", place.model, *words, "--t1", "a.nii.gz")
    assert (status, "is a folder without a model" in said) == (2, True)


def test_ctrl_c_says_how_many_masks_are_done(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is finished is written, nothing else is left, and the next run makes the others only."""
    place.out = place.out.with_name("stopped")
    real, told = predict_batch._say, []

    def stops_after_two(*args: Any) -> None:
        real(*args)
        told.append(args)
        if len(told) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(predict_batch, "_say", stops_after_two)
    status, said = place.predict()
    assert (status, "2 of 3 done; run the same command again" in said) == (130, True)
    monkeypatch.undo()
    finished = place.times()
    assert {Path(name).suffix for name in finished} == {".gz", ".json"}
    assert place.predict()[0] == 0
    assert len(list(place.out.glob("*.nii.gz"))) == 3
    assert finished.items() <= place.times().items()
