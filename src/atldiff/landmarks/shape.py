"""The mean frontal face that canonical space is fitted to: (478, 3), made by `python -m atldiff.data.mean_shape`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np


@cache
def mean_shape() -> np.ndarray:
    """Return the mean shape (478, 3) float64, centred between the outer eye corners, their distance being one."""
    with files("atldiff.landmarks").joinpath("mean_shape.npy").open("rb") as file:
        return np.load(file, allow_pickle=False).astype(np.float64)
