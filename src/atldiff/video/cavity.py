"""The open mouth of a portrait as two layers in depth: lips that move, and teeth behind them that do not follow.

One warp of the whole picture would squeeze teeth into a line where the lips meet and stretch them where they part. So
the lips are warped without what lies between them, and that is laid behind the lips of each frame: what hangs from the
skull moves with the skull, what stands in the jaw with the jaw. What no picture ever showed is dark, for a renderer to
complete, or left to whoever painted the canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from atldiff.video.window import apply, chain, invert

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN = 0.03
"""Lip opening, in eye distances, from which a portrait has something between its lips; without, corners only blur."""
EYE_DISTANCE = 72.0
"""Template pixels between the outer eye corners."""

# Template pixels, looked at on six portraits that smile or speak.
FILL_GROWTH = 1.2
"""How far beyond the inner-lip contour the lips are filled: the contour lies within the visible edge."""
FILL_REACH = 12.0
SEEN_MARGIN = 0.6
"""How far inside the contour what is seen is surely no lip."""
EDGE = 0.5
"""Sigma of the lips' edge over the cavity."""
SHADE_DEPTH, SHADE_SOFT, SHADE = 1.8, 1.0, 0.45
"""The upper lip's shadow: height, softness, and how much it takes away."""

GAP_FADE = (0.016, 0.036)
"""Lip openings, in eye distances, between which teeth fade in: a gap thinner than that shows no tooth."""

FILL_SIDE = 240
"""Width in pixels that the filling is computed at; it has no detail."""
FILL_RADIUS = 5

# The profile of brightness from the upper to the lower lip.
PROFILE = 32
VALLEY = (0.25, 0.85)
"""Share of the height in which the dark between two rows of teeth is looked for."""
DARK, RISE = 0.6, 1.3
"""Darker than this share of the row above, and this much brighter again below: a gap between two rows."""

DARK_SHARE, DARK_LEAST = 0.27, 12.0
"""The dark of an open mouth, as a share of the lips' own colour, and no darker than that level."""

_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class MouthLayers:
    """The layers of one portrait, or of several pictures of one person in the place and the light of the first.

    lips: (H, W, C) uint8, the portrait with its cavity filled from the lips around it: what is to be warped.
    cavity: (h, w, 3) uint8, the part of the portrait around the cavity; corner: its top left pixel (x, y).
    skull, jaw: (h, w) float32 in [0, 1], where the cavity was seen, by the bone that it moves with.
    shade: (h, w) float32, the light that the upper lip leaves there in the portrait itself.
    matrix: (2, 3) map of the portrait to template pixels. chin: (2,) where the chin is, in template pixels.
    light: (3,) the mean colour around the mouth. dark: (3,) the colour of a cavity that nobody has seen.
    """

    lips: np.ndarray
    cavity: np.ndarray
    corner: np.ndarray
    skull: np.ndarray
    jaw: np.ndarray
    shade: np.ndarray
    matrix: np.ndarray
    chin: np.ndarray
    light: np.ndarray
    dark: np.ndarray

    @classmethod
    def prepare(cls, image: np.ndarray, inner: np.ndarray, chin: np.ndarray, matrix: np.ndarray) -> MouthLayers:
        """Part a portrait (H, W, C >= 3) uint8 into its layers; where its lips are closed, nothing is seen.

        inner: (20, 2) the inner-lip contour in pixels: a corner, the upper lip, the other corner, the lower lip. chin:
        (2,) the chin in pixels. matrix: (2, 3) map of the portrait to template pixels.
        """
        import cv2

        inner, matrix = inner.astype(np.float64), matrix.astype(np.float64)
        unit_px = _unit_px(matrix)
        reach = FILL_REACH * unit_px
        low = np.maximum(np.floor(inner.min(0) - reach).astype(int), 0)
        high = np.minimum(np.ceil(inner.max(0) + reach).astype(int), image.shape[1::-1])
        low, high = np.minimum(low, np.array(image.shape[1::-1]) - 1), np.maximum(high, 1)
        crop = image[low[1] : high[1], low[0] : high[0]]
        local, shape = inner - low, crop.shape[:2]
        lips, filled = image, crop
        skull = jaw = np.zeros(shape, np.float32)
        if _gap(inner, unit_px) >= OPEN and min(shape) >= 8:
            whole = _polygon(local, shape)
            filled = _filled(crop, whole, unit_px)
            lips = image.copy()
            lips[low[1] : high[1], low[0] : high[0]] = filled
            surely = cv2.GaussianBlur(_eroded(whole, SEEN_MARGIN * unit_px), (0, 0), max(0.5, 0.4 * unit_px))
            jaw = _lower_row(crop, local) * surely
            skull = surely - jaw
        light = filled[..., :3].reshape(-1, 3).mean(0, dtype=np.float64)
        return cls(
            lips=lips,
            cavity=np.ascontiguousarray(crop[..., :3]),
            corner=low,
            skull=skull,
            jaw=jaw,
            shade=_shade(local, shape, unit_px),
            matrix=matrix,
            chin=apply(matrix, np.asarray(chin, np.float64)[None])[0],
            light=light,
            dark=np.maximum(DARK_SHARE * light, DARK_LEAST),
        )

    def with_references(self, others: Sequence[MouthLayers]) -> MouthLayers:
        """Add what other pictures of the person showed of the cavity; their order does not matter.

        What the portrait showed itself stays; then whoever showed most comes first.
        """
        import cv2

        others = sorted(
            (other for other in others if other.skull.any() or other.jaw.any()),
            key=lambda other: (-float(other.skull.sum() + other.jaw.sum()) / _unit_px(other.matrix) ** 2,
                               other.cavity.tobytes()),
        )  # fmt: skip
        if not others:
            return self
        back = invert(self.matrix)
        ways = []  # of each other's cavity to our picture, by the bone
        for other in others:
            skull = chain(back, other.matrix)
            skull[:, 2] += skull[:, :2] @ other.corner
            jaw = skull.copy()
            jaw[:, 2] += back[:, :2] @ (self.chin - other.chin)
            ways.append((skull, jaw))
        ends = np.array([(self.corner, self.corner + self.cavity.shape[1::-1])] + [
            (found.min(0), found.max(0))
            for other, way in zip(others, ways, strict=True)
            for found in (apply(place, _corners(other.cavity.shape)) for place in way)
        ])  # fmt: skip
        limit = np.array(self.lips.shape[1::-1])
        low = np.clip(np.floor(ends[:, 0].min(0)).astype(int), 0, limit)
        high = np.clip(np.ceil(ends[:, 1].max(0)).astype(int), low, limit)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        offset = self.corner - low
        rows, columns = (slice(offset[a], offset[a] + self.cavity.shape[1 - a]) for a in (1, 0))
        cavity = self.lips[low[1] : high[1], low[0] : high[0], :3].astype(np.float32)
        cavity[rows, columns] = self.cavity
        skull, jaw = np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.float32)
        skull[rows, columns], jaw[rows, columns] = self.skull, self.jaw
        shade = np.ones(size[::-1], np.float32)
        shade[rows, columns] = self.shade
        for other, way in zip(others, ways, strict=True):
            gain = np.clip(self.light / np.maximum(other.light, 1), 0.5, 2)
            for seen, theirs, place in ((skull, other.skull, way[0]), (jaw, other.jaw, way[1])):
                place = place.copy()  # noqa: PLW2901 - theirs, to the part
                place[:, 2] -= low
                layer = np.dstack([other.cavity * gain.astype(np.float32), theirs]).astype(np.float32)
                layer = cv2.warpAffine(layer, place, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                lit = cv2.warpAffine(other.shade, place, size, flags=cv2.INTER_LINEAR, borderValue=1.0)
                fresh = np.clip(layer[..., 3], 0, 1) * (1 - np.minimum(skull + jaw, 1))
                weight = fresh[..., None]
                cavity += weight * (layer[..., :3] - cavity)
                shade += fresh * (lit - shade)
                seen += fresh
        return replace(
            self, cavity=np.clip(np.rint(cavity), 0, 255).astype(np.uint8), corner=low, skull=skull, jaw=jaw,
            shade=shade,
        )  # fmt: skip

    def behind(
        self, low: np.ndarray, size: tuple[int, int], matrix: np.ndarray, chin: np.ndarray, shade: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what stands behind the lips in a part of a frame, as if there were none, and where it was seen.

        low: (2,) the part's top left pixel. size: its width and height. matrix: (2, 3) map of the frame to template
        pixels. chin: (2,) the chin in the frame's pixels. shade: (h, w) float32, the light that its upper lip leaves.

        Returns:
            (h, w, 3) float32 levels, dark where nothing was seen, and (h, w) float32 in [0, 1].
        """
        import cv2

        picture = np.empty((size[1], size[0], 3), np.float32)
        picture[:] = self.dark
        seen = np.zeros((size[1], size[0]), np.float32)
        if not (self.skull.any() or self.jaw.any()):
            return picture, seen
        back = invert(np.asarray(matrix, np.float64))
        moved = chain(back, self.matrix)
        moved[:, 2] += moved[:, :2] @ self.corner - low  # cavity pixels to those of the part
        dropped = moved.copy()
        dropped[:, 2] += back[:, :2] @ (apply(matrix, np.asarray(chin)[None])[0] - self.chin)
        for own, place in ((self.jaw, dropped), (self.skull, moved)):
            if not own.any():
                continue
            layer = np.dstack([self.cavity.astype(np.float32), own])
            layer = cv2.warpAffine(layer, place, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
            lit = cv2.warpAffine(self.shade, place, size, flags=cv2.INTER_LINEAR, borderValue=1.0)
            weight = np.clip(layer[..., 3], 0, 1)
            picture += weight[..., None] * (
                np.clip(layer[..., :3], 0, 255) * np.minimum(shade / lit, 1)[..., None] - picture
            )
            seen += weight * (1 - seen)
        return picture, seen

    def window(self, inner: np.ndarray, chin: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return what stands behind the lips of a whole small picture: (5, h, w) float32.

        Three channels of `behind` in levels, where it was seen, and how much of it the lips show. Arguments as of
        `paint`; size: width and height.
        """
        import cv2

        unit_px = _unit_px(matrix)
        picture, seen = self.behind(np.zeros(2), size, matrix, chin, _shade(inner, (size[1], size[0]), unit_px))
        return np.stack([*cv2.split(picture), seen, _edge(inner, (size[1], size[0]), unit_px).astype(np.float32)])

    def paint(
        self,
        canvas: np.ndarray,
        corner: tuple[int, int],
        inner: np.ndarray,
        chin: np.ndarray,
        matrix: np.ndarray,
        *,
        unseen: float = 1.0,
    ) -> None:
        """Lay what stands behind the lips of a frame between them, in place.

        canvas: (h, w, C >= 3) uint8, a part of the frame whose top left pixel is `corner` (x, y), lips warped. inner:
        (20, 2) the frame's inner-lip contour in pixels. chin: (2,) its chin in pixels. matrix: (2, 3) map of the frame
        to template pixels. unseen: how dark it is where nothing was seen; at 0 what the canvas shows there stays.
        """
        unit_px = _unit_px(matrix)
        margin = 3 * unit_px
        low = np.maximum(np.floor(inner.min(0) - margin).astype(int), corner)
        high = np.minimum(np.ceil(inner.max(0) + margin).astype(int), np.array(corner) + canvas.shape[1::-1])
        if not opened(inner, unit_px) or (high - low < 2).any():
            return
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        local = inner - low
        picture, seen = self.behind(low, size, matrix, chin, _shade(local, (size[1], size[0]), unit_px))
        weight = _edge(local, (size[1], size[0]), unit_px)
        weight *= seen + (1 - seen) * np.float32(unseen)
        part = canvas[low[1] - corner[1] : high[1] - corner[1], low[0] - corner[0] : high[0] - corner[0], :3]
        mixed = part + weight[..., None] * (picture - part)
        part[:] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def closed_lips(
    image: np.ndarray, inner: np.ndarray, unit_px: float, small: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 with its cavity filled as it is in a smaller picture of it.

    inner: (20, 2) the inner-lip contour in its pixels. unit_px: its pixels of a template pixel. small: (h, w, 3) uint8,
    `MouthLayers.lips` of the smaller one. matrix: (2, 3) map of its pixels to those of the smaller one.
    """
    import cv2

    if _gap(inner, unit_px) < OPEN:
        return image
    reach = (FILL_GROWTH + 2) * unit_px
    low = np.clip(np.floor(inner.min(0) - reach).astype(int), 0, image.shape[1::-1])
    high = np.clip(np.ceil(inner.max(0) + reach).astype(int), low, image.shape[1::-1])
    if (high - low < 8).any():
        return image
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    hole = cv2.dilate(
        (_polygon(inner - low, (size[1], size[0])) > 0.1).astype(np.uint8), _ellipse(FILL_GROWTH * unit_px)
    )
    place = matrix.copy()
    place[:, 2] += matrix[:, :2] @ low
    fill = cv2.warpAffine(
        small, place, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), max(0.5, 0.5 * unit_px))
    lips = image.copy()
    part = lips[low[1] : high[1], low[0] : high[0]]
    part[:] = cv2.blendLinear(fill, np.ascontiguousarray(part), np.maximum(soft, hole), 1 - np.maximum(soft, hole))
    return lips


def _edge(inner: np.ndarray, shape: tuple[int, int], unit_px: float) -> np.ndarray:
    """Return how much of the cavity each pixel (h, w) shows between lips (20, 2), in [0, 1]."""
    import cv2

    polygon = _polygon(inner, shape)
    return opened(inner, unit_px) * cv2.GaussianBlur(polygon, (0, 0), max(0.4, EDGE * unit_px))


def opened(inner: np.ndarray, unit_px: float) -> float:
    """Return how much of the cavity an inner-lip contour (20, 2) shows, in [0, 1]: nothing where lips nearly meet."""
    return _ease((_gap(inner, unit_px) - GAP_FADE[0]) / (GAP_FADE[1] - GAP_FADE[0]))


def _unit_px(matrix: np.ndarray) -> float:
    """Return the picture pixels of a template pixel."""
    return 1 / float(np.hypot(matrix[0, 0], matrix[1, 0]))


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape[:2]
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _gap(inner: np.ndarray, unit_px: float) -> float:
    """Return the mean opening along an inner-lip contour (20, 2) in eye distances."""
    return float(np.linalg.norm(inner[1:10] - inner[:10:-1], axis=1).mean()) / (EYE_DISTANCE * unit_px)


def _polygon(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Draw a polygon (N, 2) pixels as (h, w) float32 in [0, 1], edges smooth."""
    import cv2

    canvas = np.zeros(shape, np.uint8)
    fixed = np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas.astype(np.float32) / 255


def _ellipse(radius_px: float) -> np.ndarray:
    import cv2

    side = 2 * round(radius_px) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _eroded(mask: np.ndarray, radius_px: float) -> np.ndarray:
    import cv2

    return cv2.erode(mask, _ellipse(radius_px))


def _filled(crop: np.ndarray, cavity: np.ndarray, unit_px: float) -> np.ndarray:
    """Return a part of a portrait (h, w, C) uint8 with its cavity (h, w) filled from the lips around it."""
    import cv2

    hole = cv2.dilate((cavity > 0.1).astype(np.uint8), _ellipse(FILL_GROWTH * unit_px))
    ratio = min(1.0, FILL_SIDE / crop.shape[1])
    small = cv2.resize(crop[..., :3], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(255 * hole, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    fill = cv2.inpaint(small, (small_hole > 30).astype(np.uint8), FILL_RADIUS, cv2.INPAINT_TELEA)
    fill = cv2.resize(cv2.GaussianBlur(fill, (0, 0), 1.0), crop.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), max(0.5, 0.5 * unit_px))
    weight = np.maximum(soft, hole)[..., None]
    filled = crop.copy()
    filled[..., :3] = np.rint(crop[..., :3] * (1 - weight) + fill * weight).astype(np.uint8)
    return filled


def _shade(inner: np.ndarray, shape: tuple[int, int], unit_px: float) -> np.ndarray:
    """Return the light (h, w) in (0, 1] that the upper lip leaves in the cavity below it."""
    import cv2

    lit = _polygon(inner + np.array([0, SHADE_DEPTH * unit_px]), shape)
    return 1 - SHADE + SHADE * cv2.GaussianBlur(lit, (0, 0), max(0.6, SHADE_SOFT * unit_px))


def _lower_row(crop: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return where the lower row of teeth stands, (h, w) float32 in [0, 1]: below a dark gap between two rows.

    All zero where there is no such gap: what is seen then hangs from the skull.
    """
    import cv2

    nothing = np.zeros(crop.shape[:2], np.float32)
    upper, lower = inner[1:10], inner[:10:-1]
    share = ((np.arange(PROFILE) + 0.5) / PROFILE)[:, None, None]
    lines = (upper[2:7] + share * (lower[2:7] - upper[2:7])).astype(np.float32)  # (PROFILE, 5, 2)
    grey = cv2.cvtColor(np.ascontiguousarray(crop[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    read = cv2.remap(grey, lines[..., 0], lines[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    profile = np.convolve(np.pad(read.mean(1), 2, "edge"), np.full(5, 0.2), "valid")
    first, last = (round(end * PROFILE) for end in VALLEY)
    valley = first + int(profile[first:last].argmin())
    if profile[valley] > DARK * profile[:valley].max() or profile[valley:].max() < RISE * profile[valley]:
        return nothing
    line = upper + (valley + 0.5) / PROFILE * (lower - upper)
    return _polygon(np.concatenate([inner[:1], line, inner[10:]]), crop.shape[:2])


def _ease(value: float) -> float:
    """Return the ramp from 0 to 1 over [0, 1] whose slope is zero at both ends."""
    value = min(max(value, 0.0), 1.0)
    return value * value * (3 - 2 * value)
