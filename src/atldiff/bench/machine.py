"""What figures of speed depend on: the processor, its instructions, the threads, the versions."""

from __future__ import annotations

import os
import platform
from typing import Any

from atldiff.machine import cores, cpu_flags, processor

ISA_FLAGS = {
    "avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "bf16", "amx_bf16": "amx", "amx_tile": "amx",
    "asimd": "neon", "bf16": "bf16",
}  # fmt: skip
"""Flags of /proc/cpuinfo, and what the report calls them."""


def describe() -> dict[str, Any]:
    """Return the machine as plain JSON values."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": cores(),
        "isa": isa(cpu_flags()),
        "onednn_max_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "threads": torch.get_num_threads(),
        "load_before": _load(),
        "gpu": gpu,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def isa(flags: str) -> list[str]:
    """Return which instructions that matter here are among a processor's flags, in a fixed order."""
    there = set(flags.split())
    return list(dict.fromkeys(name for flag, name in ISA_FLAGS.items() if flag in there))


def _load() -> float | None:
    """Return how many processes wanted a core over the last minute: much above zero, the machine was not quiet."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
