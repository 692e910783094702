"""The resampler against SciPy where it is installed, and against what is known of it elsewhere."""

from __future__ import annotations

from math import gcd

import numpy as np
import pytest

from atldiff.audio import resampling
from atldiff.audio.resampling import MonoResampler, PacketResampler, low_pass

RATES = [1_000, 8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 44_101, 48_000, 96_000, 768_000]


def whole(samples: np.ndarray, rate: int, block: int | None = None) -> np.ndarray:
    """Return samples at 16 kHz that came in blocks."""
    resampler, block = MonoResampler(rate), block or len(samples)
    parts = [resampler.push(samples[start : start + block]) for start in range(0, len(samples), block)]
    return np.concatenate([*parts, resampler.flush()])


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)


@pytest.mark.parametrize("rate", [rate for rate in RATES if rate != 16_000])
def test_it_is_scipys(rate: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    divisor = gcd(rate, 16_000)
    up, down = 16_000 // divisor, rate // divisor
    half = 16 * max(up, down)
    samples = noise(rate // 4 + 13)
    taps = signal.firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 8.0)) * up
    lead = -half % down  # so that an output lies on the kernel's centre
    want = signal.upfirdn(np.concatenate([np.zeros(lead), taps]), samples.astype(np.float64), up, down)
    want = want[(half + lead) // down :]
    got = whole(samples, rate)
    assert len(got) == -(-len(samples) * up // down)
    want = np.pad(want, (0, max(0, len(got) - len(want))))[: len(got)]
    assert np.abs(got - want).max() < 1e-6
    assert np.mean(got == want.astype(np.float32)) > 0.999


@pytest.mark.parametrize(("half", "widest"), [(32, 2), (48, 3), (7056, 441), (16 * 16_000, 16_000)])
def test_the_kernel_is_scipys(half: int, widest: int) -> None:
    signal = pytest.importorskip("scipy.signal")
    want = signal.firwin(2 * half + 1, 1 / widest, window=("kaiser", 8.0))
    assert np.abs(low_pass(half, 1 / widest) - want).max() < 1e-15


def test_the_kernel_is_as_stored() -> None:
    kernel = low_pass(48, 1 / 3)
    stored = [  # of scipy.signal.firwin
        0.33334021985679724, 0.2752228629045507, 0.13694241746847594, 0.0, -0.06714737991328132,
        -0.05293541501773864, 0.0, 0.03635524196134324, 0.031036684700486362, 0.0,
    ]  # fmt: skip
    assert np.allclose(kernel[48:58], stored, rtol=0, atol=1e-15)
    assert np.array_equal(kernel, kernel[::-1])


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_stays_that_tone(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(whole(tone, rate) - wanted)[100:-100].max() < 2e-4


@pytest.mark.parametrize("rate", RATES)
def test_both_ways_to_add_up_give_the_same_bits(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(min(rate, 96_000) // 2 + 41, rate)
    together = whole(samples, rate)
    for few, at_once in ((0, 32_768), (10**9, 500), (300, 777)):
        monkeypatch.setattr(resampling, "_FEW", few)
        monkeypatch.setattr(resampling, "_OUTPUTS_AT_ONCE", at_once)
        for block in (rate // 50, len(samples)):
            assert together.tobytes() == whole(samples, rate, block).tobytes(), (few, at_once, block)


def test_what_is_held_does_not_grow() -> None:
    for rate in (8_000, 44_100, 44_101):
        resampler = MonoResampler(rate)
        for _ in range(250):
            resampler.push(np.zeros(rate // 50, np.float32))
        assert len(resampler._tail) < 1.1 * rate
        assert resampler._tail.base is None  # no view of what came before


def test_one_sample_is_enough() -> None:
    for rate in (1_000, 44_100, 48_000):
        stream = PacketResampler(rate)
        parts = [stream.feed(np.array([0.5])), stream.feed(np.zeros(0)), stream.flush()]
        assert len(np.concatenate(parts)) == -(-16_000 // rate)
