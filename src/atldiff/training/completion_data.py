"""Batches for landmark completion: sound and visible landmarks, either of them missing at times, and the mouth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.speech import coefficients
from atldiff.landmarks.completion import completed_indices, seen_indices, seen_tokens
from atldiff.landmarks.stream import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME
from atldiff.training.draws import Draw, item_random, stack
from atldiff.training.landmarks_data import BEFORE_FRAMES, at_positions, augment, clip_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atldiff.config import CompletionConfig
    from atldiff.data.completion import SeenClip
    from atldiff.data.speech import ClipSpeech

FILMED, MADE_UP = 0.45, 0.35
"""Shares of items that see the clip's own landmarks, and those of another moment or person, which say nothing of the
mouth, as the motion model's do; the others see none."""
UNHEARD = 0.1
"""Share of items whose sound is not heard."""
SEEN_NOISE = 0.4
"""Deviation of the noise on what is seen, in its units: trackers are no more exact than that."""


class CompletionSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(
        self,
        clips: list[ClipSpeech],
        seen: Iterable[SeenClip],
        identities: np.ndarray,
        basis: np.ndarray,
        scale: np.ndarray,
        config: CompletionConfig,
        *,
        frames: int,
        seed: int,
    ) -> None:
        self.names = [clip.name for clip in clips]
        self.mels = [clip.mel for clip in clips]
        indices = seen_indices(config)
        self.seen = [sight(one, indices) for one in seen]
        self.targets = [completion_target(clip, basis, scale, config) for clip in clips]
        self.identities = identities
        self.draw = Draw(clip_weights(clips))
        self.frames, self.seed = frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return mel (B, 4 T, 80), seen (B, T, S), target (B, T, M or P * 2), valid (B, T), identity (B, I), clips.

        clips: (B,) indices. heard (B,) bool and filmed (B,) int64 are as `CompletionGenerator.complete` has them.
        """
        return stack([self._item(item_random(self.seed, step, index)) for index in items])

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self.draw(random)
        pace = random.uniform(0.9, 1.1)  # source frames a window frame
        last = max(-BEFORE_FRAMES + 1, len(self.targets[chosen]) - self.frames * pace + 4)
        return self.window(chosen, random.uniform(-BEFORE_FRAMES, last), pace, random)

    def window(self, chosen: int, start: float, pace: float, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return an item of a chosen clip: `frames` frames from `start` on, at a pace of source frames a frame."""
        mel, seen, target = self.mels[chosen], self.seen[chosen], self.targets[chosen]
        moments = start + np.arange(self.frames) * pace
        columns = start * COLUMNS_PER_FRAME + np.arange(self.frames * COLUMNS_PER_FRAME) * pace
        heard = (columns >= 0) & (columns <= len(mel) - 1)
        windowed = np.where(heard[:, None], at_positions(mel, columns), SILENT).astype(np.float32)
        mode = random.random()
        filmed = 0 if mode < FILMED else 1 if mode < FILMED + MADE_UP else 2
        if filmed == 1:
            other = self.seen[self.draw(random)]
            shown = at_positions(other, random.uniform(0, len(other)) + np.arange(self.frames) * pace)
        else:
            shown = at_positions(seen, moments)
        identity = self.identities[chosen]
        return {
            "mel": augment(windowed, random),
            "seen": (shown + random.normal(0, SEEN_NOISE, shown.shape)).astype(np.float32),
            "target": at_positions(target, moments),
            "valid": ((moments >= 0) & (moments <= len(target) - 1)).astype(np.float32),
            "identity": (identity + random.normal(0, 0.3, len(identity))).astype(np.float32),
            "heard": np.array(filmed == 2 or random.random() >= UNHEARD),
            "filmed": np.array(filmed),
            "clips": np.array(chosen),
        }


def completion_target(clip: ClipSpeech, basis: np.ndarray, scale: np.ndarray, config: CompletionConfig) -> np.ndarray:
    """Return what a generator should say of a clip: coefficients (T, M), or the completed points' moves (T, P * 2)."""
    if config.points == "dense":
        return coefficients(clip, basis, scale)
    return clip.displacements[:, completed_indices(config), :2].reshape(len(clip), -1)


def sight(seen: SeenClip, indices: np.ndarray) -> np.ndarray:
    """Return what a generator sees of a clip, (T, V * 3 + 3) float32."""
    return seen_tokens(torch.from_numpy(seen.moved[:, indices]), torch.from_numpy(seen.turned_deg)).numpy()
