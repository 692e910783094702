"""What says of a painted mouth whether it looks real: features of LPIPS, and an adversary; of the mouth, enlarged.

Over a whole window both drown in skin. Outside the mask frames are the warped portrait, real ones as well, so that
neither judges what a renderer may not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from atldiff.backbones.alexnet import LpipsAlexNet

CROP = (96, 80)
"""Width and height of what is judged, in pixels of a window at `JUDGED_SCALE`."""
JUDGED_SCALE = 2.0
"""Pixels of a template pixel that windows are judged at; others are enlarged or reduced to it."""
LPIPS_ENLARGED = 1.5
WIDTHS = (48, 96, 192)


def mouth_crops(pictures: torch.Tensor, centre: torch.Tensor, scale: float = JUDGED_SCALE) -> torch.Tensor:
    """Cut the mouth out of windows (B, C, T, H, W), CROP or what a smaller window has; centre: (B, 2) pixels.

    scale: of the windows.
    """
    height, width = pictures.shape[-2:]
    zoom = JUDGED_SCALE / scale
    across, down = min(round(CROP[0] / zoom), width), min(round(CROP[1] / zoom), height)
    parts = []
    for clip, (x, y) in zip(pictures, centre.tolist(), strict=True):
        left = min(max(round(x - across / 2), 0), width - across)
        top = min(max(round(y - down / 2), 0), height - down)
        parts.append(clip[:, :, top : top + down, left : left + across])
    crops = torch.stack(parts)
    if zoom == 1:
        return crops
    flat = crops.transpose(1, 2).flatten(0, 1)
    flat = functional.interpolate(flat.float(), scale_factor=zoom, mode="bilinear").to(crops.dtype)
    return flat.unflatten(0, (len(crops), -1)).transpose(1, 2)


def perceptual(network: LpipsAlexNet, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the LPIPS distance (B,) of crops (B, 3, T, h, w) in [-1, 1], the mean over frames."""
    batch, _, frames = made.shape[:3]

    def features(crops: torch.Tensor) -> list[torch.Tensor]:
        flat = crops.transpose(1, 2).flatten(0, 1)
        large = functional.interpolate(flat, scale_factor=LPIPS_ENLARGED, mode="bilinear")
        return [functional.normalize(x.float(), dim=1, eps=1e-8) for x in network(large)]

    with torch.no_grad():
        wanted = features(real)
    distances = [
        linear((own - other).square().to(linear.weight.dtype)).float().mean((1, 2, 3))  # pyright: ignore
        for linear, own, other in zip(network.linear, features(made), wanted, strict=True)
    ]
    return torch.stack(distances).sum(0).reshape(batch, frames).mean(1)


class MouthAdversary(nn.Module):
    """Patches of a mouth over some frames to how real they look, beside the portrait and the lips wanted.

    Hinge loss (Lim and Ye 2017, arXiv 1705.02894), feature matching (Wang et al. 2018, arXiv 1711.11585), R1 (Mescheder
    et al. 2018, arXiv 1801.04406). No normalisation: spectral normalisation held it at zero.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.layers = nn.ModuleList([
            nn.Conv2d(3 * frames + 5, first, 4, 2, 1), nn.Conv2d(first, second, 4, 2, 1),
            nn.Conv2d(second, third, 3, 1, 1), nn.Conv2d(third, 1, 3, 1, 1),
        ])  # fmt: skip

    def forward(self, frames: torch.Tensor, beside: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return scores (B, h / 4, w / 4) and the maps before them.

        frames: (B, 3, T, h, w) in [-1, 1]. beside: (B, 5, h, w), the portrait and two lip maps.
        """
        h = torch.cat([frames.flatten(1, 2), beside], 1)
        maps = []
        for layer in list(self.layers)[:-1]:
            h = functional.leaky_relu(layer(h), 0.2)
            maps.append(h)
        return self.layers[-1](h)[:, 0].float(), maps


def weighted(scores: torch.Tensor, mouth: torch.Tensor) -> torch.Tensor:
    """Return each clip's mean (B,) of scores (B, h, w), weighted by the mouth (B, 1, H, W)."""
    weight = functional.interpolate(mouth, size=scores.shape[-2:], mode="area")[:, 0]
    return (weight * scores).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-3)
