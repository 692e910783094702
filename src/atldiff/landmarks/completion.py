"""Landmark completion of DiffTalker and LMDiff: sound and visible landmarks to those of lower jaw and mouth.

The papers (arXiv 2309.07509, 2408.05416) name the idea and no architecture; tokens and modality codes follow IP_LAP's
documented generator (Zhong et al., CVPR 2023), whose formulation it is: [reference | sound | visible landmarks], one
token a frame of the latter two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.landmarks.completion_points import MISSING, closest, completed_indices, jaw_count, seen_indices
from atldiff.landmarks.generator import POINTS, STATE, listening

if TYPE_CHECKING:
    from atldiff.config import CompletionConfig


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

    def forward(
        self,
        sound: torch.Tensor,
        seen: torch.Tensor,
        identity: torch.Tensor,
        heard: torch.Tensor,
        filmed: torch.Tensor,
    ) -> torch.Tensor:
        """Return what `complete` gives for what it takes, by the gain of these weights."""
        return self.opened(self.complete(sound, seen, identity, heard, filmed), filmed)

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
        moves = (self.scale[:, None, None] * self.basis).cpu().numpy()
        solve = torch.as_tensor(closest(moves, self.config), dtype=completed.dtype, device=completed.device)
        return torch.einsum("mk,btk->btm", solve, completed.flatten(2))
