"""The Landmark Generation Module, compact: what is heard and the identity's shape to pose-free displacements.

Heard are log-mel columns, by networks side by side, or the states of a speech encoder (`audio.whisper`), by networks
that are folded into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.timebase import MEL_BANDS

if TYPE_CHECKING:
    from atldiff.config import GeneratorConfig

POINTS = 478
STATE = 1024
"""Numbers a frame of the speech encoder, `audio.whisper.STATE`."""


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


class MelNetworks(nn.ModuleList):
    """Networks side by side, whose coefficients are the mean of theirs."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(SpeechNetwork(config) for _ in range(config.members))

    def predictions(self, mel: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return every member's coefficients (N, B, T, M) for columns (B, 4 T, 80) and identities (B, I)."""
        return torch.stack([network(mel, identity) for network in self])

    def forward(self, mel: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return the mean (B, T, M) of the members' coefficients."""
        return self.predictions(mel, identity).mean(dim=0)


class FoldedNetworks(nn.Module):
    """States of a speech encoder and the identity's numbers to coefficients: several networks in one call.

    Each is what a `SpeechNetwork` is after its convolutions. Channels of all lie side by side, so that what is one
    product for each becomes one for all; vectors are flat, (members * D,). Windows are context, block and look-ahead:
    only what the block's frames need is computed.

    Buffers, filled by training: `state_mean` and `state_scale` (S,), by which states are standardised, and `gain` (1,)
    on the mean of the predictions. A prediction from sound alone shrinks towards the mean, on people never heard more
    than on those of training: the gain is fitted on people held out.
    """

    state_mean: torch.Tensor
    state_scale: torch.Tensor
    gain: torch.Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        members, width = config.members, config.width
        self.members, self.width = members, width
        self.context, self.lookahead, self.reach = config.context_frames, config.lookahead_frames, config.kernel // 2
        self.register_buffer("state_mean", torch.zeros(STATE))
        self.register_buffer("state_scale", torch.ones(STATE))
        self.register_buffer("gain", torch.ones(1))
        self.listen = nn.Linear(STATE, members * width)
        self.identity = nn.Linear(config.identity_components, members * width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            FoldedBlock(members, width, config.kernel, config.expansion, config.dropout) for _ in range(config.blocks)
        )
        self.norm = FoldedNorm(members, width)
        self.out = FoldedLinear(members, width, config.components)

    def predictions(self, states: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return every member's coefficients (N, B, F, M), without gain, of states (B, T, S) and identities (B, I).

        Of the T frames the first `context_frames` and the last `lookahead_frames` are heard only: F are between them.
        """
        h = self.listen((states - self.state_mean) * self.state_scale) + self.identity(identity)[:, None]
        h = self.dropout(h.unflatten(-1, (self.members, self.width)).permute(2, 0, 1, 3))  # (N, B, T, D)
        before, after = self.context, self.lookahead  # frames around the block that are still there
        for left, block in zip(reversed(range(len(self.blocks))), self.blocks, strict=True):
            kept = min(before, left * self.reach), min(after, left * self.reach)
            h = block(h, before - kept[0], after - kept[1])
            before, after = kept
        return self.out(self.norm(h))

    def forward(self, states: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return coefficients (B, F, M) of a window's block, the mean of the members' by the gain."""
        return self.predictions(states, identity).mean(dim=0) * self.gain


class FoldedLinear(nn.Module):
    """A linear layer for each member: (N, B, T, in) to (N, B, T, out)."""

    def __init__(self, members: int, width: int, out: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else width**-0.5
        self.weight = nn.Parameter(torch.empty(members, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members * out).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, B, T, in). Returns (N, B, T, out)."""
        members, _, out = self.weight.shape
        bias = self.bias.view(members, 1, out)
        return torch.baddbmm(bias, x.flatten(1, 2), self.weight).unflatten(1, x.shape[1:3])


class FoldedNorm(nn.Module):
    """A layer normalisation for each member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.members, self.width = members, width
        self.weight = nn.Parameter(torch.ones(members * width))
        self.bias = nn.Parameter(torch.zeros(members * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (N, B, T, D). Returns the same shape."""
        shape = (self.members, 1, 1, self.width)
        return functional.layer_norm(x, (self.width,)) * self.weight.view(shape) + self.bias.view(shape)


class FoldedBlock(nn.Module):
    """A `TemporalBlock` for each member."""

    def __init__(self, members: int, width: int, kernel: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Conv1d(members * width, members * width, kernel, padding=kernel // 2, groups=members * width)
        self.norm = FoldedNorm(members, width)
        self.widen = FoldedLinear(members, width, expansion * width)
        self.narrow = FoldedLinear(members, expansion * width, width, zero=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """x: (N, B, T, D). Returns it without its `first` and `last` frames, which are heard only."""
        members, batch, frames, width = x.shape
        mixed = self.mix(x.permute(1, 0, 3, 2).reshape(batch, members * width, frames))
        mixed = mixed.view(batch, members, width, frames)[..., first : frames - last].permute(1, 0, 3, 2)
        h, x = self.norm(mixed), x[:, :, first : frames - last]
        return x + self.dropout(self.narrow(functional.gelu(self.widen(h))))


class Generator(nn.Module):
    """Audio to landmarks through a learned linear basis.

    Buffers, filled by training and shipped with the weights: `basis` (M, 478, 3) and `scale` (M,), so that
    displacements are `coefficients * scale @ basis`; `identity_mean` (478, 3) and `identity_basis` (I, 478, 3), unit
    variance per component, that describe a neutral shape.
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
        self.networks = MelNetworks(config) if config.features == "mel" else FoldedNetworks(config)

    def predictions(self, heard: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return every member's coefficients (N, B, T, M), without gain: training judges each by itself."""
        return self.networks.predictions(heard, identity)

    def forward(self, heard: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """Return coefficients (B, T, M) in units of `scale` for identities (B, I).

        heard: log-mel columns (B, 4 T, 80); or, as `config.features` says, states (B, context + T + look-ahead, S) of
        the speech encoder.
        """
        return self.networks(heard, identity)
