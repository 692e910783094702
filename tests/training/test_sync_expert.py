"""The sync expert of LMDiff on drawn people: its batches, its stage, and what the joint stage makes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.commands.train import load_config
from atldiff.config import (
    LMDIFF_PRESETS,
    TRAIN_PRESETS,
    CodecConfig,
    CompletionConfig,
    JointConfig,
    LMDiffConfig,
    SyncConfig,
    TalkRendererConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from atldiff.data.manifest import Manifest, Split
from atldiff.data.speech import ClipSpeech, in_step, load_speech
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import load_clip
from atldiff.errors import CheckpointError, DataError
from atldiff.landmarks.stream import SILENT
from atldiff.landmarks.topology import LIPS_OUTER
from atldiff.methods.lmdiff.network import LMDiffModel
from atldiff.methods.lmdiff.sync_expert import SyncExpert
from atldiff.methods.lmdiff.training.joint_task import joint_set, joint_task, predict, rendered_from
from atldiff.methods.lmdiff.training.sync_data import SyncSet, heard
from atldiff.methods.lmdiff.training.sync_loss import sync_loss
from atldiff.methods.lmdiff.training.sync_task import OFFSETS, contrast, embed_moments, offset_cosines, offset_scores
from atldiff.training.draws import item_random
from atldiff.training.run import train_stage
from atldiff.training.task import Task
from atldiff.video.window import WindowGeometry

torch.set_num_threads(1)

FRAMES = 44
SYNC = SyncConfig(frames=3, margin_frames=1, side=16, widths=(16, 32), width=16)
PLAIN = LMDiffConfig(
    generator=CompletionConfig(
        points="ip-lap", width=16, layers=1, heads=2, feed_forward=16, components=6, context_frames=8
    ),
    renderer=TalkRendererConfig(
        codec=CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1), widths=(16, 32), blocks=(1, 1),
        talk_levels=(0, 1), token_width=16,
    ),
)  # fmt: skip
WITH = replace(PLAIN, joint=JointConfig(sync=SYNC))
EXPERT = TrainConfig(
    stage="sync", model=WITH, steps=4, clips_per_batch=2, frames=16, optimiser="adamw", learning_rate=3e-3,
    weight_decay=0.5, warmup_steps=1, save_every=2, probe_every=4, min_sync=0.0,
)  # fmt: skip
JOINT = TrainConfig(
    stage="joint", model=replace(PLAIN, joint=JointConfig(sync_weight=0.5)), steps=2, clips_per_batch=2, frames=3,
    learning_rate=1e-3, warmup_steps=1, save_every=2, probe_every=4, min_sync=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=5, clips=1, frames=FRAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atldiff.methods.lmdiff.training.joint_task.PROBE_BATCHES", 1)
    monkeypatch.setattr("atldiff.methods.lmdiff.training.joint_task.PROBE_CLIPS", 2)
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)


def made(config: LMDiffConfig) -> LMDiffModel:
    """Return a model that counts as trained, moved from where fresh ends hide what is behind them."""
    torch.manual_seed(0)
    model = LMDiffModel(config)
    model.renderer.codec.calibrate(torch.rand(4, 3, 80, 80) * 2 - 1)  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.generator.basis.normal_(0, 0.01)
        model.generator.scale.fill_(1.0)
    return model


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all but the expert."""
    folder = tmp_path_factory.mktemp("start")
    checkpoint.save_model(made(PLAIN), folder)
    return folder


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of all."""
    folder = tmp_path_factory.mktemp("expert")
    checkpoint.save_model(made(WITH), folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def clips_of(prepared: Manifest, shift: int = 0) -> tuple[list[ClipSpeech], list]:
    entries = prepared.usable(Split.TRAIN)
    speech = [in_step(clip, shift) for entry in entries if (clip := load_speech(prepared, entry))]
    return speech, [load_clip(prepared, entry, LIPS_OUTER) for entry in entries]


def joint_batch(model: LMDiffModel, prepared: Manifest, items: int = 4, frames: int = 3) -> dict[str, torch.Tensor]:
    source = joint_set(model, prepared, clips_of(prepared)[0], frames=frames, seed=0)
    batch = source.batch(0, range(items))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


class TestConfiguration:
    @pytest.mark.parametrize("config", [PLAIN, WITH], ids=["null", "object"])
    def test_round_trip(self, config: LMDiffConfig) -> None:
        values = json.loads(json.dumps(to_dict(config)))
        assert (values["joint"]["sync"] is None) == (config is PLAIN)
        assert from_dict(values) == config

    def test_what_is_wrong_in_it_is_named(self) -> None:
        values = to_dict(WITH)
        for sync, said in (({"side": 4}, "side: got 4"), ({"wings": 2}, "unknown field 'wings'"), (3, "sync: got int")):
            with pytest.raises(ValueError, match=said):
                from_dict({**values, "joint": {"sync": sync}})

    def test_of_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "run.json"

        def read(preset: str, frames: int, joint: dict[str, Any]) -> JointConfig:
            file.write_text(json.dumps({"preset": preset, "frames": frames, "model": {"joint": joint}}))
            model = load_config(str(file)).model
            assert isinstance(model, LMDiffConfig)
            return model.joint

        assert read("lmdiff-window-joint", 5, {"sync_weight": 0.1}) == JointConfig(sync_weight=0.1)
        assert read("lmdiff-sync", 25, {"sync": {"side": 40}}) == JointConfig(sync=SyncConfig(side=40))
        assert read("lmdiff-window-joint", 5, {"sync": {"side": 40}}) == JointConfig(sync=SyncConfig(side=40))
        with pytest.raises(ValueError, match="stage: got 'sync', expected a model of lmdiff with joint.sync"):
            read("lmdiff-sync", 25, {"sync": None})

    def test_is_off_unless_asked_for(self) -> None:
        shipped = [*LMDIFF_PRESETS.values(), *(config.model for config in TRAIN_PRESETS.values())]
        joints = [model.joint for model in shipped if isinstance(model, LMDiffConfig)]
        assert len(joints) > 4
        assert all(joint.sync_weight == 0 for joint in joints)
        assert all(model.joint.sync is None for model in LMDIFF_PRESETS.values())
        assert not any(name.startswith("expert.") for name in LMDiffModel(PLAIN).state_dict())


class TestExpert:
    @pytest.mark.parametrize("side", [80, 100])
    def test_sees_and_hears_unit_vectors(self, side: int) -> None:
        torch.manual_seed(0)
        expert, pictures = SyncExpert(SYNC), torch.rand(2, 3, 3, side, side) * 2 - 1
        mel = torch.rand(2, 4 * 5, 80) * 3.5 - 3
        for vectors in (expert.see(pictures), expert.hear(mel)):
            assert vectors.shape == (2, 16)
            assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-5)
        assert not torch.allclose(expert.see(pictures), expert.see(pictures.flip(2)), atol=1e-3)
        assert not torch.allclose(expert.hear(mel), expert.hear(mel.flip(1)), atol=1e-3)

    def test_the_side_of_the_window_hardly_matters(self) -> None:
        """The joint stage decodes at the renderer's resolution, the expert is trained at template pixels."""
        torch.manual_seed(0)
        expert, small = SyncExpert(SYNC), torch.rand(2, 9, 10, 10) * 2 - 1
        seen = [
            expert.see(torch.nn.functional.interpolate(small, (side, side), mode="bilinear").unflatten(1, (3, 3)))
            for side in (80, 160)
        ]
        assert (seen[0] * seen[1]).sum(-1).min() > 0.99

    def test_of_the_preset_is_small(self) -> None:
        count = sum(parameter.numel() for parameter in SyncExpert(SyncConfig()).parameters())
        assert 0.5e6 < count < 1.1e6


class TestBatches:
    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_pictures_are_in_step_with_their_sound(
        self, prepared: Manifest, monkeypatch: pytest.MonkeyPatch, shift: int
    ) -> None:
        from atldiff.training.places import cut_at

        cut: list[tuple[str, int]] = []

        def watched(clip, place, geometry, random):  # noqa: ANN001, ANN202
            assert (np.diff(place.frames[1:]) == 1).all()
            cut.append((clip.name, int(place.frames[1])))
            return cut_at(clip, place, geometry, random)

        monkeypatch.setattr("atldiff.methods.lmdiff.training.sync_data.cut_at", watched)
        monkeypatch.setattr("atldiff.methods.lmdiff.training.sync_data.augment", lambda mel, random: mel)
        speech, windows = clips_of(prepared, shift)
        source = SyncSet(speech, windows, PLAIN.renderer, margin=1, frames=16, seed=0)
        batch = source.batch(0, range(4))
        assert batch["pictures"].shape == (4, 2, 3, 16, 80, 80)
        assert batch["mel"].shape == (4, 2, 4 * 18, 80)
        assert (batch["clips"][:, 0] != batch["clips"][:, 1]).all()
        whole = {
            clip.name: load_speech(prepared, entry) for clip, entry in zip(windows, prepared.entries, strict=False)
        }
        for (name, frame), mel in zip(cut, batch["mel"].flatten(0, 1), strict=True):
            clip = whole[name]
            assert clip is not None
            sounded = (frame - shift) * 4  # `shift` frames later the mouth than the sound
            assert np.array_equal(mel[4:8].numpy(), clip.mel[sounded : sounded + 4])

    def test_an_item_depends_on_its_number_alone(self, prepared: Manifest) -> None:
        source = SyncSet(*clips_of(prepared), PLAIN.renderer, margin=1, frames=16, seed=0)
        whole, part = source.batch(3, range(4)), source.batch(3, range(2, 4))
        assert all(torch.equal(part[name], whole[name][2:]) for name in whole)
        assert not torch.equal(source.batch(4, range(4))["mel"], whole["mel"])

    def test_beyond_the_clip_is_silence(self) -> None:
        mel = np.arange(12, dtype=np.float32)[:, None].repeat(80, 1)
        found = heard(mel, start=1, frames=1, margin=2)
        assert found[:, 0].tolist() == [SILENT] * 4 + list(range(12)) + [SILENT] * 4
        assert found.dtype == np.float32


class TestContrast:
    def test_of_known_pairs(self) -> None:
        apart = torch.eye(4)[None]
        told = contrast(apart, apart, 0.1)
        assert float(told["loss"]) == pytest.approx(math.log(1 + 3 * math.exp(-10)), rel=1e-3)
        assert float(told["found"]) == 1
        told = contrast(apart, apart.roll(1, 1), 0.1)
        assert float(told["loss"]) > 9
        assert float(told["found"]) == 0
        same = torch.ones(2, 4, 8) / 8**0.5
        assert float(contrast(same, same, 0.1)["loss"]) == pytest.approx(math.log(4), rel=1e-5)

    def test_a_batch_may_be_cut_into_parts(self, prepared: Manifest) -> None:
        expert = made(WITH).expert
        assert expert is not None
        source = SyncSet(*clips_of(prepared), PLAIN.renderer, margin=1, frames=16, seed=0)

        def loss(items: range) -> float:
            batch = source.batch(0, items)
            with torch.no_grad():
                seen, sound = embed_moments(expert, batch["pictures"].float(), batch["mel"])
            assert seen.shape == sound.shape == (len(items), 2 * 3, 16)  # two runs of moments at 0, 5 and 10
            return float(contrast(seen, sound, 0.1)["loss"])

        assert loss(range(4)) == pytest.approx((loss(range(2)) + loss(range(2, 4))) / 2, rel=1e-5)

    def test_moments_and_their_sound_begin_together(self) -> None:
        """Pictures and columns that hold the number of their frame."""
        frames = torch.arange(16.0)
        pictures = frames[:, None, None].expand(1, 2, 3, 16, 4, 4)
        mel = (torch.arange(4 * 18) // 4 - 1.0)[:, None].expand(1, 2, -1, 80)
        stub: Any = SimpleNamespace(
            config=SYNC, columns=20, see=lambda x: x[:, 0, :, 0, 0], hear=lambda x: x[:, 4:16:4, 0]
        )
        seen, sound = embed_moments(stub, pictures, mel)
        assert torch.equal(seen, sound)
        assert seen[0, :, 0].tolist() == [0, 5, 10, 0, 5, 10]


class TestProbe:
    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_finds_the_true_offset_of_what_tells_its_time(self, prepared: Manifest, shift: int) -> None:
        """A clip whose pictures and columns hold the number of their frame, and an expert that reads it."""
        speech = clips_of(prepared)[0][0]
        columns = np.arange(4 * FRAMES, dtype=np.float32) // 4
        speech = in_step(replace(speech, mel=columns[:, None].repeat(80, 1)), shift)

        class Clip:
            points = np.zeros((FRAMES, 1, 2), np.float32)

            def windows(self, frames: np.ndarray) -> np.ndarray:
                later = frames - shift  # the mouth is `shift` frames later than the sound
                return later.astype(np.uint8)[:, None, None, None].repeat(96, 1).repeat(96, 2).repeat(3, 3)

        def unit(frame: torch.Tensor) -> torch.Tensor:
            return torch.stack([(0.1 * frame).cos(), (0.1 * frame).sin()], dim=-1)

        expert = made(WITH).expert
        assert expert is not None
        expert.see = lambda pictures: unit((pictures[:, 0, 0, 0, 0] + 1) * 127.5)
        expert.hear = lambda mel: unit(mel[:, 4, 0])
        clip: Any = Clip()
        cosines = offset_cosines(expert, speech, clip, WindowGeometry(80, (24, 26)))
        assert len(cosines) > 2
        assert offset_scores(cosines)["true_offset"] == 1
        expert.hear = lambda mel: unit(mel[:, 4, 0] + 1)  # the sound of a frame later is taken for this one's
        found = offset_scores(offset_cosines(expert, speech, clip, WindowGeometry(80, (24, 26))))
        assert (found["true_offset"], found["near_offset"]) == (0, 1)

    def test_a_short_clip_has_no_moments(self, prepared: Manifest) -> None:
        speech, windows = clips_of(prepared)
        short = replace(speech[0], displacements=speech[0].displacements[:18])
        cosines = offset_cosines(SyncExpert(SYNC), short, windows[0], WindowGeometry(80, (24, 26)))
        assert cosines.shape == (0, len(OFFSETS))
        assert offset_scores(cosines) == {}

    def test_scores(self) -> None:
        cosines = np.zeros((4, len(OFFSETS)))
        for row, offset in enumerate((0, 1, -1, 6)):
            cosines[row, OFFSETS.index(offset)] = 0.5
        cosines[0, 0] = -0.5
        scores = offset_scores(cosines)
        assert (scores["true_offset"], scores["near_offset"], scores["cosine"]) == (0.25, 0.75, 0.125)
        assert scores["cosine_off"] == pytest.approx((0.5 - 0.5) / (4 * 6))


class TestStage:
    def test_resumes_exactly_and_trains_the_expert_alone(self, prepared: Manifest, start: Path, tmp_path: Path) -> None:
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(EXPERT, prepared.folder, out, start=start, workers=0, stop_after=stop)
        one, two, before = (weights(f) for f in (tmp_path / "one/checkpoint", tmp_path / "two/checkpoint", start))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert {name for name in one if name not in before} == {name for name in one if name.startswith("expert.")}
        assert all(torch.equal(one[name], before[name]) for name in before)
        told = json.loads((tmp_path / "one/probe.jsonl").read_text().splitlines()[-1])
        assert told.keys() == {"step", "true_offset", "near_offset", "cosine", "cosine_off"}
        loaded = checkpoint.load_model(tmp_path / "one/checkpoint")
        assert isinstance(loaded, LMDiffModel)
        assert loaded.config == WITH

    def test_the_loss_falls(self, prepared: Manifest, start: Path, tmp_path: Path) -> None:
        told: list[dict[str, float]] = []
        train_stage(
            replace(EXPERT, steps=40, clips_per_batch=4, probe_every=100, save_every=100), prepared.folder, tmp_path,
            start=start, workers=0, progress=lambda step, total, losses: told.append(losses),
        )  # fmt: skip
        first, last = ({n: np.mean([x[n] for x in part]) for n in told[0]} for part in (told[:8], told[-8:]))
        assert last["loss"] < 0.8 * first["loss"]
        assert last["found"] > first["found"]

    def test_goes_on_from_an_expert_or_makes_another(self, prepared: Manifest, expert: Path, tmp_path: Path) -> None:
        gentle = replace(EXPERT, learning_rate=1e-9, steps=1, ema=0.0)
        train_stage(gentle, prepared.folder, tmp_path / "same", start=expert, workers=0)
        before, same = weights(expert), weights(tmp_path / "same/checkpoint")
        assert all(torch.allclose(same[name], before[name], atol=1e-4) for name in before)
        wider = replace(WITH, joint=JointConfig(sync=replace(SYNC, width=32)))
        train_stage(replace(gentle, model=wider), prepared.folder, tmp_path / "wider", start=expert, workers=0)
        other = weights(tmp_path / "wider/checkpoint")
        assert other["expert.eye.out.weight"].shape[0] == 32
        assert not torch.allclose(
            other["expert.eye.levels.0.shrink.weight"], before["expert.eye.levels.0.shrink.weight"]
        )
        assert all(torch.equal(other[name], before[name]) for name in before if not name.startswith("expert."))

    def test_needs_two_clips(self, prepared: Manifest, start: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="0 training clips of at least 64 frames .* expected two or more"):
            train_stage(replace(EXPERT, frames=64), prepared.folder, tmp_path, start=start, workers=0)

    @pytest.mark.parametrize("stage", ["landmarks", "renderer", "other renderer"])
    def test_other_stages_carry_an_expert_along(
        self, prepared: Manifest, expert: Path, tmp_path: Path, stage: str, fit_once: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("atldiff.training.landmarks_task.fit_basis", fit_once)
        monkeypatch.setattr("atldiff.training.latent_renderer_task.PROBE_BATCHES", 0)
        model = replace(PLAIN, renderer=replace(PLAIN.renderer, motion=stage != "other renderer"))
        config = replace(
            JOINT, model=model, steps=1, stage="landmarks" if stage == "landmarks" else "renderer",
            frames=28 if stage == "landmarks" else 3,
        )  # fmt: skip
        train_stage(config, prepared.folder, tmp_path, start=expert, workers=0)
        before, after = weights(expert), weights(tmp_path / "checkpoint")
        experts = [name for name in before if name.startswith("expert.")]
        assert experts
        assert all(torch.equal(after[name], before[name]) for name in experts)

    def test_no_other_stage_makes_one(self, prepared: Manifest, start: Path, tmp_path: Path) -> None:
        train_stage(
            replace(JOINT, model=WITH, steps=1), prepared.folder, tmp_path, start=start, workers=0, stop_after=1
        )
        assert checkpoint.read_config(tmp_path / "checkpoint") == PLAIN


class TestJoint:
    @staticmethod
    def task(prepared: Manifest, model: LMDiffModel, joint: JointConfig, frames: int = 3) -> Task:
        model.config = replace(model.config, joint=joint)
        config = replace(JOINT, bfloat16=False, model=model.config, frames=frames)
        return joint_task(model, prepared, config, lambda module: None)

    def test_trains_generator_and_renderer_and_leaves_the_expert_alone(
        self, prepared: Manifest, expert: Path, tmp_path: Path
    ) -> None:
        told: list[dict[str, float]] = []
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [1, None])):
            for stop in stops:
                train_stage(
                    JOINT, prepared.folder, out, start=expert, workers=0, stop_after=stop,
                    progress=lambda step, total, losses: told.append(losses),
                )  # fmt: skip
        after, again, before = (weights(f) for f in (tmp_path / "one/checkpoint", tmp_path / "two/checkpoint", expert))
        assert all(torch.equal(after[name], again[name]) for name in after)
        changed = {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])}
        assert changed == {"generator", "renderer"}
        assert all(0 < losses["sync"] < 2 for losses in told)
        config = checkpoint.read_config(tmp_path / "one/checkpoint")
        assert isinstance(config, LMDiffConfig)
        assert config.joint == JointConfig(sync=SYNC, sync_weight=0.5)

    def test_without_weight_everything_is_as_without_an_expert(self, prepared: Manifest) -> None:
        plain, unweighted, weighted = made(PLAIN), made(WITH), made(WITH)
        for model in (unweighted, weighted):
            model.generator.load_state_dict(plain.generator.state_dict())
            model.renderer.load_state_dict(plain.renderer.state_dict())
        tasks = [
            self.task(prepared, model, joint)
            for model, joint in (
                (plain, JointConfig()), (unweighted, JointConfig(sync=SYNC)),
                (weighted, JointConfig(sync=SYNC, sync_weight=0.5)),
            )
        ]  # fmt: skip
        batch = tasks[0].source.batch(0, range(3))
        told = []
        for task in tasks:
            torch.manual_seed(0)  # as the training loop does, for dropout
            told.append(task.loss(task.module, batch))
        without, off, on = told
        assert without.keys() == off.keys() == on.keys() - {"sync"}
        for name, value in without.items():
            assert torch.equal(value, off[name])
            assert name == "loss" or torch.equal(value, on[name])
        assert torch.allclose(on["loss"], without["loss"] + 0.5 * on["sync"])
        assert float(on["sync"].detach()) > 0
        off["loss"].backward()
        assert unweighted.expert is not None
        assert not any(parameter.requires_grad for parameter in unweighted.expert.parameters())

    @pytest.mark.parametrize("detach", [False, True])
    def test_its_gradient_reaches_the_landmarks_unless_they_are_detached(
        self, prepared: Manifest, detach: bool
    ) -> None:
        model = made(replace(WITH, joint=JointConfig(sync=SYNC, sync_weight=0.5)))
        model.renderer.codec.requires_grad_(False)  # as the stage has it
        judge = sync_loss(model, replace(JOINT, model=model.config))
        assert judge is not None
        assert model.expert is not None
        batch = joint_batch(model, prepared)
        _, points = predict(model, batch)
        given = rendered_from(model, batch, points.detach() if detach else points)
        model.renderer.loss(given, partial(judge, batch))["sync"].backward()
        found = {
            part: [p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.get_submodule(part).parameters()]
            for part in ("generator", "renderer.denoiser", "expert")
        }
        assert all(found["generator"]) != detach
        assert any(found["generator"]) != detach
        assert any(found["renderer.denoiser"])
        assert not any(found["expert"])

    def test_judges_the_middle_frames_of_the_clips_that_are_heard(self, prepared: Manifest) -> None:
        """Pictures and columns that hold the number of their frame, and an expert that reads it."""
        model = made(replace(WITH, joint=JointConfig(sync=SYNC, sync_weight=0.5)))
        judge = sync_loss(model, replace(JOINT, model=model.config))
        assert judge is not None
        assert model.expert is not None
        context, frames = model.config.generator.context_frames, 7
        shown: list[list[float]] = []

        def see(pictures: torch.Tensor) -> torch.Tensor:
            shown.append(pictures[0, 0, :, 0, 0].tolist())
            return torch.nn.functional.one_hot(pictures[:, 0, 0, 0, 0].long(), frames).float()

        model.renderer.codec.decode = lambda latents: latents
        model.expert.see = see
        model.expert.hear = lambda mel: torch.nn.functional.one_hot(mel[:, 4, 0].long(), frames).float()
        latents = torch.arange(frames).float()[:, None, None].expand(2, 4, frames, 20, 20)
        batch = {
            "mel": (torch.arange(4 * (context + frames + 4)) // 4 - context).float()[:, None].expand(2, -1, 80),
            "heard": torch.tensor([True, True]),
            "level": torch.tensor([3, 999]),
        }
        assert float(judge(batch, latents)) == 0
        assert shown == [[2, 3, 4]]
        late = batch | {"mel": batch["mel"] - 1}
        assert float(judge(late, latents)) == 1
        assert float(judge(late | {"heard": torch.tensor([True, False])}, latents)) == 0.5

    def test_counts_by_what_is_left_where_noise_is_predicted(self, prepared: Manifest) -> None:
        renderer = PLAIN.renderer
        noise = replace(renderer, pixel_weight=0.0, schedule=replace(renderer.schedule, prediction="epsilon"))
        model = made(replace(PLAIN, renderer=noise, joint=JointConfig(sync=SYNC, sync_weight=0.5)))
        judge = sync_loss(model, replace(JOINT, model=model.config))
        assert judge is not None
        batch, latents = joint_batch(model, prepared, items=2), torch.randn(2, 4, 3, 20, 20)
        batch["heard"] = torch.tensor([True, True])
        clean, noisy = (
            float(judge(batch | {"level": torch.full((2,), level)}, latents).detach()) for level in (0, 999)
        )
        assert 0 < noisy < 0.02 * clean

    def test_a_step_down_its_gradient_brings_pictures_nearer_to_the_sound(self, prepared: Manifest) -> None:
        model = made(replace(WITH, joint=JointConfig(sync=SYNC, sync_weight=0.5)))
        judge = sync_loss(model, replace(JOINT, model=model.config))
        assert judge is not None
        batch = joint_batch(model, prepared)
        with torch.no_grad():
            latents = model.renderer.codec.encode(batch["target"])
        before = judge(batch, latents.requires_grad_())
        (gradient,) = torch.autograd.grad(before, latents)
        with torch.no_grad():
            after = judge(batch, latents - 0.05 * gradient / gradient.abs().max())
        assert float(after) < float(before.detach())

    def test_is_refused_without_what_it_needs(
        self, prepared: Manifest, start: Path, expert: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(
            CheckpointError, match="got no sync expert, expected one for a sync_weight of 0.5"
        ) as caught:
            train_stage(JOINT, prepared.folder, tmp_path / "a", start=start, workers=0)
        assert "lmdiff-sync" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="frames: got 2, expected at least 3 with a sync_weight of 0.5"):
            train_stage(replace(JOINT, frames=2), prepared.folder, tmp_path / "b", start=expert, workers=0)


def test_an_item_draws_no_clip_twice(prepared: Manifest) -> None:
    """One clip that is drawn nearly always leaves room for another."""
    speech, windows = clips_of(prepared)
    source = SyncSet(speech, windows, PLAIN.renderer, margin=1, frames=16, seed=0)
    assert source.draw is not None
    source.draw.upto = np.array([0.98, 0.99, 1.0])
    for index in range(6):
        chosen, other = source._item(item_random(0, 0, index))["clips"].tolist()
        assert chosen != other
