"""A layered renderer's stage: batches, losses that ask for a real mouth, an adversary that resumes with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.backbones.alexnet import LpipsAlexNet
from atldiff.config import TRAIN_PRESETS, ATLConfig, GeneratorConfig, RendererConfig
from atldiff.data.manifest import Manifest, Split
from atldiff.data.mouths import load_mouths
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import DataError
from atldiff.methods.atl.inputs import NEEDED
from atldiff.methods.atl.network import ATLModel
from atldiff.training.mouth_data import MouthSet, mouth_set
from atldiff.training.mouth_judges import MouthAdversary, mouth_crops, perceptual, weighted
from atldiff.training.mouth_task import RendererLoss, detail
from atldiff.training.run import train_stage

torch.set_num_threads(1)

FRAMES = 24
GENERATOR = GeneratorConfig(components=6, identity_components=2, width=16, blocks=1)
OLD = ATLConfig(generator=GENERATOR, renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)))
LAYERED = replace(
    OLD.renderer, side=96, height=80, origin=(40, 44), scale=2.0, layered=True, head="resize", mask_reach_px=6.0
)
TINY = replace(OLD, renderer=LAYERED)
CONFIG = replace(
    TRAIN_PRESETS["mouth-adversarial"], model=TINY, steps=4, clips_per_batch=2, frames=2, save_every=2, probe_every=4,
    warmup_steps=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=FRAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    monkeypatch.setattr("atldiff.data.mouths.sharp_share", lambda *_: 1.0)  # drawn ones are small
    monkeypatch.setattr("atldiff.training.mouth_task.RAMP_STEPS", 2)
    monkeypatch.setattr("atldiff.training.mouth_task.PROBE_BATCHES", 1)
    monkeypatch.setattr("atldiff.training.mouth_task.PROBE_CLIPS", 2)


LATE = {"step": torch.tensor([1_000, 1_000])}
"""After the ramp."""


def clips_of(manifest: Manifest) -> MouthSet:
    clips = [load_mouths(manifest, entry, NEEDED) for entry in manifest.usable(Split.TRAIN)]
    return mouth_set(clips, LAYERED, frames=2, seed=3)


def random_renderer(seed: int = 0) -> ATLModel:
    """A renderer that changes its prior: the last layer is not zero."""
    torch.manual_seed(seed)
    model = ATLModel(TINY)
    torch.nn.init.normal_(model.renderer.unet.out.weight, std=0.05)
    return model


class TestBatches:
    def test_shapes_and_ranges(self, prepared: Manifest) -> None:
        batch = clips_of(prepared).batch(0, range(3))
        shapes = {name: tuple(value.shape) for name, value in batch.items()}
        assert shapes == {
            "target": (3, 3, 2, 80, 96), "prior": (3, 3, 2, 80, 96), "conditions": (3, 17, 2, 80, 96),
            "mask": (3, 1, 2, 80, 96), "mouth": (3, 1, 2, 80, 96), "time": (3,), "noise": (3, 3, 1, 80, 96),
            "beside": (3, 5, 80, 96), "centre": (3, 2), "sharp": (3,), "clips": (3,), "step": (3,),
        }  # fmt: skip
        for name in ("target", "prior"):
            assert batch[name].abs().max() <= 1
        assert batch["mask"].amax() > 0.9
        for edge in (batch["mask"][..., 0, :], batch["mask"][..., -1]):
            assert edge.max() < 0.2  # nothing is painted up to the border
        assert (batch["centre"] - torch.tensor([48, 40])).abs().max() < 20

    def test_a_batch_is_a_function_of_seed_and_step(self, prepared: Manifest) -> None:
        first, again = (clips_of(prepared).batch(5, range(4)) for _ in range(2))
        parts = [clips_of(prepared).batch(5, items) for items in (range(3), range(3, 4))]
        for name, value in first.items():
            assert torch.equal(value, again[name])
            assert torch.equal(value, torch.cat([part[name] for part in parts]))
        assert not torch.equal(first["target"], clips_of(prepared).batch(6, range(4))["target"])

    def test_sharpened_items_have_more_detail_and_the_same_places(self, prepared: Manifest) -> None:
        clips = [load_mouths(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
        plain, sharp = (mouth_set(clips, LAYERED, frames=2, seed=3, sharpen=by).batch(0, range(8)) for by in (0, 4))
        for name in ("target", "prior"):
            detail_of = [batch[name].float().diff(dim=-1).square().mean((1, 2, 3, 4)) for batch in (plain, sharp)]
            assert (detail_of[1] > detail_of[0]).all()
        assert torch.equal(plain["mouth"], sharp["mouth"])
        assert torch.equal(plain["centre"], sharp["centre"])

    def test_the_prior_is_near_the_target(self, prepared: Manifest) -> None:
        batch = clips_of(prepared).batch(1, range(8))
        far = (batch["prior"].roll(1, 0) - batch["target"]).float().square().mean()
        assert (batch["prior"] - batch["target"]).float().square().mean() < 0.3 * far


class TestJudges:
    def test_crops_follow_the_mouth_and_stay_inside(self) -> None:
        pictures = torch.arange(112 * 144).reshape(1, 1, 1, 112, 144).repeat(3, 1, 1, 1, 1).float()
        crops = mouth_crops(pictures, torch.tensor([[72.0, 56.0], [0.0, 0.0], [200.0, 200.0]]))
        assert crops.shape == (3, 1, 1, 80, 96)
        assert [int(crop[0, 0, 0, 0]) for crop in crops] == [16 * 144 + 24, 0, 32 * 144 + 48]

    def test_smaller_windows_are_judged_enlarged(self) -> None:
        down, across = torch.meshgrid(torch.linspace(-1, 1, 56), torch.linspace(-1, 1, 72), indexing="ij")
        picture = torch.stack([down, across, down * 0.5])[None, :, None].repeat(1, 1, 2, 1, 1)
        (crop,) = mouth_crops(picture, torch.tensor([[36.0, 28.0]]), 1.0)
        assert crop.shape == (3, 2, 80, 96)
        inside = picture[0, :, :, 8:48, 12:60]  # half as wide and high, around the same place
        assert torch.allclose(torch.nn.functional.avg_pool2d(crop, 2), inside, atol=0.02)
        assert mouth_crops(picture.half(), torch.tensor([[36.0, 28.0]]), 1.0).dtype == torch.float16

    def test_equal_pictures_have_no_distance_and_blur_has_one(self, network: LpipsAlexNet) -> None:
        real = torch.rand(2, 3, 2, 80, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
        soft = torch.nn.functional.avg_pool3d(real, (1, 3, 3), 1, (0, 1, 1))
        softer = torch.nn.functional.avg_pool3d(real, (1, 5, 5), 1, (0, 2, 2))
        same, near, far = (perceptual(network, made, real) for made in (real, soft, softer))
        assert same.shape == (2,)
        assert same.abs().max() < 1e-6
        assert (near > 1e-4).all()
        assert (far > near).all()

    def test_the_mouth_weighs_scores(self) -> None:
        scores = torch.tensor([[[1.0, 3.0]]])
        assert weighted(scores, torch.tensor([[[[1.0, 1.0, 0, 0]]]])).tolist() == [1.0]
        assert weighted(scores, torch.tensor([[[[0.0, 0, 0, 0]]]])).isfinite().all()

    def test_the_adversary_sees_frames_and_what_is_beside(self) -> None:
        torch.manual_seed(0)
        adversary = MouthAdversary(2)
        frames, beside = torch.rand(2, 3, 2, 80, 96), torch.rand(2, 5, 80, 96)
        scores, maps = adversary(frames, beside)
        assert scores.shape == (2, 20, 24)
        assert len(maps) == 3
        assert not torch.equal(scores, adversary(frames, beside.flip(0))[0])
        assert not torch.equal(scores, adversary(frames.flip(2), beside)[0])

    def test_detail_falls_with_blur(self) -> None:
        sharp = torch.rand(1, 3, 2, 40, 40)
        mouth = torch.zeros(1, 1, 2, 40, 40)
        mouth[..., 10:30, 10:30] = 1
        soft = torch.nn.functional.avg_pool3d(sharp, (1, 3, 3), 1, (0, 1, 1))
        assert detail(soft, mouth) < 0.5 * detail(sharp, mouth)


class TestLoss:
    def test_everything_asked_for_is_part_of_it(self, prepared: Manifest, network: LpipsAlexNet) -> None:
        batch, model = clips_of(prepared).batch(0, range(2)), random_renderer()
        config = replace(CONFIG, bfloat16=False)
        plain = RendererLoss(model.renderer, replace(config, perceptual_weight=0, adversarial_weight=0), None)
        assert plain.adversary is None
        only = plain(model.renderer, batch)
        assert set(only) == {"loss", "square", "edges", "motion", "mouth_ratio"}
        torch.manual_seed(1)
        judged = RendererLoss(model.renderer, config, network)
        losses = judged(model.renderer, batch | LATE)
        assert losses["perceptual"] > 0
        assert losses["matching"] > 0
        for name in ("square", "edges", "motion"):
            assert torch.allclose(losses[name], only[name])
        assert losses["loss"] > only["loss"] + config.perceptual_weight * losses["perceptual"] - 0.5

    def test_blurred_clips_are_no_judges(self, prepared: Manifest, network: LpipsAlexNet) -> None:
        batch, model = clips_of(prepared).batch(0, range(2)), random_renderer()
        loss = RendererLoss(model.renderer, replace(CONFIG, bfloat16=False), network)
        losses = loss(model.renderer, batch | LATE | {"sharp": torch.zeros(2)})
        assert losses["perceptual"] == losses["fooled"] == losses["matching"] == 0
        assert loss.of_rival(1) == 0

    def test_each_learns_from_its_own_loss_alone(self, prepared: Manifest, network: LpipsAlexNet) -> None:
        batch, model = clips_of(prepared).batch(0, range(2)), random_renderer()
        loss = RendererLoss(model.renderer, replace(CONFIG, bfloat16=False), network)
        assert loss.adversary is not None
        loss(model.renderer, batch | LATE)["loss"].backward()
        assert all(parameter.grad is None for parameter in loss.adversary.parameters())
        assert all(parameter.grad is None for parameter in network.parameters())
        grad = model.renderer.unet.out.weight.grad
        assert grad is not None
        before = grad.clone()
        loss.of_rival(0).backward()  # with the penalty of its slope
        assert all(parameter.grad is not None for parameter in loss.adversary.layers[0].parameters())
        assert torch.equal(grad, before)

    def test_the_adversary_learns_to_tell_them_apart(self, prepared: Manifest) -> None:
        batch, model = clips_of(prepared).batch(0, range(4)), random_renderer()
        loss = RendererLoss(model.renderer, replace(CONFIG, perceptual_weight=0, bfloat16=False), None)
        assert loss.adversary is not None
        optimiser = torch.optim.AdamW(loss.adversary.parameters(), lr=1e-3)
        values = []
        for _ in range(12):
            with torch.no_grad():
                loss(model.renderer, batch)
            optimiser.zero_grad()
            value = loss.of_rival(1)
            value.backward()
            optimiser.step()
            values.append(value.item())
        assert values[-1] < 0.9 * values[0]


class TestRuns:
    def run(self, prepared: Manifest, out: Path, network: LpipsAlexNet | None, **settings) -> int:
        return train_stage(CONFIG, prepared.folder, out, workers=0, network=network, **settings)

    def test_two_and_two_steps_are_four_with_the_adversary(
        self, prepared: Manifest, tmp_path: Path, network: LpipsAlexNet
    ) -> None:
        assert self.run(prepared, tmp_path / "whole", network) == 4
        assert self.run(prepared, tmp_path / "parts", network, stop_after=2) == 2
        assert self.run(prepared, tmp_path / "parts", network) == 4
        whole, parts = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
        assert any(name.startswith("rival.master/") for name in whole)
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            assert torch.equal(value, parts[name]), name

    def test_the_checkpoint_loads_and_the_probe_tells(
        self, prepared: Manifest, tmp_path: Path, network: LpipsAlexNet
    ) -> None:
        self.run(prepared, tmp_path / "run", network)
        model = checkpoint.load_model(tmp_path / "run" / "checkpoint")
        assert model.config.renderer == LAYERED
        assert not any("adversary" in name or "layers" in name for name in model.state_dict())
        probe = (tmp_path / "run" / "probe.jsonl").read_text()
        for name in ("mouth_ratio_fast", "perceptual_best", "detail_prior"):
            assert name in probe

    def test_a_window_of_half_the_scale_learns_from_the_same_folder(
        self, prepared: Manifest, tmp_path: Path, network: LpipsAlexNet
    ) -> None:
        small = replace(LAYERED, side=48, height=40, scale=1.0)
        config = replace(CONFIG, model=replace(TINY, renderer=small), steps=2, probe_every=2)
        assert train_stage(config, prepared.folder, tmp_path / "run", workers=0, network=network) == 2
        assert checkpoint.load_model(tmp_path / "run" / "checkpoint").config.renderer == small

    def test_an_older_renderer_grows(self, prepared: Manifest, tmp_path: Path, network: LpipsAlexNet) -> None:
        torch.manual_seed(3)
        old = ATLModel(OLD)
        checkpoint.save_model(old, tmp_path / "old", half=False)
        self.run(prepared, tmp_path / "run", network, start=tmp_path / "old", stop_after=1)
        new = load_file(tmp_path / "run" / "state.safetensors")
        stem = new["master/unet.stem.weight"].reshape(16, 20 * 16, 3, 3)
        change = (stem[:, : 16 * 16] - old.renderer.unet.stem.weight).abs().max()
        assert change < 5e-3  # a step from where it was
        assert stem[:, 16 * 16 :].abs().max() < 5e-3

    @pytest.mark.parametrize(
        "change", [{"scale": 1.5}, {"scale": 4.0}, {"scale": 1.0}, {"origin": (10, 44)}, {"height": 144}]
    )
    def test_a_window_beyond_the_stored_one_is_refused(self, prepared: Manifest, tmp_path: Path, change: dict) -> None:
        model = replace(TINY, renderer=replace(LAYERED, **change))
        with pytest.raises(DataError, match="config renderer: a window of .*which is what `atldiff prepare` keeps"):
            train_stage(replace(CONFIG, model=model), prepared.folder, tmp_path / "run", workers=0)


def test_only_a_layered_renderer_is_judged_so() -> None:
    for field in ("perceptual_weight", "adversarial_weight"):
        with pytest.raises(ValueError, match=f"{field}.*layered"):
            replace(TRAIN_PRESETS["renderer"], **{field: 1.0})


def test_the_command_asks_for_the_network(prepared: Manifest, tmp_path: Path) -> None:
    from atldiff.commands import train

    with pytest.raises(ValueError, match="lpips: mouth compares .*expected --lpips FILE"):
        train.run(["mouth", "--data", str(prepared.folder), "-o", str(tmp_path / "run")])


def test_what_was_seen_is_left_as_it_is(prepared: Manifest) -> None:
    """With `keep_seen` the mask is the same but where teeth were seen, and there less by that share."""
    clips = [load_mouths(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
    free, held = (
        mouth_set(clips, replace(LAYERED, keep_seen=share), frames=2, seed=3).batch(0, range(8)) for share in (0.0, 1.0)
    )
    assert torch.equal(free["prior"], held["prior"])
    seen = free["conditions"][:, 16:17].float()
    lost = (free["mask"] - held["mask"]).float()
    assert lost.min() >= 0
    assert lost.amax() > 0.5
    assert (lost[seen == 0] == 0).all()
    assert torch.allclose(free["mouth"].float(), held["mouth"].float())


def test_a_tint_changes_channels_alike_in_all_pictures(prepared: Manifest) -> None:
    clips = [load_mouths(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
    plain, tinted = (mouth_set(clips, LAYERED, frames=2, seed=3, tint=tint).batch(0, range(8)) for tint in (0.0, 0.3))
    ratios = [batch["target"].float().add(1).mean((2, 3, 4)) for batch in (plain, tinted)]  # (8, 3)
    change = ratios[1] / ratios[0]
    assert (change.amax(1) / change.amin(1)).max() > 1.15
    assert torch.equal(plain["mask"], tinted["mask"])


def test_a_change_without_chroma_is_of_brightness_alone() -> None:
    torch.manual_seed(0)
    model = random_renderer()
    prior, mask = torch.rand(1, 3, 2, 80, 96), torch.rand(1, 1, 2, 80, 96)
    conditions, t = torch.rand(1, 17, 2, 80, 96), torch.ones(1)
    made = {}
    with torch.no_grad():
        for chroma in (0.0, 0.5, 1.0):
            model.renderer.config = replace(LAYERED, chroma=chroma)
            made[chroma] = model.renderer.denoise(prior, t, prior, conditions, mask) - prior
    assert made[1.0].std(1).max() > 0.01
    assert made[0.0].std(1).max() < 1e-5
    for change in made.values():
        assert torch.allclose(change.mean(1), made[1.0].mean(1), atol=1e-5)
    assert torch.allclose(made[0.5], (made[0.0] + made[1.0]) / 2, atol=1e-5)
