"""LMDiff (arXiv 2408.05416): landmark completion, and a latent diffusion whose loss reaches the landmarks.

No code was published; `docs/lmdiff.md` says what the authors state and what is reconstructed. Start with `LMDiffModel`;
`inputs` says what the renderer sees, `talkformer` how the landmarks steer it, `painter` how it renders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import fold_time, time_embedding, unfold_time
from atldiff.diffusion.unet3d import UNet3D
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.methods.latent import LatentDiffusion
from atldiff.methods.lmdiff.inputs import TOKENS, in_window_widths, shown_channels
from atldiff.methods.lmdiff.sync_expert import SyncExpert
from atldiff.methods.lmdiff.talkformer import Attended, LandmarkTokens, ReferenceEncoder, TalkFormer
from atldiff.torch_networks import Call

if TYPE_CHECKING:
    from atldiff.config import LMDiffConfig, TalkRendererConfig
    from atldiff.methods.latent import AnyCodec, Judge


@dataclass(frozen=True, slots=True)
class Told:
    """What steers the denoiser, made once a window.

    shown: (B, C f f + 1, T, h, w) what is shown of the target, f by f pixels a latent, and where it may change.
    attended: of each level's TalkFormer.
    """

    shown: torch.Tensor
    attended: dict[int, Attended]

    def tensors(self) -> list[torch.Tensor]:
        """Return all of it in order."""
        return [self.shown, *(tensor for level in self.attended.values() for tensor in level.tensors())]


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
        patches = unfold_time(functional.pixel_unshuffle(fold_time(shown), self.factor), len(shown))
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

    def steered(self, x: torch.Tensor, level: torch.Tensor, prior: torch.Tensor, *told: torch.Tensor) -> torch.Tensor:
        """Return the prediction as inference asks for it: as `forward`, `told` by its tensors, at the end."""
        shown, *rest = told
        given = iter(rest)
        attended = {
            at: talkformer.attended(given)  # pyright: ignore[reportCallIssue]
            for at, talkformer in zip(self.levels, self.talkformers, strict=True)
        }
        return self(x, level, Told(shown, attended), prior)


class Steer(nn.Module):
    """What steers the denoiser as inference asks for it, the portrait as a picture."""

    def __init__(self, codec: AnyCodec, denoiser: TalkDenoiser) -> None:
        super().__init__()
        self.codec, self.denoiser = codec, denoiser
        self.training = denoiser.training  # an exporter puts back what it finds

    def forward(
        self, shown: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, source: torch.Tensor,
        target: torch.Tensor,
    ) -> list[torch.Tensor]:  # fmt: skip
        """Return the tensors of `TalkDenoiser.listen`; reference: (B, 3, H, W), the portrait's window."""
        latents = self.codec.encode(reference[:, :, None])[:, :, 0]
        return self.denoiser.listen(shown, mask, latents, source, target).tensors()


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

    def networks(self) -> dict[str, nn.Module]:
        """Return what inference calls: `encode`, `decode`, `steer` and `denoiser`."""
        steer, denoiser = Steer(self.codec, self.denoiser), Call(self.denoiser, "steered")
        return {**super().networks(), "steer": steer, "denoiser": denoiser}

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
