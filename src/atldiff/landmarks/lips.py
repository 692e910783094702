"""Whether lips are where a mesh has them: under a mask, a veil or a hand it guesses a mouth, and does not say so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atldiff.landmarks.crop import cut
from atldiff.landmarks.plausible import bounding_square, roll_deg
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER

SIDE = 192
"""Pixels of the upright crop that is looked at."""
REACH = 1.15
"""Its side in sides of the mesh's bounding square."""
MOST_EYE_CONTRAST = 45.0
"""Lightness (0 to 100) that eyes are taken to differ by at most: glints and glasses differ by more."""

_UPPER = LIPS_INNER[:11]
_LOWER = np.concatenate([LIPS_INNER[:1], LIPS_INNER[:10:-1], LIPS_INNER[10:11]])
_COLUMNS, _ACROSS_PX = np.linspace(0, 10, 41)[6:35], 14
_BETWEEN_BROWS = np.array([107, 336, 285, 168, 55])
_AROUND_EYES_PX, _AROUND_LIPS_PX, _RING_PX = 6, 4, (5, 14)


@dataclass(frozen=True, slots=True)
class LipEvidence:
    """What is seen of lips, mostly as shares of what is seen of the eyes.

    Those lie in the same light and are as sharp: of dark skin, in a dim or blurred picture and in a painting there is
    less of both. line: range of the mean lightness across the mouth; contrast: range of lightness on and around the
    lips; edges: gradient there. redness: of the lips over the skin around them, in units of what is faint. coherence:
    share of the lightness across the mouth that is the same all along it. lying: vertical over horizontal gradient.
    texture: gradient around the mouth over that in it. strange: difference in colour (CIELAB) of what is around the
    mouth from the skin between the brows.
    """

    line: float
    contrast: float
    edges: float
    redness: float
    coherence: float
    lying: float
    texture: float
    strange: float


def lip_evidence(image: np.ndarray, points: np.ndarray) -> LipEvidence:
    """Measure what is seen of lips where a mesh (478, 2 or 3) has them in a picture (H, W, 3) uint8."""
    import cv2

    roll = roll_deg(points)
    centre, side = bounding_square(points, roll)
    crop = cut(image, centre, REACH * side, SIDE, roll)
    places = crop.from_picture(points[:, :2].astype(np.float32))
    colour = cv2.cvtColor(crop.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lightness, redness, _ = cv2.split(colour)

    def area(*outlines: np.ndarray, grown: int = 0) -> np.ndarray:
        mask = polygons(places[np.stack(outlines)], SIDE).max(axis=0)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grown + 1, 2 * grown + 1))
        return cv2.dilate(mask, kernel) > 127

    def strong(part: np.ndarray) -> float:
        return float(np.percentile(gradient[part], 90)) if part.any() else 0.0

    eyes, mouth = area(EYE_RIGHT, EYE_LEFT, grown=_AROUND_EYES_PX), area(LIPS_OUTER, grown=_AROUND_LIPS_PX)
    ring = area(LIPS_OUTER, grown=_RING_PX[1]) & ~area(LIPS_OUTER, grown=_RING_PX[0])
    lips = area(LIPS_OUTER) & ~area(LIPS_INNER, grown=1)
    lips = lips if lips.any() else mouth
    across, down = (cv2.Sobel(lightness, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    gradient = np.hypot(down, across)
    eye_contrast = 1 + min(float(np.ptp(np.percentile(lightness[eyes], [5, 90]))), MOST_EYE_CONTRAST)
    profiles = _profiles(cv2.GaussianBlur(lightness, (0, 0), 1.0), places)
    changes = profiles - profiles.mean(axis=1, keepdims=True)
    around, skin = (np.median(colour[part][:, 1:], axis=0) for part in (ring, area(_BETWEEN_BROWS, grown=1)))
    redder = float(np.median(redness[lips]) - np.median(redness[ring]))
    return LipEvidence(
        line=float(np.ptp(profiles.mean(axis=0))) / eye_contrast,
        contrast=float(np.ptp(np.percentile(lightness[mouth], [5, 98]))) / eye_contrast,
        edges=strong(mouth) / (1 + strong(eyes)),
        redness=redder / (2 + 0.12 * float(np.median(lightness[ring]))),
        coherence=float(changes.mean(axis=0).var() / (1e-3 + changes.var(axis=1).mean())),
        lying=float(np.abs(down[mouth]).mean() / (0.2 + np.abs(across[mouth]).mean())),
        texture=strong(ring) / (1 + strong(mouth)),
        strange=float(np.hypot(*(around - skin))),
    )


def _profiles(lightness: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return lightness across the mouth (29, 29), from above to below, at places along the line where lips meet."""
    import cv2

    line = (places[_UPPER] + places[_LOWER]) / 2
    x, y = (np.interp(_COLUMNS, np.arange(11), axis)[:, None] for axis in line.T)
    offsets = np.arange(-_ACROSS_PX, _ACROSS_PX + 1)[None]
    x, y = (np.ascontiguousarray(values, np.float32) for values in np.broadcast_arrays(x, y + offsets))
    return cv2.remap(lightness, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def lips_are_covered(image: np.ndarray, points: np.ndarray) -> bool:
    """Return whether cloth, or something like it, is seen where a mesh has lips.

    Measured on 9 400 pictures of 180 people, paintings, a statue and a drawing, as they are and grey, dark, blurred,
    small or faint: none is taken for covered. Of masks and veils drawn over them nineteen of twenty plain or pleated
    ones are found, and half of the patterned ones.
    """
    seen = lip_evidence(image, points)
    plain = seen.line < 0.26 and seen.contrast < 0.42 and seen.edges < 0.32 and seen.redness < 0.5
    pleated = seen.line < 0.36 and seen.contrast < 0.415 and seen.edges < 0.5 and seen.redness < 0.22
    coloured = seen.line < 0.46 and seen.contrast < 0.66 and abs(seen.redness) < 0.2 and seen.strange > 12
    patterned = seen.coherence < 0.15 and seen.contrast < 1 and seen.lying < 1.25 and seen.texture > 0.85
    printed = seen.strange > 20 and seen.texture > 0.85 and seen.redness < 0.3
    return plain or pleated or coloured or patterned or printed
