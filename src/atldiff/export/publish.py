"""Make, check and publish: a checkpoint folder with graphs of its networks beside the weights, or nothing at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING

from atldiff import __version__
from atldiff.checkpoint import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, carry_motion, load_model, motion_of
from atldiff.errors import CheckpointError
from atldiff.export.graph import require_onnx, write_graph
from atldiff.export.int8 import quantise
from atldiff.export.parity import LEAST_CHANGE, TOLERANCES, check, measure
from atldiff.export.record import recorded
from atldiff.files import replacing
from atldiff.methods.models import speech_networks
from atldiff.runtime.choose import RUNTIMES, is_installed, open_network
from atldiff.runtime.graphs import GRAPHS_FILE, Graph, Graphs, has_graphs, sources_of
from atldiff.torch_networks import TorchNetwork

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from atldiff.methods.models import Model

    Call = tuple[np.ndarray, ...]

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
HELD_OUT_SEED = 1
"""The calls that parity is measured on; graphs are traced, and 8 bits calibrated, on those of seed 0."""
MEASURED = 4
"""Calls of each network that parity is measured on."""
DENOISER = "denoiser"


def export_checkpoint(source: Path, folder: Path, *, int8: bool = False) -> Graphs:
    """Write a checkpoint folder that also holds graphs of its networks; it appears whole or not at all.

    source: the checkpoint folder. folder: made, or replaced where it is such a folder already. int8: the denoiser
    in 8 bits as well, which backends take where the processor has products for them.

    Raises:
        CheckpointError: not a checkpoint, a network that cannot be exported or differs beyond the tolerance, or a
            folder that is something else. AtlDiffError: a package is missing.
    """
    _check_target(source, folder)
    with replacing(folder) as partial:
        partial.mkdir()
        for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
            if name != CARD_FILE or (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
        carry_motion(motion_of(source), partial)
        graphs = write_graphs(partial, int8=int8)
    networks, small = (
        {name: replace(graph, file=folder / graph.file.name) for name, graph in made.items()}
        for made in (graphs.networks, graphs.int8)
    )
    return replace(graphs, folder=folder, networks=networks, int8=small)


def write_graphs(folder: Path, *, int8: bool = False) -> Graphs:
    """Write the graphs of a checkpoint's networks into its folder, and graphs.json once they agree with PyTorch.

    Raises:
        CheckpointError, AtlDiffError: as `export_checkpoint`.
    """
    require_onnx()
    sources = sources_of(folder, int8=int8)
    model = load_model(folder).requires_grad_(False)
    modules = networks_of(model)
    keys = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    calls, tried = recorded(model, thorough=int8), recorded(model, HELD_OUT_SEED, thorough=int8)
    graphs = {
        name: write_graph(name, module, calls[name], folder / f"{name}.onnx", folder / WEIGHTS_FILE, keys)
        for name, module in modules.items()
    }
    small = {DENOISER: quantise(graphs[DENOISER], modules[DENOISER], calls[DENOISER])} if int8 else {}
    parity = {name: _parity(graph, modules[name], _spread(tried[name])) for name, graph in graphs.items()}
    parity |= {
        graph.file.stem: _parity(graph, modules[name], _spread(tried[name]), int8=True) for name, graph in small.items()
    }
    versions = {"atldiff": __version__, **{name: _version(name) for name in PACKAGES}}
    made = Graphs(folder=folder, networks=graphs, int8=small, sources=sources, parity=parity, versions=versions)
    made.write()
    return made


def networks_of(model: Model) -> dict[str, nn.Module]:
    """Return the networks of a checkpoint by name: those whose weights it holds."""
    own = {id(tensor) for tensor in model.parameters()}
    both = {**speech_networks(model.generator), **model.renderer.networks()}
    return {  # Whisper's encoder is the package's, wav2vec 2.0 a model of its own
        name: module for name, module in both.items() if all(id(tensor) in own for tensor in module.parameters())
    }


def _parity(
    graph: Graph, module: nn.Module, calls: list[Call], *, int8: bool = False
) -> dict[str, dict[str, float | int]]:
    """Return how close a network comes in each runtime that is installed, by what it computes in."""
    import torch

    exact, found = TorchNetwork(module, torch.device("cpu")), {}
    for runtime in RUNTIMES:
        if not is_installed(runtime):
            continue
        tolerance = TOLERANCES["int8" if int8 else "float32"]
        opened, least = open_network(graph, runtime, half=False, streams=1), 1.0 if int8 else LEAST_CHANGE
        same = measure(exact, opened, calls, tolerance, graph.file.stem, least)
        check(graph.file.stem, f"{runtime}{' int8' if int8 else ''}", same)
        found[runtime] = same.as_dict()
    return found


def _spread(calls: list[Call]) -> list[Call]:
    """Return a few calls from all of them, the first and the last among them."""
    if len(calls) <= MEASURED:
        return calls
    return [calls[round(index * (len(calls) - 1) / (MEASURED - 1))] for index in range(MEASURED)]


def _check_target(source: Path, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"export folder {folder}: got a file, expected a folder to be made; choose another")
    if source.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"export folder {folder}: holds the checkpoint it would be made of; choose another")
    if folder.is_dir() and any(folder.iterdir()) and not has_graphs(folder) and not (folder / "export.json").is_file():
        raise CheckpointError(
            f"export folder {folder}: exists and holds no {GRAPHS_FILE} but other files; choose another or empty it"
        )
    if not folder.parent.is_dir():
        raise CheckpointError(f"export folder {folder}: folder {folder.parent} does not exist; create it first")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
