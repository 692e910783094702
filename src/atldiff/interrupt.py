"""Signals that ask to stop: Ctrl-C, a supervisor's SIGTERM, and the SIGHUP of a terminal that closes; all alike.

In the command line each raises `Interrupted` where the work is. Whoever must finish something first takes them as a
wish (`stop_wishes`) or holds them back (`held`); processes that only help leave them to their parent (`follow_parent`).

One wish may come more than once: GNU timeout tells a process and then its group, a launcher passes on what its workers
were told as well. So what comes again within `SAME_S` is the same wish.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME_S = 2.0
PATIENCE_S = 8.0
"""Of the ten seconds that a container is given to stop, what a start may still take to get to where it can be saved."""


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop: `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Answer:
    """What the command line makes of the signals that reach it."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.patient = False
        self._at = 0.0
        self._waiting: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        _leave_dead_terminal(number)
        now, again = time.monotonic(), self.number is not None
        if again and now - self._at < SAME_S:
            return
        self.number, self._at = number, now
        if again or not self.patient or number == signal.SIGINT:
            self.take()
            raise Interrupted(number)
        self._waiting = _send_later(PATIENCE_S, number)

    def take(self) -> int | None:
        """Return the number of the last signal; one that waits is seen to by the caller and does not come again."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        return self.number

    def raise_waiting(self) -> None:
        """Raise what waits, if anything does."""
        if self._waiting is not None and (number := self.take()) is not None:
            raise Interrupted(number)

    def again(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise once more what came where nothing can be raised, such as in a destructor."""
        if not isinstance(lost.exc_value, Interrupted):
            sys.__unraisablehook__(lost)
            return
        self.number = None
        _send_later(0.01, lost.exc_value.number)


def _send_later(seconds: float, number: int) -> threading.Timer:
    import _thread

    timer = threading.Timer(seconds, _thread.interrupt_main, (number,))
    timer.daemon = True
    timer.start()
    return timer


_answer = _Answer()


def answer_signals() -> None:
    """Have every signal that asks to stop raise `Interrupted` in the main thread, from now on.

    One that the caller has ignored stays ignored: so does nohup.
    """
    sys.unraisablehook = _answer.again
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)


def let_signals_end() -> None:
    """Give them their first effect again: there is nothing left to be saved."""
    for number in SIGNALS:
        if signal.getsignal(number) is _answer:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def patience() -> Iterator[None]:
    """In the body, let what stops a process other than Ctrl-C wait for `stop_wishes`, for at most `PATIENCE_S`.

    For a start that takes seconds: were it left at once, a run that is stopped early again and again would never get
    anywhere. Within another one, a body is part of that one's.

    Raises:
        Interrupted: at the end of the body, which did not take what waits.
    """
    answer = _answer
    before, answer.patient = answer.patient, True
    try:
        yield
    except BaseException:
        answer.patient = before
        if not before:
            answer.take()
        raise
    answer.patient = before  # before anything is raised: what comes from here on does not wait
    if not before:
        answer.raise_waiting()


def end_patience() -> None:
    """Have nothing wait from here on, in the rest of the body of `patience`.

    Raises:
        Interrupted: something did.
    """
    _answer.patient = False
    _answer.raise_waiting()


@contextmanager
def answers_kept() -> Iterator[None]:
    """Put back whatever handlers a library sets in the body for itself."""
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not None}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def received() -> int | None:
    """Return the number of the last signal that was answered in this process, or None."""
    return _answer.number


def exit_code(stop: BaseException | None = None) -> int:
    """Return 128 plus the signal's number, as shells do: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    number = stop.number if isinstance(stop, Interrupted) else received()
    return 128 + (signal.SIGINT if number is None else number)


class StopWish:
    """Whether a signal has asked to stop: call it."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0
        self._raises = False

    def __call__(self) -> bool:
        """Return whether one has."""
        return self.number is not None

    def raise_it(self) -> None:
        """Raise what was wished for, if anything was."""
        if self.number is not None:
            raise Interrupted(self.number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise `Interrupted` in the body, for work that may be broken off; the wish stays.

        Raises:
            Interrupted: also where the wish came before.
        """
        self._raises = True
        try:
            self.raise_it()
            yield
        finally:
            self._raises = False

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Remember a signal; Ctrl-C once more, by somebody who sees that it takes long, interrupts at once."""
        _leave_dead_terminal(number)
        now = time.monotonic()
        if self.number is None:
            self.number, self._at = number, now
            if self._raises:
                raise Interrupted(number)
        elif number == signal.SIGINT and now - self._at >= SAME_S:
            raise Interrupted(number)


@contextmanager
def stop_wishes() -> Iterator[StopWish]:
    """Take signals as a wish that a running step may first be finished and saved, also one that `patience` let wait.

    Outside the main thread, where no handler can be set, signals keep their effect and there is never a wish.
    """
    wish = StopWish()
    with _handled(wish.note, lambda handler: handler not in (signal.SIG_IGN, None)):
        if threading.current_thread() is threading.main_thread():
            waited = _answer.take()  # only now that nothing can come between
            wish.number = waited if wish.number is None else wish.number
        yield wish


@contextmanager
def held() -> Iterator[None]:
    """Let the body finish before a signal is answered, so that nothing is left half done. For short work.

    Signals that nobody in this process answers keep their effect, and so do all outside the main thread.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        with _handled(lambda number, frame: came.append(number), callable, before):
            yield
    finally:
        for number in came:
            before[number](number, None)


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None],
    concerns: Callable[[object], bool],
    before: dict[int, Any] | None = None,
) -> Iterator[None]:
    """Handle those signals whose handlers so far concern us by another one, and put them back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {} if before is None else before
    before |= {number: now for number in SIGNALS if concerns(now := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def hidden_from_children() -> Iterator[None]:
    """Have processes that are started in the body never see the signals, until they call `follow_parent`.

    Otherwise a signal to the whole group ends a worker that is just starting, and the parent sees it die first.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """In a process of `multiprocessing`: leave signals to the parent, and end when it has ended, however that was."""
    import multiprocessing

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="atldiff-parent", daemon=True).start()


def _end_after(parent) -> None:  # noqa: ANN001 - multiprocessing does not export what parent_process gives
    parent.join()
    os._exit(1)


def _leave_dead_terminal(number: int) -> None:
    """After the SIGHUP of a terminal that is gone write into nothing: an error there would stop what is being saved."""
    if number != getattr(signal, "SIGHUP", None):
        return
    import errno

    for descriptor in (0, 1, 2):
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:  # not for a file or a pipe, nor a terminal that is still there
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, descriptor)
                os.close(nothing)
