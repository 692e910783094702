"""The training loop: it knows a task, a step counter and a folder to resume from, nothing of faces."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset

from atldiff.errors import TrainingError
from atldiff.training.optimiser import MasterOptimiser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from atldiff.config import TrainConfig
    from atldiff.training.task import BatchSource, Task

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"


class _Steps(Dataset):
    """A source's batches from one step on, as a data set with one item a step."""

    def __init__(self, source: BatchSource, first: int, last: int) -> None:
        self.source, self.first, self.last = source, first, last

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.source.batch(self.first + index)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _batches(source: BatchSource, first: int, last: int, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    # Batches come from another process: a thread in this one takes the interpreter from the training step.
    loader = DataLoader(
        _Steps(source, first, last),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_one_thread,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)


def train(
    task: Task,
    config: TrainConfig,
    folder: Path,
    *,
    workers: int = 1,
    stop_after: int | None = None,
    minutes: float | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> int:
    """Train until `config.steps`, resuming from `folder` where a state lies there; return the steps done.

    stop_after: leave, with a saved state, after this step; minutes: after this long. Both resume by the same call.

    Raises:
        TrainingError: the loss is not finite (the message names the clips), or the state belongs to another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if task.bfloat16:
        task.module.to(torch.bfloat16)
    task.module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimiser = MasterOptimiser(task.module, config)
    first = _resume(optimiser, config, folder)
    last = min(config.steps, stop_after if stop_after is not None else config.steps)
    if first >= last:
        return first
    writer = _scalar_writer(folder)
    started = time.monotonic()
    task.module.train()
    step = first
    for step, batch in enumerate(_batches(task.source, first, last, workers), first):
        losses = task.loss(task.module, batch, step)
        value = float(losses["loss"].detach())
        if not math.isfinite(value):
            names = ", ".join(task.source.clip_names(batch))
            raise TrainingError(f"step {step}: the loss is {value}; clips of the batch: {names}")
        losses["loss"].backward()
        norm = optimiser.step(step)
        scalars = {name: float(loss.detach()) for name, loss in losses.items()} | {"gradient_norm": norm}
        if progress:
            progress(step + 1, config.steps, scalars)
        if writer and step % 20 == 0:
            for name, scalar in scalars.items():
                writer.add_scalar(f"train/{name}", scalar, step)
        done = step + 1
        out_of_time = minutes is not None and time.monotonic() - started > 60 * minutes
        if done % config.probe_every == 0 or done == config.steps:
            _probe(task, optimiser, done, writer, folder)
        if done % config.save_every == 0 or done == last or out_of_time:
            _save(optimiser, config, folder, done)
            optimiser.load_averages()
            task.write(task.module)
            optimiser.load_masters()
        if out_of_time:
            break
    if writer:
        writer.close()
    return step + 1


def _probe(task: Task, optimiser: MasterOptimiser, step: int, writer, folder: Path) -> None:  # noqa: ANN001
    optimiser.load_averages()
    task.module.eval()
    with torch.no_grad():
        probe = task.probe(task.module)
    task.module.train()
    optimiser.load_masters()
    line = {"step": step, **{name: round(value, 5) for name, value in probe.scalars.items()}}
    with (folder / "probe.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    if writer:
        for name, value in probe.scalars.items():
            writer.add_scalar(f"held-out/{name}", value, step)
        for name, picture in probe.pictures.items():
            writer.add_image(f"held-out/{name}", picture, step, dataformats="HWC")


def _scalar_writer(folder: Path):  # noqa: ANN202 - tensorboard is an extra
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        logger.warning("tensorboard is not installed: no curves; pip install 'atldiff[train]'")
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _identity(config: TrainConfig) -> dict:
    """Return what must not change between a run and its resumption; its length and its reports may."""
    free = {"steps", "decay_share", "save_every", "probe_every"}
    return json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in free}))


def _save(optimiser: MasterOptimiser, config: TrainConfig, folder: Path, step: int) -> None:
    from safetensors.torch import save_file

    # One file holds both, so a run killed between two writes can never resume from a mixture.
    temporary = folder / f".{STATE_FILE}.partial"
    save_file(optimiser.tensors(), temporary, metadata={"step": str(step), "config": json.dumps(_identity(config))})
    temporary.replace(folder / STATE_FILE)


def _resume(optimiser: MasterOptimiser, config: TrainConfig, folder: Path) -> int:
    from safetensors import safe_open

    path = folder / STATE_FILE
    if not path.exists():
        return 0
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        saved, wanted = json.loads(metadata.get("config", "{}")), _identity(config)
        changed = sorted(key for key in wanted if saved.get(key) != wanted[key])
        if changed:
            raise TrainingError(
                f"{path}: a run with another {changed[0]} ({saved.get(changed[0])!r}, now {wanted[changed[0]]!r}); "
                "resume with the same configuration or choose another --out"
            )
        optimiser.load_tensors({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
        return int(metadata["step"])
