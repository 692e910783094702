"""The renderer's stage: its batches, its loss, and the error inside the mouth of people it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from atldiff.config import PRESETS
from atldiff.data.manifest import Split
from atldiff.data.windows import load_clip
from atldiff.errors import DataError
from atldiff.methods.atl.inputs import NEEDED
from atldiff.methods.atl.training.renderer_data import RendererSet
from atldiff.methods.models import painter_of
from atldiff.training.checks import check_window
from atldiff.training.painted import on_device, paint_batch
from atldiff.training.task import Probe, Task, strips_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest
    from atldiff.methods.atl.network import ATLModel

PROBE_BATCHES, PROBE_CLIPS, PROBE_FRAMES = 4, 8, 4
PROBE_SEED = 20_261


def renderer_task(model: ATLModel, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]) -> Task:
    """Return the renderer's stage over a prepared folder.

    Raises:
        DataError: no clip to train on.
    """
    renderer = model.renderer
    check_window(renderer.config.side, renderer.config.origin)
    sets = {}
    for split in (Split.TRAIN, Split.VAL):
        clips = [load_clip(manifest, entry, NEEDED) for entry in manifest.usable(split)]
        frames, seed = (config.frames, config.seed) if split is Split.TRAIN else (PROBE_FRAMES, PROBE_SEED)
        sets[split] = RendererSet(clips, renderer.config, frames=frames, seed=seed)
    if not sets[Split.TRAIN].clips:
        raise DataError(f"data {manifest.folder}: no clip to train on; expected a split with people in `train`")
    steps = range(PROBE_BATCHES if sets[Split.VAL].clips else 0)
    held_out = [sets[Split.VAL].batch(step, range(PROBE_CLIPS)) for step in steps]
    renderer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def loss(module: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return renderer.loss(batch)

    def probe(module: nn.Module) -> Probe:
        device = renderer.device
        painter = painter_of(renderer)
        noise = painter.window_noise(PROBE_SEED, 0, PROBE_FRAMES)
        after = {name: 0.0 for name in PRESETS}
        before, strips = 0.0, []
        for batch in held_out:
            batch = on_device(batch, device)  # noqa: PLW2901 - the same, elsewhere
            prior, target, mouth = (batch[name] for name in ("prior", "target", "mouth"))
            before += float((mouth * (prior - target).square()).sum())
            frames = {}
            for name, sampling in PRESETS.items():
                frames[name], _ = paint_batch(painter, batch, noise, sampling.steps)
                after[name] += float((mouth * (frames[name] - target).square()).sum())
            strips.append(torch.cat([prior, frames["fast"], frames["balanced"], frames["best"], target], -1)[:, :, 1])
        scalars = {f"mouth_ratio_{name}": value / max(before, 1e-9) for name, value in after.items()}
        return Probe(scalars, strips_picture(strips))

    return Task(renderer, sets[Split.TRAIN], loss, probe, write, bfloat16=config.bfloat16)
