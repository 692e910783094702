from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from atldiff.errors import MediaError
from atldiff.video.footage import Footage, Stamps
from atldiff.video.planar import Planar


def numbered(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Pictures whose brightness tells which they are."""
    return [np.full((*size, 3), 20 + 8 * number, np.uint8) for number in range(count)]


def levels(frames: list[Planar]) -> list[int]:
    return [round((float(frame.planes[0].mean()) - 16) * 255 / 219 / 8 - 2.5) for frame in frames]


def test_any_order_of_single_steps(film) -> None:
    footage = Footage.open(film("numbers.mp4", numbered(20), gop=6))
    stamps = Stamps()
    assert len([*footage.frames(stamps)]) == 20
    assert sum(stamps.keys) > 2
    order = np.array([*range(4, 20), *range(18, 2, -1), *range(4, 7), 6, 6, 9, 12, 11, 5])
    assert levels(list(footage.read(order, stamps))) == order.tolist()


def test_backwards_holds_few_frames(film, monkeypatch) -> None:
    monkeypatch.setattr("atldiff.video.footage._HELD_BYTES", 1)
    footage = Footage.open(film("numbers.mp4", numbered(20), gop=250))
    stamps = Stamps()
    list(footage.frames(stamps))
    order = np.arange(19, -1, -1)
    assert levels(list(footage.read(order, stamps))) == order.tolist()


def test_without_an_index_frames_are_found_from_the_beginning(film) -> None:
    footage = Footage.open(film("numbers.ts", numbered(16), gop=4))
    stamps = Stamps()
    list(footage.frames(stamps))
    order = np.array([10, 11, 12, 11, 10, 9])
    assert levels(list(footage.read(order, stamps))) == order.tolist()


def test_timestamps_are_the_containers(film) -> None:
    uneven = [0, 37, 80, 121, 190]
    footage = Footage.open(film("vfr.mp4", numbered(5), stamps=uneven, tick=Fraction(1, 1000), last=33))
    stamps = Stamps()
    list(footage.frames(stamps))
    assert [tick * footage.tick for tick in stamps.ticks] == [Fraction(tick, 1000) for tick in uneven]


@pytest.mark.parametrize(("full", "matrix"), [(False, 2), (False, 1), (True, 1)])
def test_what_does_not_change_keeps_its_levels(film, full: bool, matrix: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    footage = Footage.open(film("noise.mp4", [noise] * 2, full=full, matrix=matrix))
    (frame,) = footage.read(np.array([0]), Stamps([0, 1], [1, 1], [True, False], [0, 1]))
    before = frame.copy()
    shown = frame.rgb().astype(np.int16)
    place = (slice(10, 30), slice(20, 40))
    difference = np.zeros((20, 20, 3), np.float32)
    frame.add(place, difference)
    assert all((one == other).all() for one, other in zip(frame.planes, before.planes, strict=True))
    difference[5:15, 5:15] = (30, 30, 30)
    frame.add(place, difference)
    changed = frame.planes[0] != before.planes[0]
    assert changed[15:25, 25:35].mean() > 0.8
    changed[15:25, 25:35] = False
    assert not changed.any()
    lighter = (frame.rgb().astype(np.int16) - shown)[15:25, 25:35]
    assert abs(float(np.median(lighter)) - 30) <= 2  # in RGB, whatever the levels of the planes mean


def test_rgb_is_what_the_reader_shows(film) -> None:
    from atldiff.video.read import read_frames

    smooth = np.zeros((48, 64, 3), np.uint8)
    smooth[..., 0], smooth[..., 1], smooth[..., 2] = 180, np.arange(64) * 3, np.arange(48)[:, None] * 4
    for name, given in {"a": {}, "b": {"full": True, "matrix": 1}, "c": {"matrix": 9}, "d": {"turned": 90}}.items():
        path = film(f"{name}.mp4", [smooth] * 2, **given)
        footage = Footage.open(path)
        (frame,) = footage.read(np.array([0]), Stamps([0, 1], [1, 1], [True, False], [0, 1]))
        expected = next(iter(read_frames(path))).astype(np.int16)
        assert expected.shape[:2] == footage.size
        assert np.abs(frame.rgb() - expected).mean() < 1.6, name


def test_odd_sides_and_other_pixels_become_even_planes(film) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (47, 63, 3), np.uint8)
    footage = Footage.open(film("odd.mp4", [picture] * 2, pixels="yuv444p"))
    assert footage.size == (48, 64)


def test_hdr_is_refused(film) -> None:
    with pytest.raises(MediaError, match="HDR"):
        Footage.open(film("hdr.mp4", numbered(2), matrix=9, transfer=18))


def test_no_video(tmp_path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(MediaError, match="without a video stream"):
        Footage.open(path)
