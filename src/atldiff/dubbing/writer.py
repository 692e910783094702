"""A dubbed video on disk: new pictures and sound, the video's own timestamps, tags and other streams.

Pictures are encoded in stretches that know nothing of one another. So what was written before an interruption can be
kept, packet by packet, and the rest is what it would have been.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError

from atldiff.errors import MediaError
from atldiff.files import Workplace, left_behind, write_text
from atldiff.interrupt import held
from atldiff.video.formats import check_output, format_of, is_folder
from atldiff.video.sound import SoundFile, add_sound, check_sound
from atldiff.video.still import reason
from atldiff.video.write import FRAGMENTS, encoder_options, put_index_in_front

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from atldiff.dubbing.kept import KeptStreams
    from atldiff.dubbing.timing import Showing
    from atldiff.video.footage import Footage
    from atldiff.video.planar import Planar
    from atldiff.video.sound import Sound

_log = logging.getLogger(__name__)

STRETCH_S = 4
"""Seconds of pictures that are encoded by themselves."""
STATE = "state.json"
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")
_THREADS = 2
_PLAYABLE_S = 1


def check_dub_output(path: str | os.PathLike[str]) -> None:
    """Raise unless a dubbed video can be written to `path`.

    Raises:
        MediaError: a format without sound, or `check_output` raises.
    """
    if is_folder(path) or Path(path).suffix.lower() not in SUFFIXES:
        got = "a folder of frames" if is_folder(path) else f"suffix {Path(path).suffix!r}"
        raise MediaError(f"output {path}: got {got}, expected a video with sound: {', '.join(SUFFIXES)}")
    check_output(path)


class Part:
    """What an interrupted dub has left: NAME.partial.SUFFIX and, beside it, NAME.partial.json."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.stem}.partial{target.suffix}")
        self.state = self.path.with_suffix(".json")

    def rescue(self) -> None:
        """Take over what a dub left that was killed outright."""
        with left_behind(self.target) as folders:
            for folder in folders:
                made, state = folder / self.target.name, folder / STATE
                known = self.path.stat().st_size if self.path.exists() else 0
                if state.is_file() and made.is_file() and made.stat().st_size > known:
                    made.replace(self.path)
                    state.replace(self.state)

    def read(self) -> dict[str, Any] | None:
        """Return what it was made of, None where there is nothing to go on from."""
        if not self.path.is_file() or not self.state.is_file():
            return None
        try:
            found = json.loads(self.state.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return None
        return found if isinstance(found, dict) else None

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of its pictures, as far as they are whole."""
        with suppress(FFmpegError, OSError, IndexError), av.open(os.path.abspath(self.path)) as container:
            for packet in container.demux(container.streams.video[0]):  # perhaps its end was cut off
                if packet.size and packet.pts is not None:
                    yield _as_encoded(packet) if packet.stream.codec_context.name == "h264" else packet

    def remove(self) -> None:
        """Delete it."""
        for path in (self.path, self.state):
            with suppress(OSError):
                path.unlink()


def _as_encoded(packet: av.Packet) -> av.Packet:
    """Return a packet of H.264 as encoders give it: containers put the lengths of its parts where start codes were."""
    data = bytearray(bytes(packet))
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        data[at : at + 4] = b"\0\0\0\1"
        at += 4 + length
    made = av.Packet(bytes(data))
    made.pts, made.dts, made.duration, made.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    made.is_keyframe = packet.is_keyframe
    return made


class DubWriter:
    """Writes the frames of a dub in order; use it as a context manager. Its end is as that of `VideoWriter`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        footage: Footage,
        shown: Showing,
        sound: Sound,
        *,
        kept: KeptStreams | None,
        state: dict[str, Any],
        part: Part | None = None,
        keep_part: bool = True,
    ) -> None:
        """Check everything; no file appears before the first frame.

        state: what the frames are made of, as JSON. part: an interrupted dub of the same state to go on from; `frames`
        tells how many of its frames are kept.

        Raises:
            MediaError: it cannot be written there.
        """
        check_dub_output(path)
        self.path = Path(path)
        self._footage, self._shown, self._kept_streams = footage, shown, kept
        form = format_of(path)
        assert form is not None
        self._form, self._state, self._keep_part = form, state, keep_part
        self._sound = check_sound(sound)
        if isinstance(self._sound, SoundFile) and self.path.exists() and self.path.samefile(self._sound.path):
            raise MediaError(f"output {self.path}: would replace its own audio file: choose another -o")
        self._part = Part(self.path)
        self._place = Workplace(self.path)
        self._stretch = max(1, round(STRETCH_S * footage.rate))
        self._encoder: av.VideoCodecContext | None = None
        self._last_dts: int | None = None
        self._open, self._begun = True, False
        there = 0 if part is None else sum(1 for _ in part.packets())
        self.frames = min(there, len(shown.order) - 1) // self._stretch * self._stretch
        self._resumed = part is not None

    def __enter__(self) -> DubWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: Planar) -> None:
        """Encode the next frame, and what belongs to it of the other streams.

        Raises:
            MediaError: the disk is full or the encoder failed.
        """
        try:
            with held():
                if not self._begun:
                    self._begin()
                if self.frames % self._stretch == 0:
                    self._end_stretch()
                    self._encoder = self._new_encoder()
                assert self._encoder is not None
                picture = self._picture(frame)
                self._mux(self._encoder.encode(picture))
                self.frames += 1
                self._mux_others(self._time_s(self.frames))
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from None

    def close(self) -> None:
        """Finish the file and move it onto its final name.

        Raises:
            MediaError: writing failed; what there is was kept as `abort` keeps it.
        """
        if not self._open:
            return
        try:
            with held():
                if not self._begun:
                    self._begin()
                self._end_stretch()
                self._mux_others(None)
                self._container.close()
            if self._form.fragmented:
                put_index_in_front(self._place.path, self._form.muxer)
            with held():
                self._place.publish(self.path)
                self._open = False
            if self._resumed:
                self._part.remove()
        except (FFmpegError, OSError) as error:
            self.abort()
            raise self._failure(error) from None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: leave nothing under the final name, keep at least one second as NAME.partial.SUFFIX."""
        if not self._open:
            return
        self._open = False
        with held():
            if self._begun:
                with suppress(FFmpegError, OSError):
                    self._end_stretch()
                with suppress(FFmpegError, OSError):
                    self._container.close()
            try:
                if self._begun and self._keep_part and self._time_s(self.frames) >= _PLAYABLE_S:
                    state = json.dumps(self._state)
                    self._place.publish(self._part.path)
                    write_text(self._part.state, state, tidy=False)
                    kept = f"{self.frames} frames are kept in {self._part.path}; --resume goes on from there"
                    _log.warning("output %s: not finished; %s", self.path, kept)
            except OSError as error:
                _log.warning("output %s: its %d frames cannot be kept (%s)", self.path, self.frames, reason(error))
            finally:
                self._place.discard()

    def _begin(self) -> None:
        self._place.make()
        self._begun = True
        (self._place.folder / STATE).write_text(json.dumps(self._state), encoding="utf-8")
        self._container = av.open(
            os.path.abspath(self._place.path), "w", format=self._form.muxer,
            container_options=FRAGMENTS if self._form.fragmented else {},
        )  # fmt: skip
        self._stream = cast("av.VideoStream", self._container.add_stream(self._form.video, rate=self._footage.rate))
        self._set_up(self._stream.codec_context)
        self._stream.time_base = self._footage.tick
        duration = self._shown.end * self._footage.tick
        self._others = [_Others(add_sound(self._container, self._sound, self._form.audio or "aac", duration))]
        if self._kept_streams is not None:
            self._others.append(_Others(self._kept_streams.add_to(self._container, self._form, duration)))
        for number, packet in enumerate(islice(self._part.packets() if self.frames else (), self.frames), 1):
            self._mux([packet])
            self._mux_others(self._time_s(number))

    def _new_encoder(self) -> av.VideoCodecContext:
        context = cast("av.VideoCodecContext", av.CodecContext.create(self._form.video, "w"))
        self._set_up(context)
        context.flags |= int(Flags.global_header)
        return context

    def _set_up(self, context: av.VideoCodecContext) -> None:
        footage, tags = self._footage, self._footage.tags
        context.height, context.width = footage.size
        context.pix_fmt = "yuvj420p" if tags.full and self._form.video == "libx264" else "yuv420p"
        context.framerate = footage.rate
        context.time_base = footage.tick
        context.sample_aspect_ratio = footage.aspect
        context.gop_size = max(1, round(footage.rate))
        context.thread_count = _THREADS
        context.color_primaries, context.color_trc, context.colorspace = tags.primaries, tags.transfer, tags.matrix
        context.color_range = tags.stated_range
        context.options = encoder_options(self._form)

    def _picture(self, frame: Planar) -> av.VideoFrame:
        tags = self._footage.tags
        made = av.VideoFrame(frame.size[1], frame.size[0], "yuvj420p" if tags.full else "yuv420p")
        for plane, levels in zip(made.planes, frame.planes, strict=True):
            width = levels.shape[1]
            view = np.frombuffer(cast("memoryview", plane), np.uint8).reshape(-1, plane.line_size)
            view[: levels.shape[0], :width] = levels
        made.color_primaries, made.color_trc, made.colorspace = tags.primaries, tags.transfer, tags.matrix
        made.color_range = tags.stated_range
        made.time_base = self._footage.tick
        made.pts = int(self._shown.ticks[self.frames])
        made.duration = self._ends(self.frames) - made.pts
        return made

    def _ends(self, index: int) -> int:
        return int(self._shown.ticks[index + 1]) if index + 1 < len(self._shown.ticks) else self._shown.end

    def _time_s(self, frames: int) -> Fraction:
        return (self._ends(frames - 1) if frames else 0) * self._footage.tick

    def _end_stretch(self) -> None:
        if self._encoder is not None:
            self._mux(self._encoder.encode(None))
            self._encoder = None

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            dts = packet.dts if packet.dts is not None else packet.pts or 0
            base = Fraction(packet.time_base or self._footage.tick)
            dts = round(dts * base / self._footage.tick)
            if self._last_dts is not None and dts <= self._last_dts:
                dts = self._last_dts + 1  # two stretches overlap where frames are shown for unequal times
            packet.pts = round((packet.pts or 0) * base / self._footage.tick)
            packet.duration = round((packet.duration or 0) * base / self._footage.tick)
            packet.dts, packet.time_base = min(dts, packet.pts), self._footage.tick
            self._last_dts = packet.dts
            packet.stream = self._stream
            self._container.mux(packet)

    def _mux_others(self, until_s: Fraction | None) -> None:
        for others in self._others:
            for packet in others.before(until_s):
                self._container.mux(packet)

    def _failure(self, error: BaseException) -> MediaError:
        return MediaError(f"output {self.path}: cannot be written ({reason(error)}): check the disk and the frame size")


class _Others:
    """Packets of other streams, asked for as far as the pictures are."""

    def __init__(self, packets: Iterator[av.Packet | None]) -> None:
        self._packets, self._next, self._over = packets, None, False

    def before(self, until_s: Fraction | None) -> Iterator[av.Packet]:
        while not self._over:
            if self._next is None:
                self._next = next(self._packets, None)
                if self._next is None:
                    self._over = True
                    return
            packet: av.Packet = self._next
            stamp = packet.dts if packet.dts is not None else packet.pts
            if until_s is not None and stamp is not None and stamp * Fraction(packet.time_base) >= until_s:
                return
            self._next = None
            yield packet
