"""Both stages on drawn people: that runs resume exactly, stop when they must, learn, and leave a checkpoint."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import nn

from atldiff import checkpoint
from atldiff.config import TRAIN_PRESETS, ATLConfig, GeneratorConfig, RendererConfig, TrainConfig
from atldiff.data.manifest import Manifest, Split
from atldiff.data.speech import ClipSpeech, coefficients, in_step, load_speech
from atldiff.data.spoken import Spoken
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import load_clip
from atldiff.errors import DataError, TrainingError
from atldiff.landmarks.generator import STATE, Generator
from atldiff.landmarks.stream import SILENT
from atldiff.methods.atl.inputs import NEEDED
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl.training.renderer_data import RendererSet
from atldiff.methods.models import speaker_of
from atldiff.timebase import MEL_BANDS, SAMPLES_PER_FRAME
from atldiff.training.alignment import align, load_alignment, opening_slopes
from atldiff.training.landmarks_data import LandmarksSet, augment, clip_weights
from atldiff.training.landmarks_task import GAIN_RANGE, fill_buffers, usable_speech
from atldiff.training.loop import train
from atldiff.training.optimiser import MasterOptimiser, learning_rate
from atldiff.training.run import align_data, open_data, train_stage
from atldiff.training.speech_states import VARIANTS, HeardClip, heard_clips, whole_sound
from atldiff.training.states_data import StatesSet
from atldiff.training.task import Probe, Task

torch.set_num_threads(1)

FRAMES = 24
TINY = ATLConfig(
    generator=GeneratorConfig(components=6, identity_components=2, width=16, blocks=1),
    renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
)
RENDERER = replace(TRAIN_PRESETS["debug"], model=TINY)
LANDMARKS = TrainConfig(
    stage="landmarks", model=TINY, steps=4, clips_per_batch=3, frames=16, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=4, bfloat16=False,
)  # fmt: skip
HEARING = replace(LANDMARKS, model=replace(TINY, generator=replace(TINY.generator, features="whisper", members=2)))
STAGES = pytest.mark.parametrize(
    "config", [RENDERER, LANDMARKS, HEARING], ids=["renderer", "landmarks", "landmarks-whisper"]
)


class Noise:
    """Batches of numbers, for a loop that knows nothing of faces."""

    def batch(self, step: int, items: range) -> dict[str, torch.Tensor]:
        return {
            "x": torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(i + 9 * step)) for i in items])
        }

    def clip_names(self, batch: dict[str, torch.Tensor]) -> list[str]:
        return ["noise"] * len(batch["x"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=FRAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, fit_once: Callable[..., tuple]) -> None:
    """Fit the basis of the same clips only once (a thousand rows), write no curves, and probe on few clips."""
    monkeypatch.setattr("atldiff.training.landmarks_task.fit_basis", fit_once)
    monkeypatch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
    monkeypatch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_BATCHES", 1)
    monkeypatch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_CLIPS", 2)


def run(config: TrainConfig, manifest: Manifest, out: Path, **settings) -> int:
    return train_stage(config, manifest.folder, out, workers=0, **settings)


def copy_of(manifest: Manifest, folder: Path) -> Manifest:
    shutil.copytree(manifest.folder, folder)
    return Manifest.load(folder)


def state(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "state.safetensors")


class TestResume:
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

    def test_a_finished_run_does_nothing(self, prepared: Manifest, tmp_path: Path) -> None:
        run(RENDERER, prepared, tmp_path)
        before = (tmp_path / "state.safetensors").stat().st_mtime_ns
        assert run(RENDERER, prepared, tmp_path) == 4
        assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before

    def test_a_longer_run_goes_on(self, prepared: Manifest, tmp_path: Path) -> None:
        run(RENDERER, prepared, tmp_path)
        assert run(replace(RENDERER, steps=5, save_every=50), prepared, tmp_path) == 5
        with safe_open(str(tmp_path / "state.safetensors"), "pt") as file:
            assert file.metadata()["step"] == "5"

    def test_out_of_time_leaves_a_state(self, prepared: Manifest, tmp_path: Path) -> None:
        assert run(RENDERER, prepared, tmp_path / "a", minutes=0.0) == 1
        assert run(RENDERER, prepared, tmp_path / "a") == 4
        run(RENDERER, prepared, tmp_path / "b")
        first, second = state(tmp_path / "a"), state(tmp_path / "b")
        assert all(torch.equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize(
        ("change", "name"),
        [({"learning_rate": 1e-4}, "learning_rate"), ({"seed": 1}, "seed"), ({"clips_per_batch": 1}, "clips_per_batch"),
         ({"bfloat16": False}, "bfloat16"), ({"ema": 0.5}, "ema"),
         ({"model": replace(TINY, renderer=replace(TINY.renderer, noise_gain=0.3))}, "model")],
    )  # fmt: skip
    def test_another_configuration_is_refused_by_name(
        self, prepared: Manifest, tmp_path: Path, change: dict, name: str
    ) -> None:
        run(RENDERER, prepared, tmp_path, stop_after=1)
        with pytest.raises(TrainingError, match=f"a run with another {name} ") as caught:
            run(replace(RENDERER, **change), prepared, tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.skipif(sys.platform != "linux", reason="batches come from a forked process")
    def test_workers_change_nothing(self, prepared: Manifest, tmp_path: Path) -> None:
        for workers in (0, 1):
            train_stage(RENDERER, prepared.folder, tmp_path / str(workers), workers=workers, stop_after=2)
        first, second = state(tmp_path / "0"), state(tmp_path / "1")
        assert all(torch.equal(first[name], second[name]) for name in first)


class TestCheckpoint:
    @STAGES
    def test_the_average_is_written_and_loads(self, prepared: Manifest, tmp_path: Path, config: TrainConfig) -> None:
        run(config, prepared, tmp_path)
        model = checkpoint.load_model(tmp_path / "checkpoint")
        assert model.config == config.model
        trained = model.renderer if config.stage == "renderer" else model.generator
        saved = state(tmp_path)
        differs = False
        for name, parameter in trained.named_parameters():
            average = saved[f"average/{name}"].reshape(parameter.shape)
            if config.bfloat16:
                average = average.bfloat16()
            assert torch.equal(parameter, average.half().float()), name
            differs |= not torch.equal(saved[f"average/{name}"], saved[f"master/{name}"])
        assert differs

    def test_the_other_stage_is_carried_along(self, prepared: Manifest, tmp_path: Path) -> None:
        run(LANDMARKS, prepared, tmp_path / "l")
        start = tmp_path / "l" / "checkpoint"
        run(RENDERER, prepared, tmp_path / "r", start=start)
        before, after = checkpoint.load_model(start), checkpoint.load_model(tmp_path / "r" / "checkpoint")
        for name, tensor in before.generator.state_dict().items():
            assert torch.equal(after.generator.state_dict()[name], tensor), name
        assert before.generator.basis.any()
        assert not torch.equal(before.renderer.unet.stem.weight, after.renderer.unet.stem.weight)

    @STAGES
    def test_probes_are_written(self, prepared: Manifest, tmp_path: Path, config: TrainConfig) -> None:
        run(config, prepared, tmp_path)
        (line,) = (json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines())
        assert line.pop("step") == 4
        wanted = {
            "renderer": {"mouth_ratio_fast", "mouth_ratio_balanced", "mouth_ratio_best"},
            "landmarks": {"opening_correlation", "lip_error"},
        }[config.stage]
        if config is HEARING:
            wanted = wanted | {"amplitude", "gain", "agreement"}
        assert set(line) == wanted
        assert np.isfinite(list(line.values())).all()

    def test_the_weights_that_strangers_like_best_are_written(self, tmp_path: Path) -> None:
        written = []
        told = iter([0.2, 0.5, 0.5, 0.4])

        def kept(steps: int) -> None:
            task = Task(
                module, Noise(), lambda m, batch: {"loss": m(batch["x"]).square().mean()},
                lambda m: Probe({"agreement": next(told)}),
                lambda m: written.append(m.weight.detach().clone()), kept_by="agreement",
            )  # fmt: skip
            config = replace(LANDMARKS, steps=4, probe_every=1, save_every=1, clips_per_batch=2)
            train(task, config, tmp_path, workers=0, stop_after=steps)

        module = nn.Linear(3, 1)
        kept(3)
        kept(4)  # a run that goes on knows what it has written
        probed = [json.loads(line)["agreement"] for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
        assert probed == [0.2, 0.5, 0.5, 0.4]
        assert len(written) == 2
        assert not torch.equal(written[0], written[1])

    def test_lips_open_as_far_as_those_of_the_held_out(self, prepared: Manifest, tmp_path: Path) -> None:
        run(replace(HEARING, steps=8, probe_every=8), prepared, tmp_path)
        (line,) = (json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines())
        generator = checkpoint.load_model(tmp_path / "checkpoint").generator
        assert float(generator.networks.gain) == pytest.approx(line["gain"], abs=1e-4)
        assert line["amplitude"] == pytest.approx(1, abs=0.05) or line["gain"] in GAIN_RANGE
        assert speaker_of(generator).amplitude == 1

    def test_progress_is_told(self, prepared: Manifest, tmp_path: Path) -> None:
        seen = []
        run(RENDERER, prepared, tmp_path, progress=lambda done, total, scalars: seen.append((done, total, scalars)))
        assert [(done, total) for done, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert {"loss", "gradient_norm"} <= set(seen[0][2])
        assert np.isfinite([value for _, _, scalars in seen for value in scalars.values()]).all()

    def test_the_word_synthetic_makes_its_own_data_once(
        self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = []

        def make(folder: Path) -> Manifest:
            made.append(folder)
            return copy_of(prepared, folder)

        monkeypatch.setattr("atldiff.training.run.make_synthetic", make)
        assert open_data(Path("synthetic"), tmp_path) == open_data(Path("synthetic"), tmp_path)
        assert made == [tmp_path / "synthetic"]
        assert open_data(prepared.folder, tmp_path) == prepared


class TestStopping:
    def poison(self, manifest: Manifest, name: str) -> str:
        entry = manifest.usable(Split.TRAIN)[1]
        tensors = load_arrays(manifest.tensors(entry))
        tensors[name] = tensors[name].copy()
        tensors[name][:] = np.nan
        save_arrays(tensors, manifest.tensors(entry))
        return entry.record.name

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    @pytest.mark.parametrize(("config", "tensor"), [(LANDMARKS, "mel"), (RENDERER, "points")])
    def test_a_loss_that_is_no_number_names_the_clips(
        self, prepared: Manifest, tmp_path: Path, config: TrainConfig, tensor: str
    ) -> None:
        manifest = copy_of(prepared, tmp_path / "data")
        name = self.poison(manifest, tensor)
        with pytest.raises(TrainingError, match=rf"step \d+: the loss is nan; clips of the batch: .*{name}"):
            run(replace(config, clips_per_batch=4), manifest, tmp_path / "run")
        assert not (tmp_path / "run" / "checkpoint").exists()

    def test_nothing_to_train_on(self, prepared: Manifest, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no training clip with sync of at least 0.3"):
            run(replace(LANDMARKS, exclude_sources=("synthetic",)), prepared, tmp_path / "a")
        held_out = Manifest(tuple(e for e in prepared.entries if e.split is not Split.TRAIN), tmp_path / "data")
        held_out.folder.mkdir()
        (held_out.folder / "clips").symlink_to(prepared.folder / "clips")
        held_out.save()
        with pytest.raises(DataError, match="no clip to train on"):
            run(RENDERER, held_out, tmp_path / "b")

    def test_the_landmarks_stage_with_the_default_precision(self, prepared: Manifest, tmp_path: Path) -> None:
        config = replace(LANDMARKS, bfloat16=TrainConfig().bfloat16)
        assert run(config, prepared, tmp_path) == 4

    @pytest.mark.parametrize("change", [{"side": 128, "origin": (0, 0)}, {"origin": (60, 26)}, {"origin": (0, 0)}])
    def test_a_window_beyond_the_stored_one_is_refused(self, prepared: Manifest, tmp_path: Path, change: dict) -> None:
        model = replace(TINY, renderer=replace(TINY.renderer, **change))
        with pytest.raises((ValueError, DataError), match="window|side|origin"):  # noqa: PT011 - whichever names it
            run(replace(RENDERER, model=model), prepared, tmp_path, stop_after=1)


class TestLearningRate:
    CONFIG = TrainConfig(steps=1000, learning_rate=0.01, warmup_steps=100, decay_share=0.25)

    def test_warm_up_constant_decay(self) -> None:
        rates = [learning_rate(self.CONFIG, step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.01 / 100)
        assert rates[49] == pytest.approx(0.005)
        assert all(rate == 0.01 for rate in rates[99:751])
        assert rates[875] == pytest.approx(0.005)
        assert 0 < rates[999] == pytest.approx(0.01 / 250)
        assert (np.diff(rates[:100]) > 0).all()
        assert (np.diff(rates[751:]) < 0).all()

    def test_without_warm_up_or_decay(self) -> None:
        config = replace(self.CONFIG, warmup_steps=0, decay_share=0.0)
        assert {learning_rate(config, step) for step in range(1000)} == {0.01}

    def test_warm_up_longer_than_the_run(self) -> None:
        config = replace(self.CONFIG, steps=10)
        assert max(learning_rate(config, step) for step in range(10)) <= 0.001


class TestOptimiser:
    def test_adamw_is_torch_s(self) -> None:
        torch.manual_seed(0)
        config = replace(LANDMARKS, weight_decay=0.1, clip_norm=0.5, steps=100, warmup_steps=0, decay_share=0.0)
        first, second = nn.Linear(8, 4), nn.Linear(8, 4)
        second.load_state_dict(first.state_dict())
        ours = MasterOptimiser(first, config)
        groups = [{"params": [second.weight], "weight_decay": 0.1}, {"params": [second.bias], "weight_decay": 0.0}]
        torchs = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        for step in range(5):
            x = torch.randn(16, 8)
            for module in (first, second):
                module(x).square().sum().backward()
            norm = torch.nn.utils.clip_grad_norm_(second.parameters(), 0.5)
            assert ours.step(step) == pytest.approx(float(norm), rel=1e-5)
            torchs.step()
            torchs.zero_grad()
            assert all(p.grad is None for p in first.parameters())
            for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
                assert torch.allclose(mine, theirs, atol=1e-6)

    def test_muon_takes_the_hidden_matrices(self) -> None:
        module = nn.Sequential(nn.Linear(40, 48), nn.Conv2d(4, 64, 3), nn.Linear(48, 8))
        optimiser = MasterOptimiser(module, RENDERER)
        adamw, muon = optimiser.optimisers
        assert isinstance(muon, torch.optim.Muon)
        assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(48, 40), (64, 36)]
        assert sum(len(group["params"]) for group in adamw.param_groups) == 4
        assert len(MasterOptimiser(module, LANDMARKS).optimisers) == 1

    def test_the_average_follows_the_masters(self) -> None:
        torch.manual_seed(0)
        module = nn.Linear(4, 4)
        optimiser = MasterOptimiser(module, replace(LANDMARKS, ema=0.5))
        average = optimiser.averages[0].clone()
        for step in range(4):
            module(torch.randn(8, 4)).square().sum().backward()
            optimiser.step(step)
            decay = min(0.5, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * optimiser.masters[0]
            assert torch.allclose(optimiser.averages[0], average, atol=1e-6)
        assert torch.equal(module.weight, optimiser.masters[0])
        optimiser.load_averages()
        assert torch.equal(module.weight, optimiser.averages[0])
        optimiser.load_masters()
        assert torch.equal(module.weight, optimiser.masters[0])

    def test_small_steps_are_not_lost_in_bfloat16(self) -> None:
        module = nn.Linear(4, 4).to(torch.bfloat16)
        optimiser = MasterOptimiser(module, replace(LANDMARKS, learning_rate=1e-5, steps=1000, decay_share=0.0))
        before = optimiser.masters[0].clone()
        for step in range(20):
            (module.weight.float() * 3).sum().backward()
            optimiser.step(step)
        assert module.weight.dtype == torch.bfloat16
        assert torch.allclose(before - optimiser.masters[0], torch.full((4, 4), 2e-4), rtol=0.2)


class TestRendererSet:
    def make(self, manifest: Manifest, **changes) -> RendererSet:
        settings = {"frames": 2, "seed": 5} | changes
        clips = [load_clip(manifest, entry, NEEDED) for entry in manifest.usable(Split.TRAIN)]
        return RendererSet(clips, TINY.renderer, **settings)

    def test_shapes_and_ranges(self, prepared: Manifest) -> None:
        source = self.make(prepared)
        batch = source.batch(0, range(3))
        shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
        assert shapes == {
            "target": (3, 3, 2, 80, 80), "prior": (3, 3, 2, 80, 80), "conditions": (3, 13, 2, 80, 80),
            "mask": (3, 1, 2, 80, 80), "mouth": (3, 1, 2, 80, 80), "noise": (3, 3, 1, 80, 80), "time": (3,),
            "guessed": (3,), "clips": (3,),
        }  # fmt: skip
        for name in ("target", "prior"):
            assert batch[name].dtype == torch.float16
            assert batch[name].abs().max() <= 1
        for name in ("mask", "mouth"):
            assert batch[name].min() == 0
            assert batch[name].max() == 1
        assert source.clip_names(batch) == [source.clips[i].name for i in batch["clips"]]

    def test_half_of_the_states_end_at_a_guess(self, prepared: Manifest) -> None:
        source = self.make(prepared)
        guessed = torch.cat([source.batch(step, range(10))["guessed"] for step in range(6)])
        assert guessed.dtype == torch.bool
        assert 15 <= int(guessed.sum()) <= 45

    def test_a_batch_is_a_function_of_seed_and_step(self, prepared: Manifest) -> None:
        first, again, other_seed = (self.make(prepared, seed=seed) for seed in (5, 5, 6))
        for step in (3, 0):  # in any order
            one, two = first.batch(step, range(3)), again.batch(step, range(3))
            assert all(torch.equal(one[name], two[name]) for name in one)
        here, later, elsewhere = (
            source.batch(step, range(3))["target"] for source, step in ((first, 0), (first, 1), (other_seed, 0))
        )
        assert not torch.equal(here, later)
        assert not torch.equal(here, elsewhere)

    def test_the_prior_is_near_the_target(self, prepared: Manifest) -> None:
        """References are of the same person and pose: outside the mouth a warp explains nearly all."""
        batch = self.make(prepared).batch(0, range(6))
        error = (batch["prior"].float() - batch["target"].float()).abs().mean(dim=1, keepdim=True)
        shuffled = batch["target"].float().roll(1, 0)
        wrong = (batch["prior"].float() - shuffled).abs().mean()
        outside = 1 - batch["mask"].float()
        assert float((error * outside).sum() / outside.sum()) < 0.1
        assert float(error.mean()) < wrong

    def test_short_clips_are_left_out(self, prepared: Manifest) -> None:
        assert len(self.make(prepared, frames=FRAMES - 4).clips) == 2
        assert not self.make(prepared, frames=FRAMES - 3).clips

    def test_the_loss_falls_on_a_fixed_batch(self, prepared: Manifest) -> None:
        torch.manual_seed(0)
        renderer = ATLModel(TINY).renderer
        batch = self.make(prepared).batch(0, range(2))
        config = replace(RENDERER, learning_rate=3e-3, steps=1000, warmup_steps=5)
        optimiser = MasterOptimiser(renderer, config)
        losses = []
        for step in range(30):
            result = renderer.loss(batch)
            result["loss"].backward()
            optimiser.step(step)
            losses.append(result)
        assert float(losses[-1]["loss"].detach()) < 0.7 * float(losses[0]["loss"].detach())
        assert float(losses[0]["mouth_ratio"]) == pytest.approx(1, abs=1e-3)  # a fresh renderer gives the prior
        assert float(losses[-1]["mouth_ratio"]) < 0.8


class TestLandmarksSet:
    def make(self, manifest: Manifest, seed: int = 5) -> LandmarksSet:
        clips = usable_speech(manifest, Split.TRAIN, LANDMARKS)
        generator = ATLModel(TINY).generator
        fill_buffers(generator, clips)
        return LandmarksSet(
            clips, np.zeros((len(clips), 2)), generator.basis.numpy(), generator.scale.numpy(),
            frames=16, seed=seed,
        )  # fmt: skip

    def test_shapes(self, prepared: Manifest) -> None:
        source = self.make(prepared)
        batch = source.batch(0, range(5))
        assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
            "mel": (5, 64, MEL_BANDS), "coefficients": (5, 16, 6), "valid": (5, 16), "identity": (5, 2), "clips": (5,),
        }  # fmt: skip
        assert all(tensor.dtype == torch.float32 for name, tensor in batch.items() if name != "clips")
        assert batch["mel"].min() >= SILENT
        assert set(batch["valid"].unique().tolist()) <= {0.0, 1.0}
        assert len(source.clip_names(batch)) == 5

    def test_a_batch_is_a_function_of_seed_and_step(self, prepared: Manifest) -> None:
        first, again, other_seed = self.make(prepared), self.make(prepared), self.make(prepared, 6)
        for step in (3, 0):
            one, two = first.batch(step, range(3)), again.batch(step, range(3))
            assert all(torch.equal(one[name], two[name]) for name in one)
        here, later, elsewhere = (
            source.batch(step, range(3))["mel"] for source, step in ((first, 0), (first, 1), (other_seed, 0))
        )
        assert not torch.equal(here, later)
        assert not torch.equal(here, elsewhere)

    def test_sound_and_mouth_stay_in_step(self, prepared: Manifest) -> None:
        """With sound whose bands hold the frame's number, each valid target is that of the frame heard."""
        source = self.make(prepared)
        count = 40
        mel = np.repeat(np.arange(4 * count, dtype=np.float32)[:, None] / 4, MEL_BANDS, 1)
        target = np.repeat(np.arange(count, dtype=np.float32)[:, None], 6, 1)
        random = np.random.default_rng(0)
        for _ in range(50):
            heard, wanted, valid = source._window(mel, target, random)
            known = valid > 0
            assert known.any()
            assert np.abs(heard[::4, 0][known] - wanted[:, 0][known]).max() < 0.3
            assert (heard[::4, 0][~known] == SILENT).sum() >= (~known).sum() - 1

    def test_augmented_sound_is_still_the_sound(self) -> None:
        random = np.random.default_rng(0)
        level = np.sin(np.arange(64) / 5)
        mel = (-1.2 + level[:, None] + np.zeros((1, MEL_BANDS))).astype(np.float32)
        for _ in range(20):
            heard = augment(mel, random)
            assert heard.shape == mel.shape
            assert heard.dtype == np.float32
            assert heard.min() >= SILENT
            assert np.isfinite(heard).all()
            assert np.corrcoef(heard.mean(axis=1), level)[0, 1] > 0.75
        assert mel.max() == np.float32(-1.2 + level.max())  # the input is left alone

    def test_weights_sum_to_one(self, prepared: Manifest) -> None:
        weights = clip_weights(usable_speech(prepared, Split.TRAIN, LANDMARKS))
        assert weights == pytest.approx([0.5, 0.5])


class TestHeardStates:
    @pytest.fixture
    def train(self, prepared: Manifest) -> list[ClipSpeech]:
        return usable_speech(prepared, Split.TRAIN, LANDMARKS)

    @staticmethod
    def hear(samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Return the frames' levels, in place of a speech encoder's states."""
        power = np.square(samples.reshape(-1, SAMPLES_PER_FRAME)).mean(1)
        return np.repeat(np.sqrt(power)[:, None], STATE, 1)

    @pytest.fixture
    def heard(self, prepared: Manifest, train: list[ClipSpeech], tmp_path: Path) -> dict[str, list[HeardClip]]:
        sounds = {clip.name: whole_sound(prepared, clip) for clip in train}
        return heard_clips(Manifest(prepared.entries, tmp_path), sounds, HEARING.model.generator, self.hear)

    def test_each_frame_is_the_moment_it_says(
        self, prepared: Manifest, train: list[ClipSpeech], heard: dict[str, list[HeardClip]]
    ) -> None:
        clip, config = train[0], HEARING.model.generator
        level = np.sqrt(np.square(whole_sound(prepared, clip).reshape(-1, SAMPLES_PER_FRAME)).mean(1))
        assert len(heard[clip.name]) == VARIANTS
        for number, variant in enumerate(heard[clip.name]):
            said = variant.states[:, config.context_frames :, 0][:, :8].astype(np.float32).ravel()
            moments = variant.moments.ravel()
            inside = (moments >= 0) & (moments <= FRAMES - 1)
            assert inside.sum() >= FRAMES / 1.2 - 2
            told = np.interp(moments[inside] + 0.5 * (moments[1] - moments[0]) - 0.5, np.arange(FRAMES), level)
            assert np.corrcoef(said[inside], told)[0, 1] > (0.999 if number == 0 else 0.7)

    def test_what_was_heard_is_not_heard_again(
        self, prepared: Manifest, train: list[ClipSpeech], tmp_path: Path
    ) -> None:
        def deaf(samples: np.ndarray, peaks: np.ndarray) -> np.ndarray:
            raise AssertionError("heard again")

        manifest, config = Manifest(prepared.entries, tmp_path), HEARING.model.generator
        sounds = {clip.name: whole_sound(prepared, clip) for clip in train[:1]}
        first = heard_clips(manifest, sounds, config, self.hear)
        again = heard_clips(manifest, sounds, config, deaf)
        assert all(
            np.array_equal(a.states, b.states) and np.array_equal(a.moments, b.moments)
            for a, b in zip(*(next(iter(found.values())) for found in (first, again)), strict=True)
        )
        with pytest.raises(AssertionError, match="heard again"):
            heard_clips(manifest, sounds, replace(config, context_frames=12), deaf)

    @pytest.mark.parametrize("shift", [-2, 0, 3])
    def test_targets_follow_a_sound_that_was_moved(
        self, train: list[ClipSpeech], heard: dict[str, list[HeardClip]], shift: int
    ) -> None:
        """Frame f of the mouth was spoken `shift` frames before, whatever has been cut off."""
        basis, scale = np.zeros((4, 478, 3), np.float32), np.ones(4, np.float32)
        first = train[0]
        basis[0, 13] = 1.0
        counted = np.zeros_like(first.displacements)
        counted[:, 13] = np.arange(FRAMES)[:, None]
        clip = in_step(replace(first, displacements=counted), shift)
        unit = coefficients(replace(first, displacements=counted), basis, scale)[1, 0]
        targets = [coefficients(clip, basis, scale)]
        source = StatesSet([clip], heard, np.zeros((1, 2), np.float32), targets, frames=16, seed=0)
        batch = source.batch(0, range(20))
        assert batch["states"].shape[:2] == (20, 2)
        spoken = [variant.moments.ravel() + shift for variant in heard[first.name]]
        for row in range(20):
            known = batch["valid"][row] > 0
            target = batch["coefficients"][row, known, 0].numpy() / unit
            windows = (moments[at:][: len(target)] for moments in spoken for at in range(len(moments)))
            assert any(len(own) == len(target) and np.allclose(own, target, atol=0.02) for own in windows)

    def test_speech_of_known_sounds_only_asks_lips_to_meet_and_to_part(
        self, prepared: Manifest, train: list[ClipSpeech], heard: dict[str, list[HeardClip]], tmp_path: Path
    ) -> None:
        phonemes = (("a", 0.0, 0.4), ("p", 0.4, 0.48), ("a", 0.48, 0.8))
        speech = Spoken("spoken-x", np.random.default_rng(0).normal(0, 0.1, 12_800).astype(np.float32), phonemes)
        manifest = Manifest(prepared.entries, tmp_path)
        said = heard_clips(manifest, {speech.name: speech.samples}, HEARING.model.generator, self.hear)
        targets = [np.zeros((len(clip), 4), np.float32) for clip in train]
        source = StatesSet(
            train, heard | said, np.zeros((len(train), 2), np.float32), targets, frames=16, seed=0, spoken=[speech]
        )
        batch = source.batch(0, range(60))
        asked = (batch["closed"] + batch["parted"]).any(1)
        assert 3 <= asked.sum() <= 30  # about a fifth
        assert batch["synthetic"][asked].all()
        assert not batch["valid"][batch["synthetic"]].any()
        assert batch["valid"][~asked].any()
        assert ((batch["closed"] == 0) | (batch["parted"] == 0)).all()
        assert batch["closed"].any()
        assert batch["parted"].any()
        repeated = source.batch(0, range(30, 60))
        assert torch.equal(repeated["states"], batch["states"][30:])


class FollowsTheFirstBands(Generator):
    """A generator that reads its coefficients off the first bands: what it hears is the truth of that moment."""

    def __init__(self, basis: np.ndarray, scale: np.ndarray) -> None:
        super().__init__(replace(TINY.generator, components=len(scale)))
        self.basis.copy_(torch.from_numpy(basis))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, heard: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        return heard[:, ::4, : len(self.scale)]


class TestAlignment:
    @pytest.fixture
    def stub(self, prepared: Manifest) -> FollowsTheFirstBands:
        generator = ATLModel(TINY).generator
        fill_buffers(generator, usable_speech(prepared, Split.TRAIN, LANDMARKS))
        return FollowsTheFirstBands(generator.basis.numpy().copy(), generator.scale.numpy().copy())

    def with_lag(self, manifest: Manifest, stub: FollowsTheFirstBands, lag: int) -> None:
        """Let every clip's sound say, `lag` frames ahead of the mouth, what the mouth will do."""
        for entry in manifest.usable(Split.TRAIN):
            clip = load_speech(manifest, entry)
            assert clip is not None
            truth = coefficients(clip, stub.basis.numpy(), stub.scale.numpy())
            moments = np.clip(np.arange(len(truth)) + lag, 0, len(truth) - 1)
            tensors = load_arrays(manifest.tensors(entry))
            mel = np.zeros_like(tensors["mel"])
            mel[:, : truth.shape[1]] = np.repeat(truth[moments], 4, axis=0)
            tensors["mel"] = mel
            save_arrays(tensors, manifest.tensors(entry))

    @pytest.mark.parametrize("lag", [3, 0, -2])
    def test_finds_an_artificial_lag(
        self, prepared: Manifest, tmp_path: Path, stub: FollowsTheFirstBands, lag: int
    ) -> None:
        manifest = copy_of(prepared, tmp_path / "data")
        self.with_lag(manifest, stub, lag)
        seen = []
        measured = align(manifest, stub, lambda done, total: seen.append((done, total)))
        assert {name: at for name, (_, at) in measured.items()} == dict.fromkeys(measured, lag)
        assert set(measured) == {entry.record.name for entry in manifest.usable(Split.TRAIN)}
        assert min(agreement for agreement, _ in measured.values()) > 0.98
        assert seen == [(1, 2), (2, 2)]
        assert load_alignment(manifest.folder) == measured
        # The next run shifts by it: what is heard and what is seen are then of one moment.
        for clip in usable_speech(manifest, Split.TRAIN, LANDMARKS):
            truth = coefficients(clip, stub.basis.numpy(), stub.scale.numpy())
            assert len(clip) == FRAMES - abs(lag)
            assert np.abs(clip.mel[::4, : truth.shape[1]] - truth).max() < 0.01

    def test_what_disagrees_is_left_out(self, prepared: Manifest, tmp_path: Path) -> None:
        manifest = copy_of(prepared, tmp_path / "data")
        names = [entry.record.name for entry in manifest.usable(Split.TRAIN)]
        for verdicts, kept in (
            ([(0.9, 1), (0.2, 0)], [0]),
            ([(0.9, 4), (0.9, -3)], [1]),
            ([(0.45, 0), (0.449, 0)], [0]),
        ):
            found = dict(zip(names, verdicts, strict=True))
            (manifest.folder / "alignment.json").write_text(json.dumps(found))
            clips = usable_speech(manifest, Split.TRAIN, LANDMARKS)
            assert [clip.name for clip in clips] == [names[i] for i in kept]
        assert len(usable_speech(manifest, Split.VAL, LANDMARKS)) == 1  # held-out people are never judged by it

    def test_an_excluded_source_comes_back_once_it_is_measured(self, prepared: Manifest, tmp_path: Path) -> None:
        manifest = copy_of(prepared, tmp_path / "data")
        config = replace(LANDMARKS, exclude_sources=("synthetic",))
        assert usable_speech(manifest, Split.TRAIN, config) == []
        name = manifest.usable(Split.TRAIN)[0].record.name
        (manifest.folder / "alignment.json").write_text(json.dumps({name: [0.8, 2]}))
        (clip,) = usable_speech(manifest, Split.TRAIN, config)
        assert (clip.name, len(clip)) == (name, FRAMES - 2)

    def test_none_yet(self, tmp_path: Path) -> None:
        assert load_alignment(tmp_path) is None

    def test_by_a_checkpoint(self, prepared: Manifest, tmp_path: Path) -> None:
        run(LANDMARKS, prepared, tmp_path / "run")
        manifest = copy_of(prepared, tmp_path / "data")
        measured = align_data(tmp_path / "run" / "checkpoint", manifest.folder)
        assert load_alignment(manifest.folder) == measured
        assert all(-1 <= agreement <= 1 for agreement, _ in measured.values())

    def test_slopes_are_the_opening_of_one_unit(self, stub: FollowsTheFirstBands) -> None:
        slopes = opening_slopes(stub)
        for index, slope in enumerate(slopes):
            moved = float(stub.scale[index]) * stub.basis[index].numpy()
            gaps = [moved[87, 1] - moved[82, 1], moved[14, 1] - moved[13, 1], moved[317, 1] - moved[312, 1]]
            assert slope == pytest.approx(np.mean(gaps), abs=1e-6)
