"""One raw video into one prepared clip: tracked landmarks, stabilised windows, log-mel columns, and a verdict."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import log_mel
from atldiff.audio.load import load_audio
from atldiff.data.sync import speech_level, sync_peak
from atldiff.errors import AtlDiffError
from atldiff.files import write_text
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import OUTER_EYE_CORNERS, lip_opening
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from atldiff.video.read import probe, read_frames_at
from atldiff.video.window import STORED_WINDOW, WindowGeometry, extract, fit_window

if TYPE_CHECKING:
    from fractions import Fraction

    from atldiff.landmarks.detect import FaceTracker

logger = logging.getLogger(__name__)

MIN_FRAMES = 16
MIN_EYE_DISTANCE_PX = 20.0
MAX_MEDIAN_YAW_DEG = 50.0
THUMBNAIL = 64
_SMOOTH_FRAMES = 1.5
_CUT_EYE_DISTANCES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """What the manifest says of one raw video; `reason` is empty when the clip is usable."""

    path: str
    """The video, relative to the prepared folder's source."""
    name: str
    """Stem of the prepared files."""
    reason: str = ""
    frames: int = 0
    start: int = 0
    """The video's frame, at 25 fps, that the clip starts with."""
    eye_distance_px: float = 0.0
    yaw_deg: float = 0.0
    sync: float = 0.0
    """Peak correlation of speech-band level and lip opening over lags of up to 8 frames; 0 without audio."""
    lag_frames: int = 0
    """Where that peak lies; positive when the mouth moves later than the sound."""

    @property
    def source(self) -> str:
        """First folder of the video's path: the corpus; empty for videos that lie in no sub-folder."""
        return self.path.partition("/")[0] if "/" in self.path else ""

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_text(path, json.dumps(asdict(self)))


def longest_run(points: list[np.ndarray | None]) -> tuple[int, int]:
    """Return start and stop of the longest stretch without a lost face or a cut."""
    best, start = (0, 0), 0
    for index in range(len(points) + 1):
        here = points[index] if index < len(points) else None
        before = points[index - 1] if index > start else None
        cut = False
        if here is not None and before is not None:
            eye = np.linalg.norm(np.diff(here[OUTER_EYE_CORNERS, :2], axis=0))
            cut = bool(np.median(np.linalg.norm(here[:, :2] - before[:, :2], axis=1)) > _CUT_EYE_DISTANCES * eye)
        if here is None or cut:
            if index - start > best[1] - best[0]:
                best = (start, index)
            start = index if cut else index + 1
    return best


def thumbnail_matrix(points: np.ndarray) -> np.ndarray:
    """Return the (2, 3) map of a frame's picture to its whole-face thumbnail; points: (478, 2 or 3) pixels."""
    window = fit_window(points[None], WindowGeometry(side=128, origin=(0, 0)))[0]
    ratio = THUMBNAIL / 200  # the whole head is about 200 template pixels high
    window = window * ratio
    window[:, 2] += np.array([32 - 64 * ratio, 28 - 10 * ratio])
    return window


def prepare_clip(path: Path, relative: str, name: str, out: Path, tracker: FaceTracker) -> ClipRecord:
    """Prepare one video: write `NAME.safetensors` (when usable) and `NAME.json` into `out`; return the record.

    Tensors: windows (T, 96, 96, 3) uint8, matrix (T, 2, 3) picture to window, points (T, 478, 3) picture pixels,
    mel (4 T, 80) and levels (4 T, 2) float16 (absent without audio), thumbnail (64, 64, 3) uint8.
    """
    try:
        record, tensors = _measure(path, relative, name, tracker)
    except AtlDiffError as error:
        record, tensors = ClipRecord(path=relative, name=name, reason=str(error)), None
    except Exception as error:  # one bad file must not stop a corpus; the manifest carries the reason
        logger.exception("clip %s", relative)
        record, tensors = ClipRecord(path=relative, name=name, reason=f"{type(error).__name__}: {error}"), None
    if tensors is not None:
        from safetensors.numpy import save_file

        temporary = out / f".{name}.safetensors.partial"
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, temporary)
        temporary.replace(out / f"{name}.safetensors")
    record.save(out / f"{name}.json")
    return record


def _measure(path: Path, relative: str, name: str, tracker: FaceTracker) -> tuple[ClipRecord, dict | None]:
    def rejected(reason: str, **known: float) -> tuple[ClipRecord, None]:
        return ClipRecord(path=relative, name=name, reason=reason, **known), None  # pyright: ignore[reportArgumentType]

    tracker.reset()
    tracked = [tracker.track(frame) for frame in read_frames_at(path, FPS)]
    start, stop = longest_run(tracked)
    if not any(points is not None for points in tracked):
        return rejected("no face found in any frame")
    if stop - start < MIN_FRAMES:
        return rejected(f"too short: {stop - start} frames with a face and no cut, expected at least {MIN_FRAMES}")
    points = np.stack([p for p in tracked[start:stop] if p is not None])  # (T, 478, 3)
    frames = len(points)
    eye = float(np.median(np.linalg.norm(np.diff(points[:, OUTER_EYE_CORNERS, :2], axis=1)[:, 0], axis=-1)))
    if eye < MIN_EYE_DISTANCE_PX:
        return rejected(f"face too small: eye corners {eye:.0f} px apart, expected {MIN_EYE_DISTANCE_PX:.0f}")
    shape, rotation, _, _ = to_canonical(points, mean_shape())
    yaw = float(np.median(euler_degrees(rotation)[:, 0]))
    if abs(yaw) > MAX_MEDIAN_YAW_DEG:
        return rejected(f"profile: median yaw {yaw:.0f} degrees, expected within {MAX_MEDIAN_YAW_DEG:.0f}", yaw_deg=yaw)

    matrix = fit_window(points, STORED_WINDOW, _SMOOTH_FRAMES)
    windows = np.empty((frames, STORED_WINDOW.side, STORED_WINDOW.side, 3), np.uint8)
    thumbnail = np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    for index, frame in enumerate(read_frames_at(path, FPS)):
        at = index - start
        if 0 <= at < frames:
            windows[at] = extract(frame, matrix[at], STORED_WINDOW.side)
        if at == frames // 2:
            thumbnail = extract(frame, thumbnail_matrix(points[at]), THUMBNAIL)
    tensors = {
        "windows": windows,
        "matrix": matrix.astype(np.float32),
        "points": points,
        "thumbnail": thumbnail,
    }

    sync, lag = 0.0, 0
    try:
        samples = from_first_frame(load_audio(path).samples, probe(path).audio_offset_s)
    except AtlDiffError:
        samples = np.zeros(0, np.float32)
    if len(samples):
        wanted = len(tracked) * SAMPLES_PER_FRAME
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
        mel, levels = log_mel(samples)
        part = slice(start * COLUMNS_PER_FRAME, stop * COLUMNS_PER_FRAME)
        tensors["mel"] = mel[part].astype(np.float16)
        tensors["levels"] = levels[part].astype(np.float16)
        sync, lag = sync_peak(speech_level(mel[part]), lip_opening(shape))
    record = ClipRecord(
        path=relative,
        name=name,
        frames=frames,
        start=start,
        eye_distance_px=round(eye, 1),
        yaw_deg=round(yaw, 1),
        sync=round(sync, 3),
        lag_frames=lag,
    )
    return record, tensors


def from_first_frame(samples: np.ndarray, offset_s: Fraction) -> np.ndarray:
    """Return samples that start with the first frame: sound that starts `offset_s` later is preceded by silence."""
    shift = round(offset_s * SAMPLE_RATE)
    return np.pad(samples, (shift, 0)) if shift >= 0 else samples[-shift:]
