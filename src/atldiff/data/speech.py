"""Prepared clips as the landmark generator needs them: log-mel columns and pose-free displacements, in step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from atldiff.errors import DataError
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.rest import lower_face, neutral_shape
from atldiff.landmarks.scores import lip_scores
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.stream import NO_SAMPLES, whole
from atldiff.landmarks.topology import LIPS, POINTS
from atldiff.timebase import COLUMNS_PER_FRAME, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.landmarks.speaker import GeneratorSpeaker

OTHER_WEIGHT = 0.15
DEPTH_WEIGHT = 0.4
EVERY = 4
"""The basis is fitted to every fourth frame: neighbours add time, not information."""


@dataclass(frozen=True, slots=True)
class ClipSpeech:
    """One clip's sound and mouth.

    mel: (4 T, 80) float32. neutral: (478, 3) float32 canonical. displacements: (T, 478, 3) float32 from it.
    lag_frames: how much later the mouth is than the sound, as measured. samples: (640 T,) int16 at 16 kHz, and peaks:
    (4 T,) float32, the running peaks of their columns in dB; None in folders prepared before they were kept.
    """

    name: str
    source: str
    identity: str
    mel: np.ndarray
    neutral: np.ndarray
    displacements: np.ndarray
    sync: float
    lag_frames: int
    shift_frames: int = 0
    """How far `in_step` has moved the sound."""
    samples: np.ndarray | None = None
    peaks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.displacements)


def load_speech(manifest: Manifest, entry: ManifestEntry) -> ClipSpeech | None:
    """Load one prepared clip, or None when it has no sound."""
    with safe_open(str(manifest.tensors(entry)), "numpy") as file:
        if "mel" not in file.keys():  # noqa: SIM118 - not a dict
            return None
        mel = file.get_tensor("mel").astype(np.float32)
        shapes = to_canonical(file.get_tensor("points").astype(np.float64), mean_shape())[0]
        heard = {"samples", "levels"} <= set(file.keys())
        samples = file.get_tensor("samples") if heard else None
        peaks = file.get_tensor("levels")[:, 1].astype(np.float32) if heard else None
    neutral = neutral_shape(shapes)
    displacements = (shapes - neutral) * lower_face()[:, None]
    return ClipSpeech(
        name=entry.record.name,
        source=entry.record.source,
        identity=entry.identity,
        mel=mel,
        neutral=neutral.astype(np.float32),
        displacements=displacements.astype(np.float32),
        sync=entry.record.sync,
        lag_frames=entry.record.lag_frames,
        samples=samples,
        peaks=peaks,
    )


def in_step(clip: ClipSpeech, shift: int) -> ClipSpeech:
    """Return the clip with its sound moved `shift` frames later (earlier when negative) against the mouth."""
    if shift == 0:
        return clip
    return replace(
        clip,
        mel=_sounding(clip.mel, shift * COLUMNS_PER_FRAME),
        displacements=clip.displacements[shift:] if shift > 0 else clip.displacements[:shift],
        samples=None if clip.samples is None else _sounding(clip.samples, shift * SAMPLES_PER_FRAME),
        peaks=None if clip.peaks is None else _sounding(clip.peaks, shift * COLUMNS_PER_FRAME),
        lag_frames=clip.lag_frames - shift,
        shift_frames=clip.shift_frames + shift,
    )


def _sounding(values: np.ndarray, shift: int) -> np.ndarray:
    """Return what is left of values along time where sound is moved `shift` of them later."""
    return values[:-shift] if shift > 0 else values[-shift:]


def load_samples(manifest: Manifest, clip: ClipSpeech) -> np.ndarray:
    """Return a clip's sound (640 T,) int16 at 16 kHz, in step with its mouth as the clip is.

    Raises:
        DataError: the clip was prepared before samples were kept.
    """
    path = manifest.clip_file(clip.name)
    with safe_open(str(path), "numpy") as file:
        if "samples" not in file.keys():  # noqa: SIM118 - not a dict
            raise DataError(f"data {path}: no samples; expected a folder of this version: run `atldiff prepare` again")
        samples = file.get_tensor("samples")
    return _sounding(samples, clip.shift_frames * SAMPLES_PER_FRAME)


def point_weights() -> np.ndarray:
    """Return (478, 3) weights of the basis fit: lips one, the rest of the lower face less, depth less."""
    weight = np.full(POINTS, OTHER_WEIGHT, np.float32)
    weight[LIPS] = 1.0
    weight = np.maximum(weight * lower_face(), 1e-4)
    return weight[:, None] * np.array([1.0, 1.0, DEPTH_WEIGHT], np.float32)


def fit_basis(clips: list[ClipSpeech], components: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit a linear basis to displacements by weighted principal components.

    weights: (N,) how much each clip counts.

    Returns:
        basis (M, 478, 3), scale (M,) the standard deviation of each coefficient, and the share of the weighted
        variance that the basis holds.
    """
    points = point_weights().ravel()
    moving = np.flatnonzero(np.repeat(lower_face() > 0, 3))
    covariance = np.zeros((len(moving), len(moving)))
    for clip, weight in zip(clips, weights, strict=True):
        rows = (clip.displacements[::EVERY].reshape(-1, len(points)) * points)[:, moving]
        covariance += weight * (rows.T @ rows) / len(rows)
    values, vectors = np.linalg.eigh(covariance / weights.sum())
    order = np.argsort(values)[::-1][:components]
    basis = np.zeros((components, len(points)))
    basis[:, moving] = vectors[:, order].T / points[moving]
    scale = np.sqrt(np.maximum(values[order], 1e-12))
    share = float(values[order].sum() / values.sum())
    return basis.reshape(components, POINTS, 3).astype(np.float32), scale.astype(np.float32), share


def coefficients(clip: ClipSpeech, basis: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the clip's coefficients (T, M) in units of `scale`: its weighted projection onto the basis."""
    points = point_weights()
    directions = (basis * points).reshape(len(basis), -1)  # orthonormal
    rows = (clip.displacements * points).reshape(len(clip), -1)
    return (rows @ directions.T / scale).astype(np.float32)


def carried(clip: ClipSpeech, basis: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the clip's displacements (T, 478, 3) as far as a basis holds them."""
    return np.einsum("tm,mkd->tkd", coefficients(clip, basis, scale) * scale, basis)


def said_in(speaker: GeneratorSpeaker, clip: ClipSpeech) -> np.ndarray:
    """Return the coefficients (T, M) that a generator predicts for a clip.

    Raises:
        DataError: a generator that hears samples, and a clip that was prepared before they were kept.
    """
    return whole(speaker.stream(clip.neutral), *sound_for(speaker.config.features, clip))


def sound_for(features: str, clip: ClipSpeech) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return what a stream of a generator of such features is pushed of a clip: samples, columns and running peaks.

    Raises:
        DataError: samples are heard, and the clip was prepared before they were kept.
    """
    if features == "mel":
        return NO_SAMPLES, clip.mel, None  # whose columns have minded those that are louder
    samples, peaks = sound_of(clip)
    return samples, clip.mel, peaks


def sound_of(clip: ClipSpeech) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip's samples (640 T,) float32 in [-1, 1] and running peaks (4 T,).

    Raises:
        DataError: the clip was prepared before samples were kept.
    """
    if clip.samples is None or clip.peaks is None:
        raise DataError(f"data {clip.name}: no samples; expected a folder of this version: run `atldiff prepare` again")
    return clip.samples.astype(np.float32) / 32767, clip.peaks


def generator_scores(speaker: GeneratorSpeaker, clip: ClipSpeech) -> dict[str, float] | None:
    """Return the lip scores (`lip_scores`) of a generator on one clip; None where its mouth stays still."""
    basis, scale = speaker.basis.directions, speaker.basis.scale
    predicted = said_in(speaker, clip) * scale
    return lip_scores(np.einsum("tm,mkd->tkd", predicted, basis), carried(clip, basis, scale), clip.displacements)


def fit_identity(neutrals: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (478, 3) and basis (I, 478, 3) that describe neutral shapes (P, 478, 3) with unit variance."""
    mean = neutrals.mean(axis=0)
    rows = (neutrals - mean).reshape(len(neutrals), -1)
    _, singular, vectors = np.linalg.svd(rows, full_matrices=False)
    basis = np.zeros((components, rows.shape[1]), np.float32)
    kept = min(components, int((singular > 1e-6).sum()))
    deviation = singular[:kept] / np.sqrt(max(1, len(neutrals) - 1))
    basis[:kept] = vectors[:kept] / deviation[:, None]
    return mean.astype(np.float32), basis.reshape(components, POINTS, 3)
