"""The generator over time, in fixed blocks of frames: a stream gives a file's displacements bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.timebase import COLUMNS_PER_FRAME, MEL_BANDS

if TYPE_CHECKING:
    from atldiff.landmarks.generator import Generator

BLOCK_FRAMES = 8
"""Frames predicted by one network call."""
FIRST_FRAMES = 2
"""Frames of the first block that lie in the sound, the others before it: so blocks end where windows of ten frames that
share two do, and no window waits for a block."""
SILENT = -3.0
"""The feature value of silence, heard before the start and after the end."""


class DisplacementStream:
    """Log-mel columns in, coefficients of displacements out, eight frames at a time."""

    def __init__(self, generator: Generator, neutral: np.ndarray) -> None:
        self._generator = generator
        config = generator.config
        self._context = config.context_frames * COLUMNS_PER_FRAME
        self._lookahead = config.lookahead_frames * COLUMNS_PER_FRAME
        self._device = generator.basis.device
        with torch.inference_mode():
            shape = torch.as_tensor(neutral, dtype=torch.float32, device=self._device)[None]
            self._identity = generator.describe(shape)
        before = self._context + (BLOCK_FRAMES - FIRST_FRAMES) * COLUMNS_PER_FRAME
        self._columns = np.full((before, MEL_BANDS), SILENT, np.float32)
        self._next = FIRST_FRAMES - BLOCK_FRAMES  # the frame that the next block starts with

    def push(self, columns: np.ndarray) -> np.ndarray:
        """Take columns (C, 80); return coefficients (F, M) of the frames whose audio is complete, by blocks."""
        self._columns = np.concatenate([self._columns, columns])
        block = BLOCK_FRAMES * COLUMNS_PER_FRAME
        needed = self._context + block + self._lookahead
        out = [np.zeros((0, self._generator.config.components), np.float32)]
        while len(self._columns) >= needed:
            out.append(self._predict(self._columns[:needed])[max(0, -self._next) :])
            self._columns = self._columns[block:]
            self._next += BLOCK_FRAMES
        return np.concatenate(out)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients still missing."""
        blocks = -(-(frames - self._next) // BLOCK_FRAMES)
        missing = frames - max(0, self._next)
        wanted = self._context + blocks * BLOCK_FRAMES * COLUMNS_PER_FRAME + self._lookahead
        silence = np.full((max(0, wanted - len(self._columns)), self._columns.shape[1]), SILENT, np.float32)
        return self.push(silence)[:missing]

    def _predict(self, columns: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            mel = torch.as_tensor(columns, device=self._device)[None]
            predicted = self._generator.coefficients(mel, self._identity)[0]
        first = self._generator.config.context_frames
        return predicted[first : first + BLOCK_FRAMES].float().cpu().numpy()


def predict_coefficients(generator: Generator, mel: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Return coefficients (T, M) for all columns (4 T, 80) of a recording, exactly as a stream gives them."""
    stream = DisplacementStream(generator, neutral)
    first = stream.push(mel)
    return np.concatenate([first, stream.flush(len(mel) // COLUMNS_PER_FRAME)])
