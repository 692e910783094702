"""Landmarks of a video's frames on disk: an hour of them would be half a gigabyte of memory."""

from __future__ import annotations

import tempfile

import numpy as np

from atldiff.landmarks.topology import POINTS

_ROW = POINTS * 3 * 4


class PointStore:
    """Rows (478, 3) float32, added one after the other and read again in any order; gone when it is."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="atldiff-")  # noqa: SIM115 - lives as long as the store
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, points: np.ndarray) -> None:
        """Add a row (478, 3)."""
        self._count += 1
        self.put(self._count - 1, points)

    def put(self, number: int, points: np.ndarray) -> None:
        """Change a row (478, 3)."""
        self._file.seek(number * _ROW)
        self._file.write(np.ascontiguousarray(points, np.float32).tobytes())

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows from `start` up to `stop`, (N, 478, 3) float32."""
        self._file.seek(start * _ROW)
        data = self._file.read((stop - start) * _ROW)
        return np.frombuffer(data, np.float32).reshape(-1, POINTS, 3)
