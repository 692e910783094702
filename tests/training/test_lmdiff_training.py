"""The stages of LMDiff on drawn people: batches, the way from the loss to the landmarks, exact resumption."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from atldiff import checkpoint
from atldiff.config import (
    ATLConfig,
    CodecConfig,
    CompletionConfig,
    DiffTalkerConfig,
    JointConfig,
    LatentRendererConfig,
    LMDiffConfig,
    TalkRendererConfig,
    TrainConfig,
)
from atldiff.data.completion import DRIVES, load_seen
from atldiff.data.manifest import Manifest, Split
from atldiff.data.posed import load_posed
from atldiff.data.speech import in_step, load_speech
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import crop, crop_map, load_clip
from atldiff.errors import CheckpointError
from atldiff.evaluation.networks import network_figures, network_table
from atldiff.methods.difftalker.network import DiffTalkerModel
from atldiff.methods.lmdiff.inputs import NEEDED, TOKENS
from atldiff.methods.lmdiff.network import LMDiffModel
from atldiff.methods.lmdiff.training.joint_data import JointSet
from atldiff.methods.lmdiff.training.joint_task import joint_set, joint_task, predict, rendered_from, true_points
from atldiff.methods.lmdiff.training.renderer_data import TalkSet
from atldiff.training.completion_data import CompletionSet
from atldiff.training.run import train_stage
from atldiff.video.window import WindowGeometry, apply

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)

FRAMES = 40
CODEC = CodecConfig(widths=(16, 32), decoder_widths=(16, 32), blocks=1)
GENERATOR = CompletionConfig(
    points="ip-lap", width=16, layers=1, heads=2, feed_forward=16, components=6, context_frames=8
)
TINY = LMDiffConfig(
    generator=GENERATOR,
    renderer=TalkRendererConfig(codec=CODEC, widths=(16, 32), blocks=(1, 1), talk_levels=(0, 1), token_width=16),
)
DENSE = replace(TINY, generator=replace(GENERATOR, points="dense"))
RENDERER = TrainConfig(
    stage="renderer", model=TINY, steps=4, clips_per_batch=2, frames=3, warmup_steps=1, save_every=2, probe_every=4,
)  # fmt: skip
LANDMARKS = TrainConfig(
    stage="landmarks", model=TINY, steps=4, clips_per_batch=3, frames=28, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=4, bfloat16=False, min_sync=0.0,
)  # fmt: skip
JOINT = replace(RENDERER, stage="joint", learning_rate=1e-3, min_sync=0.0)
OF_DIFFTALKER = TrainConfig(
    stage="codec", steps=2, clips_per_batch=2, frames=2, warmup_steps=1, save_every=2, probe_every=4,
    model=DiffTalkerConfig(
        generator=replace(GENERATOR, points="dense"),
        renderer=LatentRendererConfig(codec=CODEC, widths=(16, 32), blocks=(1, 1), control_blocks=(1, 1)),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=FRAMES)


def _quicken(patch: pytest.MonkeyPatch, fit_once: Callable[..., tuple]) -> None:
    """Fit the basis of the same clips only once, calibrate and probe on little, and write no curves."""
    patch.setattr("atldiff.training.landmarks_task.fit_basis", fit_once)
    patch.setattr("atldiff.training.codec_task.CALIBRATION_CLIPS", 8)
    for task in ("training.latent_renderer_task", "methods.lmdiff.training.joint_task"):
        patch.setattr(f"atldiff.{task}.PROBE_BATCHES", 1)
        patch.setattr(f"atldiff.{task}.PROBE_CLIPS", 2)
    patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    patch.setattr("atldiff.training.speech_states.VARIANTS", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, fit_once: Callable[..., tuple]) -> None:
    _quicken(monkeypatch, fit_once)


@pytest.fixture(scope="module")
def runs(
    prepared: Manifest, tmp_path_factory: pytest.TempPathFactory, fit_once: Callable[..., tuple]
) -> dict[str, Path]:
    """The checkpoints of a codec of difftalker, and of lmdiff's landmarks and renderer after it."""
    out, start, made = tmp_path_factory.mktemp("runs"), None, {}
    with pytest.MonkeyPatch.context() as patch:
        _quicken(patch, fit_once)
        for name, config in (("codec", OF_DIFFTALKER), ("landmarks", LANDMARKS), ("renderer", RENDERER)):
            train_stage(config, prepared.folder, out / name, start=start, workers=0)
            made[name] = start = out / name / "checkpoint"
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def last_probe(out: Path) -> dict[str, Any]:
    return json.loads((out / "probe.jsonl").read_text().splitlines()[-1])


def trained(folder: Path) -> LMDiffModel:
    """Return a checkpoint's model, moved from where fresh ends hide what is behind them."""
    model = checkpoint.load_model(folder)
    assert isinstance(model, LMDiffModel)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def hearing(folder: Path) -> LMDiffModel:
    """Return a checkpoint's model with a generator of dense points that hears a speech encoder's states."""
    model = trained(folder)
    made = LMDiffModel(replace(model.config, generator=replace(DENSE.generator, features="whisper")))
    made.renderer.load_state_dict(model.renderer.state_dict())
    with torch.no_grad():
        for name in ("basis", "scale", "identity_mean", "identity_basis"):
            getattr(made.generator, name).copy_(getattr(model.generator, name))
        made.generator.gain.copy_(torch.tensor([1.2, 1.5, 1.5]))
    return made


def joint_batch(
    model: LMDiffModel, prepared: Manifest, shift: int = 0, frames: int = 3, true_share: float = 0.0
) -> tuple[JointSet, dict]:
    clips = [clip for entry in prepared.usable(Split.TRAIN) if (clip := load_speech(prepared, entry))]
    clips = [in_step(clip, shift) for clip in clips]
    generator = model.generator
    config = generator.config
    completion = CompletionSet(
        clips, [load_seen(prepared, clip) for clip in clips], np.zeros((len(clips), 8)), generator.basis.numpy(),
        generator.scale.numpy(), config, frames=config.context_frames + frames + config.lookahead_frames, seed=0,
    )  # fmt: skip
    windows = [load_clip(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
    posed = [load_posed(prepared, clip.name, NEEDED) for clip in clips]
    source = JointSet(
        clips, windows, posed, completion, model.renderer.config, true_share=true_share, frames=frames, seed=0,
    )  # fmt: skip
    return source, source.batch(0, range(6))


class TestBatches:
    def test_of_the_renderer(self, prepared: Manifest) -> None:
        clips = [load_clip(prepared, entry, NEEDED) for entry in prepared.usable(Split.TRAIN)]
        source = TalkSet(clips, TINY.renderer, frames=3, seed=0)
        batch = source.batch(0, range(8))
        assert batch["target"].shape == batch["prior"].shape == batch["shown"].shape == (8, 3, 3, 80, 80)
        assert batch["mask"].shape == batch["mouth"].shape == (8, 1, 3, 80, 80)
        assert batch["reference"].shape == (8, 3, 80, 80)
        assert batch["source"].shape == (8, 131, 2)
        assert batch["points"].shape == (8, 3, 131, 2)
        assert batch["points"].dtype == torch.float32
        # Flipped or not, a person's right corner of the mouth lies left in the picture, and all points of the mouth in.
        order = TOKENS.tolist()
        right, left = (order.index(int(np.searchsorted(NEEDED, i))) for i in (61, 291))
        assert (batch["points"][:, :, right, 0] < batch["points"][:, :, left, 0]).all()
        assert batch["points"][:, :, 91:].min() > 0
        assert batch["points"][:, :, 91:].max() < 80
        part = source.batch(0, range(2, 4))
        assert all(torch.equal(part[name], batch[name][2:4]) for name in batch)

    def test_a_crop_and_its_map_agree(self, prepared: Manifest) -> None:
        clip = load_clip(prepared, prepared.usable(Split.TRAIN)[0], NEEDED)
        frames = np.array([3, 5, 6])
        for flip in (False, True):
            for jitter in (np.array([2, -1]), np.array([-30, 30])):
                geometry = WindowGeometry(80, (24, 26))
                _, source, target = crop(clip, frames, geometry, jitter, flip=flip)
                mapped = apply(crop_map(geometry, jitter, flip=flip), clip.points[frames])
                assert np.allclose(mapped, np.concatenate([source[None], target]), atol=1e-4)

    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_what_a_generator_says_lies_where_the_clip_has_it(
        self, prepared: Manifest, runs: dict[str, Path], shift: int
    ) -> None:
        """True displacements, carried into the windows, are the windows' own points: also where sound was moved."""
        model = trained(runs["renderer"])
        source, batch = joint_batch(model, prepared, shift)
        clips = [load_speech(prepared, entry) for entry in prepared.usable(Split.TRAIN)]
        at = batch["rest"].shape[1]
        first = GENERATOR.context_frames
        completed = batch["target_landmarks"][:, first : first + at].unflatten(-1, (57, 2))
        for item, chosen in enumerate(batch["clips"].tolist()):
            clip = clips[chosen]
            assert clip is not None
            # The frames are found by what the generator is to say of them: a hint of where they were cut.
            moved = in_step(clip, shift).displacements
            indices = source.completion.targets[chosen].reshape(len(moved), 57, 2)
            errors = [np.abs(indices[i : i + at] - completed[item].numpy()).max() for i in range(len(moved) - at + 1)]
            start = int(np.argmin(errors))
            assert errors[start] < 1e-3
            true = torch.from_numpy(moved[start : start + at][:, NEEDED])
            carried = batch["rest"][item] + torch.einsum("tij,tkj->tki", batch["project"][item], true)
            seen = self._pictured(carried, batch, item)
            assert seen < 0.05

    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_what_a_generator_of_states_says_lies_there_too(
        self, prepared: Manifest, runs: dict[str, Path], shift: int
    ) -> None:
        model = hearing(runs["renderer"])
        clips = [clip for entry in prepared.usable(Split.TRAIN) if (clip := load_speech(prepared, entry))]
        moved = [in_step(clip, shift) for clip in clips]
        batch = joint_set(model, prepared, moved, frames=3, seed=0).batch(0, range(6))
        points = true_points(model, batch)
        said, where = predict(model, batch)
        assert said.shape == batch["target_landmarks"].shape
        assert where.shape == points.shape == batch["rest"].shape
        for item in range(len(points)):
            at_rest = self._pictured(batch["rest"][item], batch, item, np.mean)
            assert self._pictured(points[item], batch, item, np.mean) < max(0.5 * at_rest, 2e-3)

    def test_a_generator_of_states_is_rendered_with_its_gain(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        model = hearing(runs["renderer"]).eval()
        clips = [clip for entry in prepared.usable(Split.TRAIN) if (clip := load_speech(prepared, entry))]
        batch = joint_set(model, prepared, clips, frames=3, seed=0).batch(0, range(4))
        with torch.no_grad():
            said, where = predict(model, batch)
            model.generator.gain.mul_(2)
            again, wider = predict(model, batch)
        assert torch.equal(said, again)
        assert torch.allclose(wider - batch["rest"], 2 * (where - batch["rest"]), atol=1e-4)

    @staticmethod
    def _pictured(carried: torch.Tensor, batch: dict, item: int, of: Callable = np.max) -> float:
        """Return how far the mouth drawn from points is from the mouth of the batch, which is the clip's own."""
        from atldiff.methods.latent_inputs import NEEDED as DRAWN
        from atldiff.methods.latent_inputs import face_maps

        drawn = carried[:, torch.from_numpy(np.searchsorted(NEEDED, DRAWN))].numpy()
        mouth = torch.from_numpy(face_maps(drawn, TINY.renderer)[2])
        return float(of((mouth - batch["mouth"][item, 0].float()).abs().numpy()))

    def test_true_points_are_those_of_the_mouth(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        """As far as a basis of six components and 57 points hold them: nearer than a mouth at rest."""
        model = checkpoint.load_model(runs["renderer"])
        assert isinstance(model, LMDiffModel)
        _, batch = joint_batch(model, prepared)
        points = true_points(model, batch)
        for item in range(len(points)):
            at_rest = self._pictured(batch["rest"][item], batch, item, np.mean)
            assert self._pictured(points[item], batch, item, np.mean) < max(0.5 * at_rest, 2e-3)

    def test_a_share_is_rendered_from_them(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        model = trained(runs["renderer"])
        _, batch = joint_batch(model, prepared, true_share=0.5)
        assert 0 < int(batch["is_true"].sum()) < len(batch["is_true"])
        model.config = replace(model.config, joint=JointConfig(landmark_weight=0.0))
        task = joint_task(model, prepared, replace(JOINT, bfloat16=False, model=model.config), lambda module: None)
        for true in (True, False):
            model.zero_grad()
            given = batch | {"is_true": torch.full_like(batch["is_true"], true)}
            task.loss(task.module, given)["loss"].backward()
            assert true != any(p.grad is not None and bool(p.grad.any()) for p in model.generator.parameters())

    def test_nothing_of_the_filmed_mouth_is_shown(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        """Neither where the true face is, nor where the predicted one is."""
        model = trained(runs["renderer"])
        _, batch = joint_batch(model, prepared)
        assert 0 < int(batch["is_filmed"].sum()) < len(batch["is_filmed"])
        _, points = predict(model, batch)
        given = rendered_from(model, batch, points)
        filmed = batch["is_filmed"]
        assert ((given["shown"][filmed] == 0) | (batch["visible"][filmed] != 0)).all()
        other = batch | {"visible": batch["visible"].flip(-1)}
        again = rendered_from(model, other, points)
        assert torch.equal(again["shown"][~filmed], given["shown"][~filmed])
        assert not torch.equal(again["shown"][filmed], given["shown"][filmed])


class TestGradient:
    @pytest.mark.parametrize("points", ["ip-lap", "dense"])
    def test_of_the_renderers_loss_reaches_every_weight_of_the_generator(
        self, prepared: Manifest, runs: dict[str, Path], points: str
    ) -> None:
        model = trained(runs["renderer"])
        if points == "dense":
            made = LMDiffModel(DENSE)
            made.renderer.load_state_dict(model.renderer.state_dict())
            with torch.no_grad():
                for name in ("basis", "scale"):
                    getattr(made.generator, name).copy_(getattr(model.generator, name))
            model = made
        _, batch = joint_batch(model, prepared)
        _, where = predict(model, batch)
        model.renderer.loss(rendered_from(model, batch, where))["loss"].backward()
        for name, parameter in model.generator.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_reaches_every_weight_of_a_generator_of_states(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        model = hearing(runs["renderer"])
        model.config = replace(model.config, joint=JointConfig(landmark_weight=0.0))
        config = replace(JOINT, bfloat16=False, model=model.config)
        task = joint_task(model, prepared, config, lambda module: None)
        losses = task.loss(task.module, task.source.batch(0, range(6)))
        losses["loss"].backward()
        for name, parameter in model.generator.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
        assert {"position", "velocity", "closure", "latent_ratio"} <= losses.keys()

    def test_reaches_the_points_by_the_warp_too_where_it_may(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        """Without tokens nothing else is left; what is rendered from is the same."""
        base = trained(runs["renderer"])
        _, batch = joint_batch(base, prepared)
        for through_warp in (True, False):
            model = LMDiffModel(replace(base.config, renderer=replace(base.config.renderer, motion=False),
                                        joint=JointConfig(through_warp=through_warp)))  # fmt: skip
            model.load_state_dict(base.state_dict(), strict=False)
            _, where = predict(model, batch)
            given = rendered_from(model, batch, where)
            plain = rendered_from(model, batch, where.detach())
            assert torch.equal(given["prior"], plain["prior"])
            assert given["prior"].requires_grad == through_warp
            model.renderer.loss(given)["loss"].backward()
            reached = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in
                       model.generator.parameters()]  # fmt: skip
            assert all(reached) if through_warp else not any(reached)

    def test_is_nothing_where_the_landmarks_are_detached(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        model = trained(runs["renderer"])
        _, batch = joint_batch(model, prepared)
        _, where = predict(model, batch)
        model.renderer.loss(rendered_from(model, batch, where.detach()))["loss"].backward()
        assert all(parameter.grad is None for parameter in model.generator.parameters())
        assert any(parameter.grad is not None for parameter in model.renderer.denoiser.parameters())

    def test_the_stage_detaches_as_it_is_told(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        """The landmarks' own loss being left out, the generator learns from the renderer or from nothing."""
        for detach in (False, True):
            model = trained(runs["renderer"])
            joint = JointConfig(landmark_weight=0.0, detach_landmarks=detach)
            model.config = replace(model.config, joint=joint)
            config = replace(JOINT, bfloat16=False, model=model.config)
            task = joint_task(model, prepared, config, lambda module: None)
            losses = task.loss(task.module, task.source.batch(0, range(4)))
            losses["loss"].backward()
            gradients = [parameter.grad for parameter in model.generator.parameters()]
            assert detach == all(gradient is None or not gradient.any() for gradient in gradients)
            assert all(parameter.grad is None for parameter in model.renderer.codec.parameters())
            assert {"position", "velocity", "latent_ratio"} <= losses.keys()

    def test_moves_the_landmarks_to_where_the_mouth_is(self, prepared: Manifest, runs: dict[str, Path]) -> None:
        """A step down the renderer's loss, along the points, lowers it."""
        model = trained(runs["renderer"])
        _, batch = joint_batch(model, prepared)
        with torch.no_grad():
            _, where = predict(model, batch)
        given = rendered_from(model, batch, where)
        points = given["points"].clone().requires_grad_()
        before = model.renderer.loss(given | {"points": points})["loss"]
        (gradient,) = torch.autograd.grad(before, points)
        with torch.no_grad():
            after = model.renderer.loss(given | {"points": points - 0.1 * gradient / gradient.abs().max()})["loss"]
        assert float(after) < float(before.detach())


class TestStages:
    @pytest.mark.parametrize("stage", ["landmarks", "renderer", "joint"])
    def test_resumes_exactly(self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path, stage: str) -> None:
        config = {"landmarks": LANDMARKS, "renderer": RENDERER, "joint": JOINT}[stage]
        start = {"landmarks": "codec", "renderer": "landmarks", "joint": "renderer"}[stage]
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(config, prepared.folder, out, start=runs[start], workers=0, stop_after=stop)
        one, two = weights(tmp_path / "one/checkpoint"), weights(tmp_path / "two/checkpoint")
        assert all(torch.equal(one[name], two[name]) for name in one)
        scores = {f"lip_error_{drive.replace(' ', '_')}" for drive in DRIVES}
        ratios = {"mouth_ratio_fast", "mouth_ratio_balanced", "mouth_ratio_best"}
        told = {"landmarks": scores, "renderer": ratios, "joint": scores | ratios}[stage]
        assert told <= last_probe(tmp_path / "one").keys()

    def test_the_joint_stage_of_a_generator_of_states_resumes_exactly(
        self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint.save_model(hearing(runs["renderer"]), tmp_path / "start")
        for out, stops in ((tmp_path / "one", [None]), (tmp_path / "two", [2, None])):
            for stop in stops:
                train_stage(JOINT, prepared.folder, out, start=tmp_path / "start", workers=0, stop_after=stop)
        one, two = weights(tmp_path / "one/checkpoint"), weights(tmp_path / "two/checkpoint")
        assert all(torch.equal(one[name], two[name]) for name in one)
        before = weights(tmp_path / "start")
        changed = {name for name in one if not torch.equal(one[name], before[name])}
        assert {name.split(".")[0] for name in changed} == {"generator", "renderer"}
        buffers = {"basis", "scale", "identity_mean", "identity_basis", "state_mean", "state_scale", "gain"}
        assert not changed & {f"generator.{name}" for name in buffers}
        assert {"lip_error_sound", "mouth_ratio_fast"} <= last_probe(tmp_path / "one").keys()

    def test_the_joint_stage_trains_both_and_leaves_the_codec_alone(
        self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        train_stage(JOINT, prepared.folder, tmp_path, start=runs["renderer"], workers=0)
        made, before = weights(tmp_path / "checkpoint"), weights(runs["renderer"])
        changed = {name for name in made if not torch.equal(made[name], before[name])}
        assert {name.split(".")[0] for name in changed} == {"generator", "renderer"}
        assert not any(name.startswith("renderer.codec.") for name in changed)
        buffers = {"basis", "scale", "identity_mean", "identity_basis"}
        assert not changed & {f"generator.{name}" for name in buffers}

    def test_what_was_never_trained_is_refused(self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="got a generator that was never trained"):
            train_stage(JOINT, prepared.folder, tmp_path / "a", start=runs["codec"], workers=0)
        with pytest.raises(CheckpointError, match="got a codec that was never trained"):
            train_stage(RENDERER, prepared.folder, tmp_path / "b", workers=0)
        with pytest.raises(CheckpointError, match="got method lmdiff, expected difftalker"):
            train_stage(OF_DIFFTALKER, prepared.folder, tmp_path / "c", start=runs["renderer"], workers=0)

    def test_is_no_stage_of_other_methods(self) -> None:
        for model in (ATLConfig(), DiffTalkerConfig()):
            with pytest.raises(ValueError, match="stage: got 'joint', expected a method whose renderer reaches"):
                TrainConfig(stage="joint", model=model)

    def test_starts_over_difftalkers_codec_and_with_its_generator(
        self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        other_codec = replace(TINY, renderer=replace(TINY.renderer, codec=CodecConfig(channels=8)))
        config = replace(RENDERER, model=other_codec)
        train_stage(config, prepared.folder, tmp_path, start=runs["codec"], workers=0, stop_after=1)
        made, theirs = checkpoint.load_model(tmp_path / "checkpoint"), checkpoint.load_model(runs["codec"])
        assert isinstance(made, LMDiffModel)
        assert isinstance(theirs, DiffTalkerModel)
        assert made.config.renderer.codec == theirs.config.renderer.codec  # the trained one, whatever was asked for
        assert made.config.generator == theirs.config.generator
        for part in ("generator", "renderer.codec"):
            one, two = made.get_submodule(part).state_dict(), theirs.get_submodule(part).state_dict()
            assert all(torch.equal(one[name], two[name]) for name in two)

    def test_the_loss_falls(self, prepared: Manifest, runs: dict[str, Path], tmp_path: Path) -> None:
        told: list[float] = []
        longer = replace(JOINT, steps=30, probe_every=100, save_every=100, learning_rate=3e-3)
        train_stage(
            longer, prepared.folder, tmp_path, start=runs["renderer"], workers=0,
            progress=lambda step, total, losses: told.append(losses["loss"]),
        )  # fmt: skip
        assert np.isfinite(told).all()
        assert np.mean(told[-8:]) < np.mean(told[:8])


def test_a_checkpoint_is_measured(prepared: Manifest, runs: dict[str, Path]) -> None:
    model = copy.deepcopy(checkpoint.load_model(runs["renderer"]))
    figures = {entry.record.name: network_figures(model, prepared, entry) for entry in prepared.usable(Split.TEST)}
    assert any(clip["renderer"] for clip in figures.values())
    assert any(row["measure"].startswith("mouth error") for row in network_table(figures))
