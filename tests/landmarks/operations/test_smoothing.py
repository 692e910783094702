"""Smoothing takes the tremble out by the factors that docs/landmarks.md states, and lags by nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from atldiff.landmarks.operations.smoothing import one_euro, savitzky_golay
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.types import LandmarkTrack
from made_tracks import apart, same, speaking, still

TREMBLE = 0.003
"""What a tracker's points tremble by, in eye distances."""
FACTORS = {"one-euro": (one_euro, 7.0, 2.8), "savgol": (savitzky_golay, 4.6, 4.6)}
"""By how much less a still face trembles, and one that speaks: docs/landmarks.md states the same."""
BOTH = pytest.mark.parametrize("smooth", [one_euro, savitzky_golay])


def trembling(track: LandmarkTrack, seed: int = 1) -> LandmarkTrack:
    noise = np.random.default_rng(seed).normal(0, TREMBLE, track.displacements.shape).astype(np.float32)
    return replace(track, displacements=track.displacements + noise)


def jitter(displacements: np.ndarray) -> float:
    """Return how much points change their speed from frame to frame: the root mean square of second differences."""
    return float(np.sqrt(np.mean(np.diff(displacements, 2, axis=0) ** 2)))


def lag(moved: np.ndarray, of: np.ndarray) -> tuple[int, float]:
    """Return by how many frames a series is behind another: the peak of their speeds' cross-correlation, and the shift
    that leaves least between them."""
    (a, b), shifts = (np.diff(series.astype(np.float64)) for series in (moved, of)), np.arange(-5, 6)
    match = [float(np.corrcoef(a[5 + shift : len(a) - 5 + shift], b[5:-5])[0, 1]) for shift in shifts]
    slope = np.gradient(of.astype(np.float64))
    return int(shifts[np.argmax(match)]), float(-np.sum((moved - of) * slope) / np.sum(slope**2))


@pytest.mark.parametrize("name", list(FACTORS))
def test_the_tremble_is_less_by_the_stated_factor(name: str) -> None:
    smooth, at_rest, in_speech = FACTORS[name]
    noise = trembling(still(300)).displacements
    assert jitter(noise) / jitter(smooth(trembling(still(300))).displacements) == pytest.approx(at_rest, rel=0.1)
    clean = speaking(300, blinks=())
    smoothed = smooth(trembling(clean)).displacements - smooth(clean).displacements
    assert jitter(noise) / jitter(smoothed) == pytest.approx(in_speech, rel=0.1)


@BOTH
@pytest.mark.parametrize("fps", [25, 50])
def test_nothing_lags(smooth: Callable[..., LandmarkTrack], fps: int) -> None:
    clean = speaking(8 * fps, fps, blinks=())
    smoothed = smooth(trembling(clean))
    for read in (
        lambda track: track.displacements[:, LIPS_OUTER[11:], 1].mean(axis=1),
        lambda track: track.displacements[:, LIPS_OUTER[6:16], 0].mean(axis=1),
        lambda track: track.displacements[:, 468:, 0].mean(axis=1),
        lambda track: track.rotation[:, 0, 2],
    ):
        whole, part = lag(read(smoothed), read(clean))
        assert whole == 0
        assert abs(part) < 0.15


@BOTH
def test_time_has_no_direction(smooth: Callable[..., LandmarkTrack]) -> None:
    track = trembling(speaking())
    turned = replace(
        track,
        **{name: getattr(track, name)[::-1] for name in ("displacements", "rotation", "translation", "scale")},
    )
    back = smooth(turned)
    assert np.abs(back.displacements[::-1] - smooth(track).displacements).max() < 1e-6


@BOTH
def test_speech_stays_and_what_stands_stays_exactly(smooth: Callable[..., LandmarkTrack]) -> None:
    clean = speaking(200, blinks=())
    chin = clean.displacements[:, 152, 1], smooth(clean).displacements[:, 152, 1]
    assert np.ptp(chin[1]) > 0.85 * np.ptp(chin[0])
    assert apart(smooth(still()), still()) < 1e-5
    assert np.abs(smooth(clean).rotation @ smooth(clean).rotation.swapaxes(1, 2) - np.eye(3)).max() < 1e-5
    assert (len(smooth(clean)), smooth(clean).fps) == (len(clean), clean.fps)


@BOTH
@pytest.mark.parametrize("frames", [0, 1, 2, 8])
def test_short_tracks(smooth: Callable[..., LandmarkTrack], frames: int) -> None:
    assert len(smooth(speaking(frames))) == frames


def test_a_polynomial_goes_through_savitzky_golay_unchanged() -> None:
    t = np.linspace(-1, 1, 60)
    cubic = (0.1 * t**3 - 0.05 * t**2 + 0.02 * t)[:, None, None] * np.ones((1, 478, 3))
    track = replace(still(60), displacements=cubic.astype(np.float32))
    once = savitzky_golay(track, 11, 3)
    assert apart(once, track) < 1e-5
    assert apart(savitzky_golay(once, 11, 3), once) < 1e-5
    assert apart(savitzky_golay(track, 11, 1), track) > 1e-4


def test_savitzky_golay_is_scipy_s() -> None:
    signal = pytest.importorskip("scipy.signal")
    track = trembling(speaking(60))
    for window, order in ((3, 0), (9, 3), (15, 5)):
        wanted = signal.savgol_filter(track.displacements.astype(np.float64), window, order, axis=0)
        assert np.abs(savitzky_golay(track, window, order).displacements - wanted).max() < 1e-6


def test_one_euro_with_an_open_cutoff_changes_nothing() -> None:
    track = trembling(speaking())
    assert apart(one_euro(track, 1000.0), track) < 1e-4
    # without beta it is one linear filter: of a sum it makes the sum
    low = [one_euro(each, 2.0, 0.0).displacements for each in (track, speaking(), still())]
    noise = replace(track, displacements=track.displacements - speaking().displacements)
    assert np.abs(low[0] - low[1] - one_euro(noise, 2.0, 0.0).displacements).max() < 1e-6


def test_one_euro_follows_a_blink() -> None:
    track = speaking()
    lid = (slice(25, 40), 159, 1)
    deep = np.ptp(track.displacements[lid])
    assert np.ptp(one_euro(track).displacements[lid]) > 0.8 * deep
    assert np.ptp(one_euro(track, beta=0).displacements[lid]) < 0.6 * deep


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda track: one_euro(track, 0), "a cutoff of 0 Hz, expected more than 0"),
        (lambda track: one_euro(track, np.nan), "a cutoff of nan"),
        (lambda track: one_euro(track, 1, -1), "beta -1, expected 0 or more"),
        (lambda track: savitzky_golay(track, 8), "a window of 8, expected an odd number from 3 to 51"),
        (lambda track: savitzky_golay(track, 53), "a window of 53"),
        (lambda track: savitzky_golay(track, 9.5), "a window of 9.5"),
        (lambda track: savitzky_golay(track, 5, 5), "order 5, expected 0 to 4"),
        (lambda track: savitzky_golay(track, 9, -1), "order -1, expected 0 to 5"),
    ],
)
def test_numbers_out_of_range(call: Callable[[LandmarkTrack], LandmarkTrack], said: str) -> None:
    with pytest.raises(ValueError, match=f"^smooth: got {said}"):
        call(speaking(3))


def test_same_input_same_bits() -> None:
    track = trembling(speaking(40))
    assert same(one_euro(track), one_euro(track))
