"""The whole benchmark: every variant in turn, over and over, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atldiff import checkpoint
from atldiff.audio.load import load_audio
from atldiff.bench.latency import StreamDelays, measure_stream
from atldiff.bench.measure import Rendering, render
from atldiff.bench.process import ColdStart, cold_start
from atldiff.bench.scaling import (
    JobFigures,
    LengthFigures,
    measure_length,
    measure_processes,
    measure_threads,
)
from atldiff.bench.sound import lasting, speech_like
from atldiff.bench.throughput import Throughput, count_gflop, measure_throughput
from atldiff.timebase import SAMPLE_RATE
from atldiff.video.sound import write_wav

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from atldiff.bench.plan import Plan, Variant
    from atldiff.config import SampleConfig
    from atldiff.pipeline import TalkingHead

    Note = Callable[[int, int, str], None]
    """Progress: how much is done, of how much, and what comes now."""

WARM_UP_S = 2.0
"""Sound of the first video of each variant, which is not measured."""
STREAM_S = 5.0
"""Sound that is streamed, at most."""


@dataclass(slots=True)
class Measured:
    """One variant and its runs so far. gflop: of one network evaluation of one window."""

    variant: Variant
    head: TalkingHead
    sampling: SampleConfig
    gflop: float
    renderings: list[Rendering] = field(default_factory=list)
    streams: list[StreamDelays] = field(default_factory=list)
    throughputs: list[Throughput] = field(default_factory=list)
    starts: list[ColdStart] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """Everything measured so far; grows while `measure` runs, so an interruption leaves what there is."""

    variants: list[Measured] = field(default_factory=list)
    lengths: list[LengthFigures] = field(default_factory=list)
    jobs: list[JobFigures] = field(default_factory=list)
    interrupted: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing was measured yet."""
        return not any(measured.renderings for measured in self.variants)


def measure(plan: Plan, folder: Path, results: Results, note: Note) -> None:
    """Measure a plan into `results`. folder: for files on the way.

    Raises:
        CheckpointError, MediaError, FaceNotFound, ValueError: bad input, before anything is measured.
        KeyboardInterrupt: with `results.interrupted` set.
    """
    try:
        _measure(plan, folder, results, note)
    except KeyboardInterrupt:
        results.interrupted = True
        raise


def _measure(plan: Plan, folder: Path, results: Results, note: Note) -> None:
    done = 0

    def next_part(what: str) -> None:
        nonlocal done
        note(done, plan.parts, what)
        done += 1

    voice = speech_like(max(plan.seconds, 1.0)) if plan.audio is None else load_audio(plan.audio).samples
    sound, out = _write_sound(voice, plan.seconds, folder / "sound.wav"), folder / "out.mp4"
    short = _write_sound(voice, min(plan.seconds, WARM_UP_S), folder / "short.wav")
    for variant in plan.variants:
        next_part(f"{variant.name}: loading, warming up")
        head = variant.open()
        sampling = variant.sampling(head)
        render(head, variant, plan.portrait, short, out)
        plain = checkpoint.load_model(checkpoint.locate(variant.renderer or variant.checkpoint)).eval()
        results.variants.append(Measured(variant, head, sampling, count_gflop(plain.renderer, sampling)))

    samples = lasting(voice, min(plan.seconds, STREAM_S))
    for run in range(1, plan.runs + 1):
        for each in results.variants:
            next_part(f"run {run}, {each.variant.name}: a video")
            each.renderings.append(render(each.head, each.variant, plan.portrait, sound, out))
        for each in results.variants:
            next_part(f"run {run}, {each.variant.name}: a stream")
            each.streams.append(_stream(each, plan.portrait, samples))
        for each in results.variants:
            next_part(f"run {run}, {each.variant.name}: the denoiser alone")
            each.throughputs.append(measure_throughput(each.head, each.sampling, each.gflop))
        for each in results.variants:
            next_part(f"run {run}, {each.variant.name}: a cold start")
            each.starts.append(cold_start(each.variant, plan.portrait, sound, out))

    base = results.variants[0]
    for seconds in plan.lengths:
        next_part(f"{seconds:g} s of sound")
        long = _write_sound(voice, seconds, folder / "long.wav")
        results.lengths.append(measure_length(base.variant, plan.portrait, long, seconds, folder))
    for jobs in plan.jobs:
        next_part(f"{jobs} at once, threads")
        results.jobs.append(measure_threads(base.head, base.variant, plan.portrait, sound, jobs, folder))
        next_part(f"{jobs} at once, processes")
        results.jobs.append(measure_processes(base.variant, plan.portrait, sound, jobs, folder))


def _stream(each: Measured, portrait: Path, samples: np.ndarray) -> StreamDelays:
    head = each.head
    opened = head.open_portrait(portrait)  # a stream starts when somebody speaks, the portrait has been there before
    return measure_stream(
        lambda packets: head.stream(opened, packets, sampling=each.sampling, size=each.variant.size), samples
    )


def _write_sound(voice: np.ndarray, seconds: float, path: Path) -> Path:
    write_wav(path, (lasting(voice, seconds)[:, None], SAMPLE_RATE), None)
    return path
