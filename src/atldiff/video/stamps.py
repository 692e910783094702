"""Packets of pictures with timestamps that can be believed, where a file was cut or states none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import av
    from av.container import InputContainer

_PROGRAM_STREAM = "mpeg"
"""FFmpeg's name for MPEG program streams: .mpg, .vob."""
_MOST_HELD = 256
"""Packets that are looked through for two timestamps which the file itself states; usual are 10 to 60."""


def demuxed(container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of a video and the empty one at the end.

    A program stream that begins in the middle of a picture has its first timestamps put right. FFmpeg gives the first
    one to that rest of a picture, though it belongs to a later one, and counts on from there, up to several frames
    wrong, until the file states the next.
    """
    packets = container.demux(stream)
    if container.format.name == _PROGRAM_STREAM:
        packets = _counted_back(packets)
    yield from packets


def _counted_back(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Yield packets, those before the first stated timestamp counted back from it if a second one agrees with it."""
    held: list[av.Packet] = []
    stated: list[int] = []
    for packet in packets:
        held.append(packet)
        if packet.pos is not None and len(held) > 1:  # where the file itself states one, but for the cut picture's
            stated.append(len(held) - 1)
        if len(stated) == 2 or len(held) == _MOST_HELD:
            break
    starts: list[int | None] = []  # of the stream, by each packet's timestamp and what comes before it
    before = 0
    for packet in held:
        starts.append(None if packet.dts is None else packet.dts - before)
        before += packet.duration or 0
    known = [starts[index] for index in stated]
    if known and known[0] is not None and known[-1] is not None:
        half = (held[stated[0]].duration or 0) / 2
        if abs(known[0] - known[-1]) < half:
            late = [0 if start is None else start - known[0] for start in starts[: stated[0]]]
            _bring_forward(held, [by if abs(by) >= half else 0 for by in late])
    yield from held
    if held and held[-1].size:  # the empty packet is the last one
        yield from packets


def _bring_forward(packets: list[av.Packet], late: list[int]) -> None:
    """Make the first packets earlier by so many ticks each.

    FFmpeg has pictures that others refer to shown when the next of them is decoded, which may be a later packet's time.
    """
    referred = [packet for packet in packets if packet.pts is not None and packet.pts != packet.dts]
    following = dict(zip(map(id, referred), referred[1:], strict=False))
    for packet, by in zip(packets, late, strict=False):
        packet.dts = None if packet.dts is None else packet.dts - by
    for packet, by in zip(packets, late, strict=False):
        if by and packet.pts is not None:
            packet.pts = following[id(packet)].dts if id(packet) in following else packet.pts - by
