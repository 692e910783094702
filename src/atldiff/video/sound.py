"""The sound track of an output video: packets of a file as they are, or samples encoded as the frames come."""

from __future__ import annotations

import logging
import os
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import av
import numpy as np
from av.error import FFmpegError

from atldiff.errors import MediaError
from atldiff.video.still import check_file, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer, OutputContainer
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveSound:
    """Sound that is still coming while the frames are written.

    blocks: (n, channels) float32 in [-1, 1]; an empty one says that there is no more for now. They have to be as far as
    the frames, and a fifth of a second further for the encoder's sake; whatever is missing goes in later. rate: Hz.
    """

    blocks: Iterator[NDArray[np.float32]]
    rate: int
    channels: int


Sound: TypeAlias = "Path | tuple[NDArray[np.float32], int] | LiveSound"
"""A file with an audio track, samples (N, channels) in [-1, 1] and their rate in Hz, or samples still to come."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OPUS_RATE = 48_000
_BIT_RATE = 160_000

_LARGEST_JITTER_S = Fraction(1, 20)
"""A packet further than this from the end of the one before leaves a gap, which is closed."""

_ARRAY_BLOCK = 16_384
_LOCAL_ONLY = {"protocol_whitelist": "file"}


def check_sound(audio: str | os.PathLike[str] | tuple[np.ndarray, int] | LiveSound) -> Sound:
    """Return what to play, in one form: a path, (N, channels) float32 samples and their rate, or sound as it is.

    Raises:
        MediaError: the file is missing, empty, not media or without an audio track.
        ValueError: samples of another shape or type, or a rate that is no positive whole number.
    """
    if isinstance(audio, LiveSound):
        return audio
    if isinstance(audio, tuple):
        samples, rate = audio
        columns = samples[:, None] if samples.ndim == 1 else samples
        if columns.ndim != 2 or not 1 <= columns.shape[1] <= max(_LAYOUTS) or columns.dtype.kind != "f":
            got = f"{samples.shape} {samples.dtype}"
            raise ValueError(f"audio of the video: got {got}, expected (N, channels) float32 with 1 to 8 channels")
        if rate <= 0 or int(rate) != rate:
            raise ValueError(f"audio of the video: got a rate of {rate}, expected a whole number of Hz above 0")
        return columns.astype(np.float32, copy=False), int(rate)
    path = Path(audio)
    with _opened(path):
        return path


def add_sound(
    container: OutputContainer, audio: Sound, codec: str, duration: Fraction | None
) -> Iterator[av.Packet | None]:
    """Add a sound track to `container` and return its packets, made one by one as they are asked for.

    None stands where sound that is still coming has no packet for now.

    An AAC track that goes into an AAC container is copied, whole packets up to `duration` seconds; anything else is
    encoded, cut or padded with silence to exactly `duration` seconds. codec: "aac" or "libopus".
    """
    if isinstance(audio, Path):
        source = _opened(audio)
        context = source.streams.audio[0].codec_context
        if codec == "aac" and context.name == "aac" and context.extradata:  # raw ADTS packets do not fit as they are
            out = container.add_stream_from_template(source.streams.audio[0])
            return _copied(source, out, duration)
        source.close()
    rate, channels = sound_format(audio)
    if codec == "libopus":
        rate, channels = _OPUS_RATE, min(channels, 2)
    elif rate not in _AAC_RATES:
        rate = min((known for known in _AAC_RATES if known > rate), default=_OPUS_RATE)
    track = cast("av.AudioStream", container.add_stream(codec, rate=rate, layout=_LAYOUTS[channels]))
    track.codec_context.bit_rate = min(_BIT_RATE, 5 * rate * channels)  # an AAC frame holds at most 6 bits a sample
    track.codec_context.time_base = Fraction(1, rate)
    return _encoded(track, sound_blocks(audio, rate, channels, duration))


def sound_format(audio: Sound) -> tuple[int, int]:
    """Return the sample rate and the number of channels to write `audio` with, without resampling if possible."""
    if isinstance(audio, Path):
        with _opened(audio) as source:
            context = source.streams.audio[0].codec_context
            rate, channels = context.sample_rate, context.channels
    elif isinstance(audio, LiveSound):
        rate, channels = audio.rate, audio.channels
    else:
        rate, channels = audio[1], audio[0].shape[1]
    return rate, channels if channels <= 6 else 2  # AAC has no 6.1, PyAV no frame of eight planes


def sound_blocks(audio: Sound, rate: int, channels: int, duration: Fraction | None) -> Iterator[NDArray[np.float32]]:
    """Yield `audio` as (channels, n) float32 blocks at `rate` Hz, round(duration * rate) samples in all if given."""
    left = None if duration is None else round(duration * rate)
    frames: Iterator[av.AudioFrame | None]
    if isinstance(audio, Path):
        frames = _file_frames(audio)
    elif isinstance(audio, LiveSound):
        frames = (_array_frame(block, audio.rate) if block.size else None for block in audio.blocks)
    else:
        frames = _array_frames(*audio)
    for block in _converted(frames, _LAYOUTS[channels], rate):
        if left is None:
            yield block
            continue
        if left <= 0:
            return
        yield block[:, :left]
        left -= block.shape[1]
    while left is not None and left > 0:
        silence = min(left, _ARRAY_BLOCK)
        yield np.zeros((channels, silence), np.float32)
        left -= silence


def write_wav(path: Path, audio: Sound, duration: Fraction | None) -> None:
    """Write `audio` as 16-bit PCM at its own rate."""
    rate, channels = sound_format(audio)
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        for block in sound_blocks(audio, rate, channels, duration):
            levels = np.clip(np.rint(block.T * 32768.0), -32768, 32767).astype("<i2")
            file.writeframes(np.ascontiguousarray(levels).tobytes())


def _opened(path: Path) -> InputContainer:
    check_file(path, "audio")
    try:
        container = av.open(os.path.abspath(path), options=_LOCAL_ONLY)
    except (FFmpegError, OSError) as error:
        raise MediaError(f"audio {path}: cannot be read ({reason(error)}), expected an audio or video file") from None
    if not container.streams.audio:
        container.close()
        raise MediaError(f"audio {path}: got a file without an audio track, expected speech: choose another")
    return container


def _copied(source: InputContainer, out: av.AudioStream, duration: Fraction | None) -> Iterator[av.Packet]:
    """Yield a track's packets, shifted so that its first audible sample is at 0 and without gaps between them.

    Gaps are closed because the frames were made from the decoded samples, which know of none.
    """
    stream = source.streams.audio[0]
    tick = stream.time_base or Fraction(1, stream.codec_context.sample_rate)
    shift = stream.start_time
    expected: int | None = None
    with source:
        try:
            for packet in source.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                shift = packet.pts if shift is None else shift
                if expected is not None and abs(packet.pts - shift - expected) * tick > _LARGEST_JITTER_S:
                    shift = packet.pts - expected
                start, length = packet.pts - shift, packet.duration or 0
                expected = start + length if length else None
                if duration is not None:
                    end = round(duration / tick)
                    if start >= end:
                        return
                    packet.duration = min(length, end - start)
                packet.pts = packet.dts = start
                packet.stream = out
                yield packet
        except (FFmpegError, OSError) as error:
            _log.warning("audio %s: damaged (%s); the sound track ends early", source.name, reason(error))


def _encoded(track: av.AudioStream, blocks: Iterator[NDArray[np.float32]]) -> Iterator[av.Packet | None]:
    rate, layout = track.codec_context.sample_rate, track.codec_context.layout.name
    position = 0
    for block in blocks:
        if not block.size:
            yield None
            continue
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
        position += block.shape[1]
        yield from track.encode(frame)
    yield from track.encode(None)


def _array_frames(samples: NDArray[np.float32], rate: int) -> Iterator[av.AudioFrame]:
    for start in range(0, len(samples), _ARRAY_BLOCK):
        yield _array_frame(samples[start : start + _ARRAY_BLOCK], rate)


def _array_frame(samples: NDArray[np.float32], rate: int) -> av.AudioFrame:
    packed = np.ascontiguousarray(samples).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=_LAYOUTS[samples.shape[1]])
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    return frame


def _file_frames(path: Path) -> Iterator[av.AudioFrame]:
    with _opened(path) as source:
        try:
            yield from source.decode(source.streams.audio[0])
        except (FFmpegError, OSError) as error:
            _log.warning("audio %s: damaged (%s); silence follows", path, reason(error))


def _converted(frames: Iterator[av.AudioFrame | None], layout: str, rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield frames of any format as (channels, n) float32 blocks of one layout and rate; empty ones where none is."""
    resampler: av.AudioResampler | None = None
    form: tuple[str, str, int] | None = None
    for frame in frames:
        if frame is None:
            yield np.zeros((0, 0), np.float32)
            continue
        frame.pts = None  # samples are counted, timestamps of the source are not followed
        own = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or own != form:  # a track may change its rate midway
            yield from _drained(resampler)
            resampler, form = av.AudioResampler("fltp", layout, rate), own
        for converted in resampler.resample(frame):
            yield cast("NDArray[np.float32]", converted.to_ndarray())
    yield from _drained(resampler)


def _drained(resampler: av.AudioResampler | None) -> Iterator[NDArray[np.float32]]:
    for converted in resampler.resample(None) if resampler else ():
        yield cast("NDArray[np.float32]", converted.to_ndarray())
