"""A renderer over published networks, tiny random ones: its training, its checkpoint, the options that name them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint, cli
from atldiff.commands import train
from atldiff.config import (
    DIFFTALKER_PRESETS,
    TRAIN_PRESETS,
    CodecConfig,
    CompletionConfig,
    DiffTalkerConfig,
    LatentRendererConfig,
    TrainConfig,
)
from atldiff.data.manifest import Manifest
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import CheckpointError
from atldiff.landmarks.shape import mean_shape
from atldiff.methods.models import painter_of
from atldiff.training.checks import check_mouth_window
from atldiff.training.run import train_stage
from atldiff.video.window import WindowGeometry

torch.set_num_threads(1)
diffusers = pytest.importorskip("diffusers")

GENERATOR = CompletionConfig(width=16, layers=1, heads=2, feed_forward=16, components=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), layers_per_block=1,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=8, attention_head_dim=4,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")  # fmt: skip
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taesd")
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1,) * 3,
        num_decoder_blocks=(1,) * 3, latent_channels=6,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=24)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    monkeypatch.setattr("atldiff.training.latent_renderer_task.PROBE_BATCHES", 1)
    monkeypatch.setattr("atldiff.training.latent_renderer_task.PROBE_CLIPS", 1)


def config_of(renderer: LatentRendererConfig) -> TrainConfig:
    return TrainConfig(
        stage="renderer", model=DiffTalkerConfig(generator=GENERATOR, renderer=renderer), steps=2, clips_per_batch=2,
        frames=2, optimiser="adamw", learning_rate=1e-3, warmup_steps=1, bfloat16=False,
    )  # fmt: skip


def stable_diffusion(base: Path) -> TrainConfig:
    return config_of(
        LatentRendererConfig(
            backend="stable-diffusion", base=str(base), resolution=64, reference="still", pixel_weight=0.0,
            codec=CodecConfig(kind="diffusers", source=str(base), factor=8, channels=4),
            schedule=DIFFTALKER_PRESETS["stable-diffusion"].renderer.schedule,
        )
    )  # fmt: skip


def run(config: TrainConfig, manifest: Manifest, out: Path, **settings) -> list[float]:
    losses: list[float] = []
    train_stage(
        config, manifest.folder, out, workers=0,
        progress=lambda done, total, scalars: losses.append(scalars["loss"]), **settings,
    )  # fmt: skip
    return losses


@pytest.fixture(scope="module")
def trained(base: Path, prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
        patch.setattr("atldiff.training.latent_renderer_task.PROBE_BATCHES", 1)
        patch.setattr("atldiff.training.latent_renderer_task.PROBE_CLIPS", 1)
        losses = run(stable_diffusion(base), prepared, out)
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    return out


def face(opening: float = 0.0) -> np.ndarray:
    """Return landmarks (478, 2) in the window's pixels, the lower lip let down by a share of the eyes' distance."""
    shape = mean_shape()[:, :2].copy()
    shape[shape[:, 1] > shape[13, 1], 1] += opening
    return ((shape - shape[13]) * 30 + 32).astype(np.float32)


class TestStableDiffusion:
    def test_only_the_control_net_is_in_the_checkpoint(self, base: Path, trained: Path) -> None:
        tensors = load_file(trained / "checkpoint" / "model.safetensors")
        ours = {name for name in tensors if name.startswith("renderer.")}
        assert ours
        assert all(name.startswith("renderer.denoiser.controlnet.") for name in ours)
        for part in ("controlnet_down_blocks.0.weight", "controlnet_mid_block.weight"):
            assert tensors[f"renderer.denoiser.controlnet.{part}"].any()  # no longer zero
        probe = json.loads((trained / "probe.jsonl").read_text().splitlines()[-1])
        assert np.isfinite([value for name, value in probe.items() if name != "step"]).all()

    def test_it_renders(self, trained: Path) -> None:
        painter = painter_of(checkpoint.load_model(trained / "checkpoint").renderer)  # pyright: ignore
        identity = np.random.default_rng(0).random((1, 3, 64, 64), np.float32) * 2 - 1
        source = face()[None]

        def frames(seed: int, opening: float) -> np.ndarray:
            target = np.stack([face(0.0), face(opening)])[None]
            made, base = painter.render_window(identity, source, target, painter.window_noise(seed, 0, 2), 2)
            assert made.shape == base.shape == (1, 3, 2, 64, 64)
            assert np.isfinite(made).all()
            return made

        made = frames(1, 0.1)
        assert np.array_equal(made, frames(1, 0.1))
        assert not np.array_equal(made, frames(2, 0.1))
        other = frames(1, 0.3)
        assert np.allclose(made[:, :, 0], other[:, :, 0], atol=1e-5)
        assert not np.allclose(made[:, :, 1], other[:, :, 1], atol=1e-2)

    def test_the_drawing_reaches_the_frames(self, trained: Path) -> None:
        """The control branch is heard: with a louder one the same prior becomes other frames."""
        renderer = checkpoint.load_model(trained / "checkpoint").renderer
        painter = painter_of(renderer)  # pyright: ignore[reportArgumentType]
        identity, noise = np.zeros((1, 3, 64, 64), np.float32), painter.window_noise(1, 0, 1)
        target = face(0.2)[None, None]
        made, _ = painter.render_window(identity, face()[None], target, noise, 2)
        for zero in renderer.denoiser.controlnet.controlnet_down_blocks:
            zero.weight.data.mul_(100)
        other, _ = painter.render_window(identity, face()[None], target, noise, 2)
        assert not np.allclose(made, other, atol=1e-4)

    def test_resumed_it_is_the_same(self, base: Path, prepared: Manifest, trained: Path, tmp_path: Path) -> None:
        config = stable_diffusion(base)
        for stop in (1, 2):
            run(config, prepared, tmp_path, stop_after=stop)
        first, second = (load_file(out / "state.safetensors") for out in (trained, tmp_path))
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        weights = [(out / "checkpoint" / "model.safetensors").read_bytes() for out in (trained, tmp_path)]
        assert weights[0] == weights[1]

    def test_in_bfloat16(self, base: Path, prepared: Manifest, tmp_path: Path) -> None:
        assert np.isfinite(run(replace(stable_diffusion(base), bfloat16=True, steps=1), prepared, tmp_path)).all()
        assert checkpoint.load_model(tmp_path / "checkpoint").renderer.codec.dtype == torch.float32

    def test_a_checkpoint_whose_base_is_gone(self, base: Path, trained: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(trained / "checkpoint", tmp_path / "checkpoint")
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace(str(base), str(tmp_path / "gone")))
        with pytest.raises(CheckpointError, match="gone: no such folder"):
            checkpoint.load_model(folder)


def test_our_denoiser_over_another_autoencoder(taesd: Path, prepared: Manifest, tmp_path: Path) -> None:
    renderer = LatentRendererConfig(
        resolution=64, widths=(16, 16), blocks=(1, 1), control_blocks=(1, 1),
        codec=CodecConfig(kind="diffusers", source=str(taesd), factor=4, channels=6),
    )  # fmt: skip
    assert np.isfinite(run(config_of(renderer), prepared, tmp_path)).all()
    model = checkpoint.load_model(tmp_path / "checkpoint")
    assert not any(name.startswith("renderer.codec.") for name in model.state_dict())


class TestOptions:
    def shown(self, capsys: pytest.CaptureFixture[str], *args: str) -> dict:
        assert cli.run(["train", *args, "--data", "synthetic", "--out", "run", "--dry-run"]) == 0
        return json.loads(capsys.readouterr().out)

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def small(self, preset: str, **renderer: object) -> str:
        values = {"preset": preset, "model": {"renderer": {"widths": [16, 16, 16], "blocks": [1, 1, 1], **renderer}}}
        Path("small.json").write_text(json.dumps(values))
        return "small.json"

    def test_base(self, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(base.parent)
        shown = self.shown(capsys, "difftalker-sd", "--base", base.name)
        renderer = shown["config"]["model"]["renderer"]
        assert renderer["base"] == renderer["codec"]["source"] == str(base.resolve())
        assert renderer["schedule"]["prediction"] == "epsilon"
        sizes = shown["parameters"]
        assert sizes["codec"] == 0
        assert 0 < sizes["renderer"] < 2_000_000  # the control network
        assert sizes["pretrained"] > 100_000

    def test_base_that_predicts_something_else(self, base: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(base, tmp_path / "v")
        diffusers.DDIMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
        config = train._with_base(TRAIN_PRESETS["difftalker-sd"], str(folder))
        assert config.model.renderer.schedule.prediction == "v_prediction"  # pyright: ignore

    def test_codec(self, taesd: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shown = self.shown(capsys, self.small("difftalker"), "--codec", str(taesd))
        renderer = shown["config"]["model"]["renderer"]
        assert (renderer["resolution"], renderer["height"], renderer["side"]) == (144, 112, 72)
        assert (renderer["codec"]["kind"], renderer["codec"]["channels"], renderer["codec"]["factor"]) == (
            "diffusers", 6, 4,
        )  # fmt: skip

    def test_codec_whose_latents_do_not_divide_the_window(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        renderer = self.shown(capsys, self.small("difftalker"), "--codec", str(base))["config"]["model"]["renderer"]
        assert (renderer["codec"]["factor"], renderer["codec"]["channels"]) == (8, 4)
        assert (renderer["resolution"], renderer["height"], renderer["side"]) == (160, 128, 80)  # at the same scale
        geometry = WindowGeometry(160, tuple(renderer["origin"]), 2.0, 128)
        check_mouth_window(geometry)
        assert np.abs(np.array(geometry.origin) + (40, 32) - (28 + 36, 41 + 28)).max() <= 1  # about the same middle

    def test_codec_under_a_square_window(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shown = self.shown(capsys, self.small("difftalker-window"), "--codec", str(base))["config"]["model"]
        assert (shown["renderer"]["resolution"], shown["renderer"]["side"]) == (96, 80)

    def test_both(self, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shown = self.shown(capsys, "difftalker-sd", "--base", str(base), "--codec", str(base / "vae"))
        renderer = shown["config"]["model"]["renderer"]
        assert renderer["base"] == str(base.resolve())
        assert renderer["codec"]["source"] == str(base.resolve() / "vae")
        assert renderer["resolution"] == 256

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["renderer", "--base", "a/b"], "stands on no Stable Diffusion"),
            (["difftalker", "--base", "a/b"], "stands on no Stable Diffusion"),
            (["renderer", "--codec", "a/b"], "expected the preset difftalker or difftalker-sd"),
            (["difftalker-codec", "--codec", "a/b"], "the stage that trains a codec of ours"),
            (["difftalker-sd", "--base", "./no"], "base ./no: no such folder"),
            (["difftalker", "--codec", "./no"], "codec ./no: no such folder"),
        ],
    )
    def test_refused_in_one_line(self, args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["train", *args, "--data", "synthetic", "--out", "run", "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.strip().splitlines()) == 1

    def test_sizes_of_our_codec(self, capsys: pytest.CaptureFixture[str]) -> None:
        sizes = self.shown(capsys, "difftalker")["parameters"]
        assert sizes["codec"] > 100_000
        assert sizes["renderer"] > sizes["codec"]
        assert sizes["pretrained"] == 0

    def test_a_file_changes_parts_of_parts(self) -> None:
        config = train.load_config(self.small("difftalker-sd", codec={"blocks": 3}, schedule={"train_steps": 500}))
        renderer, preset = config.model.renderer, TRAIN_PRESETS["difftalker-sd"].model.renderer
        assert renderer.codec == replace(preset.codec, blocks=3)  # pyright: ignore
        assert renderer.schedule == replace(preset.schedule, train_steps=500)  # pyright: ignore
        assert renderer.widths == (16, 16, 16)  # pyright: ignore
        for changes, said in (({"channel": 8}, "codec: unknown field 'channel'"), (8, "codec: got int")):
            with pytest.raises(ValueError, match=said):
                train.load_config(self.small("difftalker", codec=changes))
