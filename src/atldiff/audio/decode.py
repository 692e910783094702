"""An audio track of a file, decoded block by block: what is said in it, and when it is said on a video's clock."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

from atldiff.audio.channels import Downmix, places_of
from atldiff.audio.resampling import MAX_CHANNELS, MonoResampler, scaled
from atldiff.audio.timeline import Block, Timeline
from atldiff.errors import MediaError
from atldiff.media.packets import decoded, reason
from atldiff.media.tracks import open_audio
from atldiff.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from atldiff.media.tracks import AudioTrack, OpenedAudio

_log = logging.getLogger(__name__)

_SHORTEST_REMAINDER_S = Fraction(1, 10)
"""A damaged file is used when at least this much of it decodes."""

_MOST_PLANES = 7
"""PyAV 18 reads past its array of planes when a planar frame of more channels becomes a numpy array."""


def decode(path: Path, track: AudioTrack = None) -> tuple[NDArray[np.float32], int, bool]:
    """Return what an audio track says, (N,) float32 in [-1, 1] at 16 kHz mono, its number, and whether all decodes.

    Frames are joined as they decode, whatever their timestamps say.

    Raises:
        MediaError: not audio, no such track, or damaged beyond use.
    """
    opened = open_audio(path, track)
    with opened.container:
        for line in (opened.choice, opened.oddities):
            if line:
                _log.warning("audio %s: %s", path, line)
        samples, intact = _heard(path, opened, None)
    return samples, opened.number, intact


def soundtrack(path: Path, start_s: Fraction, longest_s: Fraction) -> NDArray[np.float32]:
    """Return the default audio track on a video's clock, (N,) float32 in [-1, 1] at 16 kHz mono.

    The first sample is at `start_s` of the file's timestamps, that of the first frame. Sound before it is left out;
    silence stands where there is none, before a track that starts later and in gaps between its packets. At most
    `longest_s` seconds come, and none of a track that ends before the first frame.

    Raises:
        MediaError: as `decode`.
    """
    opened = open_audio(path)
    timeline = Timeline(start_s + longest_s)
    with opened.container:
        samples, _ = _heard(path, opened, timeline)
    shift = round((timeline.first_s - start_s) * SAMPLE_RATE)
    longest = round(longest_s * SAMPLE_RATE)
    if shift >= longest:
        return np.zeros(0, np.float32)
    return (np.pad(samples, (shift, 0)) if shift >= 0 else samples[-shift:])[:longest]


def _heard(path: Path, opened: OpenedAudio, timeline: Timeline | None) -> tuple[NDArray[np.float32], bool]:
    """Return the samples of a track, and whether all of it decodes. Without a timeline, frames are just joined."""
    damage = [opened.damage] if opened.damage else []
    mixer = _Mixer()
    blocks = _blocks(opened, damage)
    try:
        for block in blocks if timeline is None else timeline.lay(blocks):
            if len(block.channels) > MAX_CHANNELS:
                got = f"{len(block.channels)} channels, expected at most {MAX_CHANNELS}"
                raise MediaError(f"audio {path}: got {got}: mix it down to stereo")
            if not np.isfinite(block.samples).all():
                raise MediaError(f"audio {path}: got NaN samples, expected finite ones: export it again")
            mixer.push(block)
    except (FFmpegError, OSError) as error:
        damage.append(reason(error))
    samples = mixer.flush()
    got = Fraction(len(samples), SAMPLE_RATE)
    promised = _promised_s(opened)
    if not damage and timeline is None and promised is not None and got + _SHORTEST_REMAINDER_S < promised:
        damage.append(f"the file promises {float(promised):.2f} s")
    if damage and got < _SHORTEST_REMAINDER_S:
        raise MediaError(f"audio {path}: damaged ({damage[0]}), less than 0.1 s of it decodes: export it again")
    if not len(samples):
        raise MediaError(f"audio {path}: got an audio track of zero length, expected speech: choose another file")
    if damage:
        _log.warning("audio %s: damaged (%s); using the %.2f s that decode", path, damage[0], float(got))
    return samples, not damage


class _Mixer:
    """Blocks of any rate and channels, which may change midway, to 16 kHz mono, a second at a time."""

    def __init__(self) -> None:
        self._held: list[NDArray[np.float32]] = []
        self._held_samples = 0
        self._parts: list[NDArray[np.float32]] = []
        self._form: tuple[int, tuple[str, ...]] | None = None
        self._downmix = Downmix(SAMPLE_RATE, 1)
        self._resampler = MonoResampler(SAMPLE_RATE)
        self._may_add_up = False

    def push(self, block: Block) -> None:
        form = (block.rate, block.channels)
        if form != self._form:  # a few broadcasts do
            self._end()
            if self._form is None or block.rate != self._form[0]:
                self._parts.append(self._resampler.flush())
                self._resampler = MonoResampler(block.rate)
            places, assumed = places_of(block.channels)
            self._downmix, self._form = Downmix(block.rate, len(places), places, assumed=assumed), form
            self._may_add_up |= self._downmix.may_add_up
        self._held.append(block.samples)
        self._held_samples += len(block.samples)
        if self._held_samples >= block.rate:
            self._mix()

    def flush(self) -> NDArray[np.float32]:
        """Return all samples, in [-1, 1]: where loud channels add up to more, the whole is as much softer."""
        self._end()
        samples = np.concatenate([*self._parts, self._resampler.flush()])
        peak = float(np.abs(samples).max(initial=0.0))
        if self._may_add_up and peak > 1.0:
            samples /= np.float32(peak)
        return np.clip(samples, -1.0, 1.0)

    def _mix(self) -> None:
        if self._held:
            samples = np.clip(np.concatenate(self._held), np.float32(-1), np.float32(1))
            self._parts.append(self._resampler.push(self._downmix.push(samples)))
            self._held, self._held_samples = [], 0

    def _end(self) -> None:
        self._mix()
        self._parts.append(self._resampler.push(self._downmix.flush()))


def _blocks(opened: OpenedAudio, damage: list[str]) -> Iterator[Block]:
    """Yield a track's blocks, leaving out packets that do not decode; `damage` says why."""
    held: av.AudioFrame | None = None
    for frame in decoded(opened.container, opened.stream, damage):
        if held is not None:
            yield _block(held, held.samples)
        held = frame
    if held is not None:
        # AAC pads its last frame; the container's duration of that frame tells where the speech ends.
        length = int(held.duration or 0)
        exact = Fraction(held.time_base or 0) == Fraction(1, held.sample_rate) and 0 < length < held.samples
        yield _block(held, length if exact else held.samples)


def _block(frame: av.AudioFrame, samples: int) -> Block:
    time_s = None if frame.pts is None or not frame.time_base else Fraction(frame.pts * frame.time_base)
    channels = tuple(channel.name for channel in frame.layout.channels)
    if frame.format.is_planar and len(channels) > _MOST_PLANES:
        packer = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
        (frame,) = packer.resample(frame)
    raw: np.ndarray = frame.to_ndarray()
    rows = (raw.T if frame.format.is_planar else raw.reshape(-1, len(channels)))[:samples]  # (n, channels)
    if rows.dtype.kind == "f":
        rows = rows.astype(np.float32)  # not `scaled`: loud float files are legal and get clipped
    else:
        rows = scaled(rows if rows.dtype.itemsize <= 4 else (rows >> 32).astype(np.int32))
    return Block(time_s, frame.sample_rate, channels, rows)


def _promised_s(opened: OpenedAudio) -> Fraction | None:
    """Return the track's length where the format states it exactly; raw mp3 and aac only allow an estimate."""
    stream = opened.stream
    if stream.duration is None or not stream.time_base or opened.container.format.name in ("mp3", "aac"):
        return None
    return stream.duration * stream.time_base
