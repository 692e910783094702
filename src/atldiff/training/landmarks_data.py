"""Batches for the landmark generator: augmented log-mel columns and the coefficients of the mouth that spoke them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.speech import coefficients
from atldiff.landmarks.stream import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS
from atldiff.training.draws import Draw, item_random, stack

if TYPE_CHECKING:
    import torch

    from atldiff.data.speech import ClipSpeech


BEFORE_FRAMES = 8
"""How far a window may start before its clip, in silence, as every recording does."""


def clip_weights(clips: list[ClipSpeech]) -> np.ndarray:
    """Return each clip's probability: sources by the square root of their clips, people within one likewise."""
    sources: dict[str, int] = {}
    people: dict[str, int] = {}
    for clip in clips:
        sources[clip.source] = sources.get(clip.source, 0) + 1
        people[clip.identity] = people.get(clip.identity, 0) + 1
    within: dict[str, float] = {}
    for clip in clips:
        within[clip.source] = within.get(clip.source, 0.0) + people[clip.identity] ** -0.5
    weights = np.array([sources[c.source] ** 0.5 * people[c.identity] ** -0.5 / within[c.source] for c in clips])
    return weights / weights.sum()


def augment(mel: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return columns (C, 80) as another voice, room and microphone might have given them."""
    shift = random.uniform(-5, 5)  # a longer or shorter vocal tract moves the bands
    stretch = random.uniform(0.92, 1.08)
    bands = np.arange(MEL_BANDS)
    position = np.clip((bands - 40) * stretch + 40 + shift, 0, MEL_BANDS - 1.001)
    low = position.astype(int)
    part = (position - low).astype(np.float32)
    mel = mel[:, low] * (1 - part) + mel[:, low + 1] * part
    knots = random.normal(0, 0.15, 6)  # a microphone's or room's colour: about 3 dB
    mel = mel + np.interp(bands, np.linspace(0, MEL_BANDS - 1, 6), knots).astype(np.float32)
    mel = mel + np.float32(random.normal(0, 0.12))
    floor = random.uniform(-3.5, -1.2) + random.normal(0, 0.1, mel.shape)  # steady noise, some of it loud
    mel = np.logaddexp(mel * 4.6, floor * 4.6) / 4.6  # 20 dB is a factor of e^4.6 in power
    if random.random() < 0.5:
        width = int(random.integers(2, 14))
        start = int(random.integers(0, MEL_BANDS - width))
        mel[:, start : start + width] = mel[:, start : start + width].mean()
    mel = mel + random.normal(0, 0.05, mel.shape)
    return np.maximum(mel, SILENT).astype(np.float32)


class LandmarksSet:
    """Deterministic batches: an item is a function of (seed, step, index)."""

    def __init__(
        self,
        clips: list[ClipSpeech],
        identities: np.ndarray,
        basis: np.ndarray,
        scale: np.ndarray,
        *,
        frames: int,
        seed: int,
    ) -> None:
        self.names = [clip.name for clip in clips]
        self.mels = [clip.mel for clip in clips]
        self.targets = [coefficients(clip, basis, scale) for clip in clips]
        self.identities = identities
        self.draw = Draw(clip_weights(clips))
        self.frames, self.seed = frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return mel (B, 4 T, 80), coefficients (B, T, M), valid (B, T), identity (B, I) and clips (B,)."""
        return stack([self._item(item_random(self.seed, step, index)) for index in items])

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self.draw(random)
        mel, target, known = self._window(self.mels[chosen], self.targets[chosen], random)
        identity = self.identities[chosen]
        return {
            "mel": augment(mel, random),
            "coefficients": target,
            "valid": known,
            "identity": (identity + random.normal(0, 0.3, len(identity))).astype(np.float32),
            "clips": np.array(chosen),
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]

    def _window(
        self, mel: np.ndarray, target: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut `frames` frames at a random place and pace; what lies outside the clip is silent and not counted."""
        pace = random.uniform(0.9, 1.1)  # source frames a window frame
        span = self.frames * pace
        start = random.uniform(-BEFORE_FRAMES, max(-BEFORE_FRAMES + 1, len(target) - span + 4))
        moments = start + np.arange(self.frames) * pace
        columns = start * COLUMNS_PER_FRAME + np.arange(self.frames * COLUMNS_PER_FRAME) * pace
        known = ((moments >= 0) & (moments <= len(target) - 1)).astype(np.float32)
        heard = (columns >= 0) & (columns <= len(mel) - 1)
        return (
            np.where(heard[:, None], at_positions(mel, columns), SILENT).astype(np.float32),
            at_positions(target, moments),
            known,
        )


def at_positions(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return rows (N, D) linearly interpolated at fractional positions (P,), clamped to the ends."""
    positions = np.clip(positions, 0, len(rows) - 1.001)
    low = positions.astype(int)
    part = (positions - low).astype(np.float32)[:, None]
    return (rows[low] * (1 - part) + rows[low + 1] * part).astype(np.float32)
