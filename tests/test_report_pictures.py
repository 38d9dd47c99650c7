"""Pictures of cases: the requested content, missing sequences, and the written PNG file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from gliomask.cases import Case, get_layout
from gliomask.errors import InputError
from gliomask.figures import REGION_NAMES
from gliomask.inference.result import Prediction
from gliomask.model.plan import Plan
from gliomask.report import pictures
from gliomask.report.pictures import draw_case, draw_prediction
from gliomask.volume import Volume, read_volume, reorient, write_volume


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been written, in order."""
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, _: figures.append(figure))
    return figures


def columns(figure: Figure) -> list[str]:
    """Return the headings of a picture's columns."""
    return [axes.get_title() for axes in figure.axes[: len(figure.axes) // 3]]


def legend(figure: Figure) -> list[str]:
    """Return the labels of the legend."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def assert_same_panels(one: Figure, other: Figure) -> None:
    """Compare pictures, fills, and their positions in mm."""
    for panel, reference in zip(one.axes, other.axes, strict=True):
        for image, twin in zip(panel.images, reference.images, strict=True):
            np.testing.assert_array_equal(np.asarray(image.get_array()), np.asarray(twin.get_array()))
            assert image.get_extent() == pytest.approx(twin.get_extent())
        written, expected = ([text.get_text() for text in axes.texts] for axes in (panel, reference))
        assert written == expected


def grey(axes: Axes) -> NDArray[Any]:
    """Return a panel's image without overlays."""
    return np.asarray(axes.images[0].get_array())


def found_in(case: Case) -> Prediction:
    """Return a prediction of a small cube of enhancing tumour, with the labels of BraTS 2023."""
    grid = read_volume(case.images["t2f"].path).grid
    labels = np.zeros((1, *grid.shape), np.uint8)
    labels[0, 8:12, 8:12, 8:12] = 3
    return Prediction(
        case=case,
        labels=Volume(labels, grid.affine),
        probabilities=Volume(np.zeros((3, *grid.shape), np.float32), grid.affine),
        plan=Plan(modalities=("t2f",)),
        convention="brats2023",
        model="runs/mine/best.safetensors",
        engine="torch 2",
        window="whole",
        seconds=1.0,
    )


def test_a_case_is_a_png(write_case: Callable[..., Case], tmp_path: Path) -> None:
    """The file is written to a new folder, with three columns and the regions' colours, and nothing else."""
    path = tmp_path / "new" / "case.png"
    draw_case(write_case(), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 20_000
    page = imread(path)[..., :3]
    assert page.shape[1] == 3 * 330
    assert (np.ptp(page, axis=2) > 0.3).mean() > 0.005
    assert [p.name for p in path.parent.iterdir()] == ["case.png"]


def test_two_sequences_and_the_mask_are_shown(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure]
) -> None:
    """FLAIR and T1 with contrast by default, then the truth on FLAIR, under the case's id."""
    case = write_case()
    draw_case(case, tmp_path / "case.png")
    assert columns(drawn[0]) == ["T2-FLAIR", "T1 with contrast", "truth"]
    assert case.id in [text.get_text() for text in drawn[0].texts]
    assert legend(drawn[0]) == [REGION_NAMES[region] for region in ("WT", "TC", "ET")]
    np.testing.assert_array_equal(grey(drawn[0].axes[2]), grey(drawn[0].axes[0]))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (("t1",), ["T1"]),
        (("t2", "FLAIR"), ["T2", "T2-FLAIR"]),
        (("t1ce", "t1n", "t2w", "t2f"), ["T1 with contrast", "T1", "T2", "T2-FLAIR"]),
    ],
)
def test_the_sequences_asked_for_are_shown_in_that_order(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure], asked: tuple[str, ...], shown: list[str]
) -> None:
    """Sequences are accepted in any spelling, each with its own voxels."""
    case = write_case()
    draw_case(case, tmp_path / "case.png", sequences=asked)
    assert columns(drawn[0]) == [*shown, "truth"]
    draw_case(case, tmp_path / "case.png", sequences=asked[::-1])
    for panel, turned in zip(drawn[0].axes[: len(shown)], drawn[1].axes[: len(shown)][::-1], strict=True):
        np.testing.assert_array_equal(grey(panel), grey(turned))
    assert len({grey(panel).tobytes() for panel in drawn[0].axes[: len(shown)]}) == len(shown)


@pytest.mark.parametrize(
    ("missing", "shown"),
    [
        (("t2f",), ["T1 with contrast", "T2"]),
        (("t2f", "t1c"), ["T2", "T1"]),
        (("t2f", "t1c", "t2w"), ["T1"]),
    ],
)
def test_a_case_with_less_is_shown_by_what_it_has(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure], missing: tuple[str, ...], shown: list[str]
) -> None:
    """The first two available of FLAIR, T1 with contrast, T2 and T1 are shown."""
    draw_case(write_case(missing=missing), tmp_path / "case.png")
    assert columns(drawn[0]) == [*shown, "truth"]


@pytest.mark.parametrize("asked", [("t1ce",), ("t1ce", "flair"), ("flair", "t1ce")])
def test_a_sequence_that_is_not_there_is_refused(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure], asked: tuple[str, ...]
) -> None:
    """A missing sequence is an error that names the case, the sequence, and the available ones."""
    case = write_case(missing=("t1c",))
    with pytest.raises(InputError, match=rf"{case.id}: has no t1c to show; it has t2f, t2w, t1n\."):
        draw_case(case, tmp_path / "case.png", sequences=asked)
    with pytest.raises(InputError, match="unknown modality 'flare'; did you mean 'flair'"):
        draw_case(case, tmp_path / "case.png", sequences=("flare",))
    assert drawn == []


@pytest.mark.parametrize("layout", ["brats2017", "brats2024", "msd", "nnunet"])
def test_every_layout_is_drawn(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure], layout: str
) -> None:
    """The mask is read in the convention of its layout: equal tissues have equal colours for any year."""
    draw_case(write_case(layout), tmp_path / "case.png")
    draw_case(replace(write_case("brats2021"), id="reference"), tmp_path / "reference.png")
    assert_same_panels(drawn[0], drawn[1])
    assert "tumour" not in " ".join(text.get_text() for text in drawn[0].texts)
    assert (REGION_NAMES["RC"] in legend(drawn[0])) == (get_layout(layout).convention == "brats2024")


def test_without_a_mask_the_images_stand_alone(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure]
) -> None:
    """Without a mask of a known convention, there is no column of the truth and no remark on a missing tumour."""
    case = write_case()
    for lacking in (replace(case, mask=None), replace(case, convention=None)):
        draw_case(lacking, tmp_path / "case.png", title="someone")
        assert columns(drawn[-1]) == ["T2-FLAIR", "T1 with contrast"]
        assert legend(drawn[-1]) == []
        written = [text.get_text() for text in drawn[-1].texts]
        assert "someone" in written
        assert case.id not in written
        assert "no tumour" not in written


def test_an_empty_mask_says_so(write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure]) -> None:
    """An empty mask has a column of the truth and the remark that there is no tumour."""
    case = write_case()
    assert case.mask is not None
    labels = read_volume(case.mask, mask=True)
    write_volume(case.mask, replace(labels, data=np.zeros_like(labels.data)))
    draw_case(case, tmp_path / "case.png")
    assert columns(drawn[0])[-1] == "truth"
    assert "no tumour" in [text.get_text() for text in drawn[0].texts]


@pytest.mark.parametrize("axes", ["RAS", "PSL"])
def test_a_case_stored_otherwise_is_the_same_picture(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure], axes: str
) -> None:
    """Files with other voxel orders give the same panels."""
    case = write_case()
    draw_case(case, tmp_path / "case.png")
    assert case.mask is not None
    for path in (case.mask, *(source.path for source in case.images.values())):
        write_volume(path, reorient(read_volume(path, mask=path == case.mask), axes))
    draw_case(case, tmp_path / "case.png")
    assert_same_panels(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: replace(v, affine=v.affine @ np.diag([-1, 1, 1, 1])), "orientation"),
        (lambda v: replace(v, data=v.data[:, :-1]), "shape"),
        (lambda v: replace(v, affine=v.affine + np.array([[0, 0, 0, 9.0], *[[0] * 4] * 3])), "origin"),
    ],
)
def test_a_mask_on_another_grid_is_never_drawn(
    write_case: Callable[..., Case],
    tmp_path: Path,
    drawn: list[Figure],
    change: Callable[[Volume], Volume],
    message: str,
) -> None:
    """A mask on another grid is an error that names the file and the difference."""
    case = write_case()
    assert case.mask is not None
    write_volume(case.mask, change(read_volume(case.mask, mask=True)))
    with pytest.raises(InputError, match=rf"the grid of .*{case.mask.name} differs .* in {message}"):
        draw_case(case, tmp_path / "case.png")
    assert drawn == []


def test_bad_files_are_told(write_case: Callable[..., Case], tmp_path: Path) -> None:
    """A mask with other labels, a truncated image and a path below a file are errors."""
    case = write_case()
    with pytest.raises(InputError, match=r"labels \{4\} are not in brats2023"):
        draw_case(replace(case, convention="brats2023"), tmp_path / "case.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/case\.png"):
        draw_case(case, tmp_path / "file" / "case.png")
    flair = case.images["t2f"].path
    flair.write_bytes(flair.read_bytes()[:500])
    with pytest.raises(InputError, match=flair.name):
        draw_case(case, tmp_path / "case.png")
    with pytest.raises(InputError, match="no sequence"):
        draw_case(replace(case, images={}), tmp_path / "case.png")


def test_a_prediction_has_a_column_of_its_own(
    write_case: Callable[..., Case], tmp_path: Path, drawn: list[Figure]
) -> None:
    """A prediction is drawn beside the truth if there is one, in its own convention, with id and model as title."""
    case = write_case()
    found = found_in(case)
    draw_prediction(found, str(tmp_path / "both.png"))
    assert columns(drawn[0]) == ["T2-FLAIR", "T1 with contrast", "truth", "prediction"]
    assert f"{case.id}    best.safetensors" in [text.get_text() for text in drawn[0].texts]
    draw_prediction(replace(found, case=replace(case, mask=None)), tmp_path / "alone.png", sequences=("t2",))
    assert columns(drawn[1]) == ["T2", "prediction"]
    layers = [np.asarray(image.get_array()) for image in drawn[1].axes[1].images[1:]]
    assert [int((layer[..., 3] > 0).sum()) for layer in layers if layer.any()] == [4 * 4]


def test_a_notebook_shows_what_a_file_would_hold(write_case: Callable[..., Case], tmp_path: Path) -> None:
    """Without a path nothing is written; the notebook's PNG is smaller than the saved one."""
    case = write_case()
    before = sorted(tmp_path.rglob("*"))
    shown = draw_prediction(found_in(case))
    png = shown._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert sorted(tmp_path.rglob("*")) == before
    shown.save(tmp_path / "one.png")
    draw_prediction(found_in(case), tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    edges = [np.frombuffer(content[16:24], ">u4") for content in (png, (tmp_path / "one.png").read_bytes())]
    assert (edges[0] < edges[1]).all()
