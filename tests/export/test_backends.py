"""A talking head whose networks run in another runtime: its choice, its frames, its doors."""

from __future__ import annotations

import copy
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.checkpoint import load_model, save_model
from atldiff.config import SampleConfig
from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.export.choose import cache_folder, find_graphs
from atldiff.export.publish import export_checkpoint, networks_of
from atldiff.pipeline import TalkingHead
from atldiff.runtime import choose
from atldiff.runtime.choose import Compute, is_installed, open_network
from atldiff.runtime.graphs import read_graphs
from atldiff.types import Controls, Portrait

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(folder: Path, backend: str = "auto", dtype: str = "float32", device: str = "cpu") -> TalkingHead:
    return TalkingHead.from_pretrained(folder, device=device, dtype=dtype, backend=backend)


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


def test_frames_are_those_of_pytorch(exported, runtime, portrait, speech) -> None:
    torch_head, head = load(exported, "torch"), load(exported, runtime)
    assert (torch_head.compute.backend, head.compute.backend) == ("torch", runtime)
    before, after = (frames_of(each(portrait, speech, size=192)).astype(int) for each in (torch_head, head))
    assert before.shape == after.shape
    assert np.abs(before - after).max() <= 2
    assert (before != after).mean() < 0.01
    assert np.ptp(before, axis=0).max() > 20  # and they move


def test_streaming_equals_the_offline_call_bit_for_bit(exported, runtime, portrait, speech) -> None:
    head = load(exported, runtime)
    offline = frames_of(head(portrait, speech, size=192))
    cuts = np.sort(np.random.default_rng(5).integers(0, len(speech), 17))
    streamed = np.stack(list(head.stream(portrait, np.split(speech, cuts), size=192)))
    assert (streamed == offline).all()
    assert (frames_of(head(portrait, speech, size=192)) == offline).all()


def test_a_seed_and_an_emotion_still_matter(exported, portrait, speech) -> None:
    head = load(exported, "onnx")
    frames = lambda **controls: frames_of(head(portrait, speech[:9_000], size=192, controls=Controls(**controls)))  # noqa: E731
    assert (frames(seed=1) != frames()).any()
    if hasattr(head.speaker.config, "emotions"):
        assert (frames(emotion="happy") != frames(emotion="sad")).any()


def test_networks_run_in_several_threads_at_once(exported, runtime) -> None:
    graphs = read_graphs(exported)
    denoiser = graphs.networks["denoiser"]
    network = open_network(denoiser, runtime, half=False, streams=3)
    random = np.random.default_rng(0)

    def draw() -> list[np.ndarray]:
        return [
            np.zeros([9 if isinstance(n, str) else n for n in each.shape], np.int64)
            if each.dtype == "int64"
            else random.standard_normal([9 if isinstance(n, str) else n for n in each.shape]).astype(np.float32)
            for each in denoiser.inputs
        ]

    if len({n for each in denoiser.inputs for n in each.shape if isinstance(n, str)}) > 1:
        pytest.skip("its lengths depend on one another")
    inputs = [draw() for _ in range(6)]
    alone = [network(*values)[0] for values in inputs]
    together: dict[int, np.ndarray] = {}

    def work(first: int) -> None:
        for index in range(first, 6, 3):
            together[index] = network(*inputs[index])[0]

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[index], together[index]) for index in range(6))


def test_any_window_is_taken(atl_folder, exporter, runtime, tmp_path, portrait, speech) -> None:
    export_checkpoint(atl_folder, tmp_path / "out")
    sampling = SampleConfig(steps=1, window_frames=7, shared_frames=1, every=3)
    one, other = (
        frames_of(load(tmp_path / "out", backend)(portrait, speech[:9_000], size=192, sampling=sampling)).astype(int)
        for backend in ("torch", runtime)
    )
    assert np.abs(one - other).max() <= 1


class TestChoice:
    def test_a_folder_without_graphs_is_torch(self, atl_folder, exported) -> None:
        assert load(atl_folder).compute.backend == "torch"
        assert load(exported, "torch").compute.backend == "torch"

    def test_auto_takes_the_fastest(self, monkeypatch) -> None:
        def auto(*there: str, bfloat16: bool = False, gpu: bool = False, dots: bool = False, **asked: str) -> str:
            monkeypatch.setattr(choose, "is_installed", lambda name: name in there)
            monkeypatch.setattr(choose, "native_bfloat16", lambda: bfloat16)
            monkeypatch.setattr(choose, "gpu_at_hand", lambda: gpu)
            monkeypatch.setattr(choose, "integer_dot_products", lambda: dots)
            device, dtype = asked.get("device", "auto"), asked.get("dtype", "auto")
            return choose._fastest(device, dtype, graphs=True, int8="int8" not in asked)

        everything = ("onnx", "openvino", "torch")
        assert auto("onnx") == "onnx"
        assert auto(*everything) == "openvino"
        assert auto("onnx", "torch") == "onnx"
        assert auto("onnx", "torch", bfloat16=True) == "torch"
        assert auto("onnx", "torch", bfloat16=True, dtype="float32") == "onnx"
        assert auto("onnx", "torch", bfloat16=True, dots=True) == "onnx"
        assert auto("onnx", "torch", bfloat16=True, dots=True, int8="no") == "torch"
        assert auto("onnx", "torch", bfloat16=True, dots=True, dtype="bfloat16") == "torch"
        assert auto(*everything, dots=True) == "openvino"
        assert auto(*everything, gpu=True) == "torch"
        assert auto(*everything, gpu=True, device="cpu") == "openvino"
        assert auto("onnx", "openvino", gpu=True) == "openvino"
        assert auto("onnx", device="cuda") == "torch"

    def test_made_once_and_found_again(self, atl_folder, exporter, own_cache, monkeypatch) -> None:
        from atldiff.export import publish

        first = find_graphs(atl_folder)
        assert first.folder.parent == own_cache == cache_folder()
        made = []
        write = publish.write_graphs
        monkeypatch.setattr(publish, "write_graphs", lambda *args, **rest: made.append(1) or write(*args, **rest))
        second = find_graphs(atl_folder)
        assert second == first
        assert made == []
        (first.folder / "graphs.json").write_text("damaged")
        assert find_graphs(atl_folder) == first
        assert made == [1]
        assert len(list(own_cache.iterdir())) == 1

    def test_other_weights_are_other_networks(self, atl_folder, exporter, own_cache, tmp_path, random_model) -> None:
        find_graphs(atl_folder)
        changed = copy.deepcopy(random_model)
        with torch.no_grad():
            changed.renderer.unet.stem.weight.mul_(1.01)
        save_model(changed, tmp_path / "changed")
        find_graphs(tmp_path / "changed")
        assert len(list(own_cache.iterdir())) == 2

    def test_a_cache_that_cannot_be_written(self, atl_folder, exporter, tmp_path, monkeypatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        graphs = find_graphs(atl_folder)
        assert graphs.folder.name.startswith("atldiff-export-")
        shutil.rmtree(graphs.folder)

    def test_without_pytorch_none_are_made(self, atl_folder, monkeypatch) -> None:
        monkeypatch.setattr("atldiff.export.choose.is_installed", lambda name: name != "torch")
        with pytest.raises(
            CheckpointError, match="PyTorch, which makes them, is not installed; run pip install"
        ) as told:
            find_graphs(atl_folder)
        assert "\n" not in str(told.value)

    def test_stages_of_two_checkpoints(self, atl_folder, exporter, tmp_path, random_whisper_model, portrait, speech):
        save_model(random_whisper_model, tmp_path / "whisper")
        for source, target in ((atl_folder, tmp_path / "a"), (tmp_path / "whisper", tmp_path / "b")):
            export_checkpoint(source, target)
        one, other = (
            TalkingHead.from_pretrained(
                tmp_path / "a", generator=tmp_path / "b", device="cpu", dtype="float32", backend=backend
            )
            for backend in ("torch", "onnx")
        )
        frames = [frames_of(head(portrait, speech[:9_000], size=192)).astype(int) for head in (one, other)]
        assert np.abs(frames[0] - frames[1]).max() <= 1


class TestWeightsBesideGraphs:
    def test_retrained_in_place_is_what_runs(self, atl_folder, exporter, runtime, tmp_path) -> None:
        """Graphs hold no weights: those that lie there now compute."""
        export_checkpoint(atl_folder, tmp_path / "out")
        model = load_model(tmp_path / "out")
        with torch.no_grad():
            model.generator.networks[0].out.bias.add_(1.0)
        save_model(model, tmp_path / "out")
        generator = read_graphs(tmp_path / "out").networks["generator"]
        inputs = [np.ones(each.shape, np.float32) for each in generator.inputs]
        (got,) = open_network(generator, runtime, half=False, streams=1)(*inputs)
        with torch.inference_mode():
            wanted = networks_of(model)["generator"](*map(torch.from_numpy, inputs)).numpy()
        assert np.allclose(got, wanted, atol=2e-3)  # saved in half precision

    def test_other_settings_are_refused(self, exported, tmp_path) -> None:
        shutil.copytree(exported, tmp_path / "copy")
        config = tmp_path / "copy" / "config.json"
        config.write_text(config.read_text().replace("{", '{"note": 1,', 1))
        with pytest.raises(CheckpointError, match="made of other weights or settings"):
            read_graphs(tmp_path / "copy")

    def test_it_takes_no_place(self, exported) -> None:
        weights = (exported / "model.safetensors").stat().st_size
        assert sum(path.stat().st_size for path in exported.glob("*.onnx")) < 2_000_000
        assert weights > 100_000


class TestDoors:
    def test_unknown_words(self, atl_folder) -> None:
        with pytest.raises(ValueError, match="backend: got 'tensorrt', expected auto, torch, openvino, onnx"):
            load(atl_folder, "tensorrt")
        with pytest.raises(ValueError, match="device: got 'tpu', expected auto, cpu or cuda"):
            load(atl_folder, device="tpu")
        with pytest.raises(ValueError, match="dtype: got 'float16', expected auto, float32, bfloat16"):
            load(atl_folder, dtype="float16")

    def test_a_gpu(self, atl_folder, runtime) -> None:
        with pytest.raises(ValueError, match=rf"got cuda with backend {runtime}, which runs on the CPU"):
            load(atl_folder, runtime, device="cuda")

    def test_onnx_runtime_is_float32(self, exported) -> None:
        with pytest.raises(ValueError, match="bfloat16 with backend onnx, which has float32 and int8"):
            load(exported, "onnx", dtype="bfloat16")
        assert load(exported, "onnx", dtype="auto").compute == Compute("onnx", "cpu", "float32")

    def test_bfloat16_is_taken_where_there_is_hardware(self, exported, portrait, speech) -> None:
        if not is_installed("openvino"):
            pytest.skip("openvino is not installed")
        from atldiff.runtime.openvino import has_bfloat16

        if not has_bfloat16():
            pytest.skip("no bfloat16 here")
        half, full = (load(exported, "openvino", dtype=dtype) for dtype in ("bfloat16", "float32"))
        one, other = (frames_of(head(portrait, speech[:9_000], size=192)).astype(int) for head in (half, full))
        assert (one != other).any()
        assert np.abs(one - other).mean() < 1.0

    def test_a_missing_package(self, exported, monkeypatch) -> None:
        monkeypatch.setattr("atldiff.runtime.choose.find_spec", lambda name: None)
        for backend, extra in (("openvino", "openvino"), ("torch", "torch")):
            with pytest.raises(AtlDiffError, match=rf"not installed; run pip install 'atldiff\[{extra}\]'"):
                load(exported, backend)

    def test_another_shape(self, exported, runtime) -> None:
        graph = read_graphs(exported).networks["denoiser"]
        network = open_network(graph, runtime, half=False, streams=1)
        inputs = [np.zeros([5 if isinstance(n, str) else n for n in each.shape], each.dtype) for each in graph.inputs]
        with pytest.raises(ValueError, match="x has shape"):
            network(np.concatenate([inputs[0]] * 2), *inputs[1:])
        with pytest.raises(ValueError, match="got 1 inputs"):
            network(inputs[0])

    def test_no_weights_to_save(self, exported, tmp_path) -> None:
        with pytest.raises(ValueError, match="expected torch"):
            load(exported, "onnx").save_pretrained(tmp_path / "saved")
