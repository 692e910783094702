from __future__ import annotations

import logging
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from atldiff.dubbing import writer as writing
from atldiff.errors import FaceNotFound, MediaError
from atldiff.types import Controls
from atldiff.video.footage import Footage, Stamps

UNEVEN = [0, 37, 80, 121, 190, 223, 260, 300, 344, 381, 420, 461, 500, 540, 583, 620]


def stamps_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * Fraction(frame.time_base) for frame in container.decode(video=0)]


def planes_of(path: Path) -> list[list[np.ndarray]]:
    footage = Footage.open(path)
    return [[plane.copy() for plane in footage.planar(frame).planes] for frame in footage.frames(Stamps())]


def packets_of(path: Path) -> list[tuple]:
    with av.open(str(path)) as container:
        return [
            (packet.stream_index, packet.pts, packet.dts, packet.duration, bytes(packet))
            for packet in container.demux()
            if packet.size
        ]


@pytest.fixture(scope="module")
def dubbed(head, speech, faces, tmp_path_factory):
    """A dub of 16 frames at uneven times, its planes and those of the video."""
    path = tmp_path_factory.mktemp("dub") / "uneven.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "12"})
        video.height, video.width = faces[0].shape[:2]
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for stamp, picture in zip(UNEVEN, faces, strict=False):
            narrow = av.VideoFrame.from_ndarray(picture).reformat(240, 320).to_ndarray(format="rgb24")
            frame = av.VideoFrame.from_ndarray(narrow)
            frame.pts, frame.time_base, frame.duration = stamp, Fraction(1, 1000), 40
            if stamp == 0:
                video.height, video.width = 320, 240
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    dub = head.dub(path, speech, fit="cut")
    return path, dub, [frame.copy() for frame in dub.planes()]


def test_every_frame_at_its_own_time(dubbed, tmp_path) -> None:
    path, dub, _ = dubbed
    assert dub.found == (16, 16)
    assert dub.times == [Fraction(tick, 1000) for tick in UNEVEN]
    out = dub.save(tmp_path / "out.mp4")
    assert stamps_of(out) == stamps_of(path)
    with av.open(str(out)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert (container.streams.video[0].height, container.streams.video[0].width) == (320, 240)
        assert len(container.streams.audio) == 1
        assert container.streams.audio[0].sample_rate == 16000


def test_only_the_mouth_changes(dubbed) -> None:
    path, dub, made = dubbed
    filmed = planes_of(path)
    points = dub._tracked.points.read(0, 16)
    for frame, original, landmarks in zip(made, filmed, points, strict=True):
        changed = frame.planes[0] != original[0]
        assert changed.sum() > 400
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        across = landmarks[:, 0] * 240 / 320  # square pixels to those of the planes
        assert rows.min() > landmarks[4, 1]  # below the tip of the nose
        beside = 0.25 * np.ptp(across)
        assert columns.min() > across.min() - beside
        assert columns.max() < across.max() + beside
        for plane, other in zip(frame.planes[1:], original[1:], strict=True):
            assert (plane[: rows.min() // 2 - 1] == other[: rows.min() // 2 - 1]).all()


def test_frames_follow_the_speech_and_the_seed(head, dubbed, speech) -> None:
    path, dub, made = dubbed
    again = [frame.planes[0].copy() for frame in dub.planes()]
    assert all((one == frame.planes[0]).all() for one, frame in zip(again, made, strict=True))
    other = head.dub(path, speech[::-1].copy(), fit="cut", controls=Controls(silence_gate=False))
    assert any((one.planes[0] != frame.planes[0]).any() for one, frame in zip(other.planes(), made, strict=True))


def test_frames_from_the_middle_are_those_of_the_whole(dubbed) -> None:
    _, dub, made = dubbed
    later = [frame.planes[0].copy() for frame in dub.planes(13)]
    assert len(later) == 3
    assert all((one == frame.planes[0]).all() for one, frame in zip(later, made[13:], strict=True))


def test_an_interrupted_dub_goes_on(dubbed, tmp_path, monkeypatch, caplog) -> None:
    _, dub, _ = dubbed
    monkeypatch.setattr(writing, "STRETCH_S", Fraction(1, 5))  # five frames of 25 a second
    monkeypatch.setattr(writing, "_PLAYABLE_S", 0)
    whole = dub.save(tmp_path / "whole.mp4")

    def stop(done: int, _: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    out = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        dub.save(out, progress=stop)
    assert not out.exists()
    assert len(stamps_of(tmp_path / "out.partial.mp4")) == 12  # it plays
    numbers: list[int] = []
    dub.save(out, resume=True, progress=lambda done, _: numbers.append(done))
    assert numbers == [*range(11, 17)]
    assert packets_of(out) == packets_of(whole)
    assert not (tmp_path / "out.partial.mp4").exists()
    assert not (tmp_path / "out.partial.json").exists()
    with caplog.at_level(logging.WARNING):
        dub.save(out, resume=True)
    assert "starting anew" in caplog.text
    assert packets_of(out) == packets_of(whole)


def test_one_that_was_killed_goes_on(dubbed, tmp_path, monkeypatch) -> None:
    _, dub, _ = dubbed
    monkeypatch.setattr(writing, "STRETCH_S", Fraction(1, 5))
    whole, out = dub.save(tmp_path / "whole.mp4"), tmp_path / "out.mp4"

    def copied(done: int, _: int) -> None:
        if done == 12:
            (place,) = tmp_path.glob(".out.mp4.*.partial")
            shutil.copytree(place, tmp_path / ".out.mp4.1-00000000.partial")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dub.save(out, progress=copied, keep_part=False)
    assert not (tmp_path / "out.partial.mp4").exists()
    numbers: list[int] = []
    dub.save(out, resume=True, progress=lambda done, _: numbers.append(done))
    assert numbers[0] > 1
    assert packets_of(out) == packets_of(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]


def test_other_inputs_are_no_continuation(head, dubbed, speech, tmp_path, monkeypatch) -> None:
    path, dub, _ = dubbed
    monkeypatch.setattr(writing, "_PLAYABLE_S", 0)

    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dub.save(tmp_path / "out.mp4", progress=stop)
    other = head.dub(path, speech[:8000], fit="cut")
    with pytest.raises(ValueError, match=r"other frames, speech; give the same ones"):
        other.save(tmp_path / "out.mp4", resume=True)


@pytest.fixture
def gap(film, faces) -> Path:
    """A face, four pictures of nothing, the face again."""
    blank = np.full_like(faces[0], 90)
    return film("gap.mp4", [*faces[:6], *[blank] * 4, *faces[10:16]])


def test_what_becomes_of_frames_without_a_face(head, gap, speech) -> None:
    filmed = planes_of(gap)

    def changed(how) -> list[bool]:
        dub = head.dub(gap, speech, fit="cut", on_missing=how)
        assert dub.found == (12, 16)
        return [bool((frame.planes[0] != filmed[n][0]).any()) for n, frame in enumerate(dub.planes())]

    assert changed("passthrough") == [True] * 6 + [False] * 4 + [True] * 6
    assert changed("hold") == [True] * 16
    left = head.dub(gap, speech, fit="cut", on_missing="skip")
    assert len(left) == 12
    assert left.times == [Fraction(number, 25) for number in range(12)]
    with pytest.raises(FaceNotFound, match=r"no face in 4 of 16 frames, the first at 0\.24 s"):
        head.dub(gap, speech, on_missing="error")


def test_a_face_turned_by_its_file(head, film, faces, speech) -> None:
    lying = [np.ascontiguousarray(np.rot90(face)) for face in faces[:6]]
    path = film("turned.mp4", lying, turned=90)
    upright = next(iter(Footage.open(path).read(np.array([0]), Stamps([0], [1], [True], [0])))).rgb()
    difference = np.abs(upright.astype(int) - faces[0]).mean()
    if difference > 8:  # the other way round
        path = film("turned.mp4", [np.ascontiguousarray(np.rot90(face, 3)) for face in faces[:6]], turned=90)
    dub = head.dub(path, speech, fit="cut")
    assert dub.found == (6, 6)
    out = dub.save(path.with_name("out.mp4"))
    shown = next(iter(Footage.open(out).read(np.array([0]), Stamps([0], [1], [True], [0])))).rgb()
    assert np.abs(shown.astype(int) - faces[0])[:160].mean() < 8
    with av.open(str(out)) as container:
        assert not next(container.decode(video=0)).rotation


@pytest.fixture(scope="module")
def two(faces, tmp_path_factory) -> Path:
    """The face, and a smaller one, mirrored and darker, on the left of it."""
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "12"})
        video.height, video.width, video.pix_fmt = 320, 576, "yuv420p"
        for face in faces[:6]:
            small = av.VideoFrame.from_ndarray(face[:, ::-1].copy()).reformat(256, 256).to_ndarray(format="rgb24")
            picture = np.full((320, 576, 3), 60, np.uint8)
            picture[32:288, :256], picture[:, 256:] = small // 2, face
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(video.encode(None))
    return path


class TestSeveralFaces:
    @pytest.mark.parametrize(("face", "left"), [(None, False), (0, True), (1, False), ("120,160", True)])
    def test_only_one_of_them_speaks(self, head, two: Path, speech, face, left: bool) -> None:
        filmed = planes_of(two)
        for frame, original in zip(head.dub(two, speech, fit="cut", face=face).planes(), filmed, strict=True):
            changed = (frame.planes[0] != original[0]).any(0)
            assert changed[:256].any() == left
            assert changed[256:].any() != left

    def test_the_one_of_a_picture(self, head, two: Path, speech, faces, tmp_path) -> None:
        from PIL import Image

        Image.fromarray(faces[3][:, ::-1] // 2).save(tmp_path / "her.png")
        frame = next(head.dub(two, speech, fit="cut", face=tmp_path / "her.png").planes())
        changed = (frame.planes[0] != planes_of(two)[0][0]).any(0)
        assert changed[:256].any()
        assert not changed[256:].any()

    @pytest.mark.parametrize(
        ("face", "said"),
        [
            (2, "no frame shows more than 2 faces"),
            ("560,10", "where no face is; expected one near"),
            ("900,10", "expected one in the picture of 576x320"),
            ("her", "face: got 'her', expected largest, a number"),
            ("-1", "expected 0 or more"),
        ],
    )
    def test_one_that_is_not_there(self, head, two: Path, speech, face, said: str) -> None:
        with pytest.raises((FaceNotFound, ValueError), match=said):
            head.dub(two, speech, face=face)


def test_other_streams_are_kept(head, film, faces, speech, tmp_path) -> None:
    source = film("sound.mp4", faces[:12], sound=speech[:8000])
    titled = tmp_path / "titled.mkv"
    with av.open(str(source)) as given, av.open(str(titled), "w") as container:
        copies = [container.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                container.mux(packet)
    dub = head.dub(titled, speech[:6000], fit="cut")
    out = dub.save(tmp_path / "out.mkv", keep_audio=True)
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 2
        ends = [
            max(frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate) for frame in frames)
            for frames in ([*av.open(str(out)).decode(audio=number)] for number in (0, 1))
        ]
    assert all(abs(end - dub.duration) < Fraction(1, 10) for end in ends)
    with av.open(str(dub.save(tmp_path / "out.mp4"))) as container:
        assert len(container.streams.audio) == 1


def test_nothing_is_done_with_bad_input(head, film, faces, speech, tmp_path) -> None:
    blank = film("blank.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    with pytest.raises(FaceNotFound, match="no face in any of its 3 frames"):
        head.dub(blank, speech)
    with pytest.raises(ValueError, match="fit: got 'longest'"):
        head.dub(blank, speech, fit="longest")
    with pytest.raises(ValueError, match="on_missing: got 'freeze'"):
        head.dub(blank, speech, on_missing="freeze")
    dub = head.dub(film("short.mp4", faces[:2]), speech, fit="cut")
    for name, said in (
        ("a.gif", "expected a video with sound"),
        ("a/", "a folder of frames"),
        ("short.mp4", "replace"),
    ):
        with pytest.raises(MediaError, match=said):
            dub.save(str(tmp_path / name) + ("/" if name.endswith("/") else ""))


def test_a_painter_of_whole_faces_says_so(random_paper_model, gap, speech) -> None:
    from atldiff.pipeline import TalkingHead

    with pytest.raises(ValueError, match="this renderer paints whole faces"):
        TalkingHead(random_paper_model, device="cpu", dtype="float32").dub(gap, speech)


@pytest.mark.parametrize("method", ["random_difftalker_model", "random_lmdiff_model"])
def test_the_other_methods(request, method, film, faces, speech) -> None:
    from atldiff.pipeline import TalkingHead

    path = film("faces.mp4", faces[:6])
    model = request.getfixturevalue(method)
    dub = TalkingHead(model, device="cpu", dtype="float32").dub(path, speech, fit="cut", sampling="fast")
    filmed = planes_of(path)
    for frame, original in zip(dub.planes(), filmed, strict=True):
        assert (frame.planes[0] != original[0]).any()
