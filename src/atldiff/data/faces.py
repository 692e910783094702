"""Prepared clips as the published renderer needs them: whole faces in a fixed crop, and their landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.data.stored import read_stored, stored_offsets
from atldiff.emotions import emotion_label
from atldiff.errors import DataError
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.video.window import STORED_FACE_SIDE, apply

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.data.manifest import Manifest, ManifestEntry


@dataclass(frozen=True, slots=True)
class ClipFaces:
    """What is kept in memory of one clip; its pictures stay on disk."""

    name: str
    source: str
    identity: str
    emotion: int
    """Number of its label by `types.emotion_label`."""
    file: Path
    points: np.ndarray
    """(T, K, 2) float32 in whole-face window pixels."""
    mouth: np.ndarray
    """(T, 20, 2) float32 inner lips, likewise."""
    offsets: np.ndarray
    """(T + 1,) int64 where each frame's JPEG starts."""

    def __len__(self) -> int:
        return len(self.points)

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """Read frames (F,) as pictures (F, 128, 128, 3) uint8 RGB.

        Raises:
            DataError: a picture cannot be decoded.
        """
        return read_stored(self.file, "faces", self.offsets, frames, (STORED_FACE_SIDE, STORED_FACE_SIDE))


def load_faces(manifest: Manifest, entry: ManifestEntry, indices: np.ndarray) -> ClipFaces:
    """Load the landmarks of one prepared clip; `indices` (K,) are the dense points to keep.

    Raises:
        DataError: the clip was prepared before whole faces were kept, or its landmarks are not finite.
    """
    path = manifest.tensors(entry)
    with safe_open(str(path), "numpy") as file:
        if "faces" not in file.keys():  # noqa: SIM118 - not a dict
            raise DataError(
                f"data {path}: no whole faces; expected a folder of this version: run `atldiff prepare` again"
            )
        points = apply(file.get_tensor("face_matrix").astype(np.float64), file.get_tensor("points")[..., :2])
        sizes = file.get_tensor("face_sizes")
    if not np.isfinite(points).all():
        raise DataError(f"data {path}: landmarks hold NaN or infinity; delete the file and run `atldiff prepare` again")
    return ClipFaces(
        name=entry.record.name,
        source=entry.record.source,
        identity=entry.identity,
        emotion=emotion_label(entry.record.emotion),
        file=path,
        points=points[:, indices].astype(np.float32),
        mouth=points[:, LIPS_INNER].astype(np.float32),
        offsets=stored_offsets(sizes),
    )
