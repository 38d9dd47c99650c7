"""Surfaces of masks are closed, face outwards, and enclose the volume of the mask."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import AFFINE
from gliomask.report.surface import Surface, find_surface


def ball(radius_mm: float, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return np.linalg.norm(places - centre, axis=-1) <= radius_mm


def volume_mm3(surface: Surface) -> float:
    """Return the enclosed volume by the divergence theorem; positive if the triangles face outwards."""
    a, b, c = (surface.points[surface.triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    "affine", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 2, 1]), AFFINE], ids=["RAS", "LPS", "oblique"]
)
def test_a_ball_has_a_closed_surface_of_its_size_that_faces_outwards(affine: NDArray[np.float64]) -> None:
    """Every edge is used once in each direction, and the enclosed volume is that of the ball, for any axes."""
    shape = tuple(int(44 / edge) + 1 for edge in np.linalg.norm(affine[:3, :3], axis=0))
    found = find_surface(ball(18, affine, shape), affine, 2.0)
    assert volume_mm3(found) == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.05)
    edges = Counter((int(t[i]), int(t[(i + 1) % 3])) for t in found.triangles for i in range(3))
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    assert len(found.points) - len(edges) // 2 + len(found.triangles) == 2
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    radii = np.linalg.norm(found.points - centre, axis=1)
    assert radii.min() > 15.5
    assert radii.max() < 19.5


def test_a_mask_at_the_grids_border_is_closed_too() -> None:
    """A block that fills its grid."""
    found = find_surface(np.ones((12, 10, 8), bool), np.diag([2.0, 2, 2, 1]), 2.0)
    assert volume_mm3(found) == pytest.approx(12 * 10 * 8 * 8, rel=0.1)


def test_there_are_no_more_triangles_than_asked_for() -> None:
    """The limit on triangles gives coarser cubes at the same position; an empty mask has no surface."""
    affine = np.eye(4)
    mask = ball(18, affine, (44, 44, 44))
    assert len(find_surface(mask, affine, 1.0).triangles) > 1500
    few = find_surface(mask, affine, 1.0, most_triangles=1500)
    assert 300 < len(few.triangles) <= 1500
    assert few.points.mean(axis=0) == pytest.approx(np.array([21.5] * 3), abs=0.5)
    assert len(find_surface(np.zeros((5, 5, 5), bool), affine, 1.0).triangles) == 0
