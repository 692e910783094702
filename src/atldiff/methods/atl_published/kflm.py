"""The Landmark Generation Module as published (KFLM: arXiv 2507.12804, module first in arXiv 2409.05330).

A second of speech features and the identity's 68 landmarks become a second of landmarks: three transformer blocks and
two BiLSTMs, fused by gated convolutions whose channels are time, and a KAN at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from atldiff.methods.atl_published.coordinates import MOUTH, POINTS, TOKENS
from atldiff.methods.atl_published.kan import KAN

if TYPE_CHECKING:
    from atldiff.config import KFLMConfig

_FACE_HEADS, _MOUTH_HEADS, _CONTEXT_HEADS = 2, 2, 1
_EMOTION_STD = 0.02
_FREQUENCY_BASE = 10_000.0


def landmark_loss(
    predicted: torch.Tensor, target: torch.Tensor, mouth_weight: float, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the published loss: (1 - w) of the square error of all points and w of that of the 20 mouth points.

    predicted, target: (B, T, 68, 2). mouth_weight: w in [0, 1], 0.8 as published. valid: (B, T) in [0, 1], the weight
    of each frame; the sum is over B T frames whatever it holds, so a batch's loss is the mean of its clips'.
    """
    square = (predicted - target).square().mean(dim=-1)  # (B, T, 68)
    error = (1 - mouth_weight) * square.mean(dim=-1) + mouth_weight * square[..., MOUTH].mean(dim=-1)
    return (error if valid is None else error * valid).mean()


class LandmarkTransformer(nn.Module):
    """Landmarks, repeated over time, attend to speech: one post-norm encoder and one post-norm decoder layer."""

    feature_positions: torch.Tensor
    query_positions: torch.Tensor

    def __init__(self, config: KFLMConfig, points: int, heads: int) -> None:
        super().__init__()
        over_time = config.attention_over == "time"
        width, out = config.feature_width, 2 * points
        self.encoder = nn.TransformerEncoderLayer(
            width, heads, config.feed_forward, config.dropout, batch_first=over_time
        )
        self.memory = nn.Linear(width, out)
        self.query = nn.Conv1d(1, TOKENS, 1)
        self.decoder = nn.TransformerDecoderLayer(
            out, heads, config.feed_forward, config.dropout, batch_first=over_time
        )
        for name, channels in (("feature_positions", width), ("query_positions", out)):
            table = _sinusoids(channels) if config.positions else torch.zeros(())
            self.register_buffer(name, table, persistent=False)

    def forward(self, features: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """features: (B, 49, D). landmarks: (B, 2 points), x's then y's. Returns (B, 49, 2 points).

        With attention over the batch the layers are handed the same tensors and take their first axis for time, as
        the released module's do.
        """
        memory = self.memory(self.encoder(features + self.feature_positions))
        return self.decoder(self.query(landmarks[:, None]) + self.query_positions, memory)


class KFLM(nn.Module):
    """Speech features and initial landmarks to a second of landmarks.

    The global domain hears the features as they are; the context domain hears them with the emotion.
    """

    def __init__(self, config: KFLMConfig) -> None:
        super().__init__()
        self.config = config
        width, mouth = config.feature_width, len(MOUTH)
        self.face_global = LandmarkTransformer(config, POINTS, _FACE_HEADS)
        self.mouth_global = LandmarkTransformer(config, mouth, _MOUTH_HEADS)
        self.face_context = LandmarkTransformer(config, POINTS, _CONTEXT_HEADS)
        self.face_lstm = nn.LSTM(width, POINTS, batch_first=True, bidirectional=True)
        self.mouth_lstm = nn.LSTM(width, mouth, batch_first=True, bidirectional=True)
        self.face_fusion = _fusion(3 * TOKENS, config.fusion_width, config.frames)
        self.face_gate = nn.Conv2d(3 * TOKENS, config.frames, 1)
        self.mouth_fusion = _fusion(2 * TOKENS, config.mouth_fusion_width, config.frames)
        self.head = KAN((POINTS, config.kan_width, POINTS), config.kan_grid, config.kan_order)
        if config.emotion == "learned":
            self.emotion_embedding = nn.Embedding(config.emotions + 1, width)
            nn.init.normal_(self.emotion_embedding.weight, std=_EMOTION_STD)

    def forward(self, features: torch.Tensor, initial: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        """Return landmarks (B, frames, 68, 2), normalised.

        features: (B, 49, D). initial: (B, 68, 2) normalised landmarks of the identity. emotion: (B,) int64 labels.
        """
        rows = initial.transpose(1, 2)  # (B, 2, 68): x, then y
        face, mouth = rows.flatten(1), rows[..., MOUTH].flatten(1)
        felt = self._with_emotion(features, emotion)
        face_paths = (self.face_lstm(felt)[0], self.face_global(features, face), self.face_context(felt, face))
        mouth_paths = (self.mouth_lstm(felt)[0], self.mouth_global(features, mouth))
        face_stack = torch.cat(face_paths, dim=1).unflatten(2, (2, POINTS))  # (B, 147, 2, 68)
        mouth_stack = torch.cat(mouth_paths, dim=1).unflatten(2, (2, len(MOUTH)))  # (B, 98, 2, 20)
        fused = self.face_fusion(face_stack) * self.face_gate(face_stack)  # (B, frames, 2, 68)
        columns = torch.tensor(MOUTH, device=fused.device)
        fused = fused.index_copy(3, columns, self.mouth_fusion(mouth_stack))
        landmarks = self.head(fused).transpose(2, 3)
        return initial[:, None] + landmarks if self.config.residual else landmarks

    def _with_emotion(self, features: torch.Tensor, emotion: torch.Tensor) -> torch.Tensor:
        if self.config.emotion == "learned":
            return features + self.emotion_embedding(emotion)[:, None]
        # Over the batch, as released: one clip by itself has the share 1, whatever its label.
        share = emotion.to(features.dtype).softmax(dim=0)
        return features * share[:, None, None]


def _fusion(channels: int, width: int, frames: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(),
        nn.Conv2d(width, frames, 3, padding=1),
    )  # fmt: skip


def _sinusoids(channels: int) -> torch.Tensor:
    """Return the positions of "Attention Is All You Need", (49, channels): sines, then cosines."""
    half = channels // 2
    rates = _FREQUENCY_BASE ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(TOKENS, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
