"""Threads that run networks side by side, one core each.

A window of frames is one piece of work that waits for no other. Cores that each compute a window of their own never
wait for one another, as the threads of one computation do at the end of every layer; meanwhile the caller's thread
warps, composites and encodes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

MOST = 8
"""Windows in work at once, at most."""


class Workers:
    """Threads for networks on a device.

    count: how many windows are in work at once: on the CPU one for each of the threads PyTorch would use, up to
    `MOST`, and PyTorch computes with one thread in each; on a GPU one.
    """

    def __init__(self, device: torch.device) -> None:
        threads = torch.get_num_threads()
        self.count = min(MOST, threads) if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="atldiff")
        self.submit = self._pool.submit
        if device.type == "cpu":
            together = Barrier(self.count)  # each of them takes one of these, none takes two
            for done in [self.submit(_compute_alone, together) for _ in range(self.count)]:
                done.result()
            torch.set_num_threads(threads)  # what the last call said holds for threads that start later, too


def _compute_alone(together: Barrier) -> None:
    torch.get_num_threads()  # the first question gives a thread the number that was set last, anywhere; so ask first
    torch.set_num_threads(1)
    together.wait()
