"""GIF: a size that can be sent, times that add up, colours, and what stays still takes no room."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from atldiff.video.gif import DITHER, HOLD, capped_side
from atldiff.video.write import VideoWriter, Written


def render(path: Path, frames: list[np.ndarray], fps: Fraction | int = 25, **options) -> Written:
    with VideoWriter(path, size=frames[0].shape[:2], fps=fps, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.written


def delays_ms(path: Path) -> list[int]:
    delays = []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            delays.append(image.info["duration"])
    return delays


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def scene(height: int, width: int, shift: int = 0) -> np.ndarray:
    """A smooth picture with a block that has moved by `shift`."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    frame = np.stack([60 + 120 * x, 90 + 80 * y, 160 - 60 * x * y], -1)
    frame[height // 4 : height // 2, width // 4 + shift : width // 2 + shift] = (190, 40, 60)
    return frame.astype(np.uint8)


def test_a_side_that_nobody_chose_is_capped_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for path, size, side in (
        ("out.gif", (1432, 900), 480),
        (Path("out.GIF"), (300, 481), 480),
        ("out.gif", (480, 300), None),
        ("out.mp4", (1432, 900), None),
        ("gif/", (1432, 900), None),
    ):
        caplog.clear()
        assert capped_side(path, size) == side
        assert caplog.text.count("\n") == (side is not None)
        assert (f"made smaller than the portrait's {size[1]}x{size[0]}" in caplog.text) == (side is not None)


@pytest.mark.parametrize(
    "fps", [Fraction(25), Fraction(30), Fraction(30_000, 1001), Fraction(24), Fraction(40), Fraction(50), Fraction(1)]
)
def test_times_add_up(tmp_path: Path, fps: Fraction) -> None:
    frames = [scene(32, 40, index % 8) for index in range(61)]
    render(tmp_path / "out.gif", frames, fps)
    delays = delays_ms(tmp_path / "out.gif")
    assert len(delays) == 61
    assert min(delays) >= 20
    starts = np.cumsum([0, *delays])
    assert np.abs(starts[:-1] - 1000 * np.arange(61) / float(fps)).max() <= 5
    assert abs(starts[-1] - 61_000 / fps) <= 10
    if (100 / fps).denominator == 1:
        assert set(delays) == {1000 / fps}


@pytest.mark.parametrize("fps", [Fraction(60), Fraction(120), Fraction(60_000, 1001), Fraction(51)])
def test_faster_frames_are_thinned_out_to_50_a_second(
    tmp_path: Path, fps: Fraction, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.gif"
    for count in (1, 2, 7, 8, 61):
        frames = [np.full((16, 64, 3), 30, np.uint8) for _ in range(count)]
        for index, frame in enumerate(frames):
            frame[:, :index] = 220  # as many columns as the frame's number
        caplog.clear()
        written = render(path, frames, fps)
        assert f"at 50 fps, not {float(fps):g}" in caplog.text
        got = decoded(path)
        assert written == Written((16, 64), Fraction(50), len(got))
        assert len(got) == -(-count * 50 // fps)
        if count > 1:
            assert set(delays_ms(path)) == {20}
        assert [int(row.sum()) for row in got[:, 8, :, 1] > 125] == [int(slot * fps / 50) for slot in range(len(got))]


def test_colours_and_what_is_held(tmp_path: Path) -> None:
    frames = [scene(120, 160, index % 40) for index in range(80)]
    render(tmp_path / "out.gif", frames)
    got = decoded(tmp_path / "out.gif")
    for index in (0, 30, 79):  # before and after the palette was chosen
        error = got[index].astype(float) - frames[index]
        assert np.abs(error.mean(axis=(0, 1))).max() < 2
        assert np.sqrt((error**2).mean()) < 6
        block = frames[index] == (190, 40, 60)
        assert np.abs(error[block.all(axis=2)]).mean() < 6


def test_a_pixel_that_hardly_changes_takes_no_room(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = scene(200, 200)

    def noisy(most: int) -> list[np.ndarray]:
        return [
            np.clip(base + random.integers(-most, most + 1, base.shape), 0, 255).astype(np.uint8) for _ in range(60)
        ]

    quiet, louder = noisy(HOLD // 2), noisy(3 * HOLD)
    sizes = []
    for frames in (quiet[:1], quiet, louder):
        render(tmp_path / "out.gif", frames)
        sizes.append((tmp_path / "out.gif").stat().st_size)
    assert sizes[1] < 1.5 * sizes[0] + 60 * 60
    assert sizes[2] > 10 * sizes[1]
    got = decoded(tmp_path / "out.gif").astype(float)
    assert np.abs(got - np.stack(louder)).mean() < 2 * (HOLD + DITHER)


def test_slow_change_is_followed(tmp_path: Path) -> None:
    frames = [np.full((40, 40, 3), (index, 255 - index, 128), np.uint8) for index in range(0, 240)]
    render(tmp_path / "out.gif", frames[:50] + frames[50::5])
    last = decoded(tmp_path / "out.gif")[49].mean(axis=(0, 1))
    assert np.abs(last - frames[49][0, 0]).max() <= HOLD + DITHER


@pytest.mark.parametrize("count", [1, 49, 50, 51])
def test_any_number_of_frames(tmp_path: Path, count: int) -> None:
    render(tmp_path / "out.gif", [scene(33, 51, index % 8) for index in range(count)])
    assert len(decoded(tmp_path / "out.gif")) == count


def test_an_error_keeps_frames_that_waited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = VideoWriter(tmp_path / "out.gif", size=(32, 32), fps=25)
    for index in range(30):
        writer.write(scene(32, 32, index % 8))
    writer.abort()
    (kept,) = tmp_path.iterdir()
    assert len(decoded(kept)) == 30
    assert logging.WARNING in {record.levelno for record in caplog.records}
