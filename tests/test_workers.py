"""Windows sampled side by side: the frames of one after the other, and PyTorch's threads as they were."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff.config import SampleConfig
from atldiff.methods.overlap import OverlapStream
from atldiff.pipeline import TalkingHead
from atldiff.torch_networks import torch_workers
from atldiff.workers import MOST, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.methods.models import Model
    from atldiff.types import Portrait

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CPU = torch.device("cpu")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def portrait(random_any_model: Model) -> Portrait:
    return TalkingHead(random_any_model, device="cpu", dtype="float32").open_portrait(EXAMPLES / "portrait.jpg")


def test_each_computes_with_one_thread_and_others_as_before(three_threads: None) -> None:
    workers = torch_workers(CPU)
    assert workers.count == 3
    together = threading.Barrier(3)

    def threads() -> tuple[int, int]:
        together.wait(10)  # so each of the three answers once
        return threading.get_ident(), torch.get_num_threads()

    answers = [answer.result() for answer in [workers.submit(threads) for _ in range(3)]]
    assert len({who for who, _ in answers}) == 3
    assert [count for _, count in answers] == [1, 1, 1]
    assert torch.get_num_threads() == 3
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_there_are_never_too_many() -> None:
    assert [Workers(count).count for count in (0, 1, MOST, MOST + 5)] == [1, 1, MOST, MOST]


def test_each_is_prepared_once_before_it_works() -> None:
    prepared: list[int] = []
    workers = Workers(3, lambda: prepared.append(threading.get_ident()))
    assert len(set(prepared)) == len(prepared) == 3
    assert workers.submit(threading.get_ident).result() in prepared
    assert len(prepared) == 3


def test_several_give_the_frames_of_one_bit_for_bit(
    random_any_model: Model, portrait: Portrait, three_threads: None
) -> None:
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000 * 2).astype(np.float32)
    sampling = SampleConfig(steps=1, window_frames=8, shared_frames=2)
    several = TalkingHead(random_any_model, device="cpu", dtype="float32")
    torch.set_num_threads(1)
    alone = TalkingHead(random_any_model, device="cpu", dtype="float32")
    assert (several.workers.count, alone.workers.count) == (3, 1)
    first, second = (np.stack(list(head(portrait, speech, sampling=sampling, size=64))) for head in (several, alone))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 64])
def test_frames_finished_side_by_side_keep_their_order(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    workers = Workers(1)
    running, most, taken, lock = 0, 0, 0, threading.Lock()

    def make(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.004 if item % 3 else 0.012)
        with lock:
            running -= 1
        return item * item

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(40):
            taken = item
            yield item

    done = []
    for result in workers.in_order(make, items()):
        done.append(result)
        assert taken <= len(done) + MOST  # a few ahead, not all of them
    assert done == [item * item for item in range(40)]
    assert most <= max(1, min(MOST, cores - 2))


class Slow:
    """Samples windows that end in an order of their own, and says what it was asked."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, points: np.ndarray, first: int):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.01 if first % 3 else 0.03)
        with self._lock:
            self.running -= 1
        frames = points[:, 0, 0].astype(int)
        return np.tile(points[:, :1, :1, None], (1, 1, 1, 3)), lambda index, picture: np.array(frames[index])


def test_frames_keep_their_order_and_windows_their_number() -> None:
    slow, workers = Slow(), Workers(3)
    windows = OverlapStream(SampleConfig(window_frames=8, shared_frames=2), slow, workers)
    points = np.broadcast_to(np.arange(200, dtype=np.float32)[:, None, None], (200, 478, 3))
    out: list[int] = []
    for start in range(0, 200, 50):
        out.extend(int(frame) for frame in windows.push(points[start : start + 50], more=True))
    held = 200 - len(out)
    assert held >= 2 * 6  # some windows stay in work while the next landmarks are made
    out.extend(int(frame) for frame in windows.flush())
    assert out == list(range(200))
    assert 2 <= slow.most <= 3


def test_without_more_at_hand_nothing_is_held_back() -> None:
    windows = OverlapStream(SampleConfig(window_frames=8, shared_frames=2), Slow(), Workers(3))
    points = np.zeros((50, 478, 3), np.float32)
    assert len(list(windows.push(points))) == 8 * 6  # eight windows: the last ends at frame 50


def test_an_error_in_a_window_reaches_the_caller() -> None:
    def fails(points: np.ndarray, first: int):
        raise RuntimeError(f"window at {first}")

    windows = OverlapStream(SampleConfig(window_frames=8, shared_frames=2), fails, Workers(3))
    with pytest.raises(RuntimeError, match="window at 0"):
        list(windows.push(np.zeros((30, 478, 3), np.float32)))
