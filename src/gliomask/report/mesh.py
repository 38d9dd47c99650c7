"""Surfaces of regions as files that other programs open: STL, OBJ and binary glTF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gliomask.errors import unknown_name
from gliomask.figures import REGION_COLOURS
from gliomask.files import write_bytes
from gliomask.report.surface import Surface

MESH_FORMATS = ("stl", "obj", "glb")

_FLOAT, _UINT = 5126, 5125  # glTF's numbers for the types of array elements


def mesh_bytes(surface: Surface, kind: str, colour: str = "#cccccc") -> bytes:
    """Return a surface as the content of a file.

    Points are in millimetres in RAS+, the world space of NIfTI. STL (binary) and OBJ keep this. glTF prescribes metres
    and an upward Y axis, so in `glb` the points are in metres and turned: X right, Y up, Z to the front.

    Args:
        surface: The triangles, counterclockwise from outside.
        kind: `stl`, `obj` or `glb`.
        colour: For `glb`, as `#rrggbb`.

    Raises:
        InputError: There is no such format.

    Source: the StereoLithography interface specification (3D Systems 1989), and glTF 2.0 (Khronos).
    """
    if kind not in MESH_FORMATS:
        raise unknown_name("format of meshes", kind, MESH_FORMATS)
    if kind == "glb":
        return _glb(surface, colour)
    return _stl(surface) if kind == "stl" else _obj(surface)


def write_meshes(surfaces: Mapping[str, Surface], folder: Path, stem: str, kind: str) -> list[Path]:
    """Write `STEM_REGION.kind` for each region that has a surface, and return the paths.

    Raises:
        InputError: There is no such format, or a file cannot be written.
    """
    written = []
    for region, surface in surfaces.items():
        content = mesh_bytes(surface, kind, REGION_COLOURS.get(region, "#cccccc"))
        if len(surface.triangles):
            written.append(folder / f"{stem}_{region}.{kind}")
            write_bytes(written[-1], content)
    return written


def _stl(surface: Surface) -> bytes:
    corners = surface.points[surface.triangles].astype("<f4")  # (m, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    record = np.zeros(len(corners), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")]))
    record["normal"] = normals / np.where(lengths > 0, lengths, 1)
    record["corners"] = corners
    return b"gliomask: mm, RAS+".ljust(80) + np.array(len(corners), "<u4").tobytes() + record.tobytes()


def _obj(surface: Surface) -> bytes:
    lines = ["# gliomask: mm, RAS+"]
    lines += [f"v {x:.3f} {y:.3f} {z:.3f}" for x, y, z in surface.points.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (surface.triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def _glb(surface: Surface, colour: str) -> bytes:
    x, y, z = surface.points.T / 1000
    points = np.column_stack([x, z, -y]).astype("<f4")
    indices = surface.triangles.astype("<u4")
    binary = points.tobytes() + indices.tobytes()
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
    # Colours in glTF are linear light; those of pages are sRGB.
    rgb = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
    content = {
        "asset": {"version": "2.0", "generator": "gliomask"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [*rgb, 1], "metallicFactor": 0}}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": points.nbytes, "target": 34962},
            {"buffer": 0, "byteOffset": points.nbytes, "byteLength": indices.nbytes, "target": 34963},
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _FLOAT,
                "count": len(points),
                "type": "VEC3",
                "min": low.tolist(),
                "max": high.tolist(),
            },
            {"bufferView": 1, "componentType": _UINT, "count": indices.size, "type": "SCALAR"},
        ],
    }
    text = json.dumps(content).encode("ascii")
    text += b" " * (-len(text) % 4)
    chunks = [(text, b"JSON"), (binary, b"BIN\0")]
    body = b"".join(np.array(len(part), "<u4").tobytes() + name + part for part, name in chunks)
    return b"glTF" + np.array([2, 12 + len(body)], "<u4").tobytes() + body
