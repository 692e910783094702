"""Sound to the coefficients of a dense basis: the compact generator and landmark completion over time.

Arrays, in fixed blocks of frames, over networks of any runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atldiff.landmarks.completion_points import FILMED, MADE_UP, MISSING, closest, seen_indices, seen_tokens
from atldiff.landmarks.stream import BLOCK_FRAMES, BlockStream, MelStreamed, SamplesStreamed, SampleStream
from atldiff.loudness import against_loudest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from atldiff.config import CompletionConfig, GeneratorConfig
    from atldiff.landmarks.stream import CoefficientStream
    from atldiff.landmarks.visible import SeenMotion, VisibleMotion
    from atldiff.networks import Network
    from atldiff.types import Controls, Portrait

    Hear: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Samples (640 F,) and the running peaks (4 F,) of their columns to states (F, S)."""
    Said: TypeAlias = Callable[[np.ndarray, int], np.ndarray]
    """The sound around a block and the number of its first frame to the block's coefficients (8, M)."""

MEL_AMPLITUDE = 1.5
"""Gain on coefficients that log-mel columns gave. On people never trained on, lips opened 0.71 (GRID) and 0.46 (other
corpora) times as far as the true ones, by `atldiff evaluate`."""
COMPLETED_AMPLITUDE = 1.7
"""The same of landmark completion: 0.52 (GRID) and 0.44 (others) times as far."""
MOST_UNLIKE = 3.0
"""Deviations from the mean shape that are told; a face beyond is none of those that were trained on."""


@dataclass(frozen=True, slots=True)
class LandmarkBasis:
    """What coefficients move: directions (M, 478, 3), and the scale (M,) that is one unit of each."""

    directions: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, buffers: Mapping[str, np.ndarray]) -> LandmarkBasis:
        """Return that of a generator's buffers."""
        return cls(buffers["basis"], buffers["scale"])

    @property
    def moves(self) -> np.ndarray:
        """What a coefficient of one moves, (M, 478, 3) float32 in outer-eye distances."""
        return self.scale[:, None, None] * self.directions


@dataclass(frozen=True, slots=True)
class ShapeBasis:
    """What tells neutral shapes apart: their mean (478, 3), and directions (I, 478, 3) that give unit variance."""

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, buffers: Mapping[str, np.ndarray]) -> ShapeBasis:
        """Return that of a generator's buffers."""
        return cls(buffers["identity_mean"], buffers["identity_basis"])

    def describe(self, neutrals: np.ndarray) -> np.ndarray:
        """Return the identity's numbers (B, I) float32, in [-3, 3], of neutral shapes (B, 478, 3)."""
        unlike = neutrals.astype(np.float64) - self.mean
        told = np.einsum("bkd,ikd->bi", unlike, self.directions.astype(np.float64))
        return np.clip(told, -MOST_UNLIKE, MOST_UNLIKE).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GeneratorSpeaker:
    """The compact Landmark Generation Module.

    generator: log-mel columns (1, 4 T, 80) or states (1, T, S), as the configuration says, and an identity (1, I) to
    coefficients: of all T frames, or of the block's. hear: what samples are heard by, for the latter.
    """

    config: GeneratorConfig
    basis: LandmarkBasis
    shapes: ShapeBasis
    generator: Network
    hear: Hear | None = None

    @property
    def moves(self) -> np.ndarray:
        """What a coefficient of one moves, (M, 478, 3) float32."""
        return self.basis.moves

    @property
    def amplitude(self) -> float:
        """Gain on the predicted coefficients, for networks that do not bring their own."""
        return MEL_AMPLITUDE if self.config.features == "mel" else 1.0

    def open(
        self, portrait: Portrait, neutral: np.ndarray, controls: Controls, visible: VisibleMotion
    ) -> CoefficientStream:
        """Open a stream of coefficients for a portrait whose shape with its mouth closed is neutral (478, 3) canonical.

        Raises:
            ValueError: an emotion.
        """
        refuse_emotion(controls, "atl-diff")
        return self.stream(neutral)

    def stream(self, neutral: np.ndarray) -> CoefficientStream:
        """Open a stream of coefficients for a neutral shape (478, 3)."""
        identity = self.shapes.describe(neutral[None])
        # Columns give coefficients of all frames, states those of the block alone.
        before = self.config.context_frames if self.config.features == "mel" else 0

        def said(sound: np.ndarray, first: int) -> np.ndarray:
            return self.generator(sound[None], identity)[0][0, before:][:BLOCK_FRAMES]

        return _in_blocks(self.config, self.hear, said)


@dataclass(frozen=True, slots=True)
class CompletionSpeaker:
    """Landmark completion.

    generator: sound as in `GeneratorSpeaker`, what is seen (1, T, V * 3 + 3) of `seen_tokens`, an identity (1, I),
    whether the sound counts (1,) bool, and `FILMED`, `MADE_UP` or `MISSING` (1,) int64, to coefficients (1, T, M) or
    moves (1, T, P, 2) of the completed points, by their gain. hear: as there.
    """

    config: CompletionConfig
    basis: LandmarkBasis
    shapes: ShapeBasis
    generator: Network
    hear: Hear | None = None

    @property
    def moves(self) -> np.ndarray:
        """What a coefficient of one moves, (M, 478, 3) float32."""
        return self.basis.moves

    @property
    def amplitude(self) -> float:
        """Gain on the completed coefficients, for a generator that does not bring its own."""
        return COMPLETED_AMPLITUDE if self.config.features == "mel" else 1.0

    def open(
        self, portrait: Portrait, neutral: np.ndarray, controls: Controls, visible: VisibleMotion
    ) -> CoefficientStream:
        """Open a stream of coefficients for a portrait whose shape with its mouth closed is neutral (478, 3) canonical.

        visible: what the face does apart from speech, which is seen.

        Raises:
            ValueError: an emotion.
        """
        refuse_emotion(controls, "landmark completion")
        return self.stream(neutral, visible)

    def stream(self, neutral: np.ndarray, seen: SeenMotion | None, *, heard: bool = True) -> CoefficientStream:
        """Open a stream of coefficients for a neutral shape (478, 3).

        seen: None for no visible landmarks at all. heard: off, the sound is not heard.
        """
        config, indices = self.config, seen_indices(self.config)
        around = np.arange(-config.context_frames, BLOCK_FRAMES + config.lookahead_frames)
        identity, hears = self.shapes.describe(neutral[None]), np.array([heard])
        filmed = np.array([MISSING if seen is None else FILMED if seen.driven else MADE_UP])
        nothing = np.zeros((1, len(around), 3 * len(indices) + 3), np.float32)
        solve = None if config.points == "dense" else closest(self.moves, config).astype(np.float32)

        def said(sound: np.ndarray, first: int) -> np.ndarray:
            sight = nothing
            if seen is not None:
                frames = first + around
                sight = seen_tokens(seen.seen(frames)[:, indices], seen.euler_deg(frames))[None]
            completed = self.generator(sound[None], sight, identity, hears, filmed)[0][0]
            block = completed[config.context_frames :][:BLOCK_FRAMES]
            return block if solve is None else np.einsum("mk,tk->tm", solve, block.reshape(len(block), -1))

        return _in_blocks(config, self.hear, said)


def refuse_emotion(controls: Controls, method: str) -> None:
    """Raise ValueError where an emotion is asked of a method that knows none."""
    if controls.emotion is not None:
        raise ValueError(
            f"emotion: got {controls.emotion!r}, but {method} was not trained with emotions; leave it out, or use a "
            "checkpoint of atl-diff-paper"
        )


def _in_blocks(config: GeneratorConfig | CompletionConfig, hear: Hear | None, said: Said) -> CoefficientStream:
    """Return a stream that hears what a configuration says around each block, and tells `said` of it."""
    sizes = config.context_frames, config.lookahead_frames, config.components
    if hear is None:
        return MelStreamed(
            BlockStream(lambda columns, peaks, first: said(against_loudest(columns, peaks), first), *sizes)
        )
    return SamplesStreamed(SampleStream(lambda rows, peaks, first: said(hear(rows.ravel(), peaks), first), *sizes))
