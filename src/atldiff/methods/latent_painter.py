"""Landmarks to frames by latent diffusion, whatever steers it: everything around the networks, in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.diffusion import ddim
from atldiff.diffusion.noise import video_noise
from atldiff.methods.latent_inputs import latent_size, latent_window
from atldiff.methods.window_frames import FrameStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atldiff.config import LatentDiffusionConfig, SampleConfig
    from atldiff.networks import Networks
    from atldiff.types import Portrait
    from atldiff.video.cavity import MouthLayers
    from atldiff.video.window import WindowGeometry
    from atldiff.workers import Workers


class LatentPainter:
    """What the latent painters have in common; each says how its denoiser is steered.

    Where the picture may not change, latents are those of the warped portrait, so that neither skin nor background
    flickers; what comes out is a change of the portrait as the codec has it, so that the codec's blur never shows.

    networks: `encode`, pictures (1, 3, T, H, W) to latents (1, C, T, h, w), and `decode`, the way back; `steer`, what
    steers the denoiser, made once a window; `denoiser`, of (noisy latents, level (1,) int64, latents of the warped
    portrait, what steers it ...) to the prediction by the schedule's type.
    """

    config: LatentDiffusionConfig

    def __init__(self, config: LatentDiffusionConfig, networks: Networks) -> None:
        self.config = config
        self.networks = networks
        self._encode, self._decode = networks["encode"], networks["decode"]
        self._steer, self._denoiser = networks["steer"], networks["denoiser"]

    @property
    def geometry(self) -> WindowGeometry:
        """The window in template pixels, at the codec's resolution."""
        return latent_window(self.config)

    @property
    def layered(self) -> bool:
        """Whether it is shown the two layers of a mouth."""
        return self.config.layered

    def open(
        self, portrait: Portrait, sampling: SampleConfig, seed: int, emotion: str | None = None,
        workers: Workers | None = None, background: np.ndarray | None = None,
    ) -> FrameStream:  # fmt: skip
        """Start rendering a portrait; as `Painter.open`."""
        return FrameStream(self, portrait, sampling, seed, workers, background)

    def window_noise(self, seed: int, first: int, frames: int) -> np.ndarray:
        """Return the noise of a video's frames from `first` on, (1, C, T, h, w), or (1, C, 1, h, w) where shared."""
        config = self.config
        return video_noise(config.noise_over_time, seed, first, frames, config.codec.channels, latent_size(config))

    def render_window(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change; as `WindowPainter.render_window`."""
        raise NotImplementedError

    def render_filmed(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return one window of frames that are each a portrait; as `WindowPainter.render_filmed`."""
        raise NotImplementedError

    def render_batch(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render a batch of the renderer's set, float32, as `sample` does."""
        raise NotImplementedError

    def sample(
        self, prior: np.ndarray, told: Sequence[np.ndarray], mask: np.ndarray, noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sample frames in `steps` network evaluations.

        prior: (B, 3, T, H, W) in [-1, 1]. told: of `steer`. mask: (B, 1, T, H, W). noise: (B, C, T or 1, h, w).

        Returns:
            frames and the prior as the codec has it, each (B, 3, T, H, W) float32; outside the mask they are equal.
        """
        (still,) = self._encode(np.ascontiguousarray(prior))

        def predict(x: np.ndarray, level: np.ndarray) -> np.ndarray:
            return self._denoiser(x, level, still, *told)[0]

        start = np.broadcast_to(noise, still.shape).copy()
        latents = ddim.sample(predict, start, self.config.schedule, steps)
        (base,) = self._decode(still)
        (frames,) = self._decode(still + self.latent_mask(mask) * (latents - still))
        return base + mask * (np.clip(frames, -1, 1) - base), base

    def latent_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask (B, 1, T, H, W) at the size of the latents: each of them counts as its widest pixel."""
        factor, (*rest, height, width) = self.config.codec.factor, mask.shape
        return mask.reshape(*rest, height // factor, factor, width // factor, factor).max(-1).max(-2)
