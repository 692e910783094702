"""Batches for a layered renderer: target frames, a portrait at their head pose, and more pictures of the person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.mouths import ClipMouths, cut, mouth_weights, pick_more
from atldiff.data.windows import MIN_APART_FRAMES, pick_reference
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.methods.atl_inputs import NEEDED, build_inputs, window_layers, window_of
from atldiff.training.draws import Draw, item_random

if TYPE_CHECKING:
    from atldiff.config import RendererConfig

JITTER_PX = 4
MORE = (0.5, 0.3, 0.2)
"""Shares of items with no, one and two pictures of the person beside the portrait."""
ANY_POSE = 0.1
"""Share of portraits taken from anywhere in the clip: a head that turns moves teeth against the skull's outline."""
START_SHARE = 0.8
"""Share of training times at t = 1, where every sampler starts and a one-step sampler ends."""
GAIN, LIGHT, OFFSET = 0.06, 0.15, 0.05
"""Largest change of colour, of a channel and of all, and of level: beyond that no camera goes."""

FINE_PX = 1.0
"""Sigma, in window pixels, beyond which detail is not fine."""

_LIPS = np.searchsorted(NEEDED, LIPS_OUTER)


class MouthSet:
    """Deterministic batches: an item is a function of (seed, step, index), so a resumed run sees the same data."""

    def __init__(
        self, clips: list[ClipMouths], config: RendererConfig, *, frames: int, seed: int, sharpen: float = 0.0
    ) -> None:
        """sharpen: largest share of fine detail that is added to all pictures of an item."""
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draw = Draw(mouth_weights(self.clips)) if self.clips else None
        self.config, self.frames, self.seed, self.sharpen = config, frames, seed, sharpen

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch, float16 on CPU.

        target, prior (B, 3, T, H, W); conditions (B, 17, T, H, W); mask, mouth (B, 1, T, H, W); time (B,) float32,
        noise (B, 3, 1, H, W) of the bridge state to train at; centre (B, 2) of the lips in pixels; sharp (B,), how
        far the target is to be believed about detail; clips, step (B,) int64.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return batch | {"step": torch.full((len(rows),), step)}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen = self.draw(random)
        clip, geometry = self.clips[chosen], window_of(self.config)
        start = int(random.integers(0, len(clip) - self.frames + 1))
        middle = start + self.frames // 2
        portrait = (
            int(random.integers(len(clip))) if random.random() < ANY_POSE else pick_reference(clip, middle, random)
        )
        more = pick_more(clip, middle, int(random.choice(len(MORE), p=MORE)), random)
        frames = np.concatenate([[portrait], more, np.arange(start, start + self.frames)]).astype(int)
        jitter = random.integers(-JITTER_PX, JITTER_PX + 1, 2)
        images, points = cut(clip, frames, geometry, jitter, flip=bool(random.random() < 0.5))
        images = _recoloured(images, random)
        if self.sharpen:
            images = _sharpened(images, float(random.uniform(0, self.sharpen)))
        shown = 1 + len(more)
        layers = window_layers(images[:shown], points[:shown], geometry)
        video = torch.from_numpy(images.astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)[None]  # (1, 3, F, H, W)
        inputs = build_inputs(video[:, :, 0].contiguous(), points[:1], points[None, shown:], self.config, [layers])
        noise = random.standard_normal((1, 3, 1, *geometry.size[::-1]), np.float32)
        time = 1.0 if random.random() < START_SHARE else float(random.random() ** 0.5)
        return {
            "target": video[:, :, shown:].half(),
            "prior": inputs.prior.half(),
            "conditions": inputs.conditions.half(),
            "mask": inputs.mask.half(),
            "mouth": inputs.mouth.half(),
            "time": torch.tensor([time], dtype=torch.float32),
            "noise": torch.from_numpy(noise).half(),
            "centre": torch.from_numpy(points[shown:, _LIPS].mean((0, 1)))[None],
            "sharp": torch.tensor([clip.sharp], dtype=torch.float32),
            "clips": torch.tensor([chosen]),
        }


def _sharpened(images: np.ndarray, share: float) -> np.ndarray:
    """Return pictures (F, H, W, 3) uint8 with that much more of their detail of a pixel or two."""
    import cv2

    soft = [cv2.GaussianBlur(image, (0, 0), FINE_PX) for image in images]
    return np.stack(
        [cv2.addWeighted(image, 1 + share, blur, -share, 0) for image, blur in zip(images, soft, strict=True)]
    )


def _recoloured(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return pictures (F, H, W, 3) uint8 in another light, the same for all."""
    gain = random.uniform(1 - GAIN, 1 + GAIN, 3) * random.uniform(1 - LIGHT, 1 + LIGHT)
    offset = 255 * random.uniform(-OFFSET, OFFSET)
    levels = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).round().astype(np.uint8)  # (256, 3)
    return np.stack([levels[images[..., channel], channel] for channel in range(3)], -1)
