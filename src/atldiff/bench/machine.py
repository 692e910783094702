"""What figures of speed depend on: the processor, its instructions, the threads, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ISA_FLAGS = {
    "avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "bf16", "amx_bf16": "amx", "amx_tile": "amx",
    "asimd": "neon", "bf16": "bf16",
}  # fmt: skip
"""Flags of /proc/cpuinfo, and what the report calls them."""


def describe() -> dict[str, Any]:
    """Return the machine as plain JSON values."""
    import torch

    said = _cpuinfo()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": said.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": isa(said.get("flags") or said.get("features") or ""),
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


def revision() -> str | None:
    """Return the commit of the package's checkout, with a + where its source differs; None outside of one."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        differs = bool(_git(folder, "status", "--porcelain", "--", "src"))
        return _git(folder, "rev-parse", "--short", "HEAD") + ("+" if differs else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *args: str) -> str:
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's lines of /proc/cpuinfo by their names in small letters; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _load() -> float | None:
    """Return how many processes wanted a core over the last minute: much above zero, the machine was not quiet."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
