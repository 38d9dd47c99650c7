"""Figures are written in the format that the file's ending names, in the resolution and the colours asked for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from matplotlib import rcParams
from matplotlib.image import imread

from gliomask.errors import InputError
from gliomask.figures import FigureStyle, bland_altman_figure, save_figure, scores_figure
from gliomask.metrics import METRICS, metric_name

ROWS = [
    {"case": str(n), "region": region, "status": "scored", "dice": 0.1 * n, "hd95_pooled_mm": n, "truth_ml": n + 1.0}
    | {"prediction_ml": 2.0 * n + 1}
    for n in range(4)
    for region in ("WT", "TC")
]


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_the_ending_decides_the_format_and_the_bytes_are_the_same_each_time(
    tmp_path: Path, name: str, start: bytes
) -> None:
    """So that a figure under version control changes only with its content."""
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        save_figure(scores_figure(ROWS), tmp_path / folder / name)
    content = (tmp_path / "first" / name).read_bytes()
    assert content.startswith(start)
    assert content == (tmp_path / "second" / name).read_bytes()


def test_the_resolution_is_that_asked_for(tmp_path: Path) -> None:
    """The figure of 9 inches has 9 times as many pixels as dots per inch."""
    save_figure(scores_figure(ROWS), tmp_path / "a.png", FigureStyle(dpi=300))
    assert struct.unpack(">I", (tmp_path / "a.png").read_bytes()[16:20]) == (2700,)


@pytest.mark.parametrize("draw", [scores_figure, bland_altman_figure])
def test_the_dark_theme_has_light_text_on_a_dark_ground_and_ends_with_its_block(tmp_path: Path, draw) -> None:
    """Nothing of it is left for figures that are drawn later."""
    before = dict(rcParams)
    for theme in ("light", "dark"):
        style = FigureStyle(theme=theme)
        with style.colours():
            save_figure(draw(ROWS), tmp_path / f"{theme}.png", style)
    light, dark = (imread(tmp_path / f"{theme}.png")[..., :3].mean(axis=2) for theme in ("light", "dark"))
    assert light.mean() > 0.85
    assert dark.mean() < 0.2
    assert dark.max() > 0.8
    assert dict(rcParams) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [({"format": "gif"}, "png"), ({"theme": "drak"}, "did you mean 'dark'"), ({"dpi": 9}, "30 to 2400")],
)
def test_other_options_are_refused(values: dict[str, object], message: str) -> None:
    """The message names what there is."""
    with pytest.raises(InputError, match=message):
        FigureStyle(**values)  # type: ignore[arg-type]


def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """As a format that is not asked for would be a surprise."""
    with pytest.raises(InputError, match="png, svg, pdf"):
        save_figure(scores_figure(ROWS), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_every_metric_has_a_name_in_words() -> None:
    """Without underscores, and a distance or volume has its unit; lesion-wise ones say so."""
    for metric in METRICS:
        name = metric_name(metric)
        assert "_" not in name, metric
        assert metric.endswith("_mm") <= name.endswith("(mm)")
        assert metric.endswith("_ml") <= name.endswith("(mL)")
        assert metric_name(f"lesion_{metric}") == f"lesion-wise {name}"
    assert metric_name("something_else") == "something_else"
