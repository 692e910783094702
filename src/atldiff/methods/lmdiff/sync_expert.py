"""The sync expert: pictures of a mouth and a sound to vectors that agree where they belong together.

The idea is SyncNet's (Chung and Zisserman, "Out of time", 2016), which Wav2Lip (arXiv 2008.10010) made a loss of; the
networks are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import GROUP_CHANNELS, fold_time
from atldiff.landmarks.stream import SILENT
from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS

if TYPE_CHECKING:
    from atldiff.config import SyncConfig

LEFT_OUT = 0.1
"""Share of the window's side that is not looked at, at each edge: the mouth stays within the rest."""


class Level(nn.Module):
    """A strided convolution, and a residual one after it."""

    def __init__(self, width_in: int, width: int, taps: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(width_in, width, taps, stride=2, padding=taps // 2)
        self.norm = nn.GroupNorm(width // GROUP_CHANNELS, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out_norm = nn.GroupNorm(width // GROUP_CHANNELS, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, C_in, H, W). Returns (N, C, ceil(H / 2), ceil(W / 2))."""
        h = self.shrink(x)
        h = h + self.mix(functional.silu(self.norm(h)))
        return functional.silu(self.out_norm(h))


class Branch(nn.Module):
    """Maps (N, C, H, W) of one size to unit vectors (N, D): where in the map something is counts."""

    def __init__(self, channels: int, height: int, breadth: int, config: SyncConfig) -> None:
        super().__init__()
        levels = []
        for width in config.widths:
            levels.append(Level(channels, width, 3 if levels else 5))
            channels, height, breadth = width, -(-height // 2), -(-breadth // 2)
        self.levels = nn.Sequential(*levels)
        self.out = nn.Linear(channels * height * breadth, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (N, D) of x (N, C, H, W)."""
        return functional.normalize(self.out(self.levels(x).flatten(1)), dim=-1)


class SyncExpert(nn.Module):
    """Two branches whose vectors' cosine says whether mouth and sound belong together. Differentiable in both."""

    def __init__(self, config: SyncConfig) -> None:
        super().__init__()
        self.config = config
        self.columns = (config.frames + 2 * config.margin_frames) * COLUMNS_PER_FRAME
        self.eye = Branch(3 * config.frames, config.side, config.side, config)
        self.ear = Branch(1, MEL_BANDS, self.columns, config)

    def see(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, D) of successive windows (B, 3, frames, S, S) in [-1, 1], of any side S."""
        batch, _, frames, side, _ = pictures.shape
        edge = round(LEFT_OUT * side)
        inner = fold_time(pictures[..., edge : side - edge, edge : side - edge])
        small = functional.interpolate(inner, (self.config.side, self.config.side), mode="bilinear", antialias=True)
        return self.eye(small.reshape(batch, 3 * frames, *small.shape[2:]))

    def hear(self, mel: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, D) of log-mel columns (B, columns, 80), from `margin_frames` before the pictures."""
        # Convolutions see zeros beyond the edges: let that be silence.
        return self.ear((mel - SILENT).transpose(1, 2)[:, None])
