"""Prepared clips as landmark completion needs them: what is visible of a face that speaks, in step with its sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from safetensors import safe_open

from atldiff.data.speech import carried, sound_for
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.rest import neutral_shape
from atldiff.landmarks.scores import lip_scores
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.stream import whole

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.speaker import CompletionSpeaker

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


def completions(speaker: CompletionSpeaker, clip: ClipSpeech, seen: SeenClip) -> dict[Drive, np.ndarray]:
    """Return the coefficients (T, M) that a generator completes of a clip by what drives it.

    Raises:
        DataError: a generator that hears samples, and a clip that was prepared before they were kept.
    """
    said: dict[Drive, np.ndarray] = {}
    sound = sound_for(speaker.config.features, clip)
    for drive in DRIVES:
        shown, heard = None if drive == "sound" else seen, drive != "landmarks"
        said[drive] = whole(speaker.stream(clip.neutral, shown, heard=heard), *sound)
    return said


def completion_scores(
    speaker: CompletionSpeaker, clip: ClipSpeech, said: dict[Drive, np.ndarray]
) -> dict[Drive, dict[str, float]] | None:
    """Return the lip scores (`lip_scores`) of a clip's `completions` by their drive; None where its mouth stays still.

    Their `lip_error` is over that of the reference's mouth, copied to every frame.
    """
    basis, scale = speaker.basis.directions, speaker.basis.scale
    held = carried(clip, basis, scale)
    scores: dict[Drive, dict[str, float]] = {}
    for drive, coefficients in said.items():
        found = lip_scores(np.einsum("tm,mkd->tkd", coefficients * scale, basis), held, clip.displacements)
        if found is None:
            return None
        scores[drive] = found
    return scores
