"""What a sub-command shows: progress on stderr, one JSON object on stdout, the time each stage took."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress as Bar

DELAY_S = 2.0
"""Work that is done before shows no bar."""
LINE_EVERY_S = 10.0
"""Time between two lines where stderr is not a terminal."""


class Progress:
    """Progress with time left, as a context manager: a bar on a terminal, elsewhere a line now and then.

    Call it with (done, all) and a note.
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._title, self._quiet = title, quiet
        self._bar: Bar | None = None
        self._started = self._line_at = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done."""
        if self._quiet:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        if sys.stderr.isatty() or self._bar is not None:
            if self._bar is None and now - self._started >= DELAY_S and done < total:
                self._bar = _bar(self._title, total)
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=done, total=total, note=note)
        elif now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            first, at = self._first
            left = f", {(total - done) * (now - at) / (done - first):.0f} s left" if done > first else ""
            sys.stderr.write(f"atldiff: {self._title}: {done} of {total}{left}{f', {note}' if note else ''}\n")
            sys.stderr.flush()


def _bar(title: str, total: int) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
    bar.start()
    bar.add_task(title, total=total, note="")
    return bar


@contextmanager
def waiting(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on a terminal that something is going on whose end is not known."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


class Stopwatch:
    """Wall time by stage: each `lap` is the time since the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = self._at = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under a name."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._at
        self._at = now

    @property
    def total(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self._started


def write_json(value: dict[str, Any]) -> None:
    """Write one JSON object to standard output, on one line."""
    sys.stdout.write(json.dumps(value) + "\n")


def say(text: str, *, quiet: bool = False) -> None:
    """Write a line for a human to stderr: stdout is for results."""
    if not quiet:
        sys.stderr.write(text + "\n")


def console() -> Console:
    """Return a console on stdout that keeps tables whole where there is no terminal to fit them into."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=120)
