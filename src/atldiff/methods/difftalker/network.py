"""DiffTalker (arXiv 2309.07509): a landmark completion transformer, and a latent diffusion steered by landmarks.

No code was published; `docs/difftalker.md` says what the authors state and what is reconstructed. Start with
`DiffTalkerModel`; `inputs` says what the renderer sees, `painter` how it renders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.control import ControlBranch
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.methods.difftalker.inputs import hint_channels
from atldiff.methods.latent import LatentDiffusion
from atldiff.torch_networks import Call

if TYPE_CHECKING:
    from atldiff.config import DiffTalkerConfig, LatentRendererConfig
    from atldiff.diffusion.pretrained import StableDiffusionDenoiser


class LatentDenoiser(nn.Module):
    """Our U-Net on latents and its control branch.

    Where the portrait is shown warped, its latents go in beside the noise, and a prediction of type `sample` is what
    changes of them: a fresh network returns the warped portrait.
    """

    def __init__(self, config: LatentRendererConfig) -> None:
        super().__init__()
        self.schedule = config.schedule
        self.sees_prior = config.reference != "still"
        channels = config.codec.channels
        self.unet = UNet3D(
            channels * (2 if self.sees_prior else 1), 1, config.widths, config.blocks, channels_out=channels
        )
        self.branch = ControlBranch(hint_channels(config), config.codec.factor, config.widths, config.control_blocks)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        return self.unet.dtype

    def control(self, hint: torch.Tensor) -> list[torch.Tensor]:
        """Return what the branch says of a hint (B, C, T, S, S): once a window, whatever the number of steps."""
        return self.branch(hint.to(self.dtype))

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, control: list[torch.Tensor], prior: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction, (B, C, T, s, s) float32, by the schedule's type.

        x: noisy latents, the same shape. level: (B,) int64. control: of `control`. prior: the warped portrait's
        latents, likewise.
        """
        embedding = time_embedding(level.float() / self.schedule.train_steps, self.unet.embedding_width)
        seen = torch.cat([x, prior], dim=1) if self.sees_prior else x
        control = [added.to(self.dtype) for added in control]
        said = self.unet(seen.to(self.dtype), embedding.to(self.dtype), injections=control).float()
        return said + prior if self.sees_prior and self.schedule.prediction == "sample" else said

    def steered(
        self, x: torch.Tensor, level: torch.Tensor, prior: torch.Tensor, *control: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction as inference asks for it: as `forward`, what steers it one by one at the end."""
        return self(x, level, list(control), prior)


class LatentRenderer(LatentDiffusion):
    """Latent diffusion of the window around the lower face, steered by landmarks through a control branch."""

    config: LatentRendererConfig
    denoiser: LatentDenoiser | StableDiffusionDenoiser

    def __init__(self, config: LatentRendererConfig) -> None:
        super().__init__(config)
        if config.backend == "compact":
            self.denoiser = LatentDenoiser(config)
        else:
            from atldiff.diffusion.pretrained import StableDiffusionDenoiser

            self.denoiser = StableDiffusionDenoiser(config.base, hint_channels(config))

    def networks(self) -> dict[str, nn.Module]:
        """Return what inference calls: `encode`, `decode`, `steer` and `denoiser`."""
        denoiser = self.denoiser
        return {**super().networks(), "steer": Call(denoiser, "control"), "denoiser": Call(denoiser, "steered")}

    def painted(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return what it paints of a batch of `latent_mouth_set` where its states are, (B, 3, T, H, W)."""
        with torch.no_grad():
            still = self.codec.encode(batch["prior"].float())
        return self.changed(batch, self.denoiser.control(batch["hint"].float()), still)

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of `LatentSet`: means over its clips, so that equal parts average to it."""
        with torch.no_grad():
            truth, still = self.codec.encode(torch.cat([batch["target"], batch["prior"]]).float()).chunk(2)
        return self.errors(batch, self.denoiser.control(batch["hint"].float()), truth, still)


class DiffTalkerModel(nn.Module):
    """The trained parts of DiffTalker; `generator.*` and `renderer.*` (its codec included) in the weights file."""

    def __init__(self, config: DiffTalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = CompletionGenerator(config.generator)
        self.renderer = LatentRenderer(config.renderer)
