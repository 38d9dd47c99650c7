"""Figures: orientation, scale in millimetres, distinguishable colours, and unusual input."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from gliomask.errors import InputError
from gliomask.figures import (
    PLANES,
    REGION_COLOURS,
    REGION_NAMES,
    CaseView,
    case_figure,
    curves_figure,
    save_figure,
    scores_figure,
)
from gliomask.volume import Volume, reorient

SHAPE, SPACING = (40, 36, 24), (2.0, 3.0, 5.0)
# LPS, as BraTS: X grows to the left, Y to the back, Z upwards.
LPS = np.array([[-2.0, 0, 0, 39], [0, -3.0, 0, 54], [0, 0, 5.0, -60], [0, 0, 0, 1]])
SAMPLE = tuple(slice(a, b) for a, b in ((5, 9), (6, 10), (16, 20)))  # the patient's right, front and top


def brain() -> NDArray[np.int16]:
    """Return an ellipsoid of grey 100-110 in air, with a blob of 1000 at the right, front and top."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    image = np.where((grid**2).sum(axis=0) < 0.85, 100 + 10 * grid[0], 0).astype(np.int16)
    image[SAMPLE] = 1000
    return image


def tumour(*, most: tuple[int, int, int] = (12, 20, 9)) -> dict[str, NDArray[np.bool_]]:
    """Return nested boxes; the slices through `most` have the most of the whole tumour."""
    masks = {}
    for region, reach in (("WT", 4), ("TC", 2), ("ET", 1)):
        masks[region] = np.zeros(SHAPE, bool)
        masks[region][tuple(slice(c - reach, c + reach + 1) for c in most)] = True
    for axis in range(3):  # a sheet of one voxel's thickness in each plane
        sheet = [slice(c - 6, c + 7) for c in most]
        sheet[axis] = slice(most[axis], most[axis] + 1)
        masks["WT"][tuple(sheet)] = True
    return masks


def seen(
    axes: str = "LPS",
    *,
    truth: Mapping[str, NDArray[np.bool_]] | None = None,
    prediction: Mapping[str, NDArray[np.bool_]] | None = None,
    images: Mapping[str, NDArray[Any]] | None = None,
) -> CaseView:
    """Return the same patient, stored in another order of voxels."""

    def turned(arrays: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]] | None:
        if arrays is None:
            return None
        return {name: reorient(Volume(array[None], LPS), axes).data[0] for name, array in arrays.items()}

    affine = reorient(Volume(brain()[None], LPS), axes).affine
    found = turned(prediction)
    predictions = {} if found is None else {"prediction": found}
    return CaseView("a patient", affine, turned(images or {"T1": brain()}) or {}, turned(truth), predictions)


def pictures(figure: Figure) -> list[NDArray[Any]]:
    """Return the grey pictures, row by row."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def texts(figure: Figure) -> str:
    """Return all texts of a figure."""
    written = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    written += [text.get_text() for text in figure.texts]
    return "\n".join([*written, *(text.get_text() for legend in figure.legends for text in legend.get_texts())])


def fills(axes: Axes) -> dict[str, NDArray[np.bool_]]:
    """Return where each colour is filled."""
    layers = [np.asarray(image.get_array()) for image in axes.images[1:]]
    return {to_hex(layer[layer[..., 3] > 0][0]): layer[..., 3] > 0 for layer in layers if layer[..., 3].any()}


@pytest.mark.parametrize("axes", ["RAS", "PIR", "SAL"])
def test_the_patients_right_is_on_the_left_however_the_voxels_lie(axes: str) -> None:
    """For any voxel order, the pictures are identical to the pixel, with the blob at its place."""
    truth = {"WT": brain() == 1000}
    figure = case_figure(seen(axes, truth=truth))
    expected = case_figure(seen(truth=truth))
    for panel, reference in zip(figure.axes, expected.axes, strict=True):
        for image, other in zip(panel.images, reference.images, strict=True):
            np.testing.assert_array_equal(np.asarray(image.get_array()), np.asarray(other.get_array()))
            assert image.get_extent() == pytest.approx(other.get_extent())
        for outline, other_outline in zip(panel.collections, reference.collections, strict=True):
            for path, other_path in zip(outline.get_paths(), other_outline.get_paths(), strict=True):
                np.testing.assert_allclose(np.asarray(path.vertices), np.asarray(other_path.vertices))
    assert texts(figure) == texts(expected)
    for picture in pictures(figure)[::2]:  # axial, coronal, sagittal
        rows, columns = np.nonzero(picture == 1000)
        assert columns.mean() < picture.shape[1] / 2  # right, right, front
        assert rows.mean() < picture.shape[0] / 2  # front, top, top


def test_the_letters_stand_at_the_sides_they_name() -> None:
    """R at the left of axial and coronal, A at the left of sagittal; A or S at the top."""
    figure = case_figure(seen())
    for axes, letters in zip(figure.axes, ("RLAP", "RLSI", "APSI"), strict=True):
        where = {text.get_text(): text.get_position() for text in axes.texts if text.get_text() in "RLAPSI"}
        left, right, top, bottom = (where[letter] for letter in letters)
        assert left[0] < 0.1 < 0.9 < right[0]
        assert bottom[1] < 0.1 < 0.9 < top[1]


def test_on_the_page_the_blob_is_where_the_letters_say(tmp_path: Path) -> None:
    """In the PNG itself, the blob is at the left and at the top of each panel."""
    figure = case_figure(seen("RAS", truth={"WT": brain() == 1000}))
    save_figure(figure, tmp_path / "case.png")
    page = imread(tmp_path / "case.png")[..., :3].min(axis=2)
    height = page.shape[0]
    for axes in figure.axes[::2]:
        box = axes.get_position()
        rows = slice(round((1 - box.y1) * height), round((1 - box.y0) * height))
        panel = page[rows, round(box.x0 * page.shape[1]) : round(box.x1 * page.shape[1])]
        y, x = np.nonzero(panel > 0.97)  # whiter than any letter
        assert len(x) > 50
        assert x.mean() < panel.shape[1] / 2
        assert y.mean() < panel.shape[0] / 2


def test_the_slices_with_the_most_tumour_are_shown() -> None:
    """Each plane is cut where the truth is largest, and its position is given in mm."""
    truth = tumour(most=(12, 20, 9))
    figure = case_figure(seen(truth=truth, prediction=tumour(most=(25, 14, 15))))
    for axes in figure.axes[1::3]:
        assert fills(axes)[REGION_COLOURS["WT"]].sum() == 13 * 13 - 5 * 5  # the sheet, less the core inside it
    for place in ("axial\nz = -15 mm", "coronal\ny = -6 mm", "sagittal\nx = 15 mm"):
        assert place in texts(figure)


def test_an_empty_truth_leaves_the_choice_to_the_prediction() -> None:
    """The slices pass through the only tumour."""
    empty = {region: np.zeros(SHAPE, bool) for region in ("WT", "TC", "ET")}
    figure = case_figure(seen(truth=empty, prediction=tumour(most=(12, 20, 9))))
    assert "axial\nz = -15 mm" in texts(figure)
    assert "no tumour" not in texts(figure)


def test_nested_regions_are_filled_as_shells() -> None:
    """Every voxel has the colour of its innermost region; together the fills are the whole tumour."""
    truth = tumour()
    figure = case_figure(seen(truth=truth))
    shells = fills(figure.axes[1])
    assert set(shells) == {REGION_COLOURS[region] for region in ("WT", "TC", "ET")}
    assert np.sum([*shells.values()], axis=0).max() == 1
    assert np.sum([*shells.values()]) == np.count_nonzero(truth["WT"][:, :, 9])
    assert shells[REGION_COLOURS["ET"]].sum() == 9
    assert shells[REGION_COLOURS["TC"]].sum() == 25 - 9


def test_outlines_surround_their_fills() -> None:
    """Each outline follows the outer voxel edges of its region, in every plane and at the picture's edge."""
    blob = brain() == 1000
    masks = {"WT": np.roll(blob, 20, axis=0), "ET": np.roll(blob, -SAMPLE[0].start, axis=0)}  # the second at X = 0
    figure = case_figure(CaseView("x", LPS, {"T1": brain() + 1}, masks))
    for axes in figure.axes[1::2]:
        _, width, _, height = axes.images[0].get_extent()
        for outline in axes.collections:
            filled = fills(axes)[to_hex(np.asarray(outline.get_edgecolor())[0])]
            rows, columns = np.nonzero(filled)
            left, right = np.array([columns.min(), columns.max() + 1]) * width / filled.shape[1]
            top, bottom = height - np.array([rows.min(), rows.max() + 1]) * height / filled.shape[0]
            box = np.concatenate([np.asarray(path.vertices) for path in outline.get_paths()])
            np.testing.assert_allclose(box.min(axis=0), (left, bottom), atol=1e-9)
            np.testing.assert_allclose(box.max(axis=0), (right, top), atol=1e-9)
    assert len(figure.axes[1].collections) == 2


@pytest.mark.parametrize(
    ("count", "sides"), [(1, ()), (2, ("truth",)), (1, ("prediction",)), (4, ("truth", "prediction"))]
)
def test_a_column_for_each_image_and_each_side(count: int, sides: tuple[str, ...]) -> None:
    """Images first, then truth, then prediction, three rows each; a legend only where there are regions."""
    images = {name: brain() for name in ("T1", "T2", "T1 with contrast", "T2-FLAIR")[:count]}
    figure = case_figure(seen(images=images, **dict.fromkeys(sides, tumour())))  # type: ignore[arg-type]
    columns = count + len(sides)
    assert len(figure.axes) == 3 * columns
    assert [axes.get_title() for axes in figure.axes[:columns]] == [*images, *sides]
    assert len(figure.legends) == (1 if sides else 0)
    assert "no tumour" not in texts(figure)
    if sides:
        assert all(REGION_NAMES[region] in texts(figure) for region in ("WT", "TC", "ET"))
        assert REGION_NAMES["RC"] not in texts(figure)


@pytest.mark.parametrize("regions", [("WT", "TC", "ET"), ("WT",), ()])
def test_empty_masks_say_so(regions: tuple[str, ...]) -> None:
    """Without a tumour the figure says so, and its slices pass through the middle of the brain."""
    empty = {region: np.zeros(SHAPE, bool) for region in regions}
    figure = case_figure(seen(truth=empty, prediction=empty))
    assert "no tumour" in texts(figure)
    assert all(not fills(axes) for axes in figure.axes)
    assert "axial\nz = 0 mm" in texts(figure)


@pytest.mark.parametrize(("spacing_mm", "bar"), [((4.0, 4.5, 6.0), 50), ((2.0, 2.0, 3.0), 20), ((1.0, 1.0, 1.0), 10)])
@pytest.mark.parametrize("axes", ["LPS", "PIR"])
def test_the_scale_bar_is_as_long_as_it_says(spacing_mm: tuple[float, ...], bar: int, axes: str) -> None:
    """Panels are as wide and high as their voxels in mm, with the same scale in both directions."""
    turned = reorient(Volume(brain()[None], LPS @ np.diag([*np.divide(spacing_mm, SPACING), 1])), axes)
    figure = case_figure(CaseView("x", turned.affine, {"T1": turned.data[0]}))
    figure.draw_without_rendering()
    for plane, panel, picture in zip(PLANES, figure.axes, pictures(figure), strict=True):
        (line,) = panel.lines
        assert np.ptp(line.get_xdata()) == bar
        assert np.max(line.get_xdata()) < 0.45 * panel.get_xlim()[1]  # clear of the letter in the middle
        assert f"{bar} mm" in [text.get_text() for text in panel.texts]
        across_mm, down_mm = (size for axis, size in enumerate(spacing_mm) if axis != plane.axis)
        left, right, bottom, top = panel.images[0].get_extent()
        assert right - left == pytest.approx(picture.shape[1] * across_mm)
        assert top - bottom == pytest.approx(picture.shape[0] * down_mm)
        assert panel.get_xlim() == (left, right)
        across, down = np.diff(panel.transData.transform([(0, 0), (10, 0), (10, 10)]), axis=0)
        assert across[0] == pytest.approx(down[1], rel=0.01)


def test_air_is_cut_away_and_the_tumour_is_not() -> None:
    """The panels show the brain's box with a margin, the same in all columns."""
    image = np.zeros((60, 60, 40), np.int16)
    image[20:40, 15:45, 10:30] = 100
    mask = image > 0
    figure = case_figure(CaseView("x", np.diag([-1.0, -1, 1, 1]), {"T1": image}, {"WT": mask}, {"p": {"WT": mask}}))
    assert pictures(figure)[0].shape == (30 + 28, 20 + 28)
    assert [picture.shape for picture in pictures(figure)[:3]] == [(58, 48)] * 3
    assert all(fills(axes)[REGION_COLOURS["WT"]].sum() == 20 * 30 for axes in figure.axes[1:3])


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((40, 36, 8)), id="all zero"),
        pytest.param(np.full((40, 36, 8), -1.0), id="all the same"),
        pytest.param(np.ones((40, 36, 8)) * (np.arange(8) == 3), id="one slice"),
    ],
)
def test_strange_images_are_drawn(image: NDArray[Any], tmp_path: Path) -> None:
    """Unusual images, and a tumour that fills the grid, are drawn without an error."""
    thick = np.diag([5.0, 5.0, 20.0, 1.0])  # thicker than the margin, which then has no slice
    save_figure(case_figure(CaseView("x", thick, {"T1": image}, {"WT": image <= 1})), tmp_path / "x.png")
    assert imread(tmp_path / "x.png").std() > 0


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as eyes without red's or green's cones have it.
SIGHTS = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
)


def lab(colour: str, sight: Any) -> NDArray[np.float64]:
    """Return a colour in CIELAB (D65), where a distance of 2 is just noticeable."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.asarray(sight) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_regions_are_told_apart_by_all_eyes(sight: str) -> None:
    """On black and on white, any two regions differ in colour, and the nested three also in lightness."""
    curves = {
        line.get_label(): to_hex(line.get_color())
        for line in curves_figure([{"epoch": 1, **{f"val_dice_{r}": 0.5 for r in REGION_COLOURS}}]).axes[3].lines
    }
    for ground, colours in (("black", REGION_COLOURS), ("white", {r: curves[r] for r in REGION_COLOURS})):
        seen_as = {name: lab(colour, SIGHTS[sight]) for name, colour in (*colours.items(), ("ground", ground))}
        for one, other in itertools.combinations(seen_as, 2):
            assert np.linalg.norm(seen_as[one] - seen_as[other]) > 25, (one, other)
    lightness = sorted(lab(REGION_COLOURS[region], SIGHTS[sight])[0] for region in ("WT", "TC", "ET"))
    assert np.diff(lightness).min() > 9


def epoch(number: int, **scores: float) -> dict[str, float]:
    """Return a row of `log.jsonl`, with validation if scores are given."""
    row = {"epoch": number, "train_loss": 1 / number, "train_accuracy": 0.9, "train_mean_iou": 0.5}
    row |= {"all_background_accuracy": 0.88}
    if scores:
        row |= {"val_loss": 1.2 / number, "val_accuracy": 0.89, "val_mean_iou": 0.4}
        row |= {f"val_dice_{region}": dice for region, dice in scores.items()}
        row["val_dice"] = float(np.mean(list(scores.values())))
    return row


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return the points of each curve by its label."""
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }


def test_curves_hold_the_rows() -> None:
    """The curves have the points of the log, and the best epoch is marked and named."""
    rows = [epoch(n, WT=dice, TC=dice / 2, ET=dice / 4) for n, dice in ((1, 0.2), (2, 0.8), (3, 0.6))]
    loss, accuracy, mean_iou, dice = curves_figure(rows).axes
    assert lines(loss) == {
        "training": ([1, 2, 3], [row["train_loss"] for row in rows]),
        "validation": ([1, 2, 3], [row["val_loss"] for row in rows]),
    }
    assert set(lines(accuracy)) == {"training", "validation", "empty prediction"}
    assert lines(mean_iou)["validation"] == ([1, 2, 3], [0.4] * 3)
    assert lines(dice)["WT"] == ([1, 2, 3], [0.2, 0.8, 0.6])
    assert list(lines(dice)) == ["WT", "TC", "ET", "mean"]
    (mark,) = [line for line in dice.lines if str(line.get_label()).startswith("_")]
    assert np.unique(mark.get_xdata()).tolist() == [2]
    assert f"best epoch 2: mean {rows[1]['val_dice']:.3f}" in dice.get_title(loc="left")


def test_a_single_epoch_is_seen(tmp_path: Path) -> None:
    """With one epoch, every curve has a visible marker, and the axis has whole epochs."""
    figure = curves_figure([epoch(1, WT=0.5)])
    blank = curves_figure([])
    save_figure(figure, tmp_path / "one.png")
    save_figure(blank, tmp_path / "none.png")
    for axes in figure.axes:
        curves = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert curves
        assert all(line.get_marker() == "o" and line.get_markersize() > 2 for line in curves)
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    blue = np.array(to_rgb("#0072b2"))
    dots, nothing = (np.abs(imread(tmp_path / f"{n}.png")[..., :3] - blue).max(axis=2) < 0.02 for n in ("one", "none"))
    assert np.count_nonzero(dots) > 3 * 10  # three points of validation, besides what the legends have
    assert not nothing.any()


def test_rows_without_validation_are_drawn_for_what_they_have() -> None:
    """Without validation there is no validation curve and no best epoch; the Dice panel says that it has no data."""
    figure = curves_figure([epoch(1), epoch(2)])
    assert set(lines(figure.axes[0])) == {"training"}
    assert not figure.axes[3].lines
    assert "no data" in texts(figure)
    assert "best" not in figure.axes[3].get_title(loc="left")


def test_validation_that_starts_late_is_drawn() -> None:
    """Keys that are absent from some rows leave gaps, also if the first row lacks them."""
    figure = curves_figure([epoch(1), epoch(2, WT=0.4, ET=0.2), epoch(3), epoch(4, WT=0.5, ET=0.3)])
    assert lines(figure.axes[3])["WT"] == ([2, 4], [0.4, 0.5])
    assert list(lines(figure.axes[3])) == ["WT", "ET", "mean"]
    assert lines(figure.axes[0])["training"][0] == [1, 2, 3, 4]


def test_no_row_is_four_empty_panels(tmp_path: Path) -> None:
    """A run before its first epoch has empty panels."""
    figure = curves_figure([])
    assert texts(figure).count("no data") == 4
    save_figure(figure, tmp_path / "none.png")


def test_many_epochs_have_no_markers() -> None:
    """With more than thirty epochs there are no markers."""
    figure = curves_figure([epoch(n) for n in range(1, 32)])
    assert figure.axes[0].lines[0].get_marker() == ""
    assert curves_figure([epoch(n) for n in range(1, 31)]).axes[0].lines[0].get_marker() == "o"


def score_rows(*dices: float) -> list[Mapping[str, str | float]]:
    """Return rows as in `Evaluation.rows`, with three regions per case."""
    return [
        {"case": f"case{number}", "region": region, "dice": dice, "hd95_pooled_mm": 10 - 10 * dice}
        for number, dice in enumerate(dices)
        for region in ("WT", "TC", "ET")
    ]


@pytest.mark.parametrize("dices", [(0.5,), (0.0, 1.0), (0.9,) * 5 + (0.1,), ()], ids=["one", "two", "six", "none"])
def test_every_score_is_a_point(dices: tuple[float, ...], tmp_path: Path) -> None:
    """Each region has one point per case, and equal scores do not overlap; one case and no case are drawn too."""
    figure = scores_figure(score_rows(*dices))
    for axes, values in zip(figure.axes, (dices, [10 - 10 * dice for dice in dices]), strict=True):
        assert f"{len(dices)} case{'' if len(dices) == 1 else 's'}" in axes.get_title(loc="left")
        assert len(axes.collections) == (3 if dices else 0)
        for place, points in enumerate(axes.collections):
            x, y = np.asarray(points.get_offsets()).T
            np.testing.assert_allclose(y, values)
            assert np.abs(x - place).max() < 0.25
            assert len(set(x)) == len(x)
        if dices:
            assert [label.get_text() for label in axes.get_xticklabels()] == ["WT", "TC", "ET"]
    assert texts(figure).count("no data") == (0 if dices else 2)
    save_figure(figure, tmp_path / "scores.png")


def test_a_figure_is_a_png_in_a_folder_that_need_not_exist(tmp_path: Path) -> None:
    """The file is a PNG of the figure's size and replaces an older one."""
    path = tmp_path / "new" / "deep" / "picture.png"
    figure = Figure(figsize=(2, 1))
    for _ in range(2):
        save_figure(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert imread(path).shape[:2] == (110, 220)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_a_failed_picture_leaves_nothing_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If writing fails, the older file stays, and no partial file is left."""
    path = tmp_path / "picture.png"
    save_figure(Figure(figsize=(1, 1)), path)
    before = path.read_bytes()

    def fail(error: Exception) -> None:
        def half_written(self: Figure, where: Path, **_: object) -> None:
            Path(where).write_bytes(b"\x89PNG")
            raise error

        monkeypatch.setattr(Figure, "savefig", half_written)

    for error, told in ((OSError(28, "No space left on device"), InputError), (ValueError("odd"), ValueError)):
        fail(error)
        with pytest.raises(told):
            save_figure(Figure(), path)
        assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
        assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    """A path below a file is an InputError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/picture\.png"):
        save_figure(Figure(), tmp_path / "file" / "picture.png")
