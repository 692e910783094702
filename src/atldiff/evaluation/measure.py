"""One clip under the ruler: the real video and every row's version of it become a figure for each measure.

Frames are decoded once for all rows and dropped batch by batch, so memory does not grow with the clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.evaluation.footage import Footage, Sight, crop_matrix, duration_error_ms, match
from atldiff.evaluation.metrics import image, landmarks, motion, sync
from atldiff.evaluation.metrics.identity import identity_cosine
from atldiff.evaluation.metrics.perceptual import lpips
from atldiff.evaluation.metrics.syncnet import crop_face, face_boxes, lse
from atldiff.evaluation.protocol import (
    CROP,
    FID_STRIDE,
    IDENTITY_FRAMES,
    METRICS,
    MOUTH_MARGIN,
    PER_CLIP,
    SEAM_WINDOW_ORIGIN,
    SEAM_WINDOW_SIDE,
    SYNCNET_FRAMES,
)
from atldiff.landmarks.topology import LIPS, MESH_POINTS, OUTER_EYE_CORNERS, SIXTY_EIGHT, SIXTY_EIGHT_MOUTH
from atldiff.timebase import FPS, SAMPLES_PER_FRAME
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
class ClipFigures:
    """What was measured of one clip.

    values: row to measure to figure, None where it cannot be measured. opening: row to lip opening (T,), in
    outer-eye-corner distances. sights: row to its pictures. notes: what a reader should know of the clip.
    """

    values: dict[str, Values]
    opening: dict[str, NDArray[np.float64]]
    sights: dict[str, Sight]
    notes: list[str]


def measure_clip(
    real: Footage,
    rows: Mapping[str, Footage],
    backbones: Backbones,
    fid: Mapping[str, Fid],
    *,
    paired: bool = True,
) -> ClipFigures:
    """Measure every row's video of one clip against the real one.

    rows: name to video; the real one may be among them. fid: for each row what collects its Inception features. paired:
    whether a row's frame belongs to the real frame of the same time (self-driven); where it does not, only measures
    without a reference, identity and FID are computed.

    Raises:
        DataError: a face of a row cannot be laid over the real one.
    """
    notes: list[str] = []
    real_to_crop = crop_matrix(real)
    views: dict[str, _View] = {}
    for name, row in rows.items():
        if not paired and row is not real:
            views[name] = _View(row, crop_matrix(row))
            continue
        matrix, fitted = match(row, real, real_to_crop)
        views[name] = _View(row, matrix)
        if fitted:
            notes.append(f"{name}: {row.size[1]}x{row.size[0]} is another crop; laid over the real face by landmarks")
        if abs(len(row) - len(real)) > 1:
            notes.append(f"{name}: {len(row)} frames, the real clip has {len(real)}; the common ones are compared")
    values = {name: dict.fromkeys((metric.name for metric in PER_CLIP), None) for name in rows}
    for name, view in views.items():
        values[name] |= _track_values(view)
        if paired:
            values[name] |= _paired_track_values(view, real, real_to_crop)
        if backbones.syncnet is not None:
            values[name] |= _syncnet_values(view.footage, backbones.syncnet)
    pictures = _watch_pictures(_View(real, real_to_crop), views, backbones, fid, paired=paired)
    for name, found in pictures.items():
        values[name] |= found
    for name, row in values.items():
        for measure, value in row.items():
            if value is not None and math.isnan(value):  # one degenerate clip must not cost the whole report
                row[measure] = None
                notes.append(f"{name}: {measure} has no value on this clip")
    openings = {name: row.opening for name, row in rows.items()}
    sights = {name: Sight(v.footage.path, v.to_crop, v.footage.samples is not None) for name, v in views.items()}
    return ClipFigures(values, openings, sights, notes)


@dataclass(frozen=True, slots=True)
class _View:
    """A video and the map from its pixels to the crop."""

    footage: Footage
    to_crop: NDArray[np.float64]

    def points(self, subset: NDArray[np.int_]) -> NDArray[np.float64]:
        """Return a subset of the landmarks in crop pixels, (T, K, 2), with lost frames filled."""
        return apply(self.to_crop, self.footage.filled[:, subset, :2].astype(np.float64))


def _track_values(view: _View) -> Values:
    footage = view.footage
    found = footage.found
    values: Values = {
        "face_found": 100 * float(found.mean()),
        "blink_rate": motion.blink_rate(motion.eye_opening(footage.shapes), FPS),
        "head_range_deg": motion.head_motion_range(footage.rotation),
        "jitter": landmarks.jitter(view.points(SIXTY_EIGHT)),
        "av_duration_error_ms": duration_error_ms(footage),
        "fps": footage.fps,
    }
    if footage.samples is not None:
        correlation, lag = sync.audio_lip_sync(footage.opening, footage.samples)
        silent = sync.silent_frames(footage.samples, len(footage))
        values["audio_lip_correlation"], values["audio_lip_lag_ms"] = correlation, lag
        values["silent_mouth"] = motion.silent_mouth_motion(footage.opening, silent)
    return values


def _paired_track_values(view: _View, real: Footage, real_to_crop: NDArray[np.float64]) -> Values:
    row = view.footage
    frames = min(len(row), len(real))
    both = row.found[:frames] & real.found[:frames]
    if not both.any():
        return {}
    real_view = _View(real, real_to_crop)
    generated, wanted = view.points(SIXTY_EIGHT)[:frames][both], real_view.points(SIXTY_EIGHT)[:frames][both]
    eyes = real_view.points(OUTER_EYE_CORNERS)
    unit_px = float(np.median(np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=-1)))  # of canonical space, in the crop
    fronted = unit_px * row.shapes[:frames][both][:, SIXTY_EIGHT, :2]
    fronted_real = unit_px * real.shapes[:frames][both][:, SIXTY_EIGHT, :2]
    mouth = SIXTY_EIGHT_MOUTH
    values: Values = {
        "lmd": landmarks.landmark_distance(generated, wanted),
        "mouth_lmd": landmarks.landmark_distance(generated[:, mouth], wanted[:, mouth]),
        "mouth_lmd_aligned": landmarks.landmark_distance(fronted[:, mouth], fronted_real[:, mouth]),
        "lvd": landmarks.landmark_velocity_distance(fronted, fronted_real),
    }
    agreement = sync.lip_sync(row.opening[:frames], real.opening[:frames])
    if agreement is not None:
        values["lip_correlation"] = agreement.correlation
        values["lip_lag_ms"] = agreement.lag_ms
        values["lip_amplitude"] = agreement.amplitude
    return values


def _syncnet_values(row: Footage, network: SyncNet) -> Values:
    if row.samples is None:
        return {}
    boxes = face_boxes(row.filled)
    frames = min(len(row), SYNCNET_FRAMES)
    faces = np.stack([crop_face(f, b) for f, b, _ in zip(row.frames(), boxes, range(frames), strict=False)])
    try:
        score = lse(faces, row.samples[: frames * SAMPLES_PER_FRAME], network)
    except ValueError:  # shorter than SyncNet's search for the offset
        return {}
    return {"lse_d": score.lse_d, "lse_c": score.lse_c, "lse_offset_ms": score.offset_ms}


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


def _watch_pictures(
    real: _View, rows: Mapping[str, _View], backbones: Backbones, fid: Mapping[str, Fid], *, paired: bool
) -> dict[str, Values]:
    """Decode all videos side by side and return the figures that need pixels."""
    sums = {name: _Sums() for name in rows}
    truth = _Sums()
    mouths = _mouth_boxes(real)
    borders = {name: _borders(view) for name, view in rows.items()} if paired else {}
    real_borders = _borders(real)
    chosen = {name: _spread(view.footage) for name, view in rows.items()}
    chosen_real = _spread(real.footage)
    batch: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in rows}
    real_batch: list[NDArray[np.uint8]] = []
    start = 0

    def measure_batch() -> None:
        nonlocal start
        if paired and real_batch:
            wanted = np.stack(real_batch)
            _add_steps(truth, wanted, real_borders, start)
            for name, frames in batch.items():
                if frames:
                    same = rows[name].footage is real.footage
                    shown = wanted if same else np.stack(frames)
                    _add(
                        sums[name],
                        shown,
                        wanted if same else wanted[: len(shown)],
                        truth.last,
                        mouths[start:],
                        backbones,
                    )
                    _add_steps(sums[name], shown, borders[name], start)
            truth.last = wanted[-1]
        if backbones.inception is not None:
            _add_features(real_batch, batch, start, backbones.inception, fid)
        start += max(len(real_batch), *(len(frames) for frames in batch.values()))
        real_batch.clear()
        for frames in batch.values():
            frames.clear()

    everything = [real.footage.frames(), *(view.footage.frames() for view in rows.values())]
    for index, (real_frame, *frames) in enumerate(zip_longest(*everything)):
        if real_frame is None and paired:
            break
        if real_frame is not None:
            real_batch.append(extract(real_frame, real.to_crop, CROP))
            if backbones.embedder is not None and index in chosen_real:
                truth.embeddings.append(backbones.embedder.embed(real_frame, real.footage.points[index]))
        for (name, view), frame in zip(rows.items(), frames, strict=True):
            if frame is None:
                continue
            same = view.footage is real.footage and real_frame is not None
            batch[name].append(real_batch[-1] if same else extract(frame, view.to_crop, CROP))
            if backbones.embedder is not None and index in chosen[name]:
                sums[name].embeddings.append(backbones.embedder.embed(frame, view.footage.points[index]))
        if (index + 1) % BATCH_FRAMES == 0:
            measure_batch()
    if real_batch or any(batch.values()):
        measure_batch()
    return {name: _pixel_values(row, truth) for name, row in sums.items()}


def _add(
    sums: _Sums,
    shown: NDArray[np.uint8],
    wanted: NDArray[np.uint8],
    real_before: NDArray[np.uint8] | None,
    mouths: NDArray[np.int_],
    backbones: Backbones,
) -> None:
    sums.frames += len(shown)
    sums.squares += float(image.mean_squared_error(shown, wanted).sum())
    sums.ssim += float(image.ssim(shown, wanted).sum())
    for frame, real, (left, top, right, bottom) in zip(shown, wanted, mouths, strict=False):
        difference = frame[top:bottom, left:right].astype(np.float32) - real[top:bottom, left:right]
        sums.mouth_squares += float(np.square(difference).sum(dtype=np.float64))
        sums.mouth_values += difference.size
    if backbones.lpips is not None and shown is wanted:
        sums.lpips = sums.lpips or 0.0  # the distance of a picture from itself: no need to ask the network
    elif backbones.lpips is not None:
        pair = [torch.from_numpy(v).permute(0, 3, 1, 2).float() / 127.5 - 1 for v in (shown, wanted)]
        sums.lpips = (sums.lpips or 0.0) + float(lpips(pair[0], pair[1], backbones.lpips).sum())
    if sums.last is not None and real_before is not None:
        shown, wanted = np.concatenate([sums.last[None], shown]), np.concatenate([real_before[None], wanted])
    total, count = image.flicker_sums(shown, wanted)
    sums.flicker += total
    sums.still += count
    sums.last = shown[-1]


def _add_steps(sums: _Sums, frames: NDArray[np.uint8], borders: Mapping[str, NDArray[np.float64]], start: int) -> None:
    for name, border in borders.items():
        part = border[start : start + len(frames)]
        sums.steps.setdefault(name, []).append(image.seam_steps(frames[: len(part)], part))


def _add_features(
    real_batch: list[NDArray[np.uint8]],
    batch: Mapping[str, list[NDArray[np.uint8]]],
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
        of_row = features(frames)
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


def _mouth_boxes(real: _View) -> NDArray[np.int_]:
    """Return left, top, right, bottom of each frame's mouth in crop pixels, (T, 4)."""
    lips = real.points(LIPS)
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = MOUTH_MARGIN * (high - low)[:, :1]
    corners = np.concatenate([np.floor(low - margin), np.ceil(high + margin)], axis=1)
    return np.clip(corners, 0, CROP).astype(int)


def _borders(view: _View) -> dict[str, NDArray[np.float64]]:
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
    seen = np.flatnonzero(footage.found)
    return frozenset(seen[np.linspace(0, len(seen) - 1, min(IDENTITY_FRAMES, len(seen))).astype(int)].tolist())


def needs(backbones: Backbones) -> dict[str, bool]:
    """Return for each measure that needs a network whether it is there."""
    there = {
        "lpips": backbones.lpips is not None,
        "fid": backbones.inception is not None,
        **dict.fromkeys(("lse_d", "lse_c", "lse_offset_ms"), backbones.syncnet is not None),
        "identity": backbones.embedder is not None,
    }
    return {metric.name: there[metric.name] for metric in METRICS if metric.name in there}
