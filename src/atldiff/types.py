"""The values that cross rooms: frozen, shape-checked at construction.

Axis legend, used everywhere: B batch, C channels, T frames, H height, W width, K points, D features, N samples.
Images outside the networks are (H, W, 3) uint8 RGB; points are (x right, y down, z toward the scene) in pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINTS = 478
"""Points of the dense topology: MediaPipe Face Mesh's 468 and 10 iris points."""

TRACK_FORMAT = 1

Emotion = Literal["angry", "fear", "sad", "contempt", "happy", "surprised", "disgusted", "neutral"]
EMOTIONS: tuple[Emotion, ...] = get_args(Emotion)
"""Emotion labels in the order of the released ATL-Diff; a label's number is its place here."""


def emotion_label(emotion: str | None, known: int = len(EMOTIONS)) -> int:
    """Return an emotion's number; None and the empty word, of clips and users that name none, are the one after all.

    known: how many of the labels a model was trained with.

    Raises:
        ValueError: not an emotion, or none of the known ones.
    """
    if not emotion:
        return known
    if not known:
        raise ValueError(f"emotion: got {emotion!r}, but this model was not trained with emotions; leave it out")
    if emotion not in EMOTIONS[:known]:
        raise ValueError(f"emotion: got {emotion!r}, expected one of {', '.join(EMOTIONS[:known])}")
    return EMOTIONS.index(emotion)


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

    image: (H, W, 3) uint8 RGB. landmarks: (478, 3) float32 pixels of `image`.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]

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


@dataclass(frozen=True, slots=True)
class LandmarkTrack:
    """Landmarks over time in canonical form: head pose a frame plus pose-free displacements from a neutral shape.

    neutral: (K, 3) float32, the identity's own shape, frontal, in units of its outer-eye-corner distance.
    displacements: (T, K, 3) float32, the same units and axes; zero is the identity's shape as photographed.
    rotation: (T, 3, 3) float32; scale: (T,) float32 pixels per unit; translation: (T, 3) float32 pixels.
    fps: frames a second. size: (height, width) of the picture the pixels belong to.

    Points in pixels are `scale * (neutral + displacement) @ rotation.T + translation`.
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
        for name, array, shape in (
            ("neutral", self.neutral, (POINTS, 3)),
            ("displacements", self.displacements, (frames, POINTS, 3)),
            ("rotation", self.rotation, (frames, 3, 3)),
            ("translation", self.translation, (frames, 3)),
            ("scale", self.scale, (frames,)),
        ):
            _require(_shape_is(array, shape), f"track {name}", array.shape, str(shape))
            _require(bool(np.isfinite(array).all()), f"track {name}", "NaN or infinity", "finite numbers")

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
        """Write the track as an .npz of plain arrays (no pickle), through a temporary name."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.partial")
        with temporary.open("wb") as file:
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
                points=self.points(),  # for readers that want pixels only; ignored by `load`
            )
        temporary.replace(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LandmarkTrack:
        """Read a track written by `save`.

        Raises:
            ValueError: the file is not such a track.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if int(file["format_version"]) != TRACK_FORMAT:
                    raise ValueError(f"format {int(file['format_version'])}, expected {TRACK_FORMAT}")
                fps = file["fps"]
                size = file["size"]
                return cls(
                    neutral=file["neutral"].astype(np.float32),
                    displacements=file["displacements"].astype(np.float32),
                    rotation=file["rotation"].astype(np.float32),
                    translation=file["translation"].astype(np.float32),
                    scale=file["scale"].astype(np.float32),
                    fps=Fraction(int(fps[0]), int(fps[1])),
                    size=(int(size[0]), int(size[1])),
                )
        except FileNotFoundError:
            raise ValueError(f"landmark track {path}: no such file; expected one from `atldiff landmarks`") from None
        except Exception as error:  # zip, key and value errors of a file that is not ours
            if "pickle" in str(error):  # numpy advises to load it unsafely; we do not
                error = ValueError("not an archive of plain arrays")
            raise ValueError(
                f"landmark track {path}: {error}; expected an .npz written by `atldiff landmarks`"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What a user may steer without touching a landmark."""

    expression_scale: float = 1.0
    """Gain on the generated mouth motion; 0 freezes the mouth, 1 is as trained. Range 0 to 3."""
    still: bool = False
    """Turn blinks and head motion off; only the mouth moves."""
    blink_rate_hz: float = 0.28
    """Mean blinks a second. Range 0 to 2."""
    head_motion: float = 1.0
    """Gain on the small head motion. Range 0 to 3."""
    smoothing_frames: float = 0.0
    """Gaussian sigma, in frames, applied to the generated displacements. Range 0 to 5."""
    silence_gate: bool = True
    """Close the mouth while the audio is silent."""
    seed: int = 0
    """Seed of blinks, head motion and noise. Range 0 to 2**32 - 1."""
    emotion: Emotion | None = None
    """One of `EMOTIONS`, for methods that were trained with them; None leaves it open."""

    def __post_init__(self) -> None:
        emotion_label(self.emotion)
        for name, low, high in (
            ("expression_scale", 0.0, 3.0),
            ("blink_rate_hz", 0.0, 2.0),
            ("head_motion", 0.0, 3.0),
            ("smoothing_frames", 0.0, 5.0),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            _require(bool(np.isfinite(value)) and low <= value <= high, name, value, f"{low} to {high}")
