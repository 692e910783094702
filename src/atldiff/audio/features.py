"""Log-mel features on the frame grid: 80 bands, 100 columns a second, four columns a video frame.

Levels are relative to a running peak (a causal gain control), so a quiet recording reads like a loud one and a stream
reads exactly like a file: columns are always computed in the same fixed blocks, whatever the packet sizes. Nothing here
knows a usual level: the peak starts at the first column's own, and whoever hears columns before louder ones lowers them
(`loudness.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atldiff.loudness import DB_A_UNIT, against_next
from atldiff.timebase import COLUMNS_PER_FRAME, HOP_SAMPLES, MEL_BANDS, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count

WINDOW_SAMPLES = 400  # 25 ms
FFT_SAMPLES = 512
LOW_HZ, HIGH_HZ = 55.0, 7600.0
FLOOR_DB = -60.0
"""Columns are clipped to this many dB under the running peak."""
PEAK_DECAY_DB = 0.04  # a column: 4 dB a second
PEAK_LOWEST_DB = -100.0
"""Sound 60 dB below counts as silence. The rounding of 16-bit samples is at -101."""
VOICE_BANDS = slice(3, MEL_BANDS)
"""Mel bands above 125 Hz: a voice is there, the rumble of rooms below."""
NEXT_COLUMNS = 112
"""A recording's column is read beside this many after it: as far as a generator's call reaches, 28 frames."""
BLOCK_FRAMES = 2
"""Columns are computed for this many frames at once, always: it keeps streams bit-equal to files."""

_MARGIN = (WINDOW_SAMPLES - HOP_SAMPLES) // 2  # 120 samples before and after a column's own 160


def mel_filters() -> np.ndarray:
    """Return the triangular mel filters (80, 257) of equal peak (HTK mel scale)."""
    to_mel = lambda hz: 2595.0 * np.log10(1.0 + hz / 700.0)  # noqa: E731 - a formula, used twice
    edges = 700.0 * (10.0 ** (np.linspace(to_mel(LOW_HZ), to_mel(HIGH_HZ), MEL_BANDS + 2) / 2595.0) - 1.0)
    bins = np.linspace(0.0, SAMPLE_RATE / 2, FFT_SAMPLES // 2 + 1)
    return triangles(edges, bins).astype(np.float32)


def triangles(edges: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return the triangles (B, F) of height 1 that bands with edges (B + 2,) in Hz are at bins (F,)."""
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0.0, None)


_FILTERS = mel_filters()
_FULL_SCALE = 0.375 * WINDOW_SAMPLES * FFT_SAMPLES / 2
"""The sum of a spectrum's one side where the samples' mean square is 1; 0.375 is the taper's power."""
_TAPER = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)


@dataclass
class MelStream:
    """Samples in, log-mel columns out, in blocks of two frames; the state of the gain control in between.

    Column c is centred on sample 160 c + 80. Values are dB relative to the running peak over 20, from -3 to about 0.5.
    """

    _pending: np.ndarray = field(default_factory=lambda: np.zeros(_MARGIN, np.float32))
    _peak_db: float = PEAK_LOWEST_DB
    _begun: bool = False

    def push(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take samples (N,) float32; return finished columns (C, 80) and their levels (C, 2), C a multiple of 8.

        levels: in dB re full scale, each column's own where voices are, above 125 Hz, and the running peak of all.
        """
        self._pending = np.concatenate([self._pending, samples.astype(np.float32, copy=False)])
        block = BLOCK_FRAMES * SAMPLES_PER_FRAME
        columns, levels = [np.zeros((0, MEL_BANDS), np.float32)], [np.zeros((0, 2), np.float32)]
        while len(self._pending) >= block + 2 * _MARGIN:
            if not self._begun:  # a recording's constant begins and ends without a step
                self._pending[:_MARGIN] = self._pending[_MARGIN : _MARGIN + WINDOW_SAMPLES].mean()
                self._begun = True
            mel, level = self._block(self._pending[: block + 2 * _MARGIN])
            columns.append(mel)
            levels.append(level)
            self._pending = self._pending[block:]
        return np.concatenate(columns), np.concatenate(levels)

    def flush(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """End the stream after `samples` pushed samples; return the columns still missing to cover them."""
        rest = frame_count(samples) % BLOCK_FRAMES or BLOCK_FRAMES
        block = BLOCK_FRAMES * SAMPLES_PER_FRAME
        missing = -(-samples // block) * block + 2 * _MARGIN
        pushed_in_blocks = samples - (len(self._pending) - _MARGIN)
        after = missing - pushed_in_blocks - len(self._pending)
        columns, levels = self.push(np.full(after, self._pending[-WINDOW_SAMPLES:].mean()))
        keep = len(columns) - (BLOCK_FRAMES - rest) * COLUMNS_PER_FRAME
        return columns[:keep], levels[:keep]

    def _block(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_SAMPLES)[::HOP_SAMPLES]  # (8, 400)
        spectrum = np.abs(np.fft.rfft(views * _TAPER, FFT_SAMPLES, axis=1)).astype(np.float32) ** 2  # (8, 257)
        # Not as a matrix product: the threads of its library would fight with those of the networks for the cores.
        power = np.einsum("cf,bf->cb", spectrum, _FILTERS)  # (8, 80)
        mel_db = 10.0 * np.log10(power + 1e-13)
        voice_db = 10.0 * np.log10(power[:, VOICE_BANDS].sum(axis=1) / _FULL_SCALE + 1e-13)
        swing = views - views.mean(axis=1, keepdims=True)  # a constant, as of a cheap microphone, is no sound
        energy_db = 10.0 * np.log10(np.mean((swing * _TAPER) ** 2, axis=1) / 0.375 + 1e-13)  # 0.375: the taper's power
        peaks = np.empty_like(energy_db)
        for index, energy in enumerate(energy_db):
            self._peak_db = max(float(energy), self._peak_db - PEAK_DECAY_DB, PEAK_LOWEST_DB)
            peaks[index] = self._peak_db
        # A full-scale sine reads near 45 dB in a band of `mel_db`; 42 puts loud speech bands around zero.
        relative = np.clip(mel_db - 42.0 - peaks[:, None], FLOOR_DB, 20.0)
        return (relative / DB_A_UNIT).astype(np.float32), np.stack([voice_db, peaks], axis=1).astype(np.float32)


def log_mel(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log-mel columns (4 F, 80) and levels (4 F, 2) of samples (N,) at 16 kHz, F = ceil(N / 640).

    levels: as `MelStream.push` gives them. Columns are those of the stream where no much louder ones follow.
    """
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples: got shape {samples.shape}, expected (N,) with N at least 1")
    stream = MelStream()
    first, first_levels = stream.push(samples)
    last, last_levels = stream.flush(len(samples))
    levels = np.concatenate([first_levels, last_levels])
    return against_next(np.concatenate([first, last]), levels[:, 1], NEXT_COLUMNS), levels
