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

BRIGHT, WHITE = 0.6, 1.12
"""A tooth's light over the skin's, and its whiteness, the least channel over the largest, over the skin's: a tongue is
as bright, and lips are."""
ROW = 0.3
"""Share of an open mouth's height, from above or below, in which a row is looked for."""
TEETH = 0.35
"""Share of a line across the mouth from which it shows a row of teeth."""
GAP, GAP_DARK = (0.2, 0.85), 0.7
"""Share of the height in which the dark between two rows is looked for, and how dark it is against either of them."""
PROFILE, COLUMNS = 32, 17
_TEMPLATE = WindowGeometry(128, (0, 0))


@dataclass(frozen=True, eq=False)
class SeenMouth:
    """What a picture shows of an open mouth.

    upper, lower: teeth of its rows, as shares of a line across the mouth. gap: where the dark between them is, in
    shares of the height from above; None where there is none. height: of the opening, in template pixels. bared: how
    much of that shows teeth above the gap, below: below it.
    """

    portrait: Portrait
    upper: float = 0.0
    lower: float = 0.0
    gap: float | None = None
    height: float = 0.0
    bared: float = 0.0
    below: float = 0.0

    @classmethod
    def of(cls, portrait: Portrait) -> SeenMouth:
        """Look at an open mouth."""
        import cv2

        layers, inner = _layers(portrait, STORED_MOUTH)
        if not (layers.skull + layers.jaw).any():
            return cls(portrait)
        matrix = fit_window(portrait.landmarks[None], STORED_MOUTH)[0]
        picture = extract(portrait.image, matrix, STORED_MOUTH.size, sharp=True)
        at = np.linspace(2, 6, COLUMNS)
        upper, lower = (
            np.stack([np.interp(at, np.arange(9), contour[:, axis]) for axis in (0, 1)], 1)
            for contour in (inner[1:10], inner[:10:-1])
        )
        share = ((np.arange(PROFILE) + 0.5) / PROFILE)[:, None, None]
        lines = (upper + share * (lower - upper)).astype(np.float32)
        read = cv2.remap(picture, lines[..., 0], lines[..., 1], cv2.INTER_LINEAR).astype(np.float32)
        skin = layers.light / max(1.0, float(layers.light.mean()))
        light = read.mean(-1) / max(1.0, float(layers.light.mean()))
        white = read.min(-1) / np.maximum(read.max(-1), 1) / (skin.min() / skin.max())
        teeth = ((light > BRIGHT) & (white > WHITE)).mean(1)  # of each line
        profile = np.quantile(light, 0.75, axis=1)
        first, last = (round(end * PROFILE) for end in GAP)
        valley = first + int(profile[first:last].argmin())
        parted = profile[valley] < GAP_DARK * min(profile[:valley].max(), profile[valley:].max())
        height = float(np.linalg.norm(lower - upper, axis=1).mean()) / STORED_MOUTH.scale
        rows, end = round(ROW * PROFILE), valley if parted else round(2 / 3 * PROFILE)
        top, bottom = teeth[:rows].max(), teeth[-rows:].max()
        bared, below = height * teeth[:end].sum() / PROFILE, height * teeth[end:].sum() / PROFILE
        gap = (valley + 0.5) / PROFILE if parted else None
        return cls(portrait, float(top), float(bottom), gap, height, float(bared), float(below))

    def inside(self, geometry: WindowGeometry, *, upper: bool, lower: bool) -> MouthLayers:
        """Return the layers of its mouth in a window, with what hangs from the skull, or stands in the jaw, or both."""
        import cv2

        layers, inner = _layers(self.portrait, geometry)
        seen = np.minimum(layers.skull + layers.jaw, 1)
        share = self.gap
        if share is None:
            share = 1.0 if self.upper >= TEETH or self.lower < TEETH else 0.0
        top, bottom = inner[1:10], inner[:10:-1]
        outline = np.concatenate([inner[:1], top + share * (bottom - top), inner[10:]]) - layers.corner
        below = np.zeros(seen.shape, np.uint8)
        cv2.fillPoly(below, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        jaw = seen * below.astype(np.float32) / 255 if share < 1 else np.zeros_like(seen)
        skull = seen - jaw
        return replace(layers, skull=skull if upper else 0 * skull, jaw=jaw if lower else 0 * jaw)


def choose(mouths: Sequence[Portrait]) -> list[tuple[SeenMouth, bool, bool]]:
    """Return the pictures that the inside of a mouth is made of; of what two show, the first counts.

    mouths: from widest to least wide. With each whether its upper, and its lower row is taken.
    """
    seen = [each for each in map(SeenMouth.of, mouths) if each.height]
    upper = [each for each in seen if each.upper >= TEETH]
    lower = [each for each in seen if each.lower >= TEETH and (each.gap is not None or each.upper < TEETH)]
    if not upper and not lower:
        return [(each, True, True) for each in seen[:1]]
    chosen = []
    if upper:
        best = max(upper, key=lambda each: each.bared)
        chosen.append((best, True, best.gap is not None))
    if lower and not (chosen and chosen[0][2]):
        chosen.append((max(lower, key=lambda each: each.below), False, True))
    return chosen


def inside(
    mouths: Sequence[tuple[SeenMouth, bool, bool]], closed: Portrait, geometry: WindowGeometry, tone: Tone | None,
    *, lent: bool, mirrored: bool,
) -> MouthLayers:  # fmt: skip
    """Return the layers of a mouth in a window, made of pictures of `choose` and one of closed lips.

    lent: whether teeth may be another's where next to none were seen; mirrored: those left to right.
    """
    parts = [mouth.inside(geometry, upper=upper, lower=lower) for mouth, upper, lower in mouths]
    rest, _ = _layers(closed, geometry)
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


def _layers(portrait: Portrait, geometry: WindowGeometry) -> tuple[MouthLayers, np.ndarray]:
    """Return the layers of a mouth in a window, and its inner-lip contour (20, 2) there."""
    matrix = fit_window(portrait.landmarks[None], geometry)[0]
    points = apply(matrix, portrait.landmarks[:, :2].astype(np.float64))
    picture = extract(portrait.image, matrix, geometry.size, sharp=True)
    chin = points[CHIN].mean(0)
    return MouthLayers.prepare(picture, points[LIPS_INNER], chin, to_template(geometry)), points[LIPS_INNER]
