"""Several channels into one: by their places as FFmpeg does it, and otherwise where that sum would cancel."""

from __future__ import annotations

from itertools import groupby
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SIDE, _BEHIND = sqrt(0.5), 0.5
"""What FFmpeg gives a front or a surround channel in mono, where the centre has 1."""

_FRONT = frozenset({"FL", "FR", "FLC", "FRC", "WL", "WR", "DL", "DR"})
_UNHEARD = frozenset({"LFE", "LFE2"})

_BY_COUNT = {
    3: ("FL", "FR", "LFE"),
    4: ("FL", "FR", "FC", "BC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""The places FFmpeg assumes where a file has so many channels and names none."""

_BLOCK_S = 0.01
"""How often the mix is decided on."""
_MEMORY_BLOCKS = 50
"""Blocks after which what was heard counts 1/e."""
_COARSE_HZ = 8_000
_EMPHASIS = 0.97
"""Channels are compared as voices: averaged down to this rate, with hum taken out by its first difference."""

_ENTER, _LEAVE = 0.25, 0.5
"""Power of the mix, as a share of what unrelated channels would have, below which it cancels and above which it does
not any more: two equally loud channels of correlation -0.75 and -0.5."""
_LOST = 1e-3
"""The same share of a channel that has no place in the mix, for channels whose places are only assumed."""
_STRONGER = 2.0
"""Power over that of the channel that is taken, from which another one is."""
_FLOOR = 1e-9
"""Mean square, -90 dB, below which nothing is decided."""


def places_of(names: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return where channels with these names in FFmpeg's words belong, and whether that had to be assumed."""
    if any(name.startswith("NONE") or not name for name in names):
        return _BY_COUNT.get(len(names), ("",) * len(names)), True
    return tuple(names), False


def weights_of(places: Sequence[str]) -> NDArray[np.float32]:
    """Return the share of each channel in mono, (channels,) float32.

    With a centre it is that one whole, -3 dB of those in front, -6 dB of those behind and above, nothing of the bass
    channel; without one 3 dB less of each, which of two channels makes the mean. Of an ambisonic recording it is the
    omnidirectional part. Channels without a place have their mean.
    """
    if len(places) == 1:
        return np.ones(1, np.float32)
    if any(place.startswith("AMBI") for place in places):
        return np.array([place == "AMBI0" for place in places], np.float32)
    if not all(places):
        return np.full(len(places), 1 / len(places), np.float32)
    shares = [
        1.0 if place == "FC" else _SIDE if place in _FRONT else 0.0 if place in _UNHEARD else _BEHIND
        for place in places
    ]
    if "FC" not in places:
        shares = [round(share * _SIDE, 12) for share in shares]  # exactly a half of left and right
    if not any(shares):
        return np.full(len(places), 1 / len(places), np.float32)
    return np.array(shares, np.float32)


class Downmix:
    """Mix a recording's channels down as it comes; the samples do not depend on where it is cut.

    Of two channels that cancel in the sum the difference is taken, of more the strongest one. That is decided for
    blocks of 10 ms, from the last half second or so and the block itself; one mix fades into the other over a block.
    One channel passes through; several are held back until their block is whole.
    """

    def __init__(self, rate: int, channels: int, places: Sequence[str] | None = None, *, assumed: bool = False) -> None:
        """Start a recording of `rate` Hz.

        places: FFmpeg's names of the channels; their mean where None. assumed: they may be wrong, so a channel without
        a share is taken where all others are silent.
        """
        self._weights = weights_of([""] * channels if places is None else places)
        self._channels, self._assumed = channels, assumed
        self._usual = tuple(map(float, self._weights))
        self._block = max(1, round(rate * _BLOCK_S))
        self._coarse = max(1, rate // _COARSE_HZ)
        self._held = np.zeros((0, channels), np.float32)
        self._power = [0.0] * (channels + 1)  # of the plain mix, and of each channel
        self._turned = False
        self._strongest = 0
        self._last: tuple[float, ...] | None = None

    @property
    def may_add_up(self) -> bool:
        """Whether loud channels together exceed the range of one."""
        return float(self._weights.sum()) > 1.001

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next (n, channels); return the mix that is now certain, (m,)."""
        if self._channels == 1:
            return samples[:, 0]
        held = np.concatenate([self._held, samples]) if len(self._held) else samples
        whole = len(held) // self._block * self._block
        self._held = held[whole:].copy()
        return self._mixed(held[:whole])

    def flush(self) -> NDArray[np.float32]:
        """Return the rest; the mix has then as many samples as the channels had."""
        rest, self._held = self._held, self._held[:0]
        return self._mixed(rest)

    def _mixed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        plain = _weighted(samples, self._weights)
        if not len(samples):
            return plain
        chosen = [self._choose(power) for power in self._powers(samples)]
        before = [chosen[0] if self._last is None else self._last, *chosen[:-1]]
        self._last = chosen[-1]
        start = 0
        for (old, new), run in groupby(zip(before, chosen, strict=True)):
            stop = start + len(list(run)) * self._block
            part = samples[start:stop]
            if new != self._usual or old != self._usual:
                mix = _weighted(part, np.array(new, np.float32))
                if old != new:  # a run of one
                    fading = _weighted(part, np.array(old, np.float32))
                    share = np.arange(1, len(part) + 1, dtype=np.float32) / np.float32(self._block)
                    mix = fading + share * (mix - fading)
                plain[start:stop] = mix
            start = stop
        return plain

    def _powers(self, samples: NDArray[np.float32]) -> list[list[float]]:
        """Return for each block the mean square of the plain mix and of each channel, (channels + 1,)."""
        whole = len(samples) // self._block
        powers = self._block_powers(samples[: whole * self._block], whole) if whole else []
        rest = samples[whole * self._block :]
        return powers + (self._block_powers(rest, 1) if len(rest) else [])

    def _block_powers(self, samples: NDArray[np.float32], blocks: int) -> list[list[float]]:
        length = len(samples) // blocks
        coarse = min(self._coarse, length)
        steps = length // coarse
        rows = samples.reshape(blocks, length, -1)[:, : steps * coarse]
        fine = rows.reshape(blocks, steps, coarse, -1)
        heard = np.empty((self._channels + 1, blocks, steps), np.float32)  # the plain mix, and each channel
        for channel in range(self._channels):
            heard[channel + 1] = sum(fine[:, :, at, channel] for at in range(coarse)) / np.float32(coarse)
        heard[0] = sum(heard[channel + 1] * weight for channel, weight in enumerate(self._weights))
        if steps > 1:
            heard = heard[..., 1:] - np.float32(_EMPHASIS) * heard[..., :-1]
        return np.square(heard).mean(axis=2, dtype=np.float64).T.tolist()

    def _choose(self, power: list[float]) -> tuple[float, ...]:
        """Return the shares of the channels in a block of these powers."""
        if any(self._power):
            self._power = [old + (new - old) / _MEMORY_BLOCKS for old, new in zip(self._power, power, strict=True)]
        else:
            self._power = power
        mixed, *alone = self._power
        unrelated = sum(share * share * each for share, each in zip(self._usual, alone, strict=True))
        if not self._assumed:  # a channel without a share has none
            alone = [each if share else 0.0 for share, each in zip(self._usual, alone, strict=True)]
        loudest = max(alone)
        if loudest > _FLOOR:
            lost = self._assumed and unrelated < _LOST * loudest
            self._turned = lost or mixed < (_LEAVE if self._turned else _ENTER) * unrelated
            if alone[self._strongest] * _STRONGER < loudest or not self._turned:
                self._strongest = alone.index(loudest)
        if not self._turned:
            return self._usual
        if self._channels == 2:
            return self._usual[0], -self._usual[1]
        return tuple(float(channel == self._strongest) for channel in range(self._channels))


def _weighted(samples: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weighted sum over channels of (n, channels), in one fixed order whatever n is."""
    count = len(weights)
    if (weights == np.float32(1 / count)).all():  # the mean, rounded once
        total = samples[:, 0].copy()
        for channel in range(1, count):
            total += samples[:, channel]
        return total / np.float32(count)
    total = samples[:, 0] * weights[0]
    for channel in range(1, count):
        if weights[channel]:
            total += samples[:, channel] * weights[channel]
    return total
