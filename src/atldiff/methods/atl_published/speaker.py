"""ATL-Diff's published Landmark Generation Module over time: seconds of sound to coefficients of the dense basis.

Arrays, over networks of any runtime; the networks are `generator.py` and `kflm.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from atldiff.emotions import emotion_label
from atldiff.errors import CheckpointError
from atldiff.landmarks.fit import ridge_solution
from atldiff.landmarks.geometry import from_canonical, to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import SIXTY_EIGHT, SIXTY_EIGHT_MOUTH
from atldiff.loudness import NO_SOUND_DB, SILENT, against_loudest, audible
from atldiff.methods.atl_published.coordinates import POINTS, TOKENS, WINDOW_SIDE, denormalise, normalise
from atldiff.timebase import COLUMNS_PER_FRAME, FPS, MEL_BANDS, SAMPLE_RATE
from atldiff.video.window import apply, face_window, fit_still_window

if TYPE_CHECKING:
    from atldiff.config import KFLMConfig
    from atldiff.landmarks.speaker import LandmarkBasis
    from atldiff.landmarks.visible import VisibleMotion
    from atldiff.networks import Network
    from atldiff.types import Controls, Portrait

COLUMNS = COLUMNS_PER_FRAME * FPS
"""Log-mel columns of a second."""
AMPLITUDE = 1.5
"""A prediction from sound alone shrinks towards the mean: on people never trained on, lips opened 0.53 (GRID) and 0.50
(others) times as far as the true ones, by `atldiff evaluate`."""
RIDGE = 0.003
"""Error expected of a mouth coordinate, in outer-eye distances: how far the fit trusts 68 points over the basis."""
REST_WEIGHT = 0.3
"""Weight of the points outside the mouth in that fit."""

_RIGID = np.array([27, 28, 29, 30, 36, 39, 42, 45])
"""Of the 68: the nose bridge and the eye corners, which do not move with speech."""
_COMPLEX = np.array([1, 1j])  # as complex numbers, a rotation with a scale is one factor
_SCALE_RANGE = (0.5, 2.0)
"""A prediction larger or smaller than this against the portrait is not a face; it is not blown up."""


@dataclass(frozen=True, slots=True)
class PublishedSpeaker:
    """The published Landmark Generation Module.

    hearing: a second of samples (1, 16000) or columns (1, 100, 80), as the configuration says, to feature tokens
    (1, 49, D). generator: those, normalised initial landmarks (1, 68, 2) and an emotion (1,) int64 to a second's
    landmarks (1, frames, 68, 2).
    """

    config: KFLMConfig
    basis: LandmarkBasis
    hearing: Network
    generator: Network

    @property
    def moves(self) -> np.ndarray:
        """What a coefficient of one moves, (M, 478, 3) float32."""
        return self.basis.moves

    @property
    def amplitude(self) -> float:
        """Gain on the predicted coefficients; released weights are left as they are."""
        return AMPLITUDE if self.config.coordinates == "canonical" else 1.0

    def open(self, portrait: Portrait, neutral: np.ndarray, controls: Controls, visible: VisibleMotion) -> SecondStream:
        """Open a stream of coefficients for a portrait whose shape with its mouth closed is neutral (478, 3) canonical.

        Raises:
            ValueError: an emotion that this generator was not trained with.
        """
        return SecondStream(self, portrait, neutral, emotion_label(controls.emotion, self.config.emotions))

    def say(self, sound: np.ndarray, initial: np.ndarray, emotion: np.ndarray) -> np.ndarray:
        """Return normalised landmarks (frames, 68, 2) of a second; frame j is at j / frames seconds.

        sound: (16000,) samples or (100, 80) columns. initial: (68, 2) normalised. emotion: (1,) int64.

        Raises:
            CheckpointError: the speech model cannot be loaded, or gives tokens of another shape.
        """
        features = self.hearing(sound[None])[0]
        check_features(features.shape, self.config)
        return self.generator(features, initial[None], emotion)[0][0]


def check_features(shape: tuple[int, ...], config: KFLMConfig) -> None:
    """Raise CheckpointError where features (B, 49, D) of seconds have another shape than a configuration says."""
    wanted = (TOKENS, config.feature_width)
    if tuple(shape[1:]) != wanted:
        raise CheckpointError(
            f"speech model {config.speech_model}: gives {tuple(shape[1:])} features a second, expected {wanted}; name "
            "the model this generator was trained with"
        )


class DenseFit:
    """From normalised 68 landmarks of one portrait to coefficients of the dense basis.

    initial: (68, 2) float32, the portrait's own landmarks as the module takes them.

    In canonical coordinates the displacement is the difference from them. In those of the window the prediction is
    first laid on the portrait by its rigid points, for a head that moves is another part's business, and the basis is
    seen at the portrait's head pose.
    """

    def __init__(self, speaker: PublishedSpeaker, portrait: Portrait, neutral: np.ndarray) -> None:
        self._coordinates: Literal["canonical", "window"] = speaker.config.coordinates
        basis = speaker.moves[:, SIXTY_EIGHT].astype(np.float64)
        if self._coordinates == "canonical":
            self._still = neutral[SIXTY_EIGHT, :2].astype(np.float64)
            self._to_plane = np.eye(2)
        else:
            _, rotation, scale, translation = to_canonical(portrait.landmarks.astype(np.float64), mean_shape())
            pixels = from_canonical(neutral.astype(np.float64), rotation, scale, translation)
            matrix = fit_still_window(pixels[None], face_window(WINDOW_SIDE))
            self._still = apply(matrix, pixels[SIXTY_EIGHT, :2])
            self._to_plane = np.linalg.inv(matrix[:, :2]) / scale
            basis = basis @ rotation.T
        self.initial = normalise(self._still, self._coordinates).astype(np.float32)
        weights = np.full(POINTS, REST_WEIGHT)
        weights[SIXTY_EIGHT_MOUTH] = 1.0
        self._solve = ridge_solution(basis[..., :2], RIDGE, weights)

    def coefficients(self, landmarks: np.ndarray) -> np.ndarray:
        """Return coefficients (M,) float32 in units of `scale` for landmarks (68, 2)."""
        points = denormalise(landmarks.astype(np.float64), self._coordinates)
        if self._coordinates == "window":
            points = align_rigid(points, self._still)
        moved = np.einsum("ij,kj->ki", self._to_plane, points - self._still)  # (68, 2) outer-eye distances
        return np.einsum("mk,k->m", self._solve, moved.ravel()).astype(np.float32)


def align_rigid(points: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Return points (68, 2), moved by the similarity that lays their rigid ones on those of `still` (68, 2)."""
    source, target = points[_RIGID].mean(axis=0), still[_RIGID].mean(axis=0)
    moved, fixed = (points[_RIGID] - source) @ _COMPLEX, (still[_RIGID] - target) @ _COMPLEX
    factor = np.vdot(moved, fixed) / max(np.vdot(moved, moved).real, 1e-12)
    size = abs(factor)
    factor = factor * (np.clip(size, *_SCALE_RANGE) / size) if size > 0 else 1.0
    turned = ((points - source) @ _COMPLEX) * factor
    return np.stack([turned.real, turned.imag], axis=-1) + target


class SecondStream:
    """Sound in any portions, coefficients at 25 frames a second out, from seconds on a fixed grid.

    Second k starts `hop_frames` k frames after the first, at the sample and log-mel column at or before that moment.
    The frames that two seconds share are cross-faded, each with the frame of the same moment; then landmarks are
    interpolated linearly at the moments of 25 frames a second.
    """

    def __init__(self, speaker: PublishedSpeaker, portrait: Portrait, neutral: np.ndarray, emotion: int) -> None:
        """Start at sample 0; neutral: (478, 3) canonical, the portrait with its mouth closed; emotion: a label."""
        config = speaker.config
        self._speaker = speaker
        self._frames, self._hop = config.frames, config.hop_frames
        self._fit = DenseFit(speaker, portrait, neutral)
        self._emotion = np.array([emotion])
        shared = self._frames - self._hop
        self._rise = ((np.arange(shared) + 1) / np.float32(shared + 1)).astype(np.float32)[:, None, None]
        # What was heard, from the next second's start on.
        self._samples = np.zeros(0, np.float32)
        self._columns = np.zeros((0, MEL_BANDS), np.float32)
        self._peaks = np.zeros(0, np.float32)
        self._seconds = 0
        # Landmarks (T, 68, 2) from frame `_first` on; the last second's shared frames wait for the next second.
        self._landmarks = np.zeros((0, POINTS, 2), np.float32)
        self._first = 0
        self._waiting = np.zeros((0, POINTS, 2), np.float32)
        self._emitted = 0

    def push(self, samples: np.ndarray, mel: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take samples (N,) and log-mel columns (C, 80); return coefficients (F, M) of the frames now complete.

        peaks: (C,) in dB, what each column is relative to; None where louder columns after it have been minded already.
        """
        self._samples = np.concatenate([self._samples, samples.astype(np.float32, copy=False)])
        self._columns = np.concatenate([self._columns, mel.astype(np.float32, copy=False)])
        self._peaks = np.concatenate([self._peaks, np.zeros(len(mel), np.float32) if peaks is None else peaks])
        while len(self._samples) >= SAMPLE_RATE and len(self._columns) >= COLUMNS:
            self._hear_second()
        return self._emit(None)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream, in silence, at `frames` frames in all; return the coefficients still missing."""
        last = -(-(frames - 1) * self._frames // FPS)  # the last landmark frame that is needed
        while self._first + len(self._landmarks) + len(self._waiting) <= last:
            self._samples = np.pad(self._samples, (0, max(0, SAMPLE_RATE - len(self._samples))))
            missing = max(0, COLUMNS - len(self._columns))
            self._columns = np.pad(self._columns, ((0, missing), (0, 0)), constant_values=SILENT)
            self._peaks = np.pad(self._peaks, (0, missing), constant_values=NO_SOUND_DB)
            self._hear_second()
        self._landmarks = np.concatenate([self._landmarks, self._waiting])
        self._waiting = self._waiting[:0]
        return self._emit(frames)

    def _hear_second(self) -> None:
        peaks = self._peaks[:COLUMNS]
        if self._speaker.config.features == "log-mel":
            sound = against_loudest(self._columns[:COLUMNS], peaks)
        else:
            sound = audible(self._samples[:SAMPLE_RATE], peaks)
        said = self._speaker.say(sound, self._fit.initial, self._emotion)
        shared = len(self._waiting)
        faded = self._waiting + self._rise[:shared] * (said[:shared] - self._waiting)
        self._landmarks = np.concatenate([self._landmarks, faded, said[shared : self._hop]])
        self._waiting = said[self._hop :]
        here, there = (self._seconds + k for k in (0, 1))
        self._samples = self._samples[self._start(there, SAMPLE_RATE) - self._start(here, SAMPLE_RATE) :]
        past = self._start(there, COLUMNS) - self._start(here, COLUMNS)
        self._columns, self._peaks = self._columns[past:], self._peaks[past:]
        self._seconds += 1

    def _start(self, second: int, rate: int) -> int:
        return second * self._hop * rate // self._frames

    def _emit(self, frames: int | None) -> np.ndarray:
        out = [np.zeros((0, len(self._speaker.basis.scale)), np.float32)]
        while frames is None or self._emitted < frames:
            low, rest = divmod(self._emitted * self._frames, FPS)  # the moment, exactly: low + rest / 25
            low -= self._first
            high, share = low + (rest > 0), np.float32(rest / FPS)
            if high >= len(self._landmarks):
                break
            landmarks = self._landmarks[low] + share * (self._landmarks[high] - self._landmarks[low])
            out.append(self._fit.coefficients(landmarks)[None])
            self._landmarks, self._first = self._landmarks[low:], self._first + low
            self._emitted += 1
        return np.concatenate(out)
