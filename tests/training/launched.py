"""What each process of a launched run does for test_processes.py: several trainings, one after the other."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atldiff.config import TrainConfig
from atldiff.errors import TrainingError
from atldiff.methods.atl.training import renderer_task
from atldiff.training import loop
from atldiff.training.processes import join_processes
from atldiff.training.run import train_stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.training.processes import Processes


def train(config: TrainConfig, data: Path, folder: Path, processes: Processes, **settings: Any) -> dict[str, Any]:
    """Train into a folder of this process's own, and tell what came of it."""
    seen: list[float] = []
    interrupt_after: int | None = settings.pop("interrupt_after", None)

    def progress(done: int, total: int, scalars: dict[str, float]) -> None:
        seen.append(scalars["loss"])
        if done == interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)

    result: dict[str, Any] = {"losses": seen}
    try:
        result["done"] = train_stage(
            config, data, folder, processes=processes, workers=0, progress=progress, **settings
        )  # fmt: skip
    except (TrainingError, ValueError) as error:
        result["error"] = str(error)
    except KeyboardInterrupt:
        result["error"] = "interrupted"
    return result


def jobs(work: Path, processes: Processes, configs: dict[str, TrainConfig]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the trainings by name; a process has a folder of its own for each, so that what it writes is seen."""
    first, other = processes.is_main, processes.index
    renderer, landmarks = configs["renderer"], configs["landmarks"]

    def job(name: str, config: TrainConfig, data: str = "data", **settings: Any) -> Callable[[], dict[str, Any]]:
        return lambda: train(config, work / data, work / f"{name}-{processes.index}", processes, **settings)

    return {
        "landmarks": job("landmarks", landmarks),
        "renderer": job("renderer", renderer),
        "accumulated": job("accumulated", replace(renderer, accumulate=2)),
        "half": job("half", renderer, stop_after=2),
        "poisoned": job("poisoned", renderer, "poisoned"),
        "out_of_time": job("out_of_time", renderer, minutes=None if first else 0.0),
        "interrupted": job("interrupted", renderer, interrupt_after=2),
        "other_seeds": job("other_seeds", replace(renderer, seed=other)),
        "odd": job("odd", replace(renderer, clips_per_batch=3)),
    }


def main() -> None:
    """Run every job in this process; argument: the test's folder."""
    from test_processes import LANDMARKS, RENDERER

    torch.set_num_threads(1)
    loop._scalar_writer = lambda folder: None  # curves and wide probes take time, and are not what is tested
    renderer_task.PROBE_BATCHES = renderer_task.PROBE_CLIPS = 1
    work = Path(sys.argv[1])
    processes = join_processes("cpu")
    told = {name: job() for name, job in jobs(work, processes, {"renderer": RENDERER, "landmarks": LANDMARKS}).items()}
    (work / f"told-{processes.index}.json").write_text(json.dumps(told), encoding="utf-8")
    processes.leave()


if __name__ == "__main__":
    main()
