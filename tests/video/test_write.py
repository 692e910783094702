"""Video out: exact lengths, colours, sound, and what is left when a render ends early."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from atldiff.errors import MediaError
from atldiff.video.formats import check_output, keeps_alpha
from atldiff.video.read import read_rgba_frames
from atldiff.video.write import VideoWriter

SIZE = (64, 64)
MUXED = ("mp4", "mov", "mkv", "webm")


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    frame = np.full((*size, 3), (200, 90, 30), np.uint8)
    frame[:, : index % size[1]] = (30, 180, 220)
    return frame


def tone(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    wave_form = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave_form[:, None], channels, axis=1).astype(np.float32)


def render(path: Path | str, frames: int = 30, size: tuple[int, int] = SIZE, **options: Any) -> None:
    with VideoWriter(path, size=size, fps=options.pop("fps", 25), **options) as writer:
        for i in range(frames):
            writer.write(picture(i, size))


def render_and_stop(path: Path | str, frames: int, error: BaseException) -> None:
    with VideoWriter(path, size=SIZE, fps=25, audio=(tone(16_000, 9.0), 16_000)) as writer:
        for i in range(frames):
            writer.write(picture(i))
        raise error


def decode(path: Path, kind: str = "video") -> tuple[list[np.ndarray], Fraction, Fraction | None]:
    """Return the frames or sample blocks (n, channels), the first time stamp and the track's stated length, in s."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        length = None if stream.duration is None else stream.duration * stream.time_base
        decoded = list(container.decode(stream))
        start = decoded[0].pts * decoded[0].time_base
        if kind == "video":
            return [frame.to_ndarray(format="rgb24") for frame in decoded], start, length
        return [frame.to_ndarray().T for frame in decoded], start, length


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def pictures(path: Path) -> list[np.ndarray]:
    """Return the frames of a video or of a folder of PNG frames."""
    if not path.is_dir():
        return decode(path)[0]
    return [np.array(Image.open(frame)) for frame in sorted(path.glob("*.png"))]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("suffix", MUXED)
def test_frames_sound_and_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    render(path, audio=(tone(44_100, 1.3, 2), 44_100), duration=Fraction(6, 5))
    assert names(tmp_path) == [path.name]
    frames, start, length = decode(path)
    assert len(frames) == 30
    assert start == 0
    assert length in (None, Fraction(6, 5))
    for frame, colour in ((frames[0], (200, 90, 30)), (frames[-1][:, :16], (30, 180, 220))):
        assert np.abs(frame.mean(axis=(0, 1)) - colour).max() < 2.5
    blocks, start, length = decode(path, "audio")
    assert abs(start) < Fraction(1, 1000)
    assert length in (None, Fraction(6, 5))
    samples = np.concatenate(blocks)[:, 0]
    rate = 48_000 if suffix == "webm" else 44_100
    assert 0 <= len(samples) / rate - 1.2 < 0.03  # codecs pad their last packet
    cut = slice(rate // 10, rate)  # the phase of the tone shows a shift of a fraction of a millisecond
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / rate)
    assert np.corrcoef(samples[cut], expected[cut])[0, 1] > 0.99


def test_mp4_is_for_the_web(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    render(path, audio=(tone(16_000, 1.2), 16_000))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"moof" not in content
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert [context.color_primaries, context.color_trc, context.colorspace, context.color_range] == [1, 1, 1, 1]
        assert container.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30_000, 1001), Fraction(50)])
@pytest.mark.parametrize("seconds", [Fraction(1), Fraction(613, 10)])
def test_sound_and_picture_last_equally(tmp_path: Path, fps: Fraction, seconds: Fraction) -> None:
    path = tmp_path / "out.mp4"
    count = -(-(seconds * fps).numerator // (seconds * fps).denominator)
    render(path, count, (32, 32), fps=fps, audio=(tone(16_000, float(seconds)), 16_000), duration=count / fps)
    with av.open(str(path)) as container:
        lengths = [stream.duration * stream.time_base for stream in container.streams]  # pyright: ignore
        starts = [stream.start_time for stream in container.streams]
        assert container.streams.video[0].frames == count
        assert container.streams.video[0].average_rate == fps
    assert starts == [0, 0]
    assert lengths[0] == count / fps
    assert abs(lengths[1] - lengths[0]) <= Fraction(1, 1000)  # mp4 states it in whole milliseconds


@pytest.mark.parametrize("rate", [6_000, 8_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_sound_keeps_its_rate(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "out.mp4"
    render(path, 10, audio=(tone(rate, 0.4, channels), rate), duration=Fraction(2, 5))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.sample_rate == {6_000: 7_350, 192_000: 48_000}.get(rate, rate)
        assert stream.codec_context.channels == {8: 2}.get(channels, channels)
        assert stream.duration is not None
        assert stream.time_base is not None
        assert abs(stream.duration * stream.time_base - Fraction(2, 5)) <= Fraction(1, 7_350)


@pytest.mark.parametrize("container", ["m4a", "aac", "ts", "mkv"])
def test_aac_is_copied_where_it_fits(tmp_path: Path, container: str) -> None:
    source = tmp_path / f"speech.{container}"
    with av.open(str(source), "w", format="ipod" if container == "m4a" else None) as out:
        stream: Any = out.add_stream("aac", rate=44_100, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(44_100, 1.2).T.copy(), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = 44_100, 0, Fraction(1, 44_100)
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    path = tmp_path / "out.mp4"
    render(path, audio=source, duration=Fraction(6, 5))
    original, copied = packets(source), packets(path)
    blocks, start, length = decode(path, "audio")
    assert abs(start) < Fraction(1, 1000)
    assert length is not None
    assert abs(length - Fraction(6, 5)) < Fraction(1, 25)
    samples = np.concatenate(blocks)[:40_000, 0]
    expected = np.concatenate(decode(source, "audio")[0])[:40_000, 0]
    if container in ("m4a", "mkv"):
        assert copied == original[: len(copied)]
        assert len(original) - len(copied) <= 1
        assert np.array_equal(samples, expected)
    else:  # packets with ADTS headers do not fit into an mp4 as they are, so these are encoded
        assert np.corrcoef(samples, expected)[0, 1] > 0.999


def test_copied_sound_is_cut(tmp_path: Path) -> None:
    render(tmp_path / "long.mp4", 50, audio=(tone(16_000, 2.0), 16_000))
    render(tmp_path / "short.mp4", 25, audio=tmp_path / "long.mp4", duration=Fraction(1))
    assert decode(tmp_path / "short.mp4", "audio")[2] == 1


def test_other_sound_files_are_encoded(tmp_path: Path) -> None:
    source = tmp_path / "speech.wav"
    with wave.open(str(source), "wb") as file:
        file.setparams((2, 2, 22_050, 0, "NONE", ""))
        file.writeframes(np.rint(tone(22_050, 1.0, 2) * 32767).astype("<i2").tobytes())
    render(tmp_path / "out.mp4", audio=source, duration=Fraction(6, 5))
    blocks, start, length = decode(tmp_path / "out.mp4", "audio")
    samples = np.concatenate(blocks)
    assert (start, length) == (0, Fraction(6, 5))
    assert samples.shape[1] == 2
    assert np.abs(samples[23_000:]).max() < 1e-2  # padded with silence
    assert np.abs(samples[2_000:20_000]).max() > 0.25


@pytest.mark.parametrize("suffix", MUXED)
def test_odd_sides_gain_a_copied_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    render(path, 3, (33, 51))
    frame = decode(path)[0][0]
    assert frame.shape == (34, 52, 3)
    assert np.abs(frame.mean(axis=(0, 1)) - (200, 90, 30)).max() < 2.5


def test_gif(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        render(tmp_path / "out.gif", 10, (33, 51), audio=(tone(16_000, 1.0), 16_000))
    assert "no sound" in caplog.text
    assert names(tmp_path) == ["out.gif"]
    with Image.open(tmp_path / "out.gif") as image:
        assert image.size == (51, 33)
        assert getattr(image, "n_frames", 1) == 10
        assert image.info["duration"] == 40
        assert image.info["loop"] == 0
        assert np.abs(np.asarray(image.convert("RGB")).mean(axis=(0, 1)) - (200, 90, 30)).max() < 2.5


@pytest.mark.parametrize("name", ["frames", "frames/", "frames.v2/"])
def test_png_folder(tmp_path: Path, name: str) -> None:
    for _ in range(2):  # our own folder is replaced
        render(f"{tmp_path}/{name}", 12, (33, 51), audio=(tone(8_000, 0.3), 8_000), duration=Fraction(12, 25))
    folder = tmp_path / name
    assert names(tmp_path) == [folder.name]
    assert names(folder) == [f"{i:06d}.png" for i in range(12)] + ["audio.wav"]
    for i in (0, 11):
        assert np.array_equal(np.asarray(Image.open(folder / f"{i:06d}.png")), picture(i, (33, 51)))
    with wave.open(str(folder / "audio.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8_000, 1, 3_840)
        levels = np.frombuffer(file.readframes(3_840), "<i2")
    assert np.abs(levels[:2_400] / 32768 - tone(8_000, 0.3)[:, 0]).max() < 1e-4
    assert not levels[2_400:].any()


def cutout(index: int, size: tuple[int, int]) -> np.ndarray:
    """A soft ellipse that moves, one colour under all of it."""
    y, x = np.mgrid[: size[0], : size[1]]
    reach = np.hypot((x - size[1] / 2 - index % 7) / size[1], (y - size[0] / 2) / size[0])
    alpha = np.clip(255 * (0.4 - reach) / 0.1, 0, 255)
    return np.dstack([np.full((*size, 3), (200, 90, 30)), alpha]).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (97, 131)])
@pytest.mark.parametrize("name", ["out.webm", "out.mov", "out/"])
def test_alpha_comes_back(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = f"{tmp_path}/{name}"
    assert keeps_alpha(path)
    with VideoWriter(path, size=size, fps=25, audio=(tone(16_000, 1.2), 16_000), alpha=True) as writer:
        for index in range(30):
            writer.write(cutout(index, size))
    assert writer.written.frames == 30
    if name.endswith("/"):
        got = [np.asarray(Image.open(f"{path}{index:06d}.png")) for index in range(30)]
        assert all(np.array_equal(frame, cutout(index, size)) for index, frame in enumerate(got))
        return
    frames = list(read_rgba_frames(path))
    assert len(frames) == 30
    assert frames[0][0].shape[:2] == writer.written.size
    assert writer.written.size == (size if name == "out.mov" else tuple(side + side % 2 for side in size))
    for index in (0, 17, 29):
        colour, alpha = frames[index]
        wanted = cutout(index, size)
        assert alpha is not None
        height, width = size
        off = np.abs(alpha[:height, :width].astype(int) - wanted[..., 3])
        assert off.max() <= (30 if name == "out.webm" else 2)
        assert off.mean() < 2
        assert alpha[height // 2, width // 2] == 255
        assert alpha[:4, :4].max() == 0
        assert np.abs(colour[:height, :width].mean(axis=(0, 1)) - (200, 90, 30)).max() < 2.5
    assert len(np.concatenate(decode(Path(path), "audio")[0])) > 16_000
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        if name == "out.mov":
            assert (context.name, context.profile, context.codec_tag) == ("prores", "4444", "ap4h")
            assert stream.frames == 30
        else:
            assert (context.name, stream.metadata["alpha_mode"]) == ("vp9", "1")  # what browsers look for
        assert context.color_primaries == context.color_trc == context.colorspace == 1


def test_alpha_is_refused_where_it_would_be_lost(tmp_path: Path) -> None:
    for name in ("out.mp4", "out.mkv", "out.gif"):
        assert not keeps_alpha(tmp_path / name)
        with pytest.raises(ValueError, match=r"got frames with alpha, expected \.webm, \.mov or a folder"):
            VideoWriter(tmp_path / name, size=SIZE, fps=25, alpha=True)
    writer = VideoWriter(tmp_path / "out.webm", size=SIZE, fps=25, alpha=True)
    with pytest.raises(ValueError, match=r"got \(64, 64, 3\) uint8, expected \(64, 64, 4\) uint8"):
        writer.write(picture(0))
    with pytest.raises(ValueError, match="no such setting"):
        VideoWriter(tmp_path / "out.mov", size=SIZE, fps=25, alpha=True, quality=10)


@pytest.mark.parametrize("name", ["out.webm", "out.mov"])
def test_a_part_with_alpha_is_kept(tmp_path: Path, name: str) -> None:
    writer = VideoWriter(tmp_path / name, size=SIZE, fps=25, alpha=True)
    for index in range(40):
        writer.write(cutout(index, SIZE))
    writer.abort()
    (kept,) = tmp_path.iterdir()
    frames = list(read_rgba_frames(kept))
    assert len(frames) == 40
    assert frames[0][1] is not None


def test_output_is_deterministic(tmp_path: Path) -> None:
    contents = set()
    for _ in range(8):
        render(tmp_path / "out.mp4", 12, audio=(tone(16_000, 0.5), 16_000))
        contents.add((tmp_path / "out.mp4").read_bytes())
    assert len(contents) == 1


def test_quality(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, *SIZE, 3), np.uint8)
    for quality in (10, 40):
        with VideoWriter(tmp_path / f"{quality}.mp4", size=SIZE, fps=25, quality=quality) as writer:
            for frame in noise:
                writer.write(frame)
    assert (tmp_path / "10.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.gif", "out/"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_a_playable_part(
    tmp_path: Path, name: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/{name}"
    for frames in (20, 60):
        with pytest.raises(error, match="stop"):
            render_and_stop(path, frames, error("stop"))
        kept = Path(name).stem + ".partial" + Path(name).suffix
        assert names(tmp_path) == ([kept] if frames == 60 else [])
    assert kept in caplog.text
    if name.endswith("/"):
        assert len(names(tmp_path / kept)) == 60
        return
    assert len(decode(tmp_path / kept)[0]) == 60
    if name != "out.gif":
        assert sum(map(len, decode(tmp_path / kept, "audio")[0])) > 16_000 * 2.2
    render(path)  # an earlier part is in nobody's way
    assert Path(name).name in names(tmp_path)


def test_an_earlier_video_survives_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    render(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        render_and_stop(path, 3, RuntimeError())
    assert path.read_bytes() == before
    assert names(tmp_path) == ["out.mp4"]


def test_a_killed_render_leaves_a_playable_part(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
from atldiff.video.write import VideoWriter
tone = (0.3 * np.sin(np.arange(16000 * 60) / 6)).astype(np.float32)
with VideoWriter(sys.argv[1], size=(64, 64), fps=25, audio=(tone, 16000)) as writer:
    for i in range(10**6):
        writer.write(np.full((64, 64, 3), i % 200, np.uint8))
        if i == 150:
            sys.stdout.write("ready\\n")
            sys.stdout.flush()
            sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out.mp4")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    child.communicate()
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(f".out.mp4.{child.pid}-")
    assert names(hidden) == ["out.mp4"]
    assert len(decode(hidden / "out.mp4")[0]) >= 75
    assert sum(map(len, decode(hidden / "out.mp4", "audio")[0])) >= 16_000 * 3
    render(tmp_path / "out.mp4")  # the next render of that name tidies up
    assert names(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif", "out/"])
def test_the_last_to_finish_wins(tmp_path: Path, name: str) -> None:
    """Two at once do not see one another, whoever began or gives up first."""
    path = f"{tmp_path}/{name}"
    first, second, third = (VideoWriter(path, size=SIZE, fps=25) for _ in range(3))
    for index in range(40):
        for writer, level in ((first, 40), (second, 120), (third, 200)):
            if writer is not second or index < 30:
                writer.write(np.full((*SIZE, 3), level, np.uint8))
    for writer, level, frames in ((second, 120, 30), (first, 40, 40)):
        writer.close()
        shown = pictures(tmp_path / name)
        assert len(shown) == frames
        assert abs(shown[-1].mean() - level) < 6
    third.abort()
    kept = Path(name).stem + ".partial" + Path(name).suffix
    assert names(tmp_path) == sorted([Path(name).name, kept])
    assert len(pictures(tmp_path / name)) == len(pictures(tmp_path / kept)) == 40


def test_two_parts_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    first, second = (VideoWriter(path, size=SIZE, fps=25) for _ in range(2))
    for _ in range(30):
        first.write(np.full((*SIZE, 3), 50, np.uint8))
    for _ in range(60):
        second.write(np.full((*SIZE, 3), 90, np.uint8))
    first.abort()
    second.abort()
    assert names(tmp_path) == ["out.partial.mp4"]
    assert len(decode(tmp_path / "out.partial.mp4")[0]) == 60


def test_a_part_that_nobody_wants(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=SIZE, fps=25, keep_part=False)
    for index in range(60):
        writer.write(picture(index))
    writer.abort()
    assert names(tmp_path) == []
    assert caplog.text == ""


def test_a_long_name(tmp_path: Path) -> None:
    name = "ä" * 120 + ".mp4"
    render(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_failing_last_step_keeps_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("atldiff.video.write.copy_streams", full_disk)
    with pytest.raises(MediaError, match="No space left"):
        render(tmp_path / "out.mp4", 30)
    assert names(tmp_path) == ["out.partial.mp4"]
    assert len(decode(tmp_path / "out.partial.mp4")[0]) == 30


def test_sound_does_not_wait_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    render(path, 250, audio=(tone(16_000, 10.0), 16_000))
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.dts * packet.time_base) for packet in container.demux() if packet.dts is not None]
    times = [time for _, time in sorted(places)]
    assert max(max(times[:i]) - times[i] for i in range(1, len(times))) < Fraction(2)


def test_output_doors(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.doc").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "nowhere" / "out.mp4", r"folder .*nowhere does not exist: create it or choose another -o"),
        (tmp_path / "file" / "out.mp4", "is not a folder"),
        (tmp_path / "out.avi", r"suffix \.avi, expected \.mp4"),
        (tmp_path / "folder.mp4", "got a folder"),
        (taken, "holds other files"),
        (f"{taken}/", "holds other files"),
        (tmp_path / "file", "got a file, expected a folder"),
        ("", "no file name"),
        (".", "no file name"),
        ("/", "no file name"),
    ):
        before = names(tmp_path)
        with pytest.raises(MediaError, match=message) as caught:
            check_output(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(MediaError, match=message):
            VideoWriter(path, size=SIZE, fps=25)
        assert names(tmp_path) == before
    for path in (tmp_path / "out.MP4", tmp_path / "new", f"{tmp_path}/folder.mp4/"):
        check_output(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MediaError, match="cannot be written"):
        check_output(tmp_path / "out.mp4")


def test_argument_doors(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    silent = tmp_path / "silent.mkv"
    render(silent, 3)
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"fps": 0}, ValueError, "fps"),
        ({"size": (0, 64)}, ValueError, "size"),
        ({"duration": Fraction(0)}, ValueError, "duration"),
        ({"quality": 52}, ValueError, "0 to 51"),
        ({"audio": (np.zeros((4, 100, 2), np.float32), 16_000)}, ValueError, "audio of the video"),
        ({"audio": (np.zeros(100, np.int16), 16_000)}, ValueError, "int16"),
        ({"audio": (np.zeros(100, np.float32), 0)}, ValueError, "rate"),
        ({"audio": tmp_path / "missing.wav"}, MediaError, "no such file"),
        ({"audio": silent}, MediaError, "without an audio track"),
        ({"audio": text}, MediaError, "cannot be read"),
    ]
    for change, kind, message in cases:
        options: dict[str, Any] = {"size": SIZE, "fps": 25, **change}
        with pytest.raises(kind, match=message) as caught:
            VideoWriter(path, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no such setting"):
        VideoWriter(tmp_path / "out.gif", size=SIZE, fps=25, quality=10)
    assert names(tmp_path) == ["silent.mkv", "text.wav"]


def test_frame_and_state_doors(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, size=SIZE, fps=25)
    with pytest.raises(ValueError, match=r"got \(32, 64, 3\) uint8, expected \(64, 64, 3\)"):
        writer.write(picture(0, (32, 64)))
    with pytest.raises(ValueError, match="float64"):
        writer.write(np.zeros((*SIZE, 3)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no frame"):
        writer.close()
    with pytest.raises(ValueError, match="after close"):
        writer.write(picture(0))
    assert names(tmp_path) == []
    render(path, audio=(tone(16_000, 1.2), 16_000))
    with pytest.raises(MediaError, match="replace its own audio"):
        VideoWriter(path, size=SIZE, fps=25, audio=path)
