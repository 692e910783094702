"""The sound track of an output video: packets of a file as they are, or samples encoded as the frames come."""

from __future__ import annotations

import logging
import os
import wave
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import av
import numpy as np
from av.error import FFmpegError

from atldiff.media.packets import decoded, reason
from atldiff.media.tracks import open_audio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import OutputContainer
    from numpy.typing import NDArray

    from atldiff.media.tracks import OpenedAudio

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


@dataclass(frozen=True, slots=True)
class SoundFile:
    """An audio track of a file: its number among them, from 0; None for the default one.

    intact: whether all of it decodes; one that does not is never copied, so that no more is heard than was before.
    """

    path: Path
    track: int | None = None
    intact: bool = True


Sound: TypeAlias = "SoundFile | tuple[NDArray[np.float32], int] | LiveSound"
"""A file's audio track, samples (N, channels) in [-1, 1] and their rate in Hz, or samples still to come."""

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OPUS_RATE = 48_000
_BIT_RATE = 160_000

_AAC_PACKETS = (960, 1024, 1920, 2048)
"""Samples a packet of AAC may have."""
_PACKETS_LOOKED_AT = 9
"""Packets that show how many it has: the first one may state another length."""

_ARRAY_BLOCK = 16_384


def check_sound(audio: str | os.PathLike[str] | SoundFile | tuple[np.ndarray, int] | LiveSound) -> Sound:
    """Return what to play, in one form: a file, (N, channels) float32 samples and their rate, or sound as it is.

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
    file = audio if isinstance(audio, SoundFile) else SoundFile(Path(audio))
    with open_audio(file.path, file.track).container:
        return file


def add_sound(
    container: OutputContainer, audio: Sound, codec: str, duration: Fraction | None
) -> Iterator[av.Packet | None]:
    """Add a sound track to `container` and return its packets, made one by one as they are asked for.

    None stands where sound that is still coming has no packet for now.

    An AAC track that goes into an AAC container is copied, whole packets up to `duration` seconds; anything else is
    encoded, cut or padded with silence to exactly `duration` seconds. codec: "aac" or "libopus".
    """
    if isinstance(audio, SoundFile) and codec == "aac" and audio.intact:
        source = open_audio(audio.path, audio.track)
        context = source.stream.codec_context
        if context.name == "aac" and context.extradata:  # raw ADTS packets do not fit as they are
            return _copied(source, container.add_stream_from_template(source.stream), duration)
        source.container.close()
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
    if isinstance(audio, SoundFile):
        source = open_audio(audio.path, audio.track)
        with source.container:
            context = source.stream.codec_context
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
    if isinstance(audio, SoundFile):
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


def _copied(source: OpenedAudio, out: av.AudioStream, duration: Fraction | None) -> Iterator[av.Packet]:
    """Yield a track's packets, shifted so that its first audible sample is at 0 and one follows upon the other.

    Gaps are closed, however small, because the frames were made from the decoded samples, which know of none. For the
    same reason packets that a player leaves out are left out.
    """
    stream = source.stream
    rate = stream.codec_context.sample_rate
    tick = Fraction(stream.time_base or Fraction(1, rate))
    position: Fraction | None = None
    with source.container:
        try:
            packets = (packet for packet in source.container.demux(stream) if packet.size and packet.pts is not None)
            first = list(islice(packets, _PACKETS_LOOKED_AT))
            whole = _packet_length(first, tick, rate)
            for packet in chain(first, packets):
                if position is None:
                    start = packet.pts if stream.start_time is None else stream.start_time
                    skipped = ((packet.pts or 0) - (start or 0)) * tick
                    position = round(skipped / whole) * whole
                    position = position if abs(position - skipped) < tick else skipped  # as exactly as can be known
                if packet.is_discard and position >= 0:
                    continue
                length = whole
                if duration is not None:
                    if position >= duration:
                        return
                    length = min(length, duration - position)
                packet.pts = packet.dts = round(position * rate)
                packet.duration, packet.time_base = round(length * rate), Fraction(1, rate)
                position += length
                packet.stream = out
                yield packet
        except (FFmpegError, OSError) as error:
            _log.warning("audio %s: damaged (%s); the sound track ends early", source.container.name, reason(error))


def _packet_length(packets: list[av.Packet], tick: Fraction, rate: int) -> Fraction:
    """Return how long each packet of an AAC track lasts, from what most of its first ones state, perhaps rounded."""
    stated = sorted((packet.duration or 0) * tick * rate for packet in packets)
    usual = stated[len(stated) // 2] if stated else 0
    return Fraction(min(_AAC_PACKETS, key=lambda samples: abs(samples - usual)) if usual else _AAC_PACKETS[1], rate)


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


def _file_frames(file: SoundFile) -> Iterator[av.AudioFrame]:
    source = open_audio(file.path, file.track)
    with source.container:
        try:
            for frame in decoded(source.container, source.stream):
                yield _placed(frame)
        except (FFmpegError, OSError) as error:
            _log.warning("audio %s: damaged (%s); silence follows", file.path, reason(error))


def _placed(frame: av.AudioFrame) -> av.AudioFrame:
    """Return a frame of channels without places, such as those of most WAV files, as one that keeps them all."""
    channels = frame.layout.channels
    if not 3 <= len(channels) <= 6 or any(channel.name != "NONE" for channel in channels):
        return frame
    known = av.AudioFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name, layout=_LAYOUTS[len(channels)])
    known.sample_rate = frame.sample_rate
    return known


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
