"""Raw studies in reports and in the viewer: everything on the grid of the mask, and a page about the preparation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.places import find_prepared, holds_prepared
from gliomask.acquisition.quality import LIMITS, Finding, assess, residual_shifts, worst
from gliomask.acquisition.review import StudyReview, read_review
from gliomask.acquisition.study import Choice
from gliomask.errors import InputError
from gliomask.report.overlays import cut_slices
from gliomask.report.raw import measure_review
from gliomask.viewer import read_raw_scene
from gliomask.volume import voxel_volume_ml
from raw_study import RawStudy, is_same_grid, write_raw_study

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawStudy:
    return write_raw_study(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def review(raw: RawStudy) -> StudyReview:
    folder = find_prepared(raw.output, raw.study.id)
    assert folder is not None
    return read_review(raw.study, folder)


def moved(review: StudyReview, shift_mm: tuple[float, float, float]) -> StudyReview:
    """The same study as if its T2 had been registered with an error."""
    move = np.eye(4)
    move[:3, 3] = shift_mm
    alignment = review.alignment
    to_native = {**alignment.to_native, "t2w": move @ alignment.to_native["t2w"]}
    return replace(review, alignment=replace(alignment, to_native=to_native))


@pytest.mark.parametrize("shift_mm", [(3, 0, 0), (0, 4, 0), (0, 0, -3), (2, 2, 2)])
def test_a_wrong_alignment_gets_a_poor_light(review: StudyReview, shift_mm: tuple[float, float, float]) -> None:
    right, wrong = residual_shifts(review)["t2w"], residual_shifts(moved(review, shift_mm))["t2w"]
    assert Finding("shift", "t2w", right).light == "good"
    assert wrong > 2
    assert Finding("shift", "t2w", wrong).light == "poor"


def test_limits_belong_to_the_better_light_and_nan_is_poor() -> None:
    for limits in LIMITS.values():
        low, high = limits.good
        assert limits.light(low) == "good"
        assert limits.light(high) == "good"
        for bound in limits.bearable:
            assert limits.light(bound) in ("look", "good")
        assert limits.light(float("nan")) == "poor"
    assert LIMITS["overlap"].light(0.9) == "look"
    assert LIMITS["overlap"].light(0.87) == "poor"
    assert worst([Finding("overlap", "t1c", 0.99), Finding("overlap", "t2w", 0.9)]) == "look"
    assert worst([]) == "good"


def test_volumes_are_compared_between_the_two_spaces(review: StudyReview) -> None:
    facts = {"volumes_ml": {"WT": 50.0, "TC": 20.0, "ET": 0.05}, "volumes_ml_prepared": {"WT": 51.5, "TC": 0, "ET": 0}}
    lights = {one.of: one.light for one in assess(review, facts) if one.measure == "volumes"}
    assert lights == {"WT": "look", "TC": "poor", "ET": "good"}


def test_images_lie_on_the_grid_of_the_mask(raw: RawStudy, review: StudyReview) -> None:
    """The reference is unchanged, and the other sequence shows its brain where the reference has it."""
    images = review.images_in("t1c")
    assert all(is_same_grid(image, raw.truth["t1c"].image.grid) for image in images.values())
    assert np.array_equal(images["t1c"].data, raw.truth["t1c"].image.data)
    theirs, brain = raw.truth["t2w"], raw.truth["t1c"].brain
    level = float(np.median(theirs.image.data[0][theirs.brain]))
    assert float(np.median(images["t2w"].data[0][brain])) == pytest.approx(level, rel=0.1)
    assert np.count_nonzero(review.brain_in("t1c").data[0] != raw.truth["t1c"].brain) < 0.05 * brain.sum()


def test_a_report_measures_the_mask_in_its_own_space(raw: RawStudy, review: StudyReview) -> None:
    measured = measure_review(review, raw.mask)
    tumour = np.count_nonzero(raw.truth["t1c"].tissues) * voxel_volume_ml(raw.truth["t1c"].image.affine)
    assert measured.measures["WT"].volume_ml == pytest.approx(tumour)
    assert set(measured.images) == {"T1 with contrast", "T2"}
    assert 0 < np.count_nonzero(measured.brain) < 0.7 * measured.brain.size
    with pytest.raises(InputError, match="has no t2f to show"):
        measure_review(review, raw.mask, sequences=["flair"])


def test_a_scene_shows_all_sequences_with_the_mask(raw: RawStudy, review: StudyReview) -> None:
    scene = read_raw_scene(review, [raw.mask])
    assert list(scene.images) == ["t1c", "t2w"]
    assert scene.masks[0].role == "prediction"
    assert is_same_grid(scene.masks[0].labels, scene.images["t2w"].grid)


def test_a_checkerboard_of_an_image_with_itself_is_that_image(review: StudyReview) -> None:
    """Apart from the tint of every other square; and the outline encloses the brain."""
    slices = cut_slices(review)
    assert [overlay.plane for overlay in slices.checkerboard("t2w", "t1c")] == ["axial", "coronal", "sagittal"]
    for grey, brain in zip(slices.greys["t1c"], slices.brain, strict=True):
        assert grey.shape == brain.shape
        assert grey[brain].mean() > 20
        assert 0.15 < brain.mean() < 0.7
        assert not brain[:20].any()  # the margin around the brain
    assert slices.checkerboard("t1c", "t1c") != slices.edges("t1c", "t1c")


def test_both_pages_are_written_and_linked(raw: RawStudy, gliomask: Run, tmp_path: Path) -> None:
    code, text = gliomask("report", raw.images, raw.output, "-o", tmp_path)
    assert (code, text.count(str(tmp_path))) == (0, 2)
    report, quality = ((tmp_path / name).read_text("utf-8") for name in ("RAW.html", "RAW_quality.html"))
    assert 'href="RAW_quality.html"' in report
    assert "the space of the acquired T1 with contrast" in report
    assert "Quality of the preparation of RAW" in quality
    for limits in LIMITS.values():
        if limits.name != "atlas":
            assert limits.meaning.split(";")[0] in quality
    assert quality.count("<img ") == 3 + 9  # the reference: outlines; the other: checkerboard, edges, outlines
    assert 'class="light poor"' in report  # ET: 10 mL against 11 mL
    assert "volumes ET 9.1 %" in report
    for page in (report, quality):
        assert not re.search(r"(src|href)=.(https?:|//)", page)
        assert str(raw.output) not in page


def test_without_a_mask_there_is_only_the_quality_page(raw: RawStudy, gliomask: Run, tmp_path: Path) -> None:
    """As for the output of `preprocess`."""
    cases = tmp_path / "cases"
    cases.mkdir()
    (raw.output / "prepared" / "RAW").rename(cases / "RAW")
    try:
        assert holds_prepared(cases)
        code, _ = gliomask("report", raw.images, cases)
        assert (code, [path.name for path in cases.glob("*.html")]) == (0, ["RAW_quality.html"])
    finally:
        (cases / "RAW").rename(raw.output / "prepared" / "RAW")


def test_the_series_that_were_prepared_are_shown(raw: RawStudy, review: StudyReview, tmp_path: Path) -> None:
    """Not others of the study that would be chosen now; images that are gone are an error."""
    folder = find_prepared(raw.output, "RAW")
    assert folder is not None
    unused = replace(raw.study, choices=tuple(replace(choice, used=False) for choice in raw.study.choices))
    assert set(read_review(unused, folder).images) == {"t1c", "t2w"}
    other = tmp_path / "t2w.nii.gz"
    other.write_bytes(raw.mask.read_bytes())
    swapped = tuple(
        Choice(replace(choice.series, files=(other,)), True, "") if choice.series.modality == "t2w" else choice
        for choice in raw.study.choices
    )
    with pytest.raises(InputError, match="its t2w is not what was prepared"):
        read_review(replace(raw.study, choices=swapped), folder)


def test_a_study_that_was_not_prepared_is_named(raw: RawStudy, gliomask: Run, tmp_path: Path) -> None:
    other = tmp_path / "OTHER"
    other.mkdir()
    (other / "t1c.nii.gz").write_bytes((raw.images / "t1c.nii.gz").read_bytes())
    code, text = gliomask("report", other, raw.output)
    assert code == 2
    assert "OTHER: was not prepared in" in text


def test_options_that_do_not_fit_are_refused(raw: RawStudy, gliomask: Run, tmp_path: Path) -> None:
    code, text = gliomask("report", raw.images, raw.output, "-o", tmp_path / "page.html")
    assert (code, "two pages" in text) == (2, True)
    code, text = gliomask("predict", "-i", raw.images, "-o", tmp_path, "--report")
    assert (code, "--report goes with --raw" in text) == (2, True)


def test_a_damaged_record_is_named(raw: RawStudy, tmp_path: Path) -> None:
    folder = find_prepared(raw.output, "RAW")
    assert folder is not None
    record = folder / "preprocess.json"
    content = record.read_text("utf-8")
    try:
        for bad in ("{", "[]", json.dumps({"request": 3})):
            record.write_text(bad, "utf-8")
            with pytest.raises(InputError, match=r"preprocess\.json"):
                read_review(raw.study, folder)
    finally:
        record.write_text(content, "utf-8")
