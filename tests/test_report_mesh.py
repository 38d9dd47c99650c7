"""Meshes of regions are closed surfaces of the right size and place, in files that other programs can read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from gliomask.errors import InputError
from gliomask.report import MESH_FORMATS, mesh_bytes, write_meshes
from gliomask.report.surface import Surface, find_surface

RADIUS_MM, CENTRE = 20.0, (10.0, -30.0, 40.0)


def ball() -> Surface:
    """Return the surface of a ball around `CENTRE` in RAS, from a mask with voxels of 2 mm stored as LPS."""
    places = np.indices((30, 30, 30)) * 2.0 - 29
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = CENTRE + np.array([29.0, 29.0, -29.0])
    return find_surface(np.linalg.norm(places, axis=0) <= RADIUS_MM, affine, 2.0)


def read_triangles(content: bytes, kind: str) -> np.ndarray:
    """Return the corners of the triangles in a file, `(m, 3, 3)`, in mm and RAS."""
    if kind == "stl":
        [count] = struct.unpack("<I", content[80:84])
        record = np.frombuffer(content[84:], np.dtype([("n", "<f4", 3), ("p", "<f4", (3, 3)), ("a", "<u2")]))
        assert len(record) == count
        return record["p"].astype(float)
    if kind == "obj":
        lines = [line.split() for line in content.decode().splitlines()]
        points = np.array([[float(x) for x in line[1:]] for line in lines if line[0] == "v"])
        return points[np.array([[int(n) - 1 for n in line[1:]] for line in lines if line[0] == "f"])]
    magic, version, total, length, chunk = struct.unpack("<4sIII4s", content[:20])
    assert (magic, version, total, chunk) == (b"glTF", 2, len(content), b"JSON")
    facts = json.loads(content[20 : 20 + length])
    binary = content[28 + length :]
    first, second = facts["bufferViews"]
    points = np.frombuffer(binary[: first["byteLength"]], "<f4").reshape(-1, 3)
    assert np.allclose(facts["accessors"][0]["max"], points.max(axis=0))
    indices = np.frombuffer(binary[second["byteOffset"] :], "<u4").reshape(-1, 3)
    x, y, z = points.T * 1000  # metres, Y up
    return np.column_stack([x, -z, y])[indices]


@pytest.mark.parametrize("kind", MESH_FORMATS)
def test_a_ball_is_a_closed_surface_of_its_volume_around_its_centre(kind: str) -> None:
    """The volume inside, by the divergence theorem, is positive only if the corners run counterclockwise outside."""
    corners = read_triangles(mesh_bytes(ball(), kind), kind)
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.05)
    assert corners.mean(axis=(0, 1)) == pytest.approx(CENTRE, abs=0.5)
    directed = corners.round(2)[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 6)
    backwards = directed[:, [3, 4, 5, 0, 1, 2]]
    assert {tuple(edge) for edge in directed} == {tuple(edge) for edge in backwards}  # each edge is met from both sides


def test_each_region_with_a_surface_has_a_file(tmp_path: Path) -> None:
    """An empty region has none; an unknown format is refused before anything is written."""
    empty = find_surface(np.zeros((5, 5, 5), bool), np.eye(4), 1.0)
    written = write_meshes({"WT": ball(), "ET": empty}, tmp_path, "case", "obj")
    assert [path.name for path in written] == ["case_WT.obj"] == [path.name for path in tmp_path.iterdir()]
    with pytest.raises(InputError, match="did you mean 'stl'"):
        write_meshes({"WT": ball()}, tmp_path, "case", "slt")
    assert len(list(tmp_path.iterdir())) == 1
