"""Landmarks to frames by DiffTalker's renderer, steered by a control branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atldiff.methods.difftalker.inputs import build_inputs
from atldiff.methods.latent_inputs import NEEDED
from atldiff.methods.latent_painter import LatentPainter
from atldiff.methods.mouth_layers import one_window
from atldiff.stages import stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from atldiff.config import LatentRendererConfig
    from atldiff.video.cavity import MouthLayers


class DiffTalkerPainter(LatentPainter):
    """Latent diffusion of the window around the lower face; `steer` is of a hint, as `LatentInputs` has it."""

    config: LatentRendererConfig

    def render_window(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change; as `WindowPainter.render_window`."""
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, :, NEEDED], self.config, layers=layers)
        with stage("denoise"):
            return self.sample(inputs.prior, self._steer(inputs.hint), inputs.mask, noise, steps)

    def render_filmed(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return one window of frames that are each a portrait; as `WindowPainter.render_filmed`."""
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, None, NEEDED], self.config, layers=layers)
            prior, hint, mask = map(one_window, (inputs.prior, inputs.hint, inputs.mask))
        with stage("denoise"):
            return self.sample(prior, self._steer(hint), mask, noise, steps)

    def render_batch(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Render a batch of `LatentSet`, float32, as `sample` does."""
        return self.sample(batch["prior"], self._steer(batch["hint"]), batch["mask"], noise, steps)
