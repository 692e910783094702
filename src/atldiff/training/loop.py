"""The training loop: it knows a task, a step counter and a folder to resume from, nothing of faces."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from atldiff.errors import TrainingError
from atldiff.files import naming, replacing
from atldiff.interrupt import Interrupted, follow_parent, held, hidden_from_children, stop_wishes
from atldiff.training.draws import dropout_seed
from atldiff.training.optimiser import MasterOptimiser
from atldiff.training.processes import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from atldiff.config import TrainConfig
    from atldiff.interrupt import StopWish
    from atldiff.training.processes import Processes
    from atldiff.training.task import BatchSource, Task

logger = logging.getLogger(__name__)

STATE_FILE = "state.safetensors"
PROBE_FILE = "probe.jsonl"
DIGITS = 5
"""Decimals that are kept of what a probe measures."""
RIVAL = "rival."
"""How the names of an adversary's tensors begin in a state."""
RIVAL_BETAS = (0.5, 0.99)


class _Parts(Dataset):
    """A process's parts of the batches from one step on, as a data set with one item a micro-batch."""

    def __init__(self, source: BatchSource, steps: range, shares: list[range]) -> None:
        self.source, self.steps, self.shares = source, steps, shares

    def __len__(self) -> int:
        return len(self.steps) * len(self.shares)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        step, part = divmod(index, len(self.shares))
        return self.source.batch(self.steps[step], self.shares[part])


def _start_worker(worker: int) -> None:
    follow_parent()
    torch.set_num_threads(1)


@contextmanager
def _batches(parts: _Parts, workers: int, device: torch.device) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    # Batches come from another process: a thread in this one takes the interpreter from the training step.
    loader = DataLoader(
        parts,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",  # or the copy to the device would wait for it
    )
    with hidden_from_children():
        batches = iter(loader)
    try:
        yield batches
    finally:
        # Not left to the interpreter's end: there they are ended by a signal, and these hear none.
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()


def train(
    task: Task,
    config: TrainConfig,
    folder: Path,
    *,
    processes: Processes = ALONE,
    workers: int = 1,
    stop_after: int | None = None,
    minutes: float | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> int:
    """Train until `config.steps`, resuming from `folder` where a state lies there; return the steps done.

    The task's module lies on the processes' device. Every process applies the same update to the same weights; the
    main one alone keeps their average, probes, reports and writes. workers: that make batches, beside each process.
    stop_after: leave, with a saved state, after this step; minutes: after this long. Both resume by the same call.

    Raises:
        TrainingError: the loss is not finite (the message names the clips), the state belongs to another run, or the
            processes do not start from the same weights.
        ValueError: the batch cannot be cut into equal parts.
        KeyboardInterrupt: a signal asked one of the processes to stop; all have done the same steps, at least one, and
            the state is saved. Ctrl-C pressed again, later than a signal that only came twice, leaves at once.
    """
    shares = processes.shares(config.clips_per_batch, config.accumulate)
    folder.mkdir(parents=True, exist_ok=True)
    if task.bfloat16:
        task.module.to(torch.bfloat16)
    optimiser = MasterOptimiser(task.module, config, average=processes.is_main)
    optimisers = {"": optimiser}
    if task.rival is not None:
        optimisers[RIVAL] = MasterOptimiser(task.rival.module, task.rival.config, betas=RIVAL_BETAS)
    first = _resume(optimisers, config, folder)
    _check_same_start(task.module, first, processes)
    last = min(config.steps, stop_after if stop_after is not None else config.steps)
    if first >= last:
        return first
    writer = _scalar_writer(folder) if processes.is_main else None
    started = time.monotonic()
    task.module.train()
    done, saved, interrupted = first, first, False

    def save() -> None:
        nonlocal saved
        with held():
            _ship(task, optimiser, folder)  # first: a run whose state says it is finished has its checkpoint
            _save(optimisers, config, folder, done)
        saved = done

    parts_of_steps = _Parts(task.source, range(first, last), shares)
    with (
        stop_wishes() as stop_wished,
        _batches(parts_of_steps, workers, processes.device) as batches,
    ):
        for step in range(first, last):
            parts = []
            # A step that is half done is left, and made again from the same batch; several would wait for one another.
            leave_it = stop_wished.at_once() if processes.count == 1 and done > first else nullcontext()
            try:
                with leave_it:
                    for share in shares:
                        torch.manual_seed(dropout_seed(config.seed, step, share.start))
                        parts.append(
                            _add_gradients(task, optimisers, next(batches), len(shares), processes.device, step)
                        )
            except Interrupted:
                if processes.count > 1:  # Ctrl-C once more: others would be waited for
                    raise
                if saved < done:
                    save()
                break
            out_of_time = minutes is not None and time.monotonic() - started > 60 * minutes
            losses = torch.stack([part.losses for part in parts])  # (micro-batches, losses)
            failed = ~losses[:, parts[0].names.index("loss")].isfinite()
            told = torch.cat([losses.mean(0), failed.any()[None], losses.new_tensor([out_of_time, stop_wished()])])
            # One wait for all: what one process sees, the time and the wish to stop included, holds for every one.
            processes.mean([*(g for each in optimisers.values() for g in each.gradients()), told])
            norm, *_ = (each.step(step) for each in optimisers.values())
            *values, broken, out_of_time, interrupted = told.tolist()
            scalars = dict(zip(parts[0].names, values, strict=True)) | {"gradient_norm": norm}
            if broken:
                clips = ", ".join(name for part, bad in zip(parts, failed, strict=True) if bad for name in part.clips)
                everywhere = ", ".join(filter(None, processes.gather(clips)))
                raise TrainingError(f"step {step}: the loss is {scalars['loss']}; clips of the batch: {everywhere}")
            done = step + 1
            stopped = bool(out_of_time or interrupted)
            if processes.is_main:
                if progress:
                    progress(done, config.steps, scalars)
                if writer and step % 20 == 0:
                    for name, scalar in scalars.items():
                        writer.add_scalar(f"train/{name}", scalar, step)
                if done % config.probe_every == 0 or done == config.steps:
                    _probe(task, optimiser, done, writer, folder, stop_wished)
                if done % config.save_every == 0 or done == last or stopped:
                    save()
            if stopped:
                break
        if writer:
            writer.close()
        processes.barrier()  # a process that left first could have the launcher end the one that still writes
    stop_wished.raise_it()
    if interrupted:  # another process was asked
        raise KeyboardInterrupt
    return done


@dataclass(frozen=True, slots=True)
class _Part:
    """What a micro-batch gave: losses (L,) float32 by name, and the clips it was made of."""

    names: list[str]
    losses: torch.Tensor
    clips: list[str]


def _add_gradients(
    task: Task,
    optimisers: dict[str, MasterOptimiser],
    batch: dict[str, torch.Tensor],
    parts: int,
    device: torch.device,
    step: int,
) -> _Part:
    """Add the gradient of one of `parts` micro-batches to the step's: the mean over clips of per-clip losses."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    losses = task.loss(task.module, moved)
    (losses["loss"] / parts).backward()
    optimisers[""].accumulate()
    if task.rival is not None:
        rival = task.rival.loss(step)
        (rival / parts).backward()
        optimisers[RIVAL].accumulate()
        losses = losses | {"rival": rival}
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    return _Part(list(losses), values, task.source.clip_names(batch))


def _check_same_start(module: nn.Module, first: int, processes: Processes) -> None:
    if processes.count == 1:
        return
    digest = hashlib.sha256(str(first).encode())
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    if len(set(processes.gather(digest.hexdigest()))) > 1:
        raise TrainingError(
            "the processes start from different weights or steps; expected the same command, data and --out for "
            "every one (a folder that all machines see), and machines of one kind"
        )


def _ship(task: Task, optimiser: MasterOptimiser, folder: Path) -> None:
    if task.kept_by is not None and _best(task, folder) is not None:
        return  # the best so far was written when it was measured
    optimiser.load_averages()
    task.write(task.module)
    optimiser.load_masters()


def _best(task: Task, folder: Path) -> float | None:
    """Return the highest value so far of the scalar that decides which weights are written, of this run's probes."""
    path = folder / PROBE_FILE
    if not path.is_file():
        return None
    values = [json.loads(line).get(task.kept_by) for line in path.read_text().splitlines()]
    return max((value for value in values if value is not None), default=None)


def _probe(
    task: Task,
    optimiser: MasterOptimiser,
    step: int,
    writer,  # noqa: ANN001 - tensorboard is an extra
    folder: Path,
    stop_wished: StopWish,
) -> None:
    """Measure and show held-out figures, unless a signal asks to stop: what is trained is saved first."""
    optimiser.load_averages()
    task.module.eval()
    try:
        with torch.no_grad(), stop_wished.at_once():
            probe = task.probe(task.module)
        if task.kept_by in probe.scalars:
            best = _best(task, folder)
            if best is None or round(probe.scalars[task.kept_by], DIGITS) > best:
                with held():
                    task.write(task.module)
    except Interrupted:
        return
    finally:
        task.module.train()
        optimiser.load_masters()
    line = {"step": step, **{name: round(value, DIGITS) for name, value in probe.scalars.items()}}
    path = folder / PROBE_FILE
    with naming(path), path.open("a") as file:
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
    """Return what must not change between a run and its resumption; its length, reports and cuts of a batch may."""
    free = {"steps", "decay_share", "save_every", "probe_every", "accumulate"}
    return json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in free}))


def _save(optimisers: dict[str, MasterOptimiser], config: TrainConfig, folder: Path, step: int) -> None:
    from safetensors.torch import save_file

    # One file holds both, so a run killed between two writes can never resume from a mixture.
    metadata = {"step": str(step), "config": json.dumps(_identity(config))}
    with replacing(folder / STATE_FILE) as partial:
        tensors = {f"{of}{name}": x for of, each in optimisers.items() for name, x in each.tensors().items()}
        save_file(tensors, partial, metadata=metadata)


def _resume(optimisers: dict[str, MasterOptimiser], config: TrainConfig, folder: Path) -> int:
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
        keys = list(file.keys())
        for of, each in optimisers.items():
            own = [key for key in keys if key.startswith(RIVAL) == (of == RIVAL)]
            each.load_tensors({key.removeprefix(of): file.get_tensor(key) for key in own})
        return int(metadata["step"])
