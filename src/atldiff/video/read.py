"""Videos in, frame by frame, always (H, W, 3) uint8 RGB the right way up."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError, InvalidDataError

from atldiff.errors import MediaError
from atldiff.timebase import FPS
from atldiff.video.frame import deinterlaced, displayed_size, to_rgb
from atldiff.video.heif import is_still
from atldiff.video.stamps import demuxed
from atldiff.video.still import check_file, on_grey, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from av.container import InputContainer
    from numpy.typing import NDArray

    _Clocked = tuple[Fraction, Fraction, av.VideoFrame]

_log = logging.getLogger(__name__)

_LOCAL_ONLY = {"protocol_whitelist": "file"}
"""Demuxer options: a playlist in a video file's clothes must not open anything over a network."""

_NOT_VIDEO = ("tty", "image2", "concat", "hls", "dash")
"""Demuxers that give frames for text, stills or playlists."""

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that know the alpha of WebM."""

_HELD_S = Fraction(1, 2)
"""A frame that is shown for longer is a picture held on purpose, not a video of few frames a second."""

_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""FFmpeg's names for the containers whose index leads to a moment; others are read from their beginning."""

_SEEK_MARGIN_S = Fraction(1, 2)
"""How long before the wanted moment decoding begins, at least."""

_RESTART_S = 1
"""Timestamps that fall back by more have started again; by less, they are broken."""

_NO_DISPLAY_TIMES = "avi"
"""FFmpeg's name for the container that counts pictures as they are stored. Where some are stored out of their order,
FFmpeg shows all of them one frame later; what wrote the file may have delayed the sound by that frame or not. With
half of it neither is off by more than the other half."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file states about itself.

    width, height: pixels as displayed, square and upright. fps: mean frames a second. duration_s: seconds from the
    first frame that decodes to the end, if known.
    start_s: timestamp in seconds of the first frame that decodes, on the clock that the file's sound is on as well.
    """

    width: int
    height: int
    fps: Fraction
    duration_s: Fraction | None
    has_audio: bool
    start_s: Fraction = Fraction(0)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a video: a stream of several frames. Moving GIFs are; cover art and HEIC are not."""
    if not Path(path).is_file() or not Path(path).stat().st_size or is_still(path):
        return False
    try:
        with av.open(os.path.abspath(path), options=_LOCAL_ONLY) as container:
            if container.format.name in _NOT_VIDEO or container.format.name.endswith("_pipe"):
                return False
            stream = _picture_stream(container)
            frames = 0
            for packet in container.demux(stream) if stream else ():
                frames += packet.size > 0
                if frames > 1:
                    return True
    except (FFmpegError, OSError):
        pass
    return False


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return the displayed size, rate and length of a video.

    Raises:
        MediaError: the file is missing, empty or not a video.
    """
    path = Path(path)
    with opened(path) as (container, stream):
        frame = next(decoded_frames(container, stream), None)
        if frame is None:
            raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")
        height, width = displayed_size(frame, stream)
        duration, stated_start = None, Fraction(0)
        if stream.duration is not None and stream.time_base is not None:
            duration = stream.duration * stream.time_base
            stated_start = (stream.start_time or 0) * stream.time_base
        elif container.duration is not None:
            duration = Fraction(container.duration, av.time_base)
            stated_start = Fraction(container.start_time or 0, av.time_base)
        start, own_s = time_s(frame) or Fraction(0), 1 / frame_rate(stream)
        if duration is not None and start - stated_start > own_s:  # what cannot be decoded is none of it
            duration = max(duration - (start - stated_start), own_s)
        if container.format.name == _NO_DISPLAY_TIMES and stream.codec_context.has_b_frames:
            start -= own_s / 2
        return VideoInfo(width, height, frame_rate(stream), duration, bool(container.streams.audio), start)


def read_frames(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame of a video as a player shows it, (H, W, 3) uint8 sRGB, alpha laid on mid grey.

    Turned and mirrored by the display matrix, pixels made square, interlaced frames made whole, HDR tone-mapped.
    size: (height, width) to scale to; the displayed size when None.

    Raises:
        MediaError: the file is missing, empty or not a video, or no frame of it decodes.
    """
    for colour, alpha in read_rgba_frames(path, size=size):
        yield colour if alpha is None else on_grey(colour, alpha)


def read_rgba_frames(
    path: str | os.PathLike[str], *, size: tuple[int, int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
    """Yield every frame as `read_frames`, not laid on anything, with its alpha (H, W) uint8, None where all is opaque.

    Raises:
        MediaError: as `read_frames`.
    """
    path = Path(path)
    with opened(path) as (container, stream):
        empty = True
        for frame in decoded_frames(container, stream):
            yield to_rgb(frame, stream, size)
            empty = False
    if empty:
        raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")


def read_frames_at(
    path: str | os.PathLike[str], fps: Fraction | int = FPS, *, start: int = 0, stop: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video resampled to `fps` on its own timestamps.

    Frame i is the one nearest in time to i / fps seconds after the first frame, of two equally near ones the earlier;
    ceil(duration * fps) of them come. What stands for more than half a second is a held picture, which stays until
    half a mean frame interval before the next one.

    start, stop: the frames from `start` up to `stop`, or to the end, are yielded: the same as of the whole video.

    Raises:
        MediaError: as `read_frames`.
        ValueError: `fps` is not positive, or `start` is below 0.
    """
    fps = Fraction(fps)
    if fps <= 0:
        raise ValueError(f"fps: got {fps}, expected a positive number of frames a second")
    if start < 0:
        raise ValueError(f"start: got {start}, expected 0 or more")
    path = Path(path)
    most = sys.maxsize if stop is None else stop
    with _clocked(path, start / fps) as (stream, frames):
        own_s = 1 / frame_rate(stream)
        shown: av.VideoFrame | None = None
        time = length = Fraction(0)  # seconds: when `shown` is shown, and for how long if it is the last
        sent = start
        for following, its_length, frame in frames:
            if shown is not None:
                gap = following - time
                until = following - (gap if gap <= _HELD_S else min(gap, own_s)) / 2
                due = min(floor(until * fps) + 1, most)
                if sent < due:
                    picture = _shown(shown, stream)
                    for _ in range(sent, due):
                        yield picture
                    sent = due
                if sent >= most:
                    return
            shown, time, length = frame, following, its_length
        if shown is None:
            raise MediaError(f"video {path}: no frame decodes, expected a whole video file: export it again")
        due = min(ceil((time + length) * fps), most)
        if sent < due:
            picture = _shown(shown, stream)
            for _ in range(sent, due):
                yield picture


@contextmanager
def _clocked(path: Path, start_s: Fraction) -> Iterator[tuple[av.VideoStream, Iterator[_Clocked]]]:
    """Open a video for the length of a `with`; give its stream and its frames on the clock, from `start_s` or before.

    A file with an index is read from the key frame before, unless the index leads elsewhere.
    """
    if start_s > _SEEK_MARGIN_S:
        with opened(path) as (container, stream):
            frames = _sought(container, stream, start_s)
            if frames is not None:
                yield stream, frames
                return
    with opened(path) as (container, stream):
        yield stream, on_clock(decoded_frames(container, stream), 1 / frame_rate(stream))


def _sought(container: InputContainer, stream: av.VideoStream, start_s: Fraction) -> Iterator[_Clocked] | None:
    first = next(decoded_frames(container, stream), None)
    if container.format.name not in _INDEXED or first is None or first.pts is None or not first.time_base:
        return None
    origin = first.pts * first.time_base
    try:
        container.seek(floor((origin + start_s - _SEEK_MARGIN_S) / first.time_base), stream=stream)
    except FFmpegError:
        return None
    frames = on_clock(decoded_frames(container, stream), 1 / frame_rate(stream), origin)
    landed = next(frames, None)
    return None if landed is None or landed[0] > start_s else chain([landed], frames)


def on_clock(frames: Iterator[av.VideoFrame], own_s: Fraction, origin: Fraction | None = None) -> Iterator[_Clocked]:
    """Yield decoded frames with the seconds from the first one to each, growing, and the seconds that each states.

    A frame without a timestamp comes `own_s`, the mean interval, after the one before it. One that would be shown for
    no time is left out. Where timestamps start again, as in recordings glued together, time goes on. origin: the
    timestamp at time 0, that of the first frame unless given.
    """
    time: Fraction | None = None
    length = own_s
    for frame in frames:
        stamp = time_s(frame)
        if time is None:
            origin = stamp if origin is None else origin
            now = Fraction(0) if stamp is None or origin is None else stamp - origin
        elif stamp is None:
            now = time + own_s
        else:
            if origin is None:
                origin = stamp - time - own_s
            elif stamp - origin < time - _RESTART_S:
                origin = stamp - time - length
            now = stamp - origin
        if time is not None and now <= time:
            continue
        length = frame.duration * frame.time_base if frame.duration and frame.time_base else own_s
        yield now, length, frame
        time = now


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open a video for the length of a `with`; FFmpeg's errors inside become one-line MediaErrors."""
    check_file(path, "video")
    try:
        with av.open(os.path.abspath(path), options=_LOCAL_ONLY) as container:
            stream = _picture_stream(container)
            if stream is None or container.format.name in _NOT_VIDEO:
                raise MediaError(f"video {path}: got a file without a video stream, expected a video such as mp4")
            stream.thread_type = "SLICE"  # frame threads would hold a picture each
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise MediaError(f"video {path}: cannot be read ({reason(error)}), expected a video such as mp4") from None


def _picture_stream(container: InputContainer) -> av.VideoStream | None:
    """Return the first video stream that is not the cover picture of a song."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    return None


def decoded_frames(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames that decode, interlaced ones made whole; damaged packets are left out with a warning."""
    return deinterlaced(_coded_frames(container, stream))


def _coded_frames(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    damaged = 0
    decode = _decoder(stream)
    for packet in demuxed(container, stream):
        try:
            yield from decode(packet)
        except InvalidDataError:
            damaged += 1
    if damaged:
        _log.warning("video %s: %d damaged packets left out", container.name, damaged)


def _decoder(stream: av.VideoStream) -> Callable[[av.Packet], list[av.VideoFrame]]:
    """Return what decodes a stream's packets: FFmpeg's own decoders of VP8 and VP9 leave their alpha out."""
    name = _WITH_ALPHA.get(stream.codec_context.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}  # a tag of that name hides the track's own
    if name is None or tags.get("alpha_mode") != "1":
        return av.Packet.decode  # pyright: ignore[reportReturnType]
    return av.CodecContext.create(name, "r").decode  # pyright: ignore[reportAttributeAccessIssue]


def _shown(frame: av.VideoFrame, stream: av.VideoStream) -> NDArray[np.uint8]:
    colour, alpha = to_rgb(frame, stream)
    return colour if alpha is None else on_grey(colour, alpha)


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Return a stream's mean frames a second, the usual ones where it states none."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return Fraction(rate) if rate else Fraction(FPS)


def time_s(frame: av.VideoFrame) -> Fraction | None:
    """Return a frame's timestamp in seconds."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
