"""What a process of its own does for `process.run`: load, make one video, say on stdout how far it is.

Each event is one line of JSON; whoever started the process notes when it comes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from atldiff.bench.plan import Variant
from atldiff.machine import resident_peak_mb
from atldiff.timebase import SAMPLE_RATE


def main(import_s: float) -> None:
    """Make the video that the JSON in argv[1] describes. import_s: what `import atldiff` took."""
    order = json.loads(sys.argv[1])
    started = time.perf_counter()
    import numpy as np

    import atldiff.pipeline  # noqa: F401 - what takes the time is measured

    _tell("imported", package_s=import_s, all_s=import_s + time.perf_counter() - started)
    variant = Variant(**order["variant"])
    started = time.perf_counter()
    head = variant.open()
    _tell("loaded", seconds=time.perf_counter() - started)
    sampling = variant.sampling(head)
    if order["wait"]:
        for _ in head(Path(order["portrait"]), np.zeros(SAMPLE_RATE, np.float32), sampling=sampling, size=variant.size):
            pass  # what the first video has to prepare
        _tell("ready")
        sys.stdin.readline()
    video = head(Path(order["portrait"]), Path(order["sound"]), sampling=sampling, size=variant.size)
    video.save(order["output"], progress=lambda done, _: _tell("first_frame") if done == 1 else None)
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() / 1e6 if torch is not None and torch.cuda.is_initialized() else None
    _tell("saved", frames=len(video), peak_memory_mb=resident_peak_mb(), peak_gpu_memory_mb=gpu)


def _tell(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()
