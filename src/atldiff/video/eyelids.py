"""Eyelids that cover the eyeball. A smooth warp can only squeeze it between lids that meet.

The warp's field gets lids as open as the portrait's, carried along by the corners of their eye. How far the wanted
lids are from those is painted afterwards: the skin around the eye is stretched over an eyeball that stays. What a lid
unfolds as it closes no picture of an open eye shows: it is painted in the colours of the skin around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SKIP_PX = 0.1
"""Lids that differ by less than this from the portrait's are not painted."""

# Shares of the eye's width, looked at on 30 portraits, paintings, glasses and a statue among them.
LASHES = 0.06
"""Height of the strip along a lid's edge that moves as it is, lashes and all; the skin behind it is stretched."""
REACH = 0.35
"""Height of the skin that gives way above the fold and below the lower lid."""
SIDE = 0.15
"""How far beyond the corners the skin of the fold moves."""
EDGE = 0.03
"""How far inside the visible edge the landmarks of the lids lie; the closed upper lid covers the lower by as much."""
SEAM = 0.04
"""Height of the shade where the lids meet."""
NEAR_FOLD = np.linspace(-0.06, 0.06, 7)
"""Rows about the fold whose skin an unfolded lid is like."""
NEAR_CHEEK = np.linspace(0.02, 0.16, 7)
"""Rows below the lower lashes whose skin it is like as well, the further down the more."""
ALONG = 0.12
"""Sigma along the eye of these colours."""
FADE, BEYOND, WITHIN = 0.12, 0.12, 0.08
"""Unfolded skin begins so far above the fold and beyond the corners, and is whole so far within them: what a landmark
misses of an eye, and the edge that the open lid had, are covered too."""
GRAIN = 0.03
"""Sigma that parts the grain of skin from its colour."""

DARKEST = 0.4
"""Lashes of closed lids are no darker than this share of the skin's light."""
SEAM_SHADE = 0.7
"""How much nearer to that the seam of closed lids is: lashes meet there."""
BRIGHT = 5
"""Of the rows near the fold, in order of light, the one that counts: neither crease nor brow."""
UNFOLDED = 0.85
"""How much of the stretched skin's own pattern an unfolded lid covers."""
TO_CHEEK = 0.4
"""Share of the cheek's colour at the lid's edge."""
MOST_GRAIN = 8.0
"""Grain is no stronger than this: rims of glasses are none."""
ROWS_PER_PX = 4
"""Resolution of the lids' curves along the eye."""


@dataclass(frozen=True, slots=True)
class EyeLandmarks:
    """Indices of one eye's landmarks, in the order of x in the picture of an upright face.

    corners: (2,). upper, lower, fold: (N,) the edges of the lids and the skin above the upper one.
    """

    corners: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True, slots=True)
class EyeFrame:
    """Coordinates (u, v) of an eye in pixels: u from its first corner to the second, v from there to the chin.

    origin: (2,) the first corner. axes: (2, 2), rows u and v in the picture. width: from corner to corner.
    """

    origin: np.ndarray
    axes: np.ndarray
    width: float

    @classmethod
    def of(cls, corners: np.ndarray) -> EyeFrame:
        """Return the frame of two corners (2, 2)."""
        x, y = corners[1] - corners[0]
        width = max(float(np.hypot(x, y)), 1e-6)
        return cls(corners[0], np.array([[x, y], [-y, x]]) / width, width)

    def enter(self, points: np.ndarray) -> np.ndarray:
        """Return picture points (..., 2) as (u, v)."""
        return (points - self.origin) @ self.axes.T

    def leave(self, points: np.ndarray) -> np.ndarray:
        """Return (u, v) (..., 2) as picture points."""
        return points @ self.axes + self.origin

    def place(self, box: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Return the rows and columns of a canvas that a box (N, 2) in (u, v) takes, None where it takes none.

        corner: the canvas's top left pixel (x, y). shape: of the canvas.
        """
        ends = self.leave(box) - corner
        x0, y0 = np.maximum(np.floor(ends.min(0)).astype(int), 0).tolist()
        x1, y1 = np.minimum(np.ceil(ends.max(0)).astype(int) + 1, shape[1::-1]).tolist()
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def grid(
        self, box: np.ndarray, corner: tuple[int, int], shape: tuple[int, ...]
    ) -> tuple[tuple[slice, slice], tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None:
        """Return the pixels of a canvas that a box (N, 2) in (u, v) takes; arguments and None as of `place`.

        Returns:
            their rows and columns, x and y on the canvas, and u and v, float32.
        """
        place = self.place(box, corner, shape)
        if place is None:
            return None
        (y0, y1), (x0, x1) = ((axis.start, axis.stop) for axis in place)
        x, y = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
        (ux, uy), (vx, vy) = self.axes.astype(np.float32)
        dx, dy = (np.asarray(corner) - self.origin).astype(np.float32)
        u, v = (x + dx) * ux + (y + dy) * uy, (x + dx) * vx + (y + dy) * vy
        return place, (x, y), (u, v)


def read_through(image: np.ndarray, lookup: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what a warped picture shows at x and y, by way of the warp's own lookup: sampled once, never twice."""
    import cv2

    read_x, read_y = (cv2.remap(axis, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for axis in lookup)
    return cv2.remap(image, read_x, read_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


class LidCurves(NamedTuple):
    """The lids along u, each (L,) float32 and, unless said otherwise, in v pixels.

    From top to bottom: where moving skin begins, the fold, the end of the stretched skin, the edge of the upper lid,
    that of the lower lid, and where the stretched skin below it begins and ends. by_*: how far these have moved down.
    closed: 0 to 1.
    """

    top: np.ndarray
    fold: np.ndarray
    skin: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    cheek: np.ndarray
    bottom: np.ndarray
    by_fold: np.ndarray
    by_upper: np.ndarray
    by_lower: np.ndarray
    closed: np.ndarray


@dataclass(frozen=True, slots=True)
class LidMotion:
    """What is painted on one eye. low, high: (2,) the box in (u, v) outside of which nothing moves.

    curves: they start at u = low[0] and have `ROWS_PER_PX` rows a pixel.
    """

    frame: EyeFrame
    low: np.ndarray
    high: np.ndarray
    curves: LidCurves

    def place(self, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Return the rows and columns of a canvas that `paint` draws on, None where it draws on none."""
        return self.frame.place(_corners(*self.low, *self.high), corner, shape)

    def reads(self, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
        """Return those whose lookup `paint` needs, the same and some around them."""
        at, width = self.curves, self.frame.width
        (u0, v0), (u1, v1) = self.low, self.high
        most = max(float(np.abs(by).max()) for by in (at.by_fold, at.by_upper, at.by_lower))
        blur = 4 * GRAIN * width + 3
        above = [v0, (at.fold - at.by_fold).min() + NEAR_FOLD[0] * width]
        grain = (at.upper + at.cheek - at.fold).max() + FADE * width  # mirrored in the seam
        below = [v1, grain, (at.cheek - at.by_lower).max() + NEAR_CHEEK[-1] * width]
        box = _corners(u0 - blur, min(above) - most - blur, u1 + blur, max(below) + most + blur)
        return self.frame.place(box, corner, shape)

    def paint(
        self, canvas: np.ndarray, image: np.ndarray, lookup: tuple[np.ndarray, np.ndarray], corner: tuple[int, int]
    ) -> None:
        """Draw the lids in place over a warped picture.

        canvas: (h, w, 3) uint8, the picture as warped without them; `corner` is its top left pixel (x, y).
        image: (H, W, 3) uint8 that it was read from. lookup: x and y (h, w) float32, where it was read.
        """
        import cv2

        found = self.frame.grid(_corners(*self.low, *self.high), corner, canvas.shape)
        if found is None:
            return
        part, (x, y), (u, v) = found
        vx, vy = self.frame.axes.astype(np.float32)[1]
        row = np.rint((u - np.float32(self.low[0])) * ROWS_PER_PX).astype(np.intp)
        at = LidCurves(*(curve.take(row, mode="clip") for curve in self.curves))

        def read(down: np.ndarray) -> np.ndarray:
            # What has moved down is read further up.
            return read_through(image, lookup, x - down * vx, y - down * vy)

        down = at.by_fold * _ramp(v, at.top, at.fold) + (at.by_upper - at.by_fold) * _ramp(v, at.fold, at.skin)
        over = read(down + np.maximum(v - at.upper, 0))  # beyond its edge a lid repeats it
        under = read(at.by_lower * (1 - _ramp(v, at.cheek, at.bottom)) + np.minimum(v - at.lower, 0))
        unfolded = self._unfolded(u, v, at)
        if unfolded.any():
            skin = self._skin(image, lookup, corner, row, _ramp(v, at.fold, at.upper))
            # The cheek's grain, mirrored in the seam.
            grain = read((v - at.upper) * 2 - (at.cheek - at.upper)).astype(np.float32)
            grain -= cv2.GaussianBlur(grain, (0, 0), max(GRAIN * self.frame.width, 0.5))
            skin += np.clip(grain, -MOST_GRAIN, MOST_GRAIN)
            # Of the moving edge lashes are kept, and not an eyeball that lies beside the landmarks.
            lashes = _ramp(v, at.skin - LASHES / 3 * self.frame.width, at.skin)[..., None]
            skin += lashes * np.clip(over - skin, (DARKEST - 1) * skin, 0)
            over = over + unfolded[..., None] * (skin - over)
        # Each by the part of a pixel's height that it covers: edges are smooth, and closed lids leave no eyeball.
        over_part = np.clip(at.upper - v + 0.5, 0, 1)[..., None]
        under_part = np.minimum(np.clip(v + 0.5 - at.lower, 0, 1)[..., None], 1 - over_part)
        below = canvas[part]
        mixed = over_part * over + under_part * under + (1 - over_part - under_part) * below
        if unfolded.any():
            shade = SEAM_SHADE * at.closed**2 * np.exp(-(((v - at.upper) / (SEAM * self.frame.width)) ** 2))
            mixed -= shade[..., None] * np.maximum(mixed - DARKEST * skin, 0)
        below[:] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)

    def _unfolded(self, u: np.ndarray, v: np.ndarray, at: LidCurves) -> np.ndarray:
        """Return how much of what is at u and v was folded away while the eye was open, (h, w)."""
        width = self.frame.width
        across = _ease(_ramp(np.minimum(u, width - u), -BEYOND * width, WITHIN * width))
        down = _ease(_ramp(v, at.fold - FADE * width, at.fold + (at.skin - at.fold) / 3))
        return UNFOLDED * _ease(2 * self.curves.closed.max()) * across * down

    def _skin(
        self,
        image: np.ndarray,
        lookup: tuple[np.ndarray, np.ndarray],
        corner: tuple[int, int],
        row: np.ndarray,
        along: np.ndarray,
    ) -> np.ndarray:
        """Return the colours (h, w, 3) float32 of an unfolded lid; row, along: (h, w) place along u, 0 to 1 down it."""
        import cv2

        curves, width = self.curves, self.frame.width
        u = self.low[0] + np.arange(len(curves.fold)) / ROWS_PER_PX

        def band(line: np.ndarray, rows: np.ndarray, order: int) -> np.ndarray:
            v = line + width * rows[:, None]
            points = self.frame.leave(np.stack([np.broadcast_to(u, v.shape), v], -1)) - corner
            x, y = np.ascontiguousarray(np.moveaxis(points, -1, 0), np.float32)
            colours = np.sort(read_through(image, lookup, x, y), axis=0)[order : order + 1].astype(np.float32)
            blurred = cv2.GaussianBlur(
                colours, (0, 0), ALONG * width * ROWS_PER_PX, sigmaY=1e-3, borderType=cv2.BORDER_REPLICATE
            )
            return blurred[0].take(row, axis=0, mode="clip")

        above = band(curves.fold - curves.by_fold, NEAR_FOLD, BRIGHT)
        below = band(curves.cheek - curves.by_lower, NEAR_CHEEK, len(NEAR_CHEEK) // 2)
        return above + TO_CHEEK * along[..., None] * (below - above)


def _corners(u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
    return np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])


def part_lids(
    source: np.ndarray, target: np.ndarray, eyes: tuple[EyeLandmarks, ...]
) -> tuple[np.ndarray, list[LidMotion]]:
    """Part wanted landmarks into those for a smooth field and what is painted on the eyes.

    source, target: (K, 2) the portrait's landmarks and the wanted ones, in pixels.

    Returns:
        The wanted landmarks with lids as open as the portrait's or as wanted, whichever is wider; and the motions that
        close them from there, none for an eye whose lids need none.
    """
    smooth = target.astype(np.float64)
    motions = []
    for eye in eyes:
        frame = EyeFrame.of(smooth[eye.corners])
        closing = []
        for landmarks, wider in ((eye.fold, np.minimum), (eye.upper, np.minimum), (eye.lower, np.maximum)):
            wanted = frame.enter(smooth[landmarks])
            carried = frame.enter(_carried(source[landmarks], source[eye.corners], smooth[eye.corners]))
            down = wanted[:, 1] - wider(wanted[:, 1], carried[:, 1])
            smooth[landmarks] -= down[:, None] * frame.axes[1]
            closing.append((wanted, down))
        if max(np.abs(down).max() for _, down in closing[1:]) > SKIP_PX:
            motions.append(_motion(frame, *closing))
    return smooth.astype(target.dtype), motions


def _carried(points: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points (N, 2) by the similarity that takes two points (2, 2) to two others."""
    points, source = points.astype(np.float64), source.astype(np.float64)
    (x, y), (to_x, to_y) = source[1] - source[0], target[1] - target[0]
    square = max(x * x + y * y, 1e-12)
    # As a displacement: without motion it is exactly 0.
    scale, turn = (x * to_x + y * to_y) / square - 1, (x * to_y - y * to_x) / square
    linear = np.array([[scale, turn], [-turn, scale]])
    return points + (points - source[0]) @ linear + (target[0] - source[0])


def _motion(
    frame: EyeFrame,
    fold: tuple[np.ndarray, np.ndarray],
    upper: tuple[np.ndarray, np.ndarray],
    lower: tuple[np.ndarray, np.ndarray],
) -> LidMotion:
    """Lay the curves of a motion.

    fold, upper, lower: wanted points (N, 2) in the eye's frame, and how far each is below the open one (N,).
    """
    width = frame.width
    side, lashes, reach = SIDE * width, LASHES * width, REACH * width
    u = np.arange(0, width + 2 * side + 1, 1 / ROWS_PER_PX) - side

    def curve(line: tuple[np.ndarray, np.ndarray], beyond: float, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, down = line
        inner = np.maximum.accumulate(np.clip(points[:, 0], -beyond, width + beyond))
        knots = np.concatenate([[-beyond], inner, [width + beyond]])
        heights = np.concatenate([ends[:1], points[:, 1], ends[1:]])
        return np.interp(u, knots, heights), np.interp(u, knots, np.pad(down, 1))

    fold_v, by_fold = curve(fold, side, fold[0][[0, -1], 1])
    upper_v, by_upper = curve(upper, 0.0, np.zeros(2))
    lower_v, by_lower = curve(lower, 0.0, np.zeros(2))
    crossed = np.maximum(upper_v - lower_v, 0) / 2
    upper_v, by_upper = upper_v - crossed, by_upper - crossed
    lower_v, by_lower = lower_v + crossed, by_lower + crossed
    bottom = lower_v - by_lower + lashes + reach
    fold_v = np.minimum(fold_v, upper_v - 1e-3)
    top = np.minimum(fold_v - by_fold - reach, fold_v - 1e-3)

    gap = np.maximum(lower_v - upper_v + by_upper - by_lower, 1e-3)  # of the open eye
    share = (by_upper - by_lower) / gap
    closed = _ease(share)
    edge = np.minimum(EDGE * width, gap / 5)
    # Soon no moving lid shows the eyeball that lies within its landmarks; late the upper one covers the lower's edge.
    within, cover = edge * _ease(3 * share), edge * closed
    upper_v, by_upper, by_lower = upper_v + cover, by_upper + cover + within, by_lower - within
    skin = np.maximum(upper_v - lashes, (fold_v + upper_v) / 2)
    height = np.maximum(skin - fold_v, 1e-3)
    curves = LidCurves(*(values.astype(np.float32) for values in (
        top, fold_v, fold_v + height, upper_v, lower_v, lower_v + lashes, bottom,
        by_fold, by_upper, by_lower, closed * np.minimum(8 * gap / width, 1),
    )))  # fmt: skip
    return LidMotion(frame, np.array([-side, top.min()]), np.array([width + side, bottom.max()]), curves)


def _ramp(value: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Return 0 up to `low`, 1 from `high`, and a straight line between."""
    return np.clip((value - low) / (high - low), 0, 1)


def _ease(value: np.ndarray) -> np.ndarray:
    """Return the ramp from 0 to 1 over [0, 1] whose slope is zero at both ends."""
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3 - 2 * value)
