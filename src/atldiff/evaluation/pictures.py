"""The measures that need pixels: all videos of a clip are decoded side by side, batch by batch, and added up."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.evaluation.footage import Footage
from atldiff.evaluation.metrics import image
from atldiff.evaluation.metrics.identity import identity_cosine
from atldiff.evaluation.metrics.perceptual import feature_distance
from atldiff.evaluation.protocol import (
    CROP,
    FID_STRIDE,
    IDENTITY_FRAMES,
    MOUTH_MARGIN,
    SEAM_WINDOW_ORIGIN,
    SEAM_WINDOW_SIDE,
)
from atldiff.landmarks.topology import LIPS, MESH_POINTS
from atldiff.video.window import WindowGeometry, apply, extract, fit_window, invert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atldiff.backbones.alexnet import LpipsAlexNet
    from atldiff.backbones.embedder import Embedder
    from atldiff.backbones.inception import InceptionV3
    from atldiff.backbones.syncnet import SyncNet
    from atldiff.evaluation.metrics.fid import Fid

Values = dict[str, float | None]

BATCH_FRAMES = 16
SEAM_WINDOW = WindowGeometry(SEAM_WINDOW_SIDE, SEAM_WINDOW_ORIGIN)
SEAM_SMOOTH_FRAMES = 1.5


@dataclass(frozen=True, slots=True)
class Backbones:
    """The networks of others that some measures need; a measure without its network is not computed."""

    lpips: LpipsAlexNet | None = None
    inception: InceptionV3 | None = None
    syncnet: SyncNet | None = None
    embedder: Embedder | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A video and the map from its pixels to the crop."""

    footage: Footage
    to_crop: NDArray[np.float64]

    def points(self, subset: NDArray[np.int_]) -> NDArray[np.float64]:
        """Return a subset of the landmarks in crop pixels, (T, K, 2), with lost frames filled."""
        return apply(self.to_crop, self.footage.filled[:, subset, :2].astype(np.float64))


@dataclass
class _Sums:
    """What is added up over the frames of one row."""

    frames: int = 0
    squares: float = 0.0
    mouth_squares: float = 0.0
    mouth_values: int = 0
    ssim: float = 0.0
    lpips: float | None = None
    flicker: float = 0.0
    still: int = 0
    last: NDArray[np.uint8] | None = None
    steps: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    embeddings: list[NDArray[np.floating]] = field(default_factory=list)


def watch_pictures(
    real: View, rows: Mapping[str, View], backbones: Backbones, fid: Mapping[str, Fid], *, paired: bool
) -> dict[str, Values]:
    """Decode all videos of a clip side by side and return each row's figures that need pixels.

    real, rows: as in `measure_clip`, with their crops. fid: what collects the features of each row. Frames that stand
    for missing ones count where they are an error, and not where standing still would be to a video's advantage.
    """
    sums = {name: _Sums() for name in rows}
    truth = _Sums()
    mouths = _mouth_boxes(real)
    borders = {name: _borders(view) for name, view in rows.items()} if paired else {}
    real_borders = _borders(real)
    chosen = {name: _spread(view.footage) for name, view in rows.items()}
    chosen_real = _spread(real.footage)
    itself = {name for name, view in rows.items() if view.footage is real.footage}
    others = {name: view for name, view in rows.items() if name not in itself}
    batch: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in rows}
    real_batch: list[NDArray[np.uint8]] = []
    start = 0

    def measure_batch() -> None:
        nonlocal start
        own = {name: max(0, view.footage.own - start) for name, view in rows.items()}
        if paired and real_batch:
            wanted = np.stack(real_batch)
            _add_steps(truth, wanted, real_borders, start)
            seen = None if backbones.lpips is None else _features(wanted, backbones.lpips)
            for name, frames in batch.items():
                if frames:
                    shown = wanted if name in itself else np.stack(frames)
                    _add(sums[name], shown, wanted, mouths[start:])
                    _add_flicker(sums[name], shown[: own[name]], wanted, truth.last)
                    if seen is not None and backbones.lpips is not None:
                        sums[name].lpips = (sums[name].lpips or 0.0) + _lpips(shown, wanted, seen, backbones.lpips)
                    _add_steps(sums[name], shown[: own[name]], borders[name], start)
            truth.last = wanted[-1]
        if backbones.inception is not None:
            made = {name: frames[: own[name]] for name, frames in batch.items()}
            _add_features(real_batch, made, itself, start, backbones.inception, fid)
        start += max(len(real_batch), *(len(frames) for frames in batch.values()))
        real_batch.clear()
        for frames in batch.values():
            frames.clear()

    everything = [real.footage.frames(), *(view.footage.frames() for view in others.values())]
    for index, (real_frame, *frames) in enumerate(zip_longest(*everything)):
        if real_frame is None and paired:
            break
        if real_frame is not None:
            real_batch.append(extract(real_frame, real.to_crop, CROP))
            for name in itself:
                batch[name].append(real_batch[-1])
            if backbones.embedder is not None and index in chosen_real:
                truth.embeddings.append(backbones.embedder.embed(real_frame, real.footage.points[index]))
        for (name, view), frame in zip(others.items(), frames, strict=True):
            if frame is None:
                continue
            batch[name].append(extract(frame, view.to_crop, CROP))
            if backbones.embedder is not None and index in chosen[name]:
                sums[name].embeddings.append(backbones.embedder.embed(frame, view.footage.points[index]))
        if (index + 1) % BATCH_FRAMES == 0:
            measure_batch()
    if real_batch or any(batch.values()):
        measure_batch()
    for name in itself:
        sums[name].embeddings = truth.embeddings
    return {name: _pixel_values(row, truth) for name, row in sums.items()}


def _add(sums: _Sums, shown: NDArray[np.uint8], wanted: NDArray[np.uint8], mouths: NDArray[np.int_]) -> None:
    wanted = wanted[: len(shown)]
    sums.frames += len(shown)
    sums.squares += float(image.mean_squared_error(shown, wanted).sum())
    sums.ssim += float(image.ssim(shown, wanted).sum())
    for frame, real, (left, top, right, bottom) in zip(shown, wanted, mouths, strict=False):
        difference = frame[top:bottom, left:right].astype(np.float32) - real[top:bottom, left:right]
        sums.mouth_squares += float(np.square(difference).sum(dtype=np.float64))
        sums.mouth_values += difference.size


def _add_flicker(
    sums: _Sums, shown: NDArray[np.uint8], wanted: NDArray[np.uint8], real_before: NDArray[np.uint8] | None
) -> None:
    if not len(shown):
        return
    wanted = wanted[: len(shown)]
    if sums.last is not None and real_before is not None:
        shown, wanted = np.concatenate([sums.last[None], shown]), np.concatenate([real_before[None], wanted])
    total, count = image.flicker_sums(shown, wanted)
    sums.flicker += total
    sums.still += count
    sums.last = shown[-1]


def _features(frames: NDArray[np.uint8], network: LpipsAlexNet) -> list[torch.Tensor]:
    with torch.inference_mode():
        return network(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1)


def _lpips(
    shown: NDArray[np.uint8], wanted: NDArray[np.uint8], seen: list[torch.Tensor], network: LpipsAlexNet
) -> float:
    """Return the distances of a batch, summed; seen: the network's features of `wanted`, for all rows."""
    if shown is wanted:
        return 0.0  # a picture from itself: no need to ask the network
    target = [layer[: len(shown)] for layer in seen]
    return float(feature_distance(_features(shown, network), target, network).sum())


def _add_steps(sums: _Sums, frames: NDArray[np.uint8], borders: Mapping[str, NDArray[np.float64]], start: int) -> None:
    for name, border in borders.items():
        part = border[start : start + len(frames)]
        sums.steps.setdefault(name, []).append(image.seam_steps(frames[: len(part)], part))


def _add_features(
    real_batch: list[NDArray[np.uint8]],
    batch: Mapping[str, list[NDArray[np.uint8]]],
    itself: set[str],
    start: int,
    network: InceptionV3,
    fid: Mapping[str, Fid],
) -> None:
    def features(frames: list[NDArray[np.uint8]]) -> torch.Tensor | None:
        kept = [frame for index, frame in enumerate(frames, start) if index % FID_STRIDE == 0]
        if not kept:
            return None
        with torch.inference_mode():
            return network(torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2))

    of_real = features(real_batch)
    for name, frames in batch.items():
        of_row = of_real if name in itself else features(frames)
        if of_row is not None:
            fid[name].add_generated(of_row)
        if of_real is not None:
            fid[name].add_real(of_real)


def _pixel_values(sums: _Sums, truth: _Sums) -> Values:
    values: Values = {}
    if sums.frames:
        values = {
            "psnr": image.psnr(sums.squares / sums.frames),
            "psnr_mouth": image.psnr(sums.mouth_squares / sums.mouth_values) if sums.mouth_values else None,
            "ssim": sums.ssim / sums.frames,
            "lpips": None if sums.lpips is None else sums.lpips / sums.frames,
            "flicker": image.flicker(sums.flicker, sums.still),
        }
        for name, steps in sums.steps.items():
            own, real = np.concatenate(steps), np.concatenate(truth.steps[name])
            frames = min(len(own), len(real))
            values[f"seam_{name}"] = image.seam_energy(own[:frames], real[:frames])
    if sums.embeddings and truth.embeddings:
        values["identity"] = identity_cosine(np.stack(sums.embeddings), np.stack(truth.embeddings))
    return values


def _mouth_boxes(real: View) -> NDArray[np.int_]:
    """Return left, top, right, bottom of each frame's mouth in crop pixels, (T, 4)."""
    lips = real.points(LIPS)
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = MOUTH_MARGIN * (high - low)[:, :1]
    corners = np.concatenate([np.floor(low - margin), np.ceil(high + margin)], axis=1)
    return np.clip(corners, 0, CROP).astype(int)


def _borders(view: View) -> dict[str, NDArray[np.float64]]:
    """Return the closed borders at which seams are looked for, in crop pixels, (T, 4, 2) each."""
    points = view.footage.filled
    side = SEAM_WINDOW.side
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float64)
    window = apply(invert(fit_window(points, SEAM_WINDOW, SEAM_SMOOTH_FRAMES)), square)  # (T, 4, 2)
    flat = points[:, :MESH_POINTS, :2].astype(np.float64)
    (left, top), (right, bottom) = flat.min(axis=1).T, flat.max(axis=1).T
    box = np.stack([np.stack(c, -1) for c in ((left, top), (right, top), (right, bottom), (left, bottom))], axis=1)
    return {"window": apply(view.to_crop, window), "box": apply(view.to_crop, box)}


def _spread(footage: Footage) -> frozenset[int]:
    """Return the frames whose faces are embedded."""
    seen = np.flatnonzero(footage.found[: footage.own])
    return frozenset(seen[np.linspace(0, len(seen) - 1, min(IDENTITY_FRAMES, len(seen))).astype(int)].tolist())
