"""Batches for the published renderer: frames of a clip, and another frame of it as the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.windows import clip_weights, mirrored
from atldiff.landmarks.raster import dilated, polygons
from atldiff.methods.atl_published.inputs import build_start
from atldiff.methods.atl_published.network import training_level
from atldiff.training.draws import Draw, item_random, shown_emotion
from atldiff.video.window import extract

if TYPE_CHECKING:
    from atldiff.config import IdentityDiffusionConfig
    from atldiff.data.faces import ClipFaces

MOUTH_REACH_PX = 3.5
"""How far beyond the inner lips the mouth is counted, in whole-face window pixels."""


def mouth_map(mouth: np.ndarray, side: int) -> np.ndarray:
    """Return where the error of the mouth is measured, (T, S, S) in [0, 1], of inner lips (T, 20, 2) in pixels."""
    return dilated(polygons(mouth, side), MOUTH_REACH_PX, 1.0)


class FacesSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(self, clips: list[ClipFaces], config: IdentityDiffusionConfig, *, frames: int, seed: int) -> None:
        self.clips = [clip for clip in clips if len(clip) > frames]
        self.draw = Draw(clip_weights(self.clips)) if self.clips else None
        self.config, self.frames, self.seed = config, frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch, float16 on CPU.

        target, prior, noise (B, 3, T, S, S), identity (B, 3, S, S), pictures in [0, 1]; mask, mouth (B, 1, T, S, S);
        level, emotion, clips (B,) int64.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen = self.draw(random)
        clip, side = self.clips[chosen], self.config.side
        start = int(random.integers(0, len(clip) - self.frames + 1))
        frames = np.concatenate([[random.integers(0, len(clip))], np.arange(start, start + self.frames)])
        pictures, points, mouth = clip_windows(clip, frames, side)
        if random.random() < 0.5:
            pictures = pictures[:, :, ::-1]
            points, mouth = mirrored(points, side), mirrored(mouth, side)
        gain = random.uniform(0.8, 1.2, (1, 1, 1, 3)) * random.uniform(0.8, 1.2)
        pictures = np.clip(pictures / 255 * gain + random.uniform(-0.08, 0.08), 0, 1).astype(np.float32)
        video = torch.from_numpy(pictures).permute(3, 0, 1, 2)[None]  # (1, 3, 1 + T, S, S)
        identity = video[:, :, 0].contiguous()
        prior, mask = build_start(identity.numpy(), points[None, 0], points[None, 1:], self.config)
        different = 1 if self.config.noise_over_time == "shared" else self.frames
        noise = random.standard_normal((1, 3, different, side, side), np.float32)
        emotion = shown_emotion(clip.emotion, self.config.emotions, random)
        return {
            "target": video[:, :, 1:].half(),
            "identity": identity.half(),
            "prior": torch.from_numpy(prior).half(),
            "mask": torch.from_numpy(mask).half(),
            "mouth": torch.from_numpy(mouth_map(mouth[1:], side))[None, None].half(),
            "noise": torch.from_numpy(noise).expand(-1, -1, self.frames, -1, -1).half(),
            "level": torch.tensor([training_level(random, self.config.schedule.train_steps)]),
            "emotion": torch.tensor([emotion]),
            "clips": torch.tensor([chosen]),
        }


def clip_windows(clip: ClipFaces, frames: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frames (F,) of a clip at a side of `side` pixels.

    Returns:
        pictures (F, S, S, 3) uint8, points (F, K, 2) and inner lips (F, 20, 2) in their pixels.
    """
    pictures = clip.pictures(frames)
    ratio = side / pictures.shape[1]
    if ratio != 1:  # as the window is cut when frames are rendered; a plain resize would shift it by half a pixel
        matrix = np.array([[ratio, 0, 0], [0, ratio, 0]])
        pictures = np.stack([extract(picture, matrix, side) for picture in pictures])
    return pictures, clip.points[frames] * np.float32(ratio), clip.mouth[frames] * np.float32(ratio)
