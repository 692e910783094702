from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from atldiff import cli
from atldiff.checkpoint import load_model, locate
from atldiff.config import PAPER_PRESETS, ConditionUNetConfig, ScheduleConfig
from atldiff.errors import CheckpointError
from atldiff.files import sha256
from atldiff.released.convert import import_weights, released_config
from atldiff.released.read import read_lightning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atldiff.methods.atl_published.network import PublishedModel

torch.set_num_threads(1)


@dataclass(frozen=True)
class Imported:
    folder: Path
    said: dict[str, Any]
    model: PublishedModel


@pytest.fixture(scope="module", autouse=True)
def _small_speech_model(authors: Any) -> Iterator[None]:
    """All but the 94 M parameters of wav2vec 2.0 is at its published size."""
    with pytest.MonkeyPatch.context() as patch:
        kind, config = type(authors.speech), authors.speech.config
        patch.setattr("atldiff.methods.atl_published.generator.new_speech_model", lambda: kind(config).eval())
        yield


def arguments(authors: Any, **others: object) -> list[str]:
    given = {"--au2lm": authors.au2lm, "--lm2face": authors.lm2face, "--resnet50": authors.resnet50, **others}
    return ["import-weights", *(str(part) for pair in given.items() for part in pair)]


@pytest.fixture(scope="module")
def imported(authors: Any, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("imported") / "out"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.run([*arguments(authors), "-o", str(folder), "--noise-kernel", "11", "--json"]) == 0
    model = load_model(folder)
    return Imported(folder, json.loads(out.getvalue()), model)  # pyright: ignore[reportArgumentType]


def test_the_checkpoint_says_what_it_is(imported: Imported, authors: Any) -> None:
    config = imported.model.config
    assert config.generator == PAPER_PRESETS["released"].generator
    assert config.renderer.blur_kernel == 11
    assert config.renderer.unet.block_out_channels == (16, 32)
    assert config.renderer.schedule == ScheduleConfig(
        prediction="epsilon", spacing="leading", train_steps=500, clip_sample=1.5
    )
    card = (imported.folder / "README.md").read_text()
    for path in (authors.au2lm, authors.resnet50, authors.lm2face / "unet" / "config.json"):
        assert imported.said["files"][str(path)] == sha256(path)
        assert sha256(path) in card
    assert "Licence: unknown" in card
    assert imported.said["parameters"] == sum(p.numel() for p in imported.model.parameters())
    assert sorted(path.name for path in imported.folder.parent.iterdir()) == ["out"]


def test_the_landmark_module_gives_the_originals_output(imported: Imported, authors: Any) -> None:
    torch.manual_seed(1)
    samples, landmarks = 0.1 * torch.randn(1, 16000), torch.rand(1, 2, 68)
    generator = imported.model.generator
    with torch.inference_mode():
        features = authors.speech(samples).last_hidden_state
        wanted = authors.kflm(features, landmarks)
        ours = generator(samples, landmarks.transpose(1, 2), torch.tensor([1]))
    assert wanted.std() > 0.01
    assert ours.shape == (1, 30, 68, 2)
    assert (ours.transpose(2, 3) - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())


def test_the_renderer_gives_the_originals_output(imported: Imported, authors: Any) -> None:
    torch.manual_seed(2)
    x, picture, level = torch.rand(1, 3, 4, 16, 16), torch.rand(1, 3, 64, 64), torch.tensor(375)
    with torch.inference_mode():
        tokens = authors.resnet(picture).reshape(1, 64, 32)
        # The released pipeline's call, on (B, C, H, W, T).
        wanted = authors.unet(x.permute(0, 1, 3, 4, 2), level, tokens, class_labels=torch.tensor([3])).sample
        described = imported.model.renderer.describe(picture)
        ours = imported.model.renderer.predict(x, level[None], described, torch.tensor([3]))
    assert wanted.std() > 0.01
    assert torch.allclose(described, tokens, atol=1e-6)
    assert torch.allclose(ours, wanted.permute(0, 1, 4, 2, 3), atol=1e-5)


def test_the_basis_is_the_bundled_one(imported: Imported) -> None:
    bundled = load_file(locate("atl-diff") / "model.safetensors")
    assert torch.equal(imported.model.generator.basis, bundled["generator.basis"])
    assert torch.equal(imported.model.generator.scale, bundled["generator.scale"])


def test_nothing_is_lost_to_half_precision(imported: Imported, authors: Any) -> None:
    held = load_file(imported.folder / "model.safetensors")
    assert torch.equal(held["generator.kflm.face_gate.weight"],
                       authors.kflm.R2[0].weight)  # fmt: skip


def changed(authors: Any, folder: Path, **changes: torch.Tensor | None) -> Path:
    """The landmark module's file with tensors replaced, added or (None) taken away."""
    state: dict[str, Any] = {**read_lightning(authors.au2lm), **changes}
    path = folder / "au2lm.ckpt"
    torch.save({"state_dict": {name: tensor for name, tensor in state.items() if tensor is not None}}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"KAN.layers.1.spline_scaler": None, "w2v.encoder.transformer.pos_conv_embed.conv.weight_g": None},
            [
                "missing tensors KAN.layers.1.spline_scaler, w2v.encoder.transformer.pos_conv_embed.conv.weight_g",
                "(2 in all)",
            ],
        ),
        (
            {
                "head.bias": torch.ones(1),
                "w2v.aux.weight": torch.ones(2),
                "trans_gb.transformer_encoder.0.layers.1.norm1.bias": torch.ones(1),
                "lstm.weight_ih_l1": torch.ones(1),
            },
            [
                "unknown tensors head.bias, lstm.weight_ih_l1, trans_gb.transformer_encoder.0.layers.1.norm1.bias, "
                "w2v.aux.weight (4 in all)"
            ],
        ),
        ({"R2.0.weight": torch.ones(30, 147)}, ["R2.0.weight has shape (30, 147), expected (30, 147, 1, 1)"]),
        ({"trans_ct.conv.bias": torch.full((49,), float("nan"))}, ["trans_ct.conv.bias holds NaN"]),
        (
            {"w2v.encoder.feature_projection.projection.bias": None},
            ["w2v.encoder.feature_projection.projection.bias (1"],
        ),
    ],
)
def test_other_landmark_tensors_are_named_as_the_authors_do(
    authors: Any, tmp_path: Path, changes: dict[str, torch.Tensor | None], parts: list[str]
) -> None:
    path = changed(authors, tmp_path, **changes)
    with pytest.raises(CheckpointError) as caught:
        import_weights(path, authors.lm2face, tmp_path / "out", resnet50=str(authors.resnet50))
    assert str(caught.value).startswith(f"au2lm {path}: ")
    for part in parts:
        assert part in str(caught.value)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["au2lm.ckpt"]


def test_a_resnet_of_other_tensors_is_named(authors: Any, tmp_path: Path) -> None:
    tensors = load_file(authors.resnet50)
    tensors["layer5.0.conv1.weight"] = tensors.pop("bn1.running_mean")
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(
        CheckpointError, match=r"missing tensor bn1.running_mean .*unknown tensor layer5.0.conv1.weight"
    ):
        import_weights(
            authors.au2lm, authors.lm2face, tmp_path / "out", resnet50=str(tmp_path / "other.safetensors")
        )  # fmt: skip


@pytest.mark.parametrize("field", ["in_channels", "out_channels", "cross_attention_dim"])
def test_a_unet_that_the_released_call_does_not_fit(field: str) -> None:
    with pytest.raises(CheckpointError, match=f"{field} is 64"):
        released_config(ConditionUNetConfig(**{field: 64}), ScheduleConfig(), 25, 20)


def error_of(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    assert cli.run(args) == 2
    text = capsys.readouterr().err
    assert text.startswith("atldiff: error: ")
    assert text.count("\n") == 1
    return text


def test_half_a_checkpoint_is_refused(authors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert "got no --lm2face," in error_of(capsys, ["import-weights", "--au2lm", str(authors.au2lm), *out])
    assert "got no --au2lm," in error_of(capsys, ["import-weights", "--lm2face", str(authors.lm2face), *out])
    assert "got no -o," in error_of(capsys, arguments(authors))


def test_what_is_there_already_stays(authors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    assert "exists" in error_of(capsys, [*arguments(authors), "-o", str(tmp_path / "mine")])
    assert (tmp_path / "mine" / "file").read_text() == "precious"
    assert "does not exist" in error_of(capsys, [*arguments(authors), "-o", str(tmp_path / "none" / "out")])


def test_wrong_paths(authors: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "out")]
    folder = tmp_path / "lm2face"
    folder.mkdir()
    assert "no unet/config.json" in error_of(capsys, [*arguments(authors, **{"--lm2face": folder}), *out])
    assert "no such file" in error_of(capsys, [*arguments(authors, **{"--au2lm": tmp_path / "x.ckpt"}), *out])
    assert "ResNet-50 weights" in error_of(capsys, [*arguments(authors, **{"--resnet50": tmp_path / "x.pth"}), *out])
