from __future__ import annotations

import ast
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atldiff.checkpoint import BUNDLED, load_into, load_model, locate, read_config, save_model
from atldiff.config import (
    ATLConfig,
    GeneratorConfig,
    IdentityDiffusionConfig,
    KFLMConfig,
    PublishedConfig,
    RendererConfig,
)
from atldiff.errors import CheckpointError
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl_published.network import PublishedModel

if TYPE_CHECKING:
    from atldiff.methods.models import Model

torch.set_num_threads(1)

SOURCE = Path(__file__).resolve().parents[1] / "src" / "atldiff"
TINY = ATLConfig(
    generator=GeneratorConfig(components=4, identity_components=2, width=16, blocks=1),
    renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
)
PAPER = PublishedConfig(
    generator=KFLMConfig(features="log-mel", speech_model="", feature_width=16, feed_forward=16, components=4),
    renderer=IdentityDiffusionConfig(side=32, widths=(16, 32), blocks=(1, 1)),
)


@pytest.fixture(scope="module")
def model() -> ATLModel:
    torch.manual_seed(0)
    model = ATLModel(TINY)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.normal_()
    return model


@pytest.fixture
def folder(model: ATLModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "weights", card="# A model\n")
    return tmp_path / "weights"


def refused(folder: Path, *parts: str) -> str:
    """The message of loading a folder: one line that holds every part."""
    with pytest.raises(CheckpointError) as caught:
        load_model(locate(folder))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def edit_config(folder: Path, change) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def edit_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


class TestRoundTrip:
    def test_values(self, model: ATLModel, folder: Path) -> None:
        loaded = load_model(folder)
        assert loaded.config == TINY
        assert not loaded.training
        buffers = dict(model.named_buffers())
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == torch.float32
            wanted = model.state_dict()[name]
            assert torch.equal(tensor, wanted if name in buffers else wanted.half().float()), name

    def test_weights_are_halves_and_buffers_floats(self, model: ATLModel, folder: Path) -> None:
        buffers = {name for name, _ in model.named_buffers()}
        assert buffers
        for name, tensor in load_file(folder / "model.safetensors").items():
            assert tensor.dtype == (torch.float32 if name in buffers else torch.float16)

    def test_loading_and_saving_again_changes_nothing(self, folder: Path, tmp_path: Path) -> None:
        save_model(load_model(folder), tmp_path / "again", card="# A model\n")
        for name in ("config.json", "model.safetensors", "README.md"):
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    def test_nothing_else_is_left_in_the_folder(self, folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]

    def test_saving_over_a_checkpoint_keeps_its_card(self, model: ATLModel, folder: Path) -> None:
        save_model(model, folder)
        assert (folder / "README.md").read_text() == "# A model\n"

    def test_load_into_replaces_everything(self, model: ATLModel, folder: Path) -> None:
        other = ATLModel(TINY)
        load_into(other, folder)
        assert torch.equal(other.generator.basis, model.generator.basis)

    def test_a_bfloat16_model_in_channels_last_is_saved(self, tmp_path: Path) -> None:
        other = ATLModel(TINY)
        other.renderer.to(torch.bfloat16).to(memory_format=torch.channels_last)
        save_model(other, tmp_path / "other")
        loaded = load_model(tmp_path / "other").renderer.unet.stem.weight
        assert torch.equal(loaded, other.renderer.unet.stem.weight.half().float())


class TestBothMethods:
    def test_values_and_config(self, random_any_model: Model, tmp_path: Path) -> None:
        save_model(random_any_model, tmp_path / "weights", card="# A model\n")
        loaded = load_model(tmp_path / "weights")
        assert type(loaded) is type(random_any_model)
        assert loaded.config == random_any_model.config
        assert not loaded.training
        buffers, wanted = dict(random_any_model.named_buffers()), random_any_model.state_dict()
        assert loaded.state_dict().keys() == wanted.keys()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, wanted[name] if name in buffers else wanted[name].half().float()), name

    def test_in_full_precision_nothing_is_rounded(self, random_any_model: Model, tmp_path: Path) -> None:
        save_model(random_any_model, tmp_path / "weights", half=False)
        stored = load_file(tmp_path / "weights" / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
        loaded, wanted = load_model(tmp_path / "weights").state_dict(), random_any_model.state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())

    def test_a_frozen_identity_keeps_its_running_statistics(self, tmp_path: Path) -> None:
        """ResNet-50 of the released renderer: its buffers are counted in whole numbers and in float32."""
        renderer = replace(PAPER.renderer, identity="resnet50", identity_tokens=64, identity_width=32)
        model = PublishedModel(replace(PAPER, renderer=renderer))
        network: Any = model.renderer.identity.network
        network.bn1.running_mean.normal_()
        network.bn1.num_batches_tracked.fill_(4097)
        save_model(model, tmp_path / "weights")
        again: Any = load_model(tmp_path / "weights")
        loaded = again.renderer.identity.network
        assert torch.equal(loaded.bn1.running_mean, network.bn1.running_mean)
        assert int(loaded.bn1.num_batches_tracked) == 4097
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    def test_weights_of_one_method_under_the_other_s_config(
        self, random_model: ATLModel, random_paper_model: PublishedModel, tmp_path: Path
    ) -> None:
        save_model(random_model, tmp_path / "atl")
        save_model(random_paper_model, tmp_path / "paper")
        (tmp_path / "atl" / "config.json").write_bytes((tmp_path / "paper" / "config.json").read_bytes())
        refused(tmp_path / "atl", "missing tensor", "expected exactly the tensors its config.json describes")

    def test_a_nested_field_is_named(self, random_paper_model: PublishedModel, tmp_path: Path) -> None:
        save_model(random_paper_model, tmp_path)
        edit_config(tmp_path, lambda values: values["renderer"]["schedule"].update(prediction="noise"))
        refused(tmp_path, "config field prediction: got 'noise', expected 'sample', 'epsilon' or 'v_prediction'")
        edit_config(tmp_path, lambda values: values["renderer"]["schedule"].update(prediction="sample", wings=2))
        refused(tmp_path, "config schedule: unknown field 'wings'")


class TestConfigFile:
    def test_unknown_field(self, folder: Path) -> None:
        edit_config(folder, lambda values: values["generator"].update(wings=2))
        refused(folder, "config.json", "generator", "unknown field 'wings'")

    def test_unknown_field_at_the_top(self, folder: Path) -> None:
        edit_config(folder, lambda values: values.update(device="cuda"))
        refused(folder, "unknown field 'device'")

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [("generator", "width", 17), ("renderer", "side", 81), ("renderer", "noise_gain", -1)],
    )
    def test_wrong_value(self, folder: Path, part: str, name: str, value: object) -> None:
        edit_config(folder, lambda values: values[part].update({name: value}))
        refused(folder, f"config field {name}: got {value}, expected")

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [("generator", "components", "4"), ("generator", "dropout", None), ("renderer", "widths", 64),
         ("renderer", "origin", 5), ("generator", "components", 4.5), ("renderer", "origin", ["a", "b"])],
    )  # fmt: skip
    def test_wrong_type(self, folder: Path, part: str, name: str, value: object) -> None:
        edit_config(folder, lambda values: values[part].update({name: value}))
        refused(folder, f"config field {name}:")

    @pytest.mark.parametrize(("name", "value"), [("format_version", 99), ("method", "other")])
    def test_another_format_or_method(self, folder: Path, name: str, value: object) -> None:
        edit_config(folder, lambda values: values.update({name: value}))
        refused(folder, name, str(value))
        edit_config(folder, lambda values: values.pop(name))
        refused(folder, name, "got None" if name == "format_version" else "got ''")

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"generator": []}'])
    def test_not_a_config(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        refused(folder, "config.json")

    def test_bytes_that_are_no_text(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(b"\xff\xfe\x00")
        refused(folder, "config.json")

    def test_missing(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        refused(folder, "no config.json", "model.safetensors")

    def test_read_config(self, folder: Path) -> None:
        assert read_config(folder) == TINY


class TestWeightsFile:
    NAME = "renderer.unet.stem.weight"

    def test_missing_file(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        refused(folder, "no model.safetensors")

    def test_missing_tensor(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors.pop(self.NAME))
        refused(folder, f"missing tensor '{self.NAME}' (1 in all)")

    def test_unknown_tensor(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
        refused(folder, "unknown tensor 'extra.weight' (1 in all)")

    def test_wrong_shape(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors.update({self.NAME: torch.zeros(16, 1, 3, 3)}))
        refused(folder, self.NAME, "(16, 1, 3, 3)", "expected (16, 256, 3, 3)")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, folder: Path, value: float) -> None:
        edit_weights(folder, lambda tensors: tensors["generator.basis"].view(-1)[5].fill_(value))
        refused(folder, "'generator.basis'", "NaN or infinity")

    def test_weights_of_another_configuration(self, folder: Path) -> None:
        edit_config(folder, lambda values: values["generator"].update(width=32))
        refused(folder, "has shape")

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 200, pickle.dumps({"a": 1})])
    def test_garbage(self, folder: Path, content: bytes) -> None:
        (folder / "model.safetensors").write_bytes(content)
        refused(folder, "not a safetensors file", "pickles are never loaded")

    def test_cut_short(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        refused(folder, "not a safetensors file")

    def test_a_pickle_in_the_weights_place_is_not_run(self, folder: Path, tmp_path: Path) -> None:
        trap = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> tuple:
                return Path.touch, (trap,)

        buffer = io.BytesIO()
        torch.save(Trap(), buffer)
        (folder / "model.safetensors").write_bytes(buffer.getvalue())
        refused(folder, "not a safetensors file")
        assert not trap.exists()

    def test_a_failed_load_leaves_the_model_as_it_was(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors["generator.basis"].view(-1)[5].fill_(float("nan")))
        model = ATLModel(TINY)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(CheckpointError):
            load_into(model, folder)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])


class TestLocate:
    def test_a_folder(self, folder: Path) -> None:
        assert locate(folder) == folder
        assert locate(str(folder)) == folder

    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl", ".PT"])
    def test_pickles_are_refused_by_name(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"model{suffix}"
        torch.save({"weight": torch.zeros(2)}, path)
        for name in (path, f"nowhere{suffix}"):
            with pytest.raises(CheckpointError, match="pickles are never loaded"):
                locate(name)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "model.weights"
        path.write_bytes(b"x")
        with pytest.raises(CheckpointError, match="may hold a pickle"):
            locate(path)

    def test_the_weights_file_instead_of_its_folder(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=r"got a file, expected the folder with config\.json"):
            locate(folder / "model.safetensors")

    def test_unknown_name_lists_what_is_bundled(self) -> None:
        for name in ("atl-dif", "a/b/c", "no such folder"):
            with pytest.raises(CheckpointError, match="no such folder") as caught:
                locate(name)
            assert all(bundled in str(caught.value) for bundled in BUNDLED)
            assert "\n" not in str(caught.value)

    def test_bundled_names_lie_in_the_package(self) -> None:
        for name in BUNDLED:
            assert locate(name) == SOURCE / "weights" / name

    def test_hub_failures_are_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        def fails(*arguments, **settings) -> str:
            raise OSError("no route\nto the host")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
        with pytest.raises(CheckpointError, match=r"checkpoint owner/name: cannot be fetched .*no route") as caught:
            locate("owner/name")
        assert "\n" not in str(caught.value)

    def test_only_our_files_are_fetched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import huggingface_hub

        asked = {}

        def fetch(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
            asked.update(hub_id=hub_id, revision=revision, patterns=allow_patterns)
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
        assert locate("owner/name", "v2") == tmp_path
        assert asked["hub_id"] == "owner/name"
        assert asked["revision"] == "v2"
        ours = ["README.md", "config.json", "model.safetensors", "motion.safetensors"]
        exported = ["*.onnx", "graphs.json"]
        assert sorted(asked["patterns"]) == sorted([*ours, *exported])


def unsafe_uses(tree: ast.AST) -> list[str]:
    """Return each use of something that unpickles: pickle and its kin, torch.load, NumPy with allow_pickle=True.

    torch.load(..., weights_only=True), said in so many words, gives tensors and nothing else.
    """
    found = []
    safe = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "torch.load"
        and any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
    }
    for node in ast.walk(tree):
        if id(node) in safe:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLING]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if name.split(".")[0] in PICKLING or name == "torch.load"]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.hub", "torch.jit.load"):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("np.load"):
            allowed = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if allowed.get("allow_pickle") != "False":
                found.append(ast.unparse(node))
    return found


PICKLING = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_nothing_in_the_package_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        assert unsafe_uses(ast.parse(path.read_text(encoding="utf-8"))) == [], path


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import load", "torch.load(path)", "from torch import load", "np.load(path)",
     "np.load(path, allow_pickle=True)", "import torch; read = torch.load",
     "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)", "torch.load(path, mmap=True)"],
)  # fmt: skip
def test_the_check_sees_what_unpickles(line: str) -> None:
    assert unsafe_uses(ast.parse(line))


def test_the_check_lets_tensors_be_read() -> None:
    assert unsafe_uses(ast.parse("torch.load(path, map_location='cpu', weights_only=True)")) == []
