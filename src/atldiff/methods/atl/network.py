"""ATL-Diff, compact (arXiv 2507.12804): Landmark Generation Module, Landmarks-Guide Noise, 3D Identity Diffusion.

Start with `ATLModel`; `atl_inputs` says what the renderer sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.edges import edge_errors
from atldiff.diffusion.noise import guided_noise, window_noise
from atldiff.diffusion.sampler import interpolate, sample
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.generator import Generator
from atldiff.methods.atl.inputs import NEEDED, build_inputs, condition_channels, window_of
from atldiff.stages import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from atldiff.config import ATLConfig, RendererConfig
    from atldiff.video.cavity import MouthLayers
    from atldiff.video.window import WindowGeometry

MOUTH_WEIGHT = 2.0
"""Extra weight of the loss inside the mouth, over the weight of the mask."""
FROM_START = 0.3
"""Share of training times at t = 1, where every sampler starts and a one-step sampler ends."""
GUESSED = 0.5
"""Share of training states on the way to the network's own prediction at t = 1 instead of the real frame: that is where
a sampler's second step begins. Without it each further step moved away from the truth."""
EDGE_WEIGHT = 0.1
"""Weight of the error of neighbouring-pixel differences: it asks for teeth and lip edges, not their blurred mean."""


def training_time(random: np.random.Generator) -> float:
    """Draw a bridge time in [0, 1] to train at: 1 as often as FROM_START says, otherwise more of the noisy end."""
    return 1.0 if random.random() < FROM_START else float(random.random() ** 0.5)


class Renderer(nn.Module):
    """3D Identity Diffusion: a bridge from guided noise on the warped identity to the frames."""

    def __init__(self, config: RendererConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet3D(3 + condition_channels(config), config.stem, config.widths, config.blocks, head=config.head)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.unet.device

    @property
    def geometry(self) -> WindowGeometry:
        """The window, in template pixels."""
        return window_of(self.config)

    def window_noise(self, seed: int, first: int, frames: int) -> torch.Tensor:
        """Return the noise (1, 3, 1, S, S) of a video's frames, which all share it."""
        return window_noise(seed, 3, self.geometry.size)[None, :, None].to(self.device)

    def render_window(
        self, identity: torch.Tensor, source: np.ndarray, target: np.ndarray, noise: torch.Tensor, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change, each (B, 3, T, H, W) float32.

        identity: (B, 3, H, W) in [-1, 1] on the CPU. source: (B, 478, 2), target: (B, T, 478, 2) window pixels. noise:
        of `window_noise`. steps: network evaluations. layers: of each window's portrait, for a layered renderer.
        """
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, :, NEEDED], self.config, layers)
        with stage("denoise"), torch.inference_mode():
            prior, conditions, mask = (x.to(self.device) for x in (inputs.prior, inputs.conditions, inputs.mask))
            return self.render(prior, conditions, mask, noise, steps), inputs.prior

    def denoise(
        self, x: torch.Tensor, t: torch.Tensor, prior: torch.Tensor, conditions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict the frames x0 (B, 3, T, S, S) float32 from the bridge state x at times t (B,).

        Outside the mask the prediction is the prior: nothing is invented there, so nothing can flicker.
        """
        dtype = self.unet.dtype
        embedding = time_embedding(t, self.unet.embedding_width).to(dtype)
        residual = self.unet(torch.cat([x, conditions], dim=1).to(dtype), embedding)
        residual = residual.float()
        if self.config.chroma < 1:
            grey = residual.mean(dim=1, keepdim=True)
            residual = grey + self.config.chroma * (residual - grey)
        return prior + mask * residual

    def initial_noise(self, prior: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the start of denoising (B, 3, T, S, S): the prior with landmark-guided noise."""
        return guided_noise(prior, mask, noise, self.config.noise_floor, self.config.noise_gain)

    def render(
        self, prior: torch.Tensor, conditions: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """Sample frames (B, 3, T, S, S) in [-1, 1] in `steps` network evaluations. noise: (1, 3, 1, S, S)."""
        start = self.initial_noise(prior, mask, noise)
        return sample(lambda x, t: self.denoise(x, t, prior, conditions, mask), start, steps).clamp(-1, 1)

    @property
    def layered(self) -> bool:
        """Whether it is shown the two layers of a mouth."""
        return self.config.layered

    def render_batch(
        self, batch: dict[str, torch.Tensor], noise: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample a batch of `mouth_set`, float32; return its frames and the prior that they change."""
        return self.render(batch["prior"], batch["conditions"], batch["mask"], noise, steps), batch["prior"]

    def painted(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return what it paints of a batch of `mouth_set` where its states are, (B, 3, T, H, W); differentiable.

        States are where a sampler gets to: guided noise at t = 1, before that a mixture with what it predicts there.
        """
        prior, conditions, mask, noise = (batch[name].float() for name in ("prior", "conditions", "mask", "noise"))
        t = batch["time"]
        state = start = self.initial_noise(prior, mask, noise)
        later = t < 1
        if later.any():
            with torch.no_grad():
                guess = self.denoise(
                    start[later], torch.ones_like(t[later]), prior[later], conditions[later], mask[later]
                )
            state = start.clone()
            state[later] = interpolate(guess, start[later], t[later])
        return self.denoise(state, t, prior, conditions, mask)

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of `RendererSet`: means over its clips, so that equal parts average to it."""
        target, prior, conditions, mask, mouth, noise = (
            batch[name].float() for name in ("target", "prior", "conditions", "mask", "mouth", "noise")
        )
        t = batch["time"]
        start = self.initial_noise(prior, mask, noise)
        with torch.no_grad():
            guess = self.denoise(start, torch.ones_like(t), prior, conditions, mask)
            end = torch.where(batch["guessed"][:, None, None, None, None], guess, target)
        predicted = self.denoise(interpolate(end, start, t), t, prior, conditions, mask)
        weight = mask + MOUTH_WEIGHT * mouth
        weight = weight / (len(weight) * weight.sum(dim=(1, 2, 3, 4), keepdim=True))
        difference = predicted - target
        square = (weight * difference.square().mean(dim=1, keepdim=True)).sum()
        edges = edge_errors(difference, weight).sum()
        with torch.no_grad():
            before = (mouth * (prior - target).square()).sum()
            ratio = (mouth * difference.square()).sum() / before.clamp_min(1e-9)
        return {"loss": 10 * square + EDGE_WEIGHT * edges, "square": square, "edges": edges, "mouth_ratio": ratio}


class ATLModel(nn.Module):
    """The two trained parts of the default method; `generator.*` and `renderer.*` in the weights file."""

    def __init__(self, config: ATLConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config.generator)
        self.renderer = Renderer(config.renderer)
