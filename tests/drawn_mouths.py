"""Mouths that tests draw: teeth that stand still, slide with the lips or are squeezed between them."""

from __future__ import annotations

import cv2
import numpy as np

from atldiff.evaluation.metrics.mouth_crop import Mouths, inside

SIDE = 144
EYE_PX = SIDE * 72 / 64
WIDEST = 0.2
LIP = (170, 90, 95)


def contours(opening: float) -> tuple[np.ndarray, np.ndarray]:
    """Return inner and outer lips, (20, 2) pixels each, of a mouth open by `opening` eye distances at its middle."""
    across = np.cos(np.linspace(np.pi, 0, 11))
    height = np.sqrt(1 - across**2)
    x = 72 + 40 * across
    gap = opening * EYE_PX
    upper, lower = 62 - 0.2 * gap * height, 62 + 0.8 * gap * height
    inner = np.concatenate([np.stack([x, upper], -1), np.stack([x, lower], -1)[9:0:-1]])
    far_x = 72 + 44 * across
    outer = np.concatenate(
        [np.stack([far_x, upper - 10 * height], -1), np.stack([far_x, lower + 13 * height], -1)[9:0:-1]]
    )
    return inner, outer


def teeth_texture(seed: int = 0) -> np.ndarray:
    """Return what lies behind the lips: two rows of teeth with gaps and marks, dark elsewhere, (SIDE, SIDE, 3)."""
    random = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), (45, 20, 22), np.float32)
    for index, x in enumerate(range(28, 120, 10)):
        shade = random.uniform(-12, 12)
        picture[48 : 68 + index % 3, x : x + 9] = np.array([225, 220, 205]) + shade
        picture[80 - index % 2 : 96, x + 3 : x + 11] = np.array([205, 200, 185]) + shade
    marks = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE)).astype(np.float32), (0, 0), 1.5)
    return np.clip(picture + 25 * marks[..., None], 0, 255)


def carried(base: np.ndarray, from_inner: np.ndarray, to_inner: np.ndarray, share: float) -> np.ndarray:
    """Return a picture whose cavity went along by a share of the lips' motion; 1: as if printed on them."""
    side = base.shape[0]
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    edges = []
    for inner in (to_inner, from_inner):
        for lip in (np.arange(11), np.r_[0, np.arange(19, 9, -1)]):
            order = np.argsort(inner[lip, 0])
            edges.append(np.interp(np.arange(side), inner[lip][order, 0], inner[lip][order, 1]))
    upper, lower, old_upper, old_lower = edges
    place = (ys - upper) / np.maximum(lower - upper, 1e-3)
    printed = old_upper + place * (old_lower - old_upper)
    return cv2.remap(base.astype(np.float32), xs, (ys + share * (printed - ys)).astype(np.float32), cv2.INTER_LINEAR)


def draw_mouths(openings: np.ndarray, share: float = 0.0, tremble: float = 0.0, teeth: bool = True) -> Mouths:
    """Return drawn mouths of the given openings in eye distances.

    share: of the lips' motion that the teeth go along with. tremble: levels by which the whole cavity changes from
    frame to frame. teeth: False for a cavity without.
    """
    random = np.random.default_rng(1)
    nose = cv2.GaussianBlur(random.normal(0, 60, (SIDE, SIDE)).astype(np.float32), (0, 0), 2)
    texture = teeth_texture() if teeth else np.full((SIDE, SIDE, 3), (45.0, 20, 22))
    widest, _ = contours(WIDEST)
    frames, inners, outers = [], [], []
    for index, opening in enumerate(openings):
        inner, outer = contours(float(opening))
        skin = np.full((SIDE, SIDE, 3), (205.0, 165, 150)) + nose[..., None]
        skin[inside(outer, SIDE)] = LIP
        soft = cv2.GaussianBlur(inside(inner, SIDE).astype(np.float32), (0, 0), 0.7)[..., None]
        cavity = carried(texture, widest, inner, share) + tremble * (-1) ** index
        frames.append(np.clip(soft * cavity + (1 - soft) * skin, 0, 255).astype(np.uint8))
        inners.append(inner)
        outers.append(outer)
    flat = np.stack(inners)
    gaps = np.linalg.norm(flat[:, [4, 5, 6]] - flat[:, [16, 15, 14]], axis=-1).mean(axis=1) / EYE_PX
    return Mouths(np.stack(frames), flat, np.stack(outers), gaps, np.ones(len(gaps), bool))


def changed(mouths: Mouths, change) -> Mouths:
    """Return mouths whose cavities `change(frame (S, S, 3) float32, index)` has made anew, with a soft edge."""
    frames = []
    for index, frame in enumerate(mouths.frames):
        soft = cv2.GaussianBlur(inside(mouths.inner[index], len(frame)).astype(np.float32), (0, 0), 1)[..., None]
        made = change(frame.astype(np.float32), index)
        frames.append(np.clip(soft * made + (1 - soft) * frame, 0, 255).astype(np.uint8))
    return Mouths(np.stack(frames), mouths.inner, mouths.outer, mouths.opening, mouths.seen)
