"""Colours of other spaces as sRGB: wide primaries, and HDR pictures (HLG, PQ) tone-mapped to what an SDR screen shows.

Transfer curves and primaries have the numbers of ITU-T H.273, as in video streams, HEIF's nclx and PNG's cICP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LINEAR, PQ, HLG = 8, 16, 18
"""Transfer curves that no SDR screen shows as they are. All others are taken for sRGB's, as browsers take them."""

UNTAGGED = 2
"""The number for "not stated"."""

D65 = (0.3127, 0.3290)

BT709 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *D65)
"""Chromaticities x and y of red, green, blue and white; sRGB has them too."""

ADOBE_RGB = (0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *D65)
ADOBE_GAMMA = 563 / 256

_WIDE = {
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65),  # BT.2020
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65),  # Display P3
}
"""Primaries that are converted. BT.601's are so near to BT.709's that no player tells them apart."""

WHITE_NITS = 203.0
"""HDR's reference white (ITU-R BT.2408), which becomes the white of SDR; 75 % of HLG's signal."""

PEAK = 1000.0 / WHITE_NITS
"""Brightest light that is told from brighter one, in units of the reference white: the usual mastering display."""

KNEE = 0.8
"""Light, in the same units, up to which nothing is compressed: level 231 of 255. All above shares the rest."""

_STEPS = 1 << 12  # a table of so many floats lies in the first cache
_SRGB_STEPS = 1 << 14
_ROWS = 64  # pictures are worked on in strips that lie in a cache


@dataclass(frozen=True, slots=True)
class Space:
    """An RGB colour space. transfer: a number of H.273, or a float gamma. primaries: chromaticities as in `BT709`."""

    transfer: int | float
    primaries: tuple[float, ...]

    @property
    def hdr(self) -> bool:
        """Whether its light is brighter than an SDR screen's."""
        return self.transfer in (PQ, HLG)


def tagged(primaries: int, transfer: int) -> Space | None:
    """Return the space of a pair of H.273 numbers, None where it is sRGB or near enough to be left alone."""
    if transfer in (PQ, HLG):
        return Space(transfer, _WIDE[9] if primaries == UNTAGGED else _WIDE.get(primaries, BT709))
    if transfer == LINEAR or primaries in _WIDE:
        return Space(transfer, _WIDE.get(primaries, BT709))
    return None


def to_srgb(levels: NDArray[np.uint8] | NDArray[np.uint16], space: Space) -> NDArray[np.uint8]:
    """Return an RGB picture (H, W, 3) of another space as sRGB; grey (H, W, 3) stays exactly grey."""
    if levels.dtype == np.uint8:
        levels = levels.astype(np.uint16) * np.uint16(257)
    light, signal = _light(space.transfer), _signal()
    matrix = _matrix(space.primaries, BT709).astype(np.float32)
    out = np.empty(levels.shape, np.uint8)
    for top in range(0, len(levels), _ROWS):
        strip = light[levels[top : top + _ROWS] >> 4]
        if space.primaries != BT709:
            strip = cv2.transform(strip, matrix).astype(np.float32, copy=False)
        if space.hdr:
            _compress(strip)
        steps = np.clip(strip, 0, 1)
        steps *= _SRGB_STEPS
        steps += 0.5
        out[top : top + _ROWS] = signal[steps.astype(np.uint16)]
    return keep_grey(levels, out)


def keep_grey(before: np.ndarray, after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a converted picture (H, W, 3), made exactly grey if it was before: rounding parts channels by a level."""
    for rows in (slice(1), slice(None)):  # a colour picture shows in its first row
        red, green, blue = cv2.split(before[rows])
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return after
    return np.repeat(after[..., 1:2], 3, axis=2)


def _compress(light: NDArray[np.float32]) -> None:
    """Bring light above the knee below white, in place, all channels alike, so that hues stay."""
    red, green, blue = cv2.split(light)
    strongest = cv2.max(cv2.max(red, green), blue)
    bright = strongest > KNEE
    if not bright.any():
        return
    peak = strongest[bright]
    over, most = (np.minimum(peak, PEAK) - KNEE) / (1 - KNEE), (PEAK - KNEE) / (1 - KNEE)
    # Reinhard's curve with a white point, from the knee on: slope 1 there, and `PEAK` is white.
    held = KNEE + (1 - KNEE) * over * (1 + over / most**2) / (1 + over)
    light[bright] *= (held / peak)[:, None]


@lru_cache(maxsize=8)
def _light(transfer: int | float) -> NDArray[np.float32]:
    """Return linear light for the 4096 signals of a transfer curve, 1 at SDR's white."""
    signal = np.linspace(0, 1, _STEPS)
    if transfer == PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = signal ** (1 / m2)
        light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / WHITE_NITS
    elif transfer == HLG:
        # Light of the scene. HLG's system gamma depends on the screen (BT.2100): 1.2 at 1000 nits, and 1, which leaves
        # the scene as it is, where the reference white comes out at SDR's 100 nits.
        light = _hlg(signal) / _hlg(np.array(0.75))
    elif isinstance(transfer, float):
        light = signal**transfer
    elif transfer == LINEAR:
        light = signal
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _hlg(signal: np.ndarray) -> np.ndarray:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


@lru_cache(maxsize=1)
def _signal() -> NDArray[np.uint8]:
    """Return sRGB's 8-bit levels of linear light 0 to 1 in equal steps."""
    light = np.linspace(0, 1, _SRGB_STEPS + 1)
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )


@lru_cache(maxsize=8)
def _matrix(source: tuple[float, ...], target: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the matrix from one space's linear RGB to another's, white kept white (Bradford)."""
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(cone) @ np.diag((cone @ _xyz(target[6:])) / (cone @ _xyz(source[6:]))) @ cone
    return np.linalg.inv(_to_xyz(target)) @ adapt @ _to_xyz(source)


def _to_xyz(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    columns = np.stack([_xyz(primaries[i : i + 2]) for i in (0, 2, 4)], axis=1)
    return columns * np.linalg.solve(columns, _xyz(primaries[6:]))


def _xyz(chromaticity: tuple[float, ...]) -> NDArray[np.float64]:
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])
