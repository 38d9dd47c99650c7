"""Figures of scores: agreement of volumes, score tables case by case, and the gallery of the worst cases."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from gliomask.figures import (
    GalleryCase,
    bland_altman_figure,
    figure_png,
    gallery_figure,
    run_comparison_curves_figure,
    run_comparison_scores_figure,
    save_figure,
    score_comparison_figure,
    scores_figure,
)
from gliomask.figures.gallery import PREDICTION_COLOUR, TRUTH_COLOUR
from gliomask.volume import Volume, reorient

SHAPE = (40, 36, 24)
LPS = np.array([[-2.0, 0, 0, 39], [0, -3.0, 0, 54], [0, 0, 5.0, -60], [0, 0, 0, 1]])


def row(region: str, truth_ml: float, prediction_ml: float, status: str = "scored") -> dict[str, str | float]:
    return {"region": region, "status": status, "truth_ml": truth_ml, "prediction_ml": prediction_ml}


def texts(figure: Figure) -> list[str]:
    """Return all texts of a figure."""
    return [text.get_text() for holder in (figure, *figure.axes) for text in holder.texts]


def test_bias_and_limits_by_hand() -> None:
    """For differences of 1, 2 and 3 mL, the bias is 2 and the limits are 1.96 on either side."""
    figure = bland_altman_figure([row("WT", 10, 11), row("WT", 20, 22), row("WT", 30, 33)])
    (axes,) = figure.axes
    points = axes.collections[0].get_offsets()
    assert np.asarray(points).tolist() == [[10.5, 1], [21, 2], [31.5, 3]]
    assert texts(figure) == ["bias\n+2.00", "+1.96 sd\n+3.96", "-1.96 sd\n+0.04"]
    assert axes.get_ylim()[0] < 0 < 3.96 < axes.get_ylim()[1]


def test_missing_and_empty_cases_are_in_no_bias() -> None:
    """Cases without a prediction, and those with two empty masks, are left out."""
    rows = [row("WT", 10, 11), row("WT", 50, 0, "missing"), row("WT", 0, 0), row("WT", 0, 2)]
    figure = bland_altman_figure(rows)
    assert figure.axes[0].get_title(loc="left") == "WT, 2 cases"
    assert texts(figure) == ["bias\n+1.50"]


def test_volumes_of_no_case_and_of_one_are_drawn(tmp_path: Path) -> None:
    """Few or no cases are drawn without a warning, one panel per region."""
    save_figure(bland_altman_figure([]), tmp_path / "none.png")
    save_figure(bland_altman_figure([row(r, 1, 1) for r in ("WT", "TC", "ET", "NCR")]), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > (tmp_path / "none.png").stat().st_size > 1000


def contest(values: dict[str, list[float]], metric: str = "dice") -> Figure:
    return score_comparison_figure({metric: {"WT": values}}, "brats2021, 3 cases", {metric: metric == "dice"})


@pytest.mark.parametrize("metric", ["dice", "hd95_pooled_mm"])
def test_each_line_has_the_colour_of_its_gain(metric: str) -> None:
    """Lines are blue if the right table is better, orange if worse, grey if equal; for distances, less is better."""
    up, down = ("#0072b2", "#d55e00") if metric == "dice" else ("#d55e00", "#0072b2")
    axes = contest({"old": [0.5, 0.9, 0.7], "new": [0.6, 0.8, 0.7]}, metric).axes[0]
    lines = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert [to_hex(str(line.get_color())) for line in lines] == [up, down, "#999999"]
    assert [list(line.get_ydata()) for line in lines] == [[0.5, 0.6], [0.9, 0.8], [0.7, 0.7]]


def test_cases_without_a_number_and_many_entrants_are_drawn(tmp_path: Path) -> None:
    """Undefined scores on one side, on both or everywhere, long names, and a single case are drawn."""
    nan = math.nan
    save_figure(contest({"a": [nan, 0.5], "b": [0.4, nan], "c" * 60: [nan, nan]}), tmp_path / "a.png")
    save_figure(contest({"a": [373.0], "b": [0.0]}, "hd95_pooled_mm"), tmp_path / "b.png")
    assert min((tmp_path / name).stat().st_size for name in ("a.png", "b.png")) > 5000


def block(*middle: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(c - 3, c + 4) for c in middle)] = True
    return mask


def test_names_with_dollar_signs_are_not_read_as_mathematics() -> None:
    """File and folder names may hold them; what is not valid mathematics would end the drawing."""
    scores = {"dice": {"WT": {"a$^$": [0.5, 0.6], "$b": [0.7, 0.8]}}}
    assert figure_png(score_comparison_figure(scores, "two", {"dice": True}))
    runs = {"a$^$": [{"epoch": 1, "hours": 1.0, "val_dice": 0.5}], "$x_$": [{"epoch": 1, "hours": 1.0}]}
    assert figure_png(run_comparison_curves_figure(runs))
    assert figure_png(run_comparison_scores_figure({"a$^$": [{"WT": 0.5}], "b": [{"WT": 0.6}]}))


def gallery_cases(axes: str = "LPS", *, image: bool = True) -> GalleryCase:
    """Return a case whose prediction lies beside the truth, in any order of the axes."""
    truth, prediction, place = block(12, 20, 9), block(16, 20, 9), np.zeros(SHAPE, bool)
    place[19, 21, 10] = True
    grey = np.full(SHAPE, 100, np.int16)
    sides = [reorient(Volume(array[None], LPS), axes) for array in (truth, prediction, place, grey)]
    x, y, z = np.argwhere(sides[2].data[0])[0].tolist()
    return GalleryCase(
        "BraTS2021_00001", "WT shifted by 8.0 mm", sides[0].data[0], sides[1].data[0], (x, y, z), sides[0].affine,
        sides[3].data[0] if image else None,
    )  # fmt: skip


def seen(figure: Figure) -> list[tuple[tuple[float, float], ...]]:
    """Return the positions of the ring and of the contours of each panel."""
    panels = []
    for axes in figure.axes:
        (ring,) = (patch for patch in axes.patches if isinstance(patch, Circle))
        outlines = [path.vertices.mean(axis=0) for found in axes.collections for path in found.get_paths()]
        panels.append((tuple(ring.get_center()), *(tuple(np.round(middle, 6)) for middle in outlines)))
    return panels


def test_the_gallery_shows_each_case_in_three_planes_with_its_reason() -> None:
    """Each case has a title and a caption, the truth in blue, the prediction in orange, and a ring."""
    figure = gallery_figure([gallery_cases(), gallery_cases(image=False)], "the worst")
    assert len(figure.axes) == 6
    written = texts(figure)
    assert written.count("WT shifted by 8.0 mm") == written.count("BraTS2021_00001") == 2
    assert "the worst" in written
    colours = {to_hex(c) for axes in figure.axes for found in axes.collections for c in found.get_edgecolor()}
    assert colours == {TRUTH_COLOUR, PREDICTION_COLOUR}
    assert all(len(axes.images) == 1 for axes in figure.axes)


@pytest.mark.parametrize("axes", ["RAS", "PIL", "SLA"])
def test_the_gallery_is_the_same_for_every_order_of_the_axes(axes: str) -> None:
    """Slices, rings and outlines do not depend on the voxel order."""
    assert seen(gallery_figure([gallery_cases(axes)], "")) == seen(gallery_figure([gallery_cases()], ""))


def test_the_ring_lies_on_the_place() -> None:
    """In the axial slice, the ring is at the mistake, in mm from the corner of the box."""
    figure = gallery_figure([gallery_cases()], "")
    axial = figure.axes[0]
    (ring,) = (patch for patch in axial.patches if isinstance(patch, Circle))
    width, height = axial.get_xlim()[1], axial.get_ylim()[1]
    # the masks reach from 9 to 19 along X and 17 to 23 along Y; 30 mm are 15 voxels of X, within the grid 9 of them
    assert ring.get_center() == (pytest.approx((19 + 0.5) * 2), pytest.approx(height - (21 - 7 + 0.5) * 3))
    assert (width, height) == (pytest.approx(35 * 2), pytest.approx((34 - 7) * 3))


def test_an_empty_side_and_no_case_are_drawn(tmp_path: Path) -> None:
    """An empty prediction, and no case at all, are drawn."""
    found = gallery_cases(image=False)
    lone = GalleryCase("a", "b" * 300, found.truth, np.zeros(SHAPE, bool), found.place, found.affine)
    save_figure(gallery_figure([lone] * 3, "t"), tmp_path / "three.png")
    nothing = gallery_figure([], "t")
    save_figure(nothing, tmp_path / "none.png")
    assert "no case has a mistake" in texts(nothing)
    assert (tmp_path / "three.png").stat().st_size > (tmp_path / "none.png").stat().st_size


def test_the_scores_drawn_are_those_asked_for() -> None:
    """The given Dice and HD95 are drawn and named; infinite and undefined scores are counted below the region."""
    rows = [
        {"case": case, "region": "WT", "lesion_dice": dice, "lesion_hd95_pooled_mm": distance}
        for case, dice, distance in (("a", 0.4, 7.0), ("b", 0.6, math.inf), ("c", math.nan, math.nan))
    ]
    left, right = scores_figure(rows, ("lesion_dice", "lesion_hd95_pooled_mm")).axes
    assert left.get_title(loc="left") == "lesion-wise Dice, 3 cases"
    assert np.asarray(left.collections[0].get_offsets())[:, 1].tolist() == [0.4, 0.6]
    assert np.asarray(right.collections[0].get_offsets())[:, 1].tolist() == [7.0]
    assert left.get_xticklabels()[0].get_text() == "WT\n1 not defined"
    assert right.get_xticklabels()[0].get_text() == "WT\n1 infinite\n1 not defined"
