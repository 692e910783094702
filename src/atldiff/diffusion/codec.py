"""The face codec: windows of faces to latents and back (a small KL autoencoder, arXiv 2112.10752, section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import GROUP_CHANNELS, fold_time, unfold_time

if TYPE_CHECKING:
    from atldiff.config import CodecConfig

LOG_VARIANCE_RANGE = (-20.0, 10.0)


class CodecBlock(nn.Module):
    """Norm and two convolutions, residual, zero-initialised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(width // GROUP_CHANNELS, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, C, H, W). Returns the same shape."""
        h = self.first(functional.silu(self.norm(x)))
        return x + self.second(functional.silu(h))


class Encoder(nn.Module):
    """Pictures to the mean and the log-variance of their latents."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        near, far = config.widths
        self.inner = config.factor // 2  # what space-to-depth in front leaves to the strided convolution
        self.stem = nn.Conv2d(3 * self.inner**2, near, 3, padding=1)
        self.near = nn.Sequential(*[CodecBlock(near) for _ in range(config.blocks)])
        self.shrink = nn.Conv2d(near, far, 3, stride=2, padding=1)
        self.far = nn.Sequential(*[CodecBlock(far) for _ in range(config.blocks)])
        self.out = nn.Conv2d(far, 2 * config.channels, 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance, each (N, C, S / factor, S / factor), of pictures (N, 3, S, S) in [-1, 1]."""
        h = functional.pixel_unshuffle(pictures, self.inner).contiguous(memory_format=torch.channels_last)
        h = self.far(self.shrink(self.near(self.stem(h))))
        mean, log_variance = self.out(h).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        near, far = config.decoder_widths
        self.inner = config.factor // 2
        self.stem = nn.Conv2d(config.channels, far, 3, padding=1)
        self.far = nn.Sequential(*[CodecBlock(far) for _ in range(config.blocks + 1)])
        self.grow = nn.Conv2d(far, 4 * near, 1)  # to depth, then to space
        self.near = nn.Sequential(*[CodecBlock(near) for _ in range(config.blocks)])
        self.out = nn.Conv2d(near, 3 * self.inner**2, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pictures (N, 3, S, S) float32 of latents (N, C, S / factor, S / factor)."""
        h = self.far(self.stem(latents.contiguous(memory_format=torch.channels_last)))
        h = functional.pixel_shuffle(self.grow(h), 2).contiguous(memory_format=torch.channels_last)
        h = functional.silu(self.near(h))
        # In single precision: bfloat16 has steps of a grey level or two, which would show in skin.
        out = functional.conv2d(h.float(), self.out.weight.float(), self.out.bias.float(), padding=1)  # pyright: ignore[reportOptionalMemberAccess]
        return functional.pixel_shuffle(out, self.inner)


class Codec(nn.Module):
    """Our autoencoder. Latents outside it have zero mean and unit variance a channel.

    Buffers, filled by training and shipped with the weights: `latent_mean` and `latent_scale` (C,).
    """

    latent_mean: torch.Tensor
    latent_scale: torch.Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.channels))
        self.register_buffer("latent_scale", torch.ones(config.channels))

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights."""
        return self.encoder.stem.weight.dtype

    @property
    def calibrated(self) -> bool:
        """Whether training has measured its latents: a fresh codec has not been trained."""
        return bool((self.latent_scale != 1).any())

    def moments(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance (N, C, s, s) float32 of pictures (N, 3, S, S), as the encoder gives them."""
        return self.encoder(pictures.to(self.dtype))

    def reconstruct(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pictures (N, 3, S, S) float32 of latents (N, C, s, s) as `moments` has them."""
        return self.decoder(latents.to(self.dtype))

    @torch.no_grad()
    def calibrate(self, pictures: torch.Tensor) -> None:
        """Measure the latents' mean and deviation a channel on pictures (N, 3, S, S)."""
        mean, _ = self.moments(pictures)
        self.latent_mean.copy_(mean.mean(dim=(0, 2, 3)))
        self.latent_scale.copy_(mean.std(dim=(0, 2, 3)).clamp_min(1e-4))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Return latents (B, C, T, s, s) float32 of a video (B, 3, T, S, S) in [-1, 1]: the mean, no draw from it."""
        mean, _ = self.moments(fold_time(video))
        normal = (mean - self.latent_mean[:, None, None].float()) / self.latent_scale[:, None, None].float()
        return unfold_time(normal, len(video))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return a video (B, 3, T, S, S) float32, about [-1, 1], of latents (B, C, T, s, s)."""
        folded = fold_time(latents.float())
        spread = folded * self.latent_scale[:, None, None].float() + self.latent_mean[:, None, None].float()
        return unfold_time(self.reconstruct(spread), len(latents))
