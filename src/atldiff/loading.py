"""A checkpoint at work: its generator as a speaker and its renderer as a painter, over what computes networks here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

from atldiff import checkpoint
from atldiff.audio.whisper import TOKENS_PER_FRAME, hearing_graph
from atldiff.config import CompletionConfig, GeneratorConfig, KFLMConfig, sampling_presets
from atldiff.errors import AtlDiffError
from atldiff.export.choose import find_graphs
from atldiff.landmarks.stream import BLOCK_FRAMES
from atldiff.machine import computing_threads, give_back_memory
from atldiff.methods.build import open_painter, open_speaker
from atldiff.runtime.choose import Compute, choose, open_network
from atldiff.runtime.graphs import has_graphs, read_graphs
from atldiff.timebase import COLUMNS_PER_FRAME
from atldiff.workers import MOST, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from atldiff.methods.build import Painter
    from atldiff.methods.generators import Speaker
    from atldiff.methods.models import Model
    from atldiff.methods.pair import Pair
    from atldiff.networks import Network
    from atldiff.runtime.graphs import Graphs

SPEECH = ("hearing", "generator")
"""The networks of a generator; all others are a renderer's."""
GeneratorOptions: TypeAlias = GeneratorConfig | CompletionConfig | KFLMConfig


@dataclass(frozen=True, slots=True)
class Loaded:
    """The two stages of a checkpoint, or of two.

    live: the painter for windows that come one by one, each of which has all cores; None where it is the same.
    prepare_live: opens its networks, in a thread. model: the modules behind them, where PyTorch computes. paired: the
    stages are of two checkpoints.
    """

    speaker: Speaker
    painter: Painter
    compute: Compute
    live: Painter | None = None
    prepare_live: Callable[[], None] | None = None
    model: Model | Pair | None = None
    paired: bool = False


def load(speaks: Path, renders: Path, *, backend: str = "auto", device: str = "auto", dtype: str = "auto") -> Loaded:
    """Load the generator of one checkpoint folder and the renderer of another, or of the same.

    backend, device, dtype: as for `runtime.choose.choose`.

    Raises:
        CheckpointError: not a checkpoint of ours. ValueError: an unknown backend, device or dtype, or a backend that
        cannot do what was asked for. AtlDiffError: the backend's package is missing.
    """
    folders = {speaks, renders}
    configs = {folder: checkpoint.read_config(folder) for folder in folders}
    graphs: dict[Path, Graphs] = {}
    if backend != "torch" and all(has_graphs(folder) for folder in folders):
        graphs = {folder: read_graphs(folder) for folder in folders}
    int8 = bool(graphs) and dtype in ("auto", "int8") and graphs[renders].has_int8()
    compute = choose(backend, device, dtype, graphs=bool(graphs), int8=int8)
    if compute.backend == "torch":
        return of_model(checkpoint.load_stages(speaks, renders), compute)
    graphs = graphs or {folder: find_graphs(folder) for folder in folders}
    generator = configs[speaks].generator
    threads = min(MOST, computing_threads())
    heard = networks_of(graphs[speaks], compute, threads=threads, exact=True)
    if not isinstance(generator, KFLMConfig) and generator.features == "whisper":
        half = compute.dtype != "float32"
        graph = hearing_graph(generator.whisper_layers)
        heard["hearing"] = open_network(graph, compute.backend, half=half, streams=1, threads=threads)
    speaker = open_speaker(generator, checkpoint.read_buffers(speaks, "generator"), heard)
    networks = networks_of(graphs[renders], compute, streams=threads)
    painter = open_painter(configs[renders].renderer, networks)
    one_by_one = networks_of(graphs[renders], compute, threads=threads) if threads > 1 else networks
    live = open_painter(configs[renders].renderer, one_by_one)
    called = {**networks, **{name: heard[name] for name in SPEECH if name in heard}}
    window_frames = sampling_presets(configs[renders].renderer)["balanced"].window_frames
    _open_ahead(called, generator, window_frames)
    painting = {name: network for name, network in one_by_one.items() if name not in SPEECH}
    ahead = partial(_open_ahead, painting, generator, window_frames)
    return Loaded(speaker, painter, compute, live, ahead, paired=speaks != renders)


def _open_ahead(networks: Mapping[str, Network], generator: GeneratorOptions, window_frames: int) -> None:
    """Open networks for the lengths that they will be called with, in a thread, while portrait and sound are read.

    What fails here fails again when it is called, where somebody hears of it.
    """
    frames = 0
    if not isinstance(generator, KFLMConfig):
        frames = generator.context_frames + BLOCK_FRAMES + generator.lookahead_frames

    def open_all() -> None:
        for name, network in networks.items():
            words = sorted(network.graph.words)  # pyright: ignore[reportAttributeAccessIssue]
            lengths = [frames * COLUMNS_PER_FRAME, frames * TOKENS_PER_FRAME] if name == "hearing" else [window_frames]
            if len(words) in (0, len(lengths)):
                with suppress(AtlDiffError):
                    network.open(dict(zip(words, lengths, strict=False)))  # pyright: ignore[reportAttributeAccessIssue]
        give_back_memory()

    Thread(target=open_all, name="atldiff-open").start()


def workers_for(compute: Compute) -> Workers:
    """Return threads for what computes: on the CPU one for each that may compute at once, on a GPU a single one."""
    if compute.backend != "torch":
        return Workers(computing_threads())
    from atldiff.devices import choose_device
    from atldiff.torch_networks import torch_workers

    return torch_workers(choose_device(compute.device))


def of_model(model: Model | Pair, compute: Compute) -> Loaded:
    """Return the stages of a model of PyTorch, moved where it computes; its renderer's weights get that format."""
    from atldiff.methods.models import at_work

    speaker, painter = at_work(model, compute.device, compute.dtype)
    return Loaded(speaker, painter, compute, model=model, paired=not hasattr(model, "config"))


def networks_of(
    graphs: Graphs, compute: Compute, *, streams: int = 1, threads: int = 1, exact: bool = False
) -> dict[str, Network]:
    """Return the networks of a checkpoint by name, in another runtime than PyTorch.

    streams: calls that may run at once. threads: cores that they share. exact: in float32: landmarks are a product, and
    what makes them is small.
    """
    half = compute.dtype != "float32" and not exact  # with 8 bits, of what is not in them
    chosen = graphs.networks | (graphs.int8 if compute.dtype == "int8" and not exact else {})
    return {
        name: open_network(graph, compute.backend, half=half, streams=streams, threads=threads)
        for name, graph in chosen.items()
    }
