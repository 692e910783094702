"""Landmarks to frames by the published renderer: everything around its networks, in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.diffusion import ddim
from atldiff.diffusion.noise import video_noise
from atldiff.methods.atl_published.frames import PublishedFrameStream
from atldiff.methods.atl_published.inputs import guided_image

if TYPE_CHECKING:
    from atldiff.config import IdentityDiffusionConfig, SampleConfig
    from atldiff.networks import Networks
    from atldiff.types import Portrait
    from atldiff.workers import Workers


class PublishedPainter:
    """3D Identity Diffusion: frames of whole faces from the identity picture with landmark-guided noise.

    networks: `describe`, identity pictures (1, 3, S, S) in [0, 1] to tokens (1, N, W); `denoiser`, of (noisy frames (1,
    3, T, S, S), level (1,) int64, tokens, emotion (1,) int64) to the prediction by the schedule's type.
    """

    def __init__(self, config: IdentityDiffusionConfig, networks: Networks) -> None:
        self.config = config
        self.networks = networks
        self._describe, self._denoiser = networks["describe"], networks["denoiser"]

    def open(
        self, portrait: Portrait, sampling: SampleConfig, seed: int, emotion: str | None = None,
        workers: Workers | None = None, background: np.ndarray | None = None,
    ) -> PublishedFrameStream:  # fmt: skip
        """Start rendering a portrait; as `Painter.open`."""
        return PublishedFrameStream(self, portrait, sampling, seed, emotion, workers, background)

    def frame_noise(self, seed: int, first: int, frames: int) -> np.ndarray:
        """Return the noise of a video's frames from `first` on, (1, 3, T, S, S), or (1, 3, 1, S, S) where shared."""
        return video_noise(self.config.noise_over_time, seed, first, frames, 3, self.config.side)

    def describe(self, identity: np.ndarray) -> np.ndarray:
        """Return identity tokens (B, N, W) of pictures (B, 3, S, S) in [0, 1]."""
        return self._describe(identity)[0]

    def render(
        self, prior: np.ndarray, mask: np.ndarray, tokens: np.ndarray, emotion: np.ndarray, noise: np.ndarray,
        steps: int,
    ) -> np.ndarray:  # fmt: skip
        """Sample frames (B, 3, T, S, S) in [0, 1] in `steps` network evaluations.

        prior: (B, 3, T, S, S). mask: (B, 1, T, S, S). tokens: (B, N, W) of `describe`. emotion: (B,) int64. noise: as
        prior, or one of all frames.
        """

        def predict(x: np.ndarray, level: np.ndarray) -> np.ndarray:
            return self._denoiser(x, level, tokens, emotion)[0]

        start = guided_image(prior, mask, noise, self.config)
        return np.clip(ddim.sample(predict, start, self.config.schedule, steps), 0, 1)
