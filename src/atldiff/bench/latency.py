"""How late a stream's frames are: packets go in without waiting, frames are noted as they come out."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from atldiff.timebase import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

PACKET_MS = 20


@dataclass(frozen=True, slots=True)
class StreamDelays:
    """Delays of one stream in milliseconds.

    sound_ms: how much sound had been handed over when the first frame came. first_ms: from the packet that completed
    the first window to the first frame. Of every later window that a packet completed: later_median_ms and
    later_worst_ms to its first frame, whole_worst_ms to its last; None where there was no later window. Frames that
    only the end of the sound released count for none of these, unless there are no others.
    """

    sound_ms: float
    first_ms: float
    later_median_ms: float | None
    later_worst_ms: float | None
    whole_worst_ms: float | None


def measure_stream(
    stream: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]],
    samples: np.ndarray,
    clock: Callable[[], float] = time.perf_counter,
) -> StreamDelays:
    """Hand samples (N,) at 16 kHz to a stream in packets of 20 ms, each as soon as it is asked for.

    stream: packets to frames, one path that asks for a packet when it has given every frame it can: so the last
    packet it took before a frame is the one that completed the frame's window.
    """
    size = SAMPLE_RATE * PACKET_MS // 1000
    handed: list[float] = []
    over = False

    def packets() -> Iterator[np.ndarray]:
        nonlocal over
        for start in range(0, len(samples), size):
            packet = samples[start : start + size]
            handed.append(clock())
            yield packet
        over = True

    frames = [(len(handed), clock(), over) for _ in stream(packets())]
    if not frames:
        raise ValueError(f"stream: got no frame from {len(samples)} samples, expected at least one")
    timely = [frame for frame in frames if not frame[2]] or frames[:1]
    windows = [
        (packets, [1000 * (at - handed[packets - 1]) for _, at, _ in group])
        for packets, group in groupby(timely, key=lambda frame: frame[0])
    ]
    sound_ms = min(windows[0][0] * PACKET_MS, 1000 * len(samples) / SAMPLE_RATE)
    later = [delays for _, delays in windows[1:]]
    return StreamDelays(
        sound_ms=sound_ms,
        first_ms=windows[0][1][0],
        later_median_ms=statistics.median(delays[0] for delays in later) if later else None,
        later_worst_ms=max(delays[0] for delays in later) if later else None,
        whole_worst_ms=max(delays[-1] for delays in later) if later else None,
    )
