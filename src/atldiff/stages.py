"""Where the time goes: each stage of the pipeline is named where it runs, and books its time with whoever listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STAGES: Final = (
    "audio", "detect", "features", "generator", "motion", "inputs", "denoise", "warp", "composite", "encode",
)  # fmt: skip
"""The stages in the order of the walk. None runs inside another, so their seconds add up."""

_listeners: list[StageTimes] = []


class StageTimes:
    """Wall seconds and calls of each stage, of every thread, while `listening`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.calls: dict[str, int] = dict.fromkeys(STAGES, 0)

    @contextmanager
    def listening(self) -> Iterator[StageTimes]:
        """Book the stages that run meanwhile."""
        _listeners.append(self)
        try:
            yield self
        finally:
            _listeners.remove(self)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name the work inside; costs about a microsecond while nobody listens."""
    if not _listeners:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        for listener in list(_listeners):
            listener.seconds[name] += seconds
            listener.calls[name] += 1
