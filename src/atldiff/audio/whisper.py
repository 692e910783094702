"""The first layers of Whisper base's encoder (arXiv 2212.04356), frozen: a window of samples to what is said in it.

Whisper was trained on the world's voices, so its states tell strangers' sounds better than log-mel columns do. Windows
have one length, fixed by whoever listens, and are heard each by itself: so a stream hears exactly what a file gives.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from atldiff.audio.features import triangles
from atldiff.timebase import SAMPLES_PER_FRAME

WIDTH = 512
HEADS = 8
TOKENS_PER_FRAME = 2
STATE = WIDTH * TOKENS_PER_FRAME
"""Numbers a frame: the states of its two tokens side by side."""

WEIGHTS = Path(str(files("atldiff.audio").joinpath("whisper_base"))) / "model.safetensors"

_BANDS, _FFT, _HOP = 80, 400, 160
_LOUD_DB = -14.0
"""What a window's loudest peak is brought to, in dB re full scale."""
_LEAST_GAIN_DB, _MOST_GAIN_DB = -20.0, 70.0
"""The rounding of 16 bits, at -101 dB, stays 17 dB below speech."""
_BREAK_HZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27
"""Slaney's mel scale: linear up to 1 kHz, 27 steps to a factor of 6.4 above."""


def gain_of(peaks: np.ndarray) -> np.float32:
    """Return the factor that brings a window, whose columns have running peaks (C,) in dB, to the level that is heard.

    The loudest of them counts: samples of one window are never moved against one another.
    """
    return np.float32(10 ** (np.clip(_LOUD_DB - float(np.max(peaks)), _LEAST_GAIN_DB, _MOST_GAIN_DB) / 20))


def mel_filters() -> np.ndarray:
    """Return Whisper's mel filters (80, 201) float32: triangles of equal area on Slaney's scale, 0 to 8 kHz."""
    top = _BREAK_MEL + np.log(8000.0 / _BREAK_HZ) / _LOG_STEP
    mels = np.linspace(0.0, top, _BANDS + 2)
    linear = mels * _BREAK_HZ / _BREAK_MEL
    edges = np.where(mels < _BREAK_MEL, linear, _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL)))
    bins = np.linspace(0.0, 8000.0, _FFT // 2 + 1)
    return (triangles(edges, bins) * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def positions(tokens: int) -> torch.Tensor:
    """Return the sinusoids (tokens, 512) that tell a window's tokens apart."""
    half = WIDTH // 2
    rates = torch.exp(-np.log(10_000.0) / (half - 1) * torch.arange(half))
    angles = torch.arange(tokens)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


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
    """Samples of a window to a state a frame: log-mel, two convolutions, positions, the first layers."""

    filters: torch.Tensor
    taper: torch.Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(_BANDS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)
        self.register_buffer("taper", torch.hann_window(_FFT), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; the log-mel columns are made in float32."""
        return self.conv1.weight.dtype

    def compute_in(self, dtype: torch.dtype) -> SpeechEncoder:
        """Return itself, with its weights in a dtype."""
        for part in (self.conv1, self.conv2, self.layers):
            part.to(dtype)
        return self

    def log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """Return columns (B, 80, N / 160), about -1 to 1, of windows of samples (B, N) float32."""
        mirrored = functional.pad(samples[:, None], (_FFT // 2, _FFT // 2), mode="reflect")[:, 0]
        views = mirrored.unfold(1, _FFT, _HOP)[:, :-1]  # (B, C, 400)
        power = torch.fft.rfft(views * self.taper, dim=2).abs().square()  # (B, C, 201)
        levels = (power @ self.filters.T).clamp_min(1e-10).log10()
        levels = torch.maximum(levels, levels.amax((1, 2), keepdim=True) - 8)
        return ((levels + 4) / 4).transpose(1, 2)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return states (B, F, 1024) float32 of windows of samples (B, 640 F) float32 at 16 kHz, made audible."""
        frames = samples.shape[1] // SAMPLES_PER_FRAME
        x = functional.gelu(self.conv1(self.log_mel(samples).to(self.dtype)))
        x = functional.gelu(self.conv2(x)).transpose(1, 2)  # (B, 2 F, 512)
        x = x + positions(x.shape[1]).to(x)
        for layer in self.layers:
            x = layer(x)
        return x.float().reshape(len(x), frames, STATE)


class Listener:
    """A speech encoder that is given samples as they are recorded: what a generator hears by."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self.encoder = encoder

    def __call__(self, samples: np.ndarray, peaks: np.ndarray) -> torch.Tensor:
        """Return the states (F, 1024) of a window's samples (640 F,); peaks: (4 F,) in dB, as `gain_of` takes them."""
        with torch.inference_mode():
            audible = torch.from_numpy(samples * gain_of(peaks)).to(self.encoder.taper.device)
            return self.encoder(audible[None])[0]


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
    return encoder.compute_in(dtype).to(device).eval().requires_grad_(False)
