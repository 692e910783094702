"""The first layers of Whisper base's encoder (arXiv 2212.04356), frozen: a window of columns to what is said in it."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from atldiff.audio.whisper import BANDS, STATE, WIDTH

HEADS = 8

WEIGHTS = Path(str(files("atldiff.audio").joinpath("whisper_base"))) / "model.safetensors"


class Attention(nn.Module):
    """Self-attention of eight heads; keys have no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.v_proj = nn.Linear(WIDTH, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, N, 512). Returns the same shape."""
        heads = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """One layer of the encoder; names are those of Hugging Face."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.self_attn_layer_norm = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)
        self.final_layer_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, N, 512). Returns the same shape."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))


class SpeechEncoder(nn.Module):
    """Columns of a window to a state a frame: two convolutions, positions, the first layers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, columns: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Return states (B, F, 1024) float32 of `whisper.log_mel`'s columns (B, 80, 4 F) of windows.

        positions: (B or 1, 2 F, 512) of `whisper.positions`. The number format is that of the weights.
        """
        dtype = self.conv1.weight.dtype
        x = functional.gelu(self.conv1(columns.to(dtype)))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)  # (B, 2 F, 512)
        x = x + positions.to(dtype)
        for layer in self.layers:
            x = layer(x)
        return x.float().reshape(x.shape[0], -1, STATE)


@lru_cache(maxsize=4)
def load_encoder(layers: int, device: torch.device, dtype: torch.dtype) -> SpeechEncoder:
    """Return the frozen encoder with its first `layers` layers, one for all who ask for the same.

    Raises:
        ValueError: more layers than the package brings.
    """
    from safetensors.torch import load_file

    tensors = load_file(WEIGHTS)
    brought = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
    if layers > brought:
        raise ValueError(f"layers: got {layers}, expected 1 to {brought}, as many as the package has of Whisper")
    encoder = SpeechEncoder(layers)
    wanted = encoder.state_dict()
    encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items() if name in wanted})
    return encoder.to(device, dtype).eval().requires_grad_(False)
