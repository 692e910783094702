"""One video from files to a file, timed: end to end, to its first frame, and stage by stage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atldiff.stages import StageTimes

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.bench.plan import Variant
    from atldiff.pipeline import TalkingHead


@dataclass(frozen=True, slots=True)
class Rendering:
    """What one video took.

    sound_s: the sound's length. wall_s: from the call to the finished file. first_frame_s: from the call to the first
    frame. cpu_s: the process's time on all cores. stages: seconds of each stage, of all threads.
    """

    frames: int
    sound_s: float
    wall_s: float
    first_frame_s: float
    cpu_s: float
    stages: dict[str, float]

    @property
    def real_time_factor(self) -> float:
        """Seconds of work a second of sound: below one is faster than real time."""
        return self.wall_s / self.sound_s

    @property
    def frames_per_second(self) -> float:
        """Frames of the video over its wall time."""
        return self.frames / self.wall_s

    def stage_ms(self, name: str) -> float:
        """Return a stage's work in milliseconds a frame, of all threads."""
        return 1000 * self.stages[name] / self.frames


def render(head: TalkingHead, variant: Variant, portrait: Path, sound: Path, output: Path) -> Rendering:
    """Make one video: the portrait's face is looked for, the sound decoded, the frames encoded."""
    first_frame_s = 0.0

    def note(done: int, _: int) -> None:
        nonlocal first_frame_s
        if done == 1:
            first_frame_s = time.perf_counter() - started

    times = StageTimes()
    with times.listening():
        started, cpu = time.perf_counter(), time.process_time()
        video = head(portrait, sound, sampling=variant.sampling(head), size=variant.size)
        # Every frame has reached main memory, so a GPU has nothing left to do.
        video.save(output, progress=note, keep_part=False)
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return Rendering(len(video), float(video.duration), wall_s, first_frame_s, cpu_s, dict(times.seconds))
