"""What a hub id gives where the package that fetches from there is missing, and what it gives where that fails."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from atldiff import hub
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable


def of_a_checkpoint(name: str) -> object:
    from atldiff.checkpoint import locate

    return locate(name)


def of_weights(name: str) -> object:
    from atldiff.backbones.weights import find

    return find(f"{name}/w.onnx@v1", "face embedder")


def of_a_codec(name: str) -> object:
    from atldiff.diffusion.pretrained_files import codec_config

    return codec_config(name)


def of_stable_diffusion(name: str) -> object:
    from atldiff.diffusion.pretrained_files import find_stable_diffusion

    return find_stable_diffusion(name)


def of_a_speech_model(name: str) -> object:
    from atldiff.audio.wav2vec import _fetch

    return _fetch(name)  # `load_speech_model` asks for transformers first


CALLS = [of_a_checkpoint, of_weights, of_a_codec, of_stable_diffusion, of_a_speech_model]


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, call: Callable[[str], object]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError) as caught:
        call("owner/name")
    said = str(caught.value)
    assert "owner/name" in said.partition(": ")[0]
    assert "no huggingface_hub to fetch it with; expected " in said
    assert said.endswith("pip install 'atldiff[hub]'")
    assert "\n" not in said


def test_what_is_at_hand_needs_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert of_a_checkpoint(str(tmp_path)) == tmp_path
    assert of_a_checkpoint("atl-diff-open")
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    assert of_a_codec(str(tmp_path))


def test_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")

    def fails(*_: object, **__: object) -> str:
        raise OSError("\nno route\nto the host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    for call in (lambda: hub.fetch_folder("a/b", "x", []), lambda: hub.fetch_file("a/b", "x", "c")):
        with pytest.raises(hub.HubError, match=r"^no route$"):
            call()
