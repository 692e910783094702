from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atldiff.backbones import weights
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class Planted:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("import pathlib; pathlib.Path(__import__('os').environ['PLANTED']).touch()",)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        weights.read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.model"])
def test_reads_tensors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(OrderedDict(TENSORS), path, _use_new_zipfile_serialization=name != "old.model")
    held = weights.read_tensors(path)
    assert type(held) is dict
    assert {key: value.tolist() for key, value in held.items()} == {k: v.tolist() for k, v in TENSORS.items()}


def test_whole_modules_are_named_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.model"
    torch.save(nn.Linear(3, 2), path)
    message = refused(path)
    assert "torch.nn.modules.linear.Linear" in message
    assert "state_dict" in message


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    torch.save({"weight": Planted()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"weight": Planted()}))
    refused(tmp_path / "a.pth")
    refused(tmp_path / "b.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("held", "said"),
    [({"state_dict": TENSORS, "epoch": 3}, "'state_dict' is a dict"), ([1, 2], "a list"), ({}, "nothing")],
)
def test_more_than_tensors_is_refused(tmp_path: Path, held: object, said: str) -> None:
    torch.save(held, tmp_path / "w.pth")
    assert said in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>Not found</html>")
    refused(tmp_path / name)
    refused(tmp_path / f"absent.{name}")


def test_finds_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.touch()
    assert weights.find(str(path), "x") == path


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("owner/name/w.onnx", ("owner/name", "w.onnx", None)),
        ("owner/na.me/in/a/folder/w_v2.model@v1.0", ("owner/na.me", "in/a/folder/w_v2.model", "v1.0")),
        (weights.SYNCNET.source, ("ByteDance/LatentSync-1.6", "auxiliary/syncnet_v2.model", None)),
        (weights.SFACE_WEIGHTS.source, ("opencv/face_recognition_sface", "face_recognition_sface_2021dec.onnx", None)),
    ],
)
def test_asks_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, asked: tuple) -> None:
    import huggingface_hub

    seen = []

    def fetch(repo: str, file: str, revision: str | None = None) -> str:
        seen.append((repo, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert weights.find(source, "x") == tmp_path / asked[1]
    assert seen == [asked]


@pytest.mark.parametrize("source", ["absent.pth", "./a/b/c.pth", "a/b", "/no/such/file.pth", weights.INCEPTION.source])
def test_neither_file_nor_reference(source: str) -> None:
    with pytest.raises(CheckpointError, match="^Inception weights .*expected a local file or a hub reference.*$"):
        weights.find(source, "Inception")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder"):
        weights.find(tmp_path, "x")


def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise OSError("404\nmany\nlines")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError) as caught:
        weights.find("owner/name/w.pth", "x")
    assert "(404)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, "missing tensor 'bias'"),
        ({"more": torch.ones(1)}, "unknown tensor 'more'"),
        ({"bias": torch.ones(3)}, r"'bias' has shape \(3,\), expected \(2,\)"),
        ({"bias": torch.tensor([1.0, float("nan")])}, "'bias' holds NaN"),
    ],
)
def test_fill_is_strict(change: dict, said: str) -> None:
    tensors = {key: value for key, value in (TENSORS | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=said):
        weights.fill(nn.Linear(3, 2), tensors, "x", "file")


def test_fill_freezes_and_forgives_missing_counters() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2)).train()
    tensors = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    weights.fill(network, {key: value + 1 for key, value in tensors.items()}, "x", "file")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.state_dict()["0.running_mean"].tolist() == [1, 1]
