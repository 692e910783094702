from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff.backbones import syncnet
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def tensors(random_weights: Callable) -> dict[str, torch.Tensor]:
    return random_weights(syncnet.SyncNet())


def test_tensors_are_named_as_in_the_published_file(tensors: dict[str, torch.Tensor], golden: Path) -> None:
    want = json.loads((golden / "syncnet_keys.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == want


def test_embeddings_are_those_of_syncnet_python(tensors: dict[str, torch.Tensor], golden: Path, tmp_path: Path) -> None:
    # As torch 0.3 wrote them: no counters, the old container.
    old = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}
    torch.save(old, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=False)
    network = syncnet.load(tmp_path / "syncnet_v2.model")
    random = np.random.RandomState(7)
    windows = torch.from_numpy(random.randint(0, 256, (3, 3, 5, 224, 224)).astype(np.float32))
    columns = torch.from_numpy((5 * random.standard_normal((3, 1, 13, 20))).astype(np.float32))
    want = np.load(golden / "syncnet.npz")  # every 16th number
    for have, name in ((network.embed_lips(windows), "lips"), (network.embed_sound(columns), "sound")):
        assert have.shape == (3, syncnet.EMBEDDING)
        have = have[:, ::16].numpy()
        np.testing.assert_allclose(have, want[name], rtol=1e-3, atol=1e-4 * np.abs(want[name]).max())


def test_other_files_are_refused(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(tensors | {"netfclip.3.weight": torch.zeros(256, 512)}, path)
    with pytest.raises(CheckpointError, match=r"SyncNet weights .*'netfclip.3.weight' has shape \(256, 512\)"):
        syncnet.load(path)
