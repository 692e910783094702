"""Write the graphs of Whisper's encoder that ship with the package: `python -m atldiff.export.hearing`."""

from __future__ import annotations

import json

import numpy as np
import torch

from atldiff.audio.whisper import BANDS, FOLDER, WIDTH
from atldiff.audio.whisper_encoder import WEIGHTS, load_encoder
from atldiff.export.graph import write_graph
from atldiff.export.parity import TOLERANCES, check, measure
from atldiff.files import write_text
from atldiff.runtime.choose import RUNTIMES, is_installed, open_network
from atldiff.runtime.graphs import GRAPHS_FILE
from atldiff.torch_networks import TorchNetwork

LAYERS = (1, 2)
COLUMNS = (112, 88)
"""Two lengths of windows, so that any is taken."""


def main() -> None:
    """Write a graph for each number of layers, once it agrees with PyTorch."""
    random, told = np.random.default_rng(0), {}
    calls = [
        tuple(random.standard_normal(shape).astype(np.float32) for shape in ((1, BANDS, n), (1, n // 2, WIDTH)))
        for n in COLUMNS
    ]
    for layers in LAYERS:
        encoder = load_encoder(layers, torch.device("cpu"), torch.float32)
        keys = {id(tensor): name for name, tensor in encoder.named_parameters()}
        name = f"hearing{layers}"
        graph = write_graph(name, encoder, calls, FOLDER / f"{name}.onnx", WEIGHTS, keys)
        for runtime in filter(is_installed, RUNTIMES):
            opened = open_network(graph, runtime, half=False, streams=1)
            same = measure(TorchNetwork(encoder, torch.device("cpu")), opened, calls, TOLERANCES["float32"], name)
            check(name, runtime, same)
            print(f"{name}, {runtime}: {same.relative:.1e}")  # noqa: T201 - what the command says
        told[str(layers)] = graph.as_dict()
    write_text(FOLDER / GRAPHS_FILE, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
