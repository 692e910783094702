from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atldiff import interrupt
from atldiff.interrupt import Interrupted, held, stop_wishes
from signalled import group_lives, result, start, tell_group, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals as on Linux and macOS"),
    pytest.mark.timeout(300),
]

NUMBERS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals as the command line has them."""
    monkeypatch.setattr(interrupt, "_answer", interrupt._Answer())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    interrupt.answer_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("answered")
class TestAnswer:
    @pytest.mark.parametrize(("number", "code"), list(zip(NUMBERS, (130, 143, 129), strict=False)))
    def test_every_signal_interrupts(self, number: int, code: int) -> None:
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(number)
        assert isinstance(caught.value, Interrupted)
        assert caught.value.number == number
        assert interrupt.exit_code(caught.value) == interrupt.exit_code() == code

    def test_what_comes_twice_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(interrupt, "SAME_S", 0.0)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)

    def test_what_a_destructor_swallows_comes_again(self, capfd: pytest.CaptureFixture[str]) -> None:
        class Swallows:
            def __del__(self) -> None:
                signal.raise_signal(signal.SIGTERM)

        def lose_it() -> None:
            Swallows()
            until(lambda: False, "the signal")

        with pytest.raises(Interrupted):
            lose_it()
        assert capfd.readouterr().err == ""

    def test_ignored_ones_stay_ignored(self) -> None:
        """What nohup sets."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        interrupt.answer_signals()
        signal.raise_signal(signal.SIGHUP)
        with stop_wishes() as wished:
            signal.raise_signal(signal.SIGHUP)
            assert not wished()

    def test_a_library_s_handlers_do_not_stay(self) -> None:
        with interrupt.answers_kept():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


class TestHeld:
    @pytest.mark.usefixtures("answered")
    def test_the_body_is_finished_first(self) -> None:
        done = []

        def work() -> None:
            with held(), held():
                signal.raise_signal(signal.SIGTERM)
                done.append(1)

        with pytest.raises(Interrupted):
            work()
        assert done == [1]

    @pytest.mark.usefixtures("answered")
    def test_also_when_it_fails(self) -> None:
        def work() -> None:
            with held():
                signal.raise_signal(signal.SIGTERM)
                raise OSError("full")

        with pytest.raises(Interrupted) as caught:
            work()
        assert isinstance(caught.value.__context__, OSError)

    def test_of_a_program_that_answers_nothing(self) -> None:
        """Its own Ctrl-C is held back, the signals that just end it are left alone."""
        seen = []

        def work() -> None:
            with held():
                seen.append(signal.getsignal(signal.SIGTERM))
                signal.raise_signal(signal.SIGINT)
                seen.append("finished")

        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            with pytest.raises(KeyboardInterrupt):
                work()
        finally:
            signal.signal(signal.SIGTERM, before)
        assert seen == [signal.SIG_DFL, "finished"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_in_another_thread_nothing_happens(self) -> None:
        seen: list[object] = []

        def work() -> None:
            with held(), stop_wishes() as wished:
                seen.extend([signal.getsignal(signal.SIGINT), wished()])

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [signal.default_int_handler, False]


class TestWishes:
    @pytest.fixture
    def brief(self, monkeypatch: pytest.MonkeyPatch) -> float:
        """How long patience lasts in this test, in seconds; two signals so far apart are two."""
        monkeypatch.setattr(interrupt, "PATIENCE_S", 0.05)
        monkeypatch.setattr(interrupt, "SAME_S", 0.01)
        return 0.05

    @pytest.mark.parametrize("number", NUMBERS)
    def test_a_signal_is_noted_and_raised_when_asked(self, number: int) -> None:
        before = signal.getsignal(number)
        with stop_wishes() as wished:
            assert not wished()
            wished.raise_it()
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert wished()
        assert signal.getsignal(number) is before
        with pytest.raises(Interrupted) as caught:
            wished.raise_it()
        assert caught.value.number == number

    def test_only_a_person_s_second_one_gives_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interrupt, "SAME_S", 0.0)
        with stop_wishes():
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGINT)

    def test_at_once(self) -> None:
        with stop_wishes() as wished:
            with pytest.raises(Interrupted), wished.at_once():
                signal.raise_signal(signal.SIGTERM)
            assert wished()
            reached = []
            with pytest.raises(Interrupted), wished.at_once():
                reached.append(1)
            assert not reached

    @pytest.mark.usefixtures("answered")
    def test_patience_lets_a_supervisor_wait_but_nobody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with interrupt.patience():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            with stop_wishes() as wished:
                assert wished()
            monkeypatch.setattr(interrupt, "SAME_S", 0.0)
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)

    @pytest.mark.usefixtures("answered")
    def test_patience_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interrupt, "PATIENCE_S", 0.05)
        monkeypatch.setattr(interrupt, "SAME_S", 0.01)

        def stay() -> None:
            with interrupt.patience():
                signal.raise_signal(signal.SIGTERM)
                until(lambda: False, "the end of patience")

        with pytest.raises(Interrupted):
            stay()

    @pytest.mark.usefixtures("answered")
    def test_what_was_taken_does_not_come_again(self, brief: float) -> None:
        """Such as when its owner is saving."""
        with interrupt.patience():
            signal.raise_signal(signal.SIGTERM)
            with stop_wishes() as wished:
                assert wished()
            time.sleep(4 * brief)
        time.sleep(4 * brief)

    @pytest.mark.usefixtures("answered")
    def test_what_nobody_took_comes_at_the_end(self) -> None:
        reached = []

        def work() -> None:
            with interrupt.patience():
                with interrupt.patience():
                    signal.raise_signal(signal.SIGTERM)
                    reached.append("the end of the inner one")
                reached.append("the end")

        with pytest.raises(Interrupted) as caught:
            work()
        assert caught.value.number == signal.SIGTERM
        assert reached == ["the end of the inner one", "the end"]

    @pytest.mark.usefixtures("answered")
    def test_patience_that_fails_leaves_nothing_behind(self, brief: float) -> None:
        def work() -> None:
            with interrupt.patience():
                signal.raise_signal(signal.SIGTERM)
                raise OSError("full")

        with pytest.raises(OSError, match="full"):
            work()
        assert interrupt.received() == signal.SIGTERM
        time.sleep(4 * brief)

    @pytest.mark.usefixtures("answered")
    @pytest.mark.parametrize("first", [interrupt.end_patience, partial(signal.raise_signal, signal.SIGTERM)])
    def test_patience_is_ended(self, first: Callable[[], None]) -> None:
        reached = []

        def work() -> None:
            with interrupt.patience():
                first()
                reached.append("patience")
                interrupt.end_patience()
                signal.raise_signal(signal.SIGTERM)
                reached.append("none")

        with pytest.raises(Interrupted):
            work()
        assert reached == ["patience"]

    @pytest.mark.usefixtures("answered")
    def test_in_another_thread_what_waits_is_not_taken(self) -> None:
        def look() -> None:
            with stop_wishes():
                pass

        def work() -> None:
            with interrupt.patience():
                signal.raise_signal(signal.SIGTERM)
                thread = threading.Thread(target=look)
                thread.start()
                thread.join()

        with pytest.raises(Interrupted):
            work()

    @pytest.mark.usefixtures("answered")
    def test_no_patience_with_ctrl_c(self) -> None:
        with pytest.raises(Interrupted), interrupt.patience():
            signal.raise_signal(signal.SIGINT)


WORKERS = """
import multiprocessing, sys, time
from multiprocessing import resource_tracker
from atldiff.interrupt import follow_parent, hidden_from_children

def work(ready):
    follow_parent()
    ready.set()
    while True:
        time.sleep(1)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    ready = [context.Event() for _ in range(3)]
    if sys.argv[1] == "spawn":
        resource_tracker.ensure_running()
    with hidden_from_children():
        workers = [context.Process(target=work, args=(event,), daemon=True) for event in ready]
        for worker in workers:
            worker.start()
        print("started", *(worker.pid for worker in workers), flush=True)
    for event in ready:
        event.wait()
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
class TestFollowers:
    @pytest.fixture
    def parent(self, method: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
        """A process with three workers, and their ids: SIGTERM and SIGINT came to them while they were starting."""
        script = tmp_path / "parent.py"
        script.write_text(WORKERS)
        process = start(str(script), method)
        assert process.stdout is not None
        ids = [int(word) for word in process.stdout.readline().split()[1:]]
        for number in NUMBERS:
            for worker in ids:
                os.kill(worker, number)
        assert process.stdout.readline() == "ready\n"
        yield process, ids
        process.kill()
        result(process)

    def test_signals_are_the_parent_s(self, parent: tuple[subprocess.Popen[str], list[int]]) -> None:
        process, ids = parent
        assert len(ids) == 3
        for number in NUMBERS:
            for worker in ids:
                os.kill(worker, number)
        for worker in ids:
            os.kill(worker, 0)
        assert process.poll() is None

    def test_they_end_with_it(self, parent: tuple[subprocess.Popen[str], list[int]]) -> None:
        process, _ = parent
        process.kill()
        process.wait()
        until(lambda: not group_lives(process), "the workers to end")


COMMAND = """
import sys, time
import numpy as np
from atldiff import cli

def run(json=False):
    {body}

import atldiff.doctor
atldiff.doctor.run = run
sys.argv = ["atldiff", "doctor"]
cli.main()
"""
RENDERING = """
    from atldiff.video.write import VideoWriter
    with VideoWriter("out.mp4", size=(64, 64), fps=25) as writer:
        for i in range(10**6):
            writer.write(np.full((64, 64, 3), i % 200, np.uint8))
            if i == 30:
                print("ready", flush=True)
            time.sleep(0.001)
"""
WAITING = """
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.01)  # not long: Python answers what comes just before a sleep only after it
        except KeyboardInterrupt as stop:
            raise {error} from None
"""


def command(tmp_path: Path, body: str, **settings) -> subprocess.Popen[str]:
    """Start a command line whose `doctor` does something else, and wait until it is in the middle of it."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND.format(body=body.strip()))
    process = start(str(script), cwd=tmp_path, **settings)
    if process.stdout is not None:
        assert process.stdout.readline() == "ready\n", process.communicate()
    return process


SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "interrupted by SIGTERM"}


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("tell", [subprocess.Popen.send_signal, tell_group], ids=["process", "group"])
def test_a_command_says_one_line_and_keeps_its_part(tmp_path: Path, number: int, tell: Callable) -> None:
    process = command(tmp_path, RENDERING)
    tell(process, number)
    code, _, err = result(process)
    assert code == 128 + number
    lines = err.splitlines()
    assert len(lines) == 2
    assert "frames are kept in out.partial.mp4" in lines[0]
    assert lines[1] == f"atldiff: {SAID[number]}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.py", "out.partial.mp4"]
    import av

    with av.open(str(tmp_path / "out.partial.mp4")) as container:
        frames = [int(frame.to_ndarray(format="gray")[32, 32]) for frame in container.decode(video=0)]
    assert len(frames) == int(lines[0].split(" frames are kept")[0].split()[-1]) >= 31
    assert np.abs(np.array(frames) - np.arange(len(frames)) % 200).max() < 4


def test_a_storm_of_signals_breaks_nothing(tmp_path: Path) -> None:
    process = command(tmp_path, RENDERING)
    while process.poll() is None:
        tell_group(process, signal.SIGTERM)
    code, _, err = result(process)
    assert code in (143, -signal.SIGTERM)  # the last ones find a process that is leaving
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.py", "out.partial.mp4"]


@pytest.mark.parametrize("error", ["ImportError('half a module')", "RuntimeError('a callback failed')", "OSError(5)"])
def test_what_a_library_makes_of_it_is_an_interruption_still(tmp_path: Path, error: str) -> None:
    process = command(tmp_path, WAITING.format(error=error))
    process.send_signal(signal.SIGTERM)
    assert result(process)[::2] == (143, "atldiff: interrupted by SIGTERM\n")


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """It takes its own output away: writing there fails, and the part is kept nevertheless."""
    import pty

    terminal, slave = pty.openpty()
    lead = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, 'command.py'])"
    )
    (tmp_path / "command.py").write_text(COMMAND.format(body=RENDERING.strip()))
    process = start("-c", lead, cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(timeout=100) == 129
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.py", "out.partial.mp4"]
