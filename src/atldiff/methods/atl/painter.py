"""Landmarks to frames by the compact ATL-Diff renderer: everything around its network, in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.diffusion.noise import guided_noise, window_noise
from atldiff.diffusion.sampler import sample, time_features
from atldiff.methods.atl.inputs import NEEDED, build_inputs, changed, window_of
from atldiff.methods.mouth_layers import one_window
from atldiff.methods.window_frames import FrameStream
from atldiff.stages import stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atldiff.config import RendererConfig, SampleConfig
    from atldiff.networks import Networks
    from atldiff.types import Portrait
    from atldiff.video.cavity import MouthLayers
    from atldiff.video.window import WindowGeometry
    from atldiff.workers import Workers


class ATLPainter:
    """3D Identity Diffusion: a bridge from guided noise on the warped identity to the frames.

    networks: `denoiser`, of states with their conditions (1, C, T, H, W) and features of the time (1, E) to what is
    added to the prior, (1, 3, T, H, W).
    """

    def __init__(self, config: RendererConfig, networks: Networks) -> None:
        self.config = config
        self.networks = networks
        self._denoiser = networks["denoiser"]

    @property
    def geometry(self) -> WindowGeometry:
        """The window, in template pixels."""
        return window_of(self.config)

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
        """Return the noise (1, 3, 1, H, W) of a video's frames, which all share it."""
        return window_noise(seed, 3, self.geometry.size)[None, :, None]

    def render_window(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change; as `WindowPainter.render_window`."""
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, :, NEEDED], self.config, layers)
        with stage("denoise"):
            return self.render(inputs.prior, inputs.conditions, inputs.mask, noise, steps), inputs.prior

    def render_filmed(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return one window of frames that are each a portrait; as `WindowPainter.render_filmed`."""
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, None, NEEDED], self.config, layers)
            prior, conditions, mask = map(one_window, (inputs.prior, inputs.conditions, inputs.mask))
        with stage("denoise"):
            return self.render(prior, conditions, mask, noise, steps), prior

    def render(
        self, prior: np.ndarray, conditions: np.ndarray, mask: np.ndarray, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        """Sample frames (B, 3, T, H, W) in [-1, 1] in `steps` network evaluations.

        prior, conditions, mask: as `RendererInputs` has them. noise: (1, 3, 1, H, W).
        """
        config = self.config
        start = guided_noise(prior, mask, noise, config.noise_floor, config.noise_gain)
        seen = np.concatenate([start, conditions], axis=1)

        def denoise(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            seen[:, :3] = x
            (residual,) = self._denoiser(seen, time_features(t, 2 * config.widths[0]))
            return changed(prior, mask, residual, config)

        return np.clip(sample(denoise, start, steps), -1, 1)

    def render_batch(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sample a batch of `mouth_set` or `RendererSet`, float32; return its frames and the prior that they change."""
        return self.render(batch["prior"], batch["conditions"], batch["mask"], noise, steps), batch["prior"]
