"""DiffTalker's renderer: its batches, its loss on latents, and the error inside the mouth of people it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import LATENT_SAMPLING
from atldiff.data.manifest import Split
from atldiff.data.windows import load_clip
from atldiff.diffusion.codec import Codec
from atldiff.errors import CheckpointError, DataError
from atldiff.methods.difftalker_inputs import NEEDED
from atldiff.training.latent_renderer_data import LatentSet
from atldiff.training.renderer_task import check_window
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.difftalker import DiffTalkerModel

PROBE_BATCHES, PROBE_CLIPS, PROBE_FRAMES = 4, 8, 4
PROBE_SEED = 20_261


def latent_renderer_task(
    model: DiffTalkerModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the stage of DiffTalker's renderer over a prepared folder; its codec stays as it is.

    Raises:
        DataError: no clip to train on. CheckpointError: the codec was never trained.
    """
    renderer = model.renderer
    if isinstance(renderer.codec, Codec) and not renderer.codec.calibrated:
        raise CheckpointError(
            "weights: got a codec that was never trained, expected one: train the stage codec first "
            "(`atldiff train difftalker-codec ...`), then name its checkpoint with --weights"
        )
    check_window(renderer.config.side, renderer.config.origin)
    sets = {}
    for split in (Split.TRAIN, Split.VAL):
        clips = [load_clip(manifest, entry, NEEDED) for entry in manifest.usable(split)]
        frames, seed = (config.frames, config.seed) if split is Split.TRAIN else (PROBE_FRAMES, PROBE_SEED)
        sets[split] = LatentSet(clips, renderer.config, frames=frames, seed=seed)
    if not sets[Split.TRAIN].clips:
        raise DataError(f"data {manifest.folder}: no clip to train on; expected a split with people in `train`")
    steps = range(PROBE_BATCHES if sets[Split.VAL].clips else 0)
    held_out = [sets[Split.VAL].batch(step, range(PROBE_CLIPS)) for step in steps]
    noise = renderer.window_noise(PROBE_SEED, 0, PROBE_FRAMES)
    renderer.codec.requires_grad_(False)
    exact = {name: tensor.clone() for name, tensor in renderer.codec.state_dict().items()}
    if config.bfloat16:
        renderer.codec.to(torch.bfloat16)
    for part in (renderer.codec, renderer.denoiser):
        part.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def probe(module: nn.Module) -> Probe:
        before, after, strips = 0.0, dict.fromkeys(LATENT_SAMPLING, 0.0), []
        for batch in held_out:
            prior, hint, mask, target, mouth = (
                batch[name].to(renderer.device).float() for name in ("prior", "hint", "mask", "target", "mouth")
            )
            before += float((mouth * (prior - target).square()).sum())
            frames = {}
            for name, sampling in LATENT_SAMPLING.items():
                made, base = renderer.render(prior, hint, mask, noise, sampling.steps)
                frames[name] = prior + made - base  # as the composite has it
                after[name] += float((mouth * (frames[name] - target).square()).sum())
            drawn = hint[:, :3] * 2 - 1
            strips.append(torch.cat([drawn, prior, *frames.values(), target], -1)[:, :, 1])
        pictures = {}
        if strips:
            grid = torch.cat(strips)[:16]  # (N, 3, S, 6 S)
            rows = grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[-1], 3)
            picture = ((rows + 1) * 127.5).clamp(0, 255).cpu().numpy().astype(np.uint8)
            pictures["drawing_prior_fast_balanced_best_real"] = picture
        return Probe({f"mouth_ratio_{name}": value / max(before, 1e-9) for name, value in after.items()}, pictures)

    def write_exact(module: nn.Module) -> None:
        computes_in = renderer.codec.dtype
        renderer.codec.float().load_state_dict(exact)  # the codec goes out as it came in
        write(module)
        renderer.codec.to(computes_in)

    return Task(
        module=renderer.denoiser,
        source=sets[Split.TRAIN],
        loss=lambda module, batch: renderer.loss(batch),
        probe=probe,
        write=write_exact,
        bfloat16=config.bfloat16,
    )
