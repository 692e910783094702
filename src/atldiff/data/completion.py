"""Prepared clips as landmark completion needs them: what is visible of a face that speaks, in step with its sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from safetensors import safe_open

from atldiff.data.speech import carried
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.rest import neutral_shape
from atldiff.landmarks.scores import lip_scores
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.stream import CompletionStream, whole

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.completion import CompletionGenerator

Drive = Literal["sound and landmarks", "sound", "landmarks"]
DRIVES: tuple[Drive, ...] = get_args(Drive)
"""What drives the mouth: DiffTalker's claim is that each adds to the other."""


@dataclass(frozen=True, slots=True)
class SeenClip:
    """The face apart from the mouth, as it was filmed; a `SeenMotion`.

    moved: (T, 478, 3) float32 canonical displacements from the neutral shape. turned_deg: (T, 3) yaw, pitch and roll
    against the first frame.
    """

    moved: np.ndarray
    turned_deg: np.ndarray
    driven: bool = True

    def seen(self, frames: np.ndarray) -> np.ndarray:
        """Return displacements (F, 478, 3) at frames (F,); those outside the clip are its first or last."""
        return self.moved[np.clip(frames, 0, len(self.moved) - 1)]

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        """Return how the head is turned (F, 3) at frames (F,), likewise."""
        return self.turned_deg[np.clip(frames, 0, len(self.turned_deg) - 1)]


def load_seen(manifest: Manifest, clip: ClipSpeech) -> SeenClip:
    """Load what is visible of a prepared clip, in step with its sound as the clip is."""
    with safe_open(str(manifest.clip_file(clip.name)), "numpy") as file:
        points = file.get_tensor("points").astype(np.float64)
    shapes, rotation, _, _ = to_canonical(points, mean_shape())
    shift = clip.shift_frames  # the sound was moved later by this: the first frames have none
    part = slice(shift, None) if shift >= 0 else slice(None, shift)
    turned = euler_degrees(np.einsum("ji,tjk->tik", rotation[part][0], rotation[part]))
    return SeenClip((shapes - neutral_shape(shapes))[part].astype(np.float32), turned.astype(np.float32))


def completion_scores(
    generator: CompletionGenerator, clip: ClipSpeech, seen: SeenClip
) -> dict[Drive, dict[str, float]] | None:
    """Return the lip scores (`lip_scores`) of a clip's completion by what drives it; None where its mouth stays still.

    Its `lip_error` is over that of the reference's mouth, copied to every frame.
    """
    basis, scale = generator.basis.cpu().numpy(), generator.scale.cpu().numpy()
    held = carried(clip, basis, scale)
    scores: dict[Drive, dict[str, float]] = {}
    for drive in DRIVES:
        stream = CompletionStream(
            generator, clip.neutral, None if drive == "sound" else seen, heard=drive != "landmarks"
        )
        predicted = whole(stream, clip.mel) * scale
        found = lip_scores(np.einsum("tm,mkd->tkd", predicted, basis), held, clip.displacements)
        if found is None:
            return None
        scores[drive] = found
    return scores
