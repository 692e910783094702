"""One call trains one stage: data, model, loop, and a checkpoint that `TalkingHead.from_pretrained` loads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atldiff import checkpoint
from atldiff.data.manifest import Manifest
from atldiff.data.synthetic import make_synthetic
from atldiff.methods.atl import ATLModel
from atldiff.training.alignment import align
from atldiff.training.landmarks_task import landmarks_task
from atldiff.training.loop import train
from atldiff.training.renderer_task import renderer_task

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig

logger = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"


def open_data(data: Path, run: Path) -> Manifest:
    """Open a prepared folder; the word `synthetic` makes a small one inside the run's folder."""
    if str(data) == "synthetic":
        folder = run / "synthetic"
        if not (folder / "manifest.jsonl").exists():
            make_synthetic(folder)
        return Manifest.load(folder)
    return Manifest.load(data)


def train_stage(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    start: str | os.PathLike[str] | None = None,
    workers: int = 1,
    stop_after: int | None = None,
    minutes: float | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> int:
    """Train a stage into `out` and return the steps done; the same call resumes it.

    start: checkpoint whose weights the run starts from and whose other stage is carried along. `out/checkpoint` holds
    the averaged weights of the last save.

    Raises:
        DataError, CheckpointError, TrainingError: see their rooms.
    """
    out.mkdir(parents=True, exist_ok=True)
    manifest = open_data(data, out)
    torch.manual_seed(config.seed)
    model = ATLModel(config.model)
    if start is not None:
        checkpoint.load_into(model, checkpoint.locate(start))

    def write(module: nn.Module) -> None:
        checkpoint.save_model(model, out / CHECKPOINT_FOLDER)

    make_task = landmarks_task if config.stage == "landmarks" else renderer_task
    task = make_task(model, manifest, config, write)
    return train(task, config, out, workers=workers, stop_after=stop_after, minutes=minutes, progress=progress)


def align_data(
    weights: str | os.PathLike[str], data: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Measure the lag of every training clip of a prepared folder by a checkpoint's generator, and keep it there."""
    manifest = Manifest.load(data)
    model = checkpoint.load_model(checkpoint.locate(weights))
    return align(manifest, model.generator, progress)
