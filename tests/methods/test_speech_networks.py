"""The networks that speakers call: what they compute, ONNX Runtime computes of them as well, and so a track."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff.audio.features import log_mel
from atldiff.audio.load import load_audio
from atldiff.config import CompletionConfig, GeneratorConfig, KFLMConfig
from atldiff.landmarks.completion import CompletionGenerator
from atldiff.landmarks.generator import Generator
from atldiff.landmarks.rest import lower_face
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.speaker import CompletionSpeaker
from atldiff.landmarks.stream import whole
from atldiff.methods.atl_published.generator import PublishedGenerator
from atldiff.methods.build import open_speaker
from atldiff.methods.generators import speak
from atldiff.methods.models import speaker_of, speech_networks
from atldiff.torch_networks import TorchNetwork

if TYPE_CHECKING:
    from torch import nn

    from atldiff.methods.models import SpeechGenerator

pytest.importorskip("onnx")
torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEUTRAL = mean_shape().astype(np.float32)
SMALL = {"width": 32, "components": 6}
CONFIGS = {
    "atl, columns": GeneratorConfig(features="mel", members=2, blocks=2, **SMALL),
    "atl, states": GeneratorConfig(features="whisper", members=2, blocks=2, **SMALL),
    "completion, columns": CompletionConfig(features="mel", points="sixty-eight", layers=1, heads=2, **SMALL),
    "completion, states": CompletionConfig(features="whisper", points="dense", layers=2, heads=2, **SMALL),
    "published": KFLMConfig(
        features="log-mel", speech_model="", feature_width=16, feed_forward=16, frames=25, hop_frames=20,
        fusion_width=8, mouth_fusion_width=8, kan_width=8, components=6, residual=True,
    ),
}  # fmt: skip


def made(config: GeneratorConfig | CompletionConfig | KFLMConfig) -> SpeechGenerator:
    """A generator none of whose parts is zero."""
    torch.manual_seed(0)
    match config:
        case GeneratorConfig():
            generator = Generator(config)
        case CompletionConfig():
            generator = CompletionGenerator(config)
        case KFLMConfig():
            generator = PublishedGenerator(config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        generator.basis.normal_(0, 0.02).mul_(torch.from_numpy(lower_face())[:, None])
        for name, buffer in generator.named_buffers():
            if name.endswith(("identity_basis", "state_mean")):
                buffer.normal_(0, 0.1)
            if name.endswith("gain"):
                buffer.uniform_(1.1, 1.5)
    return generator.eval()


class Filmed:
    """A face that was filmed, and moves by its frame number."""

    driven = True

    def seen(self, frames: np.ndarray) -> np.ndarray:
        moved = np.sin(frames[:, None, None] * 0.3 + np.arange(478)[None, :, None]) * 0.02
        return np.repeat(moved, 3, axis=2).astype(np.float32)

    def euler_deg(self, frames: np.ndarray) -> np.ndarray:
        return np.repeat(np.sin(frames * 0.1)[:, None], 3, axis=1) * 4


class Compared:
    """PyTorch's network and the same one in ONNX Runtime, written by the first inputs: what the latter says."""

    def __init__(self, module: nn.Module, path: Path) -> None:
        self._torch, self._module, self._path = TorchNetwork(module, torch.device("cpu")), module, path
        self._session = None
        self.apart = 0.0

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        if self._session is None:
            self._session = self._open(inputs)
        names = [given.name for given in self._session.get_inputs()]
        found = self._session.run(None, dict(zip(names, inputs, strict=True)))
        for own, wanted in zip(found, self._torch(*inputs), strict=True):
            assert own.dtype == np.float32
            assert own.shape == wanted.shape
            self.apart = max(self.apart, float(np.abs(own - wanted).max() / np.abs(wanted).max()))
        return found

    def _open(self, inputs: tuple[np.ndarray, ...]):
        import onnxruntime

        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    self._module, tuple(torch.from_numpy(each) for each in inputs), self._path,
                    opset_version=18, dynamo=False, do_constant_folding=False,
                )  # fmt: skip
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", CONFIGS)
def test_another_runtime_says_the_same(name: str, tmp_path: Path) -> None:
    """Each network by itself, on what a recording gives it, and the displacements that come of all of them."""
    generator = made(CONFIGS[name])
    samples = load_audio(EXAMPLES / "speech.wav").samples[: 50 * 640]
    mel, levels = log_mel(samples)
    ours = speaker_of(generator)
    bases = {"basis": ours.basis.directions, "scale": ours.basis.scale}
    if not isinstance(generator, PublishedGenerator):
        bases |= {name: getattr(generator, name).numpy() for name in ("identity_mean", "identity_basis")}
    networks = {
        part: Compared(module, tmp_path / f"{part}.onnx") for part, module in speech_networks(generator).items()
    }
    theirs = open_speaker(generator.config, bases, networks)  # pyright: ignore[reportArgumentType]
    said, again = (speak(speaker, samples, mel, NEUTRAL, levels[:, 1]) for speaker in (ours, theirs))
    hears = isinstance(generator, PublishedGenerator) or generator.config.features == "whisper"
    assert set(networks) == ({"hearing", "generator"} if hears else {"generator"})
    if isinstance(ours, CompletionSpeaker) and isinstance(theirs, CompletionSpeaker):  # one graph for all that is seen
        sound = (samples, mel, levels[:, 1])
        deaf, blind = ({"seen": Filmed(), "heard": False}, {"seen": None})
        for case in (deaf, blind):
            wanted, found = (whole(speaker.stream(NEUTRAL, **case), *sound) for speaker in (ours, theirs))
            assert np.abs(wanted - found).max() < 1e-4 * np.abs(wanted).max()
    assert {part: network.apart < 1e-4 for part, network in networks.items()} == dict.fromkeys(networks, True)
    assert np.ptp(said, axis=0).max() > 1e-3
    assert np.abs(said - again).max() < 1e-4 * np.abs(said).max()


def test_a_network_that_is_missing_is_named() -> None:
    speaker = speaker_of(made(CONFIGS["atl, states"]))
    bases = {"basis": speaker.basis.directions, "scale": speaker.basis.scale}
    with pytest.raises(KeyError, match="hearing"):
        open_speaker(speaker.config, bases, {"generator": speaker.generator})  # pyright: ignore[reportArgumentType]
