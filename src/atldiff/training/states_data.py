"""Batches for a generator that hears a speech encoder: its states of consecutive blocks, and the mouth that spoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.speech import coefficients
from atldiff.landmarks.stream import BLOCK_FRAMES
from atldiff.training.draws import Draw, item_random, stack
from atldiff.training.landmarks_data import at_positions, clip_weights

if TYPE_CHECKING:
    import torch

    from atldiff.data.speech import ClipSpeech
    from atldiff.data.spoken import Spoken
    from atldiff.training.speech_states import HeardClip

IDENTITY_NOISE = 0.3
SPOKEN_SHARE = 0.2
"""Share of items that are synthetic speech of known sounds, where there is any."""


class StatesSet:
    """Deterministic batches: an item is a function of (seed, step, index)."""

    def __init__(
        self,
        clips: list[ClipSpeech],
        heard: dict[str, list[HeardClip]],
        identities: np.ndarray,
        basis: np.ndarray,
        scale: np.ndarray,
        *,
        frames: int,
        seed: int,
        spoken: list[Spoken] | None = None,
    ) -> None:
        """frames: of an item, a multiple of 8; heard: of each clip by name, and of what was `spoken` for known sounds.

        Without a mouth that spoke, an item only says where lips have to meet and to part.
        """
        self.spoken = spoken or []
        self.spoken_heard = [heard[each.name] for each in self.spoken]
        self.names = [clip.name for clip in clips]
        self.heard = [heard[clip.name] for clip in clips]
        self.targets = [coefficients(clip, basis, scale) for clip in clips]
        # States are of the whole sound, targets of what is left of the mouth where the sound was moved.
        self.offsets = [min(clip.shift_frames, 0) for clip in clips]
        self.identities = identities
        self.draw = Draw(clip_weights(clips))
        self.blocks, self.seed = frames // BLOCK_FRAMES, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return a part of a step's batch.

        states (B, K, W, S) float16 of K blocks, coefficients (B, 8 K, M), valid (B, 8 K), identity (B, I), clips (B,);
        closed and parted (B, 8 K), where lips that were not filmed have to meet and to part.
        """
        return stack([self._item(item_random(self.seed, step, index)) for index in items])

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self.draw(random)
        synthetic = bool(self.spoken) and random.random() < SPOKEN_SHARE
        said = int(random.integers(len(self.spoken))) if synthetic else -1
        target = self.targets[chosen]
        variants = self.spoken_heard[said] if synthetic else self.heard[chosen]
        variant = variants[int(random.integers(len(variants)))]
        first = int(random.integers(0, max(1, len(variant.states) - self.blocks + 1)))
        blocks = first + np.arange(self.blocks)
        there = blocks < len(variant.states)
        blocks = np.minimum(blocks, len(variant.states) - 1)
        moments = variant.moments[blocks] + (0 if synthetic else self.offsets[chosen])  # (K, 8)
        known = there[:, None] & (moments >= 0) & (moments <= len(target) - 1) & (not synthetic)
        asked = self.spoken[said].asked(moments) if synthetic else (np.zeros(moments.shape, np.float32),) * 2
        closed, parted = (each.ravel() * np.repeat(there, BLOCK_FRAMES) for each in asked)
        identity = self.identities[chosen]
        return {
            "states": variant.states[blocks],
            "coefficients": at_positions(target, moments.ravel()),
            "valid": known.ravel().astype(np.float32),
            "closed": closed.astype(np.float32),
            "parted": parted.astype(np.float32),
            "identity": (identity + random.normal(0, IDENTITY_NOISE, len(identity))).astype(np.float32),
            "clips": np.array(chosen),
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]
