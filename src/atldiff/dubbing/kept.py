"""What of a video is kept beside its pictures: subtitles, other streams that the container can hold, its own sound."""

from __future__ import annotations

import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.error import FFmpegError
from av.stream import Disposition

from atldiff.media.packets import LOCAL_ONLY, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

    from atldiff.video.formats import Format

_log = logging.getLogger(__name__)


class KeptStreams:
    """Streams of a video that go into its dub as they are, moved so that its first frame is at 0.

    sound: whether its own sound is among them, after the new one.
    """

    def __init__(self, path: Path, start_s: Fraction, *, sound: bool) -> None:
        self._path, self._start_s, self._sound = path, start_s, sound

    def add_to(self, container: OutputContainer, form: Format, duration: Fraction) -> Iterator[av.Packet]:
        """Add the streams to a file, and return their packets up to `duration` seconds in the order of the video's."""
        source = av.open(os.path.abspath(self._path), options=LOCAL_ONLY)
        container.metadata.update(_told(source.metadata))
        copies = {}
        for stream in source.streams:
            if stream.type not in ("subtitle", "audio") or (stream.type == "audio" and not self._sound):
                continue
            name = None if stream.codec_context is None else stream.codec_context.name
            if name is None or name not in container.supported_codecs:
                _log.warning(
                    "video %s: its %s stream %d (%s) cannot be kept in %s; -o with .mkv keeps most",
                    self._path, stream.type, stream.index, name or "unknown", form.muxer,
                )  # fmt: skip
                continue
            copy = container.add_stream_from_template(stream)
            copy.metadata.update(_told(stream.metadata))
            if stream.type == "audio":
                copy.disposition = Disposition(0)  # the new sound is what plays
            copies[stream.index] = copy
        return self._packets(source, copies, duration)

    def _packets(self, source: InputContainer, copies: dict[int, Stream], duration: Fraction) -> Iterator[av.Packet]:
        with source:
            streams = [source.streams[index] for index in copies]
            last: dict[int, int] = {}
            try:
                for packet in source.demux(streams) if streams else ():
                    if not packet.size or packet.pts is None or not packet.time_base:
                        continue
                    base = Fraction(packet.time_base)
                    shift = round(self._start_s / base)
                    starts, ends = packet.pts - shift, packet.pts - shift + (packet.duration or 0)
                    if starts * base >= duration:
                        if all(at * base >= duration for at in last.values()) and len(last) == len(streams):
                            return
                        last[packet.stream_index] = starts
                        continue
                    if ends <= 0 < (packet.duration or 0) or (starts < 0 and packet.stream.type == "subtitle"):
                        if ends <= 0:
                            continue
                        packet.duration, starts = ends, 0
                    packet.dts = starts if packet.dts is None else min(packet.dts - shift, starts)
                    packet.pts = starts
                    if ends * base > duration and packet.duration:
                        packet.duration = max(1, round(duration / base) - starts)
                    last[packet.stream_index] = starts
                    packet.stream = copies[packet.stream_index]
                    yield packet
            except (FFmpegError, OSError) as error:
                _log.warning("video %s: damaged (%s); what is kept of it ends early", self._path, reason(error))


def _told(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key in ("language", "title")}
