"""The published renderer's stage: its batches, its loss, and how well unseen people's frames come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.config import PAPER_SAMPLING
from atldiff.data.faces import load_faces
from atldiff.data.manifest import Split
from atldiff.errors import DataError
from atldiff.methods.atl_published.inputs import NEEDED
from atldiff.methods.atl_published.training.renderer_data import FacesSet
from atldiff.methods.models import painter_of
from atldiff.training.task import Probe, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.atl_published.network import PublishedModel

PROBE_CLIPS, PROBE_FRAMES = 8, 8
PROBE_SEED = 20_261


def paper_renderer_task(
    model: PublishedModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]
) -> Task:
    """Return the published renderer's stage over a prepared folder.

    Raises:
        DataError: no clip to train on, or clips without whole faces.
    """
    renderer = model.renderer
    sets = {}
    for split, frames, seed in (
        (Split.TRAIN, config.frames, config.seed), (Split.VAL, PROBE_FRAMES, PROBE_SEED),
    ):  # fmt: skip
        clips = [load_faces(manifest, entry, NEEDED) for entry in manifest.usable(split)]
        sets[split] = FacesSet(clips, renderer.config, frames=frames, seed=seed)
    if not sets[Split.TRAIN].clips:
        raise DataError(
            f"data {manifest.folder}: no clip of more than {config.frames} frames to train on; "
            "expected a split with people in `train`"
        )
    held_out = sets[Split.VAL].batch(0, range(PROBE_CLIPS)) if sets[Split.VAL].clips else None
    if renderer.config.network == "compact":
        renderer.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def probe(module: nn.Module) -> Probe:
        if held_out is None:
            return Probe({})
        device = renderer.device
        identity, target, mouth = (held_out[name].to(device).float() for name in ("identity", "target", "mouth"))
        prior, mask, seen, noise = (held_out[name].float().numpy() for name in ("prior", "mask", "identity", "noise"))
        emotion, painter = held_out["emotion"].numpy(), painter_of(renderer)
        scalars, strips = {}, [identity[:, :, None].expand_as(target)]
        error = lambda frames: float((mouth * (frames - target).square()).sum())  # noqa: E731 - a formula, used twice
        tokens = painter.describe(seen)
        before = error(identity[:, :, None].expand_as(target))
        for name, sampling in PAPER_SAMPLING.items():
            made = painter.render(prior, mask, tokens, emotion, noise, sampling.steps)
            frames = torch.from_numpy(made).to(device)
            scalars[f"mouth_ratio_{name}"] = error(frames) / max(before, 1e-9)
            scalars[f"psnr_{name}"] = float(-10 * (frames - target).square().mean(dim=(1, 2, 3, 4)).log10().mean())
            strips.append(frames)
        grid = torch.cat([*strips, target], -1)[:, :, -1]  # (N, 3, S, 5 S)
        rows = grid.permute(0, 2, 3, 1).reshape(-1, grid.shape[-1], 3)
        picture = (rows * 255).clamp(0, 255).cpu().numpy().astype(np.uint8)
        return Probe(scalars, {"identity_fast_balanced_best_real": picture})

    return Task(
        module=renderer,
        source=sets[Split.TRAIN],
        loss=lambda module, batch: renderer.loss(batch),
        probe=probe,
        write=write,
        bfloat16=config.bfloat16,
    )
