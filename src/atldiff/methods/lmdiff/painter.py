"""Landmarks to frames by LMDiff's renderer, steered by TalkFormer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.methods.latent_painter import LatentPainter
from atldiff.methods.lmdiff.inputs import NEEDED, TOKENS, build_inputs, in_window_widths
from atldiff.methods.mouth_layers import one_window
from atldiff.stages import stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atldiff.config import TalkRendererConfig
    from atldiff.video.cavity import MouthLayers


class LMDiffPainter(LatentPainter):
    """Latent diffusion of the window around the lower face.

    `steer` is of what is shown of the target (1, C, T, H, W), the mask (1, 1, T, h, w) at the size of the latents, the
    portrait's window (1, 3, H, W), its landmarks (1, P, 2) and the wanted ones (1, T, P, 2) in widths of the window.
    """

    config: TalkRendererConfig

    def render_window(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change; as `WindowPainter.render_window`."""
        with stage("inputs"):
            source, target = source[:, NEEDED], target[:, :, NEEDED]
            inputs = build_inputs(identity, source, target, self.config, layers=layers)
            still, wanted = (points[..., TOKENS, :].astype(np.float32) for points in (source, target))
        with stage("denoise"):
            given = {"reference": identity, "source": still, "points": wanted}
            return self.render_batch(
                given | {"prior": inputs.prior, "shown": inputs.shown, "mask": inputs.mask}, noise, steps
            )

    def render_filmed(
        self, identity: np.ndarray, source: np.ndarray, target: np.ndarray, noise: np.ndarray, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return one window of frames that are each a portrait; as `WindowPainter.render_filmed`."""
        with stage("inputs"):
            source, target = source[:, NEEDED], target[:, None, NEEDED]
            inputs = build_inputs(identity, source, target, self.config, layers=layers)
            middle = len(source) // 2  # one portrait is described to the network
            still, wanted = (points[..., TOKENS, :].astype(np.float32) for points in (source[middle], target[:, 0]))
        with stage("denoise"):
            shown = {name: one_window(getattr(inputs, name)) for name in ("prior", "shown", "mask")}
            given = {"reference": identity[middle][None], "source": still[None], "points": wanted[None]}
            return self.render_batch({**shown, **given}, noise, steps)

    def render_batch(
        self, batch: Mapping[str, np.ndarray], noise: np.ndarray, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sample frames in `steps` network evaluations, as `sample` does.

        batch: float32, prior, shown, mask as `TalkInputs` has them; reference (B, 3, H, W) the portrait's window;
        source (B, P, 2) and points (B, T, P, 2) the landmarks of the portrait and the wanted ones, window pixels.
        """
        source, points = (in_window_widths(batch[name], self.config) for name in ("source", "points"))
        told = self._steer(
            np.ascontiguousarray(batch["shown"]), self.latent_mask(batch["mask"]), batch["reference"], source, points
        )
        return self.sample(batch["prior"], told, batch["mask"], noise, steps)
