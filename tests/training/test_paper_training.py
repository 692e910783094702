"""Both stages of the published method on drawn people: their batches, exact resumption, learning, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.config import IdentityDiffusionConfig, KFLMConfig, PublishedConfig, ScheduleConfig, TrainConfig
from atldiff.data.faces import load_faces
from atldiff.data.manifest import Manifest, Split
from atldiff.data.speech import load_samples
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import clip_weights
from atldiff.emotions import EMOTIONS
from atldiff.errors import CheckpointError, DataError, TrainingError
from atldiff.landmarks.stream import SILENT
from atldiff.landmarks.topology import SIXTY_EIGHT
from atldiff.methods.atl_published.coordinates import normalise
from atldiff.methods.atl_published.inputs import NEEDED, build_start
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.methods.atl_published.training.kflm_data import SecondsSet
from atldiff.methods.atl_published.training.kflm_task import kflm_task
from atldiff.methods.atl_published.training.renderer_data import FacesSet, clip_windows, mouth_map
from atldiff.methods.atl_published.training.renderer_task import paper_renderer_task
from atldiff.training.landmarks_task import usable_speech
from atldiff.training.optimiser import MasterOptimiser
from atldiff.training.run import align_data, train_stage

torch.set_num_threads(1)

FRAMES, SIDE = 32, 32
UNLABELLED = len(EMOTIONS)
TINY = PublishedConfig(
    generator=KFLMConfig(
        features="log-mel", speech_model="", feature_width=16, feed_forward=16, frames=25, hop_frames=20,
        fusion_width=8, mouth_fusion_width=8, kan_width=8, components=6, residual=True,
    ),
    renderer=IdentityDiffusionConfig(
        side=SIDE, widths=(16, 32), blocks=(1, 1), identity_tokens=16, identity_width=8
    ),
)  # fmt: skip
RENDERER = TrainConfig(
    stage="renderer", model=TINY, steps=4, clips_per_batch=2, frames=4, warmup_steps=1, save_every=2, probe_every=4,
)  # fmt: skip
LANDMARKS = TrainConfig(
    stage="landmarks", model=TINY, steps=4, clips_per_batch=3, frames=25, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=4, bfloat16=False,
)  # fmt: skip
STAGES = pytest.mark.parametrize("config", [RENDERER, LANDMARKS], ids=["renderer", "landmarks"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=FRAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, fit_once: Callable[..., tuple]) -> None:
    """Fit the basis of the same clips only once (an eigenproblem of a thousand rows), and write no curves."""
    monkeypatch.setattr("atldiff.methods.atl_published.training.kflm_task.fit_basis", fit_once)
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)


def run(config: TrainConfig, manifest: Manifest, out: Path, **settings: Any) -> int:
    return train_stage(config, manifest.folder, out, workers=0, **settings)


NO_EMOTIONS = PublishedConfig(
    generator=replace(TINY.generator, emotions=0), renderer=replace(TINY.renderer, emotions=0)
)  # fmt: skip
"""What a run on people without labels makes of the architecture."""


def state(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "state.safetensors")


class TestRuns:
    @STAGES
    def test_two_and_two_steps_are_four(self, prepared: Manifest, tmp_path: Path, config: TrainConfig) -> None:
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        assert run(config, prepared, whole) == 4
        assert run(config, prepared, parts, stop_after=2) == 2
        half = state(parts)
        assert run(config, prepared, parts) == 4
        first, second = state(whole), state(parts)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name
        assert any(not torch.equal(half[name], second[name]) for name in half if name.startswith("average/"))
        weights = [(out / "checkpoint" / "model.safetensors").read_bytes() for out in (whole, parts)]
        assert weights[0] == weights[1]

    @STAGES
    def test_the_average_is_written_and_loads(self, prepared: Manifest, tmp_path: Path, config: TrainConfig) -> None:
        run(config, prepared, tmp_path)
        model = checkpoint.load_model(tmp_path / "checkpoint")
        assert isinstance(model, PublishedModel)
        assert model.config == NO_EMOTIONS
        trained = model.renderer if config.stage == "renderer" else model.generator
        saved = state(tmp_path)
        assert {name.partition("/")[2] for name in saved if name.startswith("average/")} == {
            name for name, _ in trained.named_parameters()
        }
        for name, parameter in trained.named_parameters():
            average = saved[f"average/{name}"].reshape(parameter.shape)
            if config.bfloat16:
                average = average.bfloat16()
            assert torch.equal(parameter, average.half().float()), name

    def test_the_other_stage_is_carried_along(self, prepared: Manifest, tmp_path: Path) -> None:
        run(LANDMARKS, prepared, tmp_path / "l", stop_after=1)
        start = tmp_path / "l" / "checkpoint"
        run(RENDERER, prepared, tmp_path / "r", start=start, stop_after=1)
        before, after = checkpoint.load_model(start), checkpoint.load_model(tmp_path / "r" / "checkpoint")
        for name, tensor in before.generator.state_dict().items():
            assert torch.equal(after.generator.state_dict()[name], tensor), name
        assert before.generator.basis.any()
        name = "renderer.unet.unet.stem.weight"
        assert not torch.equal(before.state_dict()[name], after.state_dict()[name])

    def test_the_other_stage_keeps_its_architecture(self, prepared: Manifest, tmp_path: Path) -> None:
        narrow = replace(TINY, generator=replace(TINY.generator, fusion_width=12))
        run(replace(LANDMARKS, model=narrow), prepared, tmp_path / "l", stop_after=1)
        run(RENDERER, prepared, tmp_path / "r", start=tmp_path / "l" / "checkpoint", stop_after=1)
        config = checkpoint.read_config(tmp_path / "r" / "checkpoint")
        assert config.generator == replace(narrow.generator, emotions=0)
        assert config.renderer == NO_EMOTIONS.renderer

    def test_a_checkpoint_of_another_method_is_refused(self, prepared: Manifest, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="got method atl-diff, expected atl-diff-paper"):
            run(RENDERER, prepared, tmp_path, start="atl-diff")

    @STAGES
    def test_labels_are_kept_where_a_clip_has_one(self, tmp_path: Path, config: TrainConfig) -> None:
        manifest = make_synthetic(tmp_path / "data", people=4, clips=1, frames=FRAMES)
        (first, *rest) = manifest.entries
        labelled = replace(first, record=replace(first.record, emotion="happy"), split=Split.TRAIN)
        replace(manifest, entries=(labelled, *rest)).save()
        run(config, manifest, tmp_path / "run", stop_after=1)
        start = tmp_path / "run" / "checkpoint"
        assert checkpoint.read_config(start) == TINY
        run(
            config, make_synthetic(tmp_path / "plain", people=4, clips=1, frames=FRAMES), tmp_path / "more", start=start
        )
        assert checkpoint.read_config(tmp_path / "more" / "checkpoint") == TINY  # what it knows, it keeps

    @STAGES
    def test_probes_are_written(self, prepared: Manifest, tmp_path: Path, config: TrainConfig) -> None:
        run(config, prepared, tmp_path)
        (line,) = (json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines())
        assert line.pop("step") == 4
        presets = ("fast", "balanced", "best")
        wanted = {
            "renderer": {f"{name}_{preset}" for name in ("mouth_ratio", "psnr") for preset in presets},
            "landmarks": {"opening_correlation", "amplitude", "lip_error"},
        }
        assert set(line) == wanted[config.stage]
        assert np.isfinite(list(line.values())).all()

    def test_the_renderer_learns(self, prepared: Manifest, tmp_path: Path) -> None:
        config = replace(
            RENDERER, steps=60, learning_rate=3e-3, clips_per_batch=4, bfloat16=False, probe_every=20, save_every=60
        )
        losses: list[float] = []
        run(config, prepared, tmp_path, progress=lambda done, total, scalars: losses.append(scalars["loss"]))
        assert np.mean(losses[-15:]) < 0.95 * np.mean(losses[:15])
        first, _, last = (json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines())
        for preset in ("fast", "balanced", "best"):  # of a person never seen
            assert last[f"psnr_{preset}"] > first[f"psnr_{preset}"] + 0.1
            assert last[f"mouth_ratio_{preset}"] < 0.95 * first[f"mouth_ratio_{preset}"]

    def test_the_generator_learns(self, prepared: Manifest, tmp_path: Path) -> None:
        config = replace(LANDMARKS, steps=50, learning_rate=3e-3, clips_per_batch=4, probe_every=50, save_every=50)
        losses: list[float] = []
        run(config, prepared, tmp_path, progress=lambda done, total, scalars: losses.append(scalars["loss"]))
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])

    @STAGES
    def test_the_loss_of_a_fixed_batch_falls(self, prepared: Manifest, config: TrainConfig) -> None:
        torch.manual_seed(0)
        make = paper_renderer_task if config.stage == "renderer" else kflm_task
        task = make(PublishedModel(TINY), prepared, config, lambda module: None)
        module = task.module.train()
        batch = task.source.batch(0, range(3))
        optimiser = MasterOptimiser(
            module, replace(config, learning_rate=5e-3, steps=1000, warmup_steps=5, weight_decay=0)
        )
        losses = []
        for step in range(40):
            loss = task.loss(module, batch)["loss"]
            loss.backward()
            optimiser.step(step)
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    def test_what_is_trained_speaks(self, prepared: Manifest, tmp_path: Path) -> None:
        """A checkpoint of both stages renders a portrait."""
        from atldiff.config import SampleConfig
        from atldiff.pipeline import TalkingHead
        from atldiff.types import Portrait

        run(LANDMARKS, prepared, tmp_path / "l", stop_after=1)
        run(RENDERER, prepared, tmp_path / "r", start=tmp_path / "l" / "checkpoint", stop_after=1)
        head = TalkingHead.from_pretrained(tmp_path / "r" / "checkpoint", device="cpu", dtype="float32")
        tensors = load_arrays(prepared.tensors(prepared.entries[0]))
        portrait = Portrait(np.full((160, 160, 3), 90, np.uint8), tensors["points"][0])
        samples = tensors["samples"][: 640 * 12].astype(np.float32) / 32767
        sampling = SampleConfig(steps=1, window_frames=8, shared_frames=2)
        frames = np.stack(list(head(portrait, samples, sampling=sampling)))
        assert frames.shape == (12, 160, 160, 3)

    def test_doors(self, prepared: Manifest, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no clip of more than 31 frames to train on") as caught:
            run(replace(RENDERER, frames=FRAMES - 1), held_out_only(prepared, tmp_path / "a"), tmp_path / "a1")
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="no training clip with sync of at least 0.3"):
            run(replace(LANDMARKS, exclude_sources=("synthetic",)), prepared, tmp_path / "b")
        window = replace(TINY, generator=replace(TINY.generator, coordinates="window"))
        with pytest.raises(DataError, match="coordinates: got 'window', expected 'canonical'") as caught:
            run(replace(LANDMARKS, model=window), prepared, tmp_path / "c")
        assert "\n" not in str(caught.value)

    def test_another_architecture_is_refused_by_name(self, prepared: Manifest, tmp_path: Path) -> None:
        run(RENDERER, prepared, tmp_path, stop_after=1)
        other = replace(TINY, renderer=replace(TINY.renderer, noise_floor=0.2))
        with pytest.raises(TrainingError, match="a run with another model "):
            run(replace(RENDERER, model=other), prepared, tmp_path)

    def test_alignment_asks_for_the_other_method(self, prepared: Manifest, tmp_path: Path) -> None:
        run(LANDMARKS, prepared, tmp_path, stop_after=1)
        with pytest.raises(CheckpointError, match="got method atl-diff-paper, expected atl-diff"):
            align_data(tmp_path / "checkpoint", prepared.folder)

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_loss_that_is_no_number_names_the_clips(self, tmp_path: Path) -> None:
        manifest = make_synthetic(tmp_path / "data", people=4, clips=1, frames=FRAMES)
        entry = manifest.usable(Split.TRAIN)[1]
        tensors = load_arrays(manifest.tensors(entry))
        tensors["mel"] = np.full_like(tensors["mel"], np.nan)
        save_arrays(tensors, manifest.tensors(entry))
        with pytest.raises(TrainingError, match=rf"the loss is nan; clips of the batch: .*{entry.record.name}"):
            run(replace(LANDMARKS, clips_per_batch=4), manifest, tmp_path / "run")


def held_out_only(manifest: Manifest, folder: Path) -> Manifest:
    kept = Manifest(tuple(e for e in manifest.entries if e.split is not Split.TRAIN), folder)
    folder.mkdir()
    (folder / "clips").symlink_to(manifest.folder / "clips")
    kept.save()
    return kept


class Dots:
    """A clip whose pictures are one spot, at its landmarks; the spot goes right and down with time."""

    name, source, identity = "dots", "drawn", "nobody"
    emotion = 4

    def __init__(self, frames: int = 12) -> None:
        place = np.stack([20 + 2.0 * np.arange(frames), 70 + 3.0 * np.arange(frames)], -1).astype(np.float32)
        self.points = np.repeat(place[:, None], len(NEEDED), 1)
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        self.mouth = place[:, None] + 6 * np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.points)

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[:128, :128]
        spots = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in self.points[frames, 0]]
        return np.repeat((np.stack(spots)[..., None] * 200).astype(np.uint8), 3, -1)


def centre(maps: np.ndarray) -> np.ndarray:
    """The middle (T, 2) of what is bright in maps (T, S, S)."""
    bright = np.clip(maps - 0.5 * maps.max(axis=(1, 2), keepdims=True), 0, None)
    y, x = np.mgrid[: maps.shape[1], : maps.shape[2]]
    total = bright.sum(axis=(1, 2))
    return np.stack([(bright * x).sum(axis=(1, 2)) / total, (bright * y).sum(axis=(1, 2)) / total], -1)


class TestFacesSet:
    def make(self, manifest: Manifest, *, frames: int = 4, seed: int = 5, **changes: Any) -> FacesSet:
        clips = [load_faces(manifest, entry, NEEDED) for entry in manifest.usable(Split.TRAIN)]
        return FacesSet(clips, replace(TINY.renderer, **changes), frames=frames, seed=seed)

    def dots(self, frames: int = 4, **changes: Any) -> FacesSet:
        return FacesSet([Dots()], replace(TINY.renderer, **{"side": 128} | changes), frames=frames, seed=0)  # type: ignore[list-item]

    @pytest.mark.parametrize("side", [32, 128, 256])
    def test_shapes_and_ranges(self, prepared: Manifest, side: int) -> None:
        source = self.make(prepared, side=side)
        batch = source.batch(0, range(3))
        video, one = (3, 3, 4, side, side), (3, 1, 4, side, side)
        assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
            "target": video, "prior": video, "noise": video, "mask": one, "mouth": one,
            "identity": (3, 3, side, side), "level": (3,), "emotion": (3,), "clips": (3,),
        }  # fmt: skip
        for name in ("target", "prior", "identity", "mask", "mouth"):
            assert batch[name].dtype == torch.float16
            assert batch[name].min() >= 0
            assert batch[name].max() <= 1
        for name in ("level", "emotion", "clips"):
            assert batch[name].dtype == torch.int64
        assert batch["mask"].amax(dim=(1, 3, 4)).eq(1).all()
        assert batch["mouth"].any()
        assert batch["noise"].float().std() == pytest.approx(1, abs=0.05)
        assert source.clip_names(batch) == [source.clips[i].name for i in batch["clips"].tolist()]

    def test_an_item_is_a_function_of_seed_step_and_number(self, prepared: Manifest) -> None:
        first, again, other_seed = (self.make(prepared, seed=seed) for seed in (5, 5, 6))
        for step in (3, 0):  # in any order
            whole = first.batch(step, range(4))
            parts = [again.batch(step, part) for part in (range(3), range(3, 4))]
            for name, tensor in whole.items():
                assert torch.equal(tensor, torch.cat([part[name] for part in parts])), name
        here, later, elsewhere = (
            source.batch(step, range(2))["target"] for source, step in ((first, 0), (first, 1), (other_seed, 0))
        )
        assert not torch.equal(here, later)
        assert not torch.equal(here, elsewhere)
        assert not torch.equal(here[0], here[1])

    def test_the_prior_is_the_identity_and_of_the_same_person(self, prepared: Manifest) -> None:
        batch = self.make(prepared).batch(0, range(6))
        assert torch.equal(batch["prior"], batch["identity"][:, :, None].expand_as(batch["prior"]))
        error = (batch["prior"].float() - batch["target"].float()).abs().mean(dim=(1, 2, 3, 4))
        assert error.max() < 0.1

    @pytest.mark.parametrize("side", [64, 128, 256])
    def test_flips_keep_landmarks_on_the_picture(self, side: int) -> None:
        source = self.dots(side=side)
        flipped = []
        for step in range(24):
            batch = source.batch(step, range(1))
            shown = centre(batch["target"][0].float().mean(dim=0).numpy())
            flipped.append(bool(shown[-1, 0] < shown[0, 0]))
            assert np.abs(centre(batch["mask"][0, 0].float().numpy()) - shown).max() < 1.0  # dots are on whole pixels
            assert np.abs(centre(batch["mouth"][0, 0].float().numpy()) - shown).max() < 0.3
        assert 6 < sum(flipped) < 18

    def test_the_warped_prior_follows_a_flipped_face_too(self, prepared: Manifest) -> None:
        """The identity comes from another frame; moved by the landmarks, it is nearer to the frames."""
        plain, warped = (
            self.make(prepared, prior=prior, side=64).batch(2, range(8)) for prior in ("identity", "warped")
        )
        assert torch.equal(plain["target"], warped["target"])
        assert torch.equal(plain["mask"], warped["mask"])
        before, after = (
            (batch["prior"].float() - batch["target"].float()).square().mean() for batch in (plain, warped)
        )
        assert after < before

    def test_frames_follow_one_another(self) -> None:
        for step in range(8):
            shown = centre(self.dots(5).batch(step, range(1))["target"][0].float().mean(dim=0).numpy())
            assert np.abs(np.diff(shown[:, 1]) - 3).max() < 0.3
            assert np.abs(np.abs(np.diff(shown[:, 0])) - 2).max() < 0.3

    def test_every_start_and_every_identity_is_drawn(self) -> None:
        source = self.dots(9)
        starts, identities = set(), set()
        for step in range(80):
            batch = source.batch(step, range(1))
            starts.add(round((centre(batch["target"][0, :, 0].float().mean(dim=0)[None].numpy())[0, 1] - 70) / 3))
            identities.add(round((centre(batch["identity"][0].float().mean(dim=0)[None].numpy())[0, 1] - 70) / 3))
        assert starts == {0, 1, 2, 3}  # twelve frames, the last start included
        assert identities == set(range(12))

    def test_labels_are_shown_and_left_out(self) -> None:
        source = self.dots(2, side=32)
        emotions = [int(source.batch(step, range(1))["emotion"]) for step in range(100)]
        assert set(emotions) == {4, UNLABELLED}
        assert 5 < emotions.count(UNLABELLED) < 40
        few = self.dots(2, side=32, emotions=3)
        assert {int(few.batch(step, range(1))["emotion"]) for step in range(10)} == {3}  # beyond it: none is named

    def test_noise_of_each_frame_or_of_all(self, prepared: Manifest) -> None:
        for over_time, same in (("independent", False), ("shared", True)):
            noise = self.make(prepared, noise_over_time=over_time).batch(0, range(1))["noise"]
            assert torch.equal(noise[:, :, 0], noise[:, :, 1]) is same

    def test_levels_are_the_schedule_s(self, prepared: Manifest) -> None:
        source = self.make(prepared, frames=2, schedule=ScheduleConfig(train_steps=10))
        levels = torch.cat([source.batch(step, range(8))["level"] for step in range(5)])
        assert levels.min() >= 0
        assert levels.max() == 9

    def test_short_clips_are_left_out(self, prepared: Manifest) -> None:
        assert len(self.make(prepared, frames=FRAMES - 1).clips) == 2
        assert not self.make(prepared, frames=FRAMES).clips

    def test_pictures_of_another_side_stay_under_their_landmarks(self) -> None:
        for side in (32, 64, 96, 192, 256):
            pictures, points, mouth = clip_windows(Dots(), np.arange(3), side)  # type: ignore[arg-type]
            shown = centre(pictures.mean(axis=-1))
            assert np.abs(shown - points[:, 0]).max() < 0.06, side
            assert np.allclose(mouth.mean(axis=1), points[:, 0], atol=1e-3)

    def test_people_are_drawn_by_the_square_root_of_their_clips(self) -> None:
        clips = [Dots() for _ in range(5)]
        clips[0].identity = "rare"  # type: ignore[misc]
        weights = clip_weights(clips)  # type: ignore[arg-type]
        assert weights.sum() == pytest.approx(1)
        assert weights[1:].sum() / weights[0] == pytest.approx(2)

    def test_the_mouth_is_a_little_more_than_the_inner_lips(self) -> None:
        square = np.array([[[20, 20]] * 5 + [[40, 20]] * 5 + [[40, 40]] * 5 + [[20, 40]] * 5], np.float32)
        area = mouth_map(square, 64)
        assert area.shape == (1, 64, 64)
        assert area[0, 30, 30] == 1
        assert area[0, 30, 18] > 0.9
        assert area[0, 30, 14] == 0
        closed = np.repeat(np.array([[[30.0, 30.0]]], np.float32), 20, 1)
        assert mouth_map(closed, 64).max() <= 1

    def test_inputs_are_those_of_rendering(self) -> None:
        """A batch's prior and mask are made by what the renderer is given at work, from its own identity."""
        source = self.dots(side=64, mask_scale="clip")
        batch = source.batch(3, range(1))
        shown = centre(batch["target"][0].float().mean(dim=0).numpy())
        points = np.repeat(shown[:, None], len(NEEDED), 1)[None].astype(np.float32)
        _, mask = build_start(batch["identity"].float().numpy(), points[:, 0], points, source.config)
        assert np.abs(centre(mask[0, 0]) - centre(batch["mask"][0, 0].float().numpy())).max() <= 1


class TestSecondsSet:
    def make(
        self, manifest: Manifest, *, seed: int = 5, emotions: tuple[str, ...] = ("", ""), **changes: Any
    ) -> SecondsSet:
        clips = usable_speech(manifest, Split.TRAIN, LANDMARKS)
        return SecondsSet(clips, list(emotions), replace(TINY.generator, **changes), manifest, seed=seed)

    def test_shapes(self, prepared: Manifest) -> None:
        for frames, hop in ((25, 20), (30, 24)):
            batch = self.make(prepared, frames=frames, hop_frames=hop).batch(0, range(5))
            assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
                "mel": (5, 100, 80), "initial": (5, 68, 2), "target": (5, frames, 68, 2), "valid": (5, frames),
                "emotion": (5,), "clips": (5,),
            }  # fmt: skip
            assert all(
                t.dtype == (torch.int64 if n in ("emotion", "clips") else torch.float32) for n, t in batch.items()
            )
            assert batch["mel"].min() >= SILENT
            assert set(batch["valid"].unique().tolist()) <= {0.0, 1.0}
            assert 0 <= batch["target"].min() < batch["target"].max() <= 1.2  # normalised

    def test_an_item_is_a_function_of_seed_step_and_number(self, prepared: Manifest) -> None:
        first, again, other_seed = self.make(prepared), self.make(prepared), self.make(prepared, seed=6)
        for step in (3, 0):
            whole = first.batch(step, range(4))
            parts = [again.batch(step, part) for part in (range(1), range(1, 4))]
            for name, tensor in whole.items():
                assert torch.equal(tensor, torch.cat([part[name] for part in parts])), name
        here, later, elsewhere = (
            source.batch(step, range(3))["mel"] for source, step in ((first, 0), (first, 1), (other_seed, 0))
        )
        assert not torch.equal(here, later)
        assert not torch.equal(here, elsewhere)

    @pytest.mark.parametrize(("frames", "hop"), [(25, 20), (30, 24), (12, 8), (50, 40)])
    def test_sound_and_mouth_are_of_one_moment(
        self, prepared: Manifest, frames: int, hop: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With columns, samples and landmarks that hold their moment, what is heard is what is seen."""
        monkeypatch.setattr("atldiff.methods.atl_published.training.kflm_data.augment", lambda mel, random: mel)
        source = self.make(prepared, frames=frames, hop_frames=hop)
        length = 60
        moments = np.arange(length, dtype=np.float32)
        source.mels = [np.repeat(np.arange(4 * length, dtype=np.float32)[:, None] / 4, 80, 1)] * 2
        source.targets = [np.broadcast_to(moments[:, None, None], (length, 68, 2)).copy()] * 2
        source.samples = [(np.arange(640 * length) // 640).astype(np.int16)] * 2
        seen = []
        for step in range(60):
            item = {name: value.numpy()[0] for name, value in source.batch(step, range(1)).items()}
            at = np.arange(frames) * 25 / frames
            heard, wanted = item["mel"][(4 * at).astype(int), 0], item["target"][:, 0, 0]
            valid = item["valid"] > 0
            assert valid.any()
            assert np.abs(heard - wanted)[valid].max() <= 0.25
            # Beyond the clip, or between its last frame and its end, there is sound or silence but no landmark.
            assert ((heard[~valid] == SILENT) | (heard[~valid] > length - 1.5)).all()
            spoken = item["samples"].reshape(25, 640)[:, 0]
            # The gain is drawn: the steps between frames are all equal where the clip is.
            inside = item["mel"][::4, 0] > SILENT
            if inside.sum() > 2:
                assert np.corrcoef(spoken[inside], item["mel"][::4, 0][inside])[0, 1] > 0.999
            assert (spoken[~inside] == 0).all()
            seen.append(wanted[0] if valid[0] else -1)
        assert min(seen) == -1  # a second may start before its clip ...
        assert max(seen) > length - 25  # ... and end after it

    def test_clips_shorter_than_a_second_are_used(self, tmp_path: Path) -> None:
        manifest = make_synthetic(tmp_path, people=4, clips=1, frames=18)
        batch = self.make(manifest).batch(0, range(6))
        assert batch["valid"].any(dim=1).all()
        assert all(tensor.isfinite().all() for tensor in batch.values())

    def test_landmarks_are_the_clip_s_68(self, prepared: Manifest) -> None:
        source = self.make(prepared)
        clip = usable_speech(prepared, Split.TRAIN, LANDMARKS)[1]
        shapes = (clip.neutral + clip.displacements)[:, SIXTY_EIGHT, :2]
        assert np.allclose(source.targets[1], normalise(shapes.astype(np.float64), "canonical"), atol=1e-5)
        initial = torch.cat([source.batch(step, range(4))["initial"] for step in range(6)])
        clips = torch.cat([source.batch(step, range(4))["clips"] for step in range(6)])
        rest = torch.from_numpy(np.stack(source.neutrals))[clips]
        assert 0.002 < float((initial - rest).std()) < 0.008  # a detection's noise around the shape at rest

    def test_labels_are_shown_and_left_out(self, prepared: Manifest) -> None:
        source = self.make(prepared, emotions=("happy", ""))
        batches = [source.batch(step, range(8)) for step in range(10)]
        clips, emotions = (torch.cat([batch[name] for batch in batches]) for name in ("clips", "emotion"))
        assert set(emotions[clips == 1].tolist()) == {UNLABELLED}
        assert set(emotions[clips == 0].tolist()) == {EMOTIONS.index("happy"), UNLABELLED}

    def test_samples_come_with_models_that_hear_them(self, prepared: Manifest) -> None:
        batch = self.make(prepared, features="wav2vec2", speech_model="owner/name", feature_width=16).batch(0, range(3))
        assert batch["samples"].shape == (3, 16_000)
        assert batch["samples"].dtype == torch.float32
        assert 0.01 < batch["samples"].abs().max() < 2
        clip = usable_speech(prepared, Split.TRAIN, LANDMARKS)[0]
        assert load_samples(prepared, clip).dtype == np.int16

    def test_the_task_s_loss_is_the_mean_of_its_clips(self, prepared: Manifest) -> None:
        torch.manual_seed(0)
        task = kflm_task(PublishedModel(TINY), prepared, LANDMARKS, lambda module: None)
        module = task.module.eval()  # without dropout
        batch = task.source.batch(0, range(4))
        with torch.inference_mode():
            whole = task.loss(module, batch)
            alone = [task.loss(module, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(4)]
        for name in whole:
            assert float(whole[name]) == pytest.approx(np.mean([float(one[name]) for one in alone]), rel=1e-4)

    def test_frames_beyond_the_clip_cost_nothing(self, prepared: Manifest) -> None:
        task = kflm_task(PublishedModel(TINY), prepared, LANDMARKS, lambda module: None)
        module = task.module.eval()
        batch = task.source.batch(0, range(4))
        batch["valid"][:, 10:] = 0
        wrong = {**batch, "target": batch["target"].clone()}
        wrong["target"][:, 10:] += 5
        with torch.inference_mode():
            assert float(task.loss(module, batch)["loss"]) == float(task.loss(module, wrong)["loss"])
