"""Building blocks of the 3D U-Net: space and time are convolved apart, frames folded into the batch between."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

GROUP_CHANNELS = 16
HEAD_CHANNELS = 32
"""Channels of an attention head, or the next larger number that divides the width."""


def time_embedding(t: torch.Tensor, width: int) -> torch.Tensor:
    """Return sinusoidal features (B, width) float32 of bridge times t (B,) in [0, 1]; width is even.

    Kept outside the network and in float32: bfloat16 rounds t before the sine and costs percents of accuracy.
    """
    frequencies = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(1000.0) / (width // 2)))
    angles = t.float()[:, None] * 1000.0 * frequencies[None]  # (B, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def fold_time(video: torch.Tensor) -> torch.Tensor:
    """Fold (B, C, T, H, W) into frames (B * T, C, H, W), channels last."""
    batch, channels, frames, height, width = video.shape
    folded = video.permute(0, 2, 3, 4, 1).reshape(batch * frames, height, width, channels)
    return folded.permute(0, 3, 1, 2)


def unfold_time(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """Undo `fold_time`: (B * T, C, H, W) to (B, C, T, H, W)."""
    return frames.reshape(batch, -1, *frames.shape[1:]).transpose(1, 2)


class TemporalConvolution(nn.Module):
    """A residual three-tap convolution over time at each pixel, zero-initialised: a fresh network is per-frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor, batch: int) -> torch.Tensor:
        """Mix frames of x (B * T, C, H, W), channels last."""
        _, channels, height, width = x.shape
        over_time = x.reshape(batch, -1, channels, height * width).transpose(1, 2)
        mixed = self.convolution(over_time).transpose(1, 2)  # (B, T, C, H * W)
        return x + mixed.reshape(-1, channels, height, width)


class ResidualBlock(nn.Module):
    """Norm, convolution, time-conditioned scale and shift, convolution, then a temporal convolution.

    embedding: channels of the time embedding; 0 for a block that no time reaches.
    """

    def __init__(self, width_in: int, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(width_in // GROUP_CHANNELS, width_in)
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.middle_norm = nn.GroupNorm(width // GROUP_CHANNELS, width)
        self.modulation = nn.Linear(embedding, 2 * width) if embedding else None
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.temporal = TemporalConvolution(width)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None, batch: int) -> torch.Tensor:
        """x: (B * T, C_in, H, W); embedding: (B * T, E), of a block that has one. Returns (B * T, C, H, W)."""
        h = self.middle_norm(self.first(functional.silu(self.norm(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = self.second(functional.silu(h))
        return self.temporal(self.skip(x) + h, batch)


def attention_heads(width: int) -> int:
    """Return how many heads of about `HEAD_CHANNELS` a width is divided into."""
    return max(heads for heads in range(1, max(1, width // HEAD_CHANNELS) + 1) if width % heads == 0)


class SpatialAttention(nn.Module):
    """Self-attention over the pixels of each frame, residual, zero-initialised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = attention_heads(width)
        self.norm = nn.GroupNorm(width // GROUP_CHANNELS, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, C, H, W). Returns the same shape."""
        count, channels, height, width = x.shape
        tokens = self.qkv(self.norm(x)).permute(0, 2, 3, 1)  # (N, H, W, 3 C)
        tokens = tokens.reshape(count, height * width, 3, self.heads, channels // self.heads)
        query, key, value = tokens.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, H W, C / heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(count, height, width, channels).permute(0, 3, 1, 2)
        return x + self.out(mixed)


class CrossAttention(nn.Module):
    """Pixels of each frame attend to a clip's tokens, residual, zero-initialised."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.heads = attention_heads(width)
        self.norm = nn.GroupNorm(width // GROUP_CHANNELS, width)
        self.query = nn.Conv2d(width, width, 1)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """x: (B * T, C, H, W); context: (B, N, context_width). Returns the shape of x."""
        count, channels, height, width = x.shape
        batch = len(context)
        # All frames of a clip share its tokens: their pixels are queries of one attention.
        query = self.query(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, -1, self.heads, channels // self.heads)
        key, value = self.key_value(context).reshape(batch, -1, 2, self.heads, channels // self.heads).unbind(2)
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        mixed = mixed.transpose(1, 2).reshape(count, height, width, channels).permute(0, 3, 1, 2)
        return x + self.out(mixed)
