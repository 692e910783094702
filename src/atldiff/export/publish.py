"""Make, check and publish: a checkpoint folder with its networks in another runtime, or nothing at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from atldiff import __version__
from atldiff.checkpoint import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    carry_motion,
    load_model,
    motion_of,
    read_config,
)
from atldiff.errors import CheckpointError
from atldiff.export.calibration import seen_by_denoiser
from atldiff.export.graph import require_onnx, write_onnx
from atldiff.export.int8 import quantise, require_quantiser
from atldiff.export.manifest import Export, digests, is_export
from atldiff.export.networks import DENOISER, choose_window, networks_of
from atldiff.export.parity import TOLERANCES, check, measure, random_inputs
from atldiff.export.runtime import SUFFIX, has_bfloat16, open_network, require, write_openvino
from atldiff.files import replacing, sha256

if TYPE_CHECKING:
    from atldiff.export.networks import Network
    from atldiff.export.parity import Parity
    from atldiff.export.runtime import Runtime
    from atldiff.methods.models import Model

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
HELD_OUT_SEED = 1
"""The windows that int8 is measured on; it is calibrated on those of seed 0."""


def export_checkpoint(
    source: Path, folder: Path, runtime: Runtime, *, int8: bool = False, window_frames: int | None = None
) -> Export:
    """Write a checkpoint folder that also holds its networks for a runtime; it appears whole or not at all.

    source: the checkpoint folder. folder: made, or replaced where it is an export already. int8: the denoiser's coarse
    levels in 8 bits. window_frames: frames sampled together, those of the presets when None.

    Raises:
        CheckpointError: not a checkpoint, a network that cannot be exported or differs beyond the tolerance, or a
            folder that is something else. AtlDiffError: a package is missing. ValueError: `window_frames`.
    """
    _check_target(source, folder)
    with replacing(folder) as partial:
        partial.mkdir()
        for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
            if name != CARD_FILE or (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
        carry_motion(motion_of(source), partial)
        export = write_networks(source, partial, runtime, int8=int8, window_frames=window_frames)
    return replace(export, folder=folder)


def write_networks(
    source: Path, folder: Path, runtime: Runtime, *, int8: bool = False, window_frames: int | None = None
) -> Export:
    """Write the networks of a checkpoint and export.json into a folder, once they are measured against PyTorch.

    Raises:
        CheckpointError, AtlDiffError, ValueError: as `export_checkpoint`.
    """
    require(runtime)
    require_onnx()
    if int8:
        require_quantiser()
    sources = digests(source)
    frames = choose_window(read_config(source), window_frames)
    model = load_model(source).requires_grad_(False)
    measured = {
        network.name: _publish(network, folder, runtime, model=model if int8 and network.name == DENOISER else None)
        for network in networks_of(model, frames)
    }
    export = Export(
        folder=folder,
        runtime=runtime,
        int8=int8,
        window_frames=frames,
        sources=sources,
        files={path.name: sha256(path) for path in sorted(folder.iterdir()) if path.stem in measured},
        parity={name: {kind: found.as_dict() for kind, found in kinds.items()} for name, kinds in measured.items()},
        versions={"atldiff": __version__, **{name: _version(name) for name in PACKAGES}},
    )
    export.write()
    return export


def _publish(network: Network, folder: Path, runtime: Runtime, model: Model | None) -> dict[str, Parity]:
    """Write one network and return how close it comes, by what it computes in.

    model: whose own calls the network is quantised and measured on, where it is in 8 bits.
    """
    exact = folder / f"{network.name}.onnx"
    write_onnx(network, exact)
    inputs = random_inputs(network)
    if model is not None:
        frames = inputs[0][0].shape[2]
        quantised = folder / f".{network.name}.int8.onnx"
        quantise(network, exact, quantised, seen_by_denoiser(model, frames))
        quantised.replace(exact)
        inputs = seen_by_denoiser(model, frames, HELD_OUT_SEED)  # 8 bits hold no values beyond the calibrated range
    if runtime == "openvino":
        path = exact.with_suffix(SUFFIX[runtime])
        write_openvino(exact, path)
        exact.unlink()
    else:
        path = exact
    dtypes = [torch.float32]
    if network.name == DENOISER and has_bfloat16(runtime):  # the generator stays in float32
        dtypes.append(torch.bfloat16)
    found = {}
    for dtype in dtypes:
        kind = str(dtype).removeprefix("torch.")
        tolerance = TOLERANCES["int8" if model is not None else kind]
        opened = open_network(path, runtime, network.inputs, dtype=dtype, streams=1)
        found[kind] = measure(network, opened, inputs, tolerance)
        check(network.name, f"int8 and {kind}" if model is not None else kind, found[kind])
    return found


def _check_target(source: Path, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"export folder {folder}: got a file, expected a folder to be made; choose another")
    if source.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"export folder {folder}: holds the checkpoint it would be made of; choose another")
    if folder.is_dir() and any(folder.iterdir()) and not is_export(folder):
        raise CheckpointError(
            f"export folder {folder}: exists and holds other files than an export; choose another or empty it"
        )
    if not folder.parent.is_dir():
        raise CheckpointError(f"export folder {folder}: folder {folder.parent} does not exist; create it first")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
