"""What LMDiff's renderer sees of a window: landmarks as points, target with its lower face hidden, portrait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IP_LAP
from atldiff.methods import latent_inputs
from atldiff.methods.latent_inputs import portrait_maps
from atldiff.methods.mouth_layers import BEHIND_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from atldiff.config import TalkRendererConfig
    from atldiff.video.cavity import MouthLayers

    Values = TypeVar("Values", np.ndarray, torch.Tensor)

NEEDED = np.union1d(latent_inputs.NEEDED, IP_LAP)
"""Dense indices that the inputs are made of."""

TOKENS = np.searchsorted(NEEDED, IP_LAP)
"""The points (131,) of `NEEDED` that TalkFormer sees, in its order."""

DRAWN = np.searchsorted(NEEDED, latent_inputs.NEEDED)
"""The points of `NEEDED` that mask, hidden part and warped portrait are made of."""


def mirrored_tokens() -> np.ndarray:
    """Return `TOKENS` of a picture flipped left to right: each point's place is taken by its counterpart's."""
    shape = mean_shape()[IP_LAP]
    reflected = shape * np.array([-1.0, 1.0, 1.0])
    return TOKENS[np.linalg.norm(reflected[:, None] - shape[None], axis=-1).argmin(axis=1)]


@dataclass(frozen=True, slots=True)
class TalkInputs:
    """What a window is rendered from, for B windows of T frames, float32; made of landmarks without gradient.

    prior: (B, 3, T, H, W) warped identity in [-1, 1]. shown: (B, `shown_channels`, T, H, W), the visible part of the
    target, and what is behind the lips of a layered renderer. mask, mouth: (B, 1, T, H, W) in [0, 1], as `PortraitMaps`
    has them.
    """

    prior: np.ndarray
    shown: np.ndarray
    mask: np.ndarray
    mouth: np.ndarray


def shown_channels(config: TalkRendererConfig) -> int:
    """Return the channels of what is shown: the target's visible part 3, layered also what is behind the lips 4."""
    return 3 + (BEHIND_CHANNELS if config.layered else 0)


def build_inputs(
    identity: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    config: TalkRendererConfig,
    seen: np.ndarray | None = None,
    filmed: np.ndarray | None = None,
    layers: Sequence[MouthLayers] = (),
) -> TalkInputs:
    """Build the renderer's inputs but for the landmarks, which it takes as they are.

    identity: (B, 3, H, W) float32 in [-1, 1], the portrait's window. source: (B, len(NEEDED), 2) its points in window
    pixels. target: (B, T, len(NEEDED), 2) the wanted points. seen: (B, 3, T, H, W) frames whose visible part is shown,
    of the windows that `filmed` (B,) bool marks, all when left out; the others show the warped portrait's. layers: of
    each window, for a layered renderer.
    """
    maps = portrait_maps(identity, source[:, DRAWN], target[:, :, DRAWN], config, layers)
    whole = maps.prior if seen is None else seen
    if filmed is not None:
        whole = np.where(filmed[:, None, None, None, None], whole, maps.prior)
    shown = whole * (1 - maps.hidden)
    if maps.behind is not None:
        shown = np.concatenate([shown, maps.behind], axis=1)
    return TalkInputs(maps.prior, shown, maps.mask, maps.mouth)


def in_window_widths(points: Values, config: TalkRendererConfig) -> Values:
    """Return points (..., 2) in widths of the window from its corner, of window pixels, whose middles are whole."""
    return (points + 0.5) / config.resolution
