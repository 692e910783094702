"""LMDiff (arXiv 2408.05416): landmark completion, and a latent diffusion whose loss reaches the landmarks.

No code was published; `docs/lmdiff.md` says what the authors state and what is reconstructed. Start with `LMDiffModel`;
`lmdiff_inputs` says what the renderer sees, `diffusion.talkformer` how the landmarks steer it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.methods.latent import LatentDiffusion
from atldiff.methods.lmdiff.inputs import NEEDED, TOKENS, build_inputs, in_window_widths, shown_channels
from atldiff.methods.lmdiff.sync_expert import SyncExpert
from atldiff.methods.lmdiff.talkformer import Attended, LandmarkTokens, ReferenceEncoder, TalkFormer
from atldiff.stages import stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from atldiff.config import LMDiffConfig, TalkRendererConfig
    from atldiff.methods.latent import Judge
    from atldiff.video.cavity import MouthLayers


@dataclass(frozen=True, slots=True)
class Told:
    """What steers the denoiser, made once a window.

    shown: (B, C f f + 1, T, h, w) what is shown of the target, f by f pixels a latent, and where it may change.
    attended: of each level's TalkFormer.
    """

    shown: torch.Tensor
    attended: dict[int, Attended]


class TalkDenoiser(nn.Module):
    """Our U-Net on latents with TalkFormer in its levels.

    Where the portrait is shown warped, its latents go in beside the noise, and a prediction of type `sample` is what
    changes of them: a fresh network returns the warped portrait.
    """

    def __init__(self, config: TalkRendererConfig) -> None:
        super().__init__()
        self.schedule, self.levels = config.schedule, config.talk_levels
        self.sees_prior = config.reference == "both"
        channels, self.factor = config.codec.channels, config.codec.factor
        seen = channels * (2 if self.sees_prior else 1) + shown_channels(config) * self.factor**2 + 1
        self.unet = UNet3D(seen, 1, config.widths, config.blocks, channels_out=channels)
        deepest = config.widths[: config.talk_levels[-1] + 1]
        self.tokens = LandmarkTokens(len(TOKENS), config.token_width) if config.motion else None
        self.encoder = ReferenceEncoder(channels, deepest) if config.warp else None
        self.talkformers = nn.ModuleList(
            TalkFormer(config.widths[level], config.token_width, motion=config.motion, warp=config.warp)
            for level in config.talk_levels
        )

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        return self.unet.dtype

    def listen(
        self, shown: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, source: torch.Tensor,
        target: torch.Tensor,
    ) -> Told:  # fmt: skip
        """Return what steers the denoiser: once a window, whatever the number of steps. Differentiable in the points.

        shown: (B, C, T, H, W) what is shown of the target; its pixels are seen as they are, for a second encoding costs
        more than the U-Net. mask: (B, 1, T, h, w). reference: (B, C, h, w) latents of the portrait's window. source:
        (B, P, 2) its landmarks in widths of the window; target: (B, T, P, 2) the wanted ones.
        """
        wanted, still = (self.tokens(points) if self.tokens else None for points in (target, source))
        features = [] if self.encoder is None else self.encoder(reference.to(self.dtype))
        height, width = mask.shape[-2:]
        attended = {
            level: talkformer.prepare(
                (height >> level, width >> level), wanted, still, features[level] if features else None
            )  # pyright: ignore[reportCallIssue]
            for level, talkformer in zip(self.levels, self.talkformers, strict=True)
        }
        patches = functional.pixel_unshuffle(shown.transpose(1, 2), self.factor).transpose(1, 2)
        return Told(torch.cat([patches, mask], dim=1), attended)

    def forward(self, x: torch.Tensor, level: torch.Tensor, told: Told, prior: torch.Tensor) -> torch.Tensor:
        """Return the prediction, (B, C, T, s, s), by the schedule's type, in the number format of x.

        x: noisy latents, the same shape. level: (B,) int64. told: of `listen`. prior: the warped portrait's latents, as
        x.
        """
        embedding = time_embedding(level.float() / self.schedule.train_steps, self.unet.embedding_width)
        seen = torch.cat([x, prior, told.shown] if self.sees_prior else [x, told.shown], dim=1)
        attend = {
            at: partial(talkformer, attended=told.attended[at])
            for at, talkformer in zip(self.levels, self.talkformers, strict=True)
        }
        said = self.unet(seen.to(self.dtype), embedding.to(self.dtype), attend=attend).to(x.dtype)
        return said + prior if self.sees_prior and self.schedule.prediction == "sample" else said


class TalkRenderer(LatentDiffusion):
    """Latent diffusion of the window around the lower face, steered by landmarks through TalkFormer.

    Where the picture may change, what of the target is hidden and the warped portrait are drawn from the landmarks,
    without gradient; TalkFormer's tokens are what a loss reaches the landmarks by.
    """

    config: TalkRendererConfig
    denoiser: TalkDenoiser

    def __init__(self, config: TalkRendererConfig) -> None:
        super().__init__(config)
        self.denoiser = TalkDenoiser(config)

    def render_window(
        self, identity: torch.Tensor, source: np.ndarray, target: np.ndarray, noise: torch.Tensor, steps: int,
        layers: Sequence[MouthLayers] = (),
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the frames of windows and the warped portrait that they change, each (B, 3, T, H, W) float32.

        identity: (B, 3, H, W) in [-1, 1] on the CPU. source: (B, 478, 2), target: (B, T, 478, 2) window pixels. noise:
        of `window_noise`. steps: network evaluations. layers: of each window's portrait, for a layered renderer.
        """
        with stage("inputs"):
            source, target = source[:, NEEDED], target[:, :, NEEDED]
            inputs = build_inputs(identity, source, target, self.config, layers=layers)
            still, wanted = (torch.as_tensor(points[..., TOKENS, :]).float() for points in (source, target))
        with stage("denoise"), torch.inference_mode():
            given = {"reference": identity, "source": still, "points": wanted}
            given |= {name: getattr(inputs, name) for name in ("prior", "shown", "mask")}
            return self.render_batch({name: x.to(self.device) for name, x in given.items()}, noise, steps)

    def render_batch(
        self, batch: dict[str, torch.Tensor], noise: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample frames in `steps` network evaluations.

        batch: float32, prior, shown, mask as `TalkInputs` has them; reference (B, 3, S, S) the portrait's window;
        source (B, P, 2) and points (B, T, P, 2) the landmarks of the portrait and the wanted ones, window pixels.
        noise: (B, C, T or 1, s, s).

        Returns:
            frames and the prior as the codec has it, each (B, 3, T, S, S) float32; outside the mask they are equal.
        """
        return self.sample(self.codec.encode(batch["prior"]), self._told(batch), batch["mask"], noise, steps)

    def painted(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return what it paints of a batch of `latent_mouth_set` where its states are, (B, 3, T, H, W).

        Differentiable; also in `points` and `prior`, which may have a gradient.
        """
        prior = batch["prior"].float()
        with torch.set_grad_enabled(prior.requires_grad and torch.is_grad_enabled()):
            still = self.codec.encode(prior)
        return self.changed(batch, self._told(batch), still)

    def loss(self, batch: dict[str, torch.Tensor], judge: Judge | None = None) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of `TalkSet`: means over its clips, so that equal parts average to it.

        Its `points` and its `prior` may have a gradient. judge: of `errors`.
        """
        target, prior = batch["target"].float(), batch["prior"].float()
        if prior.requires_grad:
            with torch.no_grad():
                truth = self.codec.encode(target)
            still = self.codec.encode(prior)
        else:
            with torch.no_grad():
                truth, still = self.codec.encode(torch.cat([target, prior])).chunk(2)
        return self.errors(batch, self._told(batch), truth, still, judge)

    def _told(self, batch: dict[str, torch.Tensor]) -> Told:
        with torch.no_grad():
            reference = self.codec.encode(batch["reference"].float()[:, :, None])[:, :, 0]
        source, points = (in_window_widths(batch[name].float(), self.config) for name in ("source", "points"))
        mask = self.latent_mask(batch["mask"])
        return self.denoiser.listen(batch["shown"].float(), mask, reference, source, points)


class LMDiffModel(nn.Module):
    """The trained parts of LMDiff; `generator.*` and `renderer.*` (its codec included) in the weights file.

    And `expert.*`, where the stage sync has trained one: it judges the joint stage, and does nothing else.
    """

    def __init__(self, config: LMDiffConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = CompletionGenerator(config.generator)
        self.renderer = TalkRenderer(config.renderer)
        self.expert = SyncExpert(config.joint.sync) if config.joint.sync else None
