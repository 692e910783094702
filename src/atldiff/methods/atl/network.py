"""ATL-Diff, compact (arXiv 2507.12804): Landmark Generation Module, Landmarks-Guide Noise, 3D Identity Diffusion.

Start with `ATLModel`; `inputs` says what the renderer sees, `painter` how it renders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.edges import edge_errors
from atldiff.diffusion.noise import guided_noise
from atldiff.diffusion.sampler import interpolate
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.generator import Generator
from atldiff.methods.atl.inputs import changed, condition_channels, window_of

if TYPE_CHECKING:
    import numpy as np

    from atldiff.config import ATLConfig, RendererConfig
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


class Denoiser(nn.Module):
    """The U-Net as inference calls it, whatever its number format."""

    def __init__(self, unet: UNet3D) -> None:
        super().__init__()
        self.unet = unet
        self.training = unet.training  # an exporter puts back what it finds

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Return what is added to the prior, (B, 3, T, H, W); x: state and conditions (B, C, T, H, W)."""
        dtype = self.unet.dtype
        return self.unet(x.to(dtype), embedding.to(dtype)).float()


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

    @property
    def layered(self) -> bool:
        """Whether it is shown the two layers of a mouth."""
        return self.config.layered

    def networks(self) -> dict[str, nn.Module]:
        """Return what inference calls: `denoiser`."""
        return {"denoiser": Denoiser(self.unet)}

    def denoise(
        self, x: torch.Tensor, t: torch.Tensor, prior: torch.Tensor, conditions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict the frames x0 (B, 3, T, S, S) float32 from the bridge state x at times t (B,).

        Outside the mask the prediction is the prior: nothing is invented there, so nothing can flicker.
        """
        dtype = self.unet.dtype
        embedding = time_embedding(t, self.unet.embedding_width).to(dtype)
        residual = self.unet(torch.cat([x, conditions], dim=1).to(dtype), embedding).float()
        return changed(prior, mask, residual, self.config)

    def initial_noise(self, prior: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the start of denoising (B, 3, T, S, S): the prior with landmark-guided noise."""
        return guided_noise(prior, mask, noise, self.config.noise_floor, self.config.noise_gain)

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
