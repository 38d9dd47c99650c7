"""The parameters by which `misnamed` recognises sequences, written by `recipes/fit_sequences.py`.

They were fitted to 52 cases of BraTS 2018 to 2021 and 11 phantoms.
"""

from __future__ import annotations

import numpy as np

MODALITIES = ("t1n", "t1c", "t2w", "t2f")

MEANS = np.array([0.985, 0.71, 0.415, -0.187])
SPREADS = np.array([0.543, 0.443, 0.109, 1.04])
SHAPES = np.array(
    [
        [-1.784, -0.28, -0.697, -0.223],
        [-0.315, -1.173, -1.309, 2.599],
        [1.217, -0.395, 1.182, -1.278],
        [0.882, 1.848, 0.825, -1.098],
    ]
)
"""The weights of four features of an image: a row for each sequence."""
RELATIONS = np.array(
    [
        [
            [0.0, 1.1, 0.274, -0.167],
            [1.1, 0.0, -0.435, -1.737],
            [0.274, -0.435, 0.0, 0.965],
            [-0.167, -1.737, 0.965, 0.0],
        ],
        [
            [0.0, 0.674, 1.843, -3.206],
            [1.07, 0.0, 2.499, -2.282],
            [1.779, 2.781, 0.0, 4.192],
            [-2.373, -4.298, -2.678, 0.0],
        ],
        [
            [0.0, -0.956, -2.906, 0.564],
            [4.06, 0.0, -1.524, -0.873],
            [-0.598, 0.592, 0.0, 3.285],
            [-1.266, 0.895, -1.274, 0.0],
        ],
    ]
)
"""The weights of three features of two images: a row for the first one's sequence, a column for the second one's."""
