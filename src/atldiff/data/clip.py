"""One raw video into one prepared clip: tracked landmarks, stabilised windows, log-mel columns, and a verdict."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import log_mel
from atldiff.audio.load import load_audio, load_soundtrack
from atldiff.audio.voice import voice_of
from atldiff.data.parts import Part
from atldiff.data.sources.raw import source_name
from atldiff.data.sync import speech_level, sync_peak
from atldiff.errors import AtlDiffError
from atldiff.files import replacing, write_text
from atldiff.landmarks.gate import SpeechGate
from atldiff.landmarks.geometry import euler_degrees, to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS, OUTER_EYE_CORNERS, lip_opening
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, SAMPLES_PER_FRAME
from atldiff.video.detail import sharpness
from atldiff.video.read import probe, read_frames_at
from atldiff.video.window import (
    STORED_FACE_SIDE,
    STORED_MOUTH,
    STORED_WINDOW,
    WindowGeometry,
    extract,
    face_window,
    fit_still_window,
    fit_window,
)

if TYPE_CHECKING:
    from atldiff.landmarks.detect import FaceTracker

logger = logging.getLogger(__name__)

MIN_FRAMES = 16
MIN_EYE_DISTANCE_PX = 20.0
MAX_MEDIAN_YAW_DEG = 50.0
THUMBNAIL = 64
FACE_JPEG_QUALITY = 95
RECORD_FORMAT = 4
"""Raised when prepared clips hold something new: older ones are then prepared again."""
OTHER_FACE_SHARE = 0.4
"""Width of a second face, as a share of the first one's, from which a clip shows several people."""
LOOKS, LOOKS_AGREEING = 3, 2
"""Frames that are looked at for a second face, and how many must show one: a passer-by is none."""
WHOLE_SHARE, WHOLE_MARGIN_S = 0.8, 0.5
"""A video is truncated when less than this share of its stated length decodes and more than this is missing."""
SMOOTH_FRAMES = 1.5
_LIP_CORNERS = np.array([61, 291])
_CUT_EYE_DISTANCES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """What the manifest says of one raw video: usable (no `reason`), usable with a `note`, or rejected."""

    path: str
    """The video, relative to the prepared folder's source."""
    name: str
    """Stem of the prepared files."""
    reason: str = ""
    """Why the video cannot be used; empty when it can."""
    note: str = ""
    """What a usable clip lacks; empty when nothing."""
    frames: int = 0
    start: int = 0
    """The video's frame, at 25 fps, that the clip starts with."""
    eye_distance_px: float = 0.0
    mouth_px: float = 0.0
    """Median distance of the lip corners in the video's own pixels: a mouth of fewer than 88 is enlarged."""
    sharpness: float = 0.0
    """Median share of fine detail around the mouth, `sharpness` of its window: 0.17 where it is enlarged, 0.2 to 0.3
    where it is sharp."""
    yaw_deg: float = 0.0
    sync: float = 0.0
    """Peak correlation of speech-band level and lip opening over lags of up to 8 frames; 0 without audio."""
    lag_frames: int = 0
    """Where that peak lies; positive when the mouth moves later than the sound."""
    speaker: str = ""
    """The person by the corpus's own naming; empty where it does not say."""
    emotion: str = ""
    """One of `types.EMOTIONS`; empty where the corpus does not say."""
    intensity: str = ""
    """How strongly it is shown, in the corpus's own words; empty where it does not say."""
    corpus: str = ""
    """Name of the data source with a layout of its own that the video was listed by; empty for any other folder."""
    part_start: int = 0
    part_stop: int = 0
    """The frames of the video, at 25 fps, among which the clip lies; 0 and 0 for all of them."""
    format: int = 1
    """The `RECORD_FORMAT` it was written with."""

    @property
    def source(self) -> str:
        """The corpus: by name, or the first folder of the path; empty for videos that lie in no sub-folder."""
        return source_name(self.path, self.corpus)

    @property
    def part(self) -> Part | None:
        """The part of the video that the clip is of; None for a whole video."""
        return Part(self.part_start, self.part_stop) if self.part_stop else None

    def save(self, path: Path) -> None:
        """Write the record as JSON."""
        write_text(path, json.dumps(asdict(self)), tidy=False)


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


def prepare_clip(
    path: Path,
    relative: str,
    name: str,
    out: Path,
    tracker: FaceTracker,
    *,
    audio: Path | None = None,
    speaker: str = "",
    emotion: str = "",
    intensity: str = "",
    corpus: str = "",
    part: Part | None = None,
) -> ClipRecord:
    """Prepare one video: write `NAME.safetensors` (when usable) and `NAME.json` into `out`; return the record.

    audio: a recording to hear where the video has no sound of its own. speaker, emotion, intensity, corpus: what the
    record says of the clip. part: the frames of the video to use, instead of all.

    Tensors: windows (T, 96, 96, 3) uint8, matrix (T, 2, 3) picture to window, points (T, 478, 3) picture pixels;
    faces (bytes,) uint8, one JPEG a frame of the whole-face window, one after the other, face_sizes (T,) int32 their
    lengths, face_matrix (2, 3) picture to that window; mouths (bytes,) uint8 and mouth_sizes (T,) int32, the same of
    the window around the mouth, which lies at `STORED_MOUTH` of the template; mel (4 T, 80) and levels
    (4 T, 2) float16 and samples (640 T,) int16 (absent without audio and where nobody speaks); thumbnail (64, 64, 3)
    uint8.
    """
    blank = ClipRecord(
        path=relative,
        name=name,
        speaker=speaker,
        emotion=emotion,
        intensity=intensity,
        corpus=corpus,
        part_start=part.start if part else 0,
        part_stop=part.stop if part else 0,
        format=RECORD_FORMAT,
    )
    tensors = None
    try:
        record, tensors = _measure(path, audio, blank, tracker)
    except AtlDiffError as error:
        # Where the corpus lies is no part of the verdict: the manifest is the same on every machine.
        record = replace(blank, reason=str(error).replace(str(path), relative))
    except Exception as error:  # one bad file must not stop a corpus; the manifest carries the reason
        logger.exception("clip %s", relative)
        record = replace(blank, reason=f"{type(error).__name__}: {error}".replace(str(path), relative))
    if tensors is not None:
        from safetensors.numpy import save_file

        with replacing(out / f"{name}.safetensors", tidy=False) as partial:  # a corpus's folder is long to list
            save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, partial)
    record.save(out / f"{name}.json")
    return record


def _measure(
    path: Path, audio: Path | None, blank: ClipRecord, tracker: FaceTracker
) -> tuple[ClipRecord, dict[str, np.ndarray] | None]:
    def rejected(reason: str, yaw: float = 0.0) -> tuple[ClipRecord, None]:
        return replace(blank, reason=reason, yaw_deg=yaw), None

    tracker.reset()
    first, end = blank.part or (0, None)
    tracked = [tracker.track(frame) for frame in read_frames_at(path, FPS, start=first, stop=end)]
    stated = probe(path)
    stated_s = stated.duration_s if end is None else Fraction(end - first, FPS)
    decoded_s = len(tracked) / FPS
    if stated_s and decoded_s < min(WHOLE_SHARE * stated_s, stated_s - WHOLE_MARGIN_S):
        return rejected(f"truncated: {decoded_s:.2f} s of {float(stated_s):.2f} s decode, expected all")
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
        return rejected(f"profile: median yaw {yaw:.0f} degrees, expected within {MAX_MEDIAN_YAW_DEG:.0f}", yaw)

    matrix = fit_window(points, STORED_WINDOW, SMOOTH_FRAMES)
    windows = np.empty((frames, STORED_WINDOW.side, STORED_WINDOW.side, 3), np.uint8)
    thumbnail = np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    still = fit_still_window(points, face_window(STORED_FACE_SIDE))
    mouth_matrix = fit_window(points, STORED_MOUTH, SMOOTH_FRAMES)
    faces, mouths, details = [], [], []
    looks, crowded = [frames * (look + 1) // (LOOKS + 1) for look in range(LOOKS)], 0
    tracker.reset()
    for index, frame in enumerate(read_frames_at(path, FPS, start=first, stop=end), first):
        at = index - first - start
        if at in looks:
            crowded += shows_other_face(frame, points[at], tracker)
            if crowded == LOOKS_AGREEING:
                return rejected(f"several faces: 2 found at frame {index}, expected one: crop the video to one person")
        if 0 <= at < frames:
            windows[at] = extract(frame, matrix[at], STORED_WINDOW.side)
            faces.append(_jpeg(extract(frame, still, STORED_FACE_SIDE)))
            mouth = extract(frame, mouth_matrix[at], STORED_MOUTH.size, sharp=True)
            mouths.append(_jpeg(mouth))
            details.append(sharpness(mouth))
        if at == frames // 2:
            thumbnail = extract(frame, thumbnail_matrix(points[at]), THUMBNAIL)
    tensors = {
        "windows": windows,
        "matrix": matrix.astype(np.float32),
        "points": points,
        "thumbnail": thumbnail,
        "faces": np.concatenate(faces),
        "face_sizes": np.array([len(face) for face in faces], np.int32),
        "face_matrix": still.astype(np.float32),
        "mouths": np.concatenate(mouths),
        "mouth_sizes": np.array([len(mouth) for mouth in mouths], np.int32),
    }

    part = slice(start * COLUMNS_PER_FRAME, stop * COLUMNS_PER_FRAME)
    longest_s = (
        Fraction(len(tracked), FPS) if end is None else max(stated.duration_s or Fraction(0), Fraction(end, FPS))
    )
    heard, note = _listen(path, stated.start_s, longest_s, audio, first, len(tracked), part)
    sync, lag = 0.0, 0
    if heard is not None:
        samples, mel, levels = heard
        tensors["mel"] = mel[part].astype(np.float16)
        tensors["levels"] = levels[part].astype(np.float16)
        samples = samples[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        tensors["samples"] = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
        sync, lag = sync_peak(speech_level(mel[part]), lip_opening(shape))
    record = replace(
        blank,
        note=note,
        frames=frames,
        start=first + start,
        eye_distance_px=round(eye, 1),
        mouth_px=round(
            float(np.median(np.linalg.norm(np.diff(points[:, _LIP_CORNERS, :2], axis=1)[:, 0], axis=-1))), 1
        ),
        sharpness=round(float(np.median(details)), 3),
        yaw_deg=round(yaw, 1),
        sync=round(sync, 3),
        lag_frames=lag,
    )
    return record, tensors


def shows_other_face(frame: np.ndarray, points: np.ndarray, tracker: FaceTracker) -> bool:
    """Return whether a frame (H, W, 3) shows a sizeable face besides the one at `points` (478, 3).

    The known face is painted over and the frame is looked at again: a few milliseconds.
    """
    low, high = (edge(points[:MESH_POINTS, :2], axis=0) for edge in (np.min, np.max))
    margin = 0.15 * (high - low)
    left, top = np.maximum(low - margin, 0).astype(int)
    right, bottom = np.maximum(np.ceil(high + margin), 0).astype(int)
    covered = frame.copy()
    covered[top:bottom, left:right] = 128
    other = tracker.track(covered)
    return other is not None and bool(np.ptp(other[:MESH_POINTS, 0]) >= OTHER_FACE_SHARE * (high - low)[0])


def _listen(
    path: Path, start_s: Fraction, longest_s: Fraction, audio: Path | None, first: int, frames: int, part: slice
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray] | None, str]:
    """Return the samples (640 F,), log-mel columns and levels of what is heard in a video, and no note.

    start_s, longest_s: the first frame's time in the video, and how long it is listened to. audio: a recording to hear
    where the video has no sound; it starts with the first frame. first: the frame from which on they are heard, for
    F = `frames`. part: the clip's columns. Where nothing is heard, None and the clip's note.
    """
    note = "silent: no sound that can be read; for the renderer only"
    for own in (True, False):
        try:
            if own:
                samples = _soundtrack(path, path.stat().st_mtime_ns, start_s, longest_s)
            else:
                samples = np.zeros(0, np.float32) if audio is None else load_audio(audio).samples
        except AtlDiffError:
            continue
        samples = samples[first * SAMPLES_PER_FRAME :]
        if not len(samples):
            continue
        wanted = frames * SAMPLES_PER_FRAME
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
        mel, levels = log_mel(samples)
        spoken = slice(part.start // COLUMNS_PER_FRAME, part.stop // COLUMNS_PER_FRAME)
        if is_heard(voice_of(samples)[spoken], levels[part]):
            return (samples, mel, levels), ""
        note = "silent: nobody speaks in its sound; for the renderer only"
    return None, note


@lru_cache(maxsize=1)
def _soundtrack(path: Path, changed_ns: int, start_s: Fraction, longest_s: Fraction) -> np.ndarray:
    """Return a video's whole sound, the last one's from memory (4 MB a minute): it has as many readers as parts."""
    samples = load_soundtrack(path, start_s, longest_s=longest_s)
    samples.flags.writeable = False
    return samples


def is_heard(voice: np.ndarray, levels: np.ndarray) -> bool:
    """Return whether somebody speaks in sound that opens the silence gate.

    voice: (T,) as `voice_of` gives it. levels: (4 T, 2), as `features.log_mel` does.
    """
    gate = SpeechGate()
    gate.push(voice, levels[:, 0])
    gate.flush(len(voice))
    return gate.heard


def _jpeg(image: np.ndarray) -> np.ndarray:
    """Return a picture (S, S, 3) uint8 RGB as the bytes (n,) uint8 of a JPEG without chroma subsampling."""
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, FACE_JPEG_QUALITY]
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", image[..., ::-1], quality + sampling)[1].ravel()
