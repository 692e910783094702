"""Speech in: any audio or video file, or an array, to 16 kHz mono float32.

One resampler serves files, arrays and live packets, so a stream cut anywhere gives the samples of the offline call.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError

from atldiff.errors import MediaError
from atldiff.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Sample rates that are taken, in Hz."""

MAX_PEAK = 4.0
"""Float samples are clipped to [-1, 1]; beyond this peak they are not audio in that range at all."""

_KERNEL_LOBES = 16
"""Zero crossings of the low-pass kernel on each side, at the lower of the two rates."""

_BLOCK_S = 4
"""Seconds of input that are resampled at once, which bounds the float64 working memory."""

_SHORTEST_REMAINDER_S = Fraction(1, 10)
"""A damaged file is used when at least this much of it decodes."""

_MOST_PLANES = 7
"""PyAV 18 reads past its array of planes when a planar frame of more channels becomes a numpy array."""

_LOCAL_ONLY = {"protocol_whitelist": "file"}
"""Demuxer options: a playlist in a media file's clothes must not open anything over a network."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Speech as the models hear it, and what to put into the output's sound track.

    samples: (N,) float32 in [-1, 1], 16 kHz mono.
    origin: the file whose first audio track goes into the output untouched; None for arrays.
    original: (N', channels) float32 in [-1, 1] at `original_rate`, what to encode for arrays; None for files.
    """

    samples: NDArray[np.float32]
    origin: Path | None = None
    original: NDArray[np.float32] | None = None
    original_rate: int | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not len(self.samples):
            raise ValueError(
                f"audio samples: got {self.samples.shape} {self.samples.dtype}, expected (N,) float32 with N > 0: "
                "make them with `load_audio`"
            )


def load_audio(source: str | os.PathLike[str] | np.ndarray | Audio, *, sample_rate: int | None = None) -> Audio:
    """Load speech as 16 kHz mono.

    Args:
        source: a file with an audio track, or samples (N,), (N, channels) or (channels, N) with at most 8 channels;
            integers are scaled by their type's range, floats lie in [-1, 1]. An `Audio` is returned as it is.
        sample_rate: Hz, of an array only; 16 000 when left out.

    Raises:
        MediaError: the file is missing, not audio, without an audio track or empty.
        ValueError: the array has a wrong shape, type, range or rate, or holds NaN.
    """
    if isinstance(source, Audio):
        return source
    if isinstance(source, np.ndarray):
        rate = _checked_rate(SAMPLE_RATE if sample_rate is None else sample_rate)
        original = _checked_channels(source)  # (N', channels)
        return Audio(_resample_mono(_mono(original), rate), None, original, rate)
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"audio: got {type(source).__name__}, expected a path or a numpy array of samples")
    if sample_rate is not None:
        raise ValueError(f"sample_rate: got {sample_rate} for a file, expected None: a file states its own rate")
    path = Path(source)
    return Audio(_decode(path), origin=path)


def resample(samples: np.ndarray, rate: int) -> NDArray[np.float32]:
    """Return `samples` at 16 kHz, mono: (ceil(N * 16000 / rate),) float32 in [-1, 1].

    samples: (N,), (N, channels) or (channels, N), as `load_audio` takes them. rate: Hz.

    Raises:
        ValueError: wrong shape, type, range or rate, or NaN.
    """
    return _resample_mono(_mono(_checked_channels(samples)), _checked_rate(rate))


class PacketResampler:
    """Resample a stream packet by packet; the samples do not depend on where the stream is cut.

    Output m is one fixed sum over the inputs around time m / 16000 s, held back until all of them have come
    (about 1 ms at 48 kHz). At 16 kHz the samples pass through.
    """

    def __init__(self, rate: int) -> None:
        """Start a stream of `rate` Hz, 1 000 to 768 000."""
        rate = _checked_rate(rate)
        divisor = gcd(rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, rate // divisor
        self._tail = np.zeros(0, np.float64)  # inputs from index `_tail_start` on; the start is a multiple of `_down`
        self._tail_start = 0
        self._received = 0
        self._sent = 0
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
        return self._feed_mono(_mono(_scaled(packet.reshape(len(packet), -1))))

    def flush(self) -> NDArray[np.float32]:
        """End the stream; return the rest, so that ceil(N * 16000 / rate) samples have come in all."""
        self._flushed = True
        return self._until(-(-self._received * self._up // self._down))

    def _feed_mono(self, packet: NDArray[np.float32]) -> NDArray[np.float32]:
        self._received += len(packet)
        if self._up == self._down:
            self._sent += len(packet)
            return packet
        self._tail = np.concatenate([self._tail, packet.astype(np.float64)])
        # Output m reaches half a kernel to the right: m * down + half <= (received - 1) * up.
        _, half = _kernel(self._up, self._down)
        return self._until(max(0, ((self._received - 1) * self._up - half) // self._down + 1))

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
        return np.clip(result, -1.0, 1.0).astype(np.float32)


@lru_cache(maxsize=4)
def _kernel(up: int, down: int) -> tuple[NDArray[np.float64], int]:
    """Return the low-pass kernel, led by zeros so that its centre is a multiple of `down`, and its half length."""
    from scipy.signal import firwin

    widest = max(up, down)
    half = _KERNEL_LOBES * widest
    taps = firwin(2 * half + 1, 1.0 / widest, window=("kaiser", 8.0)) * up  # pyright: ignore[reportArgumentType]
    return np.concatenate([np.zeros(-half % down), taps]), half


def _resample_mono(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampler = PacketResampler(rate)
    step = rate * _BLOCK_S
    parts = [resampler._feed_mono(samples[i : i + step]) for i in range(0, len(samples), step)]
    return np.concatenate([*parts, resampler.flush()])


def _checked_rate(rate: int) -> int:
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"sample_rate: got {rate}, expected a whole number of Hz from {MIN_RATE} to {MAX_RATE}")
    return int(rate)


def _checked_channels(samples: np.ndarray) -> NDArray[np.float32]:
    """Return an array of a user as (N, channels) float32 in [-1, 1]."""
    expected = f"(N,), (N, channels) or (channels, N) with at most {MAX_CHANNELS} channels"
    if samples.ndim not in (1, 2):
        raise ValueError(f"audio array: got shape {samples.shape}, expected {expected}")
    if not samples.size:
        raise ValueError(f"audio array: got no samples (shape {samples.shape}), expected {expected}")
    columns = samples[:, None] if samples.ndim == 1 else samples
    if columns.shape[1] > MAX_CHANNELS:
        columns = columns.T
    if columns.shape[1] > MAX_CHANNELS:
        raise ValueError(f"audio array: got shape {samples.shape}, expected {expected}")
    return _scaled(columns)


def _scaled(samples: np.ndarray) -> NDArray[np.float32]:
    """Return samples of any shape as float32 in [-1, 1]."""
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


def _mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over channels of (N, channels), summed in one fixed order whatever N is."""
    total = samples[:, 0].copy()
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    return total / np.float32(samples.shape[1])


def _decode(path: Path) -> NDArray[np.float32]:
    """Return the first audio track of a file as (N,) float32, 16 kHz mono, decoding block by block."""
    _check_file(path)
    parts: list[NDArray[np.float32]] = []
    damage = _riff_damage(path)
    resampler: PacketResampler | None = None
    rate = 0
    try:
        with av.open(os.path.abspath(path), options=_LOCAL_ONLY) as container:
            if not container.streams.audio:
                raise MediaError(f"audio {path}: got a file without an audio track, expected speech: choose another")
            stream = container.streams.audio[0]
            promised = _promised_s(container, stream)
            try:
                for frame_rate, block in _blocks(container, stream, damage):
                    if not np.isfinite(block).all():
                        raise MediaError(f"audio {path}: got NaN samples, expected finite ones: export it again")
                    if resampler is None or frame_rate != rate:  # a few broadcasts change their rate midway
                        parts += [] if resampler is None else [resampler.flush()]
                        rate, resampler = frame_rate, PacketResampler(frame_rate)
                    parts.append(resampler._feed_mono(_mono(np.clip(block, -1.0, 1.0))))
            except (FFmpegError, OSError) as error:
                damage.append(_reason(error))
    except (FFmpegError, OSError) as error:
        raise MediaError(
            f"audio {path}: cannot be read ({_reason(error)}), expected an audio or video file such as wav, mp3 or mp4"
        ) from None
    if resampler is not None:
        parts.append(resampler.flush())
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    got = Fraction(len(samples), SAMPLE_RATE)
    if not damage and promised is not None and got + _SHORTEST_REMAINDER_S < promised:
        damage.append(f"the file promises {float(promised):.2f} s")
    if damage and got < _SHORTEST_REMAINDER_S:
        raise MediaError(f"audio {path}: damaged ({damage[0]}), less than 0.1 s of it decodes: export it again")
    if not len(samples):
        raise MediaError(f"audio {path}: got an audio track of zero length, expected speech: choose another file")
    if damage:
        _log.warning("audio %s: damaged (%s); using the %.2f s that decode", path, damage[0], float(got))
    return samples


def _blocks(
    container: InputContainer, stream: av.AudioStream, damage: list[str]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (rate, (n, channels) float32) of a track, leaving out packets that do not decode; `damage` says why."""
    held: av.AudioFrame | None = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError as error:
            damage.append(_reason(error))
            continue
        for frame in frames:
            if held is not None:
                yield held.sample_rate, _block(held, held.samples)
            held = frame
    if held is not None:
        # AAC pads its last frame; the container's duration of that frame tells where the speech ends.
        exact = held.time_base == Fraction(1, held.sample_rate) and 0 < (held.duration or 0) < held.samples
        yield held.sample_rate, _block(held, int(held.duration or 0) if exact else held.samples)


def _block(frame: av.AudioFrame, samples: int) -> NDArray[np.float32]:
    if frame.format.is_planar and len(frame.layout.channels) > _MOST_PLANES:
        packer = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
        (frame,) = packer.resample(frame)
    raw: np.ndarray = frame.to_ndarray()
    channels = raw.T if frame.format.is_planar else raw.reshape(-1, len(frame.layout.channels))  # (n, channels)
    channels = channels[:samples]
    if channels.dtype.kind == "f":
        return channels.astype(np.float32)  # not `_scaled`: loud float files are legal and get clipped
    return _scaled(channels if channels.dtype.itemsize <= 4 else (channels >> 32).astype(np.int32))


def _promised_s(container: InputContainer, stream: av.AudioStream) -> Fraction | None:
    """Return the track's length where the format states it exactly; raw mp3 and aac only allow an estimate."""
    if stream.duration is None or stream.time_base is None or container.format.name in ("mp3", "aac"):
        return None
    return stream.duration * stream.time_base


def _riff_damage(path: Path) -> list[str]:
    """Return what is wrong with the length of a wav file, which FFmpeg silently takes from the file's size."""
    with path.open("rb") as file:
        header = file.read(8)
    promised, size = 8 + int.from_bytes(header[4:], "little"), path.stat().st_size
    if (
        header[:4] != b"RIFF" or promised >= 2**31 or promised <= size + 1
    ):  # recorders of unknown length write 2**32 - 1
        return []
    return [f"its header promises {promised} bytes, the file has {size}"]


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise MediaError(f"audio {path}: got a folder, expected an audio or video file")
    if not path.exists():
        raise MediaError(f"audio {path}: no such file, expected an audio or video file: check the path")
    if path.is_file() and not path.stat().st_size:
        raise MediaError(f"audio {path}: got an empty file (0 bytes), expected audio: record or download it again")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise MediaError(f"audio {path}: not readable, expected a regular file you may read: copy it elsewhere")


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
