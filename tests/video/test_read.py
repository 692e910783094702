"""Videos in: frame by frame, their orientation, colours and doors, and on an exact clock."""

from __future__ import annotations

import math
import struct
import weakref
from fractions import Fraction
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image

from atldiff.errors import MediaError
from atldiff.video import read
from atldiff.video.read import is_video, probe, read_frames, read_frames_at

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (32, 48)


def corners() -> np.ndarray:
    """Return a (32, 48, 3) picture with a red, a green, a blue and a grey quarter."""
    image = np.empty((*SIZE, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24], image[16:, 24:] = (
        (200, 30, 30),
        (30, 200, 30),
        (30, 30, 200),
        (90, 90, 90),
    )
    return image


def write_video(
    path: Path, stamps: list[int], time_base: Fraction = Fraction(1, 25), rate: Fraction = Fraction(25)
) -> Path:
    """Write one 48x32 frame a time stamp, frame i of grey 10 + 8 i, in the corner a brighter patch."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "10"}, width=48, height=32)
        stream.codec_context.time_base = time_base
        for i, stamp in enumerate(stamps):
            image = np.full((*SIZE, 3), 10 + 8 * i, np.uint8)
            image[:16, :24] = 250
            frame = av.VideoFrame.from_ndarray(image)
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def indices(frames: Any) -> list[int]:
    return [round((float(frame[24:, 30:].mean()) - 10) / 8) for frame in frames]


def test_is_video(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    Image.fromarray(corners()).save(still)
    gif = tmp_path / "one.gif"
    Image.fromarray(corners()).save(gif)
    moving = tmp_path / "moving.gif"
    other = Image.fromarray(corners()[::-1])
    Image.fromarray(corners()).save(moving, save_all=True, append_images=[other, other.rotate(180)], duration=40)
    text = tmp_path / "text.txt"
    text.write_text("hello\n" * 100)
    jpeg = tmp_path / "still.jpg"
    Image.fromarray(corners()).save(jpeg)
    twice = tmp_path / "twice.jpg"  # phones append a second picture to the first
    twice.write_bytes(jpeg.read_bytes() * 2)
    (tmp_path / "empty.mp4").touch()
    assert is_video(write_video(tmp_path / "a.mp4", [0, 1, 2]))
    assert not is_video(write_video(tmp_path / "one.mp4", [0]))
    assert is_video(moving)
    for path in (still, gif, text, jpeg, twice, tmp_path / "empty.mp4", tmp_path / "missing.mp4", tmp_path):
        assert not is_video(path), path


def test_frames_and_probe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", list(range(20)))
    assert indices(read_frames(path)) == list(range(20))
    small = next(iter(read_frames(path, size=(16, 24))))
    assert small.shape == (16, 24, 3)
    assert small[:6, :10].min() > 240
    stated = probe(path)
    assert (stated.width, stated.height, stated.fps, stated.duration_s) == (48, 32, 25, Fraction(20, 25))
    assert not stated.has_audio


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)]
)
def test_display_rotation(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    path = write_video(tmp_path / "a.mp4", [0, 1])
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # the track header's matrix: a b u c d v x y w, 16.16 and 2.30
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    frame = next(iter(read_frames(path)))
    # (x, y) -> (a x + c y, b x + d y): a quarter turn clockwise for (0, 1, -1, 0), so the patch goes top right.
    expected = np.zeros(SIZE)
    expected[:16, :24] = 250
    expected = np.rot90(expected, turns)
    assert frame.shape[:2] == expected.shape
    assert np.abs(frame.mean(axis=2) - expected)[4:12, 4:12].max() < 30
    assert np.abs(frame.mean(axis=2) - expected)[-12:-4, -12:-4].max() < 30
    assert (probe(path).height, probe(path).width) == expected.shape


@pytest.mark.parametrize(("tag", "weights"), [(1, (0.2126, 0.0722)), (6, (0.299, 0.114)), (2, (0.299, 0.114))])
@pytest.mark.parametrize("full", [True, False])
def test_colours_follow_the_tags(tmp_path: Path, tag: int, weights: tuple[float, float], full: bool) -> None:
    colour = np.array([200, 90, 30]) / 255
    red, blue = weights
    luma = red * colour[0] + (1 - red - blue) * colour[1] + blue * colour[2]
    planes = [luma, (colour[2] - luma) / (2 - 2 * blue), (colour[0] - luma) / (2 - 2 * red)]
    scales, offsets = ((255, 255, 255), (0, 128, 128)) if full else ((219, 224, 224), (16, 128, 128))
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"}, width=64, height=64)
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.colorspace, frame.color_range = tag, 2 if full else 1
        for plane, value, scale, offset in zip(frame.planes, planes, scales, offsets, strict=True):
            plane.update(bytes([round(value * scale + offset)]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(next(iter(read_frames(path))).mean(axis=(0, 1)) - colour * 255).max() < 2.5


def nearest(stamps_s: list[Fraction], fps: Fraction, end_s: Fraction) -> list[int]:
    """Return the frame nearest to each i / fps, of equally near ones the earlier, by a plain search."""
    times = [Fraction(i) / fps for i in range(math.ceil(end_s * fps))]
    return [min(range(len(stamps_s)), key=lambda j: abs(stamps_s[j] - time)) for time in times]


@pytest.mark.parametrize(
    "rate", [Fraction(10), Fraction(15), Fraction(24), Fraction(30_000, 1001), Fraction(30), Fraction(50), Fraction(60)]
)
def test_resampling_takes_the_nearest_frame(tmp_path: Path, rate: Fraction) -> None:
    stamps = [i * rate.denominator for i in range(30)]
    path = write_video(tmp_path / "a.mp4", stamps, Fraction(1, rate.numerator), rate)
    shown = indices(read_frames_at(path))
    wanted = nearest([i / rate for i in range(30)], Fraction(25), 30 / rate)
    assert shown == wanted
    # Neither early nor late, over whole periods of the two rates (of 29.97 fps those of 30).
    errors_s = [float(index / rate - Fraction(i, 25)) for i, index in enumerate(shown) if i * rate <= 29 * 25]
    period = 5 if rate.denominator > 1 else (25 / rate).numerator
    errors_s = errors_s[: len(errors_s) // period * period]
    assert max(abs(error) for error in errors_s) <= 0.5 / float(rate) + 1e-9
    assert abs(np.mean(errors_s)) < 5e-4
    assert abs(np.mean(errors_s)) < 1e-9 or rate.denominator > 1


def test_resampling_is_exact(tmp_path: Path) -> None:
    thirty = write_video(tmp_path / "thirty.mp4", list(range(30)), Fraction(1, 30), Fraction(30))
    assert indices(read_frames_at(thirty))[:6] == [0, 1, 2, 4, 5, 6]  # 0, 1.2, 2.4, 3.6, 4.8 and 6 of 30 fps
    same = write_video(tmp_path / "same.mp4", list(range(25)))
    assert indices(read_frames_at(same)) == list(range(25))
    assert indices(read_frames_at(same, Fraction(50))) == [i // 2 for i in range(50)]  # of two as near, the earlier
    late = write_video(tmp_path / "late.mkv", list(range(50, 75)))  # the first one is not at 0
    assert indices(read_frames_at(late)) == list(range(25))


def test_resampling_follows_uneven_timestamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "uneven.mp4", [0, 90, 100, 400], Fraction(1, 1000))
    # 0 is nearest until 0.045 s, 0.09 until 0.095, 0.1 until 0.25 s.
    assert indices(read_frames_at(path))[:11] == [0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    random = np.random.default_rng(0)
    stamps = [0, *np.cumsum(random.integers(5, 120, 29)).tolist()]
    path = write_video(tmp_path / "random.mkv", stamps, Fraction(1, 1000))
    shown = indices(read_frames_at(path))
    wanted = nearest([Fraction(stamp, 1000) for stamp in stamps], Fraction(25), Fraction(stamps[-1], 1000))
    assert shown[: len(wanted)] == wanted


def test_a_held_picture_stays_until_the_next(tmp_path: Path) -> None:
    held = write_video(tmp_path / "held.mkv", [0, 40, 80, 2080, 2120, 2160], Fraction(1, 1000))
    # Nearest in time alone would change the picture in the middle of its two seconds.
    assert indices(read_frames_at(held))[:55] == [0, 1, *[2] * 50, 3, 4, 5]
    slow = write_video(tmp_path / "slow.mkv", [0, 1000, 2000], Fraction(1, 1000), Fraction(1))
    assert indices(read_frames_at(slow))[:51] == [0] * 13 + [1] * 25 + [2] * 13  # one frame a second: nothing is held


def timed(stamps: list[int | None], length: int | None = 40) -> list[Any]:
    """Return what stands for decoded frames, in milliseconds."""
    return [SimpleNamespace(pts=stamp, duration=length, time_base=Fraction(1, 1000)) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([0, 40, 80], [0, 40, 80]),
        ([1400, 1440, 1480], [0, 40, 80]),
        ([0, 40, 40, 30, 80], [0, 40, 80]),  # twice and backwards: shown for no time
        ([None, None, None], [0, 40, 80]),
        ([None, 1440, 1480, None, 1560], [0, 40, 80, 120, 160]),
        ([0, 40, 9000, 0, 40, 80], [0, 40, 9000, 9040, 9080, 9120]),  # a second recording glued on
        ([0, 40, 80, 9000, 9040, 20, 60], [0, 40, 80, 9000, 9040, 9080, 9120]),
    ],
)
def test_time_grows_whatever_the_timestamps(stamps: list[int | None], times: list[int]) -> None:
    clocked = list(read.on_clock(iter(timed(stamps)), Fraction(1, 25)))
    assert [1000 * time for time, _, _ in clocked] == times
    assert {length for _, length, _ in clocked} == {Fraction(1, 25)}


def test_the_last_frame_lasts_as_long_as_it_states(tmp_path: Path) -> None:
    (clocked,) = read.on_clock(iter(timed([0], 2000)), Fraction(1, 25))
    assert clocked[:2] == (0, 2)
    (unstated,) = read.on_clock(iter(timed([0], None)), Fraction(1, 30))
    assert unstated[:2] == (0, Fraction(1, 30))
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "10", "bf": "0"}, width=48, height=32)
        packets = []
        for i in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 10 + 8 * i, np.uint8))
            frame.pts = i
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = 5
        container.mux(packets)
    assert indices(read_frames_at(path)) == [0, *[1] * 5]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi", "ts", "mpg"])
def test_a_part_is_the_same_as_of_the_whole(tmp_path: Path, suffix: str) -> None:
    codec = {"webm": "libvpx", "mpg": "mpeg2video", "avi": "mpeg4"}.get(suffix, "libx264")
    path = tmp_path / f"a.{suffix}"
    random = np.random.default_rng(0)
    texture = random.integers(0, 120, (*SIZE, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, width=48, height=32, options={"g": "40"})
        for i in range(150):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(texture, i, axis=1) + np.uint8(i % 100))))
        container.mux(stream.encode(None))
    whole = list(read_frames_at(path))
    assert len(whole) in (125, 126)
    for start, stop in ((0, 5), (10, 20), (11, 12), (37, 80), (100, None), (124, 200), (30, 30), (500, 510)):
        part = list(read_frames_at(path, start=start, stop=stop))
        assert len(part) == len(whole[start:stop])
        assert all((one == other).all() for one, other in zip(part, whole[start:stop], strict=True)), (start, stop)
    with pytest.raises(ValueError, match="start: got -1"):
        next(iter(read_frames_at(path, start=-1)))


def test_a_late_part_is_not_decoded_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, width=48, height=32, options={"g": "25"})
        for i in range(500):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), i % 200, np.uint8))))
        container.mux(stream.encode(None))
    decoded = []
    original = read.decoded_frames
    monkeypatch.setattr(
        read, "decoded_frames", lambda *arguments: (decoded.append(1) or frame for frame in original(*arguments))
    )
    assert len(list(read_frames_at(path, start=450, stop=460))) == 10
    assert len(decoded) < 70
    decoded.clear()
    monkeypatch.setattr(read, "_INDEXED", ())
    assert len(list(read_frames_at(path, start=450, stop=460))) == 10
    assert len(decoded) > 450


def test_at_most_two_frames_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", list(range(25)))
    alive: list[weakref.ref] = []
    original = read.decoded_frames

    class Held:
        def __init__(self, frame: Any) -> None:
            self.frame = frame

        def __getattr__(self, name: str) -> Any:
            return getattr(self.frame, name)

    def watched(*arguments: Any) -> Any:
        for frame in original(*arguments):
            held = Held(frame)
            alive.append(weakref.ref(held))
            yield held
            del held, frame

    monkeypatch.setattr(read, "decoded_frames", watched)
    for _ in read_frames_at(path):
        assert sum(ref() is not None for ref in alive) <= 2
    assert len(alive) == 25


def test_damaged_video_gives_what_decodes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "b.mkv", list(range(25)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 2 <= len(list(read_frames(path))) < 25


def test_reading_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", list(range(25)))
    converted = []
    original = read.to_rgb
    monkeypatch.setattr(read, "to_rgb", lambda *arguments: converted.append(1) or original(*arguments))
    assert indices(islice(read.read_frames_at(path), 2)) == [0, 1]
    assert len(converted) == 2


def test_video_doors(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    text = tmp_path / "text.mp4"
    text.write_text("no film " * 100)
    tty = tmp_path / "text.txt"
    tty.write_text("no film " * 100)
    for path, message in (
        (tmp_path / "missing.mp4", "no such file"),
        (tmp_path, "folder"),
        (empty, "0 bytes"),
        (text, "cannot be read"),
        (tty, "cannot be read|without a video stream"),
    ):
        for open_video in (probe, lambda p: next(iter(read_frames(p))), lambda p: next(iter(read_frames_at(p)))):
            with pytest.raises(MediaError, match=message) as caught:
                open_video(path)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="fps"):
        next(iter(read_frames_at(empty, 0)))
