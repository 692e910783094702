"""Blocks of sound laid out by their timestamps: silence where none came, nothing twice."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GAP_S = Fraction(15, 1000)
"""Timestamps that stay this far from the sound's own count are followed, however unsteady: gaps above 20 ms must not be
left, and a lost packet of Opus is exactly that long."""
STEADY_GAP_S, STEADY_S = Fraction(4, 1000), Fraction(2, 1000)
"""Steady ones are followed from here on: within so much of one another. Less is a file's rounding."""
SETTLED_S = Fraction(1, 5)
"""For how long they have to stay there."""
RESTART_S = 1
"""Timestamps that fall back by more have started again, as in recordings glued together: the sound goes on."""
_FILLED_S = 4
"""Seconds of silence that are made at once."""


class Block(NamedTuple):
    """Sound of one decoded frame.

    time_s: its timestamp, if it has one. channels: FFmpeg's names of them. samples: (n, channels) float32, as decoded.
    """

    time_s: Fraction | None
    rate: int
    channels: tuple[str, ...]
    samples: NDArray[np.float32]

    @property
    def length_s(self) -> Fraction:
        """How long it sounds."""
        return Fraction(len(self.samples), self.rate)


class Timeline:
    """Lay blocks out up to a time. first_s: when the first of them begins, once one has come."""

    def __init__(self, until_s: Fraction) -> None:
        self.first_s = Fraction(0)
        self._until_s = until_s
        self._end_s: Fraction | None = None
        self._restarted_s = Fraction(0)  # what is added to timestamps that have started again

    def lay(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield the blocks with silence between them where they leave gaps, and without what overlaps."""
        held: deque[Block] = deque()
        held_s = Fraction(0)
        for block in blocks:
            held.append(block)
            held_s += block.length_s
            while held_s - held[0].length_s >= SETTLED_S:
                held_s -= held[0].length_s
                yield from self._placed(held)
                held.popleft()
            if self._end_s is not None and self._end_s >= self._until_s:
                return
        while held:
            yield from self._placed(held)
            held.popleft()

    def _placed(self, held: deque[Block]) -> Iterator[Block]:
        """Yield the first of the blocks, or what of it is not there yet, and the silence before it."""
        block = held[0]
        if self._end_s is None:
            self.first_s = self._end_s = _first_time(held)
        off_s = self._off(held, self._end_s)
        if off_s > 0:
            left = round(min(off_s, self._until_s - self._end_s) * block.rate)
            while left > 0:
                silence = np.zeros((min(left, _FILLED_S * block.rate), block.samples.shape[1]), np.float32)
                yield block._replace(time_s=None, samples=silence)
                self._end_s += Fraction(len(silence), block.rate)
                left -= len(silence)
        elif off_s < -RESTART_S:
            self._restarted_s -= off_s
        elif off_s < 0:
            block = block._replace(samples=block.samples[round(-off_s * block.rate) :])
        self._end_s += block.length_s
        yield block

    def _off(self, held: deque[Block], end_s: Fraction) -> Fraction:
        """Return by how much the timestamps of the blocks, all of them, are later than the end of what came before."""
        first = held[0].time_s
        if first is not None and abs(first + self._restarted_s - end_s) <= STEADY_GAP_S:
            return Fraction(0)
        off, count = [], end_s
        for block in held:
            if block.time_s is not None:
                off.append(block.time_s + self._restarted_s - count)
            count += block.length_s
        least, most = min(off, default=Fraction(0)), max(off, default=Fraction(0))
        gap_s = STEADY_GAP_S if most - least <= STEADY_S else GAP_S
        return least if least > gap_s else most if most < -gap_s else Fraction(0)


def _first_time(held: deque[Block]) -> Fraction:
    """Return when the first block begins: by its own timestamp, or by the first that a later one has."""
    before = Fraction(0)
    for block in held:
        if block.time_s is not None:
            return block.time_s - before
        before += block.length_s
    return Fraction(0)
