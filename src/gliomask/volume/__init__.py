"""Volumes: voxels and where they lie; NIfTI files read and written, grids compared, turned and resampled."""

from gliomask.volume.grid import (
    Box,
    Grid,
    Spacing,
    Volume,
    bounding_box,
    grid_at_spacing,
    match_axes,
    reorient,
    resample,
    round_up_to_multiple,
    voxel_volume_ml,
)
from gliomask.volume.inflate import unreadable
from gliomask.volume.nifti import NIFTI_ENDINGS, gzip_nifti, nifti_bytes, read_grid, read_volume, write_volume

__all__ = [
    "NIFTI_ENDINGS",
    "Box",
    "Grid",
    "Spacing",
    "Volume",
    "bounding_box",
    "grid_at_spacing",
    "gzip_nifti",
    "match_axes",
    "nifti_bytes",
    "read_grid",
    "read_volume",
    "reorient",
    "resample",
    "round_up_to_multiple",
    "unreadable",
    "voxel_volume_ml",
    "write_volume",
]
