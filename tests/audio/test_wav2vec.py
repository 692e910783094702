from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from atldiff.audio.wav2vec import load_speech_model, new_speech_model, speech_features
from atldiff.errors import AtlDiffError, CheckpointError

transformers = pytest.importorskip("transformers")


def tiny_config() -> Any:
    return transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wav2vec") / "tiny"
    transformers.Wav2Vec2Model(tiny_config()).save_pretrained(path)
    return path


def test_a_folder_is_loaded_frozen(folder: Path) -> None:
    model = load_speech_model(str(folder))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    samples = torch.randn(2, 16000) * 0.1
    features = speech_features(model, samples.requires_grad_())
    assert features.shape == (2, 49, 16)
    assert not features.requires_grad
    with torch.no_grad():  # raw samples, the last layer
        assert torch.equal(features, model(samples, output_hidden_states=True).hidden_states[-1])
    again = speech_features(load_speech_model(str(folder)), samples)
    assert torch.equal(features, again)


def test_a_model_with_a_head_loads_without_it(folder: Path, tmp_path: Path) -> None:
    headed = transformers.Wav2Vec2ForCTC(tiny_config()).eval()
    headed.save_pretrained(tmp_path / "ctc")
    model = load_speech_model(str(tmp_path / "ctc"))
    samples = torch.randn(1, 16000)
    with torch.no_grad():
        assert torch.allclose(speech_features(model, samples), headed.wav2vec2(samples).last_hidden_state, atol=1e-6)


def one_line(error: pytest.ExceptionInfo[AtlDiffError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
    with pytest.raises(CheckpointError) as error:
        load_speech_model(str(tmp_path))
    assert "no model.safetensors" in one_line(error)
    assert "weights_only=True" in one_line(error)
    assert not (tmp_path / "went off").exists()


def test_another_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError) as error:
        load_speech_model(str(tmp_path))
    assert "got a model of type 'bert', expected 'wav2vec2'" in one_line(error)


@pytest.mark.parametrize(("config", "expected"), [(None, "no config.json"), ("{", "not readable"), ("[]", "not reada")])
def test_a_folder_that_is_no_model(config: str | None, expected: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError) as error:
        load_speech_model(str(tmp_path))
    assert expected in one_line(error)


def test_missing_and_broken_weights_are_errors(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    name = next(n for n in tensors if n.endswith("attention.k_proj.weight"))
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        load_speech_model(str(tmp_path))
    assert "missing tensor" in one_line(error)
    assert "k_proj.weight" in one_line(error)
    (tmp_path / "model.safetensors").write_bytes(b"not this")
    with pytest.raises(CheckpointError) as error:
        load_speech_model(str(tmp_path))
    assert "cannot be read" in one_line(error)


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError) as error:
        load_speech_model("/no/such/folder")
    assert "no such folder" in one_line(error)


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError) as error:
        load_speech_model("facebook/wav2vec2-base")
    assert "cannot be fetched from the hub (no route to host)" in one_line(error)


def test_the_hub_is_asked_for_no_pickle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_speech_model("owner/tiny").config.hidden_size == 16
    files = ["config.json", "model.safetensors"]
    assert asked == {"name": "owner/tiny", "allow_patterns": files, "revision": None}


def test_missing_transformers_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for call in (lambda: load_speech_model(str(folder)), new_speech_model):
        with pytest.raises(AtlDiffError) as error:
            call()
        assert "pip install 'atldiff[wav2vec]'" in one_line(error)


def test_a_new_model_is_the_base_one() -> None:
    with torch.device("meta"):
        model = new_speech_model()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 94.4
    assert model.config.hidden_size == 768
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
