"""DiffTalker (arXiv 2309.07509): a landmark completion transformer, and a latent diffusion steered by landmarks.

No code was published; `docs/difftalker.md` says what the authors state and what is reconstructed. Start with
`DiffTalkerModel`; `difftalker_inputs` says what the renderer sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from atldiff.diffusion import ddim
from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.codec import Codec
from atldiff.diffusion.control import ControlBranch
from atldiff.diffusion.edges import edge_errors
from atldiff.diffusion.noise import video_noise
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.methods.difftalker_inputs import NEEDED, build_inputs, hint_channels
from atldiff.stages import stage
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    import numpy as np

    from atldiff.config import DiffTalkerConfig, LatentRendererConfig
    from atldiff.diffusion.pretrained import DiffusersCodec, StableDiffusionDenoiser

MOUTH_WEIGHT = 2.0
"""Extra weight of the loss inside the mouth, over the weight of the mask."""
EDGE_WEIGHT = 1.0
"""Weight of the error of neighbouring-pixel differences against that of pixels, in decoded pictures."""
GUESSED = 0.5
"""Share of training states on the way to the network's own prediction at the noisiest level instead of the real
latents: that is where a sampler's second step begins."""

AnyCodec: TypeAlias = "Codec | DiffusersCodec"


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
        said = self.unet(seen.to(self.dtype), embedding.to(self.dtype), injections=control).float()
        return said + prior if self.sees_prior and self.schedule.prediction == "sample" else said


class LatentRenderer(nn.Module):
    """Latent diffusion of the window around the lower face.

    Where the picture may not change, latents are those of the warped portrait, so that neither skin nor background
    flickers; what comes out is a change of the portrait as the codec has it, so that the codec's blur never shows.
    """

    def __init__(self, config: LatentRendererConfig) -> None:
        super().__init__()
        self.config = config
        self.codec: AnyCodec
        self.denoiser: LatentDenoiser | StableDiffusionDenoiser
        if config.codec.kind == "compact":
            self.codec = Codec(config.codec)
        else:
            from atldiff.diffusion.pretrained import DiffusersCodec

            self.codec = DiffusersCodec(config.codec)
        if config.backend == "compact":
            self.denoiser = LatentDenoiser(config)
        else:
            from atldiff.diffusion.pretrained import StableDiffusionDenoiser

            self.denoiser = StableDiffusionDenoiser(config.base, hint_channels(config))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.denoiser.parameters()).device

    @property
    def geometry(self) -> WindowGeometry:
        """The window in template pixels, at the codec's resolution."""
        config = self.config
        return WindowGeometry(config.resolution, config.origin, config.resolution / config.side)

    def window_noise(self, seed: int, first: int, frames: int) -> torch.Tensor:
        """Return the noise of a video's frames from `first` on, (1, C, T, s, s), or (1, C, 1, s, s) where all share it.

        On the renderer's device.
        """
        config = self.config
        side = config.resolution // config.codec.factor
        return video_noise(config.noise_over_time, seed, first, frames, config.codec.channels, side).to(self.device)

    def render_window(
        self, identity: torch.Tensor, source: np.ndarray, target: np.ndarray, noise: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the frames of windows and the warped portrait that they change, each (B, 3, T, S, S) float32.

        identity: (B, 3, S, S) in [-1, 1] on the CPU. source: (B, 478, 2), target: (B, T, 478, 2) window pixels. noise:
        of `window_noise`. steps: network evaluations.
        """
        with stage("inputs"):
            inputs = build_inputs(identity, source[:, NEEDED], target[:, :, NEEDED], self.config)
        with stage("denoise"), torch.inference_mode():
            prior, hint, mask = (x.to(self.device) for x in (inputs.prior, inputs.hint, inputs.mask))
            return self.render(prior, hint, mask, noise, steps)

    def render(
        self, prior: torch.Tensor, hint: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample frames in `steps` network evaluations.

        prior: (B, 3, T, S, S) in [-1, 1]. hint, mask: as `LatentInputs` has them. noise: (B, C, T or 1, s, s).

        Returns:
            frames and the prior as the codec has it, each (B, 3, T, S, S) float32; outside the mask they are equal.
        """
        still = self.codec.encode(prior)
        control = self.denoiser.control(hint)
        start = noise.expand_as(still)
        latents = ddim.sample(
            lambda x, level: self.denoiser(x, level, control, still), start, self.config.schedule, steps
        )
        base = self.codec.decode(still)
        frames = self.codec.decode(still + self.latent_mask(mask) * (latents - still))
        return base + mask * (frames.clamp(-1, 1) - base), base

    def latent_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask (B, 1, T, S, S) at the side of the latents: each of them counts as its widest pixel."""
        factor = self.config.codec.factor
        return nn.functional.max_pool3d(mask.float(), (1, factor, factor))

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of `LatentSet`: means over its clips, so that equal parts average to it."""
        target, prior, hint, mask, mouth, noise = (
            batch[name].float() for name in ("target", "prior", "hint", "mask", "mouth", "noise")
        )
        schedule, level, guessed = self.config.schedule, batch["level"], batch["guessed"]
        with torch.no_grad():
            truth, still = self.codec.encode(torch.cat([target, prior])).chunk(2)
        alpha = ddim.alphas(schedule).to(level.device)
        end = noise.expand_as(truth)
        control = self.denoiser.control(hint)
        state, far = truth, end
        if guessed.any():
            with torch.no_grad():
                first = torch.full_like(level, schedule.train_steps - 1)
                said = self.denoiser(end, first, control, still)  # the sampler starts from noise alone
                ends = ddim.ends(said, end, alpha[first], schedule.prediction)
            which = guessed[:, None, None, None, None]
            state, far = (torch.where(which, guess, real) for guess, real in zip(ends, (truth, end), strict=True))
        noisy = ddim.at_level(state, far, alpha[level])
        said = self.denoiser(noisy, level, control, still)
        latents, _ = ddim.ends(said, noisy, alpha[level], schedule.prediction)
        inside = self.latent_mask(mask)
        weight = inside + MOUTH_WEIGHT * nn.functional.avg_pool3d(mouth, (1, *[self.config.codec.factor] * 2))
        weight = weight / (len(weight) * weight.sum(dim=(1, 2, 3, 4), keepdim=True).clamp_min(1e-6))
        wanted = ddim.target(truth, end, alpha[level], schedule.prediction)
        square = (weight * (said - wanted).square().mean(dim=1, keepdim=True)).sum()
        with torch.no_grad():
            before = (weight * (still - truth).square().mean(dim=1, keepdim=True)).sum()
            after = (weight * (latents - truth).square().mean(dim=1, keepdim=True)).sum()
        losses = {"loss": square, "latent_ratio": after / before.clamp_min(1e-9)}
        if not self.config.pixel_weight:
            return losses
        pixels, edges = self._picture_errors(still + inside * (latents - still), target, mask, mouth, level)
        return losses | {
            "loss": square + self.config.pixel_weight * (pixels + EDGE_WEIGHT * edges), "pixels": pixels,
            "edges": edges,
        }  # fmt: skip

    def _picture_errors(
        self, latents: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, mouth: torch.Tensor, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far a frame of each clip is off once decoded: its pixels, and their differences to neighbours.

        Which frame is a matter of the clip's level, which is random.
        """
        frame = (level % latents.shape[2])[:, None, None, None, None]
        latents, target, mask, mouth = (
            x.gather(2, frame.expand(-1, x.shape[1], 1, *x.shape[3:])) for x in (latents, target, mask, mouth)
        )
        difference = self.codec.decode(latents) - target  # (B, 3, 1, S, S)
        weight = mask + MOUTH_WEIGHT * mouth
        weight = weight / (len(weight) * weight.sum(dim=(1, 2, 3, 4), keepdim=True).clamp_min(1e-6))
        return (weight * difference.abs().mean(dim=1, keepdim=True)).sum(), edge_errors(difference, weight).sum()


class DiffTalkerModel(nn.Module):
    """The trained parts of DiffTalker; `generator.*` and `renderer.*` (its codec included) in the weights file."""

    def __init__(self, config: DiffTalkerConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = CompletionGenerator(config.generator)
        self.renderer = LatentRenderer(config.renderer)
