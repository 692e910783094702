"""Where the weights of the ruler's networks come from, and how they are read: never as a free pickle."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atldiff.errors import CheckpointError
from atldiff.hub import HubError, fetch_file

if TYPE_CHECKING:
    from torch import nn

_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^@:]+\.\w+)(?:@(?P<revision>[\w./-]+))?")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published file of weights.

    kind: what it is for, as errors name it. file: its name. source: what `find` takes, or a URL to download by hand.
    origin: where its authors put it. sha256: how its digest begins, empty where we have not seen it.
    licence: in words, as far as it is stated.
    """

    kind: str
    file: str
    source: str
    origin: str
    licence: str
    sha256: str = ""

    def __str__(self) -> str:
        return self.source


INCEPTION = Published(
    kind="Inception",
    file="pt_inception-2015-12-05-6726825d.pth",
    source="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    origin="http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz",
    licence="Apache-2.0; trained on ImageNet",
    sha256="6726825d",
)
SYNCNET = Published(
    kind="SyncNet",
    file="syncnet_v2.model",
    source="ByteDance/LatentSync-1.6/auxiliary/syncnet_v2.model",
    origin="http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
    licence="research; see https://www.robots.ox.ac.uk/~vgg/software/lipsync",
)
SYNCNET_MIRROR = Published(
    kind="SyncNet",
    file="syncnet_v2.model",
    source="lithiumice/syncnet/syncnet_v2.model",
    origin=SYNCNET.origin,
    licence=SYNCNET.licence,
)
ALEXNET = Published(
    kind="AlexNet",
    file="alexnet-owt-7be5be79.pth",
    source="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    origin="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    licence="BSD-3-Clause (torchvision); trained on ImageNet",
    sha256="7be5be79",
)
"""The convolutions of LPIPS; its linear layers (BSD-2-Clause) come with torchmetrics."""
SFACE_WEIGHTS = Published(
    kind="face embedder",
    file="face_recognition_sface_2021dec.onnx",
    source="opencv/face_recognition_sface/face_recognition_sface_2021dec.onnx",
    origin="https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface",
    licence="Apache-2.0",
)


def find(source: str | os.PathLike[str], kind: str) -> Path:
    """Return the local path of a weights file, fetching it from the hub where `source` is a hub reference.

    Args:
        source: a file, or `owner/name/path/in/repo.ext`, with `@revision` at its end if a certain one is wanted.
        kind: what the weights are for, as the error says it.

    Raises:
        CheckpointError: there is no such file, the reference has another form, or the hub did not give it.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    text = os.fspath(source)
    expected = "expected a local file or a hub reference such as owner/name/path/in/repo.ext"
    if "://" in text:
        raise CheckpointError(f"{kind} weights {text}: got a URL, {expected}; download it and pass the file")
    match = _HUB_FILE.fullmatch(text)
    if match is None or path.is_dir() or text.startswith((".", "~")):
        raise CheckpointError(f"{kind} weights {text}: {'a folder' if path.is_dir() else 'no such file'}; {expected}")

    try:
        return fetch_file(match["repo"], f"{kind} weights {text}", match["file"], match["revision"])
    except HubError as error:
        raise CheckpointError(
            f"{kind} weights {text}: neither a local file nor fetched from the hub ({error}); {expected}"
        ) from None


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the named tensors of a file, on the CPU: .safetensors, or a torch file that holds nothing else.

    Raises:
        CheckpointError: not such a file. A pickled object is refused, never run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights {path}: no such file; expected .safetensors or a torch file of tensors")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    convert = "save its state_dict() as .safetensors where you trust it, and pass that"
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, value and runtime errors of a file that is not ours
        if "TorchScript" in str(error):
            raise CheckpointError(f"weights {path}: got a TorchScript archive, expected tensors; {convert}") from None
        name = re.search(r"(?:Unsupported (?:global|class)[^A-Za-z]*(?:GLOBAL)?|GLOBAL)\s*([\w.]+)", str(error))
        if name:
            raise CheckpointError(
                f"weights {path}: got a pickled {name[1]} (a whole module or other objects), expected only named "
                f"tensors; {convert}"
            ) from None
        raise CheckpointError(
            f"weights {path}: not a file of tensors ({_first_line(error)}); expected .safetensors or a torch file"
        ) from None
    if not isinstance(held, dict) or not held or not all(torch.is_tensor(value) for value in held.values()):
        raise CheckpointError(f"weights {path}: got {_contents(held)}, expected only named tensors; {convert}")
    return dict(held)  # a plain dict: torch then fills in the batch counters that old files lack


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"weights {path}: not a safetensors file ({_first_line(error)})") from None


def fill(network: nn.Module, tensors: dict[str, torch.Tensor], kind: str, path: str | os.PathLike[str]) -> None:
    """Copy tensors into a network strictly and freeze it in evaluation mode.

    Batch normalisation's counters may be missing, as in files of old torch versions; evaluation does not read them.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or not finite; it is named.
    """
    wanted = network.state_dict()
    needed = {name for name in wanted if not name.endswith(_COUNTER)}
    for fault, names in (("missing", needed - tensors.keys()), ("unknown", tensors.keys() - wanted.keys())):
        if names:
            raise CheckpointError(
                f"{kind} weights {path}: {fault} tensor {min(names)!r} ({len(names)} in all); expected exactly the "
                f"{len(needed)} tensors of the published file"
            )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{kind} weights {path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(wanted[name].shape)}; another network's file?"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{kind} weights {path}: tensor {name!r} holds NaN or infinity; the file is damaged")
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)


def _contents(held: object) -> str:
    if not isinstance(held, dict):
        return f"a {type(held).__name__}"
    others = [f"{name!r} is a {type(value).__name__}" for name, value in held.items() if not torch.is_tensor(value)]
    return f"more than tensors ({others[0]})" if others else "nothing"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
