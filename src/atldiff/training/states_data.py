"""Batches for a generator that hears a speech encoder: its states of consecutive blocks, and the mouth that spoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.training.draws import Draw, item_random, stack
from atldiff.training.landmarks_data import at_positions, clip_weights
from atldiff.training.speech_states import LEARNED_FRAMES

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
        targets: list[np.ndarray],
        *,
        frames: int,
        seed: int,
        spoken: list[Spoken] | None = None,
    ) -> None:
        """heard: of each clip by name, and of what was `spoken` for known sounds. targets: (T, M) of each clip.

        frames: of an item, a multiple of 8. Where nobody was filmed, an item only says where lips have to meet and to
        part.
        """
        self.spoken = spoken or []
        self.spoken_heard = [heard[each.name] for each in self.spoken]
        self.names = [clip.name for clip in clips]
        self.heard = [heard[clip.name] for clip in clips]
        self.targets = targets
        # States are of the whole sound, targets of what is left of the mouth where the sound was moved.
        self.offsets = [min(clip.shift_frames, 0) for clip in clips]
        self.identities = identities
        self.draw = Draw(clip_weights(clips))
        self.blocks, self.seed = frames // LEARNED_FRAMES, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return a part of a step's batch.

        states (B, K, W, S) float16 of K blocks, coefficients (B, 8 K, M), valid (B, 8 K), identity (B, I), clips (B,);
        closed and parted (B, 8 K), where lips that were not filmed have to meet and to part; moments (B, K, 8), the
        frames of the clip that its blocks are; synthetic (B,) bool, whether nobody was filmed.
        """
        return stack([self.item(item_random(self.seed, step, index)) for index in items])

    def item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw an item: its tensors without the first axis."""
        chosen = self.draw(random)
        synthetic = bool(self.spoken) and random.random() < SPOKEN_SHARE
        said = int(random.integers(len(self.spoken))) if synthetic else None
        variants = self.heard[chosen] if said is None else self.spoken_heard[said]
        variant = variants[int(random.integers(len(variants)))]
        first = int(random.integers(0, max(1, len(variant.states) - self.blocks + 1)))
        return self._cut(chosen, said, variant, first, random)

    def around(self, chosen: int, frame: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return an item of a clip as it is, whose first block holds a frame of it; `first` says where in the block."""
        variant = self.heard[chosen][0]
        since = frame - self.offsets[chosen] - round(float(variant.moments[0, 0]))
        block, first = divmod(since, LEARNED_FRAMES)
        return self._cut(chosen, None, variant, block, random) | {"first": np.array(first)}

    def _cut(
        self, chosen: int, said: int | None, variant: HeardClip, first: int, random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        target, blocks = self.targets[chosen], first + np.arange(self.blocks)
        there = blocks < len(variant.states)
        blocks = np.minimum(blocks, len(variant.states) - 1)
        moments = variant.moments[blocks] + (self.offsets[chosen] if said is None else 0)  # (K, 8)
        known = there[:, None] & (moments >= 0) & (moments <= len(target) - 1) & (said is None)
        nothing = (np.zeros(moments.shape, np.float32),) * 2
        asked = nothing if said is None else self.spoken[said].asked(moments)
        closed, parted = (each.ravel() * np.repeat(there, LEARNED_FRAMES) for each in asked)
        identity = self.identities[chosen]
        return {
            "states": variant.states[blocks],
            "coefficients": at_positions(target, moments.ravel()),
            "valid": known.ravel().astype(np.float32),
            "closed": closed.astype(np.float32),
            "parted": parted.astype(np.float32),
            "identity": (identity + random.normal(0, IDENTITY_NOISE, len(identity))).astype(np.float32),
            "moments": moments.astype(np.float32),
            "synthetic": np.array(said is not None),
            "clips": np.array(chosen),
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]
