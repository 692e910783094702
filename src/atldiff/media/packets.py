"""What is common to all readers of media files: what is opened, and which packets of sound decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from av.error import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import av
    from av.container import InputContainer

LOCAL_ONLY = {"protocol_whitelist": "file"}
"""Demuxer options: a playlist in a media file's clothes must not open anything over a network."""


def decoded(
    container: InputContainer, stream: av.AudioStream, damage: list[str] | None = None
) -> Iterator[av.AudioFrame]:
    """Yield the frames of sound that decode; packets that do not are left out, and `damage` says why."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError as error:
            if damage is not None:
                damage.append(reason(error))
            continue
        yield from frames


def reason(error: BaseException) -> str:
    """Return a library's error as the part of a line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())
