"""How a face moves of its own: a style by name, as somebody in a video moves, or as learned from other clips."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from atldiff.landmarks.blink import find_blinks
from atldiff.landmarks.motion_codes import amplitudes, face_codes
from atldiff.landmarks.motion_model import DEFAULT_STYLE, Style, Weights, load_motion, named_style, own_motion
from atldiff.methods.driving import check_video, track_video
from atldiff.timebase import FPS
from atldiff.types import MOTION_STYLE_EXPECTED, MOTION_STYLES, LandmarkTrack, is_track

LEAST_FRAMES = 50
"""A shorter video says little of how somebody moves."""
WINDOW_FRAMES = 125
"""Liveliness is the median over windows of so long, as of the clips that the model was learned from."""


def check_style(style: str) -> None:
    """Raise unless a style is known or its file is there, which takes no time.

    Raises:
        ValueError: neither. MediaError: a file that is no video. CheckpointError: a folder without motion weights.
    """
    if style in MOTION_STYLES:
        return
    path = Path(style)
    if not path.exists():
        raise ValueError(f"motion_style: got {style!r}, expected {MOTION_STYLE_EXPECTED}")
    if path.is_dir():
        load_motion(path)
    elif not is_track(path):
        check_video(path)


def open_motion(style: str, folder: Path | None = None) -> tuple[Weights, Style]:
    """Return weights of the motion model and a style; a video is tracked, once for all calls.

    folder: of the weights, unless the style is a folder itself; None takes the package's.

    Raises:
        ValueError: no such style, a file that is no landmark track, or less than two seconds of a face.
        MediaError, FaceNotFound: as `track_video`. CheckpointError: a folder without motion weights.
    """
    check_style(style)
    path = Path(style)
    if style in MOTION_STYLES:
        return own_motion(style, folder)
    if path.is_dir():
        weights = load_motion(path)
        return weights, named_style(weights, DEFAULT_STYLE)
    weights = load_motion() if folder is None else load_motion(folder)
    return weights, _style_of_file(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _style_of_file(path: Path, _modified: int) -> Style:
    track = LandmarkTrack.load(path) if is_track(path) else track_video(path)
    return style_of(track)


def style_of(track: LandmarkTrack) -> Style:
    """Return how lively a tracked face is.

    Raises:
        ValueError: less than two seconds of it.
    """
    if len(track) < LEAST_FRAMES * float(track.fps) / FPS:
        got = f"{len(track) / float(track.fps):.1f} s of a face"
        raise ValueError(f"motion_style: got {got}, expected at least {LEAST_FRAMES // FPS} s to see how it moves")
    from atldiff.landmarks.edit import at_fps

    track = at_fps(track, type(track.fps)(FPS))
    shapes = (track.neutral + track.displacements).astype(np.float64)
    face = face_codes(shapes, track.rotation, track.scale, track.translation, smooth=False)
    windows = [face.codes[start : start + WINDOW_FRAMES] for start in range(0, len(track), WINDOW_FRAMES)]
    measured = [amplitudes(window) for window in windows if len(window) >= LEAST_FRAMES]
    head_deg, brows = np.median(measured, axis=0)
    blink_hz = FPS * len(find_blinks(face.opening)) / len(track)
    return Style(float(head_deg), float(brows), min(2.0, float(blink_hz)))
