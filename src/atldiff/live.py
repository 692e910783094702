"""Sound that comes in its own time, as chunks for `TalkingHead.stream`: with silence where none comes.

Such as `head.stream(portrait, continuous(microphone, 16_000))`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np

from atldiff.timebase import FPS

_log = logging.getLogger(__name__)

PATIENCE_S = 0.06
"""How late sound may be before the face idles: the jitter of packets from a microphone or a network."""
WAITING_PACKETS = 64
"""Packets that may wait; a source that is faster than the clock is then kept waiting itself."""
LOOK_S = 0.1
"""How often `ended` is asked while nothing comes."""


class _End:
    pass


END: Final = _End()
"""The source has ended."""

Samples: TypeAlias = "np.ndarray | bytes | bytearray | memoryview | array[int] | array[float] | Sequence[float]"
"""What a packet of sound may be; `as_arrays` says how it is read."""
Packet: TypeAlias = "np.ndarray | _End | BaseException"
Take: TypeAlias = Callable[[float], "Packet | None"]
"""Waits up to so many seconds for the next packet; None when none came."""


def as_arrays(packets: Iterable[Samples]) -> Iterator[np.ndarray]:
    """Yield packets of sound as arrays (n,) or (n, channels).

    Arrays come as they are: integers over the range of their type, floats in [-1, 1]. Bytes (bytes, bytearray, a
    memoryview of bytes) are mono 16-bit little-endian PCM, what sound cards and sockets give; half a sample at the end
    of a packet waits for the next one. An array.array, a memoryview of another type and a list are read as NumPy reads
    them, whole numbers of a list as 16-bit samples.

    Whatever else has an array to give, such as a tensor on the CPU, gives it. Half a sample at the end of all is left
    out with a warning.

    Raises:
        ValueError: none of these, whole numbers beyond 16 bits, half a sample before a packet that is not bytes, or
        sound itself in place of its packets.
    """
    if isinstance(packets, (str, bytes, bytearray, memoryview)):
        raise ValueError(f"audio packets: got {type(packets).__name__}, expected packets of sound, such as [data]")
    half = b""
    for packet in packets:
        if isinstance(packet, (bytes, bytearray)) or (isinstance(packet, memoryview) and packet.format in "Bbc"):
            data = half + bytes(packet)
            half = data[len(data) & ~1 :]
            yield np.frombuffer(data[: len(data) & ~1], "<i2")
            continue
        if half:
            raise ValueError(f"audio packets: got half a 16-bit sample before {type(packet).__name__}, expected bytes")
        if isinstance(packet, (memoryview, array, list, tuple)) or hasattr(packet, "__array__"):
            yield np.atleast_1d(_array(packet))
        else:
            raise ValueError(f"audio packet: got {type(packet).__name__}, expected a NumPy array, bytes or a list")
    if half:
        _log.warning("audio packets: half a 16-bit sample at the end is left out")


def _array(packet: object) -> np.ndarray:
    if isinstance(packet, np.ndarray):
        return packet
    try:
        samples = np.asarray(packet)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"audio packet: {error}, expected samples (n,) or (n, channels)") from None
    if not samples.size:
        return np.zeros(0, np.float32)
    if isinstance(packet, (list, tuple)) and samples.dtype.kind == "i":
        if samples.min() < -32768 or samples.max() > 32767:
            raise ValueError(f"audio packet: got {samples.min()} to {samples.max()}, expected 16-bit samples")
        return samples.astype(np.int16)
    return samples


def continuous(
    packets: Iterable[Samples], sample_rate: int, *, ended: Callable[[], bool] = lambda: False
) -> Iterator[np.ndarray]:
    """Yield a source's packets as they come, and a frame's time of silence whenever the clock is ahead of them.

    What `TalkingHead.stream` makes of them never falls below 25 frames a second, whatever the source does: the head
    moves on, blinks, and keeps its mouth closed while nothing is said. A source that is faster than the clock is
    followed as fast as its packets are taken, and waits meanwhile; none of it is lost.

    packets: as `as_arrays` takes them, at `sample_rate`; iterated in a thread of its own, where it may block. Its
    end ends the stream. ended: asked now and then; True ends the stream as well.

    Raises:
        whatever the source raises.
    """
    waiting: queue.Queue[Packet] = queue.Queue(WAITING_PACKETS)
    over = threading.Event()

    def offer(packet: Packet) -> bool:
        while not over.is_set():
            try:
                waiting.put(packet, timeout=LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def listen() -> None:
        try:
            for packet in as_arrays(packets):
                if not offer(packet):
                    return
            offer(END)
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks are taken
            offer(error)

    def take(seconds: float) -> Packet | None:
        try:
            return waiting.get(timeout=seconds) if seconds > 0 else waiting.get_nowait()
        except queue.Empty:
            return None

    threading.Thread(target=listen, name="atldiff-sound", daemon=True).start()
    try:
        yield from filled(take, sample_rate, time.monotonic, ended)
    finally:
        over.set()


def filled(take: Take, sample_rate: int, clock: Callable[[], float], ended: Callable[[], bool]) -> Iterator[np.ndarray]:
    """Yield what `take` gives and silence between; `continuous` with the clock and the source as arguments."""
    started, given, idle = clock(), 0, 0  # given: samples so far, the stream's own time
    while not ended():
        ahead = given / sample_rate - (clock() - started)
        late = ahead + 1 / FPS + PATIENCE_S  # how long the next frame's sound may still take
        packet = take(min(late, LOOK_S))
        if packet is None:
            if late > LOOK_S:
                continue
            # Frames of silence add up to whole frames at any rate, such as 882 samples at 22 050 Hz.
            packet = np.zeros((idle + 1) * sample_rate // FPS - idle * sample_rate // FPS, np.float32)
            idle += 1
        if isinstance(packet, _End):
            return
        if isinstance(packet, BaseException):
            raise packet
        given += len(packet)
        yield packet
