"""A checkpoint is a folder: config.json, model.safetensors and README.md (the model card). No pickle, ever."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff.config import BUNDLED, from_dict, to_dict
from atldiff.errors import CheckpointError
from atldiff.files import replacing, write_text
from atldiff.hub import HUB_ID, HubError, fetch_folder
from atldiff.runtime.graphs import CONFIG_FILE, GRAPHS_FILE, WEIGHTS_FILE
from atldiff.types import MOTION_FILE

if TYPE_CHECKING:
    import os

    import torch

    from atldiff.config import MethodConfig
    from atldiff.methods.models import Model
    from atldiff.methods.pair import Pair

CARD_FILE = "README.md"
EXPORTED_FILES = (GRAPHS_FILE, "*.onnx")
"""What `atldiff export` puts beside them."""
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"})
_NO_WEIGHTS = f"checkpoint {{}}: no {WEIGHTS_FILE}; expected safetensors weights beside {CONFIG_FILE}"
_NOT_SAFETENSORS = "checkpoint {}: not a safetensors file ({}); pickles are never loaded"
_NOT_FINITE = "checkpoint {}: tensor {!r} holds NaN or infinity; the file is damaged"


def locate(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: a local path, a bundled name, or a hub id that is fetched.

    Raises:
        CheckpointError: there is no such checkpoint, or it is a pickle.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.suffix.lower() in _PICKLE_SUFFIXES or (path.is_file() and path.suffix != ".safetensors"):
        raise CheckpointError(
            f"checkpoint {path}: got a file that may hold a pickle, expected a folder with {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}; pickles are never loaded"
        )
    if path.is_file():
        raise CheckpointError(f"checkpoint {path}: got a file, expected the folder with {CONFIG_FILE} beside it")
    if str(name) in BUNDLED:
        return Path(str(files("atldiff.weights").joinpath(str(name))))
    if HUB_ID.fullmatch(str(name)):
        return _fetch(str(name), revision)
    raise CheckpointError(
        f"checkpoint {name}: no such folder; expected a folder, a bundled name ({', '.join(BUNDLED)}) or a hub id "
        "such as owner/name"
    )


def _fetch(hub_id: str, revision: str | None) -> Path:
    what = f"checkpoint {hub_id}"
    try:
        return fetch_folder(
            hub_id, what, [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, MOTION_FILE, *EXPORTED_FILES], revision
        )
    except HubError as error:
        raise CheckpointError(f"{what}: cannot be fetched from the hub ({error})") from None


def read_config(folder: Path) -> MethodConfig:
    """Read a checkpoint's configuration.

    Raises:
        CheckpointError: it is missing, not JSON, or has an unknown field or a value out of range (named).
    """
    path = folder / CONFIG_FILE
    try:
        return from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise CheckpointError(
            f"checkpoint {folder}: no {CONFIG_FILE}; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from None


def motion_of(folder: Path) -> Path | None:
    """Return the folder of the motion model that a checkpoint brings, or None: then it is the package's."""
    return folder if (folder / MOTION_FILE).is_file() else None


def carry_motion(motion: Path | None, folder: Path) -> None:
    """Copy a motion model, if there is one, into a checkpoint's folder; motion: the folder that it lies in."""
    if motion is not None:
        with replacing(folder / MOTION_FILE) as partial:
            shutil.copyfile(motion / MOTION_FILE, partial)


def read_buffers(folder: Path, part: str) -> dict[str, np.ndarray]:
    """Return the arrays, float32, that a part of a checkpoint holds beside its networks' weights, by their names in it.

    part: `generator` or `renderer`.

    Raises:
        CheckpointError: the weights are missing or not ours, or hold NaN or infinity.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    start, buffers = f"{part}.", {}
    try:
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name.startswith(start) and "." not in (own := name[len(start) :]):
                    buffers[own] = file.get_tensor(name).astype(np.float32, copy=False)
    except FileNotFoundError:
        raise CheckpointError(_NO_WEIGHTS.format(folder)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(_NOT_SAFETENSORS.format(path, error)) from None
    for name, values in buffers.items():
        if not np.isfinite(values).all():
            raise CheckpointError(_NOT_FINITE.format(path, start + name))
    return buffers


def load_model(folder: Path) -> Model:
    """Load a checkpoint strictly, as float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: files are missing or not ours; a missing, unknown or wrongly shaped tensor is named.
    """
    from atldiff.methods.models import build

    model = build(read_config(folder))
    load_into(model, folder)
    return model.eval()


def locate_stages(
    name: str | os.PathLike[str],
    generator: str | os.PathLike[str] | None,
    renderer: str | os.PathLike[str] | None,
    revision: str | None = None,
) -> tuple[Path, Path]:
    """Return the folders of the generator's and the renderer's checkpoint: `name`'s, except where another is named.

    revision: of `name`, where it is a hub id; it is not looked for where both others are named.
    """
    speaks = locate(name, revision) if generator is None else locate(generator)
    if renderer is not None:
        return speaks, locate(renderer)
    return speaks, speaks if generator is None else locate(name, revision)


def load_stages(speaks: Path, renders: Path) -> Model | Pair:
    """Load a checkpoint, or the generator of one and the renderer of another; as `load_model`."""
    if speaks == renders:
        return load_model(speaks)
    from atldiff.methods.pair import Pair

    return Pair(load_model(speaks).generator, load_model(renders).renderer).eval()


def load_into(model: Model, folder: Path, parts: tuple[str, ...] | None = None) -> None:
    """Copy a checkpoint's tensors into a model of the same configuration, strictly.

    parts: how the names of the tensors begin that are copied, when the configurations agree in these alone.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(_NO_WEIGHTS.format(folder))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(_NOT_SAFETENSORS.format(path, error)) from None
    wanted = model.state_dict()
    if parts is not None:
        wanted, tensors = ({n: t for n, t in held.items() if n.startswith(parts)} for held in (wanted, tensors))
    for kind, names in (("missing", wanted.keys() - tensors.keys()), ("unknown", tensors.keys() - wanted.keys())):
        if names:
            raise CheckpointError(
                f"checkpoint {path}: {kind} tensor {min(names)!r} ({len(names)} in all); "
                "expected exactly the tensors its config.json describes"
            )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"checkpoint {path}: tensor {name!r} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(_NOT_FINITE.format(path, name))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=parts is None)


def grow_into(model: Model, folder: Path, part: str) -> None:
    """Copy those tensors of a part that a model of another configuration has too.

    part: how their names begin. Weights that see more channels than theirs see the first ones as they did, the others
    with weights of zero.
    """
    import torch
    from safetensors.torch import load_file

    wanted = model.state_dict()
    grown = {}
    for name, tensor in load_file(folder / WEIGHTS_FILE).items():
        if not name.startswith(part) or name not in wanted:
            continue
        whole = wanted[name]
        if tensor.shape != whole.shape:
            wider = tensor.ndim == whole.ndim > 1 and tensor.shape[1] < whole.shape[1]
            if not wider or tensor.shape[:1] + tensor.shape[2:] != whole.shape[:1] + whole.shape[2:]:
                continue
            padded = torch.zeros_like(whole)
            padded[:, : tensor.shape[1]] = tensor.float()
            tensor = padded  # noqa: PLW2901
        grown[name] = tensor.float()
    model.load_state_dict(grown, strict=False)


def save_model(model: Model, folder: Path, card: str | None = None, *, half: bool = True) -> None:
    """Write a checkpoint, each file whole or not at all.

    half: weights in half precision; bases are in float32.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    buffers = {name for name, _ in model.named_buffers()}

    def stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu().contiguous()
        return tensor.half() if half and name not in buffers else tensor.float()

    tensors = {name: stored(name, tensor) for name, tensor in model.state_dict().items()}
    with replacing(folder / WEIGHTS_FILE) as partial:
        save_file(tensors, partial)
    for name, text in ((CONFIG_FILE, json.dumps(to_dict(model.config), indent=2) + "\n"), (CARD_FILE, card)):
        if text is not None:
            write_text(folder / name, text)
