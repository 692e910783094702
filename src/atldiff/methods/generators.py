"""The landmark generators of the methods behind one signature: sound in any portions, coefficients out."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np

from atldiff.audio.whisper import Listener, load_encoder
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.landmarks.generator import Generator
from atldiff.landmarks.stream import (
    BlockStream,
    CompletionStream,
    DisplacementStream,
    SampleStream,
    SoundStream,
    StatesCompletionStream,
)
from atldiff.landmarks.visible import MotionModel, VisibleMotion
from atldiff.methods.atl_published.generator import PublishedGenerator, SecondStream
from atldiff.timebase import COLUMNS_PER_FRAME, SAMPLES_PER_FRAME
from atldiff.types import Controls, Portrait, emotion_label

FRONTAL_PX = 100.0
"""Outer-eye distance of the made-up portrait that `speak` animates."""

SpeechGenerator: TypeAlias = Generator | PublishedGenerator | CompletionGenerator


class CoefficientStream(Protocol):
    """Coefficients of a generator's dense basis, the same whatever portions the sound comes in."""

    def push(self, samples: np.ndarray, mel: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take samples (N,) at 16 kHz and log-mel columns (C, 80); return the coefficients (F, M) now complete.

        peaks: (C,) in dB, what each column is relative to; None where louder columns after it have been minded already.
        """
        ...

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients (F, M) still missing."""
        ...


class MelStreamed:
    """A stream of blocks, which hears the columns only."""

    def __init__(self, stream: BlockStream) -> None:
        self._stream = stream

    def push(self, samples: np.ndarray, mel: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take samples (N,), which are not heard, and log-mel columns (C, 80); return coefficients (F, M)."""
        return self._stream.push(mel, peaks)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients (F, M) still missing."""
        return self._stream.flush(frames)


class SamplesStreamed:
    """A stream that hears the samples, at the level of their columns."""

    def __init__(self, stream: SampleStream) -> None:
        self._stream = stream

    def push(self, samples: np.ndarray, mel: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take samples (N,) and, of the log-mel columns (C, 80), their running peaks (C,); return coefficients (F, M).

        Raises:
            ValueError: no peaks, which tell how loud the samples are.
        """
        if peaks is None:
            raise ValueError("peaks: got None, expected the columns' running peaks with a generator that hears samples")
        return self._stream.push(samples, peaks)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients (F, M) still missing."""
        return self._stream.flush(frames)


def open_generator(
    generator: SpeechGenerator, portrait: Portrait, neutral: np.ndarray, controls: Controls, visible: VisibleMotion
) -> CoefficientStream:
    """Open a stream of coefficients for one portrait.

    neutral: (478, 3) float32 canonical, the portrait's shape with its mouth closed. visible: what the face does apart
    from speech, for generators that look at it.

    Raises:
        ValueError: an emotion that this generator was not trained with.
    """
    match generator:
        case Generator():
            _refuse_emotion(controls, "atl-diff")
            if generator.config.features == "whisper":
                return SamplesStreamed(SoundStream(generator, neutral, _hearing(generator)))
            return MelStreamed(DisplacementStream(generator, neutral))
        case PublishedGenerator():
            return SecondStream(
                generator, portrait, neutral, emotion_label(controls.emotion, generator.config.emotions)
            )
        case CompletionGenerator():
            _refuse_emotion(controls, "landmark completion")
            if generator.config.features == "whisper":
                return SamplesStreamed(StatesCompletionStream(generator, neutral, visible, _hearing(generator)))
            return MelStreamed(CompletionStream(generator, neutral, visible))


def _hearing(generator: Generator | CompletionGenerator) -> Listener:
    """Return what a generator of features `whisper` hears samples by."""
    return Listener(load_encoder(generator.config.whisper_layers, generator.basis.device, generator.hears_in))


def _refuse_emotion(controls: Controls, method: str) -> None:
    if controls.emotion is not None:
        raise ValueError(
            f"emotion: got {controls.emotion!r}, but {method} was not trained with emotions; leave it out, or use a "
            "checkpoint of atl-diff-paper"
        )


def speak(
    generator: SpeechGenerator,
    samples: np.ndarray | None,
    mel: np.ndarray,
    neutral: np.ndarray,
    peaks: np.ndarray | None = None,
) -> np.ndarray:
    """Return displacements (T, 478, 3), as predicted, of a frontal face that speaks a whole recording.

    samples: (640 T,) at 16 kHz; None for generators that hear log-mel columns alone. mel: (4 T, 80). neutral: (478, 3)
    canonical. peaks: (4 T,) in dB, the columns' running peaks, for generators that hear samples at their level.
    """
    if samples is None:
        samples = np.zeros(len(mel) // COLUMNS_PER_FRAME * SAMPLES_PER_FRAME, np.float32)
    points = (FRONTAL_PX * neutral + FRONTAL_PX * 2).astype(np.float32)
    frontal = Portrait(np.zeros((16, 16, 3), np.uint8), points)
    still = Controls(still=True)
    at_rest = MotionModel(neutral, still, np.eye(3), FRONTAL_PX, np.full(3, FRONTAL_PX * 2))
    stream = open_generator(generator, frontal, neutral, still, at_rest)
    coefficients = np.concatenate([stream.push(samples, mel, peaks), stream.flush(len(mel) // COLUMNS_PER_FRAME)])
    basis = (generator.scale[:, None, None] * generator.basis).float().cpu().numpy()
    return np.einsum("tm,mkd->tkd", coefficients, basis)
