"""ATL-Diff as published (arXiv 2507.12804): Landmarks-Guide Noise on the identity picture, 3D Identity Diffusion.

Pictures are in [0, 1] here, as the released code has them. Start with `PublishedModel`; `docs/paper.md` says which
parts are the authors', which are open, and what the released code does otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.diffusion import ddim
from atldiff.diffusion.blocks import time_embedding
from atldiff.diffusion.edges import edge_errors
from atldiff.diffusion.unet3d import UNet3D
from atldiff.methods.atl_published.generator import PublishedGenerator
from atldiff.methods.atl_published.identity import IdentityEncoder
from atldiff.methods.atl_published.inputs import guided_image

if TYPE_CHECKING:
    import numpy as np

    from atldiff.config import IdentityDiffusionConfig, PublishedConfig

FROM_START = 0.3
"""Share of training levels at the noisiest, where every sampler starts and a one-step sampler ends."""
LANDMARK_WEIGHT, MOUTH_WEIGHT = 4.0, 4.0
"""Extra weight of the loss at landmarks and inside the mouth, over the rest of the window."""
EDGE_WEIGHT = 0.2
"""Weight of the error of neighbouring-pixel differences: it asks for edges, not their blurred mean."""

GATE_CLOSED = 2.0
"""What a fresh network's gate is short of being half open: it starts near the mean over time."""


def training_level(random: np.random.Generator, train_steps: int) -> int:
    """Draw the level of a training clip: often the noisiest, else more of the noisy than of the clean."""
    start, place = random.random(), random.random() ** 0.5
    return train_steps - 1 if start < FROM_START else int(place * train_steps)


class IdentityUNet(nn.Module):
    """Our U-Net behind the published call: noisy frames, level, identity tokens, emotion. Open in the paper.

    Its output is added to the noisy frames themselves, at the brightness of what is predicted: both ends of the
    process are nearly the answer. What it is added to lies, pixel by pixel, between the frame and the clip's mean over
    time, in which independent noise is nearly gone; a gate that the network paints says where.
    """

    def __init__(self, config: IdentityDiffusionConfig) -> None:
        super().__init__()
        self.schedule = config.schedule
        self.unet = UNet3D(
            6, config.stem, config.widths, config.blocks, channels_out=4, context_width=config.identity_width,
            labels=config.emotions + 1,
        )  # fmt: skip

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, emotion: torch.Tensor
    ) -> torch.Tensor:
        """Return (B, 3, T, S, S) float32. x: the same shape; level, emotion: (B,) int64; tokens: (B, N, W)."""
        dtype = self.unet.dtype
        still = x.mean(dim=2, keepdim=True)
        embedding = time_embedding(level.float() / self.schedule.train_steps, self.unet.embedding_width)
        seen = (torch.cat([x, still.expand_as(x)], dim=1) * 2 - 1).to(dtype)
        said = self.unet(seen, embedding.to(dtype), tokens.to(dtype), emotion).float()
        kept = still + torch.sigmoid(said[:, 3:] - GATE_CLOSED) * (x - still)
        return said[:, :3] + self._brightness(level) * kept

    def _brightness(self, level: torch.Tensor) -> torch.Tensor:
        """Return how bright the prediction is where x_t shows the same picture at both ends, (B, 1, 1, 1, 1)."""
        alpha = torch.from_numpy(ddim.alphas(self.schedule)).to(level.device)[level]
        one = alpha.new_ones(len(alpha), 1, 1, 1, 1)
        return ddim.target(one, one, alpha, self.schedule.prediction) / ddim.at_level(one, one, alpha)


class ResNetIdentity(nn.Module):
    """ImageNet's ResNet-50 as identity, frozen, its vector cut into tokens, as released."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        from atldiff.methods.atl_published.resnet import ResNet50

        self.count, self.width = tokens, width
        self.network = ResNet50().requires_grad_(False)

    def train(self, mode: bool = True) -> ResNetIdentity:
        """Stay in evaluation mode: running statistics are part of the frozen weights."""
        return super().train(False)

    def forward(self, identity: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, N, W) of identity pictures (B, 3, S, S) in [0, 1], not normalised, as released."""
        from atldiff.methods.atl_published.resnet import tokens

        return tokens(self.network(identity), self.count, self.width)


class Describe(nn.Module):
    """What describes the identity as inference calls it, whatever its number format."""

    def __init__(self, identity: nn.Module) -> None:
        super().__init__()
        self.identity = identity
        self.training = identity.training  # an exporter puts back what it finds

    def forward(self, identity: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, N, W) of pictures (B, 3, S, S) in [0, 1]."""
        return self.identity(identity.to(next(self.identity.parameters()).dtype)).float()


class PublishedRenderer(nn.Module):
    """3D Identity Diffusion: frames of whole faces from the identity picture with landmark-guided noise."""

    def __init__(self, config: IdentityDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        describe = IdentityEncoder if config.identity == "encoder" else ResNetIdentity
        self.identity = describe(config.identity_tokens, config.identity_width)
        if config.network == "compact":
            self.unet = IdentityUNet(config)
        else:
            from atldiff.methods.atl_published.condition_unet import ConditionUNet

            self.unet = ConditionUNet(config.unet, config.axes)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def networks(self) -> dict[str, nn.Module]:
        """Return what inference calls: `describe` and `denoiser`."""
        return {"describe": Describe(self.identity), "denoiser": self.unet}

    def predict(
        self, x: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, emotion: torch.Tensor
    ) -> torch.Tensor:
        """Return what the network says of x_t (B, 3, T, S, S) float32, by the schedule's prediction type."""
        return self.unet(x, level, tokens, emotion).float()

    def describe(self, identity: torch.Tensor) -> torch.Tensor:
        """Return identity tokens (B, N, W) of pictures (B, 3, S, S) in [0, 1]."""
        return self.identity(identity.to(next(self.identity.parameters()).dtype))

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of `FacesSet`, each the mean over its clips. Open in the paper."""
        frames, prior, mask, mouth, noise, identity = (
            batch[name].float() for name in ("target", "prior", "mask", "mouth", "noise", "identity")
        )
        schedule, level = self.config.schedule, batch["level"]
        end = guided_image(prior, mask, noise, self.config)
        alpha = torch.from_numpy(ddim.alphas(schedule)).to(frames.device)[level]
        said = self.predict(ddim.at_level(frames, end, alpha), level, self.describe(identity), batch["emotion"])
        difference = said - ddim.target(frames, end, alpha, schedule.prediction)
        weight = 1 + LANDMARK_WEIGHT * mask + MOUTH_WEIGHT * mouth
        weight = weight / weight.sum(dim=(1, 2, 3, 4), keepdim=True)
        square = (weight * difference.square().mean(dim=1, keepdim=True)).sum(dim=(1, 2, 3, 4)).mean()
        edges = edge_errors(difference, weight).mean()
        return {"loss": 40 * square + EDGE_WEIGHT * edges, "square": square, "edges": edges}


class PublishedModel(nn.Module):
    """The two trained parts of the published method; `generator.*` and `renderer.*` in the weights file."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = PublishedGenerator(config.generator)
        self.renderer = PublishedRenderer(config.renderer)
