"""The methods' speakers behind one signature: sound in any portions, coefficients out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from atldiff.landmarks.stream import whole
from atldiff.landmarks.visible import MotionModel, VisibleMotion
from atldiff.timebase import COLUMNS_PER_FRAME, SAMPLES_PER_FRAME
from atldiff.types import Controls, Portrait

if TYPE_CHECKING:
    from atldiff.config import CompletionConfig, GeneratorConfig, KFLMConfig
    from atldiff.landmarks.speaker import LandmarkBasis
    from atldiff.landmarks.stream import CoefficientStream

FRONTAL_PX = 100.0
"""Outer-eye distance of the made-up portrait that `speak` animates."""


class Speaker(Protocol):
    """A landmark generator ready to be heard: sound to coefficients of a dense basis."""

    @property
    def config(self) -> GeneratorConfig | CompletionConfig | KFLMConfig:
        """What the generator is."""
        ...

    @property
    def basis(self) -> LandmarkBasis:
        """What coefficients are of."""
        ...

    @property
    def moves(self) -> np.ndarray:
        """What a coefficient of one moves, (M, 478, 3) float32 in outer-eye distances."""
        ...

    @property
    def amplitude(self) -> float:
        """Gain on the predicted coefficients."""
        ...

    def open(
        self, portrait: Portrait, neutral: np.ndarray, controls: Controls, visible: VisibleMotion
    ) -> CoefficientStream:
        """Open a stream of coefficients for one portrait.

        neutral: (478, 3) float32 canonical, the portrait's shape with its mouth closed. visible: what the face does
        apart from speech, for generators that look at it.

        Raises:
            ValueError: an emotion that this generator was not trained with.
        """
        ...


def speak(
    speaker: Speaker,
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
    still = Controls(still=True, blink_rate_hz=0)
    at_rest = MotionModel(neutral, still, np.eye(3), FRONTAL_PX, np.full(3, FRONTAL_PX * 2))
    coefficients = whole(speaker.open(frontal, neutral, still, at_rest), samples, mel, peaks)
    return np.einsum("tm,mkd->tkd", coefficients, speaker.moves)
