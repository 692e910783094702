"""The networks of every renderer as they are exported: in ONNX Runtime they say what PyTorch does, frames included."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff.config import SampleConfig
from atldiff.landmarks.geometry import from_canonical, rotation_from_euler
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.build import open_painter
from atldiff.torch_networks import torch_networks
from atldiff.types import Portrait
from atldiff.video.patch import unpatched

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from atldiff.methods.models import Model
    from atldiff.networks import Network

torch.set_num_threads(1)
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

NAMES = {
    "atl-diff": {"denoiser"},
    "atl-diff-paper": {"describe", "denoiser"},
    "difftalker": {"encode", "decode", "steer", "denoiser"},
    "lmdiff": {"encode", "decode", "steer", "denoiser"},
}
SAMPLING = SampleConfig(steps=2, window_frames=8, shared_frames=2)
TOLERANCE = 1e-4


class Noted:
    """A network, and what it was called with first."""

    def __init__(self, network: Network) -> None:
        self.network, self.given, self.said = network, (), []

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        said = self.network(*inputs)
        if not self.said:
            self.given, self.said = tuple(x.copy() for x in inputs), [x.copy() for x in said]
        return said


class OnnxNetwork:
    """A module's export at the shapes of some inputs."""

    def __init__(self, module: nn.Module, inputs: tuple[np.ndarray, ...], path: Path) -> None:
        tensors = tuple(torch.from_numpy(x) for x in inputs)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns of every shape that it takes for fixed
            torch.onnx.export(
                module, tensors, path, dynamo=False, opset_version=18, do_constant_folding=False,
                input_names=[f"input_{index}" for index in range(len(inputs))],
            )  # fmt: skip
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [f"input_{index}" for index in range(len(inputs))]
        self.takes = {node.name for node in self._session.get_inputs()}

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        given = dict(zip(self._names, inputs, strict=True))
        return self._session.run(None, {name: given[name] for name in self.takes})


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    """A face of 50 px between the eyes in a picture of noise around it."""
    rotation = rotation_from_euler(np.array(5.0), np.array(-5.0), np.array(10.0))
    points = from_canonical(mean_shape(), rotation, np.array(50.0), np.array([200.0, 160.0, 0.0]))
    random = np.random.default_rng(0)
    return Portrait(random.integers(0, 256, (360, 400, 3), np.uint8), points.astype(np.float32))


def test_exported_they_say_the_same_and_make_the_same_frames(
    random_any_model: Model, portrait: Portrait, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    renderer = random_any_model.renderer
    method = request.node.callspec.params["random_any_model"]
    modules = renderer.networks()
    assert set(modules) == NAMES[method.removesuffix("-whisper")]
    track = np.repeat(portrait.landmarks[None], 8, 0)
    track[:, 14, 1] += 4 * np.sin(np.arange(8) / 3).astype(np.float32)

    def frames(networks: dict[str, Noted] | dict[str, OnnxNetwork]) -> np.ndarray:
        stream = open_painter(renderer.config, networks).open(portrait, SAMPLING, 0)
        return np.stack([unpatched(frame) for frame in (*stream.push(track), *stream.flush())])

    noted = {name: Noted(network) for name, network in torch_networks(renderer).items()}
    wanted = frames(noted)
    modes = {name: module.training for name, module in renderer.named_modules()}
    exported = {
        name: OnnxNetwork(modules[name], called.given, tmp_path / f"{name}.onnx") for name, called in noted.items()
    }
    assert {name: module.training for name, module in renderer.named_modules()} == modes
    for name, called in noted.items():
        said = exported[name](*called.given)
        assert len(said) == len(called.said), name
        for one, other in zip(said, called.said, strict=True):
            assert one.dtype == other.dtype == np.float32, name
            assert np.linalg.norm(one - other) <= TOLERANCE * np.linalg.norm(other), name
    made = frames(exported)
    assert np.abs(made.astype(int) - wanted).max() <= 1


def test_their_parameters_are_the_renderers_own(random_any_model: Model) -> None:
    """Found by identity: what is exported can be filled from the checkpoint by the names there."""
    renderer = random_any_model.renderer
    owned = {id(tensor) for tensor in [*renderer.parameters(), *renderer.buffers()]}
    held = {
        id(tensor) for module in renderer.networks().values() for tensor in [*module.parameters(), *module.buffers()]
    }
    assert held == owned
