"""Batches for a latent renderer whose mouth has two layers, of either method."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import TalkRendererConfig
from atldiff.methods.difftalker import inputs as difftalker_inputs
from atldiff.methods.latent_inputs import latent_window
from atldiff.methods.lmdiff import inputs as lmdiff_inputs
from atldiff.training.latent_renderer_data import FILMED, draw_noise, needed_points
from atldiff.training.mouth_data import START_SHARE, MouthSet

if TYPE_CHECKING:
    from atldiff.config import LatentDiffusionConfig, LatentRendererConfig
    from atldiff.data.mouths import ClipMouths
    from atldiff.training.mouth_data import TakenMouths


def latent_mouth_set(
    clips: list[ClipMouths], config: LatentRendererConfig | TalkRendererConfig, *, frames: int, seed: int,
    **changes: float,
) -> MouthSet:  # fmt: skip
    """Return the batches of a latent renderer; clips: with the points `needed_points`.

    changes: `sharpen` and `tint` of `MouthDraws`. Beside what `MouthSet` has: prior, mask and mouth as there; noise
    (B, C, T or 1, h, w), level (B,) int64. Of DiffTalker hint (B, C, T, H, W); of LMDiff shown, reference, source and
    points as `TalkSet` has them.
    """
    return MouthSet(
        clips, needed_points(config), latent_window(config), partial(_described, config), frames=frames, seed=seed,
        **changes,
    )  # fmt: skip


def _described(
    config: LatentRendererConfig | TalkRendererConfig, taken: TakenMouths, random: np.random.Generator
) -> dict[str, torch.Tensor]:
    seen = taken.video[:, :, 1:].numpy() if random.random() < FILMED else None
    talks = isinstance(config, TalkRendererConfig)
    made = _talk_inputs(taken, config, seen) if talks else _control_inputs(taken, config, seen)
    return made | draw_start(config, len(taken.frames), random)


def draw_start(config: LatentDiffusionConfig, frames: int, random: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw where on a sampler's way a clip is trained: noise (1, C, T or 1, h, w) and level (1,).

    Mostly at the noisiest level, where every sampler starts and a one-step sampler ends.
    """
    noise = draw_noise(config, frames, random)
    last = config.schedule.train_steps - 1
    level = last if random.random() < START_SHARE else int(random.integers(0, last))
    return {"noise": noise, "level": torch.tensor([level])}


def _control_inputs(
    taken: TakenMouths, config: LatentRendererConfig, seen: np.ndarray | None
) -> dict[str, torch.Tensor]:
    identity = taken.video[:, :, 0].numpy()
    inputs = difftalker_inputs.build_inputs(identity, taken.source, taken.target, config, seen, [taken.layers])
    return {name: torch.from_numpy(getattr(inputs, name)).half() for name in ("prior", "hint", "mask", "mouth")}


def _talk_inputs(taken: TakenMouths, config: TalkRendererConfig, seen: np.ndarray | None) -> dict[str, torch.Tensor]:
    identity = taken.video[:, :, 0].numpy()
    inputs = lmdiff_inputs.build_inputs(
        identity, taken.source, taken.target, config, seen, layers=[taken.layers]
    )  # fmt: skip
    tokens = lmdiff_inputs.mirrored_tokens() if taken.flip else lmdiff_inputs.TOKENS
    made = {name: torch.from_numpy(getattr(inputs, name)).half() for name in ("prior", "shown", "mask", "mouth")}
    points = {"source": taken.source[:, tokens], "points": taken.target[:, :, tokens]}
    made["reference"] = taken.video[:, :, 0].half()
    return made | {name: torch.from_numpy(value) for name, value in points.items()}
