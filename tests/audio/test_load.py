"""Speech in: every door, every rate, and the stream that may be cut anywhere."""

from __future__ import annotations

import logging
import wave
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from atldiff.audio.load import Audio, PacketResampler, load_audio, resample
from atldiff.errors import MediaError

if TYPE_CHECKING:
    from pathlib import Path

CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "m4a": "aac", "ogg": "libopus", "mkv": "pcm_f32le"}


def tone(rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    """Return (N, channels): 440 Hz in the first channel at 0.5, silence in the others."""
    samples = np.zeros((round(rate * seconds), channels), np.float32)
    samples[:, 0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / rate)
    return samples


def write_audio(path: Path, samples: np.ndarray, rate: int, codec: str | None = None) -> Path:
    with av.open(str(path), "w") as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=rate, layout=layout)
        for start in range(0, len(samples), 1000):
            block = np.ascontiguousarray(samples[start : start + 1000].T)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for converted in av.AudioResampler(stream.codec_context.format.name, layout, rate).resample(frame):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return path


def write_video(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=64)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_wav_of_any_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    path = write_audio(tmp_path / "tone.wav", tone(rate, channels=channels), rate)
    audio = load_audio(path)
    assert audio.origin == path
    assert audio.original is None
    assert audio.samples.shape == (16_000,)
    expected = tone(16_000)[:, 0] * {1: 1, 2: 0.5, 6: 0.5**0.5}[channels]  # front left, as FFmpeg weighs it
    assert np.abs(audio.samples - expected)[200:-200].max() < 2e-4


@pytest.mark.parametrize("suffix", ["flac", "mp3", "m4a", "ogg", "mkv"])
def test_formats_keep_time(tmp_path: Path, suffix: str) -> None:
    rate = 48_000
    samples = tone(rate, 1.5, 2)
    samples[: rate // 2] = 0.0  # speech starts at exactly 0.5 s
    audio = load_audio(write_audio(tmp_path / f"tone.{suffix}", samples, rate))
    assert abs(len(audio.samples) - 24_000) <= 16_000 * 0.03
    loud = np.flatnonzero(np.abs(audio.samples) > 0.1)
    assert abs(loud[0] - 8_000) < 100


def test_aac_padding_is_not_speech(tmp_path: Path) -> None:
    audio = load_audio(write_audio(tmp_path / "tone.m4a", tone(44_100, 1.2), 44_100))
    assert len(audio.samples) == 19_200  # 30 frames, not 31


def test_eight_planes(tmp_path: Path) -> None:
    rate, path = 48_000, tmp_path / "eight.m4a"
    packed = tone(rate, channels=8).reshape(1, -1)
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="7.1")
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="7.1")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for converted in av.AudioResampler("fltp", "7.1", rate).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    samples = load_audio(path).samples
    assert len(samples) == 16_000
    assert np.corrcoef(samples[1_000:-1_000], tone(16_000)[1_000:-1_000, 0])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("codec", "tolerance"),
    [("pcm_u8", 0.01), ("pcm_s24le", 1e-4), ("pcm_s32le", 1e-4), ("pcm_f32le", 1e-4), ("pcm_f64le", 1e-4)],
)
def test_sample_formats(tmp_path: Path, codec: str, tolerance: float) -> None:
    audio = load_audio(write_audio(tmp_path / "tone.wav", tone(16_000, channels=2), 16_000, codec))
    assert np.abs(audio.samples - tone(16_000)[:, 0] / 2).max() < tolerance


def test_array_is_the_file(tmp_path: Path) -> None:
    levels = np.rint(tone(22_050, channels=2) * 32767).astype(np.int16)
    path = write_audio(tmp_path / "a.wav", levels.astype(np.float32) / 32768, 22_050)
    from_array = load_audio(levels, sample_rate=22_050)
    assert np.array_equal(from_array.samples, load_audio(path).samples)
    assert from_array.origin is None
    assert from_array.original_rate == 22_050
    assert from_array.original is not None
    assert from_array.original.shape == (22_050, 2)


def test_array_layouts_and_types() -> None:
    reference = tone(16_000, 0.1, 2)
    mono = reference.mean(axis=1)
    assert np.array_equal(load_audio(reference).samples, mono)
    assert np.array_equal(load_audio(reference.T).samples, mono)
    assert np.allclose(load_audio(mono.astype(np.float64)).samples, mono)
    for dtype, scale, centre in ((np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 128, 128), (np.int8, 128, 0)):
        levels = np.rint(mono.astype(np.float64) * scale + centre).astype(dtype)
        assert np.abs(load_audio(levels).samples - mono).max() <= 0.51 / scale + 1e-7
    already = load_audio(mono)
    assert load_audio(already) is already


def test_silence_and_loud_floats(caplog: pytest.LogCaptureFixture) -> None:
    assert not load_audio(np.zeros(1600, np.float32)).samples.any()
    with caplog.at_level(logging.WARNING):
        assert load_audio(np.full(1600, 1.5, np.float32)).samples.max() == 1.0
    assert "clipped" in caplog.text


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full(100, np.nan, np.float32), "NaN"),
        (np.array([0.0, np.inf]), "NaN or infinity"),
        (np.array([object()] * 3), "object"),
        (np.zeros((4, 5, 6), np.float32), "shape"),
        (np.zeros((20, 30), np.float32), "at most 8 channels"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2), np.float32), "no samples"),
        (np.array(0.5), "shape"),
        (np.full(100, 20_000.0), "divide 16-bit"),
        (np.zeros(10, np.int64), "int64"),
        (np.zeros(10, np.bool_), "bool"),
        (np.zeros(10, np.complex64), "complex64"),
    ],
)
def test_array_doors(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_audio(array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -1, 999, 44_100.5, True, 10_000_000])
def test_rate_doors(rate: int) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        load_audio(np.zeros(100, np.float32), sample_rate=rate)


def test_file_doors(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    text = tmp_path / "text.wav"
    text.write_text("this is not audio\n" * 50)
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(np.random.default_rng(0).bytes(20_000))
    silent = write_video(tmp_path / "silent.mp4")
    nothing = tmp_path / "nothing.wav"
    with wave.open(str(nothing), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    broken = write_audio(tmp_path / "nan.wav", np.full((1600, 1), np.nan, np.float32), 16_000, "pcm_f32le")
    for path, message in (
        (tmp_path / "missing.wav", "no such file"),
        (tmp_path, "folder"),
        (empty, "0 bytes"),
        (text, "cannot be read"),
        (noise, "cannot be read|damaged"),
        (silent, "without an audio track"),
        (nothing, "zero length"),
        (broken, "NaN"),
    ):
        with pytest.raises(MediaError, match=message) as caught:
            load_audio(str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="file states its own rate"):
        load_audio(text, sample_rate=16_000)
    with pytest.raises(ValueError, match="expected a path"):
        load_audio([0.0, 0.1])  # pyright: ignore[reportArgumentType]


def test_truncated_file_is_used_as_far_as_it_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_audio(tmp_path / "tone.wav", tone(16_000, 2.0), 16_000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        audio = load_audio(path)
    assert 16_000 - 1024 <= len(audio.samples) < 16_200  # PyAV 17 does not decode the packet that is cut in two
    assert "damaged" in caplog.text
    path.write_bytes(whole[:1500])
    with pytest.raises(MediaError, match="damaged"):
        load_audio(path)


def test_damage_in_the_middle_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_audio(tmp_path / "tone.mp3", tone(16_000, 3.0), 16_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = np.random.default_rng(0).bytes(60)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        audio = load_audio(path)
    assert 2.5 < len(audio.samples) / 16_000 < 3.1
    assert "damaged" in caplog.text


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_packets_of_any_size_give_the_same_samples(rate: int) -> None:
    random = np.random.default_rng(rate)
    samples = random.uniform(-0.9, 0.9, (rate + 37, 2)).astype(np.float32)
    offline = resample(samples, rate)
    assert len(offline) == -(-len(samples) * 16_000 // rate)
    for largest in (7, 700, 30_000):
        stream, parts, start = PacketResampler(rate), [], 0
        while start < len(samples):
            length = int(random.integers(0, largest + 1))
            parts.append(stream.feed(samples[start : start + length]))
            start += length
        parts.append(stream.flush())
        assert np.array_equal(np.concatenate(parts), offline)


def test_packets_come_out_at_once() -> None:
    stream = PacketResampler(48_000)
    received = sum(len(stream.feed(np.zeros(480, np.float32))) for _ in range(100))
    assert 16_000 - received < 32  # 2 ms


def test_high_rates_do_not_alias() -> None:
    time = np.arange(48_000) / 48_000
    assert np.abs(resample(0.5 * np.sin(2 * np.pi * 11_000 * time), 48_000))[100:-100].max() < 1e-3


def test_short_streams_and_doors() -> None:
    for length in (1, 2, 5, 50):
        assert len(resample(np.full(length, 0.5, np.float32), 44_100)) == -(-length * 160 // 441)
    stream = PacketResampler(44_100)
    assert len(stream.feed(np.zeros(0, np.float32))) == 0
    assert len(stream.flush()) == 0
    with pytest.raises(ValueError, match="after flush"):
        stream.feed(np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="NaN"):
        PacketResampler(16_000).feed(np.array([np.nan]))
    with pytest.raises(ValueError, match="shape"):
        PacketResampler(16_000).feed(np.zeros((2, 100)))
    with pytest.raises(ValueError, match="audio samples"):
        Audio(np.zeros((2, 3), np.float32))
