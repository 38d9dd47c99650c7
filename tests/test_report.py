"""Report pages: their numbers are the computed ones, and each file is self-contained and safe."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import AFFINE
from gliomask.cases import Case
from gliomask.errors import InputError
from gliomask.evaluation import compare_scores, evaluate
from gliomask.inference.record import describe_images, digest_of
from gliomask.report import (
    measure_case,
    prediction_page,
    write_prediction_report,
    write_run_report,
    write_scores_report,
)
from gliomask.report import prediction as prediction_report
from gliomask.report.case_content import resample_case
from gliomask.report.page import MOST_BYTES
from gliomask.report.prediction import THRESHOLDS, MeasuredCase
from gliomask.report.training import read_run_record
from gliomask.training.config import make_config
from gliomask.viewer import edit_mask, read_scene
from gliomask.volume import Volume, read_volume, reorient, write_volume

EVIL = 'x<script>alert(1)</script>"onload="a&b'
_VOID = {"meta", "input", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """A parsed page: its tables and URLs; its tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._table: list[list[str]] | None = None
        self._script = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        assert len(found) == len(attributes), f"{tag}: an attribute twice"
        assert not [name for name in found if name.startswith("on")], f"{tag}: {found}"
        if tag not in _VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(str(found["id"]))
        self.addresses += [str(found[name]) for name in ("src", "href", "action", "data", "srcset") if name in found]
        if tag == "img":
            assert "alt" in found
        if tag == "script":
            self._script = str(found.get("id", "code"))
        if tag == "table":
            self._table = self.tables.setdefault(str(found.get("id") or found.get("class")), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"<{tag}/>: HTML has no such tags")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open[-1] == tag, f"</{tag}> closes {self.open}"
        self.open.pop()
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
            return
        self.texts.append(data)
        if self._table and self._table[-1] and self.open[-1] not in ("tr", "tbody", "thead", "table", "caption"):
            self._table[-1][-1] += data

    def rows(self, table: str) -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[table]]


def check_alone(text: str) -> Page:
    """Check that a page is well formed, small, and loads nothing."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert len(text.encode()) <= MOST_BYTES
    assert all(address.startswith(("data:", "#")) for address in page.addresses), page.addresses
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|\bimport\(", text)
    assert "default-src 'none'; img-src data:;" in text
    assert "not a medical device" in " ".join(page.texts)
    return page


@pytest.fixture
def predicted(write_case: Callable[..., Case], tmp_path: Path) -> Callable[..., tuple[Case, Path]]:
    """A case with a mask as `predict` writes it, with CASE.json and optionally probabilities."""

    def make(number: int = 1, *, probabilities: bool = False, **facts: Any) -> tuple[Case, Path]:
        case = write_case(number=number)
        assert case.mask is not None
        labels = read_volume(case.mask, mask=True)
        mask = tmp_path / "out" / f"{case.id}.nii.gz"
        write_volume(mask, labels)
        said = {"case": case.id, "model": "/home/someone/runs/mine/best.safetensors", "regions": ["WT", "TC", "ET"]}
        said |= {"labels": {"convention": "brats2021"}, "warnings": ["a skull <b>is</b> there."], **facts}
        mask.with_name(f"{case.id}.json").write_text(json.dumps(said))
        if probabilities:
            regions = np.stack([np.isin(labels.data[0], values) for values in ([1, 2, 4], [1, 4], [4])])
            likely = np.where(regions, 0.9, 0.1).astype(np.float32)
            likely[:, ::2] *= 0.5  # .45 and .05
            write_volume(mask.with_name(f"{case.id}_probabilities.nii.gz"), Volume(likely, labels.affine))
        return case, mask

    return make


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    flat = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    return flat.reshape(shape[::-1]).transpose(2, 1, 0)


def test_every_number_of_the_page_is_the_one_computed(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """Volumes, lesions, diameters, sides, extent and thresholds on the page are the computed ones, rounded."""
    case, mask = predicted(probabilities=True)
    answer = measure_case(case, mask)
    page = check_alone(prediction_page(answer))
    labels = read_volume(mask, mask=True).data
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    assert {name: m.volume_ml for name, m in answer.measures.items()} == pytest.approx(
        {name: np.isin(labels, v).sum() * voxel_ml for name, v in (("WT", [1, 2, 4]), ("TC", [1, 4]), ("ET", [4]))}
    )
    for row, (name, found) in zip(page.rows("regions")[1:], answer.measures.items(), strict=True):
        assert found.axial is not None
        assert found.left is not None
        assert row[0].startswith(name)
        assert row[1:4] == [f"{found.volume_ml:.2f}", str(found.lesions), f"{found.largest_ml:.2f}"]
        diameters = f"{found.axial.longest_mm:.1f} × {found.axial.perpendicular_mm:.1f} at z {found.axial.z_mm:.1f}"
        assert row[4:6] == [diameters, f"{found.longest_mm:.1f}"]
        assert row[6:] == [f"{found.left:.0%}".replace("%", " %"), f"{1 - found.left:.0%}".replace("%", " %")]
    for row, found in zip(page.rows("extent")[1:], answer.measures.values(), strict=True):
        for cell, extent in zip(row[1:], found.extent, strict=True):
            place = f"{extent.length_mm:.1f}: {extent.low_mm:.1f} to {extent.high_mm:.1f}"
            assert cell.replace("voxels", " voxels").split() == [
                *place.split(), *f"voxels {extent.first} to {extent.last} of {extent.of}".split()
            ]  # fmt: skip
    tissues = {row[0].split()[0]: float(row[1]) for row in page.rows("tissues")[1:]}
    assert tissues == pytest.approx(
        {"NCR": (labels == 1).sum() * voxel_ml, "ED": (labels == 2).sum() * voxel_ml}, abs=0.006
    )
    above = answer.volumes_above()
    for row in page.rows("thresholds")[1:]:
        places = [THRESHOLDS.index(threshold) for threshold in (0.3, 0.4, 0.5, 0.6, 0.7)]
        assert row[1:] == [f"{above[row[0]][place]:.2f}" for place in places]
        assert float(row[1]) > float(row[3]) > 0
    assert above["WT"][0] == pytest.approx(answer.measures["WT"].volume_ml)
    assert above["WT"][0] > above["WT"][THRESHOLDS.index(0.5)]


def test_what_changed_since_the_prediction_is_said(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """A mask that was edited, and an image that was replaced: the facts beside the mask are those of another answer."""
    case, mask = predicted()
    images = describe_images(case, ["t2f", "t1c"])
    facts = json.loads(mask.with_name(f"{case.id}.json").read_text()) | {"images": images}
    mask.with_name(f"{case.id}.json").write_text(json.dumps(facts | {"mask": digest_of(mask.read_bytes())}))
    assert measure_case(case, mask).facts["warnings"] == facts["warnings"]
    labels = read_volume(mask, mask=True)
    write_volume(mask, Volume(np.flip(labels.data, 1), labels.affine))
    flair = read_volume(case.images["t2f"].path)
    write_volume(case.images["t2f"].path, Volume(flair.data + 1, flair.affine))
    edited, replaced, *others = measure_case(case, mask).facts["warnings"]
    assert edited.startswith("The mask was changed after it was predicted")
    assert replaced.startswith("t2f changed after the mask was predicted")
    assert others == facts["warnings"]


def test_a_corrected_mask_has_a_page_that_says_so(gliomask, predicted, tmp_path: Path) -> None:
    """The record that the editor writes beside it is read: the voxels changed, and what its mask was made of."""
    case, mask = predicted()
    scene = read_scene(case, [mask])
    with edit_mask(scene, mask, mask.parent) as editing:
        labels = scene.masks[0].labels.data[0][editing.box].copy()
        labels[:2, :2, :3] = 2
        state = editing.answer("open", {"window": "a"}, b"")["state"]
        editing.answer("save", {"window": "a", "state": state}, labels.tobytes(order="F"))
    folder = case.images["t1c"].path.parent
    assert gliomask("report", folder, editing.target, "-o", tmp_path / "page.html")[0] == 0
    words = " ".join(check_alone((tmp_path / "page.html").read_text()).texts)
    assert f"corrected by hand: 12 voxels differ from {mask.name}" in words
    assert "Not available: the mask was corrected by hand" in words


def test_the_page_names_the_case_and_the_model_and_no_folder(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """The page has the last two parts of the model's path and the warnings, and no other path."""
    case, mask = predicted()
    text = prediction_page(measure_case(case, mask))
    page = check_alone(text)
    said = " ".join(page.texts)
    assert case.id in said
    assert "mine/best.safetensors" in said
    assert "a skull <b>is</b> there." in said
    assert "/home/someone" not in text
    assert str(mask.parent) not in text
    assert "How sure the model is" not in said
    assert "left empty by design" in said


def test_the_viewer_gets_the_voxels_as_they_are(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """Masks are packed as bits, images as grey levels, probabilities in steps of 1/250, with positions in mm."""
    case, mask = predicted(probabilities=True)
    answer = measure_case(case, mask)
    scene = resample_case(answer.images, answer.regions, answer.probabilities)
    content = json.loads(Page(prediction_page(answer)).scripts["viewer-content"])
    shape = tuple(content["shape"])
    bits = unpacked(content["masks"], shape)
    for number, name in enumerate(answer.regions):
        np.testing.assert_array_equal(bits >> number & 1, scene.regions[name])
        cubes_ml = scene.regions[name].sum() * abs(np.linalg.det(scene.affine[:3, :3])) / 1000
        assert cubes_ml == pytest.approx(answer.measures[name].volume_ml, rel=0.15)
    assert [image["name"] for image in content["images"]] == ["T2-FLAIR", "T1 with contrast"]
    grey = unpacked(content["images"][0]["data"], shape)
    assert grey.min() == 0
    assert grey.max() == 127
    likely = unpacked(content["probabilities"][0]["data"], shape)
    assert 200 <= likely.max() <= 225  # .9, between voxels less
    x, y, z = content["start"]
    assert scene.regions["ET"][x].any()
    assert scene.regions["ET"][:, y].any()
    assert scene.regions["ET"][:, :, z].any()


def test_the_slices_are_pictures_that_others_can_read(
    predicted: Callable[..., tuple[Case, Path]], tmp_path: Path
) -> None:
    """Each slice is a PNG of twice the voxel size, with the regions' colours on grey."""
    from matplotlib.image import imread

    case, mask = predicted()
    answer = measure_case(case, mask)
    scene = resample_case(answer.images, answer.regions, {})
    page = Page(prediction_page(answer))
    pngs = [base64.b64decode(a.partition(",")[2]) for a in page.addresses if a.startswith("data:image/png")]
    assert len(pngs) >= 6
    (tmp_path / "slice.png").write_bytes(pngs[5])
    picture = imread(tmp_path / "slice.png")[..., :3]
    width, height, _ = scene.regions["WT"].shape
    assert picture.shape == (2 * height, 2 * width, 3)
    grey = np.ptp(picture, axis=2) == 0
    assert 0.5 < grey.mean() < 1
    assert (np.abs(picture[~grey] * 255 - (0x56, 0xB4, 0xE9)).max(axis=1) < 1).any()  # WT's colour


def test_evil_names_stay_text(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """Tags and quotes in an id, a model name and a warning are shown as text."""
    case, mask = predicted(model=EVIL, warnings=[EVIL], network=EVIL, versions={EVIL: EVIL})
    text = prediction_page(replace(measure_case(case, mask), case=replace(case, id=EVIL)))
    page = check_alone(text)
    assert "<script>alert" not in text
    assert " ".join(page.texts).count(EVIL) >= 4
    assert set(page.scripts) == {"code", "viewer-content", "surface-content"}


def test_a_case_without_tumour_has_a_page(predicted: Callable[..., tuple[Case, Path]]) -> None:
    """An empty mask has zeros and dashes, slices through the middle, and only the surface of the brain."""
    case, mask = predicted()
    labels = read_volume(mask, mask=True)
    write_volume(mask, replace(labels, data=np.zeros_like(labels.data)))
    page = check_alone(prediction_page(measure_case(case, mask)))
    assert page.rows("regions")[1][1:] == ["0.00", "0", "–", "–", "–", "–", "–"]
    assert [part["name"] for part in json.loads(page.scripts["surface-content"])["parts"]] == ["brain"]


def test_a_page_that_is_too_large_gets_coarser_pictures(
    predicted: Callable[..., tuple[Case, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger voxels in the viewer do not change the numbers."""
    case, mask = predicted()
    answer = measure_case(case, mask)
    fine = prediction_page(answer)
    monkeypatch.setattr("gliomask.report.prediction.MOST_BYTES", len(fine) - 10_000)
    coarse = prediction_page(answer)
    assert len(coarse) < len(fine)
    assert Page(coarse).rows("regions") == Page(fine).rows("regions")


def test_bad_files_are_told(predicted: Callable[..., tuple[Case, Path]], tmp_path: Path) -> None:
    """Another grid or label convention, a damaged CASE.json, wrong probabilities and a missing sequence are refused."""
    case, mask = predicted(probabilities=True)
    facts = mask.with_name(f"{case.id}.json")
    good, labels = facts.read_text(), read_volume(mask, mask=True)
    with pytest.raises(InputError, match="has no"):
        measure_case(replace(case, images={"t1n": case.images["t1n"]}), mask, sequences=["flair"])
    facts.write_text("{")
    with pytest.raises(InputError, match=rf"{case.id}\.json: is damaged"):
        measure_case(case, mask)
    for odd in ("[]", '{"warnings": 3}', '{"warnings": [1]}', '{"regions": 5}', '{"regions": [["WT"]]}'):
        facts.write_text(odd)
        with pytest.raises(InputError, match="is not what predict writes"):
            measure_case(case, mask)
    facts.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is damaged"):
        measure_case(case, mask)
    facts.write_text(good.replace('["WT", "TC", "ET"]', '["WT"]'))
    with pytest.raises(InputError, match="has 3 channels for the regions WT"):
        measure_case(case, mask)
    facts.write_text(good)
    write_volume(mask, replace(labels, data=labels.data[:, :-1]))
    with pytest.raises(InputError, match=r"its grid differs .* in shape"):
        measure_case(case, mask)
    write_volume(mask, replace(labels, data=labels.data + np.uint8(7)))
    with pytest.raises(InputError, match="labels"):
        measure_case(case, mask)


def test_the_command_writes_one_page_a_case(gliomask, predicted, tmp_path: Path) -> None:
    """Pages are written beside the masks or to the given path, for folders and for single images alike."""
    cases = [predicted(number)[0] for number in (1, 2)]
    status, said = gliomask("report", tmp_path / "data", tmp_path / "out")
    assert status == 0, said
    pages = [tmp_path / "out" / f"{case.id}.html" for case in cases]
    assert [page.is_file() for page in pages] == [True, True]
    check_alone(pages[0].read_text("utf-8"))
    index = Page((tmp_path / "out" / "index.html").read_text("utf-8"))
    assert f"all reports: {tmp_path / 'out' / 'index.html'}" in said
    assert [case.id for case in cases] == [text for text in index.texts if text.startswith("BraTS")]
    for case in cases:
        assert f'href="{case.id}.html"' in (tmp_path / "out" / "index.html").read_text("utf-8")
    images = [cases[0].images[name].path for name in ("t1c", "t2f")]
    status, said = gliomask(
        "report", "--t1ce", images[0], "--flair", images[1], tmp_path / "out" / f"{cases[0].id}.nii.gz",
        "-o", tmp_path / "one.html",
    )  # fmt: skip
    assert status == 0, said
    assert Page((tmp_path / "one.html").read_text("utf-8")).rows("regions") == Page(pages[0].read_text("utf-8")).rows(
        "regions"
    )


def test_a_bad_case_is_said_and_the_others_are_done(gliomask, predicted, tmp_path: Path) -> None:
    """In a batch the status is 1 and the case is listed; alone it is 2, and nothing is written."""
    bad, mask = predicted(1)
    good, _ = predicted(2)
    mask.write_bytes(mask.read_bytes()[:300])
    status, said = gliomask("report", tmp_path / "data", tmp_path / "out", "-o", tmp_path / "pages")
    assert status == 1
    assert f"{mask.name}: " in said
    assert "1 failed, 1 done" in said
    assert [path.name for path in (tmp_path / "pages").iterdir()] == [f"{good.id}.html"]
    status, said = gliomask("report", bad.images["t2f"].path.parent, tmp_path / "out", "-o", tmp_path / "alone")
    assert status == 2
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize("error", [MemoryError, OverflowError])
def test_an_exception_in_a_report_does_not_end_the_others(
    gliomask, predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The case is named, the others have their pages, the status is 1, and no mask is lost."""
    masks = [predicted(number)[1] for number in (1, 2)]
    page = prediction_report.prediction_page

    def fail_first(measured: MeasuredCase) -> str:
        if measured.case.id.endswith("1"):
            raise error("too much")
        return page(measured)

    monkeypatch.setattr(prediction_report, "prediction_page", fail_first)
    status, said = gliomask("report", tmp_path / "data", tmp_path / "out")
    assert status == 1
    assert "1 failed, 1 done" in said
    assert len(list((tmp_path / "out").glob("*.html"))) == 1
    assert all(mask.is_file() for mask in masks)


def test_a_mask_with_its_axes_in_another_order_has_the_same_page(predicted) -> None:
    """Measures and pictures do not depend on how the voxels are stored."""
    case, mask = predicted()
    before = measure_case(case, mask)
    write_volume(mask, reorient(read_volume(mask, mask=True), "RIA"))
    after = measure_case(case, mask)
    for name, found in before.measures.items():
        assert after.measures[name].volume_ml == pytest.approx(found.volume_ml)
        assert [(e.first, e.last) for e in after.measures[name].extent] == [(e.first, e.last) for e in found.extent]
    assert all(np.array_equal(after.regions[name], before.regions[name]) for name in before.regions)


def test_control_characters_of_a_file_do_not_reach_the_page(predicted) -> None:
    """Escape sequences, marks of direction, and bytes that are not UTF-8 are shown as escapes."""
    case, mask = predicted(warnings=["a \x1b[31mred\x9b \u202e name \udcff"], network="fa\x1bst")
    text = prediction_page(measure_case(replace(case, id="x\x1by\udcfe"), mask))
    text.encode("utf-8")
    assert r"a \x1b[31mred\x9b \u202e name \udcff" in text
    assert r"x\x1by\udcfe" in text
    assert all(letter.isprintable() or letter in "\n\t\xa0" for letter in text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "out"), "nowhere: no such folder"),
        (("data", "nowhere"), "nowhere: no such file or folder"),
        (("data", "data/empty"), "no mask in"),
        (("data",), "neither a prediction"),
        (("nowhere.csv",), "nowhere.csv: cannot be read"),
        (("data", "out", "--show", "flare"), "did you mean 'flair'"),
    ],
)
def test_what_is_missing_is_status_2(
    gliomask, predicted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    """The message names what is missing."""
    predicted()
    (tmp_path / "data" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    status, said = gliomask("report", *words)
    assert (status, message in said) == (2, True), said


def test_scores_make_a_page_with_their_summary(predicted, tmp_path: Path) -> None:
    """Means and medians equal those of `evaluate`; the worst case comes first; the gallery is optional."""
    for number in (1, 2, 3):
        case, mask = predicted(number)
        labels = read_volume(mask, mask=True)
        write_volume(mask, replace(labels, data=np.roll(labels.data, number - 1, axis=1)))
    found = evaluate(tmp_path / "out", tmp_path / "data")
    found.save(tmp_path / "scores.csv")
    write_scores_report([tmp_path / "scores.csv"], tmp_path / "plain.html")
    page = check_alone((tmp_path / "plain.html").read_text("utf-8"))
    summary = {(row["region"], name): row for row in found.summary() for name in found.protocol.headline}
    for region, metric, cases, mean, std, interval, median in page.rows("summary")[1:]:
        row = summary[region, metric]
        assert (cases, mean) == ("3", f"{row[f'{metric}_mean']:.3f}")
        assert (std, median) == (f"{row[f'{metric}_std']:.3f}", f"{row[f'{metric}_median']:.3f}")
        assert interval == f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}"
    assert page.rows("cases")[1][0] == case.id
    write_scores_report(
        [tmp_path / "scores.csv"], tmp_path / "gallery.html", prediction=tmp_path / "out", truth=tmp_path / "data"
    )
    assert len(Page((tmp_path / "gallery.html").read_text("utf-8")).addresses) == len(page.addresses) + 1
    with pytest.raises(InputError, match="needs both"):
        write_scores_report([tmp_path / "scores.csv"], tmp_path / "x.html", truth=tmp_path / "data")


def test_a_region_that_a_case_does_not_label_is_shown_for_the_others(predicted, tmp_path: Path) -> None:
    """Its scores are summarised over the cases that have it, and the case says that it is not labelled."""
    for number in (1, 2):
        case, _ = predicted(number)
    evaluate(tmp_path / "out", tmp_path / "data").save(tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    (tmp_path / "scores.csv").write_text("\n".join(line for line in lines if f"{case.id},ET" not in line))
    write_scores_report([tmp_path / "scores.csv"], tmp_path / "scores.html")
    page = check_alone((tmp_path / "scores.html").read_text("utf-8"))
    assert {row[0]: row[2] for row in page.rows("summary")[1:]} == {"WT": "2", "TC": "2", "ET": "1"}
    assert [row.count("not labelled") for row in page.rows("cases")[1:] if row[0] == case.id] == [4]


def test_cases_that_failed_are_named_on_the_page(predicted, tmp_path: Path) -> None:
    """JSON names them; they have no score and are in no mean."""
    predicted(1)
    case, mask = predicted(2)
    mask.write_bytes(b"damaged")
    evaluate(tmp_path / "out", tmp_path / "data").save(tmp_path / "scores.json")
    write_scores_report([tmp_path / "scores.json"], tmp_path / "scores.html")
    text = (tmp_path / "scores.html").read_text("utf-8")
    assert f"1 case; 1 more failed and enter no mean: {case.id}" in text
    assert {row[2] for row in check_alone(text).rows("summary")[1:]} == {"1"}


def test_several_scores_stand_side_by_side(gliomask, predicted, tmp_path: Path) -> None:
    """Standings and differences are those of `compare_scores`."""
    for number in (1, 2, 3):
        _, mask = predicted(number)
    evaluate(tmp_path / "out", tmp_path / "data").save(tmp_path / "good.csv")
    labels = read_volume(mask, mask=True)
    write_volume(mask, replace(labels, data=np.roll(labels.data, 3, axis=1)))
    evaluate(tmp_path / "out", tmp_path / "data").save(tmp_path / "worse.csv")
    files = [tmp_path / "good.csv", tmp_path / "worse.csv"]
    assert gliomask("report", *files, "-o", tmp_path / "both.html")[0] == 0
    page = check_alone((tmp_path / "both.html").read_text("utf-8"))
    found = compare_scores(files)
    assert [row[:2] for row in page.rows("standings")[1:]] == [
        [row["entrant"], f"{row['mean_rank']:.3f}"] for row in found.standings()
    ]
    for row, difference in zip(page.rows("differences")[1:], found.differences, strict=True):
        assert row[:4] == [difference.first, difference.second, difference.region, difference.metric]
        assert row[4:6] == ["3", f"{difference.test.difference:.3f}"]
        assert row[11] == difference.better


def a_run(folder: Path) -> Path:
    """Write a run folder without models."""
    folder.mkdir()
    (folder / "config.json").write_text(make_config(network="unet", epochs=2).model_dump_json())
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": [EVIL]}]))
    row = {"step": 2, "hours": 0.1, "train_loss": 0.9, "val_loss": 0.8, "val_accuracy": 0.9, "val_dice_WT": 0.5}
    row |= {"learning_rate": 1e-3, "train_seconds": 1.0, "peak_memory_gb": 1.0}
    rows = [{"epoch": epoch, **row, "val_dice": 0.7 - 0.1 * epoch} for epoch in (1, 2)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_run_makes_a_page_without_its_cases(gliomask, tmp_path: Path) -> None:
    """The page has the best scores, the changed settings and the split; tags in an id are shown as text."""
    run = a_run(tmp_path / "run")
    assert gliomask("report", run, "--no-cases")[0] == 0
    page = check_alone((run / "report.html").read_text("utf-8"))
    assert page.rows("best")[1][:2] == ["0.500", "0.600"]
    assert page.rows("changed")[1:] == [["network", "unet", "fast"], ["epochs", "2", "20"]]
    assert any(EVIL in text for text in page.texts)


def test_a_run_without_an_epoch_or_with_a_damaged_log_is_refused(tmp_path: Path) -> None:
    """The message names the folder or the file."""
    run = a_run(tmp_path / "run")
    (run / "log.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"log\.jsonl: cannot be read: line 1"):
        read_run_record(run)
    (run / "log.jsonl").unlink()
    with pytest.raises(InputError, match="no finished epoch yet"):
        read_run_record(run)
    with pytest.raises(InputError, match="no run there"):
        read_run_record(tmp_path)


def test_a_run_shows_its_best_and_worst_case(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """The page has the Dice of all validation cases, with the means of the log."""
    pytest.importorskip("torch")
    from gliomask.cases import find_cases
    from gliomask.training.loop import train

    config = make_config(network="fcn", patch_size=16, epochs=1, precision="fp32", threads=1, val_fraction=0.5)
    run = train(find_cases(folder_of(4)), tmp_path / "run", config)
    shares: list[tuple[int, int]] = []
    notes = write_run_report(run.folder, tmp_path / "run.html", device="cpu", on_case=lambda *s: shares.append(s))
    assert (notes, shares) == ([], [(1, 2), (2, 2)])
    page = check_alone((tmp_path / "run.html").read_text("utf-8"))
    *cases, mean = page.rows("cases")[1:]
    assert {row[0] for row in cases} == set(run.split()["val"])
    assert float(mean[1].split()[0]) == pytest.approx(run.rows()[0]["val_dice_WT"], abs=1e-3)
    assert len(page.addresses) == 3


def test_without_matplotlib_a_prediction_still_has_its_page(
    predicted: Callable[..., tuple[Case, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports of scores and runs need matplotlib and say so."""
    monkeypatch.setattr("gliomask.figures.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    case, mask = predicted()
    write_prediction_report(case, mask, tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()
    with pytest.raises(InputError, match=r"\[pictures\]"):
        write_scores_report([tmp_path / "scores.csv"], tmp_path / "scores.html")
    with pytest.raises(InputError, match=r"\[pictures\]"):
        write_run_report(a_run(tmp_path / "run"), tmp_path / "run.html")
