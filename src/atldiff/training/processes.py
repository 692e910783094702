"""The processes of a training run: this one alone, or several that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from atldiff.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET_ELEMENTS = 2**24
"""Elements that are averaged over processes in one go: 64 MB of float32."""
LONGEST_WAIT = timedelta(hours=6)
"""How long a process waits for another: the main one alone probes and saves meanwhile."""


@dataclass(frozen=True, slots=True)
class Processes:
    """What one process knows of all: its index, how many there are, and the device it computes on."""

    index: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Whether this is the process that probes, averages weights, writes and reports."""
        return self.index == 0

    def shares(self, clips: int, accumulate: int) -> list[range]:
        """Return this process's items of a global batch, a range a micro-batch.

        Raises:
            ValueError: the batch cannot be cut into equal parts.
        """
        parts = self.count * accumulate
        if clips % parts:
            raise ValueError(
                f"clips_per_batch: got {clips}, expected a multiple of {parts} "
                f"({self.count} process{'' if self.count == 1 else 'es'}, accumulate {accumulate}), so that every "
                "clip weighs the same"
            )
        size = clips // parts
        first = self.index * accumulate
        return [range(part * size, (part + 1) * size) for part in range(first, first + accumulate)]

    def mean(self, tensors: list[torch.Tensor]) -> None:
        """Replace float32 tensors by their means over the processes, which get the same bits everywhere."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        for bucket in _buckets(tensors):
            flat = reduce(torch.cat([tensor.flatten() for tensor in bucket]), "mean")
            if not isinstance(flat, torch.Tensor):
                raise TypeError(f"reduce: got {type(flat).__name__}, expected a tensor")
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def gather(self, text: str) -> list[str]:
        """Return every process's text, by index."""
        if self.count == 1:
            return [text]
        from accelerate.utils import gather_object

        return gather_object([text])

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def leave(self) -> None:
        """End this process at once, successfully, where gloo is at work; otherwise do nothing.

        Its threads can abort an interpreter that ends by itself (pytorch/pytorch#179291): a finished run would be
        reported as failed.
        """
        if self.count > 1 and self.device.type == "cpu":
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others, which then find it done."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


ALONE = Processes()


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket, elements = [], 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket


def join_processes(device: str = "auto") -> Processes:
    """Return the processes of this run: more than one where a launcher's WORLD_SIZE says so (gloo, or nccl on GPUs).

    device: auto, cpu or cuda; several processes on one machine take a GPU each.

    Raises:
        ValueError: an unknown device, or a GPU that is not there.
        TrainingError: several processes without Accelerate, or none of the kinds that average gradients.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got {device!r}, expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but PyTorch sees no GPU here; use cpu or auto")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes(device=torch.device("cuda" if on_gpu else "cpu"))
    try:
        from accelerate import DistributedType, PartialState
    except ImportError:
        raise TrainingError(
            "training on several processes: accelerate is not installed; pip install 'atldiff[train]'"
        ) from None
    state = PartialState(cpu=not on_gpu, timeout=LONGEST_WAIT)
    if state.distributed_type not in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise TrainingError(
            f"training on several processes: got {state.distributed_type.value}, expected data parallel on CPUs or "
            "GPUs; start it with `torchrun` or `accelerate launch --multi_gpu`"
        )
    if not on_gpu:
        # Gloo's threads may hold tensors when the interpreter ends and then abort it (pytorch/pytorch#179291). Not so
        # with nccl, which would wait here for processes that an error of this one has left behind.
        atexit.register(state.destroy_process_group)
    return Processes(state.process_index, state.num_processes, state.device or torch.device("cpu"))
