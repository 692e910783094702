"""Which audio track of a file is heard, and that the very same goes into the output."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from av.stream import Disposition

from atldiff.audio.load import Audio, load_audio, load_soundtrack
from atldiff.errors import MediaError
from atldiff.pipeline import Video
from atldiff.types import Portrait
from atldiff.video.sound import SoundFile
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atldiff.media.tracks import AudioTrack

RATE = 16_000
TONES = (300, 500, 800)


def write_tracks(
    path: Path,
    languages: tuple[str, ...] = ("", "eng"),
    default: tuple[int, ...] = (1,),
    titles: tuple[str, ...] = ("", ""),
    codec: str = "flac",
) -> Path:
    """Write a file of one second whose track i is a tone of TONES[i] Hz."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, language in enumerate(languages):
            stream = container.add_stream(codec, rate=RATE, layout="mono")
            stream.disposition = Disposition.default if number in default else Disposition(0)
            if language:
                stream.metadata["language"] = language
            if number < len(titles) and titles[number]:
                stream.metadata["title"] = titles[number]
            streams.append(stream)
        for number, stream in enumerate(streams):
            levels = np.rint(9000 * np.sin(2 * np.pi * TONES[number] * np.arange(RATE) / RATE)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(levels[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            for converted in av.AudioResampler(stream.codec_context.format.name, "mono", RATE).resample(frame):
                container.mux(stream.encode(converted))
            container.mux(stream.encode(None))
    return path


def heard(samples: np.ndarray) -> int:
    """Return which track samples are of."""
    spectrum = np.abs(np.fft.rfft(samples[:RATE]))
    return TONES.index(int(min(TONES, key=lambda hz: abs(hz - spectrum.argmax() * RATE / len(samples[:RATE])))))


def test_the_default_track_is_heard_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tracks(tmp_path / "two.mkv", titles=("Music", "Speech,\nclean"))
    with caplog.at_level(logging.WARNING):
        audio = load_audio(path)
    assert (audio.track, heard(audio.samples)) == (1, 1)
    line = (
        f"audio {path}: 2 audio tracks, taking 1 (eng, Speech, clean, flac, default), not 0 (no language, Music, flac)"
    )
    assert [record.getMessage() for record in caplog.records] == [line]
    assert heard(load_soundtrack(path, Fraction(0), longest_s=Fraction(9))) == 1


@pytest.mark.parametrize(("default", "taken"), [((), 0), ((0, 1), 0), ((2,), 2), ((1, 2), 1)])
def test_without_a_default_the_first(tmp_path: Path, default: tuple[int, ...], taken: int) -> None:
    path = write_tracks(tmp_path / "three.mkv", ("ger", "eng", "fre"), default)
    assert heard(load_audio(path).samples) == taken


@pytest.mark.parametrize(
    ("track", "taken"),
    [(0, 0), (1, 1), (2, 2), ("ger", 0), ("deu", 0), ("de", 0), ("de-AT", 0), ("ENG", 1), ("en_GB", 1), ("fr", 2)],
)
def test_a_track_is_chosen(tmp_path: Path, track: AudioTrack, taken: int) -> None:
    path = write_tracks(tmp_path / "three.mkv", ("ger", "eng", "fra"))
    audio = load_audio(path, audio_track=track)
    assert (audio.track, heard(audio.samples)) == (taken, taken)


def test_of_several_in_a_language_the_default(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "three.mkv", ("eng", "eng", "fra"), (1,))
    assert load_audio(path, audio_track="en").track == 1


def test_one_track_is_not_worth_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tracks(tmp_path / "one.mkv", ("eng",), ())
    with caplog.at_level(logging.WARNING):
        assert load_audio(path, audio_track=0).track == 0
    assert not caplog.records


@pytest.mark.parametrize("track", [2, -1, "nl", "", True])
def test_a_track_that_is_not_there(tmp_path: Path, track: AudioTrack) -> None:
    path = write_tracks(tmp_path / "two.mkv")
    expected = r"expected a number or a language of 0 \(no language, flac\), 1 \(eng, flac, default\)"
    with pytest.raises(MediaError, match=f"got audio track {track!r}, {expected}") as caught:
        load_audio(path, audio_track=track)
    assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="got audio track"):
        VideoWriter(tmp_path / "out.mp4", size=(64, 64), fps=25, audio=SoundFile(path, track))  # pyright: ignore


def test_a_track_of_what_is_no_file() -> None:
    for source in (np.zeros(100, np.float32), Audio(np.zeros(100, np.float32))):
        with pytest.raises(ValueError, match="audio_track: got 1 for .*, expected it with a file only"):
            load_audio(source, audio_track=1)


@pytest.mark.parametrize("codec", ["flac", "aac"])  # encoded, and copied
@pytest.mark.parametrize("track", [None, 0, 2])
def test_the_output_has_the_track_that_was_heard(tmp_path: Path, codec: str, track: int | None) -> None:
    path = write_tracks(tmp_path / "three.mkv", ("ger", "eng", "fra"), codec=codec)
    audio = load_audio(path, audio_track=track)
    out = tmp_path / "out.mp4"

    class Black(Video):
        def __init__(self) -> None:
            self.size, self.fps = (64, 64), Fraction(25)
            self._audio, self._own = audio, None
            self._portrait = Portrait(np.zeros((64, 64, 3), np.uint8), np.zeros((478, 3), np.float32))
            self._background, self._preview = None, None

        def __len__(self) -> int:
            return 25

        def _shown_in(self, path: object) -> Video:
            return self

        def _rendered(self) -> Iterator[np.ndarray]:
            return iter([np.zeros((64, 64, 3), np.uint8)] * 25)

    Black().save(out)
    assert heard(load_audio(out).samples) == heard(audio.samples) == (1 if track is None else track)


def test_a_copied_track_has_no_gaps_that_were_not_heard(tmp_path: Path) -> None:
    source = tmp_path / "gaps.mkv"
    levels = np.rint(9000 * np.sin(2 * np.pi * 500 * np.arange(4 * RATE) / RATE)).astype(np.int16)
    with av.open(str(source), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(levels[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        packets = [
            packet
            for converted in av.AudioResampler("fltp", "mono", RATE).resample(frame)
            for packet in stream.encode(converted)
        ] + stream.encode(None)
        for number, packet in enumerate(packets):
            later = 48 * (number // 4)  # ticks of 1 / 16000 s: gaps of 3 ms, 45 ms in all
            packet.pts, packet.dts = packet.pts + later, packet.dts + later
            container.mux(packet)
    audio = load_audio(source)
    with VideoWriter(
        tmp_path / "out.mp4", size=(64, 64), fps=25, audio=source, duration=Fraction(len(audio.samples), RATE)
    ) as writer:
        for _ in range(101):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(container.streams.audio[0]))
    for before, after in zip(frames, frames[1:], strict=False):
        assert after.pts == before.pts + before.samples
    assert frames[0].pts == 0


def test_a_damaged_track_is_not_copied(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "one.mkv", ("eng",), codec="aac")
    audio = load_audio(path)
    assert audio.intact
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    assert not load_audio(path).intact
