"""The latent renderers' stage: batches, the loss on latents, and the error in the mouth of people not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import sampling_presets
from atldiff.data.manifest import Split
from atldiff.data.windows import load_clip
from atldiff.diffusion.codec import Codec
from atldiff.errors import CheckpointError, DataError
from atldiff.methods.difftalker.training.renderer_data import LatentSet
from atldiff.methods.lmdiff.network import TalkRenderer
from atldiff.methods.lmdiff.training.renderer_data import TalkSet
from atldiff.methods.models import painter_of
from atldiff.training.checks import check_mouth_window, check_window
from atldiff.training.latent_renderer_data import needed_points
from atldiff.training.painted import on_device, paint_batch
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
    from atldiff.methods.lmdiff.network import LMDiffModel

PROBE_BATCHES, PROBE_CLIPS, PROBE_FRAMES = 4, 8, 4
PROBE_SEED = 20_261


def latent_renderer_task(
    model: DiffTalkerModel | LMDiffModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the stage of a latent renderer over a prepared folder; its codec stays as it is.

    Raises:
        DataError: no clip to train on. CheckpointError: the codec was never trained.
    """
    renderer = model.renderer
    check_renderer(renderer)
    sets: dict[Split, LatentSet | TalkSet] = {}
    needed = needed_points(renderer.config)
    for split in (Split.TRAIN, Split.VAL):
        clips = [load_clip(manifest, entry, needed) for entry in manifest.usable(split)]
        frames, seed = (config.frames, config.seed) if split is Split.TRAIN else (PROBE_FRAMES, PROBE_SEED)
        if isinstance(renderer, TalkRenderer):
            sets[split] = TalkSet(clips, renderer.config, frames=frames, seed=seed)
        else:
            sets[split] = LatentSet(clips, renderer.config, frames=frames, seed=seed)
    if not sets[Split.TRAIN].clips:
        raise DataError(f"data {manifest.folder}: no clip to train on; expected a split with people in `train`")
    steps = range(PROBE_BATCHES if sets[Split.VAL].clips else 0)
    held_out = [sets[Split.VAL].batch(step, range(PROBE_CLIPS)) for step in steps]
    write = freeze_codec(renderer, write, bfloat16=config.bfloat16)

    def probe(module: nn.Module) -> Probe:
        return paint(renderer, [on_device(batch, renderer.device) for batch in held_out])

    return Task(
        module=renderer.denoiser,
        source=sets[Split.TRAIN],
        loss=lambda module, batch: renderer.loss(batch),
        probe=probe,
        write=write,
        bfloat16=config.bfloat16,
    )


def check_renderer(renderer: LatentRenderer | TalkRenderer) -> None:
    """Raise CheckpointError where a codec of ours was never trained, DataError where the window is not prepared."""
    if isinstance(renderer.codec, Codec) and not renderer.codec.calibrated:
        raise CheckpointError(
            "weights: got a codec that was never trained, expected one: train the stage codec first "
            "(`atldiff train difftalker-codec ...`), then name its checkpoint with --weights"
        )
    if renderer.layered:
        check_mouth_window(renderer.geometry)
    else:
        check_window(renderer.config.side, renderer.config.origin)


def freeze_codec(
    renderer: LatentRenderer | TalkRenderer, write: Callable[[nn.Module], None], *, bfloat16: bool
) -> Callable[[nn.Module], None]:
    """Freeze a renderer's codec, in bfloat16 where asked; return a `write` that lets it out as it came in."""
    codec = renderer.codec.requires_grad_(False)
    exact = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    if bfloat16:
        codec.to(torch.bfloat16)
    for part in (codec, renderer.denoiser):
        part.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def write_exact(module: nn.Module) -> None:
        computes_in = codec.dtype
        codec.float().load_state_dict(exact)
        write(module)
        codec.to(computes_in)

    return write_exact


def paint(
    renderer: LatentRenderer | TalkRenderer, batches: list[dict[str, torch.Tensor]], base: str = "prior"
) -> Probe:
    """Render batches in every preset; return the squared error in the mouth over that of `base`, and pictures.

    batches: of the renderer's set, as `on_device` returns them. base: name of the pictures that are the baseline.
    """
    before, after, strips = 0.0, dict.fromkeys(sampling_presets(renderer.config), 0.0), []
    painter = painter_of(renderer)
    noise = painter.window_noise(PROBE_SEED, 0, PROBE_FRAMES)
    for batch in batches:
        prior, target, mouth = batch["prior"], batch["target"], batch["mouth"]
        before += float((mouth * (batch[base] - target).square()).sum())
        frames = {}
        for name, sampling in sampling_presets(renderer.config).items():
            made, still = paint_batch(painter, batch, noise, sampling.steps)
            frames[name] = prior + made - still  # as the composite has it
            after[name] += float((mouth * (frames[name] - target).square()).sum())
        # The drawing of the landmarks, or what is seen of the target.
        told = batch["hint"][:, :3] * 2 - 1 if "hint" in batch else batch["shown"][:, :3]
        strips.append(torch.cat([told, prior, *frames.values(), target], -1)[:, :, 1])
    pictures = {}
    if strips:
        grid = torch.cat(strips)[:16]  # (N, 3, S, 6 S)
        rows = grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[-1], 3)
        picture = ((rows + 1) * 127.5).clamp(0, 255).cpu().numpy().astype(np.uint8)
        pictures["told_prior_fast_balanced_best_real"] = picture
    return Probe({f"mouth_ratio_{name}": value / max(before, 1e-9) for name, value in after.items()}, pictures)
