"""A control branch in the manner of ControlNet (arXiv 2302.05543).

A second encoder, whose features are added to a U-Net's skips through convolutions that start at zero. Ours sees the
hint alone, neither the noise nor its level, so it runs once a window and not once a step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import ResidualBlock, fold_time


class ControlBranch(nn.Module):
    """Hint pictures to what is added to a `UNet3D` of the same widths.

    channels_in: of the hint. stem: hint pixels a pixel of the U-Net's first level, each way. widths and blocks: a value
    a level.
    """

    def __init__(self, channels_in: int, stem: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem_factor = stem
        self.stem = nn.Conv2d(channels_in * stem**2, widths[0], 3, padding=1)
        self.levels, self.shrink, self.inject = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level, (level_width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.ModuleList()
            for _ in range(count):
                stage.append(ResidualBlock(width, level_width, 0))
                width = level_width
            self.levels.append(stage)
            last = level == len(widths) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1))
            self.inject.append(zero_convolution(width, width))
        self.inject.append(zero_convolution(width, width))  # of the middle

    def forward(self, hint: torch.Tensor) -> list[torch.Tensor]:
        """Return what is added to each level's skip and to the middle, (B * T, C, s, s) each, of (B, C, T, S, S)."""
        batch = len(hint)
        h = functional.pixel_unshuffle(fold_time(hint), self.stem_factor)
        h = self.stem(h.contiguous(memory_format=torch.channels_last))
        added = []
        for stage, shrink, inject in zip(self.levels, self.shrink, self.inject, strict=False):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, None, batch)
            added.append(inject(h))
            h = shrink(h)
        return [*added, self.inject[-1](h)]


def zero_convolution(width_in: int, width: int) -> nn.Conv2d:
    """Return a 1x1 convolution that starts at zero: what is fresh changes nothing."""
    convolution = nn.Conv2d(width_in, width, 1)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
    return convolution
