"""Batches for a layered renderer: target frames, a portrait at their head pose, and more pictures of the person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.data.mouths import ClipMouths, cut, mouth_weights, pick_more
from atldiff.data.windows import MIN_APART_FRAMES, pick_reference
from atldiff.landmarks.control import CHIN
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER
from atldiff.methods.atl.inputs import NEEDED, build_inputs, window_of
from atldiff.methods.mouth_layers import window_layers
from atldiff.training.draws import Draw, item_random

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import RendererConfig
    from atldiff.video.cavity import MouthLayers
    from atldiff.video.window import WindowGeometry

JITTER_PX = 4
MORE = (0.5, 0.3, 0.2)
"""Shares of items with no, one and two pictures of the person beside the portrait."""
ANY_POSE = 0.1
"""Share of portraits taken from anywhere in the clip: a head that turns moves teeth against the skull's outline."""
START_SHARE = 0.8
"""Share of training times at t = 1, where every sampler starts and a one-step sampler ends."""
TINT, LIGHT, OFFSET = 0.06, 0.15, 0.05
"""Largest change of colour, of a channel and of all, and of level: beyond that no camera goes."""

FINE_PX = 1.0
"""Sigma, in window pixels, beyond which detail is not fine."""


@dataclass(frozen=True, slots=True)
class TakenMouths:
    """Pictures of one clip's mouth: the portrait, further references, then successive targets, in random light.

    video: (1, 3, 1 + T, H, W) float32 in [-1, 1], the portrait and the targets. source: (1, K, 2) the portrait's points
    and target: (1, T, K, 2) those wanted, window pixels. layers: of portrait and references. frames: (T,) the targets'
    numbers. jitter: (2,) shift of the window in its pixels. flip: whether all is mirrored left to right. common: what
    every set of batches has of them, `beside`, `centre`, `sharp` and `clips`.
    """

    video: torch.Tensor
    source: np.ndarray
    target: np.ndarray
    layers: MouthLayers
    frames: np.ndarray
    jitter: np.ndarray
    flip: bool
    common: dict[str, torch.Tensor]


class MouthDraws:
    """Clips of mouths and how often each is drawn.

    needed: (K,) the dense points that they were loaded with. sharpen: largest share of fine detail that is added to all
    pictures of an item, tint: largest change of a channel's gain.
    """

    def __init__(
        self, clips: list[ClipMouths], needed: np.ndarray, *, frames: int, sharpen: float = 0.0, tint: float = TINT
    ) -> None:
        self.clips = clips
        self.draw = Draw(mouth_weights(clips)) if clips else None
        self.frames, self.sharpen, self.tint = frames, sharpen, tint
        self.outer, self.inner, self.chin = (np.searchsorted(needed, i) for i in (LIPS_OUTER, LIPS_INNER, CHIN))

    def take(
        self, geometry: WindowGeometry, random: np.random.Generator, chosen: int | None = None,
        within: range | None = None, *, alone: bool = False,
    ) -> TakenMouths:  # fmt: skip
        """Draw a clip, or take the one `chosen`, and pictures of it, the targets `within` a range of frames.

        alone: show the portrait and no further reference.
        """
        assert self.draw is not None  # noqa: S101 - for the type checker: a set without clips is refused by the task
        chosen = self.draw(random) if chosen is None else chosen
        clip = self.clips[chosen]
        first, end = (0, len(clip)) if within is None else (within.start, within.stop)
        start = int(random.integers(first, end - self.frames + 1))
        middle = start + self.frames // 2
        portrait = (
            int(random.integers(len(clip))) if random.random() < ANY_POSE else pick_reference(clip, middle, random)
        )
        more = pick_more(clip, middle, 0 if alone else int(random.choice(len(MORE), p=MORE)), random)
        wanted = np.arange(start, start + self.frames)
        frames = np.concatenate([[portrait], more, wanted]).astype(int)
        jitter, flip = random.integers(-JITTER_PX, JITTER_PX + 1, 2), bool(random.random() < 0.5)
        images, points = cut(clip, frames, geometry, jitter, flip=flip)
        images = _recoloured(images, random, self.tint)
        if self.sharpen:
            images = _sharpened(images, float(random.uniform(0, self.sharpen)))
        shown = 1 + len(more)
        layers = window_layers(images[:shown], points[:shown, self.inner], points[:shown, self.chin], geometry)
        kept = np.concatenate([images[:1], images[shown:]]).astype(np.float32) / 127.5 - 1
        target = points[shown:]
        lips = np.concatenate(
            [polygons(target[self.frames // 2][None, i], geometry.size) for i in (self.outer, self.inner)]
        )
        beside = np.concatenate([kept[0].transpose(2, 0, 1), lips / np.float32(255)])
        return TakenMouths(
            video=torch.from_numpy(np.ascontiguousarray(kept)).permute(3, 0, 1, 2)[None],
            source=points[:1],
            target=target[None],
            layers=layers,
            frames=wanted,
            jitter=jitter,
            flip=flip,
            common={
                "beside": torch.from_numpy(beside)[None].half(),
                "centre": torch.from_numpy(target[:, self.outer].mean((0, 1)))[None],
                "sharp": torch.tensor([clip.sharp], dtype=torch.float32),
                "clips": torch.tensor([chosen]),
            },
        )


class MouthSet:
    """Deterministic batches: an item is a function of (seed, step, index), so a resumed run sees the same data."""

    def __init__(
        self,
        clips: list[ClipMouths],
        needed: np.ndarray,
        geometry: WindowGeometry,
        describe: Callable[[TakenMouths, np.random.Generator], dict[str, torch.Tensor]],
        *,
        frames: int,
        seed: int,
        **changes: float,
    ) -> None:
        """needed, changes: of `MouthDraws`. geometry: of the window. describe: what a renderer is told of pictures."""
        self.clips = [clip for clip in clips if len(clip) >= frames + MIN_APART_FRAMES]
        self.draws = MouthDraws(self.clips, needed, frames=frames, **changes)
        self.geometry, self.describe, self.seed = geometry, describe, seed

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        """Return the tensors of a part of a batch on CPU, pictures in float16.

        target (B, 3, T, H, W); beside (B, 5, H, W) the portrait and lip maps of the frame in the middle; centre (B, 2)
        of the lips in pixels; sharp (B,), how far the target is to be believed about detail; clips, step (B,) int64;
        and what describes them.
        """
        rows = [self._item(item_random(self.seed, step, index)) for index in items]
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return batch | {"step": torch.full((len(rows),), step)}

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        """Return the names of a batch's clips."""
        return [self.clips[index].name for index in batch["clips"].tolist()]

    def _item(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        taken = self.draws.take(self.geometry, random)
        return {"target": taken.video[:, :, 1:].half(), **self.describe(taken, random), **taken.common}


def mouth_set(
    clips: list[ClipMouths], config: RendererConfig, *, frames: int, seed: int, **changes: float
) -> MouthSet:  # fmt: skip
    """Return the batches of a layered renderer of atl-diff; clips: with the points `atl_inputs.NEEDED`.

    changes: `sharpen` and `tint` of `MouthDraws`. Beside what `MouthSet` has: prior (B, 3, T, H, W); conditions (B, 17,
    T, H, W); mask, mouth (B, 1, T, H, W); time (B,) float32 and noise (B, 3, 1, H, W) of the bridge state to train at.
    """
    return MouthSet(
        clips, NEEDED, window_of(config), partial(_described, config), frames=frames, seed=seed, **changes
    )  # fmt: skip


def _described(config: RendererConfig, taken: TakenMouths, random: np.random.Generator) -> dict[str, torch.Tensor]:
    identity = taken.video[:, :, 0].numpy()
    inputs = build_inputs(identity, taken.source, taken.target, config, [taken.layers])
    noise = random.standard_normal((1, 3, 1, *identity.shape[-2:]), np.float32)
    time = 1.0 if random.random() < START_SHARE else float(random.random() ** 0.5)
    return {
        "prior": torch.from_numpy(inputs.prior).half(),
        "conditions": torch.from_numpy(inputs.conditions).half(),
        "mask": torch.from_numpy(inputs.mask).half(),
        "mouth": torch.from_numpy(inputs.mouth).half(),
        "time": torch.tensor([time], dtype=torch.float32),
        "noise": torch.from_numpy(noise).half(),
    }


def _sharpened(images: np.ndarray, share: float) -> np.ndarray:
    """Return pictures (F, H, W, 3) uint8 with that much more of their detail of a pixel or two."""
    import cv2

    soft = [cv2.GaussianBlur(image, (0, 0), FINE_PX) for image in images]
    return np.stack(
        [cv2.addWeighted(image, 1 + share, blur, -share, 0) for image, blur in zip(images, soft, strict=True)]
    )


def _recoloured(images: np.ndarray, random: np.random.Generator, tint: float) -> np.ndarray:
    """Return pictures (F, H, W, 3) uint8 in another light, the same for all."""
    gain = random.uniform(1 - tint, 1 + tint, 3) * random.uniform(1 - LIGHT, 1 + LIGHT)
    offset = 255 * random.uniform(-OFFSET, OFFSET)
    levels = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).round().astype(np.uint8)  # (256, 3)
    return np.stack([levels[images[..., channel], channel] for channel in range(3)], -1)
