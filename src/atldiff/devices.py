"""Where PyTorch computes, and in which number format."""

from __future__ import annotations

import torch

from atldiff.machine import native_bfloat16


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
        return torch.bfloat16 if native_bfloat16() else torch.float32
    if dtype not in known:
        raise ValueError(f"dtype: got {dtype!r}, expected auto, float32 or bfloat16")
    return known[dtype]


def dtype_name(dtype: torch.dtype) -> str:
    """Return what `choose_dtype` takes for a dtype."""
    return str(dtype).removeprefix("torch.")
