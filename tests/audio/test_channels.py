"""Several channels into one: FFmpeg's weights, and what is done where they would cancel."""

from __future__ import annotations

import wave
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from atldiff.audio.channels import Downmix, places_of, weights_of
from atldiff.audio.load import PacketResampler, load_audio, resample
from atldiff.errors import MediaError

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
LAYOUTS = ("2.1", "3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1")


def voice(seconds: float = 2.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return (N,) float32 like a voice: noise, strong below 1 kHz, in syllables with pauses, -20 dB."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    spectrum = np.fft.rfft(random.normal(size=count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    spectrum *= (frequency > 100) / (1 + (frequency / 500) ** 2)
    sound = np.fft.irfft(spectrum, count)
    sound *= np.clip(np.sin(2 * np.pi * 3 * np.arange(count) / rate), 0, 1)
    return (0.1 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def level(samples: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-12))


def write_layout(path: Path, channels: np.ndarray, layout: str, rate: int = RATE) -> Path:
    """Write (N, channels) as a WAV that names its channels' places."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        packed = np.rint(channels * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_plain(path: Path, channels: np.ndarray, rate: int = RATE) -> Path:
    """Write (N, channels) as a WAV that only counts them."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels.shape[1], 2, rate, 0, "NONE", ""))
        file.writeframes(np.rint(channels * 32767).astype("<i2").tobytes())
    return path


def alone(layout: str, name: str, sound: np.ndarray) -> np.ndarray:
    """Return `sound` in one channel of a layout."""
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    rows = np.zeros((len(sound), len(names)), np.float32)
    rows[:, names.index(name)] = sound
    return rows


def ffmpeg_weights(layout: str) -> np.ndarray:
    """Return what FFmpeg itself makes of each channel in mono, before it makes room for their sum."""
    count = len(av.AudioLayout(layout).channels)
    weights = []
    for channel in range(count):
        rows = np.zeros((256, count), np.float32)
        rows[:, channel] = 0.1
        frame = av.AudioFrame.from_ndarray(rows.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = RATE
        resampler = av.AudioResampler("flt", "mono", RATE)
        mono = np.concatenate(
            [part.to_ndarray()[0] for part in [*resampler.resample(frame), *resampler.resample(None)]]
        )
        weights.append(mono[128] / 0.1)
    return np.array(weights)


@pytest.mark.parametrize("layout", ["stereo", *LAYOUTS, "7.1(wide)", "octagonal"])
def test_weights_are_those_of_ffmpeg(layout: str) -> None:
    ours = weights_of([channel.name for channel in av.AudioLayout(layout).channels])
    theirs = ffmpeg_weights(layout)
    # Without a centre 3 dB less, so that stereo stays the mean it always was.
    assert np.allclose(ours / np.abs(ours).max(), theirs / np.abs(theirs).max(), atol=1e-4)
    names = {channel.name for channel in av.AudioLayout(layout).channels}
    assert ours.max() == (1 if "FC" in names else pytest.approx(0.5))


@pytest.mark.parametrize("layout", ["3.0", "4.0", "5.0", "5.1", "5.1(side)", "6.1", "7.1"])
def test_a_voice_in_the_centre_keeps_its_level(tmp_path: Path, layout: str) -> None:
    sound = voice()
    samples = load_audio(write_layout(tmp_path / "centre.wav", alone(layout, "FC", sound), layout)).samples
    assert np.abs(samples - sound).max() < 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_voice_in_any_place_is_heard(tmp_path: Path, layout: str) -> None:
    sound = voice()
    for channel in av.AudioLayout(layout).channels:
        samples = load_audio(write_layout(tmp_path / "one.wav", alone(layout, channel.name, sound), layout)).samples
        if channel.name == "LFE":
            assert not samples.any()
        else:
            assert level(samples) > level(sound) - 9.1, channel.name


def test_loud_channels_do_not_clip(tmp_path: Path) -> None:
    sound = 0.9 * voice() / np.abs(voice()).max()
    samples = load_audio(write_layout(tmp_path / "loud.wav", np.repeat(sound[:, None], 6, axis=1), "5.1")).samples
    assert np.abs(samples).max() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(samples, sound)[0, 1] > 0.9999  # softer, not cut off


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8])
def test_files_that_only_count_their_channels(tmp_path: Path, channels: int) -> None:
    sound = voice()
    for channel in range(channels):
        rows = np.zeros((len(sound), channels), np.float32)
        rows[:, channel] = sound
        samples = load_audio(write_plain(tmp_path / "one.wav", rows)).samples
        assert len(samples) == len(sound)
        assert level(samples) > level(sound) - 9.1, channel  # also where the bass channel is assumed to be


def test_more_than_eight_channels(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="got 12 channels, expected at most 8: mix it down") as caught:
        load_audio(write_plain(tmp_path / "many.wav", np.zeros((1600, 12), np.float32)))
    assert "\n" not in str(caught.value)


def test_mono_and_ordinary_stereo_are_what_they_were(tmp_path: Path) -> None:
    left, right = voice(seed=0), voice(seed=1)
    room = 0.02 * np.random.default_rng(2).normal(size=(len(left), 2)).astype(np.float32)
    for rows in (
        np.stack([left, left], 1),
        np.stack([left, 0 * left], 1),
        np.stack([left, right], 1),
        np.stack([left, 0.5 * left + 0.5 * right], 1),
        np.stack([left, np.roll(left, 20)], 1),
        np.stack([left, -0.3 * left], 1) + room,
        room,
    ):
        rows = np.clip(rows, -1, 1).astype(np.float32)
        assert np.array_equal(load_audio(rows).samples, rows.mean(axis=1))
    path = write_plain(tmp_path / "stereo.wav", np.stack([left, right], 1))
    assert np.abs(load_audio(path).samples - (left + right) / 2).max() < 1e-4


def test_array_channels_have_their_mean() -> None:
    rows = np.stack([voice(seed=seed) for seed in range(5)], 1)
    assert np.abs(load_audio(rows).samples - rows.mean(axis=1)).max() < 1e-6


def later(sound: np.ndarray, samples: float) -> np.ndarray:
    count = np.arange(len(sound))
    return np.interp(count - samples, count, sound)


ANTI_PHASE = {
    "exact": lambda sound: np.stack([sound, -sound], 1),
    "with leakage": lambda sound: np.stack([sound, -0.8 * sound], 1),
    "with noise": lambda sound: np.stack([sound, -sound], 1)
    + np.random.default_rng(3).normal(0, 0.005, (len(sound), 2)),
    "delayed by 0.1 ms": lambda sound: np.stack([sound, -later(sound, 1.6)], 1),
    "with hum in both": lambda sound: np.stack([sound, -sound], 1)
    + 0.05 * np.sin(2 * np.pi * 50 * np.arange(len(sound)) / RATE)[:, None],
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ANTI_PHASE))
def test_channels_that_cancel_are_heard(tmp_path: Path, kind: str) -> None:
    sound = voice()
    rows = ANTI_PHASE[kind](sound).astype(np.float32)
    for samples in (
        load_audio(rows).samples,
        load_audio(write_plain(tmp_path / "anti.wav", rows)).samples,
        load_audio(write_layout(tmp_path / "anti.wav", rows, "stereo")).samples,
    ):
        assert len(samples) == len(sound)
        assert level(samples) > level(sound) - 2
        assert abs(np.corrcoef(samples, sound)[0, 1]) > 0.95
        assert level(samples[:2000]) > level(sound[:2000]) - 3  # from the first syllable on


@pytest.mark.parametrize("layout", ["quad", "5.1", "7.1"])
def test_channels_of_a_surround_recording_that_cancel(tmp_path: Path, layout: str) -> None:
    sound = voice()
    rows = alone(layout, "FL", sound) + alone(layout, "FR", -sound)
    samples = load_audio(write_layout(tmp_path / "anti.wav", rows, layout)).samples
    assert level(samples) > level(sound) - 2


def test_a_change_of_the_mix_makes_no_click() -> None:
    time = np.arange(4 * RATE) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    other = np.where((time > 1) & (time < 3), -tone, tone)  # one channel is turned round for two seconds
    mix = Downmix(RATE, 2)
    samples = np.concatenate([mix.push(np.stack([tone, other], 1)), mix.flush()])
    steepest = 0.3 * 2 * np.pi * 200 / RATE
    assert np.abs(np.diff(samples)).max() < 1.6 * steepest
    assert level(samples[round(2.2 * RATE) : round(2.9 * RATE)]) > level(tone) - 1
    assert np.array_equal(samples[-RATE // 4 :], tone[-RATE // 4 :])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [2, 6])
def test_streams_are_mixed_like_files(rate: int, channels: int) -> None:
    random = np.random.default_rng(rate)
    sound = voice(1.5, rate)
    rows = np.repeat(sound[:, None], channels, axis=1) * np.array([1, -1] * (channels // 2))
    rows[len(rows) // 2 :, 1::2] *= -1  # it does not cancel any more
    rows = rows.astype(np.float32)
    offline = resample(rows, rate)
    assert level(offline[: len(offline) // 3]) > level(sound) - 3
    for longest in (50, 700, 20_000):
        stream, parts, start = PacketResampler(rate), [], 0
        while start < len(rows):
            count = int(random.integers(0, longest + 1))
            parts.append(stream.feed(rows[start : start + count]))
            start += count
        parts.append(stream.flush())
        assert np.array_equal(np.concatenate(parts), offline)


def test_a_stream_holds_channels_back_for_ten_milliseconds() -> None:
    stream = PacketResampler(48_000)
    received = sum(len(stream.feed(np.zeros((479, 2), np.float32))) for _ in range(100))
    assert 0 <= 100 * 479 / 3 - received < 0.0125 * RATE


def test_a_stream_may_change_its_channels() -> None:
    stream = PacketResampler(RATE)
    sound = voice(1)
    parts = [stream.feed(np.stack([sound, -sound], 1)[:5005]), stream.feed(sound[5005:9000]), stream.feed(
        np.stack([sound, sound], 1)[9000:])]  # fmt: skip
    assert np.array_equal(np.concatenate([*parts, stream.flush()]), sound)


def test_places() -> None:
    assert places_of(["FL", "FR"]) == (("FL", "FR"), False)
    assert places_of(["NONE"] * 6) == (("FL", "FR", "FC", "LFE", "BL", "BR"), True)
    assert weights_of(places_of(["NONE"] * 2)[0]).tolist() == [0.5, 0.5]
    assert weights_of(["AMBI0", "AMBI1", "AMBI2", "AMBI3"]).tolist() == [1, 0, 0, 0]
    assert weights_of(["LFE", "LFE2"]).tolist() == [0.5, 0.5]
