"""Teeth for those who show none: an upper row from a public-domain portrait, placed where the person's own would stand.

A portrait with closed lips says nothing of its teeth, and a small network that has to invent them paints fog. So a row
is lent, one for the whole video, as a reference picture would give it: the person's own take its place wherever the
portrait or a reference shows them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load

from atldiff.video.cavity import MouthLayers

if TYPE_CHECKING:
    from atldiff.video.tone import Tone

LEAST_TEETH, LEAST_SEEN = 30.0, 120.0
"""Square template pixels of teeth, and of an open mouth whatever it shows, from which nothing is lent: a smile shows
some 300. Lips that are parted a little show a dark slit, which is no part of what stands behind them."""
TOOTH_BRIGHT, TOOTH_WHITE = 0.6, 0.6
"""Least channel, over the skin's mean and over the largest channel, from which a pixel is a tooth's."""
BELOW_LIPS = 1.5
"""How far an upper row reaches below the line of resting lips, in template pixels: 2 mm."""
USUAL_LUMA = 150.0
"""Luma of well-lit skin around a mouth."""
BRIGHTNESS, DARKEST, BRIGHTEST = 0.5, 0.5, 1.0
"""Power by which the row takes the light of the skin, and the least and most of it: dark skin is no dark room."""
TINT, COLDEST, WARMEST = 0.4, (0.97, 0.9, 0.5), (1.03, 1.0, 1.0)
"""Power by which it takes the colour of the skin's light, and the least and most of each channel: never blue."""


@lru_cache(maxsize=1)
def _row() -> dict[str, np.ndarray]:
    return load(files("atldiff.methods").joinpath("lent_teeth.safetensors").read_bytes())


def with_lent_teeth(
    layers: MouthLayers, inner: np.ndarray, yaw_deg: float, tone: Tone | None, *, mirrored: bool = False
) -> MouthLayers:
    """Return a mouth's layers with a lent row where next to nothing of its own was seen, else themselves.

    inner: (20, 2) the portrait's inner-lip contour in template pixels. yaw_deg: how far its head is turned. tone: of a
    black-and-white or toned portrait. mirrored: the row left to right, which is another one.
    """
    if _shows_enough(layers):
        return layers
    layers = replace(layers, skull=np.zeros_like(layers.skull), jaw=np.zeros_like(layers.jaw))
    row = _row()
    picture, seen, shade = row["picture"], row["seen"].astype(np.float32) / 255, row["shade"].astype(np.float32) / 255
    edge = row["edge"].astype(np.float64)  # middle of the incisors' edges, in the picture's pixels
    if mirrored:
        picture, seen, shade = (np.ascontiguousarray(part[:, ::-1]) for part in (picture, seen, shade))
        edge[0] = picture.shape[1] - 1 - edge[0]
    if tone is not None:
        picture = np.clip(np.rint(tone.of(picture.astype(np.float32))), 0, 255).astype(np.uint8)
    size = float(row["step"]) * np.array([np.cos(np.radians(yaw_deg)), 1])
    lips = (inner[0] + inner[10]) / 2 * (1, 0) + (inner[5] + inner[15]) / 2 * (0, 1)
    at = lips + (0, BELOW_LIPS) - size * edge
    gain = _gain(layers.light, row["light"].astype(np.float64), tinted=tone is None)
    donor = MouthLayers(
        lips=picture,
        cavity=picture,
        corner=np.zeros(2, int),
        skull=seen,
        jaw=np.zeros_like(seen),
        shade=shade,
        matrix=np.array([[size[0], 0, at[0]], [0, size[1], at[1]]]),
        chin=layers.chin,
        light=layers.light / gain,
        dark=layers.dark,
    )
    return layers.with_references([donor])


def _shows_enough(layers: MouthLayers) -> bool:
    area = float(np.hypot(layers.matrix[0, 0], layers.matrix[1, 0])) ** 2  # square template pixels a pixel
    seen = layers.skull + layers.jaw
    if float(seen.sum()) * area >= LEAST_SEEN:
        return True
    least, most = layers.cavity.min(-1), layers.cavity.max(-1)
    teeth = (least > TOOTH_BRIGHT * layers.light.mean()) & (least > TOOTH_WHITE * most)
    return float((seen * teeth).sum()) * area >= LEAST_TEETH


def _gain(skin: np.ndarray, usual: np.ndarray, *, tinted: bool) -> np.ndarray:
    """Return the light (3,) on the teeth of a face of this colour. usual: (3,) of the one that lends them."""
    luma = float(skin.mean())
    light = np.clip((luma / USUAL_LUMA) ** BRIGHTNESS, DARKEST, BRIGHTEST)
    tint = (skin / max(luma, 1)) / (usual / usual.mean())
    return light * (np.clip(np.maximum(tint, 1e-3) ** TINT, COLDEST, WARMEST) if tinted else np.ones(3))
