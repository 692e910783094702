"""Batches for the codec: frames of windows, and where their mouths are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.data.windows import clip_weights, crop
from atldiff.landmarks.raster import dilated, polygons
from atldiff.training.draws import Draw, item_random, stack
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    import torch

    from atldiff.config import LatentDiffusionConfig
    from atldiff.data.windows import ClipWindows

JITTER_PX = 8
MOUTH_REACH_PX, MOUTH_RAMP_PX = 6.0, 4.0


class CodecSet:
    """Deterministic batches: an item is a function of (seed, step, its number in the batch)."""

    def __init__(self, clips: list[ClipWindows], config: LatentDiffusionConfig, *, frames: int, seed: int) -> None:
        """clips: with the points `LIPS_OUTER`, in its order."""
        self.clips = [clip for clip in clips if len(clip) >= frames]
        self.draw = Draw(clip_weights(self.clips)) if self.clips else None
        self.geometry = WindowGeometry(config.side, config.origin)
        self.frames, self.seed = frames, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return pictures (B, T, 3, S, S) float16 in [-1, 1], mouth (B, T, 1, S, S) in [0, 1], noise and clips (B,).

        noise: seeds, int64.
        """
        drawn = stack([self._item(item_random(self.seed, step, index)) for index in items])
        return {
            "pictures": drawn["pictures"].permute(0, 1, 4, 2, 3).half(),
            "mouth": drawn["mouth"][:, :, None].half(),
            "noise": drawn["noise"],
            "clips": drawn["clip"],
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen = self.draw(random)
        clip = self.clips[chosen]
        frames = np.sort(random.choice(len(clip), self.frames, replace=False))
        jitter = random.integers(-JITTER_PX, JITTER_PX + 1, 2)
        wanted = np.concatenate([frames[:1], frames])  # `crop` wants a reference first
        pictures, _, points = crop(clip, wanted, self.geometry, jitter, flip=bool(random.random() < 0.5))
        gain = (random.uniform(0.75, 1.25, 3) * random.uniform(0.75, 1.25)).astype(np.float32)
        values = (pictures[1:].astype(np.float32) / 127.5 - 1) * gain + random.uniform(-0.2, 0.2)
        lips = polygons(points, self.geometry.side)
        return {
            "pictures": np.clip(values, -1, 1).astype(np.float32),
            "mouth": dilated(lips, MOUTH_REACH_PX, MOUTH_RAMP_PX),
            "noise": np.array(random.integers(0, 2**62)),
            "clip": np.array(chosen),
        }
