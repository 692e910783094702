"""WAV files of people: several in one, and headers that are wrong about the length."""

from __future__ import annotations

import io
import logging
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest

from atldiff.audio.load import load_audio
from atldiff.media.wav import examine, read_header
from atldiff.timebase import duration_s
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
LIST = b"LIST" + struct.pack("<I", 12) + b"INFOISFT" + b"\0" * 4


def tone(seconds: float, rate: int = RATE, channels: int = 1, hz: float = 440) -> np.ndarray:
    samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(np.rint(samples * 32767).astype("<i2")[:, None], channels, axis=1)


def wav(
    levels: np.ndarray, rate: int = RATE, *, size: int | None = None, riff: int | None = None, after: bytes = b""
) -> bytes:
    """Return a WAV file; size and riff: what its header states instead of the truth."""
    channels = levels.shape[1]
    sound = levels.tobytes()
    form = struct.pack("<HHIIHH", 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form
    head += b"data" + struct.pack("<I", len(sound) if size is None else size)
    whole = len(head) + len(sound) + len(after)
    return b"RIFF" + struct.pack("<I", whole if riff is None else riff) + head + sound + after


def rf64(levels: np.ndarray, size: int) -> bytes:
    sound = levels.tobytes()
    sizes = struct.pack("<QQQI", 0, size, size // 2, 0)
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<I", len(sizes)) + sizes
    return head + wav(levels)[12:36] + b"data\xff\xff\xff\xff" + sound


ONE = tone(1.0)
TWO = tone(0.5, hz=700)
BYTES = 2 * len(ONE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (wav(ONE), ""),
        (wav(ONE, after=LIST), ""),
        (wav(ONE, after=b"TAG" + b"x" * 125), ""),
        (wav(ONE, after=b"\0" * 4096), ""),
        (wav(ONE, after=b"\1\2\3"), ""),
        (wav(ONE, riff=100), ""),
        (rf64(ONE, BYTES), ""),
        (wav(ONE, size=BYTES // 2), "its header states 16000 bytes of sound, the file has 32000; using 1.00 s"),
        (wav(ONE, size=BYTES // 2 - 1, riff=500), "its header states 15999 bytes of sound, the file has 32000"),
        (rf64(ONE, BYTES // 2), "its header states 16000 bytes of sound, the file has 32000"),
        (wav(ONE, size=0), "its header states no length; using 1.00 s"),
        (wav(ONE, size=0, riff=0), "states no length"),
        (wav(ONE, size=0xFFFF_FFFF, riff=0xFFFF_FFFF), "states no length"),
        (wav(ONE, size=0x7FFF_F000, riff=0x7FFF_F024), "states no length"),
        (wav(ONE, size=0x8000_0000, riff=0x8000_0024), "states no length"),
        (rf64(ONE, 0), "states no length"),
    ],
)
def test_all_of_a_recording_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, said: str
) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        samples = load_audio(path).samples
    assert np.array_equal(samples, ONE[:, 0] / np.float32(32768))
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)
    assert len(caplog.records) <= 1


GLUED = {
    "two": wav(ONE) + wav(TWO),
    "with chunks between": wav(ONE, after=LIST) + wav(TWO, after=LIST),
    "written to a pipe": wav(ONE, size=0xFFFF_FFFF, riff=0xFFFF_FFFF) + wav(TWO, size=0xFFFF_FFFF, riff=0xFFFF_FFFF),
    "without lengths": wav(ONE, size=0, riff=0) + wav(TWO, size=0, riff=0),
    "the first too short": wav(ONE, size=1000) + wav(TWO),
    "the second too short": wav(ONE) + wav(TWO, size=1000),
}


@pytest.mark.parametrize("kind", list(GLUED))
def test_recordings_glued_together(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "glued.wav"
    path.write_bytes(GLUED[kind])
    with caplog.at_level(logging.WARNING):
        samples = load_audio(path).samples
    assert np.array_equal(samples, np.concatenate([ONE, TWO])[:, 0] / np.float32(32768))
    assert "2 WAV recordings in one file" in caplog.text
    assert "using 1.50 s" in caplog.text
    assert len(caplog.records) == 1


def test_three(tmp_path: Path) -> None:
    path = tmp_path / "glued.wav"
    path.write_bytes(wav(ONE) + wav(TWO) + wav(ONE))
    assert len(load_audio(path).samples) == 2 * len(ONE) + len(TWO)


@pytest.mark.parametrize("other", [wav(tone(2, 8_000), 8_000), wav(tone(2, 8_000, 2), 8_000)])
def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, other: bytes) -> None:
    path = tmp_path / "glued.wav"
    path.write_bytes(wav(ONE) + other + wav(TWO))
    with caplog.at_level(logging.WARNING):
        samples = load_audio(path).samples
    assert len(samples) == len(ONE) + len(TWO)
    assert "left out what is of another format (2.00 s at 8000 Hz" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("content", [wav(ONE) + wav(TWO), wav(ONE, size=100), wav(ONE, size=0)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", "/"])
def test_the_sound_track_is_what_was_heard(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    samples = load_audio(path).samples
    out = tmp_path / f"out{suffix}"
    target = f"{out}/" if suffix == "/" else out
    length = duration_s(len(samples))
    with VideoWriter(target, size=(64, 64), fps=25, audio=path, duration=length) as writer:
        for _ in range(-(-len(samples) // 640)):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    track = out / "audio.wav" if suffix == "/" else out
    with av.open(str(track)) as container:
        stream = container.streams.audio[0]
        if stream.duration is not None and suffix != ".webm":
            assert stream.duration * stream.time_base == pytest.approx(float(length), abs=1e-3)
    again = load_audio(track).samples
    assert len(again) == pytest.approx(len(samples), abs=0.03 * RATE)
    assert np.corrcoef(again[: len(samples)], samples[: len(again)])[0, 1] > 0.99


def test_a_large_header_is_believed_where_the_file_is_as_large(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    content = wav(ONE, size=0x7FFF_FFFE)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(44 + 0x7FFF_FFFE)  # a hole, no bytes on the disk
    found = examine(path)
    assert found is not None
    assert (found.spans, found.note, found.damage) == ((), "", "")


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\0\0\0\0AVI LIST", b"fLaC" * 20, wav(ONE)[:30], wav(ONE)[:12] + b"data\0\0\0\0"]
)
def test_what_is_no_wav(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.wav"
    path.write_bytes(content)
    assert examine(path) is None
    assert read_header(io.BytesIO(content).read) is None


def test_reading_and_seeking(tmp_path: Path) -> None:
    path = tmp_path / "glued.wav"
    path.write_bytes(wav(ONE) + wav(TWO))
    found = examine(path)
    assert found is not None
    with found.open() as reader:
        whole = reader.read()
        assert whole == wav(np.concatenate([ONE, TWO]))
        random = np.random.default_rng(0)
        for _ in range(50):
            at, count = int(random.integers(0, len(whole))), int(random.integers(1, 5000))
            reader.seek(at)
            assert reader.tell() == at
            piece = reader.read(count)
            assert piece
            assert piece == whole[at : at + len(piece)]
        assert reader.seek(0, io.SEEK_END) == len(whole)
        assert reader.read(10) == b""
        assert Fraction(len(whole) - 44, 2) == len(ONE) + len(TWO)
