"""Videos made by processes of their own: what a cold start takes, and how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from atldiff.errors import AtlDiffError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atldiff.bench.plan import Variant

_PROGRAM = (
    "import time; started = time.perf_counter(); import atldiff; took = time.perf_counter() - started\n"
    "from atldiff.bench.child import main; main(took)"
)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One video by a new process: wall seconds since it was started, and what it said of itself.

    import_s: `import atldiff`. import_all_s: that and everything it needs to make a video. load_s: the checkpoint.
    peak_memory_mb: resident, at most; None where the system does not say. peak_gpu_memory_mb: None without a GPU.
    """

    import_s: float
    import_all_s: float
    load_s: float
    first_frame_s: float
    file_s: float
    frames: int
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None


class Child:
    """A running process that makes one video; `release` lets a waiting one start."""

    def __init__(self, process: subprocess.Popen[str], said: IO[bytes]) -> None:
        self._process, self._said = process, said

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the values of its next event of that name.

        Raises:
            AtlDiffError: it ended before; the last line it wrote to stderr says why.
        """
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
        for line in self._process.stdout:
            if line.startswith('{"event"'):  # libraries may have their say on stdout
                values = json.loads(line)
                if values.pop("event") == event:
                    return values
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        raise AtlDiffError(f"bench: a process of its own failed: {lines[-1] if lines else f'exit code {code}'}")

    def release(self) -> None:
        """Let a process that waits go on."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextmanager
def child(variant: Variant, portrait: Path, sound: Path, output: Path, *, wait: bool = False) -> Iterator[Child]:
    """Start a process that makes one video; it is ended with the context. wait: it warms up, then waits."""
    order = {"variant": asdict(variant), "portrait": str(portrait), "sound": str(sound), "output": str(output)}
    command = [sys.executable, "-c", _PROGRAM, json.dumps({**order, "wait": wait})]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True)
        with process:
            try:
                yield Child(process, said)
            except BaseException:
                process.kill()
                raise


def cold_start(variant: Variant, portrait: Path, sound: Path, output: Path) -> ColdStart:
    """Make one video in a new process. Files may be in the system's cache: cold is the process, not the disk.

    Raises:
        AtlDiffError: the process failed.
    """
    started = time.perf_counter()
    with child(variant, portrait, sound, output) as running:
        imported = running.wait_for("imported")
        loaded = running.wait_for("loaded")
        running.wait_for("first_frame")
        first_frame_s = time.perf_counter() - started
        saved = running.wait_for("saved")
        file_s = time.perf_counter() - started
    return ColdStart(
        import_s=imported["package_s"],
        import_all_s=imported["all_s"],
        load_s=loaded["seconds"],
        first_frame_s=first_frame_s,
        file_s=file_s,
        **saved,
    )
