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
from atldiff.checkpoint import load_model, locate
from atldiff.config import BUNDLED
from atldiff.diffusion.unet3d import UNet3D
from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.export import parity, publish
from atldiff.export.int8 import bearing_convolutions
from atldiff.export.publish import export_checkpoint, networks_of
from atldiff.export.record import recorded
from atldiff.loading import load
from atldiff.runtime import choose
from atldiff.runtime.choose import RUNTIMES, is_installed, open_network
from atldiff.runtime.graphs import Graph, read_graphs, sources_of
from atldiff.torch_networks import Call, TorchNetwork

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)


def test_an_export_is_a_checkpoint_and_its_networks(checkpoint_folder, exported) -> None:
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (exported / name).read_bytes() == (checkpoint_folder / name).read_bytes()
    graphs = read_graphs(exported)
    assert {"denoiser", "generator"} <= graphs.networks.keys() == networks_of(load_model(exported)).keys()
    assert sorted(path.name for path in exported.iterdir()) == sorted(
        ["README.md", "config.json", "graphs.json", "model.safetensors", *(f"{name}.onnx" for name in graphs.networks)]
    )
    assert [path.name for path in exported.parent.iterdir() if ".partial" in path.name] == []
    assert graphs.sources == sources_of(checkpoint_folder)
    for name in graphs.networks:
        assert set(graphs.parity[name]) == {runtime for runtime in RUNTIMES if is_installed(runtime)}
        for found in graphs.parity[name].values():
            assert found["tolerance"] == parity.TOLERANCES["float32"] == 1e-4
            assert 0 <= found["relative"] < 1e-4
            assert found["inputs"] >= 1
    assert graphs.versions["torch"] == torch.__version__


def test_networks_give_what_pytorch_gives(exported, runtime) -> None:
    model = load_model(exported)
    calls = recorded(model, seed=77)
    for name, graph in read_graphs(exported).networks.items():
        opened = open_network(graph, runtime, half=False, streams=2)
        exact = TorchNetwork(networks_of(model)[name], torch.device("cpu"))
        inputs = calls[name][-1]
        wanted, got = exact(*inputs), opened(*inputs)
        assert len(wanted) == len(got)
        for one, other in zip(wanted, got, strict=True):
            assert other.dtype == np.float32
            assert np.allclose(one, other, atol=1e-4 * max(1.0, float(np.abs(one).max()))), name
        for index, value in enumerate(inputs):  # every input has an effect: none was folded away
            if value.dtype == np.float32 and value.std() > 0:
                changed = [*inputs]
                changed[index] = value + np.float32(0.5)
                assert any((a != b).any() for a, b in zip(opened(*changed), got, strict=True)), (name, index)


def test_exporting_leaves_the_model_in_evaluation_mode(atl_folder, exporter, tmp_path) -> None:
    fused = torch.backends.mha.get_fastpath_enabled()
    export_checkpoint(atl_folder, tmp_path / "out")
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_a_network_that_differs_is_not_published(atl_folder, exporter, tmp_path, monkeypatch) -> None:
    """The file is another network than the one it is compared with, by one tap of a convolution."""
    load = publish.load_model

    def tampered(folder: Path):
        model = load(folder)
        with torch.no_grad():
            model.renderer.unet.down[0][0].first.weight[0, 0, 1, 1] += 1.0
        return model

    monkeypatch.setattr(publish, "load_model", tampered)
    with pytest.raises(CheckpointError, match=r"denoiser in onnx differs from PyTorch by .* at most 0.0001") as told:
        export_checkpoint(atl_folder, tmp_path / "out")
    assert "\n" not in str(told.value)
    assert list(tmp_path.glob("*out*")) == []
    assert list(tmp_path.glob(".*")) == []


def test_parity_is_of_what_changes_from_call_to_call() -> None:
    base = np.full((1, 5), 1.0, np.float32)
    draws = [np.random.default_rng(seed).standard_normal((1, 3, 5)).astype(np.float32) for seed in range(4)]
    exact = lambda x: [base[:, None] + np.float32(0.1) * x]  # noqa: E731
    off = lambda x: [base[:, None] + np.float32(0.11) * x]  # noqa: E731
    assert parity.measure(exact, off, [(draws[0],)], 1.0).relative < 0.03
    assert parity.measure(exact, off, [(x,) for x in draws], 1.0).relative == pytest.approx(0.1, rel=0.4)


def test_values_that_are_not_finite_never_pass() -> None:
    found = parity.measure(lambda x: [x], lambda x: [x * np.float32("nan")], [(np.ones((1, 2), np.float32),)], 1e-4)
    with pytest.raises(CheckpointError, match="differs"):
        parity.check("n", "onnx", found)


def test_int8_is_within_its_tolerance(atl_folder, exporter, tmp_path) -> None:
    exact = export_checkpoint(atl_folder, tmp_path / "exact")
    small = export_checkpoint(atl_folder, tmp_path / "small", int8=True)
    assert small.has_int8()
    assert not exact.has_int8()
    for runtime, found in small.parity["denoiser-int8"].items():
        assert exact.parity["denoiser"][runtime]["relative"] < found["relative"] < parity.TOLERANCES["int8"]
    assert small.parity["generator"] == exact.parity["generator"]
    assert small.int8["denoiser"].file.stat().st_size < 3 * small.networks["denoiser"].file.stat().st_size  # no weights
    weights = tmp_path / "small" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert not read_graphs(tmp_path / "small").has_int8()  # whose scales are of other weights


def test_int8_is_taken_where_it_saves_time_or_is_asked_for(atl_folder, exporter, tmp_path, monkeypatch) -> None:
    small = export_checkpoint(atl_folder, tmp_path / "small", int8=True).folder
    for dots in (True, False):
        monkeypatch.setattr(choose, "integer_dot_products", lambda dots=dots: dots)
        assert load(small, small, backend="onnx").compute.dtype == ("int8" if dots else "float32")
    assert load(small, small, backend="onnx", dtype="float32").compute.dtype == "float32"
    asked = load(small, small, backend="onnx", dtype="int8")
    exact = load(small, small, backend="onnx", dtype="float32")
    calls = recorded(load_model(small), seed=2)["denoiser"]
    (told,), (wanted,) = (each.painter.networks["denoiser"](*calls[0]) for each in (asked, exact))
    assert 0 < np.linalg.norm(told - wanted) < 0.05 * np.linalg.norm(wanted)
    with pytest.raises(ValueError, match="int8 with PyTorch"):
        load(small, small, backend="torch", dtype="int8")
    plain = export_checkpoint(atl_folder, tmp_path / "plain").folder
    with pytest.raises(ValueError, match="no networks in 8 bits"):
        load(plain, plain, backend="onnx", dtype="int8")


@pytest.mark.parametrize(
    "name", [name if name == "atl-diff-open" else pytest.param(name, marks=pytest.mark.slow) for name in BUNDLED]
)
def test_bundled_graphs_are_those_of_the_bundled_weights(name: str) -> None:
    folder = locate(name)
    graphs, model = read_graphs(folder), load_model(folder)
    calls = recorded(model, seed=3)
    assert graphs.networks.keys() == networks_of(model).keys()
    for each, module in networks_of(model).items():
        exact = TorchNetwork(module, torch.device("cpu"))
        opened = open_network(graphs.networks[each], "onnx", half=False, streams=1)
        parity.check(each, "onnx", parity.measure(exact, opened, calls[each][-2:], 1e-4, each))


def test_what_makes_pixels_stays_out_of_int8() -> None:
    unet = UNet3D(3, 2, (16, 32, 48), (1, 2, 2), head="resize")
    names = [f"/{place}/Conv" for place in ("stem", "down.0.0/first", "down.1.0/first", "shrink.0", "shrink.1",
             "attention/out", "up.0.1/second", "up.0.1/skip", "up.1.0/first", "up.1.1/first", "up.2.0/first",
             "up.2.0/skip", "grow.0", "grow.1", "enlarge.0", "enlarge.1", "out")]  # fmt: skip
    left = [name.split("/")[1] for name in names if name not in bearing_convolutions(names, unet)]
    assert left == ["up.2.0", "enlarge.0", "enlarge.1", "out"]
    assert "/up.2.0/first/Conv" in bearing_convolutions(names, unet)
    with pytest.raises(CheckpointError, match="expected some but not all"):
        bearing_convolutions(["/other/Conv"], unet)


class TestDoors:
    def test_an_export_is_replaced(self, atl_folder, exporter, tmp_path) -> None:
        export_checkpoint(atl_folder, tmp_path / "out")
        (tmp_path / "out" / "stale").touch()
        export_checkpoint(atl_folder, tmp_path / "out")
        assert not (tmp_path / "out" / "stale").exists()
        assert [path.name for path in tmp_path.iterdir() if ".partial" in path.name] == []

    def test_other_folders_are_refused(self, atl_folder, exporter, tmp_path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "thesis.tex").touch()
        for target, says in (
            (other, "but other files"),
            (atl_folder, "holds the checkpoint"),
            (atl_folder.parent, "holds the checkpoint"),
            (other / "thesis.tex", "got a file"),
            (tmp_path / "no" / "out", "does not exist"),
        ):
            with pytest.raises(CheckpointError, match=says) as told:
                export_checkpoint(atl_folder, target)
            assert "\n" not in str(told.value)
        assert [path.name for path in other.iterdir()] == ["thesis.tex"]

    def test_a_missing_package_is_named(self, atl_folder, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(sys.modules["atldiff.export.graph"], "find_spec", lambda name: None)
        with pytest.raises(AtlDiffError, match=r"onnx is not installed; run pip install 'atldiff\[torch\]'"):
            export_checkpoint(atl_folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_damage_is_named(self, atl_folder, exporter, runtime, tmp_path) -> None:
        out = tmp_path / "out"
        graph = export_checkpoint(atl_folder, out).networks["denoiser"]
        inputs = [np.zeros([5 if isinstance(n, str) else n for n in each.shape], each.dtype) for each in graph.inputs]
        whole = graph.file.read_bytes()
        graph.file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="cannot open it") as told:
            open_network(graph, runtime, half=False, streams=1)(*inputs)
        assert "\n" not in str(told.value)
        graph.file.unlink()
        with pytest.raises(CheckpointError, match=r"denoiser.onnx: missing; run `atldiff export`"):
            read_graphs(out)
        graph.file.write_bytes(whole)
        read_graphs(out)
        told_of = json.loads((out / "graphs.json").read_text())
        for change in ({"format_version": 1}, {"surprise": 1}, {"networks": []}):
            (out / "graphs.json").write_text(json.dumps({**told_of, **change}))
            with pytest.raises(CheckpointError, match="run `atldiff export`"):
                read_graphs(out)
        (out / "graphs.json").write_text("[")
        with pytest.raises(CheckpointError, match="run `atldiff export`"):
            read_graphs(out)


def test_lengths_that_may_differ(tmp_path) -> None:
    from atldiff.runtime.graphs import Input

    graph = Graph(tmp_path / "n.onnx", (Input("x", "float32", (1, "n0", 4)), Input("y", "float32", ("n0",))))
    assert graph.sizes([np.zeros((1, 3, 4)), np.zeros(3)]) == {"n0": 3}
    for wrong in (
        [np.zeros((1, 3, 4)), np.zeros(2)],
        [np.zeros((1, 3, 5)), np.zeros(3)],
        [np.zeros((3, 4)), np.zeros(3)],
    ):
        with pytest.raises(ValueError, match="has shape"):
            graph.sizes(wrong)


def test_the_command(atl_folder, exporter, tmp_path, capsys) -> None:
    args = ["export", str(tmp_path / "out"), "--weights", str(atl_folder)]
    assert cli.run([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["folder"], told["int8"]) == (str(tmp_path / "out"), {})
    assert err == ""
    assert cli.run(args) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{tmp_path / 'out'}: largest relative difference from PyTorch: ")
    assert err.count("\n") == 1
    shutil.rmtree(tmp_path / "out")
    assert cli.run(["export", str(atl_folder), "--weights", str(atl_folder)]) == 2
    assert "holds the checkpoint" in capsys.readouterr().err


def test_a_module_is_called_by_its_arguments() -> None:
    from atldiff.export.graph import _argument_names

    class Module(nn.Module):
        def forward(self, x: torch.Tensor, level: torch.Tensor, *told: torch.Tensor) -> torch.Tensor:
            return x

    assert _argument_names(Module(), 4) == ["x", "level", "told0", "told1"]
    assert _argument_names(Call(Module(), "forward"), 3) == ["x", "level", "told0"]
