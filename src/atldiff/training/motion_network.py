"""The motion model while it is learned: how likely each step of head and brows is, after those before and the sound.

    z[k] = sum of ar[i] z[k - 1 - i] + mix (drive + spread * noise)

`drive` and `spread` are what a small network says of the sound and of the motion so far; both are bounded, the noise
has Student's distribution and the autoregression is stable, so that a face never drifts away. `landmarks/motion_model`
computes the same in NumPy, a step at a time.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from atldiff.landmarks.motion_codes import BANDS, CODES
from atldiff.landmarks.motion_model import (
    DRIVE,
    FELT,
    FIRST_TAPS,
    MEMORY,
    ORDER,
    SECOND_STRIDE,
    SECOND_TAPS,
    SPREAD,
    STILL,
    TAIL,
    WIDTH,
)

_VOLUME = math.lgamma((TAIL + CODES) / 2) - math.lgamma(TAIL / 2) - CODES / 2 * math.log(TAIL * math.pi)


class MotionNetwork(nn.Module):
    """Parameters of the model; buffers hold what is counted and not learned by gradients, see `motion_task`."""

    def __init__(self) -> None:
        super().__init__()
        self.ar = nn.Parameter(torch.zeros(ORDER, CODES, CODES))
        self.mix = nn.Parameter(torch.eye(CODES))
        self.first = nn.Conv1d(BANDS, WIDTH, FIRST_TAPS)
        self.second = nn.Conv1d(WIDTH, WIDTH, SECOND_TAPS, dilation=SECOND_STRIDE)
        self.memory = nn.GRU(WIDTH + FELT, MEMORY, batch_first=True)
        self.out = nn.Linear(MEMORY, 2 * CODES)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(0.2)

    def listen(self, heard: torch.Tensor) -> torch.Tensor:
        """Return (B, K, WIDTH) of what was heard (B, K, BANDS), a step knowing only those up to itself."""
        reach = FIRST_TAPS - 1, (SECOND_TAPS - 1) * SECOND_STRIDE
        first = torch.tanh(self.first(functional.pad(heard.transpose(1, 2), (reach[0], 0), value=-1.0)))
        quiet = torch.tanh(self.first(heard.new_full((1, BANDS, FIRST_TAPS), -1.0)))
        first = torch.cat([quiet.expand(len(first), -1, reach[1]), first], dim=2)
        return torch.tanh(self.second(first)).transpose(1, 2)

    def forward(self, codes: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood (B, K - ORDER) of codes (B, K, CODES) after the first ORDER steps.

        heard: (B, K, BANDS), silence where the sound is not known.
        """
        said = self.listen(heard)
        steps = codes.shape[1] - ORDER
        past = torch.stack(
            [codes[:, ORDER - 1 - i : ORDER - 1 - i + steps] for i in range(ORDER)], dim=2
        )  # (B, K, P, D)
        expected = torch.einsum("bkpd,ped->bke", past, self.ar)
        drive, spread = self.respond(said[:, ORDER - 1 :], codes[:, ORDER - 2 : -1])
        lower = torch.tril(self.mix)
        rest = torch.linalg.solve_triangular(lower, (codes[:, ORDER:] - expected).transpose(1, 2), upper=False)
        noise = (rest.transpose(1, 2) - drive) / spread
        size = noise.square().sum(-1)
        density = _VOLUME - (TAIL + CODES) / 2 * torch.log1p(size / TAIL)
        volume = torch.log(torch.diagonal(lower).abs()).sum()
        return volume + torch.log(spread).sum(-1) - density

    def respond(self, said: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return drive and spread (B, K, CODES) of sound (B, K + 1, WIDTH) and codes before it (B, K + 1, CODES)."""
        moved = before[:, 1:] - before[:, :-1]
        felt = torch.cat([before[:, 1:].clamp(-4, 4), torch.log(moved.abs() + STILL)], dim=-1)
        remembered, _ = self.memory(self.dropout(torch.cat([said[:, 1:], felt], dim=-1)))
        drive, spread = self.out(remembered).chunk(2, dim=-1)
        return DRIVE * torch.tanh(drive), torch.exp(SPREAD * torch.tanh(spread))
