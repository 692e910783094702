"""Batches for the published Landmark Generation Module: a second of speech and the 68 landmarks that spoke it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.speech import load_samples
from atldiff.emotions import emotion_label
from atldiff.landmarks.stream import SILENT
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.methods.atl_published.coordinates import normalise
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from atldiff.training.draws import Draw, item_random, shown_emotion, stack
from atldiff.training.landmarks_data import BEFORE_FRAMES, augment, clip_weights

if TYPE_CHECKING:
    import torch

    from atldiff.config import KFLMConfig
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech

IDENTITY_NOISE = 0.004
"""Deviation of the noise on the initial landmarks, normalised: detection is no more exact than that."""


class SecondsSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(
        self, clips: list[ClipSpeech], emotions: list[str], config: KFLMConfig, manifest: Manifest, *, seed: int
    ) -> None:
        self.names = [clip.name for clip in clips]
        self.mels = [clip.mel for clip in clips]
        self.neutrals = [_sixty_eight(clip.neutral) for clip in clips]
        self.targets = [_sixty_eight(clip.neutral + clip.displacements) for clip in clips]
        self.emotions = [emotion_label(emotion) for emotion in emotions]
        hears_samples = config.features == "wav2vec2"
        self.samples = [load_samples(manifest, clip) for clip in clips] if hears_samples else None
        self.draw = Draw(clip_weights(clips))
        self.config, self.seed = config, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch.

        mel (B, 100, 80), samples (B, 16000) for models that hear them, initial (B, 68, 2), target (B, F, 68, 2), valid
        (B, F), all float32; emotion, clips (B,) int64.
        """
        return stack([self._item(item_random(self.seed, step, index)) for index in items])

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.names[index] for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        chosen = self.draw(random)
        mel, target, neutral = self.mels[chosen], self.targets[chosen], self.neutrals[chosen]
        last = max(-BEFORE_FRAMES + 1, len(target) - FPS + 4)
        start = int(random.integers(-BEFORE_FRAMES, last))
        moments = start + np.arange(self.config.frames) * (FPS / self.config.frames)  # in frames at 25 a second
        low = np.clip(np.floor(moments).astype(int), 0, len(target) - 1)
        high = np.minimum(low + 1, len(target) - 1)
        part = np.clip(moments - low, 0, 1).astype(np.float32)[:, None, None]
        wanted = target[low] * (1 - part) + target[high] * part
        known = (moments >= 0) & (moments <= len(target) - 1)
        heard = _cut(mel, start * COLUMNS_PER_FRAME, FPS * COLUMNS_PER_FRAME, SILENT)
        emotion = shown_emotion(self.emotions[chosen], self.config.emotions, random)
        item = {
            "mel": augment(heard, random),
            "initial": (neutral + random.normal(0, IDENTITY_NOISE, neutral.shape)).astype(np.float32),
            "target": wanted.astype(np.float32),
            "valid": known.astype(np.float32),
            "emotion": np.int64(emotion),
            "clips": np.int64(chosen),
        }
        if self.samples is not None:
            spoken = _cut(self.samples[chosen][:, None], start * SAMPLES_PER_FRAME, SAMPLE_RATE, 0)[:, 0]
            gain = np.float32(10 ** random.uniform(-0.3, 0.3) / 32767)
            item["samples"] = spoken.astype(np.float32) * gain
        return item


def _sixty_eight(shapes: np.ndarray) -> np.ndarray:
    """Return normalised 68 landmarks (..., 68, 2) float32 of canonical shapes (..., 478, 3)."""
    return normalise(shapes[..., SIXTY_EIGHT, :2], "canonical").astype(np.float32)


def _cut(rows: np.ndarray, start: int, count: int, outside: float) -> np.ndarray:
    """Return rows `start` to `start + count` of (N, D); those outside are filled."""
    cut = np.full((count, rows.shape[1]), outside, rows.dtype)
    low, high = max(start, 0), min(start + count, len(rows))
    if low < high:
        cut[low - start : high - start] = rows[low:high]
    return cut
