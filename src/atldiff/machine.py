"""What figures of speed depend on and a file can tell: the processor, the memory of a process, the commit."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path

_ISA_WITH_BFLOAT16 = frozenset(
    {"DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16"}
)
"""Values of ONEDNN_MAX_CPU_ISA that leave oneDNN its bfloat16 instructions."""


def cpuinfo() -> dict[str, str]:
    """Return the first processor's lines of /proc/cpuinfo by their names in small letters; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def cpu_flags() -> str:
    """Return the processor's instruction flags, separated by spaces; empty where they are not told."""
    said = cpuinfo()
    return said.get("flags") or said.get("features") or ""


def native_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16 that oneDNN may use: without, it emulates, slowly."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in _ISA_WITH_BFLOAT16
    return allowed and bool({"avx512_bf16", "amx_bf16"} & set(cpu_flags().split()))


def integer_dot_products() -> bool:
    """Return whether the processor has instructions for products of 8 bits, without which they save little time."""
    return bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(cpu_flags().split()))


def processor() -> str:
    """Return the processor's name, or as much as is known of it."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Return the processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computing_threads() -> int:
    """Return how many threads may compute at once: OMP_NUM_THREADS, or the cores that this process may run on.

    Two threads of one core share what computes, so cores count where the system tells them.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if said.isdecimal() and int(said) > 0:
        return int(said)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    return len({_siblings(processor) for processor in mine}) or 1


def _siblings(processor: int) -> str:
    """Return which processors are threads of the same core as this one; itself where the system does not tell."""
    path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return str(processor)


def give_back_memory() -> None:
    """Give the system what is free and still held, where the C library can: opening networks frees as they keep."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def resident_peak_mb(status: Path = Path("/proc/self/status")) -> float | None:
    """Return the most memory a process ever had resident, in MB (10^6 bytes); None where the system has no /proc."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 / 1e6 if found else None


def revision() -> str | None:
    """Return the commit of the package's checkout, with a + where its source differs; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
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
