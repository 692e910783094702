"""Speech in: any audio or video file, or an array, to 16 kHz mono float32."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.decode import decode, soundtrack
from atldiff.audio.resampling import MAX_CHANNELS, MAX_RATE, MIN_RATE, PacketResampler, checked_rate, scaled
from atldiff.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from fractions import Fraction

    from numpy.typing import NDArray

    from atldiff.media.tracks import AudioTrack

__all__ = [
    "MAX_CHANNELS",
    "MAX_RATE",
    "MIN_RATE",
    "Audio",
    "PacketResampler",
    "load_audio",
    "load_soundtrack",
    "resample",
]

_BLOCK_S = 4
"""Seconds of an array that are resampled at once, which bounds the float64 working memory."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Speech as the models hear it, and what to put into the output's sound track.

    samples: (N,) float32 in [-1, 1], 16 kHz mono.
    origin: the file whose audio track goes into the output untouched; None for arrays. track: the number of that
        track among the file's, from 0. intact: whether all of it decodes.
    original: (N', channels) float32 in [-1, 1] at `original_rate`, what to encode for arrays; None for files.
    """

    samples: NDArray[np.float32]
    origin: Path | None = None
    original: NDArray[np.float32] | None = None
    original_rate: int | None = None
    track: int = 0
    intact: bool = True

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not len(self.samples):
            raise ValueError(
                f"audio samples: got {self.samples.shape} {self.samples.dtype}, expected (N,) float32 with N > 0: "
                "make them with `load_audio`"
            )


def load_audio(
    source: str | os.PathLike[str] | np.ndarray | Audio,
    *,
    sample_rate: int | None = None,
    audio_track: AudioTrack = None,
) -> Audio:
    """Load speech as 16 kHz mono.

    Channels are mixed down by their places as FFmpeg does it, those of an array to their mean; where they cancel in
    that, to their difference or the strongest of them (`channels.Downmix`).

    Args:
        source: a file with an audio track, or samples (N,), (N, channels) or (channels, N) with at most 8 channels;
            integers are scaled by their type's range, floats lie in [-1, 1]. An `Audio` is returned as it is.
        sample_rate: Hz, of an array only; 16 000 when left out.
        audio_track: of a file with several, its number from 0 or its language, such as `eng`; the one marked as
            default when left out, or else the first.

    Raises:
        MediaError: the file is missing, not audio, without an audio track, without that one, or empty.
        ValueError: the array has a wrong shape, type, range or rate, or holds NaN; or a track of something that is no
            file.
    """
    if audio_track is not None and not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"audio_track: got {audio_track!r} for {type(source).__name__}, expected it with a file only")
    if isinstance(source, Audio):
        return source
    if isinstance(source, np.ndarray):
        rate = checked_rate(SAMPLE_RATE if sample_rate is None else sample_rate)
        original = _checked_channels(source)  # (N', channels)
        return Audio(_resampled(original, rate), None, original, rate)
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"audio: got {type(source).__name__}, expected a path or a numpy array of samples")
    if sample_rate is not None:
        raise ValueError(f"sample_rate: got {sample_rate} for a file, expected None: a file states its own rate")
    path = Path(source)
    samples, number, intact = decode(path, audio_track)
    return Audio(samples, origin=path, track=number, intact=intact)


def load_soundtrack(path: str | os.PathLike[str], start_s: Fraction, *, longest_s: Fraction) -> NDArray[np.float32]:
    """Load a video's own sound in step with its frames: (N,) float32 in [-1, 1], 16 kHz mono.

    The default track, from the first frame on by the file's timestamps, with silence where it has none.

    Args:
        path: a video.
        start_s: the first frame's time, as `video.read.probe` gives it.
        longest_s: seconds after which no more is read.

    Raises:
        MediaError: as `load_audio`.
    """
    return soundtrack(Path(path), start_s, longest_s)


def resample(samples: np.ndarray, rate: int) -> NDArray[np.float32]:
    """Return `samples` at 16 kHz, mono: (ceil(N * 16000 / rate),) float32 in [-1, 1].

    samples: (N,), (N, channels) or (channels, N), as `load_audio` takes them. rate: Hz.

    Raises:
        ValueError: wrong shape, type, range or rate, or NaN.
    """
    return _resampled(_checked_channels(samples), checked_rate(rate))


def _resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampler = PacketResampler(rate)
    step = rate * _BLOCK_S
    parts = [resampler.feed(samples[i : i + step]) for i in range(0, len(samples), step)]
    return np.concatenate([*parts, resampler.flush()])


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
    return scaled(columns)
