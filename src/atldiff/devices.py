"""Where the networks run, and in which number format."""

from __future__ import annotations

import os

import torch

_ISA_WITH_BFLOAT16 = frozenset(
    {"DEFAULT", "ALL", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16"}
)
"""Values of ONEDNN_MAX_CPU_ISA that leave oneDNN its bfloat16 instructions: without them it emulates, slowly."""


def choose_device(device: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ValueError: an unknown name, or a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: got {device!r}, expected auto, cpu or cuda") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: got {device!r}, but PyTorch sees no GPU here; use cpu or auto")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the network's dtype for `auto`, `float32` or `bfloat16`: auto takes bfloat16 where hardware has it."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in _ISA_WITH_BFLOAT16
        return torch.bfloat16 if native and allowed else torch.float32
    if dtype not in known:
        raise ValueError(f"dtype: got {dtype!r}, expected auto, float32 or bfloat16")
    return known[dtype]
