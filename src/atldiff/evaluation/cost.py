"""What a video costs from a cold start: a process of its own makes one, and the system says what it took."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.errors import DataError
from atldiff.machine import resident_peak_mb

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL_S = 0.05


def cold_start(weights: Sequence[str], clip: Path, preset: str, steps: int) -> dict[str, float]:
    """Make one video in a new process and return `cold_s`, its wall time, and `peak_memory_mb`, its resident peak.

    weights: the options that name them, such as `--weights NAME`. clip: the video whose first face speaks its sound.
    The peak is left out where the system has no /proc: what `wait4` tells of a child includes its parent's memory at
    the moment of the fork.

    Raises:
        DataError: the process failed; its last line says why.
    """
    peak_mb = 0.0
    with tempfile.TemporaryDirectory(prefix="atldiff-") as folder, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "atldiff", "generate", str(clip), str(clip), "-o", f"{folder}/cold.mp4"]
        command += [*weights, "--preset", preset, "--steps", str(steps), "--quiet"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process:
            try:
                while process.poll() is None:
                    peak_mb = max(peak_mb, resident_peak_mb(Path(f"/proc/{process.pid}/status")) or 0.0)
                    time.sleep(POLL_S)
            except BaseException:
                process.kill()
                raise
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise DataError(f"cost: `atldiff generate` on {clip} failed: {lines[-1] if lines else process.returncode}")
    return {"cold_s": seconds, **({"peak_memory_mb": peak_mb} if peak_mb else {})}
