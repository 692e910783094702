"""The models of the methods side by side, as PyTorch trains and computes them. One arm a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, overload

import torch

from atldiff.audio.whisper import Listener
from atldiff.audio.whisper_encoder import load_encoder
from atldiff.config import ATLConfig, DiffTalkerConfig, LMDiffConfig, PublishedConfig
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.landmarks.generator import Generator
from atldiff.methods.atl.network import ATLModel, Renderer
from atldiff.methods.atl_published.generator import Features, PublishedGenerator
from atldiff.methods.atl_published.network import PublishedModel, PublishedRenderer
from atldiff.methods.build import open_painter, open_speaker
from atldiff.methods.difftalker.network import DiffTalkerModel, LatentRenderer
from atldiff.methods.lmdiff.network import LMDiffModel, TalkRenderer
from atldiff.torch_networks import TorchNetwork, torch_networks

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from atldiff.config import MethodConfig
    from atldiff.landmarks.speaker import CompletionSpeaker, GeneratorSpeaker
    from atldiff.methods.atl.painter import ATLPainter
    from atldiff.methods.atl_published.painter import PublishedPainter
    from atldiff.methods.atl_published.speaker import PublishedSpeaker
    from atldiff.methods.build import Painter
    from atldiff.methods.difftalker.painter import DiffTalkerPainter
    from atldiff.methods.generators import Speaker
    from atldiff.methods.lmdiff.painter import LMDiffPainter
    from atldiff.methods.pair import Pair

Model: TypeAlias = ATLModel | PublishedModel | DiffTalkerModel | LMDiffModel
SpeechGenerator: TypeAlias = Generator | PublishedGenerator | CompletionGenerator
FaceRenderer: TypeAlias = Renderer | PublishedRenderer | LatentRenderer | TalkRenderer


def build(config: MethodConfig) -> Model:
    """Return the model that a configuration describes, with fresh weights."""
    match config:
        case ATLConfig():
            return ATLModel(config)
        case PublishedConfig():
            return PublishedModel(config)
        case DiffTalkerConfig():
            return DiffTalkerModel(config)
        case LMDiffConfig():
            return LMDiffModel(config)


def speech_networks(generator: SpeechGenerator, dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """Return the networks that a generator's speaker calls, as `open_speaker` names them.

    dtype: what `hearing` computes in where that is Whisper's encoder; the generator is tiny, and its landmarks are a
    product: it stays in float32.
    """
    if isinstance(generator, PublishedGenerator):
        hearing = generator.listen if generator.config.features == "log-mel" else Features(generator)
        return {"hearing": hearing, "generator": generator.kflm}
    networks: dict[str, nn.Module] = {"generator": generator}
    if generator.config.features == "whisper":
        networks["hearing"] = load_encoder(generator.config.whisper_layers, generator.basis.device, dtype)
    return networks


def buffers_of(generator: SpeechGenerator) -> dict[str, np.ndarray]:
    """Return what a generator holds beside its networks' weights, as `open_speaker` takes it: copies, float32."""
    return {name: buffer.float().cpu().numpy().copy() for name, buffer in generator.named_buffers(recurse=False)}


def listener_of(generator: Generator | CompletionGenerator, dtype: torch.dtype) -> Listener:
    """Return what a generator of features `whisper` hears samples by, on its device and in a number format."""
    device = generator.basis.device
    return Listener(TorchNetwork(load_encoder(generator.config.whisper_layers, device, dtype), device))


@overload
def speaker_of(generator: Generator, dtype: torch.dtype = ...) -> GeneratorSpeaker: ...
@overload
def speaker_of(generator: CompletionGenerator, dtype: torch.dtype = ...) -> CompletionSpeaker: ...
@overload
def speaker_of(generator: PublishedGenerator, dtype: torch.dtype = ...) -> PublishedSpeaker: ...
def speaker_of(
    generator: SpeechGenerator, dtype: torch.dtype = torch.float32
) -> GeneratorSpeaker | CompletionSpeaker | PublishedSpeaker:
    """Return the speaker of a generator, on its device.

    It computes with the weights as they are when it is heard, on the bases as they are now. dtype: as in
    `speech_networks`.
    """
    device = generator.basis.device
    networks = {name: TorchNetwork(each, device) for name, each in speech_networks(generator, dtype).items()}
    return open_speaker(generator.config, buffers_of(generator), networks)


@overload
def painter_of(renderer: Renderer) -> ATLPainter: ...
@overload
def painter_of(renderer: PublishedRenderer) -> PublishedPainter: ...
@overload
def painter_of(renderer: LatentRenderer) -> DiffTalkerPainter: ...
@overload
def painter_of(renderer: TalkRenderer) -> LMDiffPainter: ...
def painter_of(renderer: FaceRenderer) -> ATLPainter | PublishedPainter | DiffTalkerPainter | LMDiffPainter:
    """Return the painter of a renderer, on its device; it computes with the weights as they are when it paints."""
    return open_painter(renderer.config, torch_networks(renderer, renderer.device))


def at_work(model: Model | Pair, device: str, dtype: str) -> tuple[Speaker, Painter]:
    """Return a model's speaker and painter, its modules moved where they compute; their weights get that format.

    device: `cpu`, `cuda` or `cuda:N`. dtype: `float32` or `bfloat16`, of the renderer and of what a generator hears by;
    the generator stays in float32: it is tiny, and its landmarks are a product.
    """
    where, number = torch.device(device), getattr(torch, dtype)
    model.eval().requires_grad_(False).to(where)
    return speaker_of(model.generator, number), painter_of(_formatted(model.renderer, number))


def renderer_networks(model: Model, dtype: str) -> dict[str, TorchNetwork]:
    """Return the networks of a model's renderer on the CPU, in a number format."""
    return torch_networks(_formatted(model.eval().requires_grad_(False).renderer, getattr(torch, dtype)))


def _formatted(renderer: FaceRenderer, dtype: torch.dtype) -> FaceRenderer:
    renderer.to(dtype)
    if all(weight.dim() < 5 for weight in renderer.parameters()):  # 3-D convolutions have a layout of their own
        renderer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return renderer
