"""What DiffTalker's renderer sees of a window: landmark drawing, target with its lower face hidden, reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.raster import polygons, polylines
from atldiff.methods.latent_inputs import INNER, JAW_LINE, NOSE_LINE, OUTER, latent_window, portrait_maps
from atldiff.methods.mouth_layers import BEHIND_CHANNELS, over_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.config import LatentRendererConfig
    from atldiff.video.cavity import MouthLayers


@dataclass(frozen=True, slots=True)
class LatentInputs:
    """What a window is rendered from, for B windows of T frames, float32.

    prior, mask, mouth: as `PortraitMaps` has them. hint: (B, `hint_channels`, T, H, W), what the control branch sees.
    """

    prior: np.ndarray
    hint: np.ndarray
    mask: np.ndarray
    mouth: np.ndarray


def hint_channels(config: LatentRendererConfig) -> int:
    """Return the channels of the hint.

    Drawing 3, hidden target 3, 3 for each way the reference is shown, and layered what is behind the lips 4.
    """
    return (12 if config.reference == "both" else 9) + (BEHIND_CHANNELS if config.layered else 0)


def drawing(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw landmarks as a picture of three channels, (N, 3, H, W) float32 in [0, 1].

    points: (N, len(NEEDED), 2) window pixels. size: width and height. Lips filled, the open mouth filled, contours of
    jaw and nose as lines.
    """
    thick = max(1, round(size[0] / 64))
    lips, inner = (polygons(points[:, which], size) for which in (OUTER, INNER))
    contours = np.maximum(*(polylines(points[:, which], size, thick) for which in (JAW_LINE, NOSE_LINE)))
    return np.stack([lips, inner, contours], 1) / np.float32(255)


def build_inputs(
    identity: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    config: LatentRendererConfig,
    seen: np.ndarray | None = None,
    layers: Sequence[MouthLayers] = (),
) -> LatentInputs:
    """Build the renderer's inputs.

    identity, source, target, layers: as for `portrait_maps`. seen: (B, 3, T, H, W) frames whose visible part is shown;
    None shows the warped portrait, which is all that there is when nothing was filmed.
    """
    batch, frames = target.shape[:2]
    maps = portrait_maps(identity, source, target, config, layers)
    lines = drawing(target.reshape(batch * frames, -1, 2).astype(np.float32), latent_window(config).size)
    shown = (maps.prior if seen is None else seen) * (1 - maps.hidden)
    unmoved = np.broadcast_to(identity[:, :, None], maps.prior.shape)
    references = {"warped": [maps.prior], "still": [unmoved], "both": [maps.prior, unmoved]}
    behind = [] if maps.behind is None else [maps.behind]
    hint = np.concatenate([over_time(lines, frames), shown, *references[config.reference], *behind], axis=1)
    return LatentInputs(maps.prior, hint, maps.mask, maps.mouth)
