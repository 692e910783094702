"""The denoiser of 3D Identity Diffusion, compact: space-to-depth stem, spatial and temporal convolutions, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import CrossAttention, ResidualBlock, SpatialAttention, fold_time, unfold_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


HEAD_WIDTH = 24
"""Least channels of an enlarging head."""


class UNet3D(nn.Module):
    """Predict the residual x0 - prior, (B, channels_out, T, S, S), from the noisy window and its conditions.

    channels_in: channels of the concatenated input. stem: space-to-depth factor. widths and blocks: a value a level.
    context_width: channels of tokens that every level but the first attends to, 0 for none. labels: how many classes
    the time embedding knows, 0 for none. head: `shuffle`, features rearranged to pixels, or `resize`, enlarged and
    convolved.
    """

    def __init__(
        self,
        channels_in: int,
        stem: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        channels_out: int = 3,
        context_width: int = 0,
        labels: int = 0,
        head: str = "shuffle",
    ) -> None:
        super().__init__()
        self.stem_factor = stem
        self.embedding_width = 2 * widths[0]
        hidden = 4 * widths[0]
        self.embed = nn.Sequential(nn.Linear(self.embedding_width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.labels = nn.Embedding(labels, hidden) if labels else None
        self.stem = nn.Conv2d(channels_in * stem**2, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level, (level_width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.ModuleList()
            for _ in range(count):
                stage.append(ResidualBlock(width, level_width, hidden))
                width = level_width
            self.down.append(stage)
            last = level == len(widths) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.context = nn.ModuleList(
            CrossAttention(level_width, context_width) for level_width in (widths[1:] if context_width else ())
        )
        self.attention = SpatialAttention(width)
        self.middle = ResidualBlock(width, width, hidden)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            stage = nn.ModuleList()
            stage_in = width + widths[level]
            for _ in range(blocks[level]):
                stage.append(ResidualBlock(stage_in, widths[level], hidden))
                stage_in = width = widths[level]
            self.up.append(stage)
            self.grow.append(
                nn.Identity() if level == 0 else nn.Conv2d(width, 4 * widths[level - 1], 1)
            )  # to depth, then to space
            width = width if level == 0 else widths[level - 1]
        self.out_norm = nn.GroupNorm(widths[0] // 16, widths[0])
        self.enlarge = nn.ModuleList()
        if head == "resize":
            width = widths[0]
            while stem > 1:
                self.enlarge.append(nn.Conv2d(width, max(HEAD_WIDTH, width // 2), 3, padding=1))
                width, stem = max(HEAD_WIDTH, width // 2), stem // 2
            self.out = nn.Conv2d(width, channels_out, 3, padding=1)
        else:
            self.out = nn.Conv2d(widths[0], channels_out * stem**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def _stemmed(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (B * T, C, s, s) of an input (B, channels_in, T, S, S)."""
        if not torch.onnx.is_in_onnx_export():
            h = functional.pixel_unshuffle(fold_time(x), self.stem_factor)
            return self.stem(h.contiguous(memory_format=torch.channels_last))
        # The same as one convolution with strides: runtimes take an eighth of all their time to bring space to depth.
        factor, (width, _, *kernel) = self.stem_factor, self.stem.weight.shape
        weight = self.stem.weight.reshape(width, -1, factor, factor, *kernel).permute(0, 1, 4, 2, 5, 3)
        weight = weight.reshape(width, -1, *(side * factor for side in kernel))
        frames = x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])
        return functional.conv2d(frames, weight, self.stem.bias, stride=factor, padding=factor)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights and of what it takes."""
        return self.stem.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.stem.weight.device

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        context: torch.Tensor | None = None,
        label: torch.Tensor | None = None,
        injections: list[torch.Tensor] | None = None,
        attend: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """Return (B, channels_out, T, S, S).

        x: (B, channels_in, T, S, S). embedding: (B, embedding_width) of t. context: (B, N, context_width) tokens.
        label: (B,) int64. injections: what a control branch adds to each level's skip, then to the middle, each
        (B * T, C, s, s) of its place. attend: by level, what its features (B * T, C, s, s) go through on the way down.
        """
        batch, _, frames = x.shape[:3]
        embedded = self.embed(embedding)  # (B, E)
        if self.labels is not None:
            embedded = embedded + self.labels(label)
        embedded = functional.silu(embedded)
        embedded = embedded.repeat_interleave(frames, dim=0)  # (B * T, E)
        h = self._stemmed(x)  # (B * T, C, s, s)
        skips = []
        for level, (stage, shrink) in enumerate(zip(self.down, self.shrink, strict=True)):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, embedded, batch)
            if level and self.context:
                h = self.context[level - 1](h, context)
            if attend is not None and level in attend:
                h = attend[level](h)
            skips.append(h if injections is None else h + injections[level])
            h = shrink(h)
        h = self.middle(self.attention(h), embedded, batch)
        if injections is not None:
            h = h + injections[-1]
        for stage, grow in zip(self.up, self.grow, strict=True):
            h = torch.cat([h, skips.pop()], dim=1)
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, embedded, batch)
            if not isinstance(grow, nn.Identity):
                h = functional.pixel_shuffle(grow(h), 2).contiguous(memory_format=torch.channels_last)
        h = functional.silu(self.out_norm(h))
        if not self.enlarge:
            return unfold_time(functional.pixel_shuffle(self.out(h), self.stem_factor), batch)
        for convolution in self.enlarge:
            h = functional.silu(convolution(functional.interpolate(h, scale_factor=2, mode="bilinear")))
        return unfold_time(self.out(h), batch)
