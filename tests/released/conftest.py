from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import nn

torch.set_num_threads(1)

MOUTH = [*range(49, 68), 48]


class Block(nn.Module):
    """A transformer block under the released names."""

    def __init__(self, points: int, heads: int) -> None:
        super().__init__()
        encoder = nn.TransformerEncoderLayer(768, heads, 2048, dropout=0.2)
        self.transformer_encoder = nn.Sequential(
            nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False), nn.Linear(768, 2 * points)
        )
        self.transformer_decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(2 * points, heads, dropout=0.2), 1)
        self.conv = nn.Conv1d(1, 49, 1)

    def forward(self, features: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        return self.transformer_decoder(self.conv(landmarks), self.transformer_encoder(features))


class KanLayer(nn.Module):
    """A KAN layer under the released names whose splines are scipy's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("grid", (torch.arange(-3, 9) * 0.4 - 1).expand(inputs, -1).contiguous())
        self.base_weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.spline_weight = nn.Parameter(0.1 * torch.randn(outputs, inputs, 8))
        self.spline_scaler = nn.Parameter(torch.rand(outputs, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        knots = self.get_buffer("grid")[0].double().numpy()
        columns = [np.nan_to_num(BSpline.basis_element(knots[i : i + 5], extrapolate=False)(x)) for i in range(8)]
        bases = torch.from_numpy(np.stack(columns, -1)).float()
        splines = torch.einsum("...ik,oik,oi->...o", bases, self.spline_weight, self.spline_scaler)
        return nn.functional.silu(x) @ self.base_weight.T + splines


class Kan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([KanLayer(68, 512), KanLayer(512, 68)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](x))


def convolutions(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 1), nn.ReLU(),
        nn.Conv2d(width, 30, 3, padding=1),
    )  # fmt: skip


class ReleasedKFLM(nn.Module):
    """The released landmark module without its speech model, under its names, at its size."""

    def __init__(self) -> None:
        super().__init__()
        self.trans_ct, self.trans_gb, self.trans_gbm = Block(68, 1), Block(68, 2), Block(20, 2)
        self.lstm = nn.LSTM(768, 68, batch_first=True, bidirectional=True)
        self.mouth = nn.LSTM(768, 20, batch_first=True, bidirectional=True)
        self.R1, self.R3 = convolutions(147, 256), convolutions(98, 128)
        self.R2 = nn.Sequential(nn.Conv2d(147, 30, 1))
        self.KAN = Kan()

    def forward(self, features: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """features: (1, 49, 768). landmarks: (1, 2, 68). Returns (1, 30, 2, 68); the emotion is inert for one clip."""
        face, mouth = landmarks.reshape(1, 1, 136), landmarks[:, :, MOUTH].reshape(1, 1, 40)
        paths = self.lstm(features)[0], self.trans_gb(features, face), self.trans_ct(features, face)
        stack = torch.cat(paths, 1).reshape(1, 147, 2, 68)
        lips = torch.cat([self.mouth(features)[0], self.trans_gbm(features, mouth)], 1).reshape(1, 98, 2, 20)
        fused = self.R1(stack) * self.R2(stack)
        fused[..., MOUTH] = self.R3(lips)
        return self.KAN(fused)


@dataclass(frozen=True)
class Authors:
    """Files as the authors published them, of random weights, and the networks that are in them."""

    au2lm: Path
    lm2face: Path
    resnet50: Path
    kflm: ReleasedKFLM
    speech: Any
    resnet: nn.Module
    unet: Any


def small_speech_model() -> Any:
    """wav2vec 2.0 with the released width and one small layer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(num_hidden_layers=1, intermediate_size=32, conv_dim=(8,) * 7)
    return transformers.Wav2Vec2Model(config).eval().requires_grad_(False)


def torchaudio_name(name: str) -> str:
    name = name.replace("parametrizations.weight.original0", "weight_g")
    name = name.replace("parametrizations.weight.original1", "weight_v")
    if name.startswith("feature_projection."):
        return f"encoder.{name}"
    return name.replace("encoder.", "encoder.transformer.", 1) if name.startswith("encoder.") else name


@pytest.fixture(scope="session")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Authors:
    """A fake of the authors' published files."""
    diffusers = pytest.importorskip("diffusers")
    from safetensors.torch import save_file

    from atldiff.methods.atl_published.resnet import ResNet50

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("authors")
    kflm, speech = ReleasedKFLM().eval(), small_speech_model()
    heard = {torchaudio_name(name): tensor for name, tensor in speech.state_dict().items() if "mask" not in name}
    state = {f"w2v.{name}": tensor for name, tensor in heard.items()} | dict(kflm.state_dict())
    torch.save({"epoch": 199, "state_dict": state, "hyper_parameters": {"batch": 1}}, folder / "au2lm.ckpt")

    unet = diffusers.UNet3DConditionModel(
        sample_size=128, in_channels=3, out_channels=3, cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
        block_out_channels=(16, 32), layers_per_block=1, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in unet.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    lm2face = folder / "lm2face"
    unet.save_pretrained(lm2face / "unet")
    diffusers.DDIMScheduler(num_train_timesteps=500, clip_sample_range=1.5).save_pretrained(lm2face / "scheduler")
    index = '{"_class_name": "MyPipeline", "unet": ["diffusers", "UNet3DConditionModel"], "scheduler": ["diffusers", '
    (lm2face / "model_index.json").write_text(index + '"DDIMScheduler"]}')

    resnet = ResNet50().eval()
    for name, tensor in resnet.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    classifier = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    published = {n: t for n, t in resnet.state_dict().items() if not n.endswith("num_batches_tracked")} | classifier
    save_file(published, folder / "resnet50.safetensors")
    return Authors(folder / "au2lm.ckpt", lm2face, folder / "resnet50.safetensors", kflm, speech, resnet, unet)
