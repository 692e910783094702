"""Latent diffusion of the window around the lower face, whatever steers it: its networks and its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from atldiff.diffusion import ddim
from atldiff.diffusion.codec import Codec
from atldiff.diffusion.edges import edge_errors
from atldiff.methods.latent_inputs import latent_window
from atldiff.torch_networks import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.config import CodecConfig, LatentDiffusionConfig
    from atldiff.diffusion.pretrained import DiffusersCodec
    from atldiff.video.window import WindowGeometry

    Judge: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

MOUTH_WEIGHT = 2.0
"""Extra weight of the loss inside the mouth, over the weight of the mask."""
EDGE_WEIGHT = 1.0
"""Weight of the error of neighbouring-pixel differences against that of pixels, in decoded pictures."""
GUESSED = 0.5
"""Share of training states on the way to the network's own prediction at the noisiest level instead of the real
latents: that is where a sampler's second step begins."""

AnyCodec: TypeAlias = "Codec | DiffusersCodec"


def open_codec(config: CodecConfig) -> AnyCodec:
    """Return the codec that a configuration describes: ours with fresh weights, or one of diffusers with its own."""
    if config.kind == "compact":
        return Codec(config)
    from atldiff.diffusion.pretrained import DiffusersCodec

    return DiffusersCodec(config)


class LatentDiffusion(nn.Module):
    """What the latent renderers have in common; `latent_painter` says how they render.

    denoiser: (noisy latents, level (B,) int64, told, latents of the warped portrait) to the prediction, (B, C, T, s, s)
    float32, by the schedule's type; `told` is whatever steers it, made once a window.
    """

    config: LatentDiffusionConfig
    codec: AnyCodec
    denoiser: nn.Module

    def __init__(self, config: LatentDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = open_codec(config.codec)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.denoiser.parameters()).device

    @property
    def geometry(self) -> WindowGeometry:
        """The window in template pixels, at the codec's resolution."""
        return latent_window(self.config)

    @property
    def layered(self) -> bool:
        """Whether it is shown the two layers of a mouth."""
        return self.config.layered

    def networks(self) -> dict[str, nn.Module]:
        """Return what inference calls of every one: `encode` and `decode`; a subclass adds `steer` and `denoiser`."""
        return {"encode": Call(self.codec, "encode"), "decode": Call(self.codec, "decode")}

    def latent_mask(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask (B, 1, T, S, S) at the side of the latents: each of them counts as its widest pixel."""
        factor = self.config.codec.factor
        return nn.functional.max_pool3d(mask.float(), (1, factor, factor))

    def errors(
        self, batch: dict[str, torch.Tensor], told: Any, truth: torch.Tensor, still: torch.Tensor,
        judge: Judge | None = None,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Return the losses of a batch: means over its clips, so that equal parts average to it.

        batch: with `target`, `mask`, `mouth`, `noise`, `level` and `guessed`. told: what steers the denoiser. truth,
        still: latents (B, C, T, s, s) of the target and of the warped portrait. judge: what else there is to say of the
        predicted latents, as they are composited, (B, C, T, s, s); told as `sync`, which is no part of `loss`.
        """
        target, mask, mouth, noise = (batch[name].float() for name in ("target", "mask", "mouth", "noise"))
        schedule, level, guessed = self.config.schedule, batch["level"], batch["guessed"]
        alpha = torch.from_numpy(ddim.alphas(schedule)).to(level.device)
        end = noise.expand_as(truth)
        state, far = truth, end
        if guessed.any():
            with torch.no_grad():
                first = torch.full_like(level, schedule.train_steps - 1)
                said = self.denoiser(end, first, told, still)  # the sampler starts from noise alone
                ends = ddim.ends(said, end, alpha[first], schedule.prediction)
            which = guessed[:, None, None, None, None]
            state, far = (torch.where(which, guess, real) for guess, real in zip(ends, (truth, end), strict=True))
        noisy = ddim.at_level(state, far, alpha[level])
        said = self.denoiser(noisy, level, told, still)
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
        composited = still + inside * (latents - still)
        if judge is not None:
            losses["sync"] = judge(composited)
        if not self.config.pixel_weight:
            return losses
        pixels, edges = self._picture_errors(composited, target, mask, mouth, level)
        return losses | {
            "loss": square + self.config.pixel_weight * (pixels + EDGE_WEIGHT * edges), "pixels": pixels,
            "edges": edges,
        }  # fmt: skip

    def changed(self, batch: dict[str, torch.Tensor], told: Any, still: torch.Tensor) -> torch.Tensor:
        """Return the pictures that it predicts at a batch's states, laid over its prior, (B, 3, T, H, W).

        batch: with `prior`, `mask`, `noise` and `level`. told: what steers the denoiser. still: (B, C, T, h, w) latents
        of the warped portrait. States are where a sampler gets to: noise alone at the noisiest level, below it a
        mixture with what the network predicts there.
        """
        prior, mask, noise = (batch[name].float() for name in ("prior", "mask", "noise"))
        schedule, level = self.config.schedule, batch["level"]
        alpha = torch.from_numpy(ddim.alphas(schedule)).to(level.device)
        start = noisy = noise.expand_as(still)
        later = level < schedule.train_steps - 1
        if later.any():
            with torch.no_grad():
                first = torch.full_like(level, schedule.train_steps - 1)
                guess, _ = ddim.ends(self.denoiser(start, first, told, still), start, alpha[first], schedule.prediction)
                noisy = torch.where(
                    later[:, None, None, None, None], ddim.at_level(guess, start, alpha[level]), start
                )  # fmt: skip
        said = self.denoiser(noisy, level, told, still)
        latents, _ = ddim.ends(said, noisy, alpha[level], schedule.prediction)
        with torch.no_grad():
            base = self.codec.decode(still)
        made = self.codec.decode(still + self.latent_mask(mask) * (latents - still))
        return prior + mask * (made - base)

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
