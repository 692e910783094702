"""How far predicted coefficients are from the mouth that spoke: positions, velocities, and the opening of the lips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from atldiff.landmarks.topology import LIPS
from atldiff.training.alignment import opening_slopes

if TYPE_CHECKING:
    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.landmarks.generator import Generator

OPENING_WEIGHT = 2.0
SPREAD_WEIGHT = 0.3
CLOSURE_WEIGHT = 1.2
APART_WEIGHT = 4.0
"""Of lips that come together where true ones are clearly apart: closures are asked for, and so must be what is none."""
CLOSED, OPEN = 0.012, 0.04
"""Openings of the lips beyond the rest, in outer-eye distances, at which they meet, and at which they clearly part."""
BEYOND = 0.005
"""How far beyond touching lips are asked to press where they meet; `landmarks.mouth` stops them where they touch."""
PARTED = 0.08
"""How far lips part at least in open vowels."""
CLOSURE_REACH = 4
"""Frames between a closure and parted lips, for it to be one of speech and no pause."""
CORRELATION_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class MouthLoss:
    """The loss of a generator's coefficients.

    lip_basis: (M, 80, 3) what a coefficient of one moves the lips by. opening_basis: (M,) what it opens them by. scale:
    (M,).
    """

    lip_basis: torch.Tensor
    opening_basis: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, generator: Generator | CompletionGenerator) -> MouthLoss:
        """Return the loss over a generator's basis."""
        slopes = torch.from_numpy(opening_slopes(generator)).to(generator.basis.device)
        return cls((generator.scale[:, None, None] * generator.basis)[:, LIPS], slopes, generator.scale)

    def __call__(
        self,
        predicted: torch.Tensor,
        truth: torch.Tensor,
        valid: torch.Tensor,
        velocity_weight: float,
        asked: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of coefficients (B, T, M), each the mean over clips; valid: (B, T) frames that count.

        asked: (B, T) each, 0 or 1, where lips that were not filmed have to meet and to part; with it, lips are asked to
        move as far as the true ones, to meet where those meet in speech, and to stay apart where they are.
        """
        difference = predicted - truth
        both = valid[:, 1:] * valid[:, :-1]
        lips = torch.einsum("btm,mkd->btkd", difference, self.lip_basis).flatten(2)  # (B, T, 240)
        position = mean_over_frames(lips.abs().mean(-1), valid)
        velocity = mean_over_frames((lips[:, 1:] - lips[:, :-1]).abs().mean(-1), both)
        rest = mean_over_frames((difference.abs() * self.scale).mean(-1), valid)
        opening = difference @ self.opening_basis
        change = (opening[:, 1:] - opening[:, :-1]).abs()
        gap_error = mean_over_frames(opening.abs(), valid) + 2 * mean_over_frames(change, both)
        agreement = _correlation(predicted @ self.opening_basis, truth @ self.opening_basis, valid)
        total = (
            position + velocity_weight * velocity + 0.1 * rest + OPENING_WEIGHT * gap_error * 0.25
            + CORRELATION_WEIGHT * 0.2 * (1 - agreement)
        )  # fmt: skip
        losses = {"position": position, "velocity": velocity, "opening_correlation": agreement}
        if asked is not None:
            closed, parted = asked
            said, true = predicted @ self.opening_basis, truth @ self.opening_basis
            losses["spread"] = (spread(said, valid) - spread(true, valid)).abs().mean()
            above = (said + BEYOND).clamp_min(0) * (closures(true, valid) + closed)
            below = (PARTED - said).clamp_min(0) * parted
            losses["closure"] = (above.sum(1) + below.sum(1)).mean() / said.shape[1]
            shut = (OPEN - said).clamp_min(0) * (true > OPEN) * valid
            losses["apart"] = shut.sum(1).mean() / said.shape[1]
            total = total + SPREAD_WEIGHT * losses["spread"] + CLOSURE_WEIGHT * losses["closure"]
            total = total + APART_WEIGHT * losses["apart"]
        return {"loss": 10 * total, **losses}


def spread(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the deviation (B,) over time of series (B, T), over the frames that count."""
    total = weights.sum(1, keepdim=True).clamp_min(1)
    centred = (values - (values * weights).sum(1, keepdim=True) / total) * weights
    return (centred.square().sum(1) / total[:, 0]).clamp_min(1e-8).sqrt()


def closures(opening: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return where true lips (B, T) meet between sounds, as 0 or 1 (B, T): closed, and open a few frames away."""
    window = 2 * CLOSURE_REACH + 1
    parted = ((opening > OPEN) & (valid > 0)).float()[:, None]
    near = torch.nn.functional.max_pool1d(parted, window, 1, CLOSURE_REACH)[:, 0]
    return (opening < CLOSED).float() * near * valid


def mean_over_frames(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over clips of each clip's mean over its frames (B, T) that count."""
    return ((values * weights).sum(1) / weights.sum(1).clamp_min(1)).mean()


def _correlation(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over the batch of the correlation over time of (B, T) series."""
    total = weights.sum(dim=1, keepdim=True).clamp_min(1)
    first = (first - (first * weights).sum(1, keepdim=True) / total) * weights
    second = (second - (second * weights).sum(1, keepdim=True) / total) * weights
    norm = (first.square().sum(1) * second.square().sum(1)).clamp_min(1e-12).sqrt()
    return ((first * second).sum(1) / (norm + 1e-3)).mean()
