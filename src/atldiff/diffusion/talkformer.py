"""TalkFormer (arXiv 2408.05416): features take on the motion of landmarks, then fetch the portrait's features by it.

The paper names the two parts and gives no formula; the form is ours. With h the latent features of a frame, L and L'
the tokens of its landmarks and of the portrait's, and R the portrait's features:

    h1 = h  + Attention(query h + place, key and value L)      (i)  motion alignment
    r1 = R  + Attention(query R + place, key and value L')     the same weights
    h2 = h1 + Attention(query h1, key r1, value R)             (ii) implicit warping: over all places of the portrait

and a point-wise network. Keys carry the portrait's motion and values its unmoved appearance: that makes (ii) a warp.
Nothing on the way from the landmarks is rounded or drawn, so a loss on what comes out has a gradient on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import GROUP_CHANNELS, attention_heads
from atldiff.diffusion.codec import CodecBlock
from atldiff.diffusion.control import zero_convolution

WAVES = 8
LONGEST, SHORTEST = 2.0, 1 / 16
"""Wave lengths of the place codes, in sides of the window: eyes lie outside it, and lips move by parts of a pixel."""
CODE = 2 + 4 * WAVES
"""Numbers that say where a point is."""


def place_codes(points: torch.Tensor) -> torch.Tensor:
    """Return where points (..., 2) are, (..., CODE): coordinates, and their sines and cosines.

    points: in sides of the window from its corner, in single precision or better. Features and landmarks have the same
    codes, so that a product of two tells how far apart they are.
    """
    rates = torch.logspace(math.log2(1 / LONGEST), math.log2(1 / SHORTEST), WAVES, base=2, device=points.device)
    angles = (2 * math.pi * points[..., None] * rates.to(points.dtype)).flatten(-2)  # (..., 2 WAVES)
    return torch.cat([2 * points - 1, angles.sin(), angles.cos()], dim=-1)


def grid_codes(side: int, device: torch.device) -> torch.Tensor:
    """Return the place codes (1, CODE, s, s) float32 of a window's features."""
    middle = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return place_codes(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


class LandmarkTokens(nn.Module):
    """Landmarks to tokens: where each is, and which it is."""

    def __init__(self, points: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(CODE, width), nn.GELU(), nn.Linear(width, width))
        self.index = nn.Embedding(points, width)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.index.weight, std=0.5)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return tokens (..., P, width) of points (..., P, 2) in sides of the window."""
        where = self.embed(place_codes(points).to(self.index.weight.dtype))
        return self.norm(where + self.index.weight)


class ReferenceEncoder(nn.Module):
    """The portrait's latents to features at each level of a U-Net of these widths."""

    def __init__(self, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels_in, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(CodecBlock(width) for width in widths)
        self.shrink = nn.ModuleList(
            nn.Conv2d(near, far, 3, stride=2, padding=1) for near, far in zip(widths, widths[1:], strict=False)
        )

    def forward(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return features (B, width, s, s), a level each, of latents (B, C, s, s)."""
        h = self.blocks[0](self.stem(latents.contiguous(memory_format=torch.channels_last)))
        features = [h]
        for shrink, block in zip(self.shrink, self.blocks[1:], strict=True):  # pyright: ignore[reportArgumentType]
            h = block(shrink(h))
            features.append(h)
        return features


@dataclass(frozen=True, slots=True)
class Attended:
    """What a TalkFormer attends to, for B windows of T frames: made once a window, whatever the number of steps.

    place: (1, C, s, s) of the features. motion: key and value (B * T, heads, P, C / heads) of the landmarks. portrait:
    key and value (B, heads, s * s, C / heads). Each None where that part is off.
    """

    place: torch.Tensor | None
    motion: tuple[torch.Tensor, torch.Tensor] | None
    portrait: tuple[torch.Tensor, torch.Tensor] | None


class TalkFormer(nn.Module):
    """One level's alignment and warping; a fresh one changes nothing.

    width: channels of the features. token_width: of the landmark tokens. motion, warp: parts (i) and (ii).
    """

    def __init__(self, width: int, token_width: int, *, motion: bool = True, warp: bool = True) -> None:
        super().__init__()
        self.heads = attention_heads(width)
        if motion:
            self.align_norm = _norm(width)
            self.place = nn.Conv2d(CODE, width, 1, bias=False)
            self.align_query = nn.Conv2d(width, width, 1)
            self.align_key_value = nn.Linear(token_width, 2 * width)
            self.align_out = zero_convolution(width, width)
        if warp:
            self.warp_norm = _norm(width)
            self.warp_query, self.warp_key = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
            self.warp_value = nn.Conv2d(width, width, 1)
            self.warp_out = zero_convolution(width, width)
            self.warp_key.load_state_dict(self.warp_query.state_dict())  # like finds like from the start
        self.feed_norm = _norm(width)
        self.feed_in, self.feed_out = nn.Conv2d(width, 2 * width, 1), zero_convolution(2 * width, width)

    def prepare(
        self,
        side: int,
        target: torch.Tensor | None,
        source: torch.Tensor | None,
        reference: torch.Tensor | None,
    ) -> Attended:
        """Return what the features (B * T, C, s, s) of a window's frames attend to.

        side: s. target: (B, T, P, D) tokens of the wanted landmarks. source: (B, P, D) of the portrait's. reference:
        (B, C, s, s) the portrait's features. None for what belongs to a part that is off.
        """
        place, motion, portrait = None, None, None
        if target is not None:
            codes = grid_codes(side, target.device)
            place = self.place(codes.to(self.place.weight.dtype))
            motion = self._key_value(target.flatten(0, 1))
        if reference is not None:
            tagged = reference
            if place is not None and source is not None:
                tagged = self.align(reference, place, self._key_value(source))
            key = self.warp_key(self.warp_norm(tagged))
            portrait = self._heads(key), self._heads(self.warp_value(reference))
        return Attended(place, motion, portrait)

    def align(
        self, features: torch.Tensor, place: torch.Tensor, landmarks: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Return features (N, C, s, s) with the motion that the landmarks' keys and values (N, ...) tell."""
        query = self._heads(self.align_query(self.align_norm(features) + place))
        mixed = attention(query, *landmarks)
        return features + self.align_out(_picture(mixed, features))

    def fetch(self, features: torch.Tensor, portrait: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return features (B * T, C, s, s) with what lies in the portrait where its motion is theirs."""
        query = self._heads(self.warp_query(self.warp_norm(features)))  # (B * T, heads, s * s, d)
        batch = len(portrait[0])
        # All frames of a window look at one portrait: their places are queries of one attention.
        together = query.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)  # (B, heads, T * s * s, d)
        mixed = attention(together, *portrait)
        mixed = mixed.unflatten(2, (-1, query.shape[2])).transpose(1, 2).flatten(0, 1)
        return features + self.warp_out(_picture(mixed, features))

    def forward(self, features: torch.Tensor, attended: Attended) -> torch.Tensor:
        """features: (B * T, C, s, s). attended: of `prepare`. Returns the shape of the features."""
        h = features
        if attended.motion is not None and attended.place is not None:
            h = self.align(h, attended.place, attended.motion)
        if attended.portrait is not None:
            h = self.fetch(h, attended.portrait)
        return h + self.feed_out(functional.gelu(self.feed_in(self.feed_norm(h))))

    def _key_value(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return key and value (N, heads, P, C / heads) of landmark tokens (N, P, D)."""
        key, value = self.align_key_value(tokens).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return key, value

    def _heads(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, heads, s * s, C / heads) of features (N, C, s, s)."""
        return features.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return softmax(query key' / sqrt(d)) value, (..., N, d), of query (..., N, d), key and value (..., P, d).

    As two products: torch's fused attention is 5 to 20 times slower in bfloat16 on a CPU when P or d is no multiple of
    32, above all backwards, and the portrait's places and the landmarks are few.
    """
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value


def _picture(mixed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return (N, C, s, s) of what attention gave, (N, heads, s * s, C / heads)."""
    folded = mixed.transpose(1, 2).reshape(len(like), like.shape[2], like.shape[3], like.shape[1])
    return folded.permute(0, 3, 1, 2)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP_CHANNELS, width)
