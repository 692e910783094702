"""The values that cross rooms: frozen, shape-checked at construction.

Axis legend, used everywhere: B batch, C channels, T frames, H height, W width, K points, D features, N samples.
Images outside the networks are (H, W, 3) uint8 RGB; points are (x right, y down, z toward the scene) in pixels.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atldiff.arrays import open_arrays
from atldiff.emotions import parse_emotion
from atldiff.files import replacing
from atldiff.track_json import SUFFIX as JSON_SUFFIX
from atldiff.track_json import read_json_track, write_json_track

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from atldiff.arrays import Archive

POINTS = 478
"""Points of the dense topology: MediaPipe Face Mesh's 468 and 10 iris points."""

TRACK_FORMAT = 1
TRACK_SUFFIXES = (".npz", JSON_SUFFIX)
"""Of landmark tracks: arrays, or text that people and other programs read. Either is exact."""
MIN_FPS, MAX_FPS = 1, 1000
MAX_SIDE = 100_000
MIN_SCALE, MAX_SCALE = 0.1, 1e5
MAX_SHAPE, MAX_TRANSLATION = 100.0, 1e6
"""Coordinates of shapes in units, of places in pixels: far beyond any face, so that nothing made of them overflows."""
MAX_FRAMES = 24 * 3600 * 25
"""Frames of a track that is read: a day at 25 a second."""
ROTATION_ERROR = 0.01
"""By how much the product of a rotation and its transpose may differ from one."""
POINTS_ERROR_PX, POINTS_ERROR = 0.05, 1e-4
"""By how much a file's points may differ from those of its displacements: so much, and so much of their size."""
_BLOCK = 1024

MOTION_STYLES = ("calm", "natural", "lively")
"""As a quarter, half and three quarters of the people are that the motion model was learned from."""
MOTION_STYLE_EXPECTED = (
    f"{', '.join(MOTION_STYLES)}, a video, a landmark track (.npz or .json) or a folder of motion weights"
)

MOTION_FILE = "motion.safetensors"
"""Weights of the motion model; beside a checkpoint's they move its heads instead of the package's."""

Framing = Literal["full", "head"]
"""What is shown of a photograph: all of it, or a square of head and shoulders."""


def _require(condition: bool, name: str, got: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}: got {got}, expected {expected}")


def _shape_is(array: NDArray, shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Portrait:
    """One face to animate.

    image: (H, W, 3) uint8 RGB. landmarks: (478, 3) float32 pixels of `image`. alpha: (H, W) uint8, straight; None where
    all of it is opaque. Colours under alpha 0 are not seen, but what moves at an edge is sampled with them.
    references: further pictures of the same person, whose mouths show what this one's does not; in any order.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    alpha: NDArray[np.uint8] | None = None
    references: tuple[Portrait, ...] = ()

    def __post_init__(self) -> None:
        _require(
            self.image.dtype == np.uint8 and _shape_is(self.image, (None, None, 3)),
            "portrait image",
            f"{self.image.shape} {self.image.dtype}",
            "(H, W, 3) uint8",
        )
        _require(
            _shape_is(self.landmarks, (POINTS, 3)), "portrait landmarks", self.landmarks.shape, f"({POINTS}, 3) pixels"
        )
        _require(bool(np.isfinite(self.landmarks).all()), "portrait landmarks", "NaN or infinity", "finite numbers")
        if self.alpha is not None:
            _require(
                self.alpha.dtype == np.uint8 and self.alpha.shape == self.image.shape[:2],
                "portrait alpha",
                f"{self.alpha.shape} {self.alpha.dtype}",
                f"{self.image.shape[:2]} uint8",
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image, with alpha (H, W, 4) where there is one."""
        return self.image if self.alpha is None else np.dstack([self.image, self.alpha])


@dataclass(frozen=True, slots=True)
class LandmarkTrack:
    """Landmarks over time in canonical form: head pose a frame plus pose-free displacements from a neutral shape.

    neutral: (K, 3) float32, the identity's own shape, frontal, in units of its outer-eye-corner distance.
    displacements: (T, K, 3) float32, the same units and axes; zero is the identity's shape as photographed.
    rotation: (T, 3, 3) float32; scale: (T,) float32 pixels per unit; translation: (T, 3) float32 pixels.
    fps: frames a second, 1 to 1000. size: (height, width) of the picture the pixels belong to.

    Points in pixels are `scale * (neutral + displacement) @ rotation.T + translation`.

    Raises:
        ValueError: an array of another shape, numbers that are not finite or beyond any face, a rotation that is none.
    """

    neutral: NDArray[np.float32]
    displacements: NDArray[np.float32]
    rotation: NDArray[np.float32]
    translation: NDArray[np.float32]
    scale: NDArray[np.float32]
    fps: Fraction
    size: tuple[int, int]

    def __post_init__(self) -> None:
        frames = self.displacements.shape[0]
        for name, shape in _track_shapes(frames).items():
            array = getattr(self, name)
            _require(_shape_is(array, shape), f"track {name}", array.shape, str(shape))
            _check_numbers(name, array)
        _require(MIN_FPS <= self.fps <= MAX_FPS, "track fps", f"{float(self.fps):g}", f"{MIN_FPS} to {MAX_FPS}")
        sides = len(self.size) == 2 and all(1 <= side <= MAX_SIDE and side == int(side) for side in self.size)
        _require(sides, "track size", self.size, f"(height, width) of 1 to {MAX_SIDE} pixels")

    def __len__(self) -> int:
        return self.displacements.shape[0]

    def points(self) -> NDArray[np.float32]:
        """Return the landmarks in pixels, (T, K, 3) float32."""
        shapes = self.neutral + self.displacements  # (T, K, 3)
        turned = np.einsum("tij,tkj->tki", self.rotation, shapes)
        return (self.scale[:, None, None] * turned + self.translation[:, None, :]).astype(np.float32)

    def slice(self, start: int, stop: int) -> LandmarkTrack:
        """Return frames `start` to `stop` (exclusive) as a track."""
        return replace(
            self,
            displacements=self.displacements[start:stop],
            rotation=self.rotation[start:stop],
            translation=self.translation[start:stop],
            scale=self.scale[start:stop],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the track, whole or not at all: as JSON where the suffix is .json, else as an .npz of plain arrays.

        Raises:
            OSError: naming the file, where it cannot be written.
        """
        if _is_json(path):
            with replacing(Path(path)) as partial:
                write_json_track(self, partial)
            return
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                format_version=np.int64(TRACK_FORMAT),
                neutral=self.neutral,
                displacements=self.displacements,
                rotation=self.rotation,
                translation=self.translation,
                scale=self.scale,
                fps=np.array([self.fps.numerator, self.fps.denominator], np.int64),
                size=np.array(self.size, np.int64),
                points=self.points(),  # for readers that want pixels only; `load` refuses others than these
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LandmarkTrack:
        """Read a track written by `save`, or a .json as docs/landmarks.md says.

        Raises:
            ValueError: the file is not such a track.
        """
        kind = "a .json" if _is_json(path) else "an .npz"
        try:
            if _is_json(path):
                return _track_of(read_json_track(path, _memory()))
            with open_arrays(path, "format_version", "fps", "size", *_track_shapes(0), "points") as file:
                return _read_track(file)
        except FileNotFoundError:
            raise ValueError(f"landmark track {path}: no such file; expected one from `atldiff landmarks`") from None
        except Exception as error:  # zip, key and value errors of a file that is not ours
            told = error.args[0] if isinstance(error, KeyError) else error
            raise ValueError(f"landmark track {path}: {told}; expected {kind} written by `atldiff landmarks`") from None


def _track_shapes(frames: int) -> dict[str, tuple[int, ...]]:
    return {
        "neutral": (POINTS, 3),
        "displacements": (frames, POINTS, 3),
        "rotation": (frames, 3, 3),
        "translation": (frames, 3),
        "scale": (frames,),
    }


def _check_numbers(name: str, array: NDArray) -> None:
    """Raise ValueError unless one of a track's arrays holds what can be drawn."""
    if not array.size:
        return
    low, high = float(array.min()), float(array.max())  # NaN where there is any
    _require(np.isfinite(low) and np.isfinite(high), f"track {name}", "NaN or infinity", "finite numbers")
    least, most = {
        "neutral": (-MAX_SHAPE, MAX_SHAPE),
        "displacements": (-MAX_SHAPE, MAX_SHAPE),
        "rotation": (-2.0, 2.0),
        "translation": (-MAX_TRANSLATION, MAX_TRANSLATION),
        "scale": (MIN_SCALE, MAX_SCALE),
    }[name]
    for value in (low, high):
        _require(least <= value <= most, f"track {name}", f"{value:g}", f"numbers from {least:g} to {most:g}")
    if name == "rotation":
        product = np.einsum("tij,tkj->tik", array, array)
        straight = np.abs(product - np.eye(3)).max(axis=(1, 2)) <= ROTATION_ERROR
        upright = np.einsum("ti,ti->t", np.cross(array[:, 0], array[:, 1]), array[:, 2]) > 0
        wrong = np.flatnonzero(~(straight & upright))
        got = f"a matrix that is none (frame {wrong[0]})" if wrong.size else ""
        _require(not wrong.size, "track rotation", got, "orthogonal matrices that do not mirror")


def _read_track(file: Archive) -> LandmarkTrack:
    """Read a track once it is known that its arrays go together and into memory."""
    version = int(file.read("format_version"))
    if version != TRACK_FORMAT:
        raise ValueError(f"format {version}, expected {TRACK_FORMAT}")
    if "displacements" not in file.stored:
        raise KeyError("no displacements")
    shape = file.stored["displacements"].shape
    frames = shape[0] if shape else 0
    _require(frames <= MAX_FRAMES, "track frames", frames, f"at most {MAX_FRAMES}")
    wanted = {**_track_shapes(frames), "points": (frames, POINTS, 3), "fps": (2,), "size": (2,)}
    for name, stored in file.stored.items():
        _require(stored.shape == wanted.get(name, stored.shape), f"track {name}", stored.shape, str(wanted.get(name)))
    needed, there = 2 * frames * POINTS * 3 * 8, _memory()
    takes = f"{frames}, which take {needed / 1e9:.1f} GB"
    _require(needed < there, "track frames", takes, f"less than this machine's {there / 1e9:.1f} GB")
    numbers = {name: _whole_numbers(name, file.read(name)) for name in ("fps", "size")}
    track = _track_of({**numbers, **{name: file.read(name) for name in _track_shapes(frames)}})
    if "points" in file.stored:
        _check_points(track, file)
    return track


def _track_of(fields: dict[str, Any]) -> LandmarkTrack:
    """Return a track of what a file holds: arrays by name, `fps` and `size` as pairs of whole numbers."""
    fps = fields["fps"]
    _require(fps[1] > 0, "track fps", "/".join(map(str, fps)), f"{MIN_FPS} to {MAX_FPS}")
    arrays = {name: fields[name] for name in _track_shapes(0)}
    for name, array in arrays.items():
        _check_numbers(name, array)  # before they are narrowed: the largest of a wider type would become infinite
    return LandmarkTrack(
        **{name: array.astype(np.float32, copy=False) for name, array in arrays.items()},
        fps=Fraction(*fps),
        size=fields["size"],
    )


def is_track(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name says that it is a landmark track."""
    return Path(path).suffix.lower() in TRACK_SUFFIXES


def _is_json(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix.lower() == JSON_SUFFIX


def _check_points(track: LandmarkTrack, file: Archive) -> None:
    """Raise ValueError where somebody changed the points of a file, which are there to be read, and nothing else."""
    start = 0
    for block in file.blocks("points", _BLOCK):
        points = track.slice(start, start + len(block)).points()
        off = np.abs(block - points)
        for frame in np.flatnonzero(~(off <= POINTS_ERROR_PX + POINTS_ERROR * np.abs(points)).all(axis=(1, 2)))[:1]:
            raise ValueError(
                f"points: {off[frame].max():.3g} px from those of its displacements at frame {start + frame}: "
                "displacements, rotation, scale and translation count: change these and leave points out"
            )
        start += len(block)


def _whole_numbers(name: str, array: NDArray) -> tuple[int, int]:
    first, second = array.tolist()
    _require(first == first // 1 and second == second // 1, f"track {name}", [first, second], "two whole numbers")
    return int(first), int(second)


def _memory() -> int:
    """Return the bytes of this machine's memory, or endless ones where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What a user may steer without touching a landmark."""

    expression_scale: float = 1.0
    """Gain on the generated mouth motion; 0 freezes the mouth, 1 is as trained. Range 0 to 3."""
    still: bool = False
    """Keep head, brows and gaze still; mouth and blinks go on (no blinks with a rate of 0)."""
    blink_rate_hz: float | None = None
    """Mean blinks a second, instead of the style's. Range 0 to 2."""
    head_motion: float = 1.0
    """Gain on the motion of head and brows that goes with the speech; 0 is none, 1 as learned. Range 0 to 3."""
    motion_style: str = "natural"
    """How lively head, brows and blinks are: calm, natural or lively, or as somebody is in a video or a landmark track.
    Or a folder of `atldiff train motion`, for motion learned from clips of your own."""
    smoothing_frames: float = 0.0
    """Gaussian sigma, in frames, applied to the generated displacements. Range 0 to 5."""
    silence_gate: bool = True
    """Close the mouth where nobody speaks: in silence, noise and music."""
    seed: int = 0
    """Seed of blinks, head motion and noise. Range 0 to 2**32 - 1."""
    emotion: str | None = None
    """One of the eight of MEAD, plain or as NAME[:INTENSITY][@SECONDS], such as "happy:0.7" or "neutral happy@2.5":
    angry, fear, sad, contempt, happy, surprised, disgusted, neutral; intensities from 0 to 1.5. Methods that were
    trained with emotions are told a plain word; all else moves the landmarks. None leaves it open."""

    def __post_init__(self) -> None:
        if self.emotion is not None:
            parse_emotion(self.emotion)
        for name, low, high in (
            ("expression_scale", 0.0, 3.0),
            ("blink_rate_hz", 0.0, 2.0),
            ("head_motion", 0.0, 3.0),
            ("smoothing_frames", 0.0, 5.0),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if value is not None:
                _require(bool(np.isfinite(value)) and low <= value <= high, name, value, f"{low} to {high}")
        _require(bool(self.motion_style), "motion_style", repr(self.motion_style), MOTION_STYLE_EXPECTED)
