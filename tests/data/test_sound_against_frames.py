"""Footage with a white flash and a beep together: they are together in what `prepare` and `evaluate` take from it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from atldiff.audio.load import load_audio, load_soundtrack
from atldiff.data import clip
from atldiff.data.clip import prepare_clip
from atldiff.errors import MediaError
from atldiff.evaluation.footage import duration_error_ms, watch
from atldiff.landmarks.shape import mean_shape
from atldiff.video.read import probe, read_frames_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SIGNS = (1.0, 2.32, 3.12, 4.72)
"""Seconds at which both come."""
LENGTH_S = 6
FPS = 25
RATE = 48_000
SIZE = (96, 128)
HALF_FRAME_MS = 20
CODECS = {
    "mp4": ("libx264", "aac"), "mov": ("libx264", "aac"), "mkv": ("libx264", "aac"), "ts": ("libx264", "aac"),
    "flv": ("libx264", "aac"), "webm": ("libvpx-vp9", "libopus"), "avi": ("mpeg4", "libmp3lame"),
    "mpg": ("mpeg1video", "mp2"), "vob": ("mpeg2video", "mp2"),
}  # fmt: skip
FORMATS = {"mpg": "mpeg", "ts": "mpegts", "mkv": "matroska"}
VIDEO_OPTIONS = {
    "libx264": {"bf": "2", "g": "50", "preset": "veryfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "50"},
    "mpeg4": {"bf": "2", "g": "12"},
    "mpeg1video": {"bf": "2", "g": "12"},
    "mpeg2video": {"bf": "2", "g": "12"},
}


def beeps() -> np.ndarray:
    """Return (N,) float32: quiet noise, and 60 ms of 1 kHz at each sign."""
    samples = np.random.default_rng(0).normal(0, 1e-4, LENGTH_S * RATE)
    time = np.arange(round(0.06 * RATE)) / RATE
    for sign in SIGNS:
        start = round(sign * RATE)
        samples[start : start + len(time)] += 0.7 * np.sin(2 * np.pi * 1000 * time)
    return samples.astype(np.float32)


def picture(index: int) -> np.ndarray:
    white = any(0 <= index - round(sign * FPS) < 2 for sign in SIGNS)
    frame = np.full((*SIZE, 3), 220 if white else 30, np.uint8)
    frame[10:20, index * 3 % 100 : index * 3 % 100 + 12] = 120
    return frame


def encoded(
    path: Path,
    codecs: tuple[str, str] | None = None,
    options: dict[str, str] | None = None,
    video_options: dict[str, str] | None = None,
) -> tuple[Any, list[tuple[str, Fraction, av.Packet]]]:
    """Open `path` and return it with the kind, the presentation time and the packet of all that goes in, in order."""
    suffix = path.suffix[1:]
    picture_codec, sound_codec = codecs or CODECS[suffix]
    container: Any = av.open(str(path), "w", format=FORMATS.get(suffix), options=options or {})
    stream = container.add_stream(
        picture_codec, rate=FPS, options={**VIDEO_OPTIONS[picture_codec], **(video_options or {})}
    )
    stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
    track = container.add_stream(sound_codec, rate=RATE, layout="mono")
    packets = []
    for index in range(LENGTH_S * FPS):
        frame = av.VideoFrame.from_ndarray(picture(index)).reformat(format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        packets += [("video", packet) for packet in stream.encode(frame)]
    packets += [("video", packet) for packet in stream.encode(None)]
    samples = beeps()
    converter = av.AudioResampler(track.codec_context.format.name, "mono", RATE)
    for start in range(0, len(samples), 1024):
        block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
        for converted in converter.resample(block):
            packets += [("audio", packet) for packet in track.encode(converted)]
    packets += [("audio", packet) for packet in track.encode(None)]
    packets = [(kind, packet) for kind, packet in packets if packet.size]
    packets.sort(key=lambda each: (each[1].dts or 0) * each[1].time_base)
    return container, [(kind, Fraction(packet.pts * packet.time_base), packet) for kind, packet in packets]


def write(
    path: Path,
    *,
    keep: Callable[[str, Fraction], bool] = lambda kind, time: True,
    move: Callable[[str, Fraction], Fraction] = lambda kind, time: Fraction(0),
    codecs: tuple[str, str] | None = None,
    options: dict[str, str] | None = None,
    **video_options: str,
) -> Path:
    """Write footage; keep and move say, by a packet's kind and time, whether it goes in and how much later."""
    container, packets = encoded(path, codecs, options, video_options)
    with container:
        for kind, time, packet in packets:
            if keep(kind, time):
                ticks = round(move(kind, time) / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                container.mux(packet)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the plain footage in a container, written once."""
    folder = tmp_path_factory.mktemp("whole")

    def made(suffix: str) -> Path:
        path = folder / f"whole.{suffix}"
        return path if path.exists() else write(path)

    return made


def remuxed(source: Path, path: Path, from_s: float = 0.0, options: dict[str, str] | None = None) -> Path:
    """Copy a file's packets from a time on into another container, wherever in a group of pictures that is."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=options or {}) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None and packet.pts * packet.time_base >= from_s:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return path


def cut(source: Path, path: Path, share: float, unit: int) -> Path:
    """Cut the beginning off a file at a multiple of its units in bytes."""
    content = source.read_bytes()
    path.write_bytes(content[int(len(content) / unit * share) * unit :])
    return path


def onsets(high: np.ndarray, apart: int) -> np.ndarray:
    places = np.flatnonzero(high)
    return places[np.diff(places, prepend=-apart - 1) > apart]


def beep_after_flash_ms(samples: np.ndarray, brightness: Sequence[float]) -> list[float]:
    """Return for each flash, but one in the first frame, how much later its beep comes."""
    flashes = onsets(np.asarray(brightness) > 100, 5) / FPS
    heard = onsets(np.abs(samples) > 0.15, 4800) / 16_000
    found = [1000 * min(heard - flash, key=abs, default=np.inf) for flash in flashes if flash > 0]
    assert found, "no flash"
    return found


def measured(path: Path) -> list[float]:
    brightness = [float(frame.mean()) for frame in read_frames_at(path, FPS)]
    samples = load_soundtrack(path, probe(path).start_s, longest_s=Fraction(len(brightness), FPS))
    return beep_after_flash_ms(samples, brightness)


def in_step(path: Path, within_ms: float = 5) -> None:
    found = measured(path)
    assert max(map(abs, found)) <= within_ms, found


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv", "mpg", "vob"])
def test_whole_files(whole: Callable[[str], Path], suffix: str) -> None:
    in_step(whole(suffix))


def test_opus_in_webm(whole: Callable[[str], Path]) -> None:
    in_step(whole("webm"), 8)  # its muxer moves the sound by what the decoder skips, 6.5 ms


@pytest.mark.parametrize("unit", [2048, 997])
@pytest.mark.parametrize("share", [0.15, 0.3, 0.45])
@pytest.mark.parametrize("suffix", ["mpg", "vob"])
def test_program_streams_cut_anywhere(
    whole: Callable[[str], Path], tmp_path: Path, suffix: str, share: float, unit: int
) -> None:
    path = cut(whole(suffix), tmp_path / f"cut.{suffix}", share, unit)
    in_step(path)
    assert np.allclose(np.diff(times_of_frames(path)), 1 / FPS, atol=1e-4)
    shown = len(list(read_frames_at(path, FPS)))
    assert float(probe(path).duration_s or 0) * FPS <= shown + 1  # what cannot be decoded is not missing at the end


def test_the_first_frames_of_a_cut_program_stream_are_not_late(tmp_path: Path) -> None:
    # FFmpeg gives the rest of a picture the timestamp of the next: it shows in a stream without B-frames as one frame.
    plain = write(tmp_path / "whole.mpg", bf="0")
    for share in (0.1, 0.2, 0.3, 0.4):
        path = cut(plain, tmp_path / "cut.mpg", share, 2048)
        times = times_of_frames(path)
        assert np.allclose(np.diff(times), 1 / FPS, atol=1e-4), share
        in_step(path)


def times_of_frames(path: Path) -> list[float]:
    from atldiff.video.stamps import demuxed

    times = []
    with av.open(str(path)) as container:
        for packet in demuxed(container, container.streams.video[0]):
            try:
                times += [float(frame.pts * frame.time_base) for frame in packet.decode() if frame.pts is not None]
            except av.error.InvalidDataError:
                continue
    return times


@pytest.mark.parametrize("share", [0.15, 0.3, 0.45])
def test_transport_streams_cut_anywhere(whole: Callable[[str], Path], tmp_path: Path, share: float) -> None:
    path = cut(whole("ts"), tmp_path / "cut.ts", share, 188)
    in_step(path)
    assert float(probe(path).duration_s or 0) * FPS == pytest.approx(len(list(read_frames_at(path, FPS))), abs=1)


@pytest.mark.parametrize("sound", ["libmp3lame", "pcm_s16le", "ac3"])
@pytest.mark.parametrize("bf", ["0", "2"])
def test_avi(tmp_path: Path, sound: str, bf: str) -> None:
    in_step(write(tmp_path / "whole.avi", codecs=("mpeg4", sound), bf=bf), HALF_FRAME_MS + 5)


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+delay_moov", "frag_keyframe", "dash"])
def test_fragmented_mp4(tmp_path: Path, flags: str) -> None:
    in_step(write(tmp_path / "fragmented.mp4", options={"movflags": flags}))


@pytest.mark.parametrize("flags", ["", "frag_keyframe+empty_moov"])
def test_mp4_without_edit_lists(tmp_path: Path, flags: str) -> None:
    options = {"use_editlist": "0", **({"movflags": flags} if flags else {})}
    in_step(write(tmp_path / "plain.mp4", options=options), HALF_FRAME_MS + 5)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "flv", "webm"])
def test_packets_of_sound_are_absent(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"gap.{suffix}", keep=lambda kind, time: kind == "video" or not 1.5 <= time < 2.2)
    in_step(path, 8)
    brightness = [float(frame.mean()) for frame in read_frames_at(path, FPS)]
    assert len(brightness) == pytest.approx(LENGTH_S * FPS, abs=1)
    samples = load_soundtrack(path, probe(path).start_s, longest_s=Fraction(LENGTH_S))
    assert not samples[round(1.56 * 16_000) : round(2.15 * 16_000)].any()


def test_a_single_lost_packet_and_many(tmp_path: Path) -> None:
    lost = [Fraction(place, 10) for place in (2, 6, 14, 18, 22, 27, 35, 41, 45)]  # seconds

    def kept(kind: str, time: Fraction) -> bool:
        return kind == "video" or not any(place <= time < place + Fraction(21, 1000) for place in lost)

    in_step(write(tmp_path / "gaps.mkv", keep=kept))


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("later_s", [Fraction(3, 10), Fraction(-1, 5)])
def test_sound_that_starts_elsewhere_stays_there(tmp_path: Path, suffix: str, later_s: Fraction) -> None:
    # All beeps are later by so much: that is how the footage is.
    path = write(tmp_path / f"moved.{suffix}", move=lambda kind, time: later_s if kind == "audio" else Fraction(0))
    assert max(abs(ms - 1000 * float(later_s)) for ms in measured(path)) <= 5


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts", "flv"])
@pytest.mark.parametrize("from_s", [0.0, 1.5])
def test_copies_and_cuts(whole: Callable[[str], Path], tmp_path: Path, suffix: str, from_s: float) -> None:
    in_step(remuxed(whole("mp4"), tmp_path / f"copy.{suffix}", from_s), HALF_FRAME_MS + 5 if from_s else 5)


def test_timestamps_that_tremble_are_not_followed(tmp_path: Path) -> None:
    random = np.random.default_rng(1)

    def trembling(kind: str, time: Fraction) -> Fraction:
        return Fraction(int(random.integers(-9, 10)), 1000) if kind == "audio" and time > 0 else Fraction(0)

    path = write(tmp_path / "jitter.mkv", move=trembling, codecs=("libx264", "flac"))
    samples = load_soundtrack(path, probe(path).start_s, longest_s=Fraction(LENGTH_S))
    joined = load_audio(path).samples
    assert np.array_equal(samples[: len(joined)], joined[: len(samples)])  # nothing was cut or put in


def test_what_comes_twice_is_heard_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.mkv"
    container, packets = encoded(path, ("libx264", "pcm_s16le"))
    with container:
        for kind, time, packet in packets:
            content, stamps = bytes(packet), (packet.pts, packet.dts, packet.time_base, packet.duration)
            again = av.Packet(content)
            again.stream = packet.stream
            again.pts, again.dts, again.time_base, again.duration = stamps
            container.mux(packet)
            if kind == "audio" and 1.5 <= time < 2.0:
                container.mux(again)
    in_step(path)


def test_a_wrong_timestamp_makes_no_hours_of_silence(tmp_path: Path) -> None:
    path = write(
        tmp_path / "jump.mkv", move=lambda kind, time: Fraction(100_000 if kind == "audio" and time > 5 else 0)
    )
    samples = load_soundtrack(path, probe(path).start_s, longest_s=Fraction(LENGTH_S + 60))
    assert len(samples) == (LENGTH_S + 60) * 16_000


def test_sound_that_is_over_before_the_first_frame(tmp_path: Path) -> None:
    path = write(
        tmp_path / "early.mkv",
        keep=lambda kind, time: (time >= 3) == (kind == "video"),
    )
    assert not len(load_soundtrack(path, probe(path).start_s, longest_s=Fraction(LENGTH_S)))


def test_without_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "silent.mkv", keep=lambda kind, time: kind == "video")
    with pytest.raises(MediaError):
        load_soundtrack(path, probe(path).start_s, longest_s=Fraction(LENGTH_S))


class Steady:
    """Stands where a face tracker stands, and sees one face that never moves; none where it is painted over."""

    def __init__(self) -> None:
        self.points = (mean_shape() * 30 + [64, 48, 0]).astype(np.float32)

    def reset(self) -> None:
        pass

    def track(self, frame: np.ndarray) -> np.ndarray | None:
        return None if (frame[48, 64] == 128).all() else self.points


def gap_at(kind: str, time: Fraction) -> bool:
    return kind == "video" or not 1.5 <= time < 2.2


def test_evaluate_sees_them_together(tmp_path: Path) -> None:
    path = write(tmp_path / "gap.mkv", keep=gap_at)
    footage = watch(path, Steady())  # pyright: ignore[reportArgumentType]
    assert footage.samples is not None
    brightness = [float(frame.mean()) for frame in footage.frames()]
    assert max(map(abs, beep_after_flash_ms(footage.samples, brightness))) <= 5
    assert footage.sound_s == pytest.approx(LENGTH_S, abs=0.05)
    assert (duration_error_ms(footage) or 0) < 50


def test_prepare_stores_them_together(
    whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    monkeypatch.setattr(clip, "is_heard", lambda *_: True)  # a beep is no voice
    path = cut(whole("mpg"), tmp_path / "cut.mpg", 0.15, 2048)
    out = tmp_path / "prepared"
    out.mkdir()
    record = prepare_clip(path, "cut.mpg", "cut", out, Steady())  # pyright: ignore[reportArgumentType]
    assert not record.reason
    tensors = load_file(out / "cut.safetensors")
    brightness = tensors["windows"].mean(axis=(1, 2, 3))
    found = beep_after_flash_ms(tensors["samples"] / 32768, brightness)
    assert max(map(abs, found)) <= HALF_FRAME_MS + 5, found
