from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from atldiff.audio import voice
from atldiff.audio.convert_silero import BASIS, NAMES, convert, fourier_basis
from atldiff.audio.load import load_audio
from atldiff.audio.voice import CHUNK_SAMPLES, CONTEXT_SAMPLES, SileroVAD, VoiceStream, voice_of
from atldiff.errors import MediaError
from atldiff.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "silero_vad.npz"
"""What silero-vad 6.2.3 says under ONNX Runtime to the first four seconds of the demo's recording, 125 chunks."""


@pytest.fixture(scope="module")
def speech(examples: Path) -> np.ndarray:
    return load_audio(examples / "speech.wav").samples[: 4 * SAMPLE_RATE]


def decibels(db: float) -> np.float32:
    return np.float32(10 ** (db / 20))


def test_the_network_says_what_silero_s_own_says(speech: np.ndarray) -> None:
    network, heard = SileroVAD(), np.pad(speech, (CONTEXT_SAMPLES, 0))
    length = CONTEXT_SAMPLES + CHUNK_SAMPLES
    said = [network(heard[at : at + length]) for at in range(0, len(speech), CHUNK_SAMPLES)]
    golden = np.load(GOLDEN)["probability"]
    assert len(said) == len(golden) == 125
    assert golden.min() < 0.05
    assert golden.max() > 0.99
    assert np.abs(said - golden).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 511, 512, 639, 640, 641, 760, 761, 8704, 9080, 31_999])
def test_any_packets_give_a_file_s_answers_one_a_frame(speech: np.ndarray, samples: int) -> None:
    heard = speech[4000 : 4000 + samples]
    whole = voice_of(heard)
    assert whole.shape == (frame_count(samples),)
    assert whole.dtype == np.float32
    random = np.random.default_rng(samples)
    for largest in (100, 3000):
        stream, at, parts = VoiceStream(), 0, []
        while at < samples:
            size = int(random.integers(0, largest))
            parts.append(stream.push(heard[at : at + size]))
            at += size
        assert np.array_equal(np.concatenate([*parts, stream.flush()]), whole)


def test_a_frame_is_judged_when_its_last_mel_column_is_there(speech: np.ndarray) -> None:
    for frames in range(1, 60):
        assert len(VoiceStream().push(speech[: frames * SAMPLES_PER_FRAME + voice.REACH_SAMPLES])) >= frames
    first = VoiceStream().push(speech[: 20 * SAMPLES_PER_FRAME])
    later = VoiceStream().push(np.concatenate([speech[: 20 * SAMPLES_PER_FRAME], np.ones(9000, np.float32)]))
    assert np.array_equal(first, later[: len(first)])


@pytest.mark.parametrize("db", [-60.0, -40.0, 0.0])
def test_the_recording_s_level_does_not_matter(speech: np.ndarray, db: float) -> None:
    loudest = speech / np.abs(speech).max()
    assert np.abs(voice_of(loudest * decibels(db)) - voice_of(loudest)).max() < 0.02


def test_a_constant_is_no_sound(speech: np.ndarray) -> None:
    moved = speech * decibels(-40) + np.float32(0.2)
    assert np.array_equal(voice_of(moved) > 0.35, voice_of(speech) > 0.35)
    assert np.mean(voice_of(speech) > 0.35) > 0.6
    assert voice_of(np.full(16_000, 0.3, np.float32)).max() < 0.1


def test_nothing_is_said_about_silence_and_nothing_warns() -> None:
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        assert voice_of(np.zeros(32_000, np.float32)).max() < 0.1
        assert voice_of(np.full(1, -1.0, np.float32)).shape == (1,)
        assert voice_of(np.full(9_000, 1e-30, np.float32)).max() < 0.1


def onnx_file(path: Path, weights: dict[str, np.ndarray]) -> Path:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "vad", [], [], tensors)), str(path))
    return path


class TestConversion:
    """The shipped file is made from the package's ONNX file by name."""

    @pytest.fixture
    def weights(self) -> dict[str, np.ndarray]:
        shipped = load_file(Path(voice.__file__).with_name("silero_vad") / "model.safetensors")
        theirs = {name: shipped[ours] for name, ours in NAMES.items()}
        return theirs | {BASIS: fourier_basis()[:, None].astype(np.float32)}

    def test_every_tensor_is_kept_as_it_is(self, tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
        converted = convert(onnx_file(tmp_path / "vad.onnx", weights))
        assert set(converted) == set(NAMES.values())
        for theirs, ours in NAMES.items():
            assert np.array_equal(converted[ours], weights[theirs])

    def test_another_network_is_refused(self, tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
        other = {name: value for name, value in weights.items() if name != "model.decoder.rnn.bias_hh"}
        with pytest.raises(MediaError, match="no model.decoder.rnn.bias_hh, expected silero_vad_16k_op15.onnx"):
            convert(onnx_file(tmp_path / "other.onnx", other))
        with pytest.raises(MediaError, match="its spectrum is not the Fourier transform"):
            convert(onnx_file(tmp_path / "basis.onnx", weights | {BASIS: weights[BASIS] * 2}))
