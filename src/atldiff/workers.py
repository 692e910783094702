"""Threads that sample windows and finish frames side by side, one core each.

A window of frames is one piece of work that waits for no other. Cores that each compute a window of their own never
wait for one another, as the threads of one computation do at the end of every layer. Where there are more than two,
frames are warped and composited likewise, while the caller's thread encodes.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MOST = 8
"""Windows, and frames, in work at once, at most."""


class Workers:
    """Threads for networks, and for the frames made of what they say.

    count: how many windows are in work at once, up to `MOST`. prepare: what each of their threads does before all else,
    such as having its computations use one core.
    """

    def __init__(self, count: int, prepare: Callable[[], None] | None = None) -> None:
        self.count = max(1, min(MOST, count))
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="atldiff")
        self.submit = self._pool.submit
        if prepare is not None:
            together = Barrier(self.count)  # each of them takes one of these, none takes two
            for done in [self.submit(_prepared, prepare, together) for _ in range(self.count)]:
                done.result()
        # On two cores the caller finishes frames itself: threads for it made no video faster there.
        self._finishing = min(MOST, (os.cpu_count() or 1) - 2)
        self._finishers = ThreadPoolExecutor(max(1, self._finishing), thread_name_prefix="atldiff-frame")

    def alone(self, call: Callable[..., ResultT], *arguments: object) -> ResultT:
        """Return what a call returns that computes with one core: more of them would wait for one another, too."""
        return self.submit(call, *arguments).result()

    def in_order(self, make: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
        """Yield what `make` gives for each item, in their order, a few of them in work ahead."""
        if self._finishing < 1:
            yield from map(make, items)
            return
        running: deque[Future[ResultT]] = deque()
        for item in items:
            running.append(self._finishers.submit(make, item))
            if len(running) > self._finishing:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _prepared(prepare: Callable[[], None], together: Barrier) -> None:
    prepare()
    together.wait()
