"""The optional loss of the joint stage that a frozen expert gives: do the predicted mouths go with the sound?"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

from atldiff.config.check import check
from atldiff.diffusion import ddim
from atldiff.errors import CheckpointError
from atldiff.timebase import COLUMNS_PER_FRAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import TrainConfig
    from atldiff.methods.lmdiff.network import LMDiffModel

    SyncLoss: TypeAlias = Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor]


def sync_loss(model: LMDiffModel, config: TrainConfig) -> SyncLoss | None:
    """Freeze a model's expert, and return the loss that it gives; None where its weight is 0.

    The loss: (batch of `JointSet`, predicted latents (B, C, T, s, s) as they are composited) to the mean over clips of
    one less the cosine of pictures and sound, of the frames in the middle of each clip. Clips whose sound the generator
    does not hear do not count. Where the network predicts latents themselves every level counts in full: the noisiest
    leave most to the landmarks, and what is predicted there is what one step of the sampler shows. Where it predicts
    noise, a clip counts by the share of the latents' variance that is left at its level, for the rest is no picture.

    Raises:
        CheckpointError: there is no expert. ValueError: clips are shorter than what it sees.
    """
    expert, weight = model.expert, model.config.joint.sync_weight
    if expert is not None:
        expert.requires_grad_(False)
    if not weight:
        return None
    if expert is None:
        raise CheckpointError(
            f"weights: got no sync expert, expected one for a sync_weight of {weight}: train the stage sync first "
            "(`atldiff train lmdiff-sync ...`) and name its checkpoint with --weights, or leave sync_weight at 0"
        )
    frames, schedule = expert.config.frames, model.renderer.config.schedule
    check(config.frames >= frames, "frames", config.frames,
          f"at least {frames} with a sync_weight of {weight}: what the expert sees at once")  # fmt: skip
    heard_from = model.generator.config.context_frames - expert.config.margin_frames  # in the batch's columns
    counts = torch.from_numpy(ddim.alphas(schedule))
    if schedule.prediction == "sample":
        counts = torch.ones_like(counts)

    def loss(batch: dict[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        first = (latents.shape[2] - frames) // 2
        column = (heard_from + first) * COLUMNS_PER_FRAME
        pictures = model.renderer.codec.decode(latents[:, :, first : first + frames])
        sound = expert.hear(batch["mel"][:, column : column + expert.columns].float())
        cosine = (expert.see(pictures) * sound).sum(-1)
        return (counts.to(cosine.device)[batch["level"]] * batch["heard"] * (1 - cosine)).mean()

    return loss
