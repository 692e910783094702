"""A part that is converted alone: the planes of the whole picture, bit for bit."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from av.filter import Graph

from atldiff.video.patch import Patch, PatchedFrame, unpatched
from atldiff.video.planes import Planes
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(3)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def patched(still: np.ndarray, count: int) -> list[PatchedFrame]:
    """Frames whose parts grow, shrink, wander and touch the border."""
    height, width = still.shape[:2]
    frames = []
    for index in range(count):
        side = (int(RANDOM.integers(1, height // 2)), int(RANDOM.integers(1, width // 2)))
        ends = [(0, 0), (height - side[0], width - side[1])]
        y, x = (
            ends[index]
            if index < 2
            else (int(RANDOM.integers(0, most - own + 1)) for most, own in zip((height, width), side, strict=True))
        )
        frames.append(PatchedFrame(still, Patch(noise(*side, still.shape[2]), (x, y))))
    return [*frames, PatchedFrame(still, Patch(noise(*still.shape), (0, 0))), frames[0]]


def packets(path: Path, frames: list, size: tuple[int, int], *, alpha: bool = False) -> list[bytes]:
    with VideoWriter(path, size=size, fps=Fraction(25), alpha=alpha) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0)]


@pytest.mark.parametrize("size", [(96, 130), (97, 131), (64, 65), (33, 16)])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.gif"])
def test_a_file_of_parts_is_that_of_whole_frames(tmp_path, size, name) -> None:
    if name == "out.gif" and size != (96, 130):
        return
    frames = patched(noise(*size, 3), 8)
    whole = [frame.whole() for frame in frames]
    assert packets(tmp_path / name, frames, size) == packets(tmp_path / f"whole-{name}", whole, size)


def test_so_is_one_of_several_pictures_and_of_both_kinds_of_frames(tmp_path) -> None:
    size = (64, 80)
    frames: list = patched(noise(*size, 3), 3) + patched(noise(*size, 3), 3)
    frames.insert(4, noise(*size, 3))
    whole = [unpatched(frame) for frame in frames]
    assert packets(tmp_path / "out.mp4", frames, size) == packets(tmp_path / "whole.mp4", whole, size)


@pytest.mark.parametrize("name", ["out.webm", "out.mov"])
def test_frames_with_alpha_are_whole_on_their_way(tmp_path, name) -> None:
    frames = patched(noise(48, 64, 4), 3)
    whole = [frame.whole() for frame in frames]
    arguments = {"size": (48, 64), "alpha": True}
    assert packets(tmp_path / name, frames, **arguments) == packets(tmp_path / f"whole-{name}", whole, **arguments)


def test_planes_that_somebody_holds_are_not_written_to() -> None:
    def convert(picture: np.ndarray) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")

    still = noise(64, 96, 3)
    planes = Planes(still.shape, 2, convert)
    first = planes.patched(PatchedFrame(still, Patch(noise(8, 8, 3), (8, 8))))
    graph = Graph()  # holds what it was given until it is asked
    source = graph.add_buffer(width=96, height=64, format=first.format, time_base=Fraction(1, 25))
    sink = graph.add("buffersink")
    source.link_to(sink)
    graph.configure()
    wanted, first.pts = first.to_ndarray(), 0
    graph.vpush(first)
    second = planes.patched(PatchedFrame(still, Patch(noise(8, 8, 3), (30, 20))))
    assert (second.to_ndarray() != wanted).any()
    assert np.array_equal(graph.vpull().to_ndarray(), wanted)


def test_small_parts_alone_are_converted_alone() -> None:
    converted = []

    def convert(picture: np.ndarray) -> av.VideoFrame:
        converted.append(picture.shape[:2])
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")

    still = noise(201, 300, 3)
    planes = Planes(still.shape, 2, convert)
    for part in ((50, 60), (190, 280), (201, 300)):
        planes.patched(PatchedFrame(still, Patch(noise(*part, 3), (0, 0))))
    assert converted == [(202, 300), (66, 76), (202, 300), (202, 300)]


def test_a_patched_frame_is_checked_and_whole_frames_are_the_callers(tmp_path) -> None:
    still = noise(32, 48, 3)
    frame = PatchedFrame(still, Patch(noise(4, 6, 3), (40, 20)))
    whole = frame.whole()
    assert np.array_equal(whole[20:24, 40:46], frame.patch.pixels)
    whole[:] = 0
    assert frame.whole().any()
    with pytest.raises(ValueError, match=r"frame: got \(32, 48, 3\) uint8, expected \(32, 50, 3\) uint8"):
        packets(tmp_path / "out.mp4", [frame], (32, 50))
