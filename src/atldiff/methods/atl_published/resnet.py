"""ResNet-50 (He et al. 2015, arXiv 1512.03385) in the form of torchvision, without its classifier.

The released renderer takes the identity from it: 2048 features of the portrait, cut into 64 tokens of 32.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (64, 128, 256, 512)
BLOCKS = (3, 4, 6, 3)
EXPANSION = 4
FEATURES = WIDTHS[-1] * EXPANSION
TOKENS, TOKEN_WIDTH = 64, 32


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut; the stride is at the 3x3 one (v1.5), as torchvision has it."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 4 width, h / stride, w / stride) of (B, channels, h, w)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet50(nn.Module):
    """Pictures to 2048 features; torchvision's names of parameters, 23.5 M of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = WIDTHS[0]
        for level, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 1):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Bottleneck(channels, width, 2 if block == 0 and level > 1 else 1))
                channels = width * EXPANSION
            self.add_module(f"layer{level}", layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, 2048) of images (B, 3, H, W) float RGB.

        As released the images are in [0, 1], *without* the normalisation that the ImageNet weights were trained with:
        released renderers know no other features.
        """
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for level in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{level}")(x)
        return x.mean((2, 3))


def tokens(features: torch.Tensor, count: int = TOKENS, width: int = TOKEN_WIDTH) -> torch.Tensor:
    """Return features (B, count * width) cut into identity tokens (B, count, width), 64 of 32 as published."""
    return features.reshape(len(features), count, width)
