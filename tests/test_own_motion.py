"""A checkpoint that brings its own motion of head, brows and blinks moves by that, wherever it goes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atldiff import checkpoint
from atldiff.export.publish import export_checkpoint
from atldiff.landmarks.geometry import euler_degrees
from atldiff.landmarks.motion_model import load_motion
from atldiff.landmarks.shape import mean_shape
from atldiff.pipeline import TalkingHead
from atldiff.types import MOTION_FILE, Controls, Portrait

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.methods.atl.network import ATLModel

SAMPLES = (0.1 * np.sin(np.arange(16_000 * 4) * 0.09)).astype(np.float32)
PORTRAIT = Portrait(np.zeros((300, 300, 3), np.uint8), (90 * mean_shape() + 150).astype(np.float32))


@pytest.fixture(scope="module")
def plain(random_model: ATLModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "checkpoint"
    checkpoint.save_model(copy.deepcopy(random_model), folder, "# A model\n", half=False)
    return folder


@pytest.fixture(scope="module")
def lively(random_model: ATLModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a motion of its own, whose heads turn three times as far."""
    folder = tmp_path_factory.mktemp("lively") / "checkpoint"
    checkpoint.save_model(copy.deepcopy(random_model), folder, "# A model\n", half=False)
    weights = {name: value.copy() for name, value in load_motion().items()}
    weights["styles"][:, 0] *= 3
    save_file(weights, folder / MOTION_FILE)
    return folder


def turned(head: TalkingHead, **controls: object) -> float:
    """How far the head turns, in degrees."""
    track = head.landmarks(PORTRAIT, SAMPLES, controls=Controls(seed=5, **controls))  # pyright: ignore
    return float(np.ptp(euler_degrees(track.rotation.astype(np.float64)), axis=0).max())


def test_the_head_turns_by_it(plain: Path, lively: Path) -> None:
    own, package = (TalkingHead.from_pretrained(folder, device="cpu") for folder in (lively, plain))
    assert package.motion is None
    assert turned(own) > 1.3 * turned(package) > 0
    assert turned(own, motion_style=str(lively)) == turned(package, motion_style=str(lively)) == turned(own)
    assert turned(own, still=True) == 0


def test_it_goes_with_the_generator(plain: Path, lively: Path) -> None:
    open_pair = TalkingHead.from_pretrained
    assert open_pair(plain, generator=lively, device="cpu").motion == lively
    assert open_pair(plain, renderer=lively, device="cpu").motion is None


def test_it_is_saved_and_exported_with_the_checkpoint(lively: Path, plain: Path, tmp_path: Path) -> None:
    TalkingHead.from_pretrained(lively, device="cpu").save_pretrained(tmp_path / "saved")
    TalkingHead.from_pretrained(plain, device="cpu").save_pretrained(tmp_path / "without")
    wanted = load_file(lively / MOTION_FILE)
    assert np.array_equal(load_file(tmp_path / "saved" / MOTION_FILE)["styles"], wanted["styles"])
    assert not (tmp_path / "without" / MOTION_FILE).exists()
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    export_checkpoint(lively, tmp_path / "exported")
    assert TalkingHead.from_pretrained(tmp_path / "exported", device="cpu").motion == tmp_path / "exported"
