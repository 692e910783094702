"""The codec's stage: reconstruction, edges at two scales and the latents' divergence; the PSNR of unseen people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from atldiff.data.manifest import Split
from atldiff.data.windows import load_clip
from atldiff.errors import DataError
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.training.checks import check_window
from atldiff.training.codec_data import CodecSet
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.diffusion.codec import Codec
    from atldiff.methods.difftalker.network import DiffTalkerModel
    from atldiff.methods.lmdiff.network import LMDiffModel

MOUTH_WEIGHT = 3.0
"""Extra weight of the loss in and around the lips."""
EDGE_WEIGHT = 1.0
"""Weight of the error of neighbouring-pixel differences, at full and at half the side: teeth, lip edges, wrinkles."""
PROBE_CLIPS, PROBE_FRAMES = 24, 4
PROBE_SEED = 20_261
CALIBRATION_CLIPS = 256


def codec_task(
    model: DiffTalkerModel | LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the codec's stage over a prepared folder.

    Raises:
        DataError: no clip to train on, or a window that is not prepared.
    """
    codec: Codec = model.renderer.codec  # pyright: ignore[reportAssignmentType] - the configuration has seen to it
    window = model.renderer.config
    check_window(window.side, window.origin)
    clips, unseen_clips = (
        [load_clip(manifest, entry, LIPS_OUTER) for entry in manifest.usable(split)]
        for split in (Split.TRAIN, Split.VAL)
    )
    train = CodecSet(clips, window, frames=config.frames, seed=config.seed)
    unseen = CodecSet(unseen_clips, window, frames=PROBE_FRAMES, seed=PROBE_SEED)
    if not train.clips:
        raise DataError(f"data {manifest.folder}: no clip to train on; expected a split with people in `train`")
    held_out = unseen.batch(0, range(PROBE_CLIPS)) if unseen.clips else None
    codec.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pictures, mouth = (batch[name].float().flatten(0, 1) for name in ("pictures", "mouth"))
        mean, log_variance = codec.moments(pictures)
        latents = mean + (0.5 * log_variance).exp() * _noise(mean, batch["noise"])
        difference = codec.reconstruct(latents) - pictures
        weight = 1 + MOUTH_WEIGHT * mouth
        weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
        position = (weight * difference.abs()).mean()
        half = functional.avg_pool2d(difference, 2)
        edges = _edges(difference, weight) + _edges(half, functional.avg_pool2d(weight, 2))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
        total = position + EDGE_WEIGHT * edges + codec.config.kl_weight * divergence
        return {"loss": total, "position": position, "edges": edges, "divergence": divergence}

    def probe(module: nn.Module) -> Probe:
        if held_out is None:
            return Probe({})
        pictures, mouth = (held_out[n].to(_device(codec)).float().flatten(0, 1) for n in ("pictures", "mouth"))
        coded = codec.reconstruct(codec.moments(pictures)[0]).clamp(-1, 1)
        square = ((coded - pictures) / 2).square()  # of values in [0, 1]
        inside = (square * mouth).sum(dim=(1, 2, 3)) / (3 * mouth.sum(dim=(1, 2, 3))).clamp_min(1e-6)
        scalars = {
            "psnr": float(-10 * square.mean(dim=(1, 2, 3)).log10().mean()),
            "psnr_mouth": float(-10 * inside.clamp_min(1e-10).log10().mean()),
        }
        pairs = torch.cat([pictures, coded], -1)[::PROBE_FRAMES][:16]  # (N, 3, S, 2 S)
        rows = pairs.permute(0, 2, 3, 1).reshape(-1, pairs.shape[-1], 3)
        picture = ((rows + 1) * 127.5).clamp(0, 255).cpu().numpy().astype(np.uint8)
        return Probe(scalars, {"real_coded": picture})

    def write_calibrated(module: nn.Module) -> None:
        many = train.batch(0, range(CALIBRATION_CLIPS))["pictures"][:, 0].to(_device(codec)).float()
        codec.calibrate(many)
        write(module)

    return Task(codec, train, loss, probe, write_calibrated, bfloat16=config.bfloat16)


def _device(codec: Codec) -> torch.device:
    return codec.latent_mean.device


def _edges(difference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    across = (weight[..., :, 1:] * (difference[..., :, 1:] - difference[..., :, :-1]).abs()).mean()
    down = (weight[..., 1:, :] * (difference[..., 1:, :] - difference[..., :-1, :]).abs()).mean()
    return across + down


def _noise(like: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Return normal noise of a shape (B * T, C, s, s), each clip's from its own seed: the same on every device."""
    frames = len(like) // len(seeds)
    drawn = [
        torch.randn(frames, *like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()
    ]
    return torch.cat(drawn).to(like.device)
