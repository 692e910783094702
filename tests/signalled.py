"""Real processes of the command line, and signals to them: waiting is polling with a deadline, never a fixed time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).resolve().parents[1] / "src"
DEADLINE_S = 120.0


def until(holds: Callable[[], object], what: str, process: subprocess.Popen | None = None) -> None:
    """Wait until a condition holds; fail when it does not in time, or when the process has ended before."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        ended = process is not None and process.poll() is not None
        if ended and not holds():
            assert process is not None
            raise AssertionError(f"{what}: ended before with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S:g} s"
        time.sleep(0.01)


def start(*command: str, **settings) -> subprocess.Popen[str]:
    """Start this interpreter with a command line in a session of its own, its output in pipes."""
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([sys.executable, *command], env=environment, text=True, start_new_session=True, **pipes)


def tell_group(process: subprocess.Popen, number: int) -> None:
    """Send a signal as GNU timeout does: to the process, and then to its whole group, itself included."""
    process.send_signal(number)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def result(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the exit code and what was said, after at most the deadline; leave no process of the group."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
        until(lambda: not group_lives(process), "the group to end")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
    return process.returncode, out, err


def group_lives(process: subprocess.Popen) -> bool:
    """Return whether any process of the group, such as a worker, is still there."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
