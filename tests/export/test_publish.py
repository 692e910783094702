"""What `atldiff export` writes, and when it writes nothing."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from atldiff import cli
from atldiff.checkpoint import load_model, save_model
from atldiff.config import sampling_presets
from atldiff.diffusion.unet3d import UNet3D
from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.export import parity, publish
from atldiff.export.int8 import coarse_convolutions
from atldiff.export.manifest import digests, read_export
from atldiff.export.networks import Network, networks_of
from atldiff.export.publish import export_checkpoint
from atldiff.export.runtime import open_network
from atldiff.files import sha256

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.export.manifest import Export
    from atldiff.methods.models import Model

torch.set_num_threads(1)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".partial" in path.name)


@pytest.fixture(scope="module")
def published(checkpoint_folder, runtime, tmp_path_factory) -> Export:
    """Each method exported for each runtime, for windows of another length than a preset's."""
    return export_checkpoint(checkpoint_folder, tmp_path_factory.mktemp("published") / "out", runtime, window_frames=6)


def test_an_export_is_a_checkpoint_and_its_networks(checkpoint_folder, runtime, published) -> None:
    folder = published.folder
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (checkpoint_folder / name).read_bytes()
    suffixes = (".onnx",) if runtime == "onnx" else (".xml", ".bin")
    assert set(published.files) == {name + suffix for name in ("denoiser", "generator") for suffix in suffixes}
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", "export.json", "model.safetensors", *published.files]
    )
    assert left_over(folder.parent) == []

    told = json.loads((folder / "export.json").read_text())
    assert (told["format_version"], told["runtime"], told["int8"], told["window_frames"]) == (1, runtime, False, 6)
    assert told["sources"]["model.safetensors"] == sha256(checkpoint_folder / "model.safetensors")
    assert told["files"] == {name: sha256(folder / name) for name in published.files}
    for name in ("denoiser", "generator"):
        exact = told["parity"][name]["float32"]
        assert exact["tolerance"] == parity.TOLERANCES["float32"] == 1e-4
        assert 0 < exact["relative"] < 1e-4
        assert exact["inputs"] == parity.DRAWS
    assert "bfloat16" not in told["parity"]["generator"]
    assert told["versions"]["torch"] == torch.__version__

    read = read_export(folder, digests(folder))
    assert read == published


def test_exported_networks_give_what_pytorch_gives(checkpoint_folder, published) -> None:
    assert published.window_frames == 6
    for network in networks_of(load_model(checkpoint_folder), 6):
        opened = open_network(
            published.network(network.name), published.runtime, network.inputs, dtype=torch.float32, streams=2
        )
        values = network.draw(np.random.default_rng(77))
        with torch.inference_mode():
            expected = network.module(*values)
        got = opened(*values)
        assert got.dtype == torch.float32
        assert expected.std() > 1e-3  # something to agree on
        assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))
        assert list(opened.parameters()) == []
        # every input has an effect: none was folded away
        for index, value in enumerate(values):
            if value.is_floating_point():
                changed = [*values]
                changed[index] = value + 0.5
                assert not torch.equal(opened(*changed), got), network.inputs[index]


def test_exporting_leaves_the_model_in_evaluation_mode(random_exportable_model: Model, tmp_path) -> None:
    pytest.importorskip("onnx")
    from atldiff.export.graph import write_onnx

    fused = torch.backends.mha.get_fastpath_enabled()
    for network in networks_of(random_exportable_model, 4):
        write_onnx(network, tmp_path / "network.onnx")
        assert not any(module.training for module in network.module.modules())
    assert not any(module.training for module in random_exportable_model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_a_network_that_differs_is_not_published(atl_folder, one_runtime, tmp_path, monkeypatch) -> None:
    """The exported file is another network than the one it is compared with, by one tap of a convolution."""
    written = publish.write_onnx

    def tampered(network: Network, path: Path) -> None:
        if network.name == "denoiser":
            with torch.no_grad():
                weight = network.module.down[0][0].first.weight  # pyright: ignore
                before = weight.clone()
                weight[0, 0, 1, 1] += 1.0
            written(network, path)
            with torch.no_grad():
                weight.copy_(before)
        else:
            written(network, path)

    monkeypatch.setattr(publish, "write_onnx", tampered)
    with pytest.raises(CheckpointError, match=r"denoiser in float32 differs from PyTorch by .* at most 0.0001") as told:
        export_checkpoint(atl_folder, tmp_path / "out", one_runtime)
    assert "\n" not in str(told.value)
    assert list(tmp_path.glob("*out*")) == []
    assert list(tmp_path.glob(".*")) == []


def test_parity_is_measured_without_what_the_output_is_added_to() -> None:
    class Added(nn.Module):
        def forward(self, base: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return base[:, None] + 1e-3 * x

    base, x = torch.full((1, 5), 100.0), torch.randn(1, 3, 5)
    off = lambda base, x: base[:, None] + 1.1e-3 * x  # noqa: E731
    plain = Network("n", Added(), ("base", "x"), lambda random: (base, x))
    added = Network("n", Added(), ("base", "x"), lambda random: (base, x), added_to=0)
    assert parity.measure(plain, off, [(base, x)], 1.0).relative < 1e-4
    assert parity.measure(added, off, [(base, x)], 1.0).relative == pytest.approx(0.1, rel=0.05)


def test_values_that_are_not_finite_never_pass() -> None:
    network = Network("n", nn.Identity(), ("x",), lambda random: (torch.ones(1, 2),))
    found = parity.measure(network, lambda x: x * float("nan"), [(torch.ones(1, 2),)], 1e-4)
    with pytest.raises(CheckpointError, match="differs"):
        parity.check("n", "float32", found)


def test_int8_is_within_its_tolerance_and_smaller(atl_folder, runtime, tmp_path) -> None:
    exact = export_checkpoint(atl_folder, tmp_path / "exact", runtime)
    small = export_checkpoint(atl_folder, tmp_path / "small", runtime, int8=True)
    assert small.int8
    frames = sampling_presets(load_model(atl_folder).config.renderer)["balanced"].window_frames
    assert exact.window_frames == small.window_frames == frames
    kinds = small.parity["denoiser"]
    assert exact.parity["denoiser"]["float32"]["relative"] < kinds["float32"]["relative"] < parity.TOLERANCES["int8"]
    assert kinds["float32"]["inputs"] == 6  # of the pipeline: 1 and 2 steps, of two pictures
    assert small.parity["generator"] == exact.parity["generator"]
    weights = lambda export: export.network("denoiser").with_suffix(".onnx" if runtime == "onnx" else ".bin")  # noqa: E731
    assert weights(small).stat().st_size < weights(exact).stat().st_size


def test_the_finest_level_stays_out_of_int8() -> None:
    unet = UNet3D(3, 2, (16, 32, 48), (1, 2, 2))
    names = [f"/{place}/Conv" for place in ("stem", "down.0.0/first", "down.1.0/first", "shrink.0", "shrink.1",
             "attention/out", "up.0.1/second", "up.0.1/skip", "up.1.0/first", "up.1.1/first", "up.2.0/first", "grow.0",
             "grow.1", "out")]  # fmt: skip
    kept = [name.split("/")[1] for name in coarse_convolutions(names, unet)]
    assert kept == ["down.1.0", "shrink.1", "attention", "up.0.1", "grow.0"]
    with pytest.raises(CheckpointError, match="expected some but not all"):
        coarse_convolutions(["/other/Conv"], unet)


def test_its_names_are_the_exporters(atl_folder, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    from atldiff.export.graph import write_onnx

    network = networks_of(load_model(atl_folder), 4)[0]
    write_onnx(network, tmp_path / "network.onnx")
    names = [node.name for node in onnx.load(tmp_path / "network.onnx").graph.node if node.op_type == "Conv"]
    modules = {"/" + name.replace(".", "/") + "/Conv" for name, module in network.module.named_modules()
               if isinstance(module, nn.Conv2d)}  # fmt: skip
    assert {name.replace(".", "/") for name in names} == modules


class TestDoors:
    def test_an_export_is_replaced(self, atl_folder, one_runtime, tmp_path) -> None:
        export_checkpoint(atl_folder, tmp_path / "out", one_runtime)
        (tmp_path / "out" / "stale").touch()
        again = export_checkpoint(atl_folder, tmp_path / "out", one_runtime, window_frames=5)
        assert again.window_frames == 5
        assert not (tmp_path / "out" / "stale").exists()
        assert left_over(tmp_path) == []

    def test_an_export_can_be_exported(self, atl_folder, one_runtime, tmp_path) -> None:
        export_checkpoint(atl_folder, tmp_path / "one", one_runtime)
        two = export_checkpoint(tmp_path / "one", tmp_path / "two", one_runtime)
        assert two.sources == digests(atl_folder)

    def test_other_folders_are_refused(self, atl_folder, one_runtime, tmp_path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "thesis.tex").touch()
        for target, says in (
            (other, "holds other files"),
            (atl_folder, "holds the checkpoint"),
            (atl_folder.parent, "holds the checkpoint"),
            (other / "thesis.tex", "got a file"),
            (tmp_path / "no" / "out", "does not exist"),
        ):
            with pytest.raises(CheckpointError, match=says) as told:
                export_checkpoint(atl_folder, target, one_runtime)
            assert "\n" not in str(told.value)
        assert [path.name for path in other.iterdir()] == ["thesis.tex"]

    def test_windows_of_a_length_no_sampling_has(self, atl_folder, one_runtime, tmp_path) -> None:
        with pytest.raises(ValueError, match=r"window_frames: got 3, expected 4 to 64 \(10 in presets\)"):
            export_checkpoint(atl_folder, tmp_path / "out", one_runtime, window_frames=3)

    def test_a_denoiser_of_diffusers_is_refused(self, random_paper_model, one_runtime, tmp_path, monkeypatch) -> None:
        class Other(nn.Module):
            pass

        monkeypatch.setattr(publish, "load_model", lambda folder: model)
        import copy

        model = copy.deepcopy(random_paper_model)
        save_model(model, tmp_path / "source")
        model.renderer.unet = Other()
        with pytest.raises(CheckpointError, match="U-Net of diffusers"):
            export_checkpoint(tmp_path / "source", tmp_path / "out", one_runtime)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("missing", "int8"), [("onnx", False), ("onnxruntime", True), ("openvino", False)])
    def test_a_missing_package_is_named(self, atl_folder, tmp_path, monkeypatch, missing, int8) -> None:
        import importlib.util

        find = importlib.util.find_spec
        for module in ("runtime", "graph", "int8"):
            monkeypatch.setattr(
                sys.modules[f"atldiff.export.{module}"],
                "find_spec",
                lambda name: None if name == missing else find(name),
            )
        with pytest.raises(AtlDiffError, match=rf"{missing} is not installed; run pip install 'atldiff\[export\]'"):
            export_checkpoint(atl_folder, tmp_path / "out", "openvino", int8=int8)
        assert not (tmp_path / "out").exists()

    def test_damage_is_named(self, atl_folder, runtime, tmp_path) -> None:
        out = tmp_path / "out"
        export = export_checkpoint(atl_folder, out, runtime)
        sources = digests(out)
        with pytest.raises(CheckpointError, match="made of other weights"):
            read_export(out, {**sources, "model.safetensors": "0" * 64})
        file = export.network("denoiser")
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=f"{file.name}: missing or changed"):
            read_export(out, sources)
        with pytest.raises(CheckpointError, match="cannot open it") as told:
            open_network(file, export.runtime, ("x", "embedding"), dtype=torch.float32, streams=1)
        assert "\n" not in str(told.value)
        told_of = json.loads((out / "export.json").read_text())
        for change in ({"format_version": 2}, {"runtime": "tflite"}, {"surprise": 1}, {"files": {}}):
            (out / "export.json").write_text(json.dumps({**told_of, **change}))
            with pytest.raises(CheckpointError, match="export again"):
                read_export(out, sources)
        (out / "export.json").write_text("[")
        with pytest.raises(CheckpointError, match="export again"):
            read_export(out, sources)


def test_the_command(atl_folder, one_runtime, tmp_path, capsys) -> None:
    args = ["export", one_runtime, str(tmp_path / "out"), "--weights", str(atl_folder), "--window-frames", "8"]
    assert cli.run([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["folder"], told["runtime"], told["window_frames"]) == (str(tmp_path / "out"), one_runtime, 8)
    assert err == ""
    assert cli.run(args) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path / 'out'}: {one_runtime}, windows of 8 frames; largest relative difference")
    assert err.count("\n") == 1
    shutil.rmtree(tmp_path / "out")
    assert cli.run(["export", one_runtime, str(atl_folder), "--weights", str(atl_folder)]) == 2
    assert "holds the checkpoint" in capsys.readouterr().err
