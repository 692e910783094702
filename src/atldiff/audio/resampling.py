"""Any sample rate and channels to 16 kHz mono.

One resampler serves files, arrays and live packets, so a stream cut anywhere gives the samples of the offline call.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

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


class MonoResampler:
    """Resample one channel block by block.

    Output m is one fixed sum over the inputs around time m / 16000 s, held back until all of them have come
    (about 1 ms at 48 kHz). At 16 kHz the samples pass through.
    """

    def __init__(self, rate: int) -> None:
        divisor = gcd(rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, rate // divisor
        self._tail = np.zeros(0, np.float64)  # inputs from index `_tail_start` on; the start is a multiple of `_down`
        self._tail_start = 0
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
        _, half = _kernel(self._up, self._down)
        return self._until(max(0, ((self._received - 1) * self._up - half) // self._down + 1))

    def flush(self) -> NDArray[np.float32]:
        """Return the rest, so that ceil(N * 16000 / rate) samples have come in all."""
        return self._until(-(-self._received * self._up // self._down))

    def _until(self, stop: int) -> NDArray[np.float32]:
        """Return outputs `_sent` to `stop` and drop the inputs that no later output needs."""
        if stop <= self._sent:
            return np.zeros(0, np.float32)
        kernel, half = _kernel(self._up, self._down)
        # upfirdn gives sum_i tail[i] * kernel[j * down - i * up]; with the tail starting at a multiple of `down`
        # and the kernel's centre padded to one, output m is entry j = m - shift of it.
        shift = self._tail_start // self._down * self._up - (len(kernel) - half - 1) // self._down
        from scipy.signal import upfirdn  # here: it takes half a second, and 16 kHz needs none of it

        rows = upfirdn(kernel, self._tail, self._up, self._down)
        missing = max(0, stop - shift - len(rows))  # past the last input's reach there is silence
        result = np.pad(rows, (0, missing))[self._sent - shift : stop - shift]
        self._sent = stop
        first_needed = max(0, (stop * self._down - half) // self._up)
        start = max(self._tail_start, first_needed // self._down * self._down)
        self._tail = self._tail[start - self._tail_start :].copy()
        self._tail_start = start
        return result.astype(np.float32)


@lru_cache(maxsize=4)
def _kernel(up: int, down: int) -> tuple[NDArray[np.float64], int]:
    """Return the low-pass kernel, led by zeros so that its centre is a multiple of `down`, and its half length."""
    from scipy.signal import firwin

    widest = max(up, down)
    half = _KERNEL_LOBES * widest
    taps = firwin(2 * half + 1, 1.0 / widest, window=("kaiser", 8.0)) * up  # pyright: ignore[reportArgumentType]
    return np.concatenate([np.zeros(-half % down), taps]), half


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
