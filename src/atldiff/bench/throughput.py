"""How much of the machine's convolution speed the denoiser reaches: both in GFLOP/s, both on all of its threads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.export.record import Recorder
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.atl.inputs import condition_channels
from atldiff.methods.atl_published.network import PublishedRenderer
from atldiff.methods.build import open_painter
from atldiff.methods.difftalker.inputs import hint_channels
from atldiff.methods.difftalker.network import LatentRenderer
from atldiff.methods.latent_inputs import latent_size
from atldiff.methods.lmdiff.inputs import TOKENS, shown_channels
from atldiff.methods.lmdiff.network import TalkRenderer
from atldiff.types import Portrait

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import SampleConfig
    from atldiff.methods.models import FaceRenderer
    from atldiff.pipeline import TalkingHead
    from atldiff.workers import Workers

FACE_PX = 100.0
"""Outer-eye distance of the made-up face."""
CONVOLUTIONS = ((10, 128, 32), (16, 128, 32), (16, 256, 32), (16, 256, 16))
"""The 3x3 convolutions that say what the machine can do: pictures, channels in and out, side."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """GFLOP/s of the denoiser and of the fastest convolution, measured one right after the other."""

    denoiser_gflops: float
    convolution_gflops: float


def network_call(renderer: FaceRenderer, sampling: SampleConfig) -> Callable[[], torch.Tensor]:
    """Return one network evaluation of one window as the sampler does it, on random frames."""
    frames, device = sampling.window_frames, renderer.device
    if isinstance(renderer, LatentRenderer | TalkRenderer):
        return _latent_call(renderer, frames)
    paper = isinstance(renderer, PublishedRenderer)
    width, height = (renderer.config.side, renderer.config.side) if paper else renderer.geometry.size
    draw = lambda channels: torch.rand(1, channels, frames, height, width, device=device)  # noqa: E731 - used thrice
    if isinstance(renderer, PublishedRenderer):
        x = draw(3)
        level = torch.tensor([renderer.config.schedule.train_steps - 1], device=device)
        emotion = torch.zeros(1, dtype=torch.int64, device=device)
        with torch.inference_mode():
            tokens = renderer.describe(torch.rand(1, 3, height, width, device=device))
        return lambda: renderer.predict(x, level, tokens, emotion)
    x, prior, conditions, mask = draw(3), draw(3), draw(condition_channels(renderer.config)), draw(1)
    t = torch.ones(1, device=device)
    return lambda: renderer.denoise(x, t, prior, conditions, mask)


def _latent_call(renderer: LatentRenderer | TalkRenderer, frames: int) -> Callable[[], torch.Tensor]:
    """Return one evaluation of the denoiser on latents; what steers it and the codec run once a window, not a step."""
    config, device, (width, height) = renderer.config, renderer.device, renderer.geometry.size
    x = torch.randn(1, config.codec.channels, frames, *latent_size(config)[::-1], device=device)
    level = torch.tensor([config.schedule.train_steps - 1], device=device)
    with torch.inference_mode():
        if isinstance(renderer, TalkRenderer):
            source, target = (torch.rand(1, *more, len(TOKENS), 2, device=device) for more in ((), (frames,)))
            shown = torch.rand(1, shown_channels(renderer.config), frames, height, width, device=device)
            told = renderer.denoiser.listen(shown, x[:, :1], x[:, :, 0], source, target)
        else:
            hint = torch.rand(1, hint_channels(renderer.config), frames, height, width, device=device)
            told = renderer.denoiser.control(hint)
    return lambda: renderer.denoiser(x, level, told, x)


def count_gflop(renderer: FaceRenderer, sampling: SampleConfig) -> float:
    """Return the GFLOP of one network evaluation of one window: convolutions and products, two a multiplication.

    renderer: a torch module; what another runtime makes of it is credited with the same work.
    """
    from torch.utils.flop_counter import FlopCounterMode

    call = network_call(renderer, sampling)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def measure_throughput(head: TalkingHead, sampling: SampleConfig, gflop: float, seconds: float = 1.0) -> Throughput:
    """Run network evaluations, then convolutions, on every thread of the workers side by side; keep the fastest.

    gflop: of one evaluation, by `count_gflop`. seconds: spent on each of the two.
    """
    device = torch.device(head.compute.device)
    dtype = torch.bfloat16 if head.compute.dtype == "bfloat16" else torch.float32  # PyTorch has none of 8 bits
    denoiser, inputs = head.painter.networks["denoiser"], denoiser_inputs(head, sampling)
    speed = gflop / _fastest_s(lambda: denoiser(*inputs), head.workers, device, seconds)
    best = 0.0
    for pictures, channels, side in CONVOLUTIONS:
        x = torch.rand(pictures, channels, side, side, device=device, dtype=dtype)
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype)
        layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        work = 2 * 9 * pictures * channels**2 * side**2 / 1e9
        best = max(best, work / _fastest_s(lambda x=x, layer=layer: layer(x), head.workers, device, seconds / 4))
    return Throughput(speed, best)


def denoiser_inputs(head: TalkingHead, sampling: SampleConfig) -> tuple[np.ndarray, ...]:
    """Return what a head's denoiser is called with for a whole window of a made-up face that does not move."""
    denoiser = Recorder(head.painter.networks["denoiser"])
    points = (FACE_PX * mean_shape() + FACE_PX * 2.5).astype(np.float32)
    grey = Portrait(np.full((5 * round(FACE_PX), 5 * round(FACE_PX), 3), 128, np.uint8), points)
    painter = open_painter(head.painter.config, {**head.painter.networks, "denoiser": denoiser})
    for _ in painter.open(grey, sampling, 0).push(np.repeat(points[None], sampling.window_frames, 0)):
        pass
    return denoiser.calls[-1]


def _fastest_s(call: Callable[[], object], workers: Workers, device: torch.device, seconds: float) -> float:
    """Return the seconds a call takes when every worker makes calls: the best of rounds of about 50 ms."""

    def several(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def together(times: int) -> float:
        started = time.perf_counter()
        for done in [workers.submit(several, times) for _ in range(workers.count)]:
            done.result()
        return (time.perf_counter() - started) / (times * workers.count)

    together(1)  # the first call prepares the kernels
    times = max(1, round(0.05 / (together(1) * workers.count)))
    stop = time.perf_counter() + seconds
    best = together(times)
    while time.perf_counter() < stop:
        best = min(best, together(times))
    return best
