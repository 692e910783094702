"""Batches for landmark completion: sound and visible landmarks, either of them missing at times, and the mouth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.speech import coefficients
from atldiff.landmarks.completion_points import (
    FILMED,
    MADE_UP,
    MISSING,
    completed_indices,
    seen_indices,
    seen_tokens,
)
from atldiff.landmarks.stream import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME
from atldiff.training.draws import Draw, item_random, stack
from atldiff.training.landmarks_data import BEFORE_FRAMES, at_positions, augment, clip_weights
from atldiff.training.speech_states import LEARNED_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atldiff.config import CompletionConfig
    from atldiff.data.completion import SeenClip
    from atldiff.data.speech import ClipSpeech
    from atldiff.training.states_data import StatesSet

FILMED_SHARE, MADE_UP_SHARE = 0.45, 0.35
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
        self.frames, self.context, self.seed = frames, config.context_frames, seed

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
        return self._window(chosen, random.uniform(-BEFORE_FRAMES, last), pace, random)

    def around(self, chosen: int, frame: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return an item of a clip at its own pace that holds a frame of it; `first` says where."""
        item = self._window(chosen, frame - self.context, 1.0, random)
        return item | {"first": np.array(self.context)}

    def _window(self, chosen: int, start: float, pace: float, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return an item of a chosen clip: `frames` frames from `start` on, at a pace of source frames a frame."""
        target = self.targets[chosen]
        moments = start + np.arange(self.frames) * pace
        windowed = sounding(self.mels[chosen], start, self.frames, pace)
        shown, filmed = drawn_sight(self.seen, self.draw, chosen, moments, random)
        identity = self.identities[chosen]
        return {
            "mel": augment(windowed, random),
            "seen": (shown + random.normal(0, SEEN_NOISE, shown.shape)).astype(np.float32),
            "target": at_positions(target, moments),
            "valid": ((moments >= 0) & (moments <= len(target) - 1)).astype(np.float32),
            "identity": (identity + random.normal(0, 0.3, len(identity))).astype(np.float32),
            "heard": np.array(filmed == MISSING or random.random() >= UNHEARD),
            "filmed": np.array(filmed),
            "clips": np.array(chosen),
        }


class SeenStatesSet:
    """The same for a generator that hears a speech encoder: items of `StatesSet`, and what is seen in their windows."""

    def __init__(
        self, states: StatesSet, mels: list[np.ndarray], seen: Iterable[SeenClip], config: CompletionConfig
    ) -> None:
        """mels: (4 T, 80) of the clips of `states`; seen: of the same."""
        self.states, self.mels, self.targets = states, mels, states.targets
        indices = seen_indices(config)
        self.seen = [sight(one, indices) for one in seen]
        self.context, self.lookahead = config.context_frames, config.lookahead_frames

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return a part of a step's batch.

        As `StatesSet`, with `target` (B, 8 K, M or P * 2) for coefficients; and seen (B, K, W, S), heard (B,) and
        filmed (B,) as `CompletionSet` has them.
        """
        return stack([self._item(item_random(self.states.seed, step, index)) for index in items])

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return self.states.clip_names(batch)

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        return self._seeing(self.states.item(random), random)

    def around(self, chosen: int, frame: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return an item of a clip as it is, whose first block holds a frame of it; `first` says where in the block.

        With `mel` (4 F, 80): the sound of the F frames from the context before that frame to the look-ahead after the
        last that is sure to be in the item's blocks.
        """
        frames = self.states.blocks * LEARNED_FRAMES - (LEARNED_FRAMES - 1)
        windowed = sounding(self.mels[chosen], frame - self.context, self.context + frames + self.lookahead)
        item = self._seeing(self.states.around(chosen, frame, random), random)
        return item | {"mel": augment(windowed, random)}

    def _seeing(self, item: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
        moments = item.pop("moments").astype(np.float64)
        pace = moments[0, 1] - moments[0, 0]
        window = (np.arange(item["states"].shape[1]) - self.context) * pace
        at = (moments[:, :1] + window).ravel()
        synthetic = bool(item["synthetic"])
        shown, filmed = drawn_sight(self.seen, self.states.draw, int(item["clips"]), at, random, filmed=not synthetic)
        shown = shown + random.normal(0, SEEN_NOISE, shown.shape)
        heard = filmed == MISSING or synthetic or random.random() >= UNHEARD
        target = item.pop("coefficients")
        return {
            **item,
            "target": target,
            "seen": shown.reshape(*item["states"].shape[:2], -1).astype(np.float32),
            "heard": np.array(heard),
            "filmed": np.array(filmed),
        }


def drawn_sight(
    seen: list[np.ndarray],
    draw: Draw,
    chosen: int,
    moments: np.ndarray,
    random: np.random.Generator,
    *,
    filmed: bool = True,
) -> tuple[np.ndarray, int]:
    """Draw what is seen at moments (N,) of a clip: (N, S), and whether it was filmed, made up or is missing.

    seen: (T, S) of each clip. filmed: off, the clip's own landmarks are not shown.
    """
    mode = random.random()
    kind = FILMED if mode < FILMED_SHARE else MADE_UP if mode < FILMED_SHARE + MADE_UP_SHARE else MISSING
    if kind == FILMED and not filmed:
        kind = MADE_UP
    if kind == MADE_UP:
        other = seen[draw(random)]
        return at_positions(other, random.uniform(0, len(other)) + moments - moments[0]), kind
    return at_positions(seen[chosen], moments), kind


def sounding(mel: np.ndarray, start: float, frames: int, pace: float = 1.0) -> np.ndarray:
    """Return the columns (4 F, 80) of F frames of a clip's mel (C, 80) from one on, at a pace; beyond it is silence."""
    columns = start * COLUMNS_PER_FRAME + np.arange(frames * COLUMNS_PER_FRAME) * pace
    heard = (columns >= 0) & (columns <= len(mel) - 1)
    return np.where(heard[:, None], at_positions(mel, columns), SILENT).astype(np.float32)


def completion_target(clip: ClipSpeech, basis: np.ndarray, scale: np.ndarray, config: CompletionConfig) -> np.ndarray:
    """Return what a generator should say of a clip: coefficients (T, M), or the completed points' moves (T, P * 2)."""
    if config.points == "dense":
        return coefficients(clip, basis, scale)
    return clip.displacements[:, completed_indices(config), :2].reshape(len(clip), -1)


def sight(seen: SeenClip, indices: np.ndarray) -> np.ndarray:
    """Return what a generator sees of a clip, (T, V * 3 + 3) float32."""
    return seen_tokens(seen.moved[:, indices], seen.turned_deg)
