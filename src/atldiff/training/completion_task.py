"""Landmark completion: a basis from the data, position and velocity losses, and unseen people's mouths."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from atldiff.data.completion import completion_scores, load_seen
from atldiff.landmarks.completion import jaw_count
from atldiff.training.completion_data import CompletionSet
from atldiff.training.landmarks_task import describe_clips, fill_buffers, speaking_clips
from atldiff.training.mouth_loss import MouthLoss, mean_over_frames
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.completion import SeenClip
    from atldiff.data.manifest import Manifest
    from atldiff.data.speech import ClipSpeech
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.methods.difftalker import DiffTalkerModel
    from atldiff.methods.lmdiff import LMDiffModel

    CompletionLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]

logger = logging.getLogger(__name__)

POINT_SCALE = 100.0
"""Displacements are hundredths of the outer-eye distance: brings their errors to the size gradient clipping is for."""
JAW_WEIGHT = 0.5
"""Weight of a completed point of the jaw against one of the mouth."""


def completion_task(
    model: DiffTalkerModel | LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the stage of a completion generator over a prepared folder.

    Raises:
        DataError: no clip whose sound and mouth agree.
    """
    generator = model.generator
    train, held_out = speaking_clips(manifest, config)
    share = fill_buffers(generator, train)
    logger.info("%d clips; %d components hold %.1f %% of the motion", len(train), len(generator.scale), 100 * share)
    source = CompletionSet(
        train,
        (load_seen(manifest, clip) for clip in train),
        describe_clips(generator, train),
        generator.basis.cpu().numpy(),
        generator.scale.cpu().numpy(),
        generator.config,
        frames=config.frames,
        seed=config.seed,
    )
    seen = [load_seen(manifest, clip) for clip in held_out]
    losses = completion_loss(generator)

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        said = generator.complete(batch["mel"], batch["seen"], batch["identity"], batch["heard"], batch["filmed"])
        return losses(said, batch["target"], batch["valid"])

    def probe(module: nn.Module) -> Probe:
        return Probe(median_scores(generator, held_out, seen))

    return Task(generator, source, loss, probe, write)


def completion_loss(generator: CompletionGenerator) -> CompletionLoss:
    """Return the losses of what a generator says, (said, truth (B, T, M or P * 2), valid (B, T)), over its basis."""
    weight, jaw = generator.config.velocity_weight, jaw_count(generator.config)
    if generator.config.points == "dense":
        mouth_loss = MouthLoss.of(generator)
        return lambda said, truth, valid: mouth_loss(said, truth, valid, weight)
    return lambda said, truth, valid: point_losses(said, truth.unflatten(-1, said.shape[-2:]), valid, weight, jaw)


def median_scores(generator: CompletionGenerator, clips: list[ClipSpeech], seen: list[SeenClip]) -> dict[str, float]:
    """Return the median clip's lip scores by what drives the mouth; none where no mouth moves."""
    pairs = zip(clips, seen, strict=True)
    scores = [found for clip, one in pairs if (found := completion_scores(generator, clip, one))]
    return {
        f"{name}_{drive.replace(' ', '_')}": float(np.median([found[drive][name] for found in scores]))
        for drive in (scores[0] if scores else ())
        for name in ("opening_correlation", "lip_error")
    }


def point_losses(
    predicted: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, velocity_weight: float, jaw: int
) -> dict[str, torch.Tensor]:
    """Return IP_LAP's losses of completed points (B, T, P, 2), the jaw's first, each the mean over clips.

    L1 of the positions, and the mean distance of frame differences; valid: (B, T) frames that count.
    """
    difference = predicted - truth
    weight = torch.ones(difference.shape[2], device=difference.device)
    weight[:jaw] = JAW_WEIGHT
    weight = weight / weight.sum()
    position = mean_over_frames((difference.abs().mean(-1) * weight).sum(-1), valid)
    change = (difference[:, 1:] - difference[:, :-1]).square().sum(-1).add(1e-12).sqrt()
    velocity = mean_over_frames((change * weight).sum(-1), valid[:, 1:] * valid[:, :-1])
    return {"loss": POINT_SCALE * (position + velocity_weight * velocity), "position": position, "velocity": velocity}
