"""The figures of a benchmark as plain values for JSON, and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from atldiff.bench.compare import paired_ratios, spread
from atldiff.stages import STAGES
from atldiff.timebase import FPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atldiff.bench.plan import Plan
    from atldiff.bench.run import Measured, Results
    from atldiff.pipeline import TalkingHead

COMPARED: dict[str, Callable[[Measured], list[float]]] = {
    "wall": lambda each: [run.wall_s for run in each.renderings],
    "denoise": lambda each: [run.stage_ms("denoise") for run in each.renderings],
    "generator": lambda each: [run.stage_ms("generator") for run in each.renderings],
    "first_frame": lambda each: [run.first_frame_s for run in each.renderings],
    "stream_first_frame": lambda each: [run.first_ms for run in each.streams],
    "load": lambda each: [run.load_s for run in each.starts],
}
"""What variants are compared in, and each one's runs."""


def as_dict(
    plan: Plan, results: Results, machine: dict[str, Any], revision: str | None, command: str
) -> dict[str, Any]:
    """Return everything as plain JSON values. A figure is {median, low, high, runs}."""
    from atldiff import __version__

    base, others = results.variants[:1], results.variants[1:]
    return {
        "version": __version__,
        "revision": revision,
        "command": command,
        "interrupted": results.interrupted,
        "machine": machine,
        "portrait": str(plan.portrait),
        "audio": None if plan.audio is None else str(plan.audio),
        "seconds": plan.seconds,
        "runs": plan.runs,
        "variants": [_variant(each) for each in results.variants],
        "ratios": {each.variant.name: _ratios(base[0], each) for each in others},
        "lengths": [asdict(length) for length in results.lengths],
        "jobs": [
            {**asdict(job), "fps": job.frames_per_second, "real_time_videos": job.real_time_videos}
            for job in results.jobs
        ],
    }


def _variant(each: Measured) -> dict[str, Any]:
    sampling, head = each.sampling, each.head
    hop = sampling.window_frames - sampling.shared_frames
    stages = {name: _figure(run.stage_ms(name) for run in each.renderings) for name in STAGES}
    there = {name: figure for name, figure in stages.items() if figure and figure["median"] > 0}
    work = sum(figure["median"] for figure in there.values())
    return {
        **asdict(each.variant),
        "device": head.compute.device,
        "dtype": head.compute.dtype,
        "backend": _backend(head),
        "windows_at_once": head.workers.count,
        "steps": sampling.steps,
        "window_ms": sampling.window_frames * 1000 // FPS,
        "hop_ms": hop * 1000 // FPS,
        "gflop_per_frame": each.gflop * sampling.steps / hop,
        "end_to_end": {
            "wall_s": _figure(run.wall_s for run in each.renderings),
            "rtf": _figure(run.real_time_factor for run in each.renderings),
            "fps": _figure(run.frames_per_second for run in each.renderings),
            "first_frame_ms": _figure(1000 * run.first_frame_s for run in each.renderings),
            "busy_cores": _figure(run.cpu_s / run.wall_s for run in each.renderings),
        },
        "stages": {
            name: {"ms_per_frame": figure, "share": figure["median"] / work} for name, figure in there.items()
        },
        "stream": {
            "sound_before_first_frame_ms": _figure(run.sound_ms for run in each.streams),
            "first_frame_ms": _figure(run.first_ms for run in each.streams),
            "later_window_median_ms": _figure(run.later_median_ms for run in each.streams),
            "later_window_worst_ms": _figure(run.later_worst_ms for run in each.streams),
            "whole_window_worst_ms": _figure(run.whole_worst_ms for run in each.streams),
        },
        "denoiser": {
            "denoiser_gflops": _figure(run.denoiser_gflops for run in each.throughputs),
            "convolution_gflops": _figure(run.convolution_gflops for run in each.throughputs),
            "ratio": _figure(run.denoiser_gflops / run.convolution_gflops for run in each.throughputs),
        },
        "cold": {
            "import_ms": _figure(1000 * run.import_s for run in each.starts),
            "import_all_ms": _figure(1000 * run.import_all_s for run in each.starts),
            "load_ms": _figure(1000 * run.load_s for run in each.starts),
            "first_frame_s": _figure(run.first_frame_s for run in each.starts),
            "file_s": _figure(run.file_s for run in each.starts),
            "peak_memory_mb": _figure(run.peak_memory_mb for run in each.starts),
            "peak_gpu_memory_mb": _figure(run.peak_gpu_memory_mb for run in each.starts),
        },
    }  # fmt: skip


def _backend(head: TalkingHead) -> str:
    return f"{head.compute.backend} int8" if head.compute.dtype == "int8" else head.compute.backend


def _figure(values: Iterable[float | None]) -> dict[str, Any] | None:
    there = [value for value in values if value is not None]
    return asdict(spread(there)) if there else None


def _ratios(base: Measured, other: Measured) -> dict[str, Any]:
    found = {name: paired_ratios(runs(base), runs(other)) for name, runs in COMPARED.items()}
    return {name: None if ratio is None else asdict(ratio) for name, ratio in found.items()}
