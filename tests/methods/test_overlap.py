"""Windows on a fixed grid: no frame dropped, doubled or late, whatever the portions landmarks come in."""

from __future__ import annotations

import numpy as np
import pytest

from atldiff.config import SampleConfig
from atldiff.methods.overlap import OverlapStream

GRIDS = [(4, 0), (4, 1), (4, 2), (8, 2), (8, 4), (16, 4), (32, 8)]


class Sampler:
    """Pictures of one pixel that hold what `says` makes of (frame's number by its landmarks, window's number).

    Frames come out as pairs (their landmarks' number, the picture's level).
    """

    def __init__(self, says=lambda frame, window: frame) -> None:  # noqa: ANN001
        self.says = says
        self.windows: list[tuple[int, list[int]]] = []

    def __call__(self, points: np.ndarray, first: int):  # noqa: ANN204
        assert points.shape[1:] == (478, 3)
        frames = points[:, 0, 0].astype(int)
        levels = [self.says(frame, len(self.windows)) for frame in frames]
        self.windows.append((first, frames.tolist()))
        pictures = np.array(levels, np.float32)[:, None, None, None] * np.ones((1, 1, 1, 3), np.float32)
        return pictures, lambda index, picture: np.array([frames[index], picture.mean()])


def landmarks(count: int) -> np.ndarray:
    """Landmarks (T, 478, 3) that hold their frame's number."""
    return np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 478, 3))


def stream(count: int, grid: tuple[int, int], sizes: list[int], sampler: Sampler) -> np.ndarray:
    """Push `count` frames in portions of the sizes, in turn; return (T, 2): landmarks' number and level."""
    windows = OverlapStream(SampleConfig(window_frames=grid[0], shared_frames=grid[1]), sampler)
    points, out, at, turn = landmarks(count), [], 0, 0
    while at < count:
        size = sizes[turn % len(sizes)]
        out.extend(windows.push(points[at : at + size]))
        at, turn = at + size, turn + 1
    out.extend(windows.flush())
    assert not list(windows.flush())  # what is given is given once
    return np.array(out).reshape(-1, 2)


@pytest.mark.parametrize("grid", GRIDS)
def test_frame_k_shows_moment_k_for_every_length(grid: tuple[int, int]) -> None:
    for count in range(1, 101):
        frames = stream(count, grid, [count], Sampler())
        assert frames[:, 0].tolist() == list(range(count)), count
        # What both windows sample, they sample of the same moment: a fade between two that agree changes nothing.
        assert np.abs(frames[:, 1] - np.arange(count)).max() < 1e-4, count


def test_nothing_in_nothing_out() -> None:
    sampler = Sampler()
    assert stream(0, (8, 2), [1], sampler).size == 0
    assert not sampler.windows


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sizes", [[1], [3, 0, 5], [7], [40, 2], [64]])
def test_any_packets_give_the_same_frames(grid: tuple[int, int], sizes: list[int]) -> None:
    for count in (1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 50, 100):
        whole, parts = Sampler(lambda f, w: 0.1 * f + w), Sampler(lambda f, w: 0.1 * f + w)
        assert np.array_equal(stream(count, grid, [count], whole), stream(count, grid, sizes, parts))
        assert whole.windows == parts.windows


@pytest.mark.parametrize("grid", GRIDS)
def test_windows_lie_on_the_grid_and_are_told_where(grid: tuple[int, int]) -> None:
    size, shared = grid
    for count in range(1, 101):
        sampler = Sampler()
        stream(count, grid, [5], sampler)
        for number, (first, frames) in enumerate(sampler.windows):
            assert first == number * (size - shared)
            # The last is filled up with its last frame: every call of the network has one shape.
            assert frames == [min(frame, count - 1) for frame in range(first, first + size)]
        last = sampler.windows[-1][0]
        assert last < count  # no window beyond the end
        assert last + size >= count


@pytest.mark.parametrize("grid", GRIDS)
def test_shared_frames_are_faded_and_others_are_their_window_s(grid: tuple[int, int]) -> None:
    size, shared = grid
    hop, count = size - shared, 4 * size + 1
    sampler = Sampler(lambda frame, window: window)
    levels = stream(count, grid, [count], sampler)[:, 1]
    for frame in range(count):
        window = min(frame // hop, len(sampler.windows) - 1)  # the last one's frames are all its own
        into = frame - window * hop
        # The first `shared` frames of a window are the last of the one before: its share falls as the other's rises.
        rise = (into + 1) / (shared + 1) if window and into < shared else 1.0
        assert levels[frame] == pytest.approx(window - 1 + rise, abs=1e-5), frame


def test_the_fade_takes_the_same_frame_of_both_windows() -> None:
    """Levels name frame and window: a fade with a neighbour's frame would show in the tens."""
    size, shared = 8, 4
    frames = stream(40, (size, shared), [3], Sampler(lambda frame, window: 10 * frame + (window % 2)))
    tens, share = np.divmod(frames[:, 1] + 1e-4, 10)
    assert tens.tolist() == list(range(40))
    assert share.max() < 1.01
    assert ((share > 0.1) & (share < 0.9)).sum() == 9 * shared  # ten windows meet nine times


def test_a_window_begins_with_a_share_of_the_last_frame_where_it_shares_none() -> None:
    windows = OverlapStream(
        SampleConfig(window_frames=4, shared_frames=0), Sampler(lambda frame, window: window), carried=0.25
    )
    levels = [level for _, level in [*windows.push(landmarks(7)), *windows.push(landmarks(3)), *windows.flush()]]
    assert levels == [0, 0, 0, 0, 0.75, 1, 1, 1, 1.75, 2]  # of the frame as it was shown, however portions fall


def test_frames_come_as_soon_as_their_window_is_full() -> None:
    windows = OverlapStream(SampleConfig(window_frames=8, shared_frames=2), Sampler())
    given = [len(list(windows.push(landmarks(1)))) for _ in range(20)]
    assert given == [0] * 7 + [6] + [0] * 5 + [6] + [0] * 5 + [6]
    assert len(list(windows.flush())) == 2
