"""TalkFormer (arXiv 2408.05416): features take on the motion of landmarks, then fetch the portrait's features by it.

The paper names the two parts and gives no formula; the form is ours. With h the latent features of a frame, L and L'
the tokens of its landmarks and of the portrait's, and R the portrait's features:

    h1 = h  + Attention(query h + place, key and value L)      (i)  motion alignment
    r1 = R  + Attention(query R + place, key and value L')     the same weights
    h2 = h1 + Attention(query h1, key r1, value R)             (ii) implicit warping: over all places of the portrait

and a point-wise network. Keys carry the portrait's motion and values its unmoved appearance: that makes (ii) a warp.
What is near counts more from the start: (i) takes from its logits the squared distance of a feature's place to the
landmark, (ii) that of the portrait's place to where the feature's place was before the landmarks moved, each over a
reach that a head learns; and (i) tells a feature where the landmarks it attends to lie, seen from its own place.
Nothing on the way from the landmarks is rounded or drawn, so a loss on what comes out has a gradient on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from atldiff.diffusion.blocks import GROUP_CHANNELS, attention_heads
from atldiff.diffusion.codec import CodecBlock
from atldiff.diffusion.control import zero_convolution

if TYPE_CHECKING:
    from collections.abc import Iterator

WAVES = 8
LONGEST, SHORTEST = 2.0, 1 / 16
"""Wave lengths of the place codes, in widths of the window: eyes lie outside it, and lips move by parts of a pixel."""
CODE = 2 + 4 * WAVES
"""Numbers that say where a point is."""
ALIGN_REACH, WARP_REACH = (0.03, 0.15), (0.05, 0.3)
"""How far the first and the last head of (i) and of (ii) look at first: standard deviations in widths of the window."""
CARRY_REACH = 0.05
"""How near a landmark must be to carry a place with it in (ii), likewise."""


def place_codes(points: torch.Tensor) -> torch.Tensor:
    """Return where points (..., 2) are, (..., CODE): coordinates, and their sines and cosines.

    points: in widths of the window from its corner, in single precision or better. Features and landmarks have the same
    codes, so that a product of two tells how far apart they are.
    """
    rates = torch.logspace(math.log2(1 / LONGEST), math.log2(1 / SHORTEST), WAVES, base=2, device=points.device)
    angles = (2 * math.pi * points[..., None] * rates.to(points.dtype)).flatten(-2)  # (..., 2 WAVES)
    return torch.cat([2 * points - 1, angles.sin(), angles.cos()], dim=-1)


def grid_places(size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """Return where a window's features are, (h * w, 2) in widths of the window, row by row, as `like` is kept.

    size: their height and width, h and w.
    """
    down, across = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / size[1] for n in size)
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def grid_nearness(points: torch.Tensor, size: tuple[int, int], log_reach: torch.Tensor) -> torch.Tensor:
    """Return how near points (..., P, 2) are to a window's features, (..., heads, h * w, P): logits, at most 0.

    size: height and width of the features, h and w. log_reach: (heads,) logarithms of the standard deviation of the
    normal distribution whose logarithm they are.
    """
    rate = torch.exp(-2 * log_reach.to(points.dtype)) / 2
    # By columns and rows: nearly all the work is the one sum at the end.
    down, across = (
        -rate[:, None, None] * _apart(count, size[1], points[..., axis])[..., None, :, :]
        for axis, count in ((1, size[0]), (0, size[1]))
    )  # (..., heads, h or w, P)
    return (down[..., :, None, :] + across[..., None, :, :]).flatten(-3, -2)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Landmarks as TalkFormer takes them. tokens: (..., P, D). points: (..., P, 2) in widths of the window."""

    tokens: torch.Tensor
    points: torch.Tensor


class LandmarkTokens(nn.Module):
    """Landmarks to tokens: where each is, and which it is."""

    def __init__(self, points: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(CODE, width), nn.GELU(), nn.Linear(width, width))
        self.index = nn.Embedding(points, width)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.index.weight, std=0.5)

    def forward(self, points: torch.Tensor) -> Landmarks:
        """Return the landmarks that points (..., P, 2) in widths of the window are."""
        where = self.embed(place_codes(points).to(self.index.weight.dtype))
        return Landmarks(self.norm(where + self.index.weight), points)


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
        """Return features (B, width, h, w), a level each, of latents (B, C, h, w)."""
        h = self.blocks[0](self.stem(latents.contiguous(memory_format=torch.channels_last)))
        features = [h]
        for shrink, block in zip(self.shrink, self.blocks[1:], strict=True):  # pyright: ignore[reportArgumentType]
            h = block(shrink(h))
            features.append(h)
        return features


@dataclass(frozen=True, slots=True)
class Motion:
    """What (i) attends to, for N frames.

    key, value: (N, heads, P, C / heads) of the landmarks. points: (N, P, 2). nearness: (N, heads, h * w, P), added to
    the logits.
    """

    key: torch.Tensor
    value: torch.Tensor
    points: torch.Tensor
    nearness: torch.Tensor


@dataclass(frozen=True, slots=True)
class PortraitFeatures:
    """What (ii) attends to, for B windows.

    key, value: (B, heads, h * w, C / heads). nearness: (B, heads, T * h * w, h * w), added to the logits; None where no
    landmarks tell what came from where.
    """

    key: torch.Tensor
    value: torch.Tensor
    nearness: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Attended:
    """What a TalkFormer attends to, for B windows of T frames: made once a window, whatever the number of steps.

    place: (1, C, h, w), the code of the features' places. Each is None where that part is off.
    """

    place: torch.Tensor | None
    motion: Motion | None
    portrait: PortraitFeatures | None

    def tensors(self) -> list[torch.Tensor]:
        """Return what is not None, in order."""
        found: list[torch.Tensor | None] = [self.place]
        if self.motion is not None:
            found += [self.motion.key, self.motion.value, self.motion.points, self.motion.nearness]
        if self.portrait is not None:
            found += [self.portrait.key, self.portrait.value, self.portrait.nearness]
        return [tensor for tensor in found if tensor is not None]


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
            self.align_reach = nn.Parameter(_log_reaches(ALIGN_REACH, self.heads))
            self.align_out = zero_convolution(width + 2 * self.heads, width)
        if warp:
            self.warp_norm = _norm(width)
            self.warp_query, self.warp_key = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
            self.warp_value = nn.Conv2d(width, width, 1)
            self.warp_out = zero_convolution(width, width)
            self.warp_key.load_state_dict(self.warp_query.state_dict())  # like finds like from the start
        if motion and warp:
            self.warp_reach = nn.Parameter(_log_reaches(WARP_REACH, self.heads))
        self.feed_norm = _norm(width)
        self.feed_in, self.feed_out = nn.Conv2d(width, 2 * width, 1), zero_convolution(2 * width, width)

    def prepare(
        self, size: tuple[int, int], target: Landmarks | None, source: Landmarks | None, reference: torch.Tensor | None
    ) -> Attended:
        """Return what the features (B * T, C, h, w) of a window's frames attend to.

        size: h and w. target: (B, T, P) wanted landmarks. source: (B, P) those of the portrait. reference: (B, C, h, w)
        the portrait's features. None for what belongs to a part that is off.
        """
        place, motion, portrait = None, None, None
        if target is not None:
            codes = place_codes(grid_places(size, target.points.float())).T.unflatten(1, size)[None]
            place = self.place(codes.to(self.place.weight.dtype))
            motion = self._motion(size, target.tokens.flatten(0, 1), target.points.flatten(0, 1))
        if reference is not None:
            tagged, nearness = reference, None
            if target is not None and source is not None and place is not None:
                tagged = self.align(reference, place, self._motion(size, source.tokens, source.points))
                nearness = self._nearness_in_portrait(size, target.points, source.points).to(reference.dtype)
            key = self.warp_key(self.warp_norm(tagged))
            portrait = PortraitFeatures(self._heads(key), self._heads(self.warp_value(reference)), nearness)
        return Attended(place, motion, portrait)

    def align(self, features: torch.Tensor, place: torch.Tensor, motion: Motion) -> torch.Tensor:
        """Return features (N, C, h, w) with the motion that the landmarks tell."""
        query = self._heads(self.align_query(self.align_norm(features) + place))
        logits = query @ motion.key.transpose(-1, -2) * query.shape[-1] ** -0.5
        weights = (logits.to(motion.nearness.dtype) + motion.nearness).softmax(-1)  # single precision for the offsets
        mixed = weights.to(query.dtype) @ motion.value
        here = grid_places((features.shape[-2], features.shape[-1]), motion.points)
        offsets = (weights @ motion.points[:, None] - here) / self.align_reach.to(here.dtype).exp()[:, None, None]
        told = torch.cat([_picture(mixed, features), _picture(offsets.to(query.dtype), features)], dim=1)
        return features + self.align_out(told)

    def fetch(self, features: torch.Tensor, portrait: PortraitFeatures) -> torch.Tensor:
        """Return features (B * T, C, h, w) with what lies in the portrait where its motion is theirs."""
        query = self._heads(self.warp_query(self.warp_norm(features)))  # (B * T, heads, h * w, d)
        batch = len(portrait.key)
        # All frames of a window look at one portrait: their places are queries of one attention.
        together = query.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)  # (B, heads, T * h * w, d)
        # Two products: torch's fused attention is 2 to 20 times slower in bfloat16 on a CPU where a head's channels or
        # the keys are no multiple of 32, above all backwards.
        logits = together @ portrait.key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if portrait.nearness is not None:
            logits = logits + portrait.nearness
        mixed = logits.softmax(-1) @ portrait.value
        mixed = mixed.unflatten(2, (-1, query.shape[2])).transpose(1, 2).flatten(0, 1)
        return features + self.warp_out(_picture(mixed, features))

    def forward(self, features: torch.Tensor, attended: Attended) -> torch.Tensor:
        """features: (B * T, C, h, w). attended: of `prepare`. Returns the shape of the features."""
        h = features
        if attended.motion is not None and attended.place is not None:
            h = self.align(h, attended.place, attended.motion)
        if attended.portrait is not None:
            h = self.fetch(h, attended.portrait)
        return h + self.feed_out(functional.gelu(self.feed_in(self.feed_norm(h))))

    def attended(self, given: Iterator[torch.Tensor]) -> Attended:
        """Return what `Attended.tensors` gave, taken from `given` one by one, in this network's number format."""
        dtype = self.feed_in.weight.dtype
        place, motion, portrait = None, None, None
        if hasattr(self, "align_norm"):
            place = next(given).to(dtype)
            motion = Motion(next(given).to(dtype), next(given).to(dtype), next(given), next(given))
        if hasattr(self, "warp_norm"):
            key, value = next(given).to(dtype), next(given).to(dtype)
            portrait = PortraitFeatures(key, value, None if motion is None else next(given).to(dtype))
        return Attended(place, motion, portrait)

    def _motion(self, size: tuple[int, int], tokens: torch.Tensor, points: torch.Tensor) -> Motion:
        """Return what (i) attends to, of tokens (N, P, D) and points (N, P, 2)."""
        key, value = self.align_key_value(tokens).unflatten(-1, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return Motion(key, value, points, grid_nearness(points, size, self.align_reach))

    def _nearness_in_portrait(self, size: tuple[int, int], target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Return how near to its old place each place of the portrait is, (B, heads, T * h * w, h * w).

        target: (B, T, P, 2) and source: (B, P, 2). A place was where the landmarks around it carried it from.
        """
        reach = torch.full((1,), math.log(CARRY_REACH), device=target.device)
        carried = grid_nearness(target, size, reach)[..., 0, :, :].softmax(-1)  # (B, T, h * w, P)
        before = grid_places(size, target) + carried @ (source[:, None] - target)
        return grid_nearness(before.flatten(1, 2), size, self.warp_reach).transpose(-1, -2)

    def _heads(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, heads, h * w, C / heads) of features (N, C, h, w)."""
        return features.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)


def _apart(count: int, width: int, along: torch.Tensor) -> torch.Tensor:
    """Return the squared distances (..., count, P) of `count` middles, `width` a unit, to coordinates (..., P)."""
    middles = (torch.arange(count, device=along.device, dtype=along.dtype) + 0.5) / width
    return (middles[:, None] - along[..., None, :]).square()


def _log_reaches(ends: tuple[float, float], heads: int) -> torch.Tensor:
    """Return the logarithms of reaches (heads,), evenly from the first to the last."""
    return torch.linspace(math.log(ends[0]), math.log(ends[1]), heads)


def _picture(mixed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return (N, heads * d, h, w) of what attention gave, (N, heads, h * w, d), for features of h * w places."""
    folded = mixed.transpose(1, 2).reshape(like.shape[0], like.shape[2], like.shape[3], -1)
    return folded.permute(0, 3, 1, 2)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP_CHANNELS, width)
