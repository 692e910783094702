"""One call trains one stage: data, model, loop, and a checkpoint that `TalkingHead.from_pretrained` loads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atldiff import checkpoint
from atldiff.config import method_of
from atldiff.data.manifest import Manifest
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import CheckpointError
from atldiff.methods.build import Model, build
from atldiff.methods.paper import PaperModel
from atldiff.training.alignment import align
from atldiff.training.kflm_task import kflm_task
from atldiff.training.landmarks_task import landmarks_task
from atldiff.training.loop import train
from atldiff.training.paper_renderer_task import paper_renderer_task
from atldiff.training.processes import ALONE
from atldiff.training.renderer_task import renderer_task

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.methods.build import Model
    from atldiff.training.processes import Processes
    from atldiff.training.task import Task

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
    processes: Processes = ALONE,
    workers: int = 1,
    stop_after: int | None = None,
    minutes: float | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> int:
    """Train a stage into `out` and return the steps done; the same call resumes it.

    start: checkpoint whose weights the run starts from and whose other stage is carried along. `out/checkpoint` holds
    the averaged weights of the last save. processes: from `join_processes`, which also chooses the device; every
    process makes this call, and their number and device may be others when the run is resumed.

    Raises:
        DataError, CheckpointError, TrainingError: see their rooms.
        ValueError: the batch cannot be cut into equal parts.
    """
    processes.shares(config.clips_per_batch, config.accumulate)  # before the data, which take long to read
    out.mkdir(parents=True, exist_ok=True)
    with processes.main_first():
        manifest = open_data(data, out)
    torch.manual_seed(config.seed)
    model = build(config.model)
    if start is not None:
        checkpoint.load_into(model, checkpoint.locate(start))
    model.to(processes.device)

    def write(module: nn.Module) -> None:
        checkpoint.save_model(model, out / CHECKPOINT_FOLDER)

    task = _task(model, manifest, config, write)
    return train(
        task, config, out,
        processes=processes, workers=workers, stop_after=stop_after, minutes=minutes, progress=progress,
    )  # fmt: skip


def _task(model: Model, manifest: Manifest, config: TrainConfig, write: Callable[[nn.Module], None]) -> Task:
    """Return the stage of a model's method."""
    landmarks = config.stage == "landmarks"
    if isinstance(model, PaperModel):
        return (kflm_task if landmarks else paper_renderer_task)(model, manifest, config, write)
    return (landmarks_task if landmarks else renderer_task)(model, manifest, config, write)


def align_data(
    weights: str | os.PathLike[str], data: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, tuple[float, int]]:
    """Measure the lag of every training clip of a prepared folder by a checkpoint's generator, and keep it there.

    Raises:
        CheckpointError: not a checkpoint of ours, or one of a method whose generator hears no log-mel columns.
    """
    manifest = Manifest.load(data)
    model = checkpoint.load_model(checkpoint.locate(weights))
    if isinstance(model, PaperModel):
        raise CheckpointError(f"checkpoint {weights}: got method {method_of(model.config)}, expected atl-diff")
    return align(manifest, model.generator, progress)
