"""Whether lips and sound agree, as SyncNet sees it: LSE-D, LSE-C and the offset.

Chung and Zisserman 2016, "Out of time"; LSE-D and LSE-C are named by Prajwal et al. 2020 (Wav2Lip). The evaluation is
that of syncnet_python with two differences: the face box comes from the landmarks, not from the S3FD detector, and the
crops are not compressed to XVID and JPEG on the way. Values therefore compare within this ruler first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from scipy.ndimage import median_filter

from atldiff.landmarks.topology import OVAL, POINTS
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, SAMPLE_RATE, SAMPLES_PER_FRAME, duration_s

if TYPE_CHECKING:
    from atldiff.backbones.syncnet import SyncNet

SIDE = 224
"""Side of a face crop in pixels."""
WINDOW_FRAMES = 5
WINDOW_COLUMNS = WINDOW_FRAMES * COLUMNS_PER_FRAME  # 20
SHIFT_FRAMES = 15
"""Largest offset looked at, either way."""
MIN_FRAMES = WINDOW_FRAMES + SHIFT_FRAMES + 1
"""Shortest clip (0.84 s): every offset then meets at least one pair of windows that both exist."""

COEFFICIENTS = 13
_ANALYSED = 400  # samples, 25 ms
_TRANSFORM = 512
_FILTERS = 26
_EMPHASIS = 0.97
_LIFTER = 22
_BLOCK = 4096  # columns analysed at once: 17 MB

CROP_MARGIN = 0.4
_FILTERED_FRAMES = 13
_GREY = (110, 110, 110)


class SyncScore(NamedTuple):
    """SyncNet's verdict.

    lse_d: distance at the best offset; lower is better. lse_c: median minus minimum of the
    distances over the offsets; higher is better, near 0 where nothing agrees. offset_ms: how much later
    to show the video for it to match the sound, a multiple of 40; negative where the video is late.
    """

    lse_d: float
    lse_c: float
    offset_ms: float


def lse(faces: np.ndarray, samples: np.ndarray, network: SyncNet, *, batch: int = 20) -> SyncScore:
    """Return how well a talking face matches its sound.

    faces: (T, 224, 224, 3) uint8 RGB at 25 fps, as `crop_face` cuts them. samples: (N,) float 16 kHz mono in [-1, 1],
    starting with the first frame. The shorter of the two counts. batch: windows at once, about 10 MB each.

    Raises:
        ValueError: other shapes, or fewer than 21 frames of both.
    """
    if faces.ndim != 4 or faces.shape[1:] != (SIDE, SIDE, 3) or faces.dtype != np.uint8:
        raise ValueError(f"faces: got {faces.shape} {faces.dtype}, expected (T, {SIDE}, {SIDE}, 3) uint8")
    if samples.ndim != 1:
        raise ValueError(f"samples: got shape {samples.shape}, expected (N,)")
    frames = min(len(faces), len(samples) // SAMPLES_PER_FRAME)
    if frames < MIN_FRAMES:
        raise ValueError(
            f"clip: got {len(faces)} frames and {len(samples)} samples, expected at least {MIN_FRAMES} frames and "
            f"{MIN_FRAMES * SAMPLES_PER_FRAME} samples ({float(duration_s(MIN_FRAMES * SAMPLES_PER_FRAME)):g} s)"
        )
    # One window fewer than fit: the last one's sound would want a column beyond the end of the samples.
    starts = range(frames - WINDOW_FRAMES)
    columns = mfcc(samples).astype(np.float32)
    lips, sound = [], []
    with torch.inference_mode():
        for first in range(0, len(starts), batch):
            chosen = starts[first : first + batch]
            windows = np.stack([faces[i : i + WINDOW_FRAMES, ..., ::-1] for i in chosen])  # (B, 5, 224, 224, 3) BGR
            lips.append(network.embed_lips(torch.from_numpy(windows).permute(0, 4, 1, 2, 3).float()).cpu())
            heard = np.stack([columns[i * COLUMNS_PER_FRAME :][:WINDOW_COLUMNS].T for i in chosen])  # (B, 13, 20)
            sound.append(network.embed_sound(torch.from_numpy(heard)[:, None]).cpu())
    return score(torch.cat(lips), torch.cat(sound))


def score(lips: torch.Tensor, sound: torch.Tensor) -> SyncScore:
    """Return the verdict on embeddings of lips (W, D) and sound (W, D), window by window of the same time.

    Each window of lips is compared with the sound 15 windows before to 15 after; beyond the ends the sound's embedding
    is zero, as in syncnet_python. A video that is late by k frames shows at window i what is heard at i - k: the
    distances are then smallest at shift -k, syncnet_python prints an AV offset of +k, and `offset_ms` is -40 k.

    Raises:
        ValueError: the shapes differ.
    """
    if lips.shape != sound.shape or lips.ndim != 2:
        raise ValueError(f"embeddings: got shapes {tuple(lips.shape)} and {tuple(sound.shape)}, expected (W, D) twice")
    padded = F.pad(sound, (0, 0, SHIFT_FRAMES, SHIFT_FRAMES))
    distances = torch.stack(
        [  # (31,), the mean over windows at each shift
            F.pairwise_distance(lips, padded[start : start + len(lips)]).mean() for start in range(2 * SHIFT_FRAMES + 1)
        ]
    )
    best = int(distances.argmin())
    shift_samples = (best - SHIFT_FRAMES) * SAMPLES_PER_FRAME
    return SyncScore(
        lse_d=float(distances[best]),
        lse_c=float(distances.median() - distances[best]),
        offset_ms=float(1000 * duration_s(shift_samples)),
    )


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Return mel-frequency cepstra (n, 13) float64 of samples (N,) in [-1, 1] at 16 kHz, one column every 10 ms.

    The numbers SyncNet was trained on: of 16-bit samples, 25 ms without a window function, emphasis 0.97, a 512-point
    power spectrum, 26 triangular mel filters, lifter 22, and the log energy in place of the first coefficient.
    The end is filled up with zeros to a whole column.

    Raises:
        ValueError: no samples, another shape, or samples that are not finite.
    """
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"samples: got shape {samples.shape}, expected (N,), N > 0, of finite numbers")
    levels = np.clip(np.round(samples.astype(np.float64) * 32768), -32768, 32767)
    sharpened = np.concatenate([levels[:1], levels[1:] - _EMPHASIS * levels[:-1]])
    count = 1 + max(0, -(-(len(levels) - _ANALYSED) // HOP_SAMPLES))
    whole = (count - 1) * HOP_SAMPLES + _ANALYSED
    spans = np.lib.stride_tricks.sliding_window_view(np.pad(sharpened, (0, whole - len(levels))), _ANALYSED)
    spans = spans[::HOP_SAMPLES]  # (n, 400), a view
    return np.concatenate([_cepstra(spans[start : start + _BLOCK]) for start in range(0, count, _BLOCK)])


def _cepstra(spans: np.ndarray) -> np.ndarray:
    smallest = np.finfo(float).eps  # digital silence has no logarithm
    power = np.abs(np.fft.rfft(spans, _TRANSFORM)) ** 2 / _TRANSFORM  # (n, 257)
    energy, bands = power.sum(axis=1), power @ _mel_filters().T  # (n,), (n, 26)
    logs = np.log(np.where(bands == 0, smallest, bands))
    cepstra = np.asarray(scipy.fft.dct(logs, type=2, axis=1, norm="ortho"))[:, :COEFFICIENTS]  # (n, 13)
    cepstra = cepstra * (1 + _LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / _LIFTER))
    cepstra[:, 0] = np.log(np.where(energy == 0, smallest, energy))
    return cepstra


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """Return 26 triangles over the 257 bins; their corners lie on whole bins."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE // 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, highest, _FILTERS + 2) / 2595) - 1)
    corners = np.floor((_TRANSFORM + 1) * corners_hz / SAMPLE_RATE)
    bins = np.arange(_TRANSFORM // 2 + 1)
    return np.stack([np.interp(bins, corners[i : i + 3], [0, 1, 0]) for i in range(_FILTERS)])


def face_boxes(points: np.ndarray) -> np.ndarray:
    """Return a steady box a frame, (T, 3): centre x, centre y and half the longer side, in pixels.

    points: (T, 478, 3) pixels at 25 fps. The box is that of the face oval. S3FD, which syncnet_python uses, was trained
    on WIDER FACE, whose boxes hold forehead, chin and cheeks: what the oval bounds as well. The crop takes 0.4 of the
    longer side beyond it, so a few per cent more or less move the mouth by a few pixels of 224. Each number passes a
    median of 13 frames, as there; at the ends we repeat the first and last frame where it fills up with zeros.

    Raises:
        ValueError: another shape, no frame, or points that are not finite.
    """
    if points.ndim != 3 or points.shape[1:] != (POINTS, 3) or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"points: got shape {points.shape}, expected (T, {POINTS}, 3), T > 0, of finite numbers")
    oval = points[:, OVAL, :2].astype(np.float64)  # (T, 36, 2)
    low, high = oval.min(axis=1), oval.max(axis=1)
    boxes = np.concatenate([(low + high) / 2, (high - low).max(axis=1, keepdims=True) / 2], axis=1)  # (T, 3)
    return median_filter(boxes, size=(_FILTERED_FRAMES, 1), mode="nearest")


def crop_face(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the square SyncNet sees, (224, 224, 3) uint8: the box, 0.4 more at the sides, 0.8 half-sides below it.

    frame: (H, W, 3) uint8. box: (3,), one of `face_boxes`. What lies beyond the frame is grey (110).

    Raises:
        ValueError: the box is smaller than 2 px or does not touch the frame.
    """
    import cv2

    x, y, half = (float(value) for value in box)
    height, width = frame.shape[:2]
    if half < 1 or not (-half < x < width + half and -half < y < height + half):
        raise ValueError(f"face box {x:.1f}, {y:.1f} ± {half:.1f}: outside of the frame of {width}x{height} px")
    reach = half * (1 + CROP_MARGIN)
    left, right = int(np.floor(x - reach)), int(np.floor(x + reach))
    top, bottom = int(np.floor(y - half)), int(np.floor(y + half * (1 + 2 * CROP_MARGIN)))
    inside = frame[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    missing = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    square = cv2.copyMakeBorder(inside, *missing, cv2.BORDER_CONSTANT, value=_GREY)
    return cv2.resize(square, (SIDE, SIDE))
