"""Multiplication of a volume by a matrix along each axis, for blurring, resampling and smooth fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The number of rows multiplied together. With 32, a blur of 128 voxels skips 70 % of its products, which are with 0.
_ROWS = 32


def multiply_axes(volume: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Return the volume with each line along X, Y and Z multiplied by the matrix of that axis; None: unchanged.

    Args:
        volume: `(X, Y, Z)`.
        matrices: `(X', X)`, `(Y', Y)`, `(Z', Z)`, on any device. On a CPU, band matrices are faster.
    """
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            volume = _multiply(volume, matrix, axis)
    return volume


def _multiply(volume: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if volume.device.type != "cpu":  # on a GPU, multiplying by 0 costs less than searching for zeros
        there = matrix.to(volume.device)
        if axis == 0:
            return (there @ volume.flatten(1)).view(len(there), *volume.shape[1:])
        return there @ volume if axis == 1 else volume @ there.T
    shape = list(volume.shape)
    shape[axis] = len(matrix)
    result = torch.empty(shape)
    for first in range(0, len(matrix), _ROWS):
        rows = matrix[first : first + _ROWS]
        into = result.narrow(axis, first, len(rows))
        used = rows.any(0).nonzero()
        if not len(used):
            into.zero_()
            continue
        low, high = int(used[0]), int(used[-1]) + 1
        rows, part = rows[:, low:high], volume.narrow(axis, low, high - low)
        if axis == 0:
            torch.mm(rows, part.reshape(high - low, -1), out=into.view(len(rows), -1))
        else:
            into.copy_(rows @ part if axis == 1 else part @ rows.T)
    return result
