"""Any sample rate and channels to 16 kHz mono.

One resampler serves files, arrays and live packets, so a stream cut anywhere gives the samples of the offline call.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from atldiff.audio.channels import Downmix
from atldiff.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are taken, in Hz."""

MAX_PEAK = 4.0
"""Float samples are clipped to [-1, 1]; beyond this peak they are not audio in that range at all."""

_KERNEL_LOBES = 16
"""Zero crossings of the low-pass kernel on each side, at the lower of the two rates."""
_KAISER_BETA = 8.0
"""Of its window: what folds back is 80 dB down."""


_OUTPUTS_AT_ONCE = 32_768
"""Outputs whose sums are added up together: as many as the processor's cache holds."""
_FEW = 1_024
"""Outputs from which on `_many_sums` takes less time than `_sums`."""


class MonoResampler:
    """Resample one channel block by block.

    Output m is one fixed sum over the inputs around time m / 16000 s, held back until all of them have come
    (about 1 ms at 48 kHz). At 16 kHz the samples pass through.
    """

    def __init__(self, rate: int) -> None:
        divisor = gcd(rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, rate // divisor
        self._half = _KERNEL_LOBES * max(self._up, self._down)  # of the kernel; inputs lie `up` apart, outputs `down`
        # Inputs from the first on that the period of the next output sees; before the first of all there is silence.
        self._tail = np.zeros(self._half // self._up)
        self._received = 0
        self._sent = 0

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples, (n,); return the 16 kHz samples that are now certain, (m,)."""
        self._received += len(samples)
        if self._up == self._down:
            self._sent += len(samples)
            return samples
        self._tail = np.concatenate([self._tail, samples.astype(np.float64)])
        # Output m reaches half a kernel to the right: m * down + half <= (received - 1) * up.
        return self._until(max(0, ((self._received - 1) * self._up - self._half) // self._down + 1))

    def flush(self) -> NDArray[np.float32]:
        """Return the rest, so that ceil(N * 16000 / rate) samples have come in all."""
        return self._until(-(-self._received * self._up // self._down))

    def _until(self, stop: int) -> NDArray[np.float32]:
        """Return outputs `_sent` to `stop` and drop the inputs that no later output needs."""
        if stop <= self._sent:
            return np.zeros(0, np.float32)
        phases = _phases(self._up, self._down, self._half)
        inputs, parts = self._tail, []
        while self._sent < stop:
            last = min(stop, self._sent + _OUTPUTS_AT_ONCE)
            before = self._sent // self._up
            sums = _sums if last - self._sent < _FEW else _many_sums
            part = sums(inputs, phases, self._sent - before * self._up, last - before * self._up)
            parts.append(part.astype(np.float32))
            inputs = inputs[(last // self._up - before) * self._down :]
            self._sent = last
        self._tail = inputs if inputs is self._tail else inputs.copy()
        return np.concatenate(parts)


class _Phases(NamedTuple):
    """A low-pass kernel as the outputs of one period meet it: `up` of them, while `down` inputs pass.

    taps: (up, K) float64, the weights of the K inputs that each output sees. first: (up,) the first of these, counted
    from the input at the period's start.
    """

    taps: NDArray[np.float64]
    first: NDArray[np.intp]
    down: int


# Both go through a sum from its first tap to its last, so that no output depends on which others are computed with it.


def _sums(inputs: NDArray[np.float64], phases: _Phases, start: int, stop: int) -> NDArray[np.float64]:
    """Return outputs `start` to `stop`, counted from the first that sees the first of the inputs."""
    up, count = phases.taps.shape
    period, phase = np.divmod(np.arange(start, stop), up)
    seen = period * phases.down + phases.first[phase] - phases.first[0]
    rows = sliding_window_view(_padded(inputs, seen[-1] + count), count)[seen]  # (n, K)
    rows *= phases.taps[phase]
    return np.add.accumulate(rows, axis=1, out=rows)[:, -1]


def _many_sums(inputs: NDArray[np.float64], phases: _Phases, start: int, stop: int) -> NDArray[np.float64]:
    """Return what `_sums` does, sooner where there are many: tap by tap, for all outputs of their periods at once."""
    up, count = phases.taps.shape
    periods = -(-stop // up)
    first = phases.first - phases.first[0]
    depth = first[-1] + count
    inputs = _padded(inputs, (periods - 1) * phases.down + depth)
    seen = sliding_window_view(inputs, depth)[:: phases.down].T  # (depth, periods)
    if up > 1:
        seen = np.ascontiguousarray(seen)
    total, part = np.zeros((up, periods)), np.empty((up, periods))
    for tap in range(count):
        column = np.take(seen[tap:], first, axis=0, out=part, mode="clip") if up > 1 else seen[tap : tap + 1]
        total += np.multiply(column, phases.taps[:, tap, None], out=part)
    return total.T.ravel()[start:stop]


def _padded(inputs: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the first inputs, with silence past the last one."""
    return np.pad(inputs[:count], (0, max(0, count - len(inputs))))


@lru_cache(maxsize=4)
def _phases(up: int, down: int, half: int) -> _Phases:
    """Return the kernel for `up` outputs while `down` inputs pass."""
    kernel = low_pass(half, 1 / max(up, down))
    kernel *= up  # in place: at odd rates it has millions of taps
    # Input i lies at i * up, output q of a period at q * down; it sees what is no further away than half the kernel.
    first = -((half - np.arange(up) * down) // up)
    taps = np.zeros((up, 2 * half // up + 1))
    for phase, start in enumerate(first * up - np.arange(up) * down + half):
        weights = kernel[start::up]
        taps[phase, : len(weights)] = weights
    return _Phases(taps, first, down)


def low_pass(half: int, cutoff: float) -> NDArray[np.float64]:
    """Return a low-pass kernel (2 half + 1,) whose sum is 1, a sinc in a Kaiser window; cutoff: of half the rate."""
    away = np.arange(half + 1.0)
    side = np.sinc(cutoff * away) * np.i0(_KAISER_BETA * np.sqrt(1 - (away / half) ** 2))
    kernel = np.concatenate([side[:0:-1], side])
    kernel /= kernel.sum()
    return kernel


class PacketResampler:
    """Resample a stream packet by packet; the samples do not depend on where the stream is cut.

    One channel is held back for about 1 ms; several are mixed down, and held back for at most 10 ms more
    (`channels.Downmix`). At 16 kHz the samples of one channel pass through.
    """

    def __init__(self, rate: int) -> None:
        """Start a stream of `rate` Hz, 1 000 to 768 000."""
        self._rate = checked_rate(rate)
        self._resampler = MonoResampler(self._rate)
        self._downmix: Downmix | None = None
        self._channels = 0
        self._flushed = False

    def feed(self, packet: np.ndarray) -> NDArray[np.float32]:
        """Take the next samples, (n,) or (n, channels); return the 16 kHz samples that are now certain, (m,) float32.

        Raises:
            ValueError: wrong shape, type or range, NaN, or the stream was flushed.
        """
        if self._flushed:
            raise ValueError("audio packet: got one after flush, expected none: start a new PacketResampler")
        if packet.ndim not in (1, 2) or (packet.ndim == 2 and packet.shape[1] > MAX_CHANNELS):
            expected = f"(n,) or (n, channels) with at most {MAX_CHANNELS} channels"
            raise ValueError(f"audio packet: got shape {packet.shape}, expected {expected}")
        if not packet.size:
            return np.zeros(0, np.float32)
        samples = scaled(packet.reshape(len(packet), -1))
        rest = np.zeros(0, np.float32)
        if self._downmix is None or samples.shape[1] != self._channels:
            rest = self._ended()
            self._channels = samples.shape[1]
            self._downmix = Downmix(self._rate, self._channels)
        mixed = self._downmix.push(samples)
        return _clipped(self._resampler.push(np.concatenate([rest, mixed]) if len(rest) else mixed))

    def flush(self) -> NDArray[np.float32]:
        """End the stream; return the rest, so that ceil(N * 16000 / rate) samples have come in all."""
        self._flushed = True
        rest = self._ended()
        return _clipped(np.concatenate([self._resampler.push(rest), self._resampler.flush()]))

    def _ended(self) -> NDArray[np.float32]:
        """Return what the mix still holds back when the channels end, or others follow."""
        return np.zeros(0, np.float32) if self._downmix is None else self._downmix.flush()


def _clipped(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(samples, np.float32(-1), np.float32(1))


def checked_rate(rate: int) -> int:
    """Return a sample rate in Hz.

    Raises:
        ValueError: no whole number, or out of range.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"sample_rate: got {rate}, expected a whole number of Hz from {MIN_RATE} to {MAX_RATE}")
    return int(rate)


def scaled(samples: np.ndarray) -> NDArray[np.float32]:
    """Return a user's samples of any shape as float32 in [-1, 1].

    Raises:
        ValueError: wrong type or range, or NaN.
    """
    kind, width = samples.dtype.kind, samples.dtype.itemsize
    if kind == "f":
        if not np.isfinite(samples).all():
            raise ValueError("audio array: got NaN or infinity, expected finite samples in [-1, 1]")
        peak = float(np.abs(samples).max())
        if peak > MAX_PEAK:
            raise ValueError(f"audio array: got a peak of {peak:g}, expected -1 to 1: divide 16-bit samples by 32768")
        if peak > 1.0:
            _log.warning("audio array: peak %.3g clipped to 1", peak)
        return np.clip(samples, -1.0, 1.0).astype(np.float32)
    if kind in "iu" and width <= 4:
        half_range = float(2 ** (8 * width - 1))
        centred = samples.astype(np.float64) - (half_range if kind == "u" else 0.0)
        return (centred / half_range).astype(np.float32)
    raise ValueError(f"audio array: got {samples.dtype}, expected float or integers of 8, 16 or 32 bits")
