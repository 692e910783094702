from __future__ import annotations

import re

import pytest
import torch

from atldiff.methods.atl_published.resnet import ResNet50, tokens

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> ResNet50:
    """Random weights whose running statistics matter too."""
    torch.manual_seed(0)
    network = ResNet50()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif re.search(r"(bn\d|downsample\.1)\.(weight|bias)$", name):
            tensor.uniform_(0.2, 0.8)
    return network.eval()


def test_it_has_torchvisions_tensors(network: ResNet50) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2048 * 1000 - 1000  # torchvision's, without fc
    assert len(shapes) == 318
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.num_batches_tracked"] == ()
    assert shapes["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.2.bn3.running_var"] == (2048,)
    assert "layer2.1.downsample.0.weight" not in shapes


def name_in_transformers(name: str) -> str:
    part = {"conv": "convolution", "bn": "normalization"}
    if stem := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"embedder.embedder.{part[stem[1]]}.{stem[2]}"
    if shortcut := re.fullmatch(r"layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)", name):
        kind = "convolution" if shortcut[3] == "0" else "normalization"
        return f"encoder.stages.{int(shortcut[1]) - 1}.layers.{shortcut[2]}.shortcut.{kind}.{shortcut[4]}"
    inner = re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn)(\d)\.(\w+)", name)
    assert inner
    layer = f"encoder.stages.{int(inner[1]) - 1}.layers.{inner[2]}.layer.{int(inner[4]) - 1}"
    return f"{layer}.{part[inner[3]]}.{inner[5]}"


def test_it_computes_what_transformers_does(network: ResNet50) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ResNetModel(transformers.ResNetConfig()).eval()
    theirs.load_state_dict({name_in_transformers(name): tensor for name, tensor in network.state_dict().items()})
    images = torch.rand(2, 3, 96, 128)
    with torch.inference_mode():
        ours, wanted = network(images), theirs(images).pooler_output.flatten(1)
    assert ours.shape == (2, 2048)
    assert wanted.std() > 1e-3
    assert (ours - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_tokens_are_runs_of_neighbouring_features() -> None:
    features = torch.arange(2 * 2048.0).reshape(2, 2048)
    cut = tokens(features)
    assert cut.shape == (2, 64, 32)
    assert torch.equal(cut[1, 3], features[1, 96:128])
