"""Pictures of a prepared clip's frames, which lie as JPEGs one after the other in its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def stored_offsets(sizes: np.ndarray) -> np.ndarray:
    """Return where each frame's JPEG starts and the last one ends, (T + 1,) int64; sizes: (T,) bytes."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def read_stored(path: Path, name: str, offsets: np.ndarray, frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read frames (F,) as pictures (F, height, width, 3) uint8 RGB.

    name: of the tensor. offsets: of `stored_offsets`. size: width and height.

    Raises:
        DataError: a picture cannot be decoded.
    """
    import cv2

    out = np.empty((len(frames), size[1], size[0], 3), np.uint8)
    with safe_open(str(path), "numpy") as file:
        stored = file.get_slice(name)
        for picture, frame in zip(out, frames.tolist(), strict=True):
            coded = stored[int(offsets[frame]) : int(offsets[frame + 1])]
            found = cv2.imdecode(coded, cv2.IMREAD_COLOR)
            if found is None:
                raise DataError(f"data {path}: frame {frame} is not a JPEG; run `atldiff prepare` again")
            picture[:] = found[..., ::-1]
    return out
