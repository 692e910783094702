"""The Landmark Generation Module, compact: log-mel columns and the identity's shape to pose-free displacements."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional

from atldiff.timebase import MEL_BANDS

if TYPE_CHECKING:
    from atldiff.config import GeneratorConfig

POINTS = 478


class TemporalBlock(nn.Module):
    """A depth-wise convolution over time and a point-wise network, residual."""

    def __init__(self, width: int, kernel: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, D). Returns the same shape."""
        h = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        return x + self.dropout(self.narrow(functional.gelu(self.widen(h))))


def listening(width: int) -> nn.Sequential:
    """Return two strided convolutions that make four log-mel columns one frame: (B, 80, 4 T) to (B, width, T)."""
    return nn.Sequential(
        nn.Conv1d(MEL_BANDS, width, 5, stride=2, padding=2),
        nn.GELU(),
        nn.Conv1d(width, width, 5, stride=2, padding=2),
        nn.GELU(),
    )


def describe_shape(neutral: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Return what tells neutral shapes (B, 478, 3) from the mean (478, 3) by a basis (I, 478, 3), (B, I) in [-3, 3]."""
    return torch.einsum("bkd,ikd->bi", neutral - mean, basis).clamp(-3, 3)


class SpeechNetwork(nn.Module):
    """Log-mel columns and the identity's numbers to coefficients: two strided convolutions, then temporal blocks."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        self.listen = listening(width)
        self.identity = nn.Linear(config.identity_components, width)
        self.blocks = nn.ModuleList(
            TemporalBlock(width, config.kernel, config.expansion, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.components)

    def forward(self, mel: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return coefficients (B, T, M) for columns (B, 4 T, 80) and identities (B, I)."""
        h = self.listen(mel.transpose(1, 2)).transpose(1, 2)  # (B, T, D)
        h = h + self.identity(identity)[:, None]
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h))


class Generator(nn.Module):
    """Audio to landmarks through a learned linear basis.

    Buffers, filled by training and shipped with the weights: `basis` (M, 478, 3) and `scale` (M,), so that
    displacements are `coefficients * scale @ basis`; `identity_mean` (478, 3) and `identity_basis` (I, 478, 3), unit
    variance per component, that describe a neutral shape.
    """

    amplitude: ClassVar[float] = 1.5
    """Gain on the predicted coefficients. A prediction from sound alone shrinks towards the mean; on people never
    trained on, lips opened 0.71 (GRID) and 0.46 (other corpora) times as far as the true ones, by `atldiff evaluate`.
    """
    basis: torch.Tensor
    scale: torch.Tensor
    identity_mean: torch.Tensor
    identity_basis: torch.Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("basis", torch.zeros(config.components, POINTS, 3))
        self.register_buffer("scale", torch.ones(config.components))
        self.register_buffer("identity_mean", torch.zeros(POINTS, 3))
        self.register_buffer("identity_basis", torch.zeros(config.identity_components, POINTS, 3))
        self.networks = nn.ModuleList(SpeechNetwork(config) for _ in range(config.members))

    def describe(self, neutral: torch.Tensor) -> torch.Tensor:
        """Return the identity's numbers (B, I), about unit variance, of neutral shapes (B, 478, 3)."""
        return describe_shape(neutral, self.identity_mean, self.identity_basis)

    def predictions(self, mel: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return every member's coefficients (N, B, T, M): training judges each by itself."""
        return torch.stack([network(mel, identity) for network in self.networks])

    def coefficients(self, mel: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return coefficients (B, T, M) in units of `scale` for columns (B, 4 T, 80) and identities (B, I)."""
        return self.predictions(mel, identity).mean(dim=0)

    def displacements(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return pose-free displacements (B, T, 478, 3), in units of the outer-eye distance, of coefficients."""
        return torch.einsum("btm,mkd->btkd", coefficients * self.scale, self.basis)

    def forward(self, mel: torch.Tensor, neutral: torch.Tensor) -> torch.Tensor:
        """Return displacements (B, T, 478, 3) for columns (B, 4 T, 80) and neutral shapes (B, 478, 3)."""
        return self.displacements(self.coefficients(mel, self.describe(neutral)))
