"""Landmark completion of DiffTalker and LMDiff: sound and visible landmarks to those of lower jaw and mouth.

The papers (arXiv 2309.07509, 2408.05416) name the idea and no architecture; tokens and modality codes follow IP_LAP's
documented generator (Zhong et al., CVPR 2023), whose formulation it is: [reference | sound | visible landmarks], one
token a frame of the latter two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from atldiff.landmarks.fit import ridge_solution
from atldiff.landmarks.generator import POINTS, STATE, describe_shape, listening
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT, EYE_LEFT, EYE_RIGHT, IP_LAP, SIXTY_EIGHT

if TYPE_CHECKING:
    from atldiff.config import CompletionConfig

COMPLETED = np.concatenate([np.arange(4, 13), np.arange(48, 68)])
"""Of the 68 points the 29 that are completed: lower jaw 4-12, mouth 48-67. DiffTalk's split; open in the paper."""
SEEN_68 = np.concatenate([np.arange(0, 4), np.arange(13, 48)])
"""The 39 visible ones."""
COMPLETED_131 = np.concatenate([np.arange(4, 21), np.arange(91, 131)])
"""Of IP_LAP's 131 points the 57 that are completed: jaw 4-20, lips 91-130."""
SEEN_131 = np.concatenate([np.arange(0, 4), np.arange(21, 91)])
"""The 74 visible ones."""
SEEN_DENSE = np.concatenate([
    EYE_RIGHT, EYE_LEFT, BROW_RIGHT, BROW_LEFT, [168, 10, 67, 297, 109, 338, 54, 284, 21, 251, 162, 389],
])  # fmt: skip
"""Of the dense topology: eyes, brows, forehead, bridge of the nose: nothing that a generator moves, and nothing by
which a video of other words would say what its mouth does."""

SEEN_UNIT, SEEN_LIMIT = 0.02, 6.0
"""Displacements of visible points are counted in this, outer-eye distances, and cut at this many of it."""
TURN_UNIT_DEG = 5.0
CLOSE_RIDGE = 0.003
"""Error expected of a completed coordinate, in outer-eye distances: how far the fit trusts points over the basis."""
MEL_AMPLITUDE = 1.7
"""Gain on coefficients that log-mel columns gave. On people never trained on, lips opened 0.52 (GRID) and 0.44 (others)
times as far as the true ones, by `atldiff evaluate`."""
FILMED, MADE_UP, MISSING = range(3)
"""What the landmarks that a generator sees may be: filmed, made up by the motion model, or missing."""


def seen_indices(config: CompletionConfig) -> np.ndarray:
    """Return the dense indices (V,) of the landmarks that a generator sees."""
    return {"dense": SEEN_DENSE, "sixty-eight": SIXTY_EIGHT[SEEN_68], "ip-lap": IP_LAP[SEEN_131]}[config.points]


def completed_indices(config: CompletionConfig) -> np.ndarray:
    """Return the dense indices (P,) of the points that a generator completes, the jaw's first; none of the basis."""
    none = np.zeros(0, np.int64)
    completed = {"dense": none, "sixty-eight": SIXTY_EIGHT[COMPLETED], "ip-lap": IP_LAP[COMPLETED_131]}
    return completed[config.points]


def jaw_count(config: CompletionConfig) -> int:
    """Return how many of the completed points are the jaw's; the rest are the mouth's."""
    return {"dense": 0, "sixty-eight": 9, "ip-lap": 17}[config.points]


def time_codes(frames: int, width: int) -> torch.Tensor:
    """Return sinusoidal codes (T, width) float32 of frame numbers."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class CompletionGenerator(nn.Module):
    """The landmark completion transformer.

    Buffers, filled by training and shipped with the weights: `basis` (M, 478, 3) and `scale` (M,), so that
    displacements are `coefficients * scale @ basis`; `identity_mean` (478, 3) and `identity_basis` (I, 478, 3), unit
    variance a component, that describe a neutral shape. Where it hears a speech encoder also `state_mean` and
    `state_scale` (S,), by which states are standardised, and `gain` (3,) on what is completed beside landmarks that are
    filmed, made up and missing: fitted on people held out, for a prediction shrinks towards the mean.
    """

    state_mean: torch.Tensor
    state_scale: torch.Tensor
    gain: torch.Tensor
    basis: torch.Tensor
    scale: torch.Tensor
    identity_mean: torch.Tensor
    identity_basis: torch.Tensor

    IDENTITY_COMPONENTS = 8

    def __init__(self, config: CompletionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("basis", torch.zeros(config.components, POINTS, 3))
        self.register_buffer("scale", torch.ones(config.components))
        self.register_buffer("identity_mean", torch.zeros(POINTS, 3))
        self.register_buffer("identity_basis", torch.zeros(self.IDENTITY_COMPONENTS, POINTS, 3))
        self.hears_in = torch.float32
        """What the speech encoder computes in; this network stays in float32."""
        if config.features == "mel":
            self.listen = listening(width)
        else:
            self.register_buffer("state_mean", torch.zeros(STATE))
            self.register_buffer("state_scale", torch.ones(STATE))
            self.register_buffer("gain", torch.ones(3))
            self.listen = nn.Sequential(nn.Linear(STATE, width), nn.Dropout(config.dropout))
        seen = 3 * len(seen_indices(config)) + 3
        self.see = nn.Sequential(nn.Linear(seen, width), nn.GELU(), nn.Linear(width, width))
        self.refer = nn.Linear(self.IDENTITY_COMPONENTS, width)
        # What a token is: reference, sound, no sound; landmarks that were filmed, that were made up, that are missing.
        self.modality = nn.Embedding(6, width)
        self.token_norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, config.feed_forward, config.dropout, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        if config.points == "dense":
            self.out = nn.Linear(2 * width, config.components)
        else:
            jaw = jaw_count(config)
            self.mouth = nn.Linear(width, 2 * (len(completed_indices(config)) - jaw))
            self.jaw = nn.Linear(width, 2 * jaw)
        nn.init.normal_(self.modality.weight, std=0.5)

    @property
    def amplitude(self) -> float:
        """Gain on the completed coefficients, for a generator that does not bring its own."""
        return MEL_AMPLITUDE if self.config.features == "mel" else 1.0

    def describe(self, neutral: torch.Tensor) -> torch.Tensor:
        """Return the identity's numbers (B, I), about unit variance, of neutral shapes (B, 478, 3)."""
        return describe_shape(neutral, self.identity_mean, self.identity_basis)

    def complete(
        self,
        sound: torch.Tensor,
        seen: torch.Tensor,
        identity: torch.Tensor,
        heard: torch.Tensor,
        filmed: torch.Tensor,
    ) -> torch.Tensor:
        """Return what is completed, without gain: coefficients (B, T, M) in units of `scale`, or moves (B, T, P, 2).

        sound: log-mel columns (B, 4 T, 80); or, as `config.features` says, states (B, T, S) of the speech encoder,
        which was given the same T frames. seen: (B, T, V * 3 + 3) of `seen_tokens`. identity: (B, I). heard: (B,) bool,
        whether the sound counts. filmed: (B,) int64, `FILMED`, `MADE_UP` or `MISSING`. Moves are canonical, in
        outer-eye distances, from the neutral shape, of `completed_indices`.
        """
        if self.config.features == "mel":
            sound = self.listen(sound.transpose(1, 2)).transpose(1, 2)  # (B, T, D)
        else:
            sound = self.listen((sound - self.state_mean) * self.state_scale)
        sound = torch.where(heard[:, None, None], sound, 0.0) + self.modality(2 - heard.long())[:, None]
        sight = torch.where((filmed < MISSING)[:, None, None], self.see(seen), 0.0) + self.modality(3 + filmed)[:, None]
        reference = (self.refer(identity) + self.modality.weight[0])[:, None]  # (B, 1, D)
        frames = sound.shape[1]
        codes = time_codes(frames, sound.shape[2]).to(sound)
        tokens = self.token_norm(torch.cat([reference, sound + codes, sight + codes], dim=1))
        h = self.norm(self.layers(tokens))
        spoken, shown = h[:, 1 : 1 + frames], h[:, 1 + frames :]
        if self.config.points == "dense":
            return self.out(torch.cat([spoken, shown], dim=-1))
        both = torch.cat([self.jaw(shown), self.mouth(spoken)], dim=-1)
        return both.unflatten(-1, (-1, 2))

    def opened(self, completed: torch.Tensor, filmed: torch.Tensor) -> torch.Tensor:
        """Return what `complete` gave by the gain that these weights bring; filmed: (B,) as there."""
        if self.config.features == "mel":
            return completed
        return completed * self.gain[filmed].view(-1, *(1,) * (completed.dim() - 1))

    def coefficients(self, completed: torch.Tensor) -> torch.Tensor:
        """Return coefficients (B, T, M) in units of `scale` of what `complete` gave."""
        if self.config.points == "dense":
            return completed
        moves = (self.scale[:, None, None] * self.basis)[:, completed_indices(self.config), :2]
        solution = ridge_solution(moves.double().cpu().numpy(), CLOSE_RIDGE)  # (M, P * 2)
        solve = torch.as_tensor(solution, dtype=completed.dtype, device=completed.device)
        return torch.einsum("mk,btk->btm", solve, completed.flatten(2))


def seen_tokens(displacements: torch.Tensor, turned_deg: torch.Tensor) -> torch.Tensor:
    """Return what a generator sees of frames, (..., V * 3 + 3), about unit variance.

    displacements: (..., V, 3) canonical, of the visible landmarks from the neutral shape. turned_deg: (..., 3) yaw,
    pitch and roll of the head against the first frame.
    """
    moved = (displacements / SEEN_UNIT).flatten(-2)
    return torch.cat([moved, turned_deg / TURN_UNIT_DEG], dim=-1).clamp(-SEEN_LIMIT, SEEN_LIMIT)
