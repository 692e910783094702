"""Who the face belongs to, as tokens that the renderer attends to."""

from __future__ import annotations

import torch
from torch import nn

_WIDTHS = (32, 64, 96, 128)


class IdentityEncoder(nn.Module):
    """The identity picture as a grid of tokens, trained with the renderer.

    The released code cuts the vector of an ImageNet ResNet-50 into 64 x 32 instead (`methods/atl_published/resnet.py`).
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.grid = round(tokens**0.5)
        layers: list[nn.Module] = []
        before = 3
        for channels in _WIDTHS:
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.GroupNorm(channels // 16, channels)]
            layers += [nn.SiLU()]
            before = channels
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv2d(before, width, 1)
        self.positions = nn.Parameter(torch.zeros(1, tokens, width))
        nn.init.normal_(self.positions, std=0.1)

    def forward(self, identity: torch.Tensor) -> torch.Tensor:
        """Return tokens (B, N, W) of identity pictures (B, 3, S, S) in [0, 1]."""
        h = self.layers(2 * identity - 1)
        return pooled(self.out(h), self.grid).flatten(2).transpose(1, 2) + self.positions


def pooled(features: torch.Tensor, side: int) -> torch.Tensor:
    """Return what `adaptive_avg_pool2d` makes of features (B, C, h, w), (B, C, side, side).

    Where the sides are no multiples that is two products: ONNX has no such pooling.
    """
    height, width = features.shape[-2:]
    if height % side == 0 and width % side == 0:
        return nn.functional.adaptive_avg_pool2d(features, side)
    down, across = (_means(count, side).to(features) for count in (height, width))
    return down @ features @ across.T


def _means(count: int, parts: int) -> torch.Tensor:
    """Return the weights (parts, count) of means over `count` places in so many equal parts, which may overlap."""
    place, part = torch.arange(count), torch.arange(parts)[:, None]
    inside = (place >= part * count // parts) & (place * parts < (part + 1) * count)
    return inside / inside.sum(1, keepdim=True)
