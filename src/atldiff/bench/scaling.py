"""What grows with the work: longer sound in one process, and more videos at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Literal

from atldiff.bench.process import child, cold_start
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.bench.plan import Variant
    from atldiff.pipeline import TalkingHead


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """One video of a length by a new process.

    wall_s: from the start of the process to the file. steady_fps: frames a second after the first one.
    """

    sound_s: float
    frames: int
    wall_s: float
    real_time_factor: float
    steady_fps: float
    peak_memory_mb: float | None


@dataclass(frozen=True, slots=True)
class JobFigures:
    """Several videos at once, in threads that share one head or in processes. wall_s: of warm ones, without loading."""

    jobs: int
    kind: Literal["threads", "processes"]
    frames: int
    wall_s: float

    @property
    def frames_per_second(self) -> float:
        """Frames of all the videos over the wall time."""
        return self.frames / self.wall_s

    @property
    def real_time_videos(self) -> float:
        """How many videos of 25 fps the machine keeps up with at this number at once."""
        return self.frames_per_second / FPS


def measure_length(variant: Variant, portrait: Path, sound: Path, seconds: float, folder: Path) -> LengthFigures:
    """Render a sound file of `seconds` in a new process."""
    output = folder / "length.mp4"
    start = cold_start(variant, portrait, sound, output)
    output.unlink()
    rest = start.file_s - start.first_frame_s
    return LengthFigures(
        sound_s=seconds,
        frames=start.frames,
        wall_s=start.file_s,
        real_time_factor=start.file_s / seconds,
        steady_fps=(start.frames - 1) / rest if rest > 0 else 0.0,
        peak_memory_mb=start.peak_memory_mb,
    )


def measure_threads(
    head: TalkingHead, variant: Variant, portrait: Path, sound: Path, jobs: int, folder: Path
) -> JobFigures:
    """Render the same video `jobs` times at once in threads that share one head."""
    opened = head.open_portrait(portrait)
    sampling = variant.sampling(head)
    stop = Event()

    def look(_done: int, _all: int) -> None:
        if stop.is_set():
            raise InterruptedError("bench: another video failed or was interrupted")

    def render(index: int) -> int:
        video = head(opened, sound, sampling=sampling, size=variant.size)
        video.save(folder / f"thread{index}.mp4", progress=look, keep_part=False)
        return len(video)

    with ThreadPoolExecutor(jobs, thread_name_prefix="bench") as pool:
        started = time.perf_counter()
        running = [pool.submit(render, index) for index in range(jobs)]
        try:
            frames = sum(video.result() for video in running)
        except BaseException:
            stop.set()
            raise
        wall_s = time.perf_counter() - started
    return JobFigures(jobs, "threads", frames, wall_s)


def measure_processes(variant: Variant, portrait: Path, sound: Path, jobs: int, folder: Path) -> JobFigures:
    """Render the same video `jobs` times at once, each in a process of its own that is warm."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(child(variant, portrait, sound, folder / f"process{index}.mp4", wait=True))
            for index in range(jobs)
        ]
        for running in children:
            running.wait_for("ready")
        started = time.perf_counter()
        for running in children:
            running.release()
        frames = sum(running.wait_for("saved")["frames"] for running in children)
        wall_s = time.perf_counter() - started
    return JobFigures(jobs, "processes", frames, wall_s)
