"""How alike two sets of pictures are: the Frechet distance of their features, and FID."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

MIN_PICTURES = 2
"""Fewer have no covariance."""


class FidScore(NamedTuple):
    """FID and how many pictures it rests on: few of them raise it, so only equal counts compare."""

    fid: float
    generated: int
    real: int


class _Features(nn.Module):
    """What torchmetrics takes as its network where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the squared Frechet distance of the Gaussians of two sets of features; lower is better, 0 for equal sets.

    one: (N, D), other: (M, D), N and M at least 2; covariances are unbiased. Heusel et al. 2017, arXiv 1706.08500,
    Eq. 6. Fewer samples than D are allowed, but the value then depends on how many there are.

    Raises:
        ValueError: other shapes, fewer than two samples, or features that are not finite.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"features: got shapes {tuple(one.shape)} and {tuple(other.shape)}, expected (N, D), (M, D)")
    if min(len(one), len(other)) < MIN_PICTURES:
        raise ValueError(f"features: got {len(one)} and {len(other)} samples, expected at least {MIN_PICTURES} of each")
    if not (torch.isfinite(one).all() and torch.isfinite(other).all()):
        raise ValueError("features: got NaN or infinity, expected finite numbers")
    metric = FrechetInceptionDistance(feature=_Features(one.shape[1]))
    # Sums of products lose digits where the mean is large; a common shift changes no distance.
    centre = other.double().mean(dim=0)
    metric.update(one.double() - centre, real=False)
    metric.update(other.double() - centre, real=True)
    return max(0.0, float(metric.compute()))  # rounding can leave -1e-7 for equal sets


class Fid:
    """FID over features that come batch by batch; memory does not grow with their number (140 MB of sums).

    num_features: D, 2048 for Inception-v3.
    """

    def __init__(self, num_features: int) -> None:
        self._metric = FrechetInceptionDistance(feature=_Features(num_features))

    def add_generated(self, features: torch.Tensor) -> None:
        """Count the features (B, D) of generated frames."""
        self._metric.update(features.double(), real=False)

    def add_real(self, features: torch.Tensor) -> None:
        """Count the features (B, D) of real frames."""
        self._metric.update(features.double(), real=True)

    @property
    def generated(self) -> int:
        """Generated frames so far."""
        return int(self._metric.fake_features_num_samples)

    @property
    def real(self) -> int:
        """Real frames so far."""
        return int(self._metric.real_features_num_samples)

    def score(self) -> FidScore:
        """Return FID over all frames so far; lower is better. Heusel et al. 2017. It takes seconds.

        Raises:
            ValueError: fewer than two frames on a side.
        """
        if min(self.generated, self.real) < MIN_PICTURES:
            raise ValueError(
                f"FID: got {self.generated} generated and {self.real} real frames, expected at least {MIN_PICTURES} "
                "of each"
            )
        return FidScore(max(0.0, float(self._metric.compute())), self.generated, self.real)
