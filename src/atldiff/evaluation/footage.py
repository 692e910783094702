"""A video as the ruler sees it: its landmarks and sound at 25 fps, its frames on demand, the crop it is measured in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from atldiff.audio.load import load_soundtrack
from atldiff.errors import DataError, MediaError
from atldiff.evaluation.protocol import CROP, CROP_REACH, TOLERATED_FRAMES
from atldiff.landmarks.geometry import fill_gaps, to_canonical_in_parts
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import MESH_POINTS, POINTS, lip_opening
from atldiff.timebase import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from atldiff.video.read import probe, read_frames_at
from atldiff.video.window import apply
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from atldiff.data.parts import Part
    from atldiff.landmarks.detect import FaceTracker

MIN_FRAMES = 16
"""Fewest frames with a face; a shorter clip has no time course to speak of."""
SAME_ASPECT = 0.02
"""Sizes whose aspect ratios differ by less than this share show the same picture, only scaled."""
LONGEST_EXCESS_S = 60
"""Seconds by which sound may be longer than the picture; what comes later is not read."""
FITTED_FRAMES = 100
"""Frames, spread over the clip, that a similarity is fitted to."""
CUT_QUALITY = 4
"""Constant rate factor of parts of recordings, which are then the real clips: well below what the eye sees."""


@dataclass(frozen=True)
class Footage:
    """One video, measured once. Times are the frames' at 25 fps, from the first frame on.

    path: the file. size: (height, width) in pixels. points: (T, 478, 3) float32 pixels, NaN where no face was seen.
    samples: (N,) float32 16 kHz mono from the first frame on; None without a sound track. fps: the file's own.
    picture_s, sound_s: the tracks' lengths in seconds, as far as the file states them. held: the frame that is shown
    all the time; None for a video that plays. ended: the frames that the file has, where it ended early and its last
    one is held; None where it has all.
    """

    path: Path
    size: tuple[int, int]
    points: NDArray[np.float32]
    samples: NDArray[np.float32] | None
    fps: float
    picture_s: float | None
    sound_s: float | None
    held: int | None = None
    ended: int | None = None

    def __len__(self) -> int:
        return len(self.points)

    @property
    def own(self) -> int:
        """How many frames are the file's own."""
        return len(self) if self.ended is None else self.ended

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Which frames show a face, (T,)."""
        return np.asarray(np.isfinite(self.points.reshape(len(self), -1)).all(axis=1))

    @cached_property
    def filled(self) -> NDArray[np.float32]:
        """The points with frames without a face interpolated, (T, 478, 3)."""
        if self.found.all():
            return self.points
        return fill_gaps(self.points, self.found)

    @cached_property
    def _canonical(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        return to_canonical_in_parts(self.filled, mean_shape())[:2]

    @property
    def shapes(self) -> NDArray[np.float32]:
        """Pose-free landmarks, (T, 478, 3), in outer-eye-corner distances."""
        return self._canonical[0]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Head rotations, (T, 3, 3)."""
        return self._canonical[1]

    @cached_property
    def opening(self) -> NDArray[np.float64]:
        """Lip opening, (T,), in outer-eye-corner distances."""
        return lip_opening(self.shapes).astype(np.float64)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, (H, W, 3) uint8 RGB."""
        last = None
        for index, frame in enumerate(read_frames_at(self.path, FPS)):
            if self.held is None:
                yield frame
                last = frame
            elif index == self.held:
                for _ in range(len(self)):
                    yield frame
                return
        if last is not None:
            for _ in range(self.own, len(self)):
                yield last


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a clip's pictures are and how they are cropped: what is kept of a video once it is measured."""

    path: Path
    to_crop: NDArray[np.float64]
    has_sound: bool

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames at 25 fps, (H, W, 3) uint8 RGB."""
        yield from read_frames_at(self.path, FPS)


def watch(path: Path, tracker: FaceTracker) -> Footage:
    """Read a video once and return what is known of it; pixels are not kept.

    Raises:
        MediaError: not a video. DataError: fewer than 16 of its frames show a face.
    """
    tracker.reset()
    points, size = [], (0, 0)
    for frame in read_frames_at(path, FPS):
        size = (frame.shape[0], frame.shape[1])
        seen = tracker.track(frame)
        points.append(np.full((POINTS, 3), np.nan, np.float32) if seen is None else seen)
    info = probe(path)
    samples, sound_s = None, None
    if info.has_audio:
        try:
            longest_s = Fraction(len(points), FPS) + LONGEST_EXCESS_S
            heard = load_soundtrack(path, info.start_s, longest_s=longest_s)
        except MediaError:  # a sound track of zero length, or one that does not decode
            heard = np.zeros(0, np.float32)
        if len(heard):
            samples, sound_s = heard, len(heard) / SAMPLE_RATE
    footage = Footage(
        path=path,
        size=size,
        points=np.stack(points),
        samples=samples,
        fps=float(info.fps),
        picture_s=None if info.duration_s is None else float(info.duration_s),
        sound_s=sound_s,
    )
    found = int(footage.found.sum())
    if found < MIN_FRAMES:
        raise DataError(
            f"video {path}: a face in {found} of {len(footage)} frames, expected at least {MIN_FRAMES}: "
            "a longer clip, or one whose face is larger"
        )
    return footage


def cut_out(path: Path, part: Part, out: Path) -> Path:
    """Write a part of a recording as a video of its own, nearly without loss, with its sound at 16 kHz; return `out`.

    Raises:
        MediaError: not a video, or one that ends before.
    """
    frames = read_frames_at(path, FPS, start=part.start, stop=part.stop)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"video {path}: ends before frame {part.start} at 25 fps, expected the recording as prepared")
    sound, duration = _sound(path, part), Fraction(part.stop - part.start, FPS)
    audio = None if sound is None else (sound[:, None], SAMPLE_RATE)
    with VideoWriter(out, size=first.shape[:2], fps=FPS, audio=audio, duration=duration, quality=CUT_QUALITY) as writer:
        for frame in chain([first], frames):
            writer.write(frame)
    return out


def _sound(path: Path, part: Part) -> NDArray[np.float32] | None:
    info = probe(path)
    if not info.has_audio:
        return None
    start_s, longest_s = info.start_s + Fraction(part.start, FPS), Fraction(part.stop - part.start, FPS)
    try:
        samples = load_soundtrack(path, start_s, longest_s=longest_s)
    except MediaError:
        return None
    return samples if len(samples) else None


def hold_first(real: Footage) -> Footage:
    """Return the video that shows the first frame with a face all the time, with the same sound."""
    first = int(np.flatnonzero(real.found)[0])
    return replace(real, points=np.broadcast_to(real.points[first], real.points.shape), held=first)


def missing_frames(footage: Footage, real: Footage) -> int:
    """Return how many of the real clip's frames a video lacks at its end; below 0: how many it has more.

    A difference of two is none.
    """
    missing = len(real) - len(footage)
    return 0 if abs(missing) <= TOLERATED_FRAMES else missing


def hold_last(footage: Footage, real: Footage) -> Footage:
    """Return a video that ended early as a player leaves it, its last face standing still until the real clip's end.

    What it should have said then is the real clip's sound. One that lacks nothing is returned as it is.
    """
    missing = missing_frames(footage, real)
    if missing <= 0:
        return footage
    samples = footage.samples
    if samples is not None and real.samples is not None:
        samples = np.pad(samples, (0, max(0, len(footage) * SAMPLES_PER_FRAME - len(samples))))
        samples = np.concatenate([samples, real.samples[len(samples) : len(real) * SAMPLES_PER_FRAME]])
    points = np.concatenate([footage.points, np.broadcast_to(footage.filled[-1], (missing, POINTS, 3))])
    return replace(footage, points=points, samples=samples, ended=len(footage))


def length_difference_ms(footage: Footage, real: Footage) -> float:
    """Return by how many milliseconds a video's picture is longer than the real clip's; below 0: shorter."""
    return 1000 * (_picture_s(footage) - _picture_s(real))


def _picture_s(footage: Footage) -> float:
    """Return the picture's length: as the file states it, or as many frames as decode where that is another one."""
    stated, decoded = footage.picture_s, len(footage) / FPS
    return stated if stated is not None and abs(stated - decoded) < 1 / FPS else decoded


def crop_matrix(real: Footage) -> NDArray[np.float64]:
    """Return the (2, 3) map from a video's pixels to its crop: one square for the whole clip, inside the picture.

    The square is centred on the median of the landmarks' bounding boxes, 1.5 times as large as their larger side, and
    moved or shrunk to lie inside the picture.
    """
    flat = real.points[real.found][:, :MESH_POINTS, :2]
    low, high = np.median(flat.min(axis=1), axis=0), np.median(flat.max(axis=1), axis=0)
    height, width = real.size
    side = min(CROP_REACH * float((high - low).max()), height, width)
    corner = np.clip((low + high) / 2 - side / 2, 0, [width - side, height - side])
    scale = CROP / side
    # Pixel centres: the square from `corner` to `corner + side` fills the crop from edge to edge.
    offset = -corner * scale + (scale - 1) / 2
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])


def match(generated: Footage, real: Footage, real_to_crop: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Return the (2, 3) map from a generated video's pixels to the real one's crop, and whether it had to be fitted.

    The same picture at another scale is scaled. A picture of another shape was cropped by its maker: one similarity
    for the whole clip is fitted to the landmarks of all frames that show both faces.
    """
    if abs(generated.size[1] / generated.size[0] * real.size[0] / real.size[1] - 1) < SAME_ASPECT:
        ratio = np.array([real.size[1] / generated.size[1], real.size[0] / generated.size[0]])
        linear = real_to_crop[:, :2] * ratio
        return np.concatenate([linear, real_to_crop[:, 2:] + real_to_crop[:, :2] @ (ratio - 1)[:, None] / 2], 1), False
    frames = min(len(generated), len(real))
    both = generated.found[:frames] & real.found[:frames]
    if not both.any():
        raise DataError(f"video {generated.path}: shows no face while {real.path} does; expected a pair of one clip")
    chosen = np.flatnonzero(both)[:: max(1, int(both.sum()) // FITTED_FRAMES)]
    source = generated.points[chosen][:, :MESH_POINTS, :2].reshape(-1, 2)
    target = apply(real_to_crop, real.points[chosen][:, :MESH_POINTS, :2].reshape(-1, 2)).astype(np.float32)
    matrix, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.LMEDS)
    if matrix is None:
        raise DataError(f"video {generated.path}: its face cannot be laid over that of {real.path}; expected one clip")
    return matrix.astype(np.float64), True


def duration_error_ms(footage: Footage) -> float | None:
    """Return by how many milliseconds picture and sound differ in length; None where one is unknown or missing."""
    if footage.picture_s is None or footage.sound_s is None:
        return None
    return 1000 * abs(footage.picture_s - footage.sound_s)
