"""Whisper's first layers: the same numbers as elsewhere, and a level that does not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from atldiff.audio import convert_whisper
from atldiff.audio.whisper import STATE, Listener, gain_of, log_mel, mel_filters, positions
from atldiff.audio.whisper_encoder import SpeechEncoder, load_encoder
from atldiff.errors import MediaError
from atldiff.timebase import COLUMNS_PER_FRAME, SAMPLE_RATE, SAMPLES_PER_FRAME
from atldiff.torch_networks import TorchNetwork

torch.set_num_threads(1)

CPU = torch.device("cpu")
FRAMES = 28
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "whisper.npz"


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return load_encoder(2, CPU, torch.float32)


def vowels(frames: int = FRAMES) -> np.ndarray:
    """Return a buzz (640 F,) that rises and falls, the same on every machine."""
    time = np.arange(frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 40))
    return (0.05 * buzz * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def listener(encoder: SpeechEncoder) -> Listener:
    return Listener(TorchNetwork(encoder, CPU))


def states_of(encoder: SpeechEncoder, *windows: np.ndarray) -> torch.Tensor:
    """Return the states (B, F, 1024) of windows of samples (640 F,), as they are."""
    columns = torch.from_numpy(np.stack([log_mel(samples) for samples in windows]))
    with torch.inference_mode():
        return encoder(columns, torch.from_numpy(positions(columns.shape[2] // 2))[None])


def test_states_are_those_of_the_published_encoder(encoder: SpeechEncoder) -> None:
    """golden/whisper.npz: every 8th frame and 37th number, of Hugging Face's WhisperEncoder with the same weights."""
    states = states_of(encoder, vowels())
    assert states.shape == (1, FRAMES, STATE)
    wanted = np.load(GOLDEN)["states"]
    assert wanted.std() > 0.1
    assert np.abs(states[0, ::8, ::37].numpy() - wanted).max() < 1e-3


def test_features_and_layers_equal_transformers(encoder: SpeechEncoder) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    extractor = transformers.WhisperFeatureExtractor()
    assert np.abs(extractor.mel_filters.T - mel_filters()).max() < 1e-7
    columns = torch.from_numpy(extractor._np_extract_fbank_features(vowels()[None], "cpu")).float()
    assert np.abs(log_mel(vowels()) - columns[0].numpy()).max() < 1e-4

    config = transformers.WhisperConfig(
        d_model=512, encoder_layers=3, encoder_attention_heads=8, encoder_ffn_dim=2048, num_mel_bins=80,
        max_source_positions=2 * FRAMES,
    )  # fmt: skip
    published = WhisperEncoder(config).eval()
    own = {**encoder.state_dict(), "embed_positions.weight": torch.from_numpy(positions(2 * FRAMES))}
    assert not published.load_state_dict(own, strict=False).unexpected_keys
    with torch.inference_mode():
        second = published(columns, output_hidden_states=True).hidden_states[2]
        assert torch.allclose(states_of(encoder, vowels()), second.reshape(1, FRAMES, STATE), atol=1e-3)


def test_columns_are_those_of_the_definition() -> None:
    """In double precision, by hand: every column's power in each band, no deeper than 80 dB under the loudest."""
    samples = vowels(4).astype(np.float64)
    mirrored = np.concatenate([samples[200:0:-1], samples, samples[-2:-202:-1]])
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = [np.abs(np.fft.rfft(mirrored[160 * c :][:400] * taper)) ** 2 for c in range(16)]
    levels = np.log10(np.maximum(np.array(power) @ mel_filters().T.astype(np.float64), 1e-10))
    wanted = (np.maximum(levels, levels.max() - 8) + 4) / 4
    columns = log_mel(vowels(4))
    assert columns.dtype == np.float32
    assert columns.shape == (80, 16)
    assert np.abs(columns - wanted.T).max() < 1e-5
    assert np.allclose(log_mel(np.zeros(640, np.float32)), -1.5, atol=1e-6)  # silence has no level


def test_windows_side_by_side_do_not_hear_one_another(encoder: SpeechEncoder) -> None:
    loud, quiet = vowels(), 0.01 * vowels()[::-1].copy()
    both, alone = states_of(encoder, loud, quiet), states_of(encoder, quiet)
    assert torch.allclose(both[1:], alone, atol=1e-3)


@pytest.mark.parametrize("gain_db", [-50.0, -15.0, 18.0])
def test_a_recording_s_level_does_not_show(encoder: SpeechEncoder, gain_db: float) -> None:
    hear = listener(encoder)
    peaks = np.full(FRAMES * COLUMNS_PER_FRAME, -20.0, np.float32)
    said = hear(vowels(), peaks)
    again = hear(vowels() * np.float32(10 ** (gain_db / 20)), peaks + np.float32(gain_db))
    assert np.allclose(said, again, atol=2e-3)
    assert not np.allclose(said, hear(vowels(), peaks + 6), atol=2e-2)  # the level that they are told is used


def test_gain_is_bounded() -> None:
    assert gain_of(np.array([-200.0, -100.0])) == pytest.approx(10**3.5)
    assert gain_of(np.array([-200.0, -14.0])) == 1.0
    assert gain_of(np.array([9.0])) == pytest.approx(0.1)


def test_bfloat16_says_nearly_the_same(encoder: SpeechEncoder) -> None:
    peaks = np.full(FRAMES * COLUMNS_PER_FRAME, -20.0, np.float32)
    exact, rough = (listener(load_encoder(2, CPU, dtype))(vowels(), peaks) for dtype in (torch.float32, torch.bfloat16))
    assert rough.dtype == np.float32
    assert 0 < np.square(exact - rough).mean() < 1e-3 * exact.var()


def test_the_encoder_is_loaded_once_and_frozen(encoder: SpeechEncoder) -> None:
    assert load_encoder(2, CPU, torch.float32) is encoder
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    with pytest.raises(ValueError, match="layers: got 3, expected 1 to 2"):
        load_encoder(3, CPU, torch.float32)


def test_conversion_takes_the_published_names_and_refuses_other_files(tmp_path: Path, encoder: SpeechEncoder) -> None:
    own = {name: tensor.half().numpy() for name, tensor in encoder.state_dict().items()}
    save_file({f"model.encoder.{name}": tensor for name, tensor in own.items()}, tmp_path / "published.safetensors")
    cut = convert_whisper.convert(tmp_path / "published.safetensors", 1)
    assert {name.split(".")[1] for name in cut if name.startswith("layers.")} == {"0"}
    assert all(np.array_equal(tensor, own[name]) for name, tensor in cut.items())
    with pytest.raises(MediaError, match=r"no layers\.2\.[a-z0-9_.]+ of shape"):
        convert_whisper.convert(tmp_path / "published.safetensors", 3)


def test_what_is_shipped_is_half_precision_with_its_notice() -> None:
    folder = Path(convert_whisper.__file__).parent / "whisper_base"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {np.dtype("float16")}
    assert "OpenAI" in (folder / "LICENSE").read_text(encoding="utf-8")
