"""The generator over time, in fixed blocks of frames: a stream gives a file's displacements bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.landmarks.completion import FILMED, MADE_UP, MISSING, seen_indices, seen_tokens
from atldiff.loudness import NO_SOUND_DB, SILENT, against_loudest
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, MEL_BANDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from atldiff.landmarks.completion import CompletionGenerator
    from atldiff.landmarks.generator import Generator
    from atldiff.landmarks.visible import SeenMotion

    Hear: TypeAlias = Callable[[np.ndarray, np.ndarray], torch.Tensor]

SILENT_COLUMN = np.full(MEL_BANDS, SILENT, np.float32)
BLOCK_FRAMES = 8
"""Frames predicted by one network call."""
FIRST_FRAMES = 2
"""Frames of the first block that lie in the sound, the others before it: so blocks end where windows of ten frames that
share two do, and no window waits for a block."""


class BlockStream:
    """Log-mel columns in, coefficients of displacements out, eight frames at a time; silence before and after them.

    predict: the columns (4 (context + 8 + lookahead), 80) around a block, the running peaks (C,) that each is relative
    to, and the number of its first frame, which may be negative, to the block's coefficients (8, M). silence: a column
    of it; another width, such as the 160 samples of a column themselves, makes columns of another kind.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
        context: int,
        lookahead: int,
        components: int,
        silence: np.ndarray = SILENT_COLUMN,
    ) -> None:
        self._predict, self._components, self._silence = predict, components, silence
        self._context, self._lookahead = context * COLUMNS_PER_FRAME, lookahead * COLUMNS_PER_FRAME
        before = self._context + (BLOCK_FRAMES - FIRST_FRAMES) * COLUMNS_PER_FRAME
        self._columns = np.tile(silence, (before, 1))
        self._peaks = np.full(before, NO_SOUND_DB, np.float32)
        self._next = FIRST_FRAMES - BLOCK_FRAMES  # the frame that the next block starts with

    def push(self, columns: np.ndarray, peaks: np.ndarray | None = None) -> np.ndarray:
        """Take columns (C, D); return coefficients (F, M) of the frames whose audio is complete, by blocks.

        peaks: (C,) in dB, what each column is relative to; None where louder columns after it have been minded already.
        """
        self._columns = np.concatenate([self._columns, columns])
        self._peaks = np.concatenate([self._peaks, np.zeros(len(columns), np.float32) if peaks is None else peaks])
        block = BLOCK_FRAMES * COLUMNS_PER_FRAME
        needed = self._context + block + self._lookahead
        out = [np.zeros((0, self._components), np.float32)]
        while len(self._columns) >= needed:
            coefficients = self._predict(self._columns[:needed], self._peaks[:needed], self._next)
            out.append(coefficients[max(0, -self._next) :])
            self._columns, self._peaks = self._columns[block:], self._peaks[block:]
            self._next += BLOCK_FRAMES
        return np.concatenate(out)

    def flush(self, frames: int) -> np.ndarray:
        """End the stream at `frames` frames in all; return the coefficients still missing."""
        blocks = -(-(frames - self._next) // BLOCK_FRAMES)
        missing = frames - max(0, self._next)
        wanted = self._context + blocks * BLOCK_FRAMES * COLUMNS_PER_FRAME + self._lookahead
        silence = np.tile(self._silence, (max(0, wanted - len(self._columns)), 1))
        return self.push(silence, np.full(len(silence), NO_SOUND_DB, np.float32))[:missing]


class DisplacementStream(BlockStream):
    """The compact Landmark Generation Module over time."""

    def __init__(self, generator: Generator, neutral: np.ndarray) -> None:
        config, device = generator.config, generator.basis.device
        identity = _described(generator, neutral)

        def predict(columns: np.ndarray, peaks: np.ndarray, first: int) -> np.ndarray:
            heard = torch.as_tensor(against_loudest(columns, peaks), device=device)
            with torch.inference_mode():
                predicted = generator.coefficients(heard[None], identity)[0]
            return predicted[config.context_frames :][:BLOCK_FRAMES].float().cpu().numpy()

        super().__init__(predict, config.context_frames, config.lookahead_frames, config.components)


class SampleStream:
    """Samples in, coefficients of displacements out, by the blocks of `BlockStream`; zeros before and after them.

    predict: as there, with rows (4 (context + 8 + lookahead), 160) of samples for columns.
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


class SoundStream(SampleStream):
    """The compact module over time where it hears a speech encoder's states of the samples themselves.

    hear: samples (640 F,) and the running peaks (4 F,) of their columns to states (F, S).
    """

    def __init__(self, generator: Generator, neutral: np.ndarray, hear: Hear) -> None:
        config = generator.config
        identity = _described(generator, neutral)

        def predict(rows: np.ndarray, peaks: np.ndarray, first: int) -> np.ndarray:
            with torch.inference_mode():
                predicted = generator.coefficients(hear(rows.ravel(), peaks)[None], identity)[0]
            return predicted.float().cpu().numpy()

        super().__init__(predict, config.context_frames, config.lookahead_frames, config.components)


class CompletionStream(BlockStream):
    """The landmark completion transformer over time, where it hears log-mel columns."""

    def __init__(
        self, generator: CompletionGenerator, neutral: np.ndarray, seen: SeenMotion | None, *, heard: bool = True
    ) -> None:
        """seen: None for no visible landmarks at all. heard: off, the sound is not heard."""
        config, complete = generator.config, _completing(generator, neutral, seen, heard=heard)

        def predict(columns: np.ndarray, peaks: np.ndarray, first: int) -> np.ndarray:
            return complete(torch.as_tensor(against_loudest(columns, peaks)), first)

        super().__init__(predict, config.context_frames, config.lookahead_frames, config.components)


class StatesCompletionStream(SampleStream):
    """The same where it hears a speech encoder's states of the samples themselves."""

    def __init__(
        self,
        generator: CompletionGenerator,
        neutral: np.ndarray,
        seen: SeenMotion | None,
        hear: Hear,
        *,
        heard: bool = True,
    ) -> None:
        """seen, heard: as in `CompletionStream`. hear: as in `SoundStream`."""
        config, complete = generator.config, _completing(generator, neutral, seen, heard=heard)

        def predict(rows: np.ndarray, peaks: np.ndarray, first: int) -> np.ndarray:
            return complete(hear(rows.ravel(), peaks), first)

        super().__init__(predict, config.context_frames, config.lookahead_frames, config.components)


def _described(generator: Generator | CompletionGenerator, neutral: np.ndarray) -> torch.Tensor:
    """Return what a generator knows of whose neutral shape (478, 3) it is, (1, I)."""
    shape = torch.as_tensor(neutral, dtype=torch.float32, device=generator.basis.device)
    with torch.inference_mode():
        return generator.describe(shape[None])


def _completing(
    generator: CompletionGenerator, neutral: np.ndarray, seen: SeenMotion | None, *, heard: bool
) -> Callable[[torch.Tensor, int], np.ndarray]:
    """Return what makes coefficients (8, M) of the sound around a block and the number of its first frame."""
    config, device = generator.config, generator.basis.device
    indices = seen_indices(config)
    frames_a_call = config.context_frames + BLOCK_FRAMES + config.lookahead_frames
    filmed = torch.tensor([MISSING if seen is None else FILMED if seen.driven else MADE_UP], device=device)
    hears = torch.tensor([heard], device=device)
    nothing = torch.zeros(1, frames_a_call, 3 * len(indices) + 3, device=device)
    identity = _described(generator, neutral)

    def complete(sound: torch.Tensor, first: int) -> np.ndarray:
        sight = nothing
        if seen is not None:
            frames = first - config.context_frames + np.arange(frames_a_call)
            moved = torch.as_tensor(seen.seen(frames)[:, indices], dtype=torch.float32)
            turned = torch.as_tensor(seen.euler_deg(frames), dtype=torch.float32)
            sight = seen_tokens(moved, turned)[None].to(device)
        with torch.inference_mode():
            said = generator.complete(sound.to(device)[None], sight, identity, hears, filmed)
            predicted = generator.coefficients(generator.opened(said, filmed))[0]
        return predicted[config.context_frames :][:BLOCK_FRAMES].float().cpu().numpy()

    return complete


def predict_coefficients(generator: Generator, mel: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Return coefficients (T, M) for all columns (4 T, 80) of a recording, exactly as a stream gives them."""
    return whole(DisplacementStream(generator, neutral), mel)


def predict_from_samples(
    generator: Generator, samples: np.ndarray, peaks: np.ndarray, neutral: np.ndarray, hear: Hear
) -> np.ndarray:
    """Return coefficients (T, M) for all samples (640 T,) of a recording, exactly as a stream gives them.

    peaks: (4 T,) in dB, the running peaks of its columns. hear: as in `SoundStream`.
    """
    return whole(SoundStream(generator, neutral, hear), samples, peaks)


def whole(stream: BlockStream | SampleStream, *sound: np.ndarray) -> np.ndarray:
    """Return the coefficients (T, M) of a fresh stream for all of a recording: what it is pushed, of 4 T columns."""
    first = stream.push(*sound)
    return np.concatenate([first, stream.flush(len(sound[-1]) // COLUMNS_PER_FRAME)])
