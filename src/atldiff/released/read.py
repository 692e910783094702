"""How the authors' files are read: tensors and JSON, and nothing that could run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from atldiff.backbones.weights import read_tensors
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

STATE = "state_dict"
_GLOBAL = re.compile(r"(?:GLOBAL|got <class|function)\s+'?([\w.]+)")


def read_lightning(path: Path) -> dict[str, torch.Tensor]:
    """Return the `state_dict` of a Lightning checkpoint, or the tensors of a .safetensors file, on the CPU.

    The pickle is read with `weights_only=True`: what would run code is refused by name, never run.

    Raises:
        CheckpointError: no such file, not such a file, or one with objects in it that are not plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"au2lm {path}: no such file; expected the authors' Lightning checkpoint")
    if path.suffix.lower() == ".safetensors":
        return _only_tensors(read_tensors(path), path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, value and runtime errors of a file that is not ours
        refused = _GLOBAL.search(str(error))
        if refused is None:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"au2lm {path}: not a torch file ({reason})") from None
        raise CheckpointError(
            f"au2lm {path}: got a pickled {refused[1]}, expected only tensors and plain data, and it was not run; "
            "where you trust the file, re-save its tensors alone and pass that: "
            f"`held = torch.load({str(path)!r}, map_location='cpu', weights_only=False)`, then "
            f"`torch.save({{'{STATE}': held['{STATE}']}}, 'au2lm.ckpt')`"
        ) from None
    if not isinstance(held, Mapping):
        raise CheckpointError(f"au2lm {path}: got a {type(held).__name__}, expected a checkpoint with {STATE!r}")
    tensors = held.get(STATE, held)
    if not isinstance(tensors, Mapping) or not tensors:
        raise CheckpointError(f"au2lm {path}: {STATE!r} is a {type(tensors).__name__}, expected named tensors")
    return _only_tensors(tensors, path)


def _only_tensors(tensors: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    others = [name for name, value in tensors.items() if not torch.is_tensor(value)]
    if others:
        raise CheckpointError(
            f"au2lm {path}: {others[0]!r} is a {type(tensors[others[0]]).__name__}, expected a tensor; a Lightning "
            f"checkpoint has its tensors under {STATE!r}"
        )
    return dict(tensors)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        CheckpointError: no such file, or not an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise CheckpointError(f"{path}: {reason}; expected a configuration that diffusers wrote") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: got {type(values).__name__}, expected an object that diffusers wrote")
    return values
