"""Published networks on tiny random ones: the very numbers of diffusers, frozen, refused in one line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from atldiff.config import CodecConfig
from atldiff.diffusion import pretrained, pretrained_files
from atldiff.diffusion.blocks import fold_time
from atldiff.diffusion.pretrained import DiffusersCodec, StableDiffusionDenoiser
from atldiff.errors import AtlDiffError, CheckpointError

torch.set_num_threads(1)
diffusers = pytest.importorskip("diffusers")

HINT = 9
WIDTH = 8


def save_unet(folder: Path, **changes: object) -> None:
    settings = {
        "block_out_channels": (32, 64), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "layers_per_block": 1, "cross_attention_dim": WIDTH,
        "attention_head_dim": 4, "norm_num_groups": 8,
    }  # fmt: skip
    diffusers.UNet2DConditionModel(**settings | changes).save_pretrained(folder)


def save_autoencoder(folder: Path, **changes: object) -> None:
    settings = {
        "block_out_channels": (8, 8, 16, 16), "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4, "norm_num_groups": 4, "layers_per_block": 1,
    }  # fmt: skip
    diffusers.AutoencoderKL(**settings | changes).save_pretrained(folder)


def save_tiny_autoencoder(folder: Path) -> None:
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1,) * 3,
        num_decoder_blocks=(1,) * 3, latent_channels=6, scaling_factor=0.5, shift_factor=0.25,
    ).save_pretrained(folder)  # fmt: skip


def save_text_encoder(root: Path, width: int = WIDTH) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    (root / "tokenizer").mkdir()
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (root / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (root / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=3, hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(root / "text_encoder")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    save_unet(folder / "unet")
    save_autoencoder(folder / "vae", scaling_factor=0.3, shift_factor=0.1)
    return folder


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "copied")


def codec_of(source: Path | str, **settings: int) -> DiffusersCodec:
    return DiffusersCodec(CodecConfig(kind="diffusers", source=str(source), **{"factor": 8, "channels": 4} | settings))


def video(frames: int = 3, side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, frames, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def folded(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def unfolded(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(0, (2, -1)).transpose(1, 2)


class TestCodec:
    @torch.no_grad()
    def test_numbers_are_those_of_diffusers(self, base: Path) -> None:
        theirs = diffusers.AutoencoderKL.from_pretrained(base / "vae")
        wanted = (theirs.encode(folded(video())).latent_dist.mean - 0.1) * 0.3
        codec = codec_of(base)
        latents = codec.encode(video())
        assert latents.shape == (2, 4, 3, 4, 4)
        assert torch.allclose(latents, unfolded(wanted), atol=1e-5)
        seen = codec.decode(latents)
        assert seen.shape == (2, 3, 3, 32, 32)
        assert torch.allclose(seen, unfolded(theirs.decode(wanted / 0.3 + 0.1).sample), atol=1e-5)
        assert torch.equal(codec.encode(video()), latents)  # no draw

    @torch.no_grad()
    def test_tiny(self, tmp_path: Path) -> None:
        save_tiny_autoencoder(tmp_path)
        theirs = diffusers.AutoencoderTiny.from_pretrained(tmp_path)
        codec = codec_of(tmp_path, factor=4, channels=6)  # the folder is the autoencoder's own
        wanted = (theirs.encode(folded(video())).latents - 0.25) * 0.5
        assert torch.allclose(codec.encode(video()), unfolded(wanted), atol=1e-5)
        decoded = theirs.decode(wanted / 0.5 + 0.25).sample
        assert torch.allclose(codec.decode(unfolded(wanted)), unfolded(decoded), atol=1e-5)

    @torch.no_grad()
    def test_frames_go_through_a_few_at_a_time(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        codec = codec_of(base)
        latents = codec.encode(video(5))
        seen = codec.decode(latents)
        monkeypatch.setattr(pretrained, "PIXELS_AT_ONCE", 2 * 32**2)
        counts = []
        for part in (codec.borrowed.encoder, codec.borrowed.decoder):
            part.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
        assert torch.allclose(codec.encode(video(5)), latents, atol=1e-5)
        assert torch.allclose(codec.decode(latents), seen, atol=1e-5)
        assert counts == [2] * 10

    def test_it_is_nobodys_but_goes_along(self, base: Path) -> None:
        codec = codec_of(base)
        around = torch.nn.Sequential(codec)
        assert not list(around.parameters())
        assert not around.state_dict()
        assert not codec.borrowed.training
        assert not any(p.requires_grad for p in codec.borrowed.parameters())
        around.to(torch.bfloat16).to(memory_format=torch.channels_last).train()
        assert codec.dtype == torch.bfloat16
        assert codec.borrowed.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        assert not codec.borrowed.training
        assert codec.encode(video()).dtype == codec.decode(torch.zeros(1, 4, 1, 4, 4)).dtype == torch.float32
        assert around.to("meta") is around
        assert next(codec.borrowed.parameters()).is_meta

    def test_the_configuration_follows_from_the_files(self, base: Path, tmp_path: Path) -> None:
        assert pretrained_files.codec_config(str(base)) == codec_of(base).config
        save_tiny_autoencoder(tmp_path)
        (tmp_path / pretrained_files.WEIGHTS_FILE).unlink()
        config = pretrained_files.codec_config(str(tmp_path))
        assert (config.kind, config.factor, config.channels) == ("diffusers", 4, 6)

    @pytest.mark.parametrize("settings", [{"factor": 4}, {"channels": 8}])
    def test_latents_of_another_shape(self, base: Path, settings: dict) -> None:
        with pytest.raises(CheckpointError, match="has 4 latent channels and factor 8, the configuration says"):
            codec_of(base, **settings)


class TestDenoiser:
    X = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    LEVEL = torch.tensor([10, 900])
    SEEN = torch.rand(2, HINT, 3, 64, 64, generator=torch.Generator().manual_seed(3))

    def test_a_fresh_control_net_changes_nothing(self, base: Path) -> None:
        denoiser = StableDiffusionDenoiser(str(base), HINT)
        unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
        with torch.no_grad():
            said = denoiser(self.X, self.LEVEL, denoiser.control(self.SEEN), None)
            wanted = unet(fold_time(self.X), self.LEVEL.repeat_interleave(3), torch.zeros(6, 77, WIDTH)).sample
        assert said.dtype == torch.float32
        assert torch.equal(said, unfolded(wanted))

    def test_only_the_control_net_learns(self, base: Path) -> None:
        denoiser = StableDiffusionDenoiser(str(base), HINT).train()
        before = {name: p.clone() for name, p in denoiser.borrowed.named_parameters()}
        optimiser = torch.optim.SGD(denoiser.parameters(), lr=0.1)
        for _ in range(3):  # first the zero convolutions, then the hint's last one, also zero, then all before it
            optimiser.zero_grad()
            denoiser(self.X, self.LEVEL, denoiser.control(self.SEEN), None).square().mean().backward()
            optimiser.step()
        assert all(name.startswith("controlnet.") for name in denoiser.state_dict())
        assert all(p.grad is not None and p.grad.any() for p in denoiser.controlnet.controlnet_down_blocks.parameters())
        assert denoiser.controlnet.controlnet_cond_embedding.conv_in.weight.grad.any()
        for name, parameter in denoiser.borrowed.named_parameters():
            assert parameter.grad is None
            assert torch.equal(parameter, before[name])
        with torch.no_grad():
            said, other = (
                denoiser(self.X, self.LEVEL, denoiser.control(seen), None) for seen in (self.SEEN, 1 - self.SEEN)
            )
        assert not torch.equal(said, other)

    def test_number_format_and_weights(self, base: Path) -> None:
        first, second = (StableDiffusionDenoiser(str(base), HINT) for _ in range(2))
        with torch.no_grad():
            first.controlnet.controlnet_mid_block.weight.fill_(0.1)
        second.load_state_dict(first.state_dict())
        for denoiser in (first, second):
            denoiser.to(torch.bfloat16)
        assert first.dtype == first.borrowed.dtype == first.text.dtype == torch.bfloat16
        with torch.no_grad():
            said, again = (d(self.X, self.LEVEL, d.control(self.SEEN), None) for d in (first, second))
        assert said.dtype == torch.float32
        assert torch.equal(said, again)

    def test_the_text_is_the_empty_prompt(self, copied: Path) -> None:
        from transformers import CLIPTextModel

        save_text_encoder(copied)
        denoiser = StableDiffusionDenoiser(str(copied), HINT)
        encoder = CLIPTextModel.from_pretrained(copied / "text_encoder").eval()
        with torch.no_grad():
            wanted = encoder(torch.tensor([[0] + [1] * 76])).last_hidden_state
        assert torch.allclose(denoiser.text, wanted, atol=1e-6)
        assert not any("text" in name for name in denoiser.state_dict())
        shutil.rmtree(copied / "tokenizer")
        assert not StableDiffusionDenoiser(str(copied), HINT).text.any()

    def test_a_text_encoder_of_another_width(self, copied: Path) -> None:
        save_text_encoder(copied, width=16)
        with pytest.raises(CheckpointError, match="tokens of width 16, its U-Net expects 8"):
            StableDiffusionDenoiser(str(copied), HINT)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [({"in_channels": 9}, "in_channels 9, expected 4"), ({"num_class_embeds": 3}, "num_class_embeds 3")],
    )
    def test_a_unet_that_does_not_fit(self, tmp_path: Path, changes: dict, said: str) -> None:
        save_unet(tmp_path / "unet", **changes)
        with pytest.raises(CheckpointError, match=said):
            StableDiffusionDenoiser(str(tmp_path), HINT)

    def test_what_it_predicts(self, copied: Path) -> None:
        assert pretrained_files.predicts(str(copied)) == "epsilon"
        diffusers.DDIMScheduler(prediction_type="v_prediction").save_pretrained(copied / "scheduler")
        assert pretrained_files.predicts(str(copied)) == "v_prediction"


class TestDoor:
    """What is wrong with a folder or the hub, in one line that says what to do."""

    def error(self, source: str, kind: type[AtlDiffError] = CheckpointError, *, codec: bool = True) -> str:
        with pytest.raises(kind) as caught:
            codec_of(source) if codec else StableDiffusionDenoiser(source, HINT)
        assert "\n" not in str(caught.value)
        assert source in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("codec", [True, False])
    def test_no_such_folder(self, codec: bool) -> None:
        assert "no such folder; expected the folder of" in self.error("./nowhere/at/all", codec=codec)

    @pytest.mark.parametrize("codec", [True, False])
    def test_the_hub_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch, codec: bool) -> None:
        def fail(*args: object, **settings: object) -> str:
            raise OSError("no route to host\nand a second line")

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        said = self.error("some/model", codec=codec)
        assert "cannot be fetched from the hub (no route to host)" in said
        assert "name the folder" in said

    def test_no_more_than_needed_is_fetched(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[list[str]] = []

        def snapshot(hub_id: str, allow_patterns: list[str], revision: str | None) -> str:
            assert (hub_id, revision) == ("some/model", None)
            asked.append(allow_patterns)
            return str(base)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        codec_of("some/model")
        StableDiffusionDenoiser("some/model", HINT)
        pretrained_files.codec_config("some/model")
        assert not any("*" in name for name in asked[0] + asked[2])
        assert "unet/diffusion_pytorch_model.safetensors" in asked[1]
        assert all(name.endswith("config.json") for name in asked[2])

    def test_nothing_of_the_kind_in_it(self, tmp_path: Path) -> None:
        assert "no config.json of an autoencoder in it" in self.error(str(tmp_path))
        assert "no unet/config.json in it" in self.error(str(tmp_path), codec=False)

    def test_another_class(self, base: Path, copied: Path) -> None:
        assert "got a UNet2DConditionModel, expected AutoencoderKL" in self.error(str(base / "unet"))
        shutil.rmtree(copied / "unet")
        shutil.move(copied / "vae", copied / "unet")
        assert "_class_name 'AutoencoderKL'" in self.error(str(copied), codec=False)

    @pytest.mark.parametrize("codec", [True, False])
    def test_a_pickle(self, copied: Path, codec: bool) -> None:
        weights = copied / ("vae" if codec else "unet") / pretrained_files.WEIGHTS_FILE
        weights.rename(weights.with_suffix(".bin"))
        assert "pickles are never loaded" in self.error(str(copied), codec=codec)

    def test_a_pickled_text_encoder(self, copied: Path) -> None:
        save_text_encoder(copied)
        (copied / "text_encoder" / "model.safetensors").rename(copied / "text_encoder" / "pytorch_model.bin")
        assert "pickles are never loaded" in self.error(str(copied), codec=False)

    @pytest.mark.parametrize("codec", [True, False])
    @pytest.mark.parametrize("damage", ["config", "weights", "tensor"])
    def test_damage(self, copied: Path, codec: bool, damage: str) -> None:
        folder = copied / ("vae" if codec else "unet")
        weights = folder / pretrained_files.WEIGHTS_FILE
        if damage == "config":
            (folder / "config.json").write_text("{")
        elif damage == "weights":
            weights.write_bytes(b"\x00" * 100)
        else:
            from safetensors.torch import load_file, save_file

            tensors = load_file(weights)
            del tensors[min(tensors)]
            save_file(tensors, weights, metadata={"format": "pt"})
        wanted = {"config": "not readable", "weights": "cannot be read", "tensor": "missing"}
        assert wanted[damage] in self.error(str(copied), codec=codec)

    def test_without_diffusers(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "diffusers", None)
        for codec in (True, False):
            assert "pip install 'atldiff[diffusers]'" in self.error(str(base), AtlDiffError, codec=codec)

    def test_without_transformers(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_text_encoder(copied)
        monkeypatch.setitem(sys.modules, "transformers", None)
        assert "pip install 'atldiff[diffusers]'" in self.error(str(copied), AtlDiffError, codec=False)
