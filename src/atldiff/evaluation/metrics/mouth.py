"""How real a mouth looks: sharpness, distance from the person's own mouths, and brightness between shut lips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from atldiff.evaluation.metrics.mouth_crop import RIM, Mouths, inside
from atldiff.evaluation.metrics.perceptual import feature_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atldiff.backbones.alexnet import LpipsAlexNet

CLOSE_UP = (0.125, 0.25, 0.875, 0.8125)
"""Left, top, right and bottom of the lips' part of the crop, in its sides: 0.67 by 0.5 eye distances."""
FEATURE_SIZE = (128, 96)
"""Width and height to which that part is brought for the network, whatever its own are."""
FEATURE_BATCH = 16
MOST_OPEN = 96
"""Open mouths of a video, evenly spread, that the network looks at."""
MIN_OPEN = 8
"""Fewest open, or shut, mouths of a video of which anything is said."""
SEAM = 0.015
"""How far from the line where lips meet, in eye distances, the pixels between them are looked at."""
CORNERS = 0.15
"""Share of the mouth's width at each corner that is left out: there it is dark with everyone."""
BRIGHTEST_LIP = 95
"""Percentile of the lips' own brightness that a pixel between them has to exceed."""


def gradients(mouths: Mouths) -> NDArray[np.float64]:
    """Return the mean luma gradient inside the inner lips of each frame, (T,) in levels a pixel.

    Length of the central differences; the lips' edge is left out. NaN where the mouth is not open or nothing lies
    inside.
    """
    found = np.full(len(mouths), np.nan)
    for index in np.flatnonzero(mouths.open).tolist():
        cavity = mouths.cavity(index)
        if cavity.any():
            luma = mouths.luma[index]
            across = cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)[cavity]
            down = cv2.Sobel(luma, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)[cavity]
            found[index] = float(np.hypot(across, down).mean())
    return found


def sharpness(made: Mouths, real: Mouths) -> float | None:
    """Return the gradients inside open mouths over those of the real mouths nearest in opening.

    made, real: crops of one side. 1 is as sharp as real; below it blurred, above it grainy or ringing. None where
    either has fewer than 8 open mouths.
    """
    own, other = gradients(made), gradients(real)
    seen, known = np.isfinite(own), np.flatnonzero(np.isfinite(other))
    if seen.sum() < MIN_OPEN or len(known) < MIN_OPEN:
        return None
    nearest = known[np.abs(made.opening[seen][:, None] - real.opening[known]).argmin(axis=1)]
    reference = float(other[nearest].mean())
    return float(own[seen].mean()) / reference if reference > 0 else None


def mouth_lpips(made: Mouths, real: Mouths, network: LpipsAlexNet) -> float | None:
    """Return the mean LPIPS of the close-ups of two videos' mouths, frame by frame; 0 is best.

    made, real: crops of the same times and one side; frames without a face in either are left out, and None is returned
    where none remains. Each is stabilised on its own skull, so that where a head is does not count.
    """
    both = np.flatnonzero(made.seen & real.seen)
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(both), FEATURE_BATCH):
            chosen = both[start : start + FEATURE_BATCH]
            one, other = (network(_pictures(mouths.frames[chosen])) for mouths in (made, real))
            total += float(feature_distance(one, other, network).sum())
    return total / len(both) if len(both) else None


def open_features(mouths: Mouths, network: LpipsAlexNet) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Return what the network sees of up to 96 open mouths, (N, F), and their frames, (N,).

    The five maps, of unit length at each place and weighted as LPIPS weighs them, averaged over the close-up: the
    squared distance of two such vectors is LPIPS without regard to place.
    """
    frames = np.flatnonzero(mouths.open)
    if len(frames) > MOST_OPEN:
        frames = frames[np.linspace(0, len(frames) - 1, MOST_OPEN).astype(int)]
    weights = [layer.get_parameter("weight").sqrt() for layer in network.linear]
    found = []
    with torch.inference_mode():
        for start in range(0, len(frames), FEATURE_BATCH):
            maps = network(_pictures(mouths.frames[frames[start : start + FEATURE_BATCH]]))
            means = [(F.normalize(m, eps=1e-10) * w).mean(dim=(2, 3)) for m, w in zip(maps, weights, strict=True)]
            found.append(torch.cat(means, dim=1).double().numpy())
    return (np.concatenate(found) if found else np.zeros((0, 0))), frames


def realism(
    made: tuple[NDArray[np.float64], NDArray[np.int_]], real: tuple[NDArray[np.float64], NDArray[np.int_]]
) -> float | None:
    """Return how far open mouths are from the person's own, over how far the person's own are from one another.

    made, real: features and frames from `open_features` of two videos of the same times. The real open mouths are
    halved in time. Distance: squared, between the mean features of the made ones of each half and the real ones of the
    other, over that between the real halves. 1 is as good as real; fog reads 5 to 10. None where a half has fewer than
    4.
    """
    (own, own_frames), (true, true_frames) = made, real
    if len(true) < MIN_OPEN or len(own) < MIN_OPEN:
        return None
    middle = np.median(true_frames)
    halves = [
        [part[early] for early in (at < middle, at >= middle)] for part, at in ((own, own_frames), (true, true_frames))
    ]
    if min(len(half) for part in halves for half in part) < MIN_OPEN // 2:
        return None
    (own_early, own_late), (early, late) = ([half.mean(axis=0) for half in part] for part in halves)
    apart = float(np.square(early - late).sum())
    across = float(np.square(own_early - late).sum() + np.square(own_late - early).sum()) / 2
    return across / apart if apart > 0 else None


def seam_brightness(mouths: Mouths, shut: NDArray[np.bool_] | None = None) -> float | None:
    """Return by how much the pixels between shut lips are brighter than the lips, in levels; 0 is best.

    Brightness is the lesser of green and blue, which teeth have and lips lack. What exceeds the 95th percentile of the
    lips' own, averaged over a band of 0.03 eye distances along the line where the lips meet and over the frames. shut:
    (T,), frames in which no tooth should be seen; those whose own landmarks are shut when left out. None with fewer
    than 8 of them.
    """
    chosen = np.flatnonzero(mouths.seen & (mouths.shut if shut is None else shut)).tolist()
    if len(chosen) < MIN_OPEN:
        return None
    excess = [_excess(mouths, index) for index in chosen]
    found = [value for value in excess if value is not None]
    return float(np.mean(found)) if len(found) >= MIN_OPEN else None


def _excess(mouths: Mouths, index: int) -> float | None:
    side, inner, outer = mouths.frames.shape[1], mouths.inner[index], mouths.outer[index]
    band = inside(inner, side, -SEAM * mouths.eye_px) & inside(outer, side)
    lips = inside(outer, side, RIM * mouths.eye_px) & ~inside(inner, side, -2 * SEAM * mouths.eye_px)
    right, left = inner[0], inner[10]  # the person's own
    along = left - right
    rows, columns = np.mgrid[:side, :side]
    share = ((columns - right[0]) * along[0] + (rows - right[1]) * along[1]) / max(float(along @ along), 1e-6)
    band &= (share > CORNERS) & (share < 1 - CORNERS)
    if not band.any() or not lips.any():
        return None
    brightness = mouths.frames[index][..., 1:].min(axis=-1).astype(np.float64)
    return float(np.maximum(brightness[band] - np.percentile(brightness[lips], BRIGHTEST_LIP), 0).mean())


def _pictures(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Return the lips' part of crops as the network takes it, (N, 3, 96, 128) in [-1, 1]."""
    left, top, right, bottom = (round(at * frames.shape[1]) for at in CLOSE_UP)
    resized = [cv2.resize(f[top:bottom, left:right], FEATURE_SIZE, interpolation=cv2.INTER_LINEAR) for f in frames]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 127.5 - 1
