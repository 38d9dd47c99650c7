"""Alignments: what goes onto the prepared grid comes back to where it was, and volumes stay what they are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gliomask.acquisition.alignment import Alignment, load_alignment
from gliomask.acquisition.ants import from_itk_affine, register_with_ants, require_ants
from gliomask.acquisition.itk import from_itk, to_itk
from gliomask.acquisition.resampling import box_of_masks, carry_all
from gliomask.errors import InputError
from gliomask.volume import Grid, Volume, voxel_volume_ml


def turned(degrees: float, shift: tuple[float, float, float] = (4.0, -3.0, 2.0)) -> np.ndarray:
    """A rotation about an oblique axis and a translation."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift
    return matrix


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> Volume:
    """A smooth ball, .5 at its radius in millimetres, on any grid."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    places = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    distance = np.linalg.norm(places - np.array(centre), axis=-1)
    return Volume((1 / (1 + np.exp(distance - radius)))[None].astype(np.float32), grid.affine)


def thick(slice_mm: float = 5.0) -> Grid:
    """A native grid of thick slices that covers the prepared one, also where that is turned."""
    affine = np.array([[-0.9, 0, 0, 36], [0, -0.9, 0, 36], [0, 0, slice_mm, -40], [0, 0, 0, 1.0]])
    return Grid((80, 80, round(80 / slice_mm)), affine)


PREPARED = Grid((64, 64, 64), np.array([[-1.0, 0, 0, 32], [0, -1.0, 0, 32], [0, 0, 1.0, -32], [0, 0, 0, 1.0]]))


def alignment(matrix: np.ndarray, slice_mm: float = 5.0) -> Alignment:
    return Alignment("t1c", PREPARED, {"t1c": thick(slice_mm)}, {"t1c": matrix}, {"overlap_t1c": 0.98})


@pytest.mark.parametrize("slice_mm", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("degrees", [0.0, 12.0, 20.0])
def test_volumes_agree_in_both_spaces(degrees: float, slice_mm: float) -> None:
    """Of a ball of 14 mm, within 2 %, however thick the native slices are and however the head was turned."""
    lies = alignment(turned(degrees), slice_mm)
    prepared = ball(PREPARED, (2.0, 1.0, 0.0), 14.0)
    native = lies.onto_native("t1c", prepared)
    volumes = [np.count_nonzero(found.data > 0.5) * voxel_volume_ml(found.affine) for found in (prepared, native)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)
    assert lies.scale("t1c") == pytest.approx(1.0)


def test_what_goes_there_comes_back() -> None:
    """A smooth image on a native grid of 1 mm, taken to the prepared grid and back, is the same inside both."""
    lies = alignment(turned(15.0), 1.0)
    centre = tuple((turned(15.0) @ [2.0, 1.0, 0.0, 1.0])[:3])
    image = ball(lies.native["t1c"], centre, 12.0)
    back = lies.onto_native("t1c", lies.onto_grid("t1c", image))
    assert np.abs(back.data - image.data).max() < 0.12
    assert np.array_equal(back.affine, image.affine)


def test_resampling_the_box_of_the_brains_is_resampling_all() -> None:
    """Masks agree everywhere, images inside the box; outside of it they are 0, and no mask reaches further."""
    matrices = {"t1c": turned(12.0), "t2w": turned(-20.0, (9.0, 3.0, -6.0))}
    lies = Alignment("t1c", PREPARED, {name: thick() for name, matrix in matrices.items()}, matrices)
    balls = {name: ball(grid, (2, 1, 0), 14) for name, grid in lies.native.items()}
    masks = {name: Volume(found.data > 0.5, found.affine) for name, found in balls.items()}
    box = box_of_masks(masks, lies)
    inside = np.zeros(PREPARED.shape, bool)
    inside[box] = True
    assert inside.sum() < 0.6 * inside.size
    for name, found in carry_all(masks, lies, box).items():
        assert np.allclose(found, lies.onto_grid(name, masks[name]).data[0], atol=1e-6)
    for name, found in carry_all(balls, lies, box, threads=1).items():
        assert np.allclose(found[inside], lies.onto_grid(name, balls[name]).data[0][inside], atol=1e-6)
        assert not found[~inside].any()


def test_the_box_of_empty_masks_is_one_voxel() -> None:
    """So that nothing of the grid is computed."""
    lies = alignment(turned(0))
    empty = Volume(np.zeros((1, *lies.native["t1c"].shape), bool), lies.native["t1c"].affine)
    assert [span.stop - span.start for span in box_of_masks({"t1c": empty}, lies)] == [1, 1, 1]


def test_labels_keep_their_values() -> None:
    """By the nearest voxel, in the type they have."""
    lies = alignment(turned(10.0))
    labels = Volume((ball(PREPARED, (0, 0, 0), 10).data > 0.5).astype(np.uint8) * 4, PREPARED.affine)
    native = lies.onto_native("t1c", labels, nearest=True)
    assert native.data.dtype == np.uint8
    assert set(np.unique(native.data)) == {0, 4}


def test_an_alignment_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    """As JSON; and as text that Greedy and ITK read, which agree with each other."""
    lies = alignment(turned(10.0))
    lies.save(tmp_path)
    again = load_alignment(tmp_path)
    assert again.reference == "t1c"
    assert again.quality == {"overlap_t1c": 0.98}
    assert np.allclose(again.to_native["t1c"], lies.to_native["t1c"], atol=1e-7)
    assert again.grid.difference(lies.grid) is None
    assert again.native["t1c"].difference(lies.native["t1c"]) is None
    matrix = np.loadtxt(tmp_path / "prepared_to_t1c.mat")
    assert np.allclose(matrix, lies.to_native["t1c"], atol=1e-7)
    sitk = pytest.importorskip("SimpleITK")
    transform = sitk.ReadTransform(str(tmp_path / "prepared_to_t1c.tfm"))
    x, y, z = 3.0, -7.0, 11.0
    there = transform.TransformPoint((-x, -y, z))  # LPS
    assert np.allclose(np.array(there) * [-1, -1, 1], (lies.to_native["t1c"] @ [x, y, z, 1])[:3], atol=1e-5)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"reference": 3}', "[" * 5000, '{"sequences": {"t1c": {"grid": null}}}']
)
def test_a_damaged_record_is_said_to_be_one(tmp_path: Path, content: str) -> None:
    """Whatever is in it; and one that is not there is said too."""
    with pytest.raises(InputError, match="no such file"):
        load_alignment(tmp_path)
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(InputError, match=r"transforms\.json: damaged"):
        load_alignment(tmp_path)


def test_itk_images_lie_where_volumes_lie() -> None:
    """There and back on an oblique grid; ITK names the same place for the same voxel."""
    pytest.importorskip("SimpleITK")
    affine = turned(25.0) @ np.diag([0.8, 1.1, 3.0, 1.0])
    volume = Volume(np.random.default_rng(0).random((1, 5, 6, 7), np.float32), affine)
    image = to_itk(volume)
    assert np.allclose(
        np.array(image.TransformIndexToPhysicalPoint((1, 2, 3))) * [-1, -1, 1], (affine @ [1, 2, 3, 1])[:3]
    )
    again = from_itk(image)
    assert np.array_equal(again.data, volume.data)
    assert np.allclose(again.affine, affine)
    sheared = affine.copy()
    sheared[0, 1] += 0.3
    with pytest.raises(InputError, match="right angles"):
        to_itk(Volume(volume.data, sheared))


def test_a_transform_of_itk_is_read_as_the_same_map() -> None:
    """Also one with a centre: a place goes where SimpleITK takes it."""
    sitk = pytest.importorskip("SimpleITK")
    transform = sitk.AffineTransform(3)
    transform.SetCenter([3.0, -7.0, 11.0])
    transform.SetMatrix(turned(25)[:3, :3].ravel().tolist())
    transform.SetTranslation([5.0, 1.0, -2.0])
    matrix = from_itk_affine(np.array(transform.GetParameters()), np.array(transform.GetFixedParameters()))
    place = np.array([10.0, 20.0, -30.0])
    expected = np.array(transform.TransformPoint((place * (-1, -1, 1)).tolist())) * (-1, -1, 1)
    assert np.allclose((matrix @ [*place, 1])[:3], expected)


def test_without_ants_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is prepared."""
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(InputError, match=r"pip install antspyx.*--register greedy"):
        require_ants()


def test_ants_lays_an_image_over_another() -> None:
    """Within half a voxel, where it is installed."""
    pytest.importorskip("ants")
    centres = [(2.0, 1.0, 0.0), (14.0, -6.0, 5.0), (-12.0, 9.0, -8.0), (-5.0, -13.0, 12.0), (6.0, 15.0, -14.0)]
    parts = [ball(PREPARED, centre, 7.0).data * (1 + share) for share, centre in enumerate(centres)]
    fixed = Volume(np.sum(parts, axis=0, dtype=np.float32), PREPARED.affine)
    matrix = turned(6.0)
    moving = Volume(fixed.data, matrix @ fixed.affine)
    found = register_with_ants(fixed, moving, centred=True)
    places = np.array([[10.0, 0, 0, 1], [0, 10, 0, 1], [0, 0, 10, 1], [-8, -8, -8, 1]])
    assert np.abs(places @ (found - matrix).T).max() < 0.5
