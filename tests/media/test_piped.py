"""Standard input: what it is by its first bytes, and WAV as it comes."""

from __future__ import annotations

import io
import struct
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from atldiff.errors import MediaError
from atldiff.media.containers import WAV, recognise
from atldiff.media.piped import Pipe, open_wav, places, wav_packets

RATE = 16_000
CONTAINERS = {
    "mp3": ("mp3", "libmp3lame", "MP3"),
    "bare.mp3": ("mp3", "libmp3lame", "MP3"),
    "low.mp3": ("mp3", "libmp3lame", "MP3"),
    "mp2": ("mp2", "mp2", "MP3"),
    "aac": ("adts", "aac", "AAC"),
    "ogg": ("ogg", "libopus", "Ogg"),
    "oga": ("ogg", "flac", "Ogg"),
    "flac": ("flac", "flac", "FLAC"),
    "mkv": ("matroska", "flac", "WebM or Matroska"),
    "webm": ("webm", "libopus", "WebM or Matroska"),
    "m4a": ("ipod", "aac", "MP4"),
    "mov": ("mov", "pcm_s16le", "MP4"),
    "aiff": ("aiff", "pcm_s16be", "AIFF"),
    "au": ("au", "pcm_s16be", "AU"),
    "caf": ("caf", "pcm_s16le", "CAF"),
    "ts": ("mpegts", "aac", "MPEG transport stream"),
    "mpg": ("mpeg", "mp2", "MPEG"),
    "flv": ("flv", "aac", "FLV"),
    "w64": ("w64", "pcm_s16le", "Wave64"),
    "wma": ("asf", "wmav2", "WMA"),
    "avi": ("avi", "pcm_s16le", "AVI"),
    "wv": ("wv", "wavpack", "WavPack"),
    "wav": ("wav", "pcm_s16le", WAV),
    "rf64": ("wav", "pcm_s16le", WAV),
}
"""Muxer, codec and what they are called."""


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Return (N, channels) float64, another tone in each channel."""
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * (300 + 111 * channel) * time) for channel in range(channels)], 1)


def in_container(name: str) -> bytes:
    muxer, codec, _ = CONTAINERS[name]
    options = {"bare.mp3": {"id3v2_version": "0", "write_xing": "0"}, "rf64": {"rf64": "always"}}.get(name, {})
    rate = {"low.mp3": 16_000}.get(name, 48_000)
    out = io.BytesIO()
    with av.open(out, "w", format=muxer, options=options) as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(
            np.rint(20_000 * tone(rate=rate).T).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        converter = av.AudioResampler(stream.codec_context.format.name, "mono", rate, frame_size=stream.frame_size or 0)
        for converted in [*converter.resample(frame), *converter.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return out.getvalue()


def kind_of(data: bytes) -> str | None:
    return recognise(lambda size: data[:size])


@pytest.mark.parametrize("name", list(CONTAINERS))
def test_containers_are_recognised(name: str) -> None:
    try:
        data = in_container(name)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        pytest.skip(f"no encoder: {error}")
    assert kind_of(data) == CONTAINERS[name][2]


def test_samples_may_begin_with_anything() -> None:
    random = np.random.default_rng(0)
    for _ in range(3000):
        assert kind_of(random.bytes(6000)) is None
    for start in (b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"\xff\xff\xff\xff", b"\x47", b"ID3\xff", b"RIFF", b"FORM"):
        for _ in range(200):
            assert kind_of(start + random.bytes(6000)) is None
    quiet = np.rint(random.normal(0, 3, 4000)).astype("<i2").tobytes()
    for data in (
        b"",
        b"\0",
        b"\0" * 6000,
        b"\xff" * 6000,
        b"\xff\xfb" * 3000,
        quiet,
        b"\xff\xfe" * 3000,
        b"\x47" * 900,
    ):
        if data != b"\x47" * 900:
            assert kind_of(data) is None, data[:8]


def test_speech_is_samples() -> None:
    import wave

    with wave.open(str(Path(__file__).parents[2] / "examples" / "speech.wav")) as file:
        data = file.readframes(10 * RATE)
    for start in range(0, len(data) - 8000, 1998):
        assert kind_of(data[start : start + 8000]) is None


class Source:
    """Gives its bytes in pieces of odd sizes, as a pipe does, and never waits for more."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self.data, self.random = data, np.random.default_rng(seed)

    def read(self, size: int) -> bytes:
        count = int(self.random.integers(1, size + 1))
        piece, self.data = self.data[:count], self.data[count:]
        return piece


def piped(data: bytes, seed: int = 0) -> Pipe:
    return Pipe(Source(data, seed))  # pyright: ignore[reportArgumentType]


def heard(data: bytes, seed: int = 0) -> np.ndarray:
    pipe = piped(data, seed)
    assert pipe.kind() == WAV
    return np.concatenate(list(wav_packets(pipe, open_wav(pipe))))


def encoded(samples: np.ndarray, code: int, bits: int) -> bytes:
    if code == 3:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return np.rint(samples * 127 + 128).astype(np.uint8).tobytes()
    levels = np.rint(samples * (2 ** (bits - 1) - 1)).astype("<i4")
    if bits == 24:
        return levels.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
    return levels.astype(f"<i{bits // 8}").tobytes()


def wav(
    samples: np.ndarray,
    rate: int = RATE,
    code: int = 1,
    bits: int = 16,
    *,
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    mask: int | None = None,
) -> bytes:
    """Return samples (N, channels) as a WAV. mask: of the channels' places, which needs the extensible format."""
    channels, sound = samples.shape[1], encoded(samples, code, bits)
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code if mask is None else 0xFFFE, channels, rate, rate * block, block, bits)
    if mask is not None:
        guid = bytes.fromhex("000000001000800000aa00389b71")
        form += struct.pack("<HHIH", 22, bits, mask, code) + guid
    content = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    content += b"data" + struct.pack("<I", len(sound) if size is None else size) + sound + after
    return b"RIFF" + struct.pack("<I", len(content) if size is None else 0xFFFF_FFFF) + content


LIST = b"LIST" + struct.pack("<I", 6) + b"INFO\0\0"
ODD = b"note" + struct.pack("<I", 3) + b"abc\0"


@pytest.mark.parametrize(
    ("code", "bits", "tolerance"),
    [(1, 8, 0.01), (1, 16, 1e-4), (1, 24, 1e-6), (1, 32, 1e-6), (3, 32, 1e-6), (3, 64, 1e-6)],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("extensible", [False, True])
def test_formats(code: int, bits: int, tolerance: float, channels: int, extensible: bool) -> None:
    from atldiff.audio.resampling import scaled

    samples = tone(0.3, 44_100, channels)
    got = heard(wav(samples, 44_100, code, bits, mask=0x3F >> (6 - channels) if extensible else None))
    assert got.shape == ((len(samples),) if channels == 1 else samples.shape)
    assert np.abs(scaled(got).reshape(-1, channels) - samples).max() < tolerance


def test_sixteen_bits_come_as_they_are() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (5001, 1))
    pipe = piped(wav(samples))
    packets = list(wav_packets(pipe, open_wav(pipe)))
    assert {packet.dtype for packet in packets} == {np.dtype("<i2")}
    assert max(map(len, packets)) <= 320
    assert np.array_equal(np.concatenate(packets), np.rint(samples[:, 0] * 32767).astype("<i2"))


WHOLE = tone(0.5)
TWICE = np.concatenate([WHOLE, WHOLE])


@pytest.mark.parametrize(
    ("data", "expected", "said"),
    [
        (wav(WHOLE), WHOLE, ""),
        (wav(WHOLE, before=LIST), WHOLE, ""),
        (wav(WHOLE, before=ODD), WHOLE, ""),
        (wav(WHOLE, after=LIST + ODD), WHOLE, ""),
        (wav(WHOLE, after=ODD + LIST), WHOLE, ""),
        (wav(WHOLE, size=0), WHOLE, ""),
        (wav(WHOLE, size=0xFFFF_FFFF), WHOLE, ""),
        (wav(WHOLE, size=0x7FFF_F000), WHOLE, ""),
        (wav(WHOLE, size=0x8000_0000), WHOLE, ""),
        (wav(WHOLE) + wav(WHOLE), TWICE, ""),
        (wav(WHOLE, after=LIST) + wav(WHOLE, size=0), TWICE, ""),
        (wav(WHOLE, size=1000), WHOLE, "more sound comes than the WAV's header states; it is used"),
        (wav(WHOLE, size=17_000), WHOLE, "the WAV ends 1000 bytes before its header says"),
        (wav(WHOLE) + wav(WHOLE, 8000), WHOLE, "left out a second WAV of another format, 8000 Hz, 1 channels"),
    ],
)
def test_all_of_it_is_heard(data: bytes, expected: np.ndarray, said: str, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(3):
        caplog.clear()
        got = heard(data, seed)
        assert np.array_equal(got, np.rint(expected[:, 0] * 32767).astype("<i2"))
        assert [record.getMessage() for record in caplog.records] == ([f"stdin: {said}"] if said else [])


def test_many_glued() -> None:
    assert len(heard(wav(tone(0.01)) * 2000)) == 2000 * 160


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(WHOLE)[:30], "a WAV with a broken header"),
        (wav(WHOLE)[:20] + b"\7\0" + wav(WHOLE)[22:], "a WAV of format 7 and 16 bits, expected PCM: convert"),
        (wav(WHOLE)[:44], "a WAV without sound"),
        (wav(WHOLE * np.nan, code=3, bits=32), "NaN samples"),
    ],
)  # fmt: skip
def test_what_is_no_sound(data: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=f"stdin: got {message}") as caught:
        heard(data)
    assert "\n" not in str(caught.value)


def test_others_are_refused_in_a_line() -> None:
    pipe = piped(in_container("ogg"))
    line = (
        "stdin: got Ogg, expected 16-bit PCM or WAV: convert it on the way with ffmpeg -i - -f s16le -ac 1 -ar 22050 -"
    )
    with pytest.raises(MediaError) as caught:
        pipe.refuse_others(22_050)
    assert str(caught.value) == line
    piped(b"\0" * 1000).refuse_others(RATE)
    piped(wav(WHOLE)).refuse_others(RATE)


def test_nobody_waits_for_what_does_not_come() -> None:
    begun, release = threading.Event(), threading.Event()

    class Late(Source):
        def read(self, size: int) -> bytes:
            begun.set()
            release.wait(10)
            return super().read(size)

    pipe = Pipe(Late(wav(WHOLE)))  # pyright: ignore[reportArgumentType]
    assert begun.wait(5)
    assert pipe.kind(0.05) is None
    pipe.refuse_others(RATE, 0.05)
    release.set()
    assert pipe.kind() == WAV


def test_an_error_of_the_source_comes_through() -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Pipe(Broken()).kind()  # pyright: ignore[reportArgumentType]


def test_places_of_channels() -> None:
    for mask, names in ((0x3F, ["FL", "FR", "FC", "LFE", "BL", "BR"]), (0x60F, ["FL", "FR", "FC", "LFE", "SL", "SR"])):
        pipe = piped(wav(tone(0.1, channels=6), mask=mask))
        assert places(open_wav(pipe).format) == names
    for data in (wav(tone(0.1, channels=6)), wav(tone(0.1, channels=6), mask=0), wav(tone(0.1, channels=6), mask=3)):
        assert places(open_wav(piped(data)).format) == ["NONE"] * 6
