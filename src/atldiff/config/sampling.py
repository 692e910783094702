"""How frames are sampled: presets of speed against quality, for each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atldiff.config.check import check

Preset = Literal["fast", "balanced", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How frames are sampled; not part of a checkpoint."""

    steps: int = 2
    """Network evaluations a frame. 1 to 64."""
    window_frames: int = 4
    """Frames sampled together. 4 to 64."""
    shared_frames: int = 0
    """Frames that neighbouring windows both sample and cross-fade. 0 to half of window_frames."""
    every: int = 1
    """Layered renderers of the mouth paint every n-th frame and a window's last; what is painted in between is
    interpolated, while lips and head move in every frame. 1 to 4. Others, and exported networks, paint all."""

    lent_teeth: bool = True
    """Renderers of the mouth: an upper row from a public-domain portrait stands where a portrait and its references
    show no teeth; without, they are the network's."""

    def __post_init__(self) -> None:
        check(1 <= self.steps <= 64, "steps", self.steps, "1 to 64")
        check(4 <= self.window_frames <= 64, "window_frames", self.window_frames, "4 to 64")
        check(0 <= self.shared_frames <= self.window_frames // 2, "shared_frames", self.shared_frames,
               f"0 to {self.window_frames // 2}")  # fmt: skip
        check(1 <= self.every <= 4, "every", self.every, "1 to 4")


PRESETS: dict[Preset, SampleConfig] = {
    "fast": SampleConfig(steps=1),
    "balanced": SampleConfig(steps=2),
    "best": SampleConfig(steps=4),
}

LAYERED_SAMPLING: dict[Preset, SampleConfig] = {
    "fast": SampleConfig(steps=1, every=2),
    "balanced": SampleConfig(steps=1),
    "best": SampleConfig(steps=2),
}

PAPER_SAMPLING: dict[Preset, SampleConfig] = {
    "fast": SampleConfig(steps=1, window_frames=32, shared_frames=8),
    "balanced": SampleConfig(steps=2, window_frames=32, shared_frames=8),
    "best": SampleConfig(steps=8, window_frames=32, shared_frames=8),  # as published
}

LATENT_SAMPLING: dict[Preset, SampleConfig] = {
    "fast": SampleConfig(steps=1),
    "balanced": SampleConfig(steps=2),
    "best": SampleConfig(steps=8),
}
