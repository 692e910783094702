"""The generator over time, in fixed blocks of frames: a stream gives a file's displacements bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from atldiff.loudness import NO_SOUND_DB, SILENT
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, MEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Callable

SILENT_COLUMN = np.full(MEL_BANDS, SILENT, np.float32)
BLOCK_FRAMES = 4
"""Frames predicted by one network call: blocks end where windows of four frames do, and no window waits for a block."""


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


class BlockStream:
    """Log-mel columns in, coefficients of displacements out, four frames at a time; silence before and after them.

    predict: the columns (4 (context + block + lookahead), 80) around a block, the running peaks (C,) that each is
    relative to, and the number of its first frame to the block's coefficients (block, M). silence: a column of it;
    another width, such as the 160 samples of a column themselves, makes columns of another kind. block: its frames.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
        context: int,
        lookahead: int,
        components: int,
        silence: np.ndarray = SILENT_COLUMN,
        block: int = BLOCK_FRAMES,
    ) -> None:
        self._predict, self._components, self._silence, self._block = predict, components, silence, block
        self._context, self._lookahead = context * COLUMNS_PER_FRAME, lookahead * COLUMNS_PER_FRAME
        self._columns = np.tile(silence, (self._context, 1))
        self._peaks = np.full(self._context, NO_SOUND_DB, np.float32)
        self._next = 0  # the first frame that is not known yet

    def push(self, columns: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take columns (C, D); return coefficients (F, M) of the frames whose audio is complete, by blocks.

        peaks: (C,) in dB, what each column is relative to; None where louder columns after it have been minded already.
        """
        self._columns = np.concatenate([self._columns, columns])
        self._peaks = np.concatenate([self._peaks, np.zeros(len(columns), np.float32) if peaks is None else peaks])
        block = self._block * COLUMNS_PER_FRAME
        needed = self._context + block + self._lookahead
        out = [np.zeros((0, self._components), np.float32)]
        while len(self._columns) >= needed:
            out.append(self._predict(self._columns[:needed], self._peaks[:needed], self._next))
            self._columns, self._peaks = self._columns[block:], self._peaks[block:]
            self._next += self._block
        return np.concatenate(out)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients still missing."""
        missing = frames - self._next
        blocks = -(-missing // self._block)
        wanted = self._context + blocks * self._block * COLUMNS_PER_FRAME + self._lookahead
        silence = np.tile(self._silence, (max(0, wanted - len(self._columns)), 1))
        return self.push(silence, np.full(len(silence), NO_SOUND_DB, np.float32))[:missing]


class SampleStream:
    """Samples in, coefficients of displacements out, by the blocks of `BlockStream`; zeros before and after them.

    predict: as there, with rows (4 (context + 4 + lookahead), 160) of samples for columns.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
        context: int,
        lookahead: int,
        components: int,
    ) -> None:
        self._blocks = BlockStream(predict, context, lookahead, components, np.zeros(HOP_SAMPLES, np.float32))
        self._samples = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Take samples (N,) and running peaks (C,); return coefficients (F, M) of the frames now complete.

        peaks: in dB, of columns whose samples have come before or come now; past the recording's end they are silent.
        """
        self._samples = np.concatenate([self._samples, samples.astype(np.float32, copy=False)])
        taken = self._samples[: len(peaks) * HOP_SAMPLES]
        self._samples = self._samples[len(taken) :]
        rows = np.pad(taken, (0, len(peaks) * HOP_SAMPLES - len(taken))).reshape(-1, HOP_SAMPLES)
        return self._blocks.push(rows, peaks)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients still missing."""
        return self._blocks.flush(frames)


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


NO_SAMPLES = np.zeros(0, np.float32)
"""For generators that hear the columns only."""


def whole(
    stream: CoefficientStream, samples: np.ndarray, mel: np.ndarray, peaks: np.ndarray | None = None
) -> np.ndarray:
    """Return the coefficients (T, M) of a fresh stream for all of a recording, exactly as in portions.

    samples: (640 T,). mel: (4 T, 80). peaks: (4 T,).
    """
    first = stream.push(samples, mel, peaks)
    return np.concatenate([first, stream.flush(len(mel) // COLUMNS_PER_FRAME)])
