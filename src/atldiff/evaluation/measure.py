"""One clip under the ruler: the real video and every row's version of it become a figure for each measure.

Frames are decoded once for all rows and dropped batch by batch: of a long clip only the landmarks stay,
about 50 MB a minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.evaluation.footage import (
    Footage,
    Sight,
    crop_matrix,
    duration_error_ms,
    hold_last,
    length_difference_ms,
    match,
    missing_frames,
)
from atldiff.evaluation.metrics import landmarks, motion, sync
from atldiff.evaluation.metrics.syncnet import crop_face, face_boxes, lse
from atldiff.evaluation.mouths import mouth_values
from atldiff.evaluation.pictures import Values, View, watch_pictures
from atldiff.evaluation.protocol import PER_CLIP, SYNCNET_FRAMES
from atldiff.landmarks.topology import OUTER_EYE_CORNERS, SIXTY_EIGHT, SIXTY_EIGHT_MOUTH
from atldiff.timebase import FPS, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from atldiff.backbones.syncnet import SyncNet
    from atldiff.evaluation.metrics.fid import Fid
    from atldiff.evaluation.pictures import Backbones


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
    views: dict[str, View] = {}
    for name, row in rows.items():
        if not paired and row is not real:
            views[name] = View(row, crop_matrix(row))
            continue
        matrix, fitted = match(row, real, real_to_crop)
        views[name] = View(row, matrix)
        if fitted:
            notes.append(f"{name}: {row.size[1]}x{row.size[0]} is another crop; laid over the real face by landmarks")
        if missing := missing_frames(row, real):
            notes.append(f"{name}: {_length_note(missing, len(real))}")
    values = {name: dict.fromkeys((metric.name for metric in PER_CLIP), None) for name in rows}
    # A video that ended early is seen as a player leaves it wherever that costs, and as it is wherever that would help.
    seen = {name: View(hold_last(view.footage, real), view.to_crop) if paired else view for name, view in views.items()}
    for name, view in seen.items():
        values[name] |= _track_values(views[name]) | _sound_values(view.footage)
        if paired:
            values[name] |= _paired_track_values(view, real, real_to_crop) | _length_values(rows[name], real)
        if backbones.syncnet is not None:
            values[name] |= _syncnet_values(view.footage, backbones.syncnet)
    pictures = watch_pictures(View(real, real_to_crop), seen, backbones, fid, paired=paired)
    mouths = mouth_values(real, {name: view.footage for name, view in seen.items()}, backbones.lpips, paired=paired)
    for name in rows:
        values[name] |= pictures[name] | mouths[name]
    for name, row in values.items():
        for measure, value in row.items():
            if value is not None and math.isnan(value):  # one degenerate clip must not cost the whole report
                row[measure] = None
                notes.append(f"{name}: {measure} has no value on this clip")
    openings = {name: row.opening for name, row in rows.items()}
    sights = {name: Sight(v.footage.path, v.to_crop, v.footage.samples is not None) for name, v in views.items()}
    return ClipFigures(values, openings, sights, notes)


def _length_note(missing: int, frames: int) -> str:
    if missing > 0:
        return f"ends {missing} frames before the real clip's {frames}; its last one stands for them"
    return f"goes on for {-missing} frames after the real clip's {frames}; they are not compared"


def _length_values(row: Footage, real: Footage) -> Values:
    missing = missing_frames(row, real)
    return {
        "missing_frames": 100 * max(0, missing) / len(real),
        "surplus_frames": 100 * max(0, -missing) / len(real),
        "length_difference_ms": length_difference_ms(row, real),
    }


def _sound_values(footage: Footage) -> Values:
    if footage.samples is None:
        return {}
    correlation, lag = sync.audio_lip_sync(footage.opening, footage.samples)
    return {"audio_lip_correlation": correlation, "audio_lip_lag_ms": lag}


def _track_values(view: View) -> Values:
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
        silent = sync.silent_frames(footage.samples, len(footage))
        values["silent_mouth"] = motion.silent_mouth_motion(footage.opening, silent)
    return values


def _paired_track_values(view: View, real: Footage, real_to_crop: NDArray[np.float64]) -> Values:
    row = view.footage
    frames = min(len(row), len(real))
    both = row.found[:frames] & real.found[:frames]
    if not both.any():
        return {}
    real_view = View(real, real_to_crop)
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
