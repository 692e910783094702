"""The inside of a person's mouth, made once of the frames of a video that show it best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.control import CHIN
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER
from atldiff.methods.lent_teeth import with_lent_teeth
from atldiff.methods.mouth_layers import to_template
from atldiff.video.cavity import MouthLayers
from atldiff.video.window import STORED_MOUTH, WindowGeometry, apply, extract, fit_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atldiff.types import Portrait
    from atldiff.video.tone import Tone

BRIGHT = 0.72
"""Light of a row of teeth, over the skin's, from which it is one."""
ROW = 0.36
"""Share of an open mouth's height, from above or below, in which a row is looked for."""
_TEMPLATE = WindowGeometry(128, (0, 0))


@dataclass(frozen=True, eq=False)
class SeenMouth:
    """What a picture shows of an open mouth. upper, lower: light of its rows of teeth over the skin's.

    parted: whether there is a gap between them. bared: how much of what hangs from the skull is seen.
    """

    portrait: Portrait
    upper: float
    lower: float
    parted: bool
    bared: float = 0.0

    @classmethod
    def of(cls, portrait: Portrait) -> SeenMouth:
        """Look at an open mouth."""
        import cv2

        layers = _layers(portrait, STORED_MOUTH)
        seen = layers.skull + layers.jaw
        if not seen.any():
            return cls(portrait, 0.0, 0.0, False)
        grey = cv2.cvtColor(layers.cavity, cv2.COLOR_RGB2GRAY).astype(np.float32)
        rows = np.flatnonzero(seen.max(1) > 0.5)
        if rows.size < 3:
            return cls(portrait, 0.0, 0.0, False)
        columns = np.flatnonzero(seen.max(0) > 0.5)
        quarter = max(1, len(columns) // 4)
        middle = slice(int(columns[0]) + quarter, int(columns[-1]) - quarter + 1)
        height = max(1, round(ROW * rows.size))
        skin = max(1.0, float(layers.light.mean()))
        upper, lower = (
            float(np.quantile(grey[part, middle], 0.75)) / skin
            for part in (slice(rows[0], rows[0] + height), slice(rows[-1] + 1 - height, rows[-1] + 1))
        )
        return cls(portrait, upper, lower, bool(layers.jaw.any()), float(layers.skull.sum()))


def choose(mouths: Sequence[Portrait]) -> list[tuple[Portrait, bool]]:
    """Return the pictures that the inside of a mouth is made of; of what two show, the first counts.

    mouths: from widest to least wide. With each whether all of it stands in the jaw: one that shows its lower teeth
    alone.
    """
    seen = [SeenMouth.of(each) for each in mouths]
    both = [each for each in seen if each.parted and each.upper >= BRIGHT]
    upper = [each for each in seen if not each.parted and each.upper >= BRIGHT and each.upper >= each.lower]
    lower = [each for each in seen if each.upper < each.lower and each.lower >= BRIGHT and each not in both]
    if both:
        both.sort(key=lambda each: -each.bared * min(each.upper, 1.5))
        return [(each.portrait, False) for each in both[:2]]
    if upper or lower:
        return [(each.portrait, False) for each in upper[:1]] + [(each.portrait, True) for each in lower[:1]]
    return [(each.portrait, False) for each in seen[:1]]


def inside(
    mouths: Sequence[tuple[Portrait, bool]], closed: Portrait, geometry: WindowGeometry, tone: Tone | None,
    *, lent: bool, mirrored: bool,
) -> MouthLayers:  # fmt: skip
    """Return the layers of a mouth in a window, made of pictures of `choose` and one of closed lips.

    lent: whether teeth may be another's where next to none were seen; mirrored: those left to right.
    """
    parts = []
    for portrait, jaw in mouths:
        layers = _layers(portrait, geometry)
        if jaw:
            layers = replace(layers, jaw=np.maximum(layers.skull, layers.jaw), skull=np.zeros_like(layers.skull))
        parts.append(layers)
    rest = _layers(closed, geometry)
    base = parts[0].with_references(parts[1:]) if parts else rest
    if not lent:
        return base
    inner = apply(fit_window(closed.landmarks[None], _TEMPLATE)[0], closed.landmarks[LIPS_INNER, :2].astype(np.float64))
    _, rotation, _, _ = to_canonical(closed.landmarks[None].astype(np.float64), mean_shape())
    own = with_lent_teeth(base, inner, float(euler_degrees(rotation)[0, 0]), tone, mirrored=mirrored)
    if own is base:
        return base
    return with_lent_teeth(rest, inner, float(euler_degrees(rotation)[0, 0]), tone, mirrored=mirrored)


def own_geometry(portrait: Portrait) -> WindowGeometry:
    """Return the window of a mouth at a picture's own resolution."""
    matrix = fit_window(portrait.landmarks[None], _TEMPLATE)[0]
    scale = 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))
    width, height = (max(16, round(length / STORED_MOUTH.scale * scale)) for length in STORED_MOUTH.size)
    return WindowGeometry(width, STORED_MOUTH.origin, scale, height)


def _layers(portrait: Portrait, geometry: WindowGeometry) -> MouthLayers:
    matrix = fit_window(portrait.landmarks[None], geometry)[0]
    points = apply(matrix, portrait.landmarks[:, :2].astype(np.float64))
    picture = extract(portrait.image, matrix, geometry.size, sharp=True)
    return MouthLayers.prepare(picture, points[LIPS_INNER], points[CHIN].mean(0), to_template(geometry))
