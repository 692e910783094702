"""How what a landmark generator says of a prepared clip lies in the clip's windows: a linear map for each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.data.clip import SMOOTH_FRAMES
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.rest import lower_face, neutral_shape
from atldiff.landmarks.shape import mean_shape
from atldiff.video.window import STORED_WINDOW, apply, fit_window

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest
    from atldiff.video.window import WindowGeometry


@dataclass(frozen=True, slots=True)
class PosedClip:
    """One clip's head and the face apart from speech, in pixels of a stored window.

    rest: (T, K, 2) float32, where points would be without speech. project: (T, 2, 3) float32, what a canonical
    displacement moves them by: they lie at `rest + displacement @ project.T`.
    """

    rest: np.ndarray
    project: np.ndarray


def load_posed(
    manifest: Manifest, name: str, indices: np.ndarray, geometry: WindowGeometry = STORED_WINDOW
) -> PosedClip:
    """Load the poses of a prepared clip.

    indices: (K,) the dense points to keep. geometry: of the stored window.
    """
    with safe_open(str(manifest.clip_file(name)), "numpy") as file:
        points = file.get_tensor("points").astype(np.float64)
        kept = file.get_tensor("matrix").astype(np.float64)
    matrix = kept if geometry == STORED_WINDOW else fit_window(points, geometry, SMOOTH_FRAMES)
    shapes, rotation, scale, translation = to_canonical(points, mean_shape())
    still = shapes - (shapes - neutral_shape(shapes)) * lower_face()[:, None]  # (T, 478, 3)
    project = matrix[:, :, :2] @ (scale[:, None, None] * rotation[:, :2])
    rest = np.einsum("tij,tkj->tki", project, still[:, indices]) + apply(matrix, translation[:, None, :2])
    return PosedClip(rest.astype(np.float32), project.astype(np.float32))
