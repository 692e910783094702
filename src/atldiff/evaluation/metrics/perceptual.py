"""How alike two pictures look: LPIPS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.backbones.alexnet import LpipsAlexNet

MIN_SIDE_PX = 64
"""Below it the deeper maps are a pixel or two."""


def lpips(prediction: torch.Tensor, target: torch.Tensor, network: LpipsAlexNet) -> torch.Tensor:
    """Return the perceptual distance of each pair of pictures, (T,) float32; lower is better, 0 for equal ones.

    prediction, target: (T, 3, H, W) float RGB in [-1, 1], at least 64 px a side. Usual range 0 to 1. LPIPS v0.1 with
    AlexNet: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".

    Raises:
        ValueError: the shapes differ or are others.
    """
    if prediction.shape != target.shape or prediction.ndim != 4 or prediction.shape[1] != 3:
        raise ValueError(
            f"pictures: got shapes {tuple(prediction.shape)} and {tuple(target.shape)}, expected (T, 3, H, W) twice"
        )
    if min(prediction.shape[2:]) < MIN_SIDE_PX:
        raise ValueError(f"pictures: got {tuple(prediction.shape[2:])} px, expected at least {MIN_SIDE_PX} px a side")
    with torch.inference_mode():
        return feature_distance(network(prediction), network(target), network)


def feature_distance(
    prediction: Sequence[torch.Tensor], target: Sequence[torch.Tensor], network: LpipsAlexNet
) -> torch.Tensor:
    """Return the same of features that the network has given, (T,): those of one target serve several predictions."""
    total = torch.zeros(len(prediction[0]), device=prediction[0].device)
    with torch.inference_mode():
        for one, other, weigh in zip(prediction, target, network.linear, strict=True):
            apart = (F.normalize(one, eps=1e-10) - F.normalize(other, eps=1e-10)).square()  # (T, C, h, w)
            total += weigh(apart).mean(dim=(1, 2, 3))  # (T,)
    return total
