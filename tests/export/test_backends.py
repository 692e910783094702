"""A talking head whose networks run in another runtime: its choice, its frames, its doors."""

from __future__ import annotations

import copy
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.config import SampleConfig
from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.export import choose
from atldiff.export.choose import cache_folder, find_export
from atldiff.export.publish import export_checkpoint
from atldiff.export.runtime import ExportedNetwork, has_bfloat16
from atldiff.methods.atl.network import ATLModel
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, Portrait

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CPU = torch.device("cpu")


def load(folder: Path, backend: str = "auto", dtype: str = "float32", device: str = "cpu") -> TalkingHead:
    return TalkingHead.from_pretrained(folder, device=device, dtype=dtype, backend=backend)


@pytest.fixture(scope="session")
def exported(checkpoint_folder, runtime, tmp_path_factory) -> Path:
    """Each method exported for each runtime."""
    folder = tmp_path_factory.mktemp("exported") / "out"
    export_checkpoint(checkpoint_folder, folder, runtime)
    return folder


@pytest.fixture(scope="session")
def portrait(random_model) -> Portrait:
    head = TalkingHead(copy.deepcopy(random_model), device="cpu", dtype="float32")
    return head.open_portrait(EXAMPLES / "portrait.jpg")


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    from atldiff.audio.load import load_audio

    return load_audio(EXAMPLES / "speech.wav").samples[16_000 : 16_000 + 40 * 640 + 77]


def frames_of(video) -> np.ndarray:
    return np.stack(list(video))


def exported_networks(head: TalkingHead) -> list[str]:
    return [name for name, module in head.model.named_modules() if isinstance(module, ExportedNetwork)]


def test_frames_are_those_of_pytorch(checkpoint_folder, exported, portrait, speech) -> None:
    torch_head, head = load(checkpoint_folder, "torch"), load(exported)
    assert exported_networks(torch_head) == []
    assert len(exported_networks(head)) == 2
    before, after = (frames_of(each(portrait, speech, size=192)).astype(int) for each in (torch_head, head))
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= 1
    assert (before != after).mean() < 0.01
    assert np.ptp(before, axis=0).max() > 20  # and they move


def test_streaming_equals_the_offline_call_bit_for_bit(exported, portrait, speech) -> None:
    head = load(exported)
    offline = frames_of(head(portrait, speech, size=192))
    cuts = np.sort(np.random.default_rng(5).integers(0, len(speech), 17))
    streamed = np.stack(list(head.stream(portrait, np.split(speech, cuts), size=192)))
    assert (streamed == offline).all()
    assert (frames_of(head(portrait, speech, size=192)) == offline).all()


def test_a_seed_and_an_emotion_still_matter(exported, portrait, speech) -> None:
    head = load(exported)
    frames = lambda **controls: frames_of(head(portrait, speech[:9_000], size=192, controls=Controls(**controls)))  # noqa: E731
    assert (frames(seed=1) != frames()).any()
    if not isinstance(head.model, ATLModel):
        assert (frames(emotion="happy") != frames(emotion="sad")).any()


def test_the_weights_are_let_go(checkpoint_folder, exported) -> None:
    count = lambda head: sum(parameter.numel() for parameter in head.model.parameters())  # noqa: E731
    assert count(load(exported)) < 0.4 * count(load(checkpoint_folder))


def test_networks_run_in_several_threads_at_once(exported) -> None:
    head = load(exported)
    from atldiff.checkpoint import load_model
    from atldiff.export.networks import denoiser_of, networks_of

    model = load_model(exported)
    assert head.export is not None
    network = networks_of(model, head.export.window_frames)[0]
    head_unet = head.model.renderer.unet if isinstance(model, ATLModel) else head.model.renderer.unet.unet
    inputs = [network.draw(np.random.default_rng(seed)) for seed in range(6)]
    alone = [head_unet(*values) for values in inputs]
    together: dict[int, torch.Tensor] = {}

    def work(first: int) -> None:
        for index in range(first, 6, 3):
            together[index] = head_unet(*inputs[index])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(alone[index], together[index]) for index in range(6))
    assert denoiser_of(model).embedding_width == head_unet.embedding_width


class TestChoice:
    def test_torch_unless_exported(self, checkpoint_folder, exported, runtime) -> None:
        assert load(checkpoint_folder).export is None
        assert load(exported, "torch").export is None
        head = load(exported)
        assert head.export is not None
        assert head.export.runtime == runtime

    def test_auto_is_torch_where_the_runtime_cannot(self, exported, runtime, monkeypatch) -> None:
        assert find_export(exported, "auto", device=torch.device("cuda"), dtype="auto") is None
        usable = find_export(exported, "auto", device=CPU, dtype="bfloat16")
        assert (usable is None) == (runtime == "onnx")
        monkeypatch.setattr(choose, "is_installed", lambda name: False)
        assert find_export(exported, "auto", device=CPU, dtype="auto") is None

    def test_made_once_and_found_again(self, atl_folder, one_runtime, own_cache, monkeypatch) -> None:
        first = load(atl_folder, one_runtime).export
        assert first is not None
        assert first.folder.parent == own_cache == cache_folder()
        assert {path.name for path in first.folder.iterdir()} == {"export.json", *first.files}
        made = []
        write = choose.write_networks
        monkeypatch.setattr(choose, "write_networks", lambda *args, **rest: made.append(1) or write(*args, **rest))
        second = load(atl_folder, one_runtime).export
        assert second == first
        assert made == []
        first.network("denoiser").write_bytes(b"damaged")
        again = load(atl_folder, one_runtime).export
        assert again is not None
        assert again.folder == first.folder
        assert again.network("denoiser").read_bytes() != b"damaged"
        assert made == [1]
        assert len(list(own_cache.iterdir())) == 1

    def test_other_weights_are_other_networks(self, atl_folder, one_runtime, own_cache, tmp_path, random_model) -> None:
        from atldiff.checkpoint import save_model

        load(atl_folder, one_runtime)
        changed = copy.deepcopy(random_model)
        with torch.no_grad():
            changed.renderer.unet.stem.weight.mul_(1.01)
        save_model(changed, tmp_path / "changed", half=False)
        load(tmp_path / "changed", one_runtime)
        assert len(list(own_cache.iterdir())) == 2

    def test_a_cache_that_cannot_be_written(self, atl_folder, one_runtime, tmp_path, monkeypatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        export = load(atl_folder, one_runtime).export
        assert export is not None
        assert export.folder.name.startswith("atldiff-export-")
        shutil.rmtree(export.folder)

    def test_the_other_runtime_of_an_exported_folder(self, exported, runtime, own_cache) -> None:
        other = "openvino" if runtime == "onnx" else "onnx"
        pytest.importorskip("openvino" if other == "openvino" else "onnxruntime")
        export = load(exported, other).export
        assert export is not None
        assert export.runtime == other
        assert export.folder.parent == own_cache

    def test_retrained_in_place(self, exported, tmp_path) -> None:
        shutil.copytree(exported, tmp_path / "copy")
        weights = tmp_path / "copy" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with pytest.raises(CheckpointError, match="made of other weights"):
            load(tmp_path / "copy")
        with pytest.raises(CheckpointError, match="made of other weights"):
            load(tmp_path / "copy", "onnx" if list(exported.glob("*.onnx")) else "openvino")


class TestDoors:
    def test_unknown_backend(self, atl_folder) -> None:
        with pytest.raises(ValueError, match="backend: got 'tensorrt', expected auto, torch, openvino, onnx"):
            load(atl_folder, "tensorrt")

    def test_a_gpu(self, atl_folder, runtime) -> None:
        with pytest.raises(ValueError, match=rf"got cuda with backend {runtime}, which runs on the CPU"):
            find_export(atl_folder, runtime, device=torch.device("cuda"), dtype="auto")

    def test_onnx_runtime_is_float32(self, atl_folder, exported, runtime) -> None:
        if runtime == "onnx":
            with pytest.raises(ValueError, match="bfloat16 with backend onnx, which computes in float32"):
                load(atl_folder, "onnx", dtype="bfloat16")
            assert load(exported, "onnx", dtype="auto").dtype == torch.float32

    def test_bfloat16_is_taken_where_there_is_hardware(self, exported, runtime, portrait, speech) -> None:
        if runtime == "onnx" or not has_bfloat16("openvino"):
            pytest.skip("no bfloat16 here")
        half, full = load(exported, dtype="bfloat16"), load(exported, dtype="float32")
        one, other = (frames_of(head(portrait, speech[:9_000], size=192)).astype(int) for head in (half, full))
        assert (one != other).any()
        assert np.abs(one - other).mean() < 1.0

    def test_a_missing_package(self, atl_folder, runtime, monkeypatch) -> None:
        monkeypatch.setattr("atldiff.export.runtime.find_spec", lambda name: None)
        with pytest.raises(AtlDiffError, match=r"is not installed; run pip install 'atldiff\[export\]'"):
            load(atl_folder, runtime)

    def test_windows_of_another_length(self, atl_folder, runtime, tmp_path, portrait, speech) -> None:
        export_checkpoint(atl_folder, tmp_path / "out", runtime, window_frames=6)
        head = load(tmp_path / "out")
        assert (head.sampling("balanced").window_frames, head.sampling("best").steps) == (6, 2)
        assert len(frames_of(head(portrait, speech[:9_000], size=192))) == 15
        for call in (
            lambda: head(portrait, speech, sampling=SampleConfig(window_frames=10)),
            lambda: next(head.stream(portrait, [speech], sampling=SampleConfig(window_frames=10))),
        ):
            with pytest.raises(ValueError, match="got 10, but the exported networks take windows of 6 frames") as told:
                call()
            assert "\n" not in str(told.value)
        assert head.sampling("fast").every == 1  # one shape: every frame is painted
        with pytest.raises(ValueError, match="every: got 2, but exported networks paint every frame"):
            head(portrait, speech, sampling=SampleConfig(window_frames=6, every=2))

    def test_another_shape(self, exported) -> None:
        head = load(exported)
        frames = head.export.window_frames
        unet = head.model.renderer.unet if isinstance(head.model, ATLModel) else head.model.renderer.unet.unet
        channels, side = (16, 80) if isinstance(head.model, ATLModel) else (6, 64)
        rest = [torch.zeros(shape) for shape in unet._session.shapes[1:]]
        with pytest.raises(ValueError, match=f"got {frames + 1}, but .* --window-frames {frames + 1}"):
            unet(torch.zeros(1, channels, frames + 1, side, side), *rest)
        with pytest.raises(ValueError, match="x has shape"):
            unet(torch.zeros(2, channels, frames, side, side), *rest)

    def test_no_weights_to_save(self, exported, tmp_path) -> None:
        with pytest.raises(ValueError, match="expected torch"):
            load(exported).save_pretrained(tmp_path / "saved")
